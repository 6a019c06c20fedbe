//! Opening a lane against a real topic: what a zombie sent, what a database lost, what somebody else wrote.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::till::{Credited, Fixture, TillEvent};
use crate::database::Writes;
use crate::kafka::Record;
use crate::lanes::{Grant, OpenLane, OpeningError, Position, Verdict, open};
use crate::model::{Event, Partition};
use crate::outbox::{Acks, Draft, Numbered, number};
use crate::wire::{Cause, Decided, Envelope, Traced};

const LANE: Partition = Partition(0);

/// Keys of lane 0.
fn key(fixture: &Fixture, nth: usize) -> String {
    let keys = (0..).map(|n| format!("entry-{n}")).filter(|key| fixture.replica.partitions.of(key.as_bytes()) == LANE);
    keys.take(nth + 1).last().expect("a key")
}

fn event(fixture: &Fixture, nth: usize) -> Credited {
    Credited { entry: key(fixture, nth), account: "x".into(), amount: 1 << nth }
}

/// An event as an owner would send it.
fn numbered(fixture: &Fixture, nth: usize, seq: i64, cause: Option<Cause>) -> Numbered {
    let event = event(fixture, nth);
    let envelope = Envelope {
        id: Uuid::now_v7(),
        name: "Credited".into(),
        number: Some(seq),
        decided: Some(Decided { step: 100 + seq, place: 0 }),
        traced: Traced { cause, ..Traced::default() },
        ..Envelope::default()
    };
    Numbered { partition: LANE, seq, key: event.entry.clone(), payload: TillEvent::from(event).encode().expect("encodes"), envelope }
}

/// Sends and waits until all were acked, whoever else writes.
async fn send(fixture: &Fixture, generation: i64, events: &[Numbered]) {
    let acks = Arc::new(Acks::new(0, generation));
    for event in events {
        fixture.replica.publisher.send(event, generation, &acks).expect("sent");
    }
    devstack::wait::until(Duration::from_secs(20), "acks", || async { Ok((acks.get().answered == events.len() as u64).then_some(())) })
        .await
        .expect("acked");
}

async fn open_lane(fixture: &Fixture) -> (Grant, Result<OpenLane, OpeningError>) {
    let grant = fixture.take(LANE).await;
    let opened = open(&fixture.replica, &grant).await;
    (grant, opened)
}

async fn opened(name: &str) -> (Fixture, OpenLane) {
    let fixture = Fixture::closed(name).await;
    fixture.make_topics().await;
    let lane = open_lane(&fixture).await.1.expect("opens");
    (fixture, lane)
}

/// What a consumer applies of the lane's partition.
async fn applied(fixture: &Fixture) -> Vec<(i64, Uuid)> {
    let (_, end) = fixture.replica.reader.watermarks(&fixture.replica.topic, LANE).await.expect("watermarks");
    let mut records = fixture.replica.reader.range(&fixture.replica.topic, LANE, 0, end);
    let (mut position, mut applied) = (Position::START, Vec::new());
    while let Some(record) = records.recv().await {
        let record: Record = record.expect("record");
        if position.read(&record) == Verdict::Apply {
            let envelope = record.envelope.expect("envelope");
            applied.push((envelope.number.expect("number"), envelope.id));
        }
    }
    applied
}

#[tokio::test]
async fn a_zombies_late_records_are_applied_by_no_consumer() {
    let (fixture, zombie) = opened("zombie").await;
    let (_, owner) = open_lane(&fixture).await;
    let owner = owner.expect("opens");
    assert!(owner.generation > zombie.generation);
    send(&fixture, zombie.generation, &[numbered(&fixture, 0, 0, None)]).await;
    assert_eq!(applied(&fixture).await, []);
    let genuine = numbered(&fixture, 1, 0, None);
    send(&fixture, owner.generation, std::slice::from_ref(&genuine)).await;
    assert_eq!(applied(&fixture).await, [(0, genuine.envelope.id)]);
}

