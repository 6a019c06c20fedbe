//! The step: one transaction for each batch.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::till::{Credit, Fixture, IMPOSSIBLE, PANICS, POISON, Paid, Till, UNDECLARED, credit};
use crate::admission::{Admission, CommandError, Commands};
use crate::database::CommitDurability;
use crate::kafka::{Assignment, Delivered, InputConsumer, Polled, Record};
use crate::lane::{OpenInput, OpenLane};
use crate::log::Position;
use crate::model::Partition;
use crate::notify::Notifier;
use crate::relay::{self, Relay};
use crate::status;
use crate::step::{StepControl, StepInbox, StepLimits, StepLoop, StepParts, StepStopped};
use crate::wire::Envelope;
use reel_core::model::Contract as _;

/// A running step loop whose records the test delivers in place of a consumer.
struct Running {
    fixture: Fixture,
    commands: Commands<Till>,
    records: mpsc::Sender<Polled>,
    controls: mpsc::UnboundedSender<StepControl>,
    task: tokio::task::JoinHandle<Result<(), StepStopped>>,
    next: HashMap<Partition, (i64, Assignment)>,
}

impl Running {
    async fn start(name: &str) -> Self {
        Self::on(Fixture::open(name).await)
    }

    fn on(fixture: Fixture) -> Self {
        let (authors, status) = status::channels();
        let admission = Admission::new(status.backlog, 1_000, CancellationToken::new());
        admission.open();

        let within = Duration::from_secs(60);
        let (commands, command_inbox) = Commands::new(100, within, admission.clone());
        let (events, _) = mpsc::unbounded_channel();
        let (controls, control_inbox) = mpsc::unbounded_channel();
        let (records, record_inbox) = mpsc::channel(10);
        let (_, notified) = mpsc::channel(1);

        let replica = fixture.replica.clone();
        let (relay, relay_inbox) = relay::channels(notified);
        let (backlog, _) = watch::channel(Default::default());
        let publisher = replica.publisher.clone();
        let relay_loop = Relay::new(publisher, &replica.database, backlog, events.clone());
        tokio::spawn(relay_loop.run(relay_inbox));

        let (consumer, _) = InputConsumer::start(&fixture.kafka.consumer()).expect("consumer");
        let durability = CommitDurability::Durable;
        let (notifier, notifying) = Notifier::new(replica.database.clone());
        tokio::spawn(notifying);
        let step = StepLoop::new(StepParts {
            notifier,
            replica,
            admission,
            consumer,
            relay,
            events,
            blocked_inputs: authors.blocked_inputs,
            limits: StepLimits {
                batch: 100,
                event_bytes: 10_000,
                catch_up: Duration::from_secs(5),
                durability,
            },
        });
        let inbox =
            StepInbox { controls: control_inbox, records: record_inbox, commands: command_inbox };
        let task = tokio::spawn(step.run(inbox));
        Self { fixture, commands, records, controls, task, next: HashMap::new() }
    }

    /// Joins all lanes, each at the start of its input.
    async fn join_lanes(&mut self) {
        let topic = self.fixture.replica.inputs[0].clone();
        for partition in self.fixture.replica.partitions.iter() {
            let lease = self.fixture.acquire(partition).await;
            let position = Position { epoch: 0, ..Position::START };
            let lane = OpenLane {
                lease,
                epoch: 0,
                next_sequence: 0,
                inputs: vec![OpenInput { topic: topic.clone(), position, end: 0 }],
                parked: Default::default(),
            };
            assert!(self.controls.send(StepControl::Join(lane)).is_ok(), "the loop runs");
            let nth = self.next.len() as u64;
            self.next.insert(partition, (0, Assignment::nth(nth)));
        }

        // The loop handles messages in order: once it answers this one, the lanes have joined.
        let (done, joined) = oneshot::channel();
        assert!(
            self.controls
                .send(StepControl::Leave { partition: Partition(-1), token: Uuid::nil(), done })
                .is_ok(),
            "the loop runs"
        );
        joined.await.expect("the loop runs");
    }

