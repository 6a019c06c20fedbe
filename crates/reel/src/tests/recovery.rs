//! Recovery of a lane against a real topic: records of a zombie, events that a database lost, and
//! foreign records.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::till::{Credited, Fixture, TillEvent};
use crate::database::WriteBatch;
use crate::kafka::Record;
use crate::kafka::continuity::{self, ContinuityError};
use crate::lane::{Lease, OpenLane};
use crate::lanes::{RecoveryError, recover};
use crate::log::{Position, Verdict};
use crate::model::{Event, Partition};
use crate::relay::Acks;
use crate::tables::outbox::{OutboxEvent, PendingEvent, append};
use crate::wire::{Causality, DecisionOrder, Envelope, RecordRef};

const LANE: Partition = Partition(0);

/// The n-th key that falls into lane 0.
fn key(fixture: &Fixture, nth: usize) -> String {
    let keys = (0..)
        .map(|n| format!("entry-{n}"))
        .filter(|key| fixture.replica.partitions.of(key.as_bytes()) == LANE);
    keys.take(nth + 1).last().expect("a key")
}

fn event(fixture: &Fixture, nth: usize) -> Credited {
    Credited { entry: key(fixture, nth), account: "x".into(), amount: 1 << nth }
}

/// An event as an owner of the lane would send it.
fn outbox_event(
    fixture: &Fixture,
    nth: usize,
    sequence: i64,
    cause: Option<RecordRef>,
) -> OutboxEvent {
    let event = event(fixture, nth);
    let envelope = Envelope {
        id: Uuid::now_v7(),
        event_type: "Credited".into(),
        sequence: Some(sequence),
        decided: Some(DecisionOrder { step: 100 + sequence, place: 0 }),
        causality: Causality { cause, ..Causality::default() },
        ..Envelope::default()
    };
    OutboxEvent {
        partition: LANE,
        sequence,
        key: event.entry.clone(),
        payload: TillEvent::from(event).encode().expect("encodes"),
        envelope,
    }
}

/// Sends events and waits until all are acked, even if somebody else writes too.
async fn send(fixture: &Fixture, epoch: i64, events: &[OutboxEvent]) {
    let acks = Arc::new(Acks::new(0, epoch));
    for event in events {
        fixture.replica.publisher.send(event, epoch, &acks).expect("sent");
    }
    devstack::wait::until(Duration::from_secs(20), "acks", || async {
        Ok((acks.get().answered == events.len() as u64).then_some(()))
    })
    .await
    .expect("acked");
}

async fn open_lane(fixture: &Fixture) -> (Lease, Result<OpenLane, RecoveryError>) {
    let lease = fixture.acquire(LANE).await;
    let opened = recover(&fixture.replica, &lease).await;
    (lease, opened)
}

async fn opened(name: &str) -> (Fixture, OpenLane) {
    let fixture = Fixture::closed(name).await;
    fixture.create_topics().await;
    let lane = open_lane(&fixture).await.1.expect("opens");
    (fixture, lane)
}

/// The sequences and ids of the events that a consumer applies from the lane's partition.
async fn applied(fixture: &Fixture) -> Vec<(i64, Uuid)> {
    let (reader, topic) = (&fixture.replica.reader, &fixture.replica.topic);
    let (_, end) = reader.watermarks(topic, LANE).await.expect("watermarks");
    let mut records = reader.range(topic, LANE, 0, end);

    let (mut position, mut applied) = (Position::START, Vec::new());
    while let Some(record) = records.recv().await {
        let record: Record = record.expect("record");
        if position.read(&record) == Verdict::Apply {
            let envelope = record.envelope.expect("envelope");
            applied.push((envelope.sequence.expect("sequence"), envelope.id));
        }
    }
    applied
}

#[tokio::test]
async fn a_zombies_late_records_are_applied_by_no_consumer() {
    let (fixture, zombie) = opened("zombie").await;
    let (_, owner) = open_lane(&fixture).await;
    let owner = owner.expect("opens");
    assert!(owner.epoch > zombie.epoch);

    send(&fixture, zombie.epoch, &[outbox_event(&fixture, 0, 0, None)]).await;
    assert_eq!(applied(&fixture).await, []);

    let genuine = outbox_event(&fixture, 1, 0, None);
    send(&fixture, owner.epoch, std::slice::from_ref(&genuine)).await;
    assert_eq!(applied(&fixture).await, [(0, genuine.envelope.id)]);
}

#[tokio::test]
async fn a_zombies_records_before_the_opening_are_not_lost() {
    let (fixture, zombie) = opened("before").await;

    // Committed and sent by an owner whose database was then put back in time.
    let cause = RecordRef {
        topic: fixture.replica.inputs[0].to_string(),
        partition: 0,
        epoch: 0,
        sequence: 4,
        offset: 9,
    };
    send(
        &fixture,
        zombie.epoch,
        &[outbox_event(&fixture, 0, 0, None), outbox_event(&fixture, 1, 1, Some(cause))],
    )
    .await;

    // The cause names the input's `reel.opened` at offset 0, which does not exist.
    let lease = fixture.acquire(LANE).await;
    let before = recover(&fixture.replica, &lease).await;
    assert!(
        matches!(before, Err(RecoveryError::Continuity(_) | RecoveryError::Stopped(_))),
        "the input is empty: {before:?}"
    );

    assert_eq!(
        fixture.count("select balance from accounts where account = 'x'").await,
        3,
        "both are folded"
    );
    assert_eq!(fixture.count("select next_seq from reel.heads where partition = 0").await, 2);
    assert_eq!(
        fixture.count("select next_offset from reel.positions where partition = 0").await,
        10,
        "the highest cause restores the position"
    );
    assert_eq!(fixture.count("select next_seq from reel.positions where partition = 0").await, 5);
    assert!(
        fixture.count("select nextval('reel.decided')").await > 101,
        "new decisions come after those that were folded"
    );
}

