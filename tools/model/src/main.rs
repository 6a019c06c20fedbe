//! `model`: explores every scenario and prints what holds. Exits with 1 if a property is broken, or
//! if a scenario explored too few states to show anything.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use model::plant::Plant;
use model::scenario::{self, Bounds, Explored, Scenario};
use stateright::Model;

/// Explores the saga and the log under every fault that the design handles.
#[derive(Debug, Parser)]
struct Options {
    /// Explore only what takes less than a minute
    #[arg(long)]
    quick: bool,
    /// Plant a bug, which the checker must find
    #[arg(long, env = "REEL_MODEL_PLANT", value_enum)]
    plant: Option<Plant>,
    /// Explore only the scenarios whose names begin with this
    #[arg(long, default_value = "")]
    only: String,
    /// Number of threads; with one thread, stories are as short as possible
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Time limit per scenario, in seconds
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let known = if options.quick { scenario::quick() } else { scenario::all() };
    let scenarios: Vec<Scenario> =
        known.into_iter().filter(|it| it.name.starts_with(&options.only)).collect();
    let seconds = options.seconds.unwrap_or(if options.quick { 5 } else { 120 });
    let bounds =
        Bounds { states: usize::MAX, time: Duration::from_secs(seconds), threads: options.threads };

    let (mut broken, mut too_little) = (false, false);
    println!("{:22} {:>10} {:>6} {:>8}  explored", "scenario", "states", "depth", "seconds");
    for scenario in &scenarios {
        let explored = scenario.explore(options.plant, bounds);
        print(scenario, &explored);
        broken |= !explored.broken.is_empty();
        if broken {
            break;
        }
        if explored.states < scenario.floor() && options.seconds.is_none() {
            println!("too few: {} has {} states at least", scenario.name, scenario.floor());
            too_little = true;
        }
    }

    if !broken && let Some(first) = scenarios.first() {
        println!("\nholds in every state:");
        first.rules(None).properties().iter().for_each(|property| println!("  {}", property.name));
    }

    if broken || too_little { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn print(scenario: &Scenario, explored: &Explored) {
    let Explored { states, depth, took, .. } = explored;
    let seconds = took.as_secs_f64();
    let end = match (explored.broken.is_empty(), explored.whole) {
        (false, _) => "BROKEN",
        (true, true) => "completely",
        (true, false) => "in part",
    };
    println!(
        "{:22} {states:>10} {depth:>6} {seconds:>8.1}  {end}: {}",
        scenario.name, scenario.about
    );

    for (property, story) in &explored.broken {
        println!("\ndoes not hold: {property}");
        story.iter().for_each(|line| println!("{line}"));
    }
}