    /// Delivers payments together, each as the next record of its partition.
    async fn deliver(&mut self, payments: &[(&str, &str, i64)]) {
        let partitions = self.fixture.replica.partitions;
        let delivered = payments
            .iter()
            .map(|payment| self.next(partitions.of(payment.0.as_bytes()), payment))
            .collect();
        self.send(delivered).await;
    }

    /// Delivers payments as the next records of one partition, whatever their keys.
    async fn deliver_to(&mut self, partition: Partition, payments: &[(&str, &str, i64)]) {
        let delivered = payments.iter().map(|payment| self.next(partition, payment)).collect();
        self.send(delivered).await;
    }

    async fn send(&self, delivered: Vec<Delivered>) {
        assert!(self.records.send(Polled::Records(delivered)).await.is_ok(), "the loop runs");
    }

    /// The next record of a partition, which holds a payment.
    fn next(
        &mut self,
        partition: Partition,
        (entry, account, amount): &(&str, &str, i64),
    ) -> Delivered {
        let paid = Paid { entry: (*entry).into(), account: (*account).into(), amount: *amount };
        let (sequence, assignment) = self.next.get_mut(&partition).expect("joined");
        let envelope = Envelope {
            id: Uuid::now_v7(),
            event_type: "Paid".into(),
            sequence: Some(*sequence),
            epoch: Some(0),
            ..Envelope::default()
        };

        let record = Record {
            topic: self.fixture.replica.inputs[0].clone(),
            partition,
            offset: *sequence,
            key: Some((*entry).into()),
            payload: Some(Paid::codec().encode(&paid).expect("encodes")),
            envelope: Ok(envelope),
        };
        *sequence += 1;
        Delivered { assignment: *assignment, record }
    }

    async fn ask(&self, command: Credit) -> Result<i64, CommandError<super::till::Refused>> {
        self.commands.ask(command, None).await
    }

    /// Waits until this many messages have been consumed.
    async fn consumed(&self, messages: i64) {
        devstack::wait::until(Duration::from_secs(20), "messages to be consumed", || async {
            let sum = self.fixture.count("select sum(next_seq)::bigint from reel.positions").await;
            Ok((sum == messages).then_some(()))
        })
        .await
        .expect("consumed");
    }

    /// Locks the row of the account 'slow', in a transaction that lasts until it is rolled back.
    async fn lock_slow(&self) -> sqlx::PgConnection {
        let mut elsewhere = self.fixture.connection().await;
        sqlx::raw_sql(
            "set idle_in_transaction_session_timeout = 0; begin;
             select from accounts where account = 'slow' for update",
        )
        .execute(&mut elsewhere)
        .await
        .expect("lock");
        elsewhere
    }
}

#[tokio::test]
async fn positions_state_and_outbox_commit_together() {
    let mut running = Running::start("together").await;
    running.join_lanes().await;
    running.deliver(&[("a", "x", 5), ("b", "x", 6), ("a", "x", 7)]).await;
    running.consumed(3).await;
    assert_eq!(
        running.fixture.count("select balance from accounts where account = 'x'").await,
        11,
        "the second payment of entry a is its own effect"
    );
    assert_eq!(running.fixture.count("select count(*) from reel.outbox").await, 2);
}

#[tokio::test]
async fn nothing_commits_while_a_lane_is_closed() {
    let fixture = Fixture::open("closed").await;
    fixture.execute("update reel.heads set opened_run = null where partition = 1").await;
    let mut running = Running::on(fixture);
    running.join_lanes().await;
    assert!(matches!(running.ask(credit("a", "x", 5)).await, Err(CommandError::Closed(_))));
    let open = "select count(*) from pg_stat_activity
         where datname = current_database() and state like 'idle in transaction%'";
    assert_eq!(running.fixture.count(open).await, 0, "the transaction is over, and its locks");
    for table in ["entries", "accounts", "reel.outbox"] {
        let sql: &'static str = match table {
            "entries" => "select count(*) from entries",
            "accounts" => "select count(*) from accounts",
            _ => "select count(*) from reel.outbox",
        };
        assert_eq!(running.fixture.count(sql).await, 0, "{table}");
    }
}