#[tokio::test]
async fn recovering_twice_folds_once() {
    let (fixture, owner) = opened("twice").await;
    send(&fixture, owner.epoch, &[outbox_event(&fixture, 0, 0, None)]).await;
    for _ in 0..2 {
        let lane = open_lane(&fixture).await.1.expect("opens");
        assert_eq!(lane.next_sequence, 1);
        assert_eq!(fixture.count("select balance from accounts where account = 'x'").await, 1);
    }
}

#[tokio::test]
async fn a_fork_stops_the_lane() {
    let (fixture, owner) = opened("fork").await;
    fixture.execute("update reel.heads set opened_run = reel.run()").await;

    let mut connection = fixture.connection().await;
    let ours = event(&fixture, 0);
    let pending = PendingEvent {
        partition: LANE,
        event_id: Uuid::now_v7(),
        key: ours.entry.clone(),
        event_type: "Credited",
        payload: TillEvent::from(ours).encode().expect("encodes"),
        causality: Causality::default(),
    };
    append(&mut connection, WriteBatch::default(), vec![pending]).await.expect("append");

    send(&fixture, owner.epoch, &[outbox_event(&fixture, 1, 0, None)]).await;

    let Err(RecoveryError::Stopped(reason)) = open_lane(&fixture).await.1 else {
        panic!("must stop")
    };
    assert!(reason.contains("fork: sequence 0"), "{reason}");
}

#[tokio::test]
async fn an_own_topic_that_was_recreated_stops_the_lane() {
    let (fixture, _) = opened("recreated").await;
    devstack::topics::delete_with_prefix(&fixture.kafka.brokers, &fixture.kafka.prefix)
        .await
        .expect("deleted");
    fixture.create_topics().await;
    fixture.replica.publisher.open(LANE, "another").await.expect("opened by somebody else");

    let Err(RecoveryError::Stopped(reason)) = open_lane(&fixture).await.1 else {
        panic!("must stop")
    };
    assert!(reason.contains("recreated"), "{reason}");
}

#[tokio::test]
async fn an_own_topic_that_is_gone_is_not_mistaken_for_one_that_does_not_exist_yet() {
    let (fixture, _) = opened("gone").await;
    devstack::topics::delete_with_prefix(&fixture.kafka.brokers, &fixture.kafka.prefix)
        .await
        .expect("deleted");

    devstack::wait::until(Duration::from_secs(60), "the topic to be gone", || async {
        let opened = open_lane(&fixture).await.1;
        Ok(matches!(
            opened,
            Err(RecoveryError::Continuity(ContinuityError::Gone { topic }))
                if *topic == *fixture.replica.topic
        )
        .then_some(()))
    })
    .await
    .expect("gone");
}

#[tokio::test]
async fn an_own_topic_that_lost_its_end_stops_the_lane_even_if_it_has_grown_again() {
    let (fixture, owner) = opened("cut").await;
    send(
        &fixture,
        owner.epoch,
        &[outbox_event(&fixture, 0, 0, None), outbox_event(&fixture, 2, 2, None)],
    )
    .await;

    // Events 0 and 1 had been published; 1 was lost, and 2 took its offset.
    fixture
        .execute("update reel.cursors set seq = 2, \"offset\" = generation + 3 where partition = 0")
        .await;
    fixture.execute("update reel.heads set next_seq = 3 where partition = 0").await;

    let Err(RecoveryError::Stopped(reason)) = open_lane(&fixture).await.1 else {
        panic!("must stop")
    };
    assert!(reason.contains("does not hold our event 1"), "{reason}");
}

/// A reader had read beyond what the topic kept, and the topic was written on since.
#[tokio::test]
async fn an_input_that_regrew_past_its_reader_is_not_read_on() {
    let (fixture, before) = opened("regrew").await;
    send(&fixture, before.epoch, &[outbox_event(&fixture, 0, 0, None)]).await;
    let (_, since) = open_lane(&fixture).await;
    let since = since.expect("opens");
    send(&fixture, since.epoch, &[outbox_event(&fixture, 1, 1, None)]).await;

    let check = async |epoch: i64, next_sequence: i64| {
        let next_offset = since.epoch + 2;
        let position = Position { next_offset, next_sequence, epoch, opened_id: None };
        let (reader, topic) = (&fixture.replica.reader, &fixture.replica.topic);
        continuity::check_input(reader, topic, LANE, &position).await
    };
    check(since.epoch, 2).await.expect("what this reader has read");
    for (epoch, next_sequence) in [(before.epoch, 3), (since.epoch, 1)] {
        let lost = check(epoch, next_sequence).await.expect_err("another record is there");
        assert!(lost.to_string().contains("its end was lost"), "{lost}");
    }
}

#[tokio::test]
async fn a_superseded_token_opens_nothing() {
    let (fixture, _) = opened("token").await;
    let zombie = fixture.acquire(LANE).await;
    fixture.acquire(LANE).await;
    assert!(matches!(recover(&fixture.replica, &zombie).await, Err(RecoveryError::Lost)));
}
