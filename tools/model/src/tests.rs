//! Quick scenarios hold, and each planted bug is found in the scenarios named here.

use std::time::Duration;

use crate::plant::Plant;
use crate::scenario::{self, Bounds, Explored, Scenario};

fn scenario(name: &str) -> Scenario {
    scenario::all().into_iter().find(|it| it.name == name).expect("a scenario of this name")
}

fn explore(scenario: &Scenario, plant: Option<Plant>) -> Explored {
    scenario
        .explore(plant, Bounds { states: usize::MAX, time: Duration::from_secs(30), threads: 1 })
}

fn story(explored: &Explored) -> String {
    explored
        .broken
        .iter()
        .map(|(property, story)| format!("does not hold: {property}\n{}\n", story.join("\n")))
        .collect()
}

fn finds(name: &str, plant: Plant) {
    let explored = explore(&scenario(name), Some(plant));
    assert!(
        !explored.broken.is_empty(),
        "{plant:?} is not found in {} states of {name}",
        explored.states
    );
}

#[test]
fn one_order_ends_whatever_interleaves() {
    let explored = explore(&scenario("saga-one"), None);
    assert!(explored.whole, "{}", story(&explored));
}

#[test]
fn the_log_holds_with_zombies_and_a_database_put_back_in_time() {
    for name in ["log-zombie", "log-rewind", "log-both", "log-shared-rewind"] {
        let explored = explore(&scenario(name), None);
        assert!(explored.whole, "{name}: {}", story(&explored));
    }
}

#[test]
fn an_order_ends_though_a_database_goes_back_in_time() {
    for name in ["payment-rewind", "inventory-rewind"] {
        let explored = explore(&scenario(name), None);
        assert!(explored.broken.is_empty(), "{name}: {}", story(&explored));
    }
}

#[test]
fn each_planted_bug_is_found() {
    finds("log-two-takes", Plant::TokenNotChecked);
    finds("log-both", Plant::GenerationNotChecked);
    finds("payment-rewind", Plant::GenerationNotChecked);
    finds("log-shared-rewind", Plant::DecidesBeforeAllLanesAreOpen);
    finds("saga-one", Plant::RefundTwice);
    finds("saga-one", Plant::PositionApart);
    finds("log-zombie", Plant::CursorBeforeAcks);
    finds("saga-one", Plant::NumberFromSequence);
    finds("saga-one", Plant::OutboxAfterCommit);
    finds("saga-one", Plant::AbsentRowUpserted);
    finds("log-rewind", Plant::PositionsNotRestored);
    finds("payment-rewind", Plant::PositionsNotRestored);
    finds("payment-rewind", Plant::NothingFolded);
    finds("log-zombie", Plant::JumpNotChecked);
}

/// A limit of the design: see `Ledger::pays_in`.
#[test]
fn a_deposit_lost_with_the_database_can_leave_an_account_below_zero() {
    let explored = explore(&scenario::a_deposit_lost_with_the_database(), None);
    assert!(story(&explored).contains("more was spent than there was"), "{}", story(&explored));
}

#[test]
fn a_story_says_who_did_what() {
    let explored = explore(&scenario("saga-one"), Some(Plant::AbsentRowUpserted));
    assert!(
        story(&explored).contains(
            "that second replica writes its row and order commits OrderCreated of order 1"
        ),
        "{}",
        story(&explored)
    );
}

#[test]
fn every_quick_scenario_has_a_floor() {
    for scenario in scenario::quick() {
        assert!(scenario.floor() > 1_000, "{} has none", scenario.name);
    }
}