#[tokio::test]
async fn two_simultaneous_first_deposits_to_one_account_are_both_kept() {
    let first = Running::start("deposits").await;
    for round in 0..20 {
        let account = format!("account-{round}");
        let (one, two) = (format!("one-{round}"), format!("two-{round}"));
        let second = Running::on(first.fixture.clone());
        let (a, b) = tokio::join!(
            first.ask(credit(&one, &account, 5)),
            second.ask(credit(&two, &account, 7))
        );
        assert_eq!(a.expect("answer").max(b.expect("answer")), 12);
    }
    assert_eq!(first.fixture.count("select sum(balance)::bigint from accounts").await, 240);
}

#[tokio::test]
async fn the_same_command_at_two_replicas_at_once_is_done_once() {
    let first = Running::start("same").await;
    let second = Running::on(first.fixture.clone());
    for round in 0..20 {
        let entry = format!("entry-{round}");
        let (a, b) = tokio::join!(
            first.ask(credit(&entry, &entry, 5)),
            second.ask(credit(&entry, &entry, 5))
        );
        assert_eq!((a.expect("answer"), b.expect("answer")), (5, 5));
    }
    assert_eq!(first.fixture.count("select count(*) from reel.outbox").await, 20);
}

#[tokio::test]
async fn an_undeclared_key_stops_the_batch() {
    let mut running = Running::start("undeclared").await;
    running.join_lanes().await;
    running.deliver(&[("a", "x", 5), ("b", UNDECLARED, 6)]).await;

    let ended = tokio::time::timeout(Duration::from_secs(20), &mut running.task)
        .await
        .expect("in time")
        .expect("no panic");

    let stopped = ended.expect_err("stops").to_string();
    assert!(stopped.contains(UNDECLARED) && stopped.contains("Account"), "{stopped}");
    assert_eq!(running.fixture.count("select count(*) from entries").await, 0);
}

#[tokio::test]
async fn a_panic_in_react_becomes_a_dead_letter_and_the_process_survives() {
    let mut running = Running::start("panic").await;
    running.join_lanes().await;
    running.deliver(&[("a", "x", 5), ("b", "x", PANICS), ("c", "x", 6), ("b", "x", 7)]).await;
    running.consumed(4).await;

    assert_eq!(
        running.fixture.count("select balance from accounts where account = 'x'").await,
        11,
        "the other messages are handled, and b is parked"
    );
    let dead = "select count(*) from reel.dead_letters
        where reason like '%thirteen%' and key = 'b'";
    assert_eq!(running.fixture.count(dead).await, 1);
    assert_eq!(
        running.fixture.count("select count(*) from reel.parked where key = 'b'").await,
        2,
        "the later message of the key waits"
    );
    assert_eq!(
        running.fixture.count("select count(*) from reel.outbox where type = 'reel.parked'").await,
        2
    );

    running.deliver(&[("d", "x", 1)]).await;
    running.consumed(5).await;
}

#[tokio::test]
async fn an_impossible_event_is_a_dead_letter() {
    let mut running = Running::start("impossible").await;
    running.join_lanes().await;
    running.deliver(&[("a", "x", IMPOSSIBLE)]).await;
    running.consumed(1).await;
    assert_eq!(
        running
            .fixture
            .count("select count(*) from reel.dead_letters where reason = 'no such payment'")
            .await,
        1
    );
}

