//! The outbox: numbers that follow each other in the order of the commits, and a cursor that follows the acks.

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::mpsc;
use uuid::Uuid;

use super::till::{Fixture, Till};
use crate::database::Writes;
use crate::kafka::Kafka;
use crate::lanes::{Grant, Notice};
use crate::model::{Partition, Service};
use crate::outbox::{Draft, Outlet, Publisher, Relay, RelayHandle, RelayLane, number, read};
use crate::runtime::Gate;
use crate::wire::Traced;

/// Where no broker is.
const NOWHERE: &str = "127.0.0.1:1";

/// A publisher alone.
struct Alone(Publisher);

impl Outlet for Alone {
    fn publisher(&self) -> &Publisher {
        &self.0
    }
}

fn draft(partition: i32) -> Draft {
    Draft {
        partition: Partition(partition),
        event_id: Uuid::now_v7(),
        key: "k".into(),
        name: "Credited",
        payload: vec![1],
        traced: Traced::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_commands_on_one_partition_number_contiguously_in_commit_order() {
    const WRITERS: i64 = 8;
    const EACH: i64 = 25;
    let fixture = Fixture::open("numbers").await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let mut connection = fixture.connection().await;
        writers.spawn(async move {
            for round in 0..EACH {
                let mut transaction = connection.begin().await.expect("begin");
                let partitions = if (writer + round) % 2 == 0 { [0, 1, 0] } else { [1, 0, 0] };
                let drafts = partitions.into_iter().map(draft).collect();
                number(&mut transaction, Writes::default(), drafts).await.expect("number").expect("open");
                if round % 5 == 4 {
                    transaction.rollback().await.expect("rollback");
                } else {
                    transaction.commit().await.expect("commit");
                }
            }
        });
    }
    // A reader that polls meanwhile never sees a number whose predecessor is missing.
    let mut reader = fixture.connection().await;
    let total = WRITERS * EACH * 4 / 5 * 2;
    let mut seen = 0_i64;
    let reading = async {
        while seen < total {
            for row in read(&mut reader, &[(Partition(0), seen)], 1_000).await.expect("read") {
                assert_eq!(row.seq, seen, "a number was skipped");
                seen += 1;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await.expect("all numbers come");
    while let Some(ended) = writers.join_next().await {
        ended.expect("writer");
    }
    assert_eq!(fixture.count("select next_seq from reel.heads where partition = 0").await, total);
}

#[tokio::test]
async fn a_rolled_back_command_leaves_no_number_missing() {
    let fixture = Fixture::open("rollback").await;
    let mut connection = fixture.connection().await;
    for commits in [true, false, true] {
        let mut transaction = connection.begin().await.expect("begin");
        let numbered = number(&mut transaction, Writes::default(), vec![draft(2)]).await.expect("number").expect("open");
        assert_eq!(numbered.len(), 1);
        if commits { transaction.commit().await } else { transaction.rollback().await }.expect("end");
    }
    let rows = read(&mut connection, &[(Partition(2), 0)], 10).await.expect("read");
    assert_eq!(rows.iter().map(|row| row.seq).collect::<Vec<_>>(), [0, 1]);
}

#[tokio::test]
async fn nothing_is_numbered_while_one_lane_is_closed() {
    let fixture = Fixture::open("one-closed").await;
    fixture.execute("update reel.heads set opened_run = 'an earlier run' where partition = 2").await;
    let mut connection = fixture.connection().await;
    assert!(number(&mut connection, Writes::default(), vec![draft(0)]).await.expect("number").is_none());
    assert_eq!(fixture.count("select sum(next_seq)::bigint from reel.heads").await, 0);
}

#[tokio::test]
async fn decisions_are_numbered_in_a_valid_serial_order() {
    let fixture = Fixture::open("decided").await;
    let mut connection = fixture.connection().await;
    let first = number(&mut connection, Writes::default(), vec![draft(0), draft(1)]).await.expect("number").expect("open");
    let second = number(&mut connection, Writes::default(), vec![draft(0)]).await.expect("number").expect("open");
    let order: Vec<_> = first.iter().chain(&second).filter_map(|event| event.envelope.decided).collect();
    assert!(order.is_sorted() && order.len() == 3, "{order:?}");
}

/// The relay of lane 0 with a producer that finds no broker.
struct Unheard {
    fixture: Fixture,
    outlet: Arc<Alone>,
    relay: RelayHandle,
    grant: Grant,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl Unheard {
    async fn open(name: &str) -> Self {
        let fixture = Fixture::open(name).await;
        let grant = fixture.take(Partition(0)).await;
        let (replica, nowhere) = (fixture.replica.clone(), Kafka { brokers: NOWHERE.to_owned(), ..fixture.kafka.clone() });
        let outlet = Arc::new(Alone(Publisher::new(&nowhere, Till::NAME, replica.topic.clone()).expect("publisher")));
        let (sender, notices) = mpsc::unbounded_channel();
        let relay = Relay::start(outlet.clone(), &replica.sessions, replica.pool.clone(), Arc::new(Gate::new(1_000)), sender);
        relay.join(RelayLane { grant: grant.clone(), generation: 0, next_seq: 0 });
        Self { fixture, outlet, relay, grant, notices }
    }

    /// Commits so many events, and gives the relay their rows.
    async fn commit(&self, events: usize) {
        let drafts = (0..events).map(|_| draft(0)).collect();
        let rows = number(&mut self.fixture.connection().await, Writes::default(), drafts).await.expect("number").expect("open");
        self.relay.committed(rows);
    }

    async fn until_handed_over(&self, records: i32) {
        devstack::wait::until(Duration::from_secs(20), "records to be handed over", || async {
            Ok((self.outlet.0.in_flight() == records).then_some(()))
        })
        .await
        .expect("handed over");
    }

    /// Returns when the lane has left, which takes as long as it may try to send the rest: many turns of the relay.
    async fn leave(&self) {
        self.relay.leave(self.grant.partition, self.grant.token, true).await.expect("left");
    }
}

#[tokio::test]
async fn the_cursor_does_not_move_before_the_broker_has_acked() {
    let unheard = Unheard::open("unacked").await;
    unheard.commit(2).await;
    unheard.until_handed_over(2).await;
    unheard.leave().await;
    assert_eq!(unheard.fixture.count("select seq from reel.cursors where partition = 0").await, 0);
}

/// The producer's thread would spin on what it holds and may not send.
#[tokio::test]
async fn the_producer_gets_nothing_more_while_what_it_has_is_not_acked() {
    let unheard = Unheard::open("not-acked").await;
    unheard.commit(6).await;
    unheard.until_handed_over(6).await;
    unheard.commit(6).await;
    unheard.leave().await;
    assert_eq!(unheard.outlet.0.in_flight(), 6);
}

#[tokio::test]
async fn a_producer_that_has_lost_all_brokers_is_made_anew_and_its_lanes_are_opened_anew() {
    let mut unheard = Unheard::open("stranded").await;
    unheard.commit(2).await;
    unheard.until_handed_over(2).await;
    // Again and again, since its own statistics say that it knows an address.
    let mut stranded = || {
        unheard.outlet.0.strand();
        matches!(unheard.notices.try_recv(), Ok(Notice::Reopen { partition: Partition(0), .. })).then_some(())
    };
    devstack::wait::until(Duration::from_secs(20), "the lane to be opened anew", || std::future::ready(Ok(stranded())))
        .await
        .expect("told");
}