#[tokio::test]
async fn a_zombies_records_before_the_opening_are_not_lost() {
    let (fixture, zombie) = opened("before").await;
    // Numbered and sent by an owner whose database was then put back in time.
    let cause = Cause { topic: fixture.replica.inputs[0].to_string(), partition: 0, generation: 0, number: 4, offset: 9 };
    send(&fixture, zombie.generation, &[numbered(&fixture, 0, 0, None), numbered(&fixture, 1, 1, Some(cause))]).await;
    let grant = fixture.take(LANE).await;
    // The input's reel.opened at offset 0, which the cause names, must be there.
    let before = open(&fixture.replica, &grant).await;
    assert!(matches!(before, Err(OpeningError::Reading(_) | OpeningError::Stopped(_))), "the input is empty: {before:?}");
    assert_eq!(fixture.count("select balance from accounts where account = 'x'").await, 3, "both are folded");
    assert_eq!(fixture.count("select next_seq from reel.heads where partition = 0").await, 2);
    assert_eq!(
        fixture.count("select next_offset from reel.positions where partition = 0").await,
        10,
        "the highest cause restores the position"
    );
    assert_eq!(fixture.count("select next_seq from reel.positions where partition = 0").await, 5);
    assert!(fixture.count("select nextval('reel.decided')").await > 101, "decisions go on behind those that were folded");
}

#[tokio::test]
async fn opening_twice_folds_once() {
    let (fixture, owner) = opened("twice").await;
    send(&fixture, owner.generation, &[numbered(&fixture, 0, 0, None)]).await;
    for _ in 0..2 {
        let lane = open_lane(&fixture).await.1.expect("opens");
        assert_eq!(lane.next_seq, 1);
        assert_eq!(fixture.count("select balance from accounts where account = 'x'").await, 1);
    }
}

#[tokio::test]
async fn a_fork_stops_the_lane() {
    let (fixture, owner) = opened("fork").await;
    fixture.execute("update reel.heads set opened_run = reel.run()").await;
    let mut connection = fixture.connection().await;
    let ours = event(&fixture, 0);
    let draft = Draft {
        partition: LANE,
        event_id: Uuid::now_v7(),
        key: ours.entry.clone(),
        name: "Credited",
        payload: TillEvent::from(ours).encode().expect("encodes"),
        traced: Traced::default(),
    };
    number(&mut connection, Writes::default(), vec![draft]).await.expect("number").expect("open");
    send(&fixture, owner.generation, &[numbered(&fixture, 1, 0, None)]).await;
    let Err(OpeningError::Stopped(reason)) = open_lane(&fixture).await.1 else { panic!("must stop") };
    assert!(reason.contains("fork: number 0"), "{reason}");
}

#[tokio::test]
async fn an_own_topic_made_anew_stops_the_lane() {
    let (fixture, _) = opened("anew").await;
    devstack::topics::delete_with_prefix(&fixture.kafka.brokers, &fixture.kafka.prefix).await.expect("deleted");
    fixture.make_topics().await;
    fixture.replica.publisher.open(LANE, "another").await.expect("opened by somebody");
    let Err(OpeningError::Stopped(reason)) = open_lane(&fixture).await.1 else { panic!("must stop") };
    assert!(reason.contains("made anew"), "{reason}");
}

#[tokio::test]
async fn an_own_topic_that_is_gone_is_not_taken_for_one_that_does_not_exist_yet() {
    let (fixture, _) = opened("gone").await;
    devstack::topics::delete_with_prefix(&fixture.kafka.brokers, &fixture.kafka.prefix).await.expect("deleted");
    devstack::wait::until(Duration::from_secs(60), "the topic to be gone", || async {
        let opened = open_lane(&fixture).await.1;
        Ok(matches!(opened, Err(OpeningError::Gone { topic }) if *topic == *fixture.replica.topic).then_some(()))
    })
    .await
    .expect("gone");
}

#[tokio::test]
async fn an_own_topic_that_lost_its_end_stops_the_lane_although_it_has_grown_again() {
    let (fixture, owner) = opened("cut").await;
    send(&fixture, owner.generation, &[numbered(&fixture, 0, 0, None), numbered(&fixture, 2, 2, None)]).await;
    // We had published 0 and 1; 1 was lost, and 2 came to stand in its place.
    fixture.execute("update reel.cursors set seq = 2, \"offset\" = generation + 3 where partition = 0").await;
    fixture.execute("update reel.heads set next_seq = 3 where partition = 0").await;
    let Err(OpeningError::Stopped(reason)) = open_lane(&fixture).await.1 else { panic!("must stop") };
    assert!(reason.contains("does not hold our event 1"), "{reason}");
}

#[tokio::test]
async fn a_token_that_was_taken_opens_nothing() {
    let (fixture, _) = opened("token").await;
    let zombie = fixture.take(LANE).await;
    fixture.take(LANE).await;
    assert!(matches!(open(&fixture.replica, &zombie).await, Err(OpeningError::Lost)));
}