#[tokio::test]
async fn a_message_that_cannot_be_stored_does_not_disturb_its_neighbours() {
    let mut running = Running::start("poison").await;
    running.join_lanes().await;
    running
        .deliver(&[("a", "x", 1), ("b", "x", 2), ("c", POISON, 4), ("d", "x", 8), ("e", "x", 16)])
        .await;
    running.consumed(5).await;
    assert_eq!(running.fixture.count("select balance from accounts where account = 'x'").await, 27);
    assert_eq!(
        running.fixture.count("select count(*) from reel.dead_letters where key = 'c'").await,
        1
    );
    let refused = running.ask(credit("f", POISON, 1)).await;
    assert!(matches!(refused, Err(CommandError::Failed(_))), "{refused:?}");
}

/// As after a rollback, when a newer binary has written what this one does not know.
#[tokio::test]
async fn a_row_that_cannot_be_read_fails_only_the_messages_that_need_it() {
    let mut running = Running::start("unreadable").await;
    running.join_lanes().await;
    running
        .fixture
        .execute(
            "alter table accounts alter column balance drop not null;
             insert into accounts values ('newer', null)",
        )
        .await;

    running.deliver(&[("a", "x", 1), ("b", "newer", 2), ("c", "x", 4)]).await;
    running.consumed(3).await;
    assert_eq!(running.fixture.count("select balance from accounts where account = 'x'").await, 5);
    let parked = "select count(*) from reel.parked where key = 'b'";
    assert_eq!(running.fixture.count(parked).await, 1);

    let refused = running.ask(credit("d", "newer", 1)).await;
    assert!(matches!(refused, Err(CommandError::Failed(_))), "{refused:?}");
    running.ask(credit("e", "x", 8)).await.expect("others go on");
}

#[tokio::test]
async fn an_event_larger_than_the_limit_is_refused() {
    let running = Running::start("large").await;
    let refused = running.ask(credit("a", &"x".repeat(20_000), 1)).await;
    assert!(matches!(refused, Err(CommandError::TooLarge { .. })), "{refused:?}");
    assert_eq!(running.fixture.count("select count(*) from entries").await, 0);
}

#[tokio::test]
async fn a_refused_command_leaves_no_gap() {
    let running = Running::start("refused").await;
    for (entry, account, amount) in
        [("a", "x", 1), ("b", "x", IMPOSSIBLE), ("c", POISON, 2), ("d", "x", 3)]
    {
        let _ = running.ask(credit(entry, account, amount)).await;
    }

    assert_eq!(running.fixture.count("select count(*) from reel.outbox").await, 2);
    let gaps = "select count(*) from reel.heads as head where next_seq <>
        (select count(*) from reel.outbox where partition = head.partition)";
    assert_eq!(running.fixture.count(gaps).await, 0);
}

#[tokio::test]
async fn a_lane_lost_to_another_replica_commits_nothing() {
    let mut running = Running::start("fenced").await;
    running.join_lanes().await;
    let of_a = running.fixture.replica.partitions.of(b"a");
    running.fixture.acquire(of_a).await; // from now on the token is another replica's
    let b = ["b", "c", "d", "e", "f"]
        .into_iter()
        .find(|key| running.fixture.replica.partitions.of(key.as_bytes()) != of_a)
        .expect("another lane");

    running.deliver(&[("a", "x", 5), (b, "x", 6)]).await;
    running.consumed(1).await;
    assert_eq!(running.fixture.count("select balance from accounts where account = 'x'").await, 6);
}

#[tokio::test]
async fn a_row_that_is_locked_elsewhere_holds_up_only_its_lane() {
    let mut running = Running::start("locked").await;
    running.join_lanes().await;
    running.deliver(&[("a", "slow", 1)]).await;
    running.consumed(1).await;
    let mut elsewhere = running.lock_slow().await;

    let of_a = running.fixture.replica.partitions.of(b"a");
    let b = ["b", "c", "d", "e", "f"]
        .into_iter()
        .find(|key| running.fixture.replica.partitions.of(key.as_bytes()) != of_a)
        .expect("another lane");
    running.deliver(&[("a", "slow", 5), (b, "quick", 6)]).await;
    running.consumed(1).await;
    devstack::wait::until(Duration::from_secs(20), "the other lane to go on", || async {
        Ok((running.fixture.count("select count(*) from accounts where account = 'quick'").await
            == 1)
            .then_some(()))
    })
    .await
    .expect("the other lane goes on");

    sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("unlock");
    running.consumed(3).await;
}

