//! The outbox: contiguous sequences in commit order, and a cursor that follows the acks.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use sqlx::PgConnection;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::till::{Fixture, Till};
use crate::database::WriteBatch;
use crate::kafka::KafkaConfig;
use crate::lane::{LaneEvent, Lease};
use crate::model::{Partition, Service};
use crate::relay::{self, Publisher, Relay, RelayHandle, RelayLane};
use crate::tables::outbox::{Appended, OutboxEvent, PendingEvent, append, read};
use crate::wire::Causality;

/// An address where no broker listens.
const NOWHERE: &str = "127.0.0.1:1";

/// A limit of bytes that no read reaches.
const ANY: usize = 1_000_000;

/// Appends events to an outbox whose lanes are all open.
async fn appended(connection: &mut PgConnection, events: Vec<PendingEvent>) -> Vec<OutboxEvent> {
    match append(connection, WriteBatch::default(), events).await.expect("append") {
        Appended::Events(events) => events,
        Appended::Closed => panic!("all lanes are open"),
    }
}

fn pending(partition: i32) -> PendingEvent {
    PendingEvent {
        partition: Partition(partition),
        event_id: Uuid::now_v7(),
        key: "k".into(),
        event_type: "Credited",
        payload: vec![1],
        causality: Causality::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commands_on_one_partition_get_contiguous_sequences_in_commit_order() {
    const WRITERS: i64 = 8;
    const EACH: i64 = 25;
    let fixture = Fixture::open("sequences").await;

    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = fixture.connection().await;
        writers.spawn(async move {
            for round in 0..EACH {
                let mut transaction = connection.begin().await.expect("begin");
                let partitions = if (writer + round) % 2 == 0 { [0, 1, 0] } else { [1, 0, 0] };
                let pending_events = partitions.into_iter().map(pending).collect();
                appended(&mut transaction, pending_events).await;
                if round % 5 == 4 {
                    transaction.rollback().await.expect("rollback");
                } else {
                    transaction.commit().await.expect("commit");
                }
            }
        });
    }

    // A reader that polls meanwhile never sees a sequence whose predecessor is missing.
    let mut reader = fixture.connection().await;
    let total = WRITERS * EACH * 4 / 5 * 2;
    let mut seen = 0_i64;
    let reading = async {
        while seen < total {
            for row in read(&mut reader, &[(Partition(0), seen)], 1_000, ANY).await.expect("read") {
                assert_eq!(row.sequence, seen, "a sequence was skipped");
                seen += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("all sequences arrive");

    while let Some(ended) = writers.join_next().await {
        ended.expect("writer");
    }
    assert_eq!(fixture.count("select next_seq from reel.heads where partition = 0").await, total);
}

#[tokio::test]
async fn a_rolled_back_command_leaves_no_gap() {
    let fixture = Fixture::open("rollback").await;
    let mut connection = fixture.connection().await;
    for commits in [true, false, true] {
        let mut transaction = connection.begin().await.expect("begin");
        let events = appended(&mut transaction, vec![pending(2)]).await;
        assert_eq!(events.len(), 1);
        if commits { transaction.commit().await } else { transaction.rollback().await }
            .expect("end");
    }

    let rows = read(&mut connection, &[(Partition(2), 0)], 10, ANY).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.sequence).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn a_read_ends_with_the_row_that_exceeds_its_bytes() {
    let fixture = Fixture::open("bytes").await;
    let mut connection = fixture.connection().await;
    let large = |partition| PendingEvent { payload: vec![0; 1_000], ..pending(partition) };
    let events = (0..4).map(|_| large(0)).chain((0..4).map(|_| pending(1))).collect();
    appended(&mut connection, events).await;

    let lanes = [(Partition(0), 1), (Partition(1), 0)];
    let rows = read(&mut connection, &lanes, 3, 1_500).await.expect("read");
    let read: Vec<_> = rows.iter().map(|row| (row.partition.0, row.sequence)).collect();
    assert_eq!(read, [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
}

#[tokio::test]
async fn no_sequence_is_assigned_while_one_lane_is_closed() {
    let fixture = Fixture::open("one-closed").await;
    fixture
        .execute("update reel.heads set opened_run = 'an earlier run' where partition = 2")
        .await;

    let mut connection = fixture.connection().await;
    let closed = append(&mut connection, WriteBatch::default(), vec![pending(0)]).await;
    assert!(matches!(closed.expect("append"), Appended::Closed));
    assert_eq!(fixture.count("select sum(next_seq)::bigint from reel.heads").await, 0);
}

#[tokio::test]
async fn decisions_are_numbered_in_a_valid_serial_order() {
    let fixture = Fixture::open("decided").await;
    let mut connection = fixture.connection().await;
    let first = appended(&mut connection, vec![pending(0), pending(1)]).await;
    let second = appended(&mut connection, vec![pending(0)]).await;
    let order: Vec<_> =
        first.iter().chain(&second).filter_map(|event| event.envelope.decided).collect();
    assert!(order.is_sorted() && order.len() == 3, "{order:?}");
}

/// The relay of lane 0, whose producer reaches no broker, so that nothing is ever acked.
struct Unacked {
    fixture: Fixture,
    publisher: Arc<Publisher>,
    relay: RelayHandle,
    lease: Lease,
    events: mpsc::UnboundedReceiver<LaneEvent>,
}

impl Unacked {
    async fn open(name: &str) -> Self {
        let fixture = Fixture::open(name).await;
        let lease = fixture.acquire(Partition(0)).await;
        let replica = fixture.replica.clone();

        let nowhere = KafkaConfig { brokers: NOWHERE.to_owned(), ..fixture.kafka.clone() };
        let publisher = Publisher::new(&nowhere, Till::NAME, replica.topic.clone());
        let publisher = Arc::new(publisher.expect("publisher"));

        let (sender, events) = mpsc::unbounded_channel();
        let (_, notified) = mpsc::channel(1);
        let (backlog, _) = watch::channel(Default::default());
        let (relay, inbox) = relay::channels(notified);
        let relay_loop = Relay::new(publisher.clone(), &replica.database, backlog, sender);
        tokio::spawn(relay_loop.run(inbox));

        relay.join(RelayLane { lease: lease.clone(), epoch: 0, next_sequence: 0 });
        Self { fixture, publisher, relay, lease, events }
    }

    /// Commits this many events and hands their rows to the relay.
    async fn commit(&self, events: usize) {
        let pending_events = (0..events).map(|_| pending(0)).collect();
        let rows = appended(&mut self.fixture.connection().await, pending_events).await;
        self.relay.committed(rows);
    }

    /// Waits until the producer holds this many records.
    async fn until_handed_over(&self, records: i32) {
        devstack::wait::until(Duration::from_secs(20), "records to be handed over", || async {
            Ok((self.publisher.in_flight() == records).then_some(()))
        })
        .await
        .expect("handed over");
    }

    /// Waits until the lane has left. The relay tries to send the rest for as long as it may, which
    /// is many turns of its loop.
    async fn leave(&self) {
        self.relay.leave(self.lease.partition, self.lease.token, true).await.expect("left");
    }
}

#[tokio::test]
async fn the_cursor_does_not_move_before_the_broker_has_acked() {
    let unacked = Unacked::open("unacked").await;
    unacked.commit(2).await;
    unacked.until_handed_over(2).await;
    unacked.leave().await;
    assert_eq!(unacked.fixture.count("select seq from reel.cursors where partition = 0").await, 0);
}

/// The producer's thread would otherwise spin on records that it holds and may not send.
#[tokio::test]
async fn the_producer_gets_no_more_records_until_those_it_has_are_acked() {
    let unacked = Unacked::open("not-acked").await;
    unacked.commit(6).await;
    unacked.until_handed_over(6).await;
    unacked.commit(6).await;
    unacked.leave().await;
    assert_eq!(unacked.publisher.in_flight(), 6);
}

#[tokio::test]
async fn a_producer_that_has_lost_all_brokers_is_replaced_and_its_lanes_are_recovered() {
    let mut unacked = Unacked::open("stranded").await;
    unacked.commit(2).await;
    unacked.until_handed_over(2).await;

    // Repeated, because the producer's own statistics report that it knows an address.
    let mut stranded = || {
        unacked.publisher.strand();
        matches!(
            unacked.events.try_recv(),
            Ok(LaneEvent::PublishFailed { partition: Partition(0), .. })
        )
        .then_some(())
    };

    devstack::wait::until(Duration::from_secs(20), "the lane to be recovered", || {
        std::future::ready(Ok(stranded()))
    })
    .await
    .expect("recovered");
}