#[tokio::test]
async fn what_was_read_before_a_lane_overflowed_is_no_gap_in_what_is_read_again() {
    let mut running = Running::start("overflowed").await;
    running.join_lanes().await;
    running.deliver(&[("a", "slow", 1)]).await;
    running.consumed(1).await;
    let mut elsewhere = running.lock_slow().await;
    let partitions = running.fixture.replica.partitions;
    let lane = partitions.of(b"a");
    let mut keys = ["b", "c", "d", "e", "f"].into_iter();
    let other = keys.find(|key| partitions.of(key.as_bytes()) != lane).expect("a key");

    // Once the other lane has gone on, this one waits for the row.
    running.deliver(&[("a", "slow", 5), (other, "quick", 1)]).await;
    running.consumed(2).await;

    // It keeps 2,001 items and stops reading. The other lane's next payment comes after them.
    running.deliver_to(lane, &[("a", "x", 1); 2_500]).await;
    let late = (0..10).map(|_| running.next(lane, &("a", "x", 1))).collect();
    running.deliver(&[(other, "quick", 1)]).await;
    running.consumed(3).await;

    // Once the row is free, it reads on behind what it has kept.
    sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("unlock");
    running.consumed(2_004).await;

    // What was on its way meanwhile arrives late, then what is read again.
    running.send(late).await;
    let again = partitions.iter().count() as u64;
    running.next.insert(lane, (2_002, Assignment::nth(again)));
    running.deliver_to(lane, &[("a", "x", 1); 600]).await;
    running.consumed(2_604).await;
}

#[tokio::test]
async fn a_locked_row_that_long_queues_of_several_lanes_need_does_not_block_commands() {
    let mut running = Running::start("captured").await;
    running.join_lanes().await;
    running.deliver(&[("a", "slow", 1)]).await;
    running.consumed(1).await;
    let mut elsewhere = running.lock_slow().await;

    // Searching a queue for the message that waits for the lock takes as long as its lane then
    // pauses, so two lanes could keep the step busy in turns.
    let keys: Vec<String> = (0..160).map(|nth| format!("p{nth}")).collect();
    let payments: Vec<(&str, &str, i64)> = keys.iter().map(|key| (&**key, "slow", 1)).collect();
    running.deliver(&payments).await;
    let blocked = "select count(*) from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    devstack::wait::until(Duration::from_secs(20), "the step to meet the lock", || async {
        Ok((running.fixture.count(blocked).await > 0).then_some(()))
    })
    .await
    .expect("it waits for the row");
    let answer =
        tokio::time::timeout(Duration::from_secs(30), running.ask(credit("between", "quick", 7)));
    assert_eq!(answer.await.expect("the step takes commands").expect("credited"), 7);

    sqlx::raw_sql("rollback").execute(&mut elsewhere).await.expect("unlock");
    running.consumed(161).await;
}

#[tokio::test]
async fn a_record_whose_key_belongs_to_another_partition_is_a_dead_letter_that_parks_no_key() {
    let mut running = Running::start("elsewhere").await;
    running.join_lanes().await;
    let of_a = running.fixture.replica.partitions.of(b"a");
    let other = running
        .fixture
        .replica
        .partitions
        .iter()
        .find(|partition| *partition != of_a)
        .expect("another lane");

    running.deliver_to(other, &[("a", "x", 5)]).await;
    running.consumed(1).await;
    assert_eq!(
        running.fixture.count("select count(*) from reel.dead_letters where key = 'a'").await,
        1
    );
    assert_eq!(running.fixture.count("select count(*) from reel.parked").await, 0);

    running.deliver(&[("a", "x", 6)]).await;
    running.consumed(2).await;
    assert_eq!(running.fixture.count("select balance from accounts where account = 'x'").await, 6);
}
