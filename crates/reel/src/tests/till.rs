//! A till, the smallest service: commands, and `Paid` events of another service, credit accounts,
//! which several entries share.

use std::sync::Arc;
use std::time::Duration;

use devstack::{Stack, TestDatabase};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};

use crate::database::Database;
use crate::kafka::{KafkaConfig, RangeReader};
use crate::lane::Lease;
use crate::lanes::REPLAYS;
use crate::migrations;
use crate::model::{
    Impossible, Key, Keyed, Partition, Partitions, Rows, Service, Timestamp, Trigger,
};
use crate::relay::Publisher;
use crate::replica::{Replica, inputs_of, topic_of};
use crate::rows::{ArrayParams, Stored, StoredRows, Table};
use crate::tables::leases::Member;
use crate::tables::{self, LaneRows, epoch};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credited {
    pub(crate) entry: String,
    pub(crate) account: String,
    pub(crate) amount: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Paid {
    pub(crate) entry: String,
    pub(crate) account: String,
    pub(crate) amount: i64,
}

impl Keyed for Credited {
    fn key(&self) -> Key {
        Key::new(&self.entry)
    }
}

impl Keyed for Paid {
    fn key(&self) -> Key {
        Key::new(&self.entry)
    }
}

mod paid {
    use super::Paid;
    crate::events! {
        /// Events that another service publishes.
        pub(crate) enum Foreign on "paid" { Paid: ["paid.v1.avsc"] }
    }
}

crate::events! {
    /// Events that the till publishes.
    pub(crate) enum TillEvent on "credited" { Credited: ["credited.v1.avsc"] }
}

crate::inputs! {
    /// Events that the till reacts to.
    pub(crate) enum TillInput { Paid }
}

/// An amount at which `react` panics.
pub(crate) const PANICS: i64 = 13;
/// An amount that `decide` refuses and `react` reports as impossible.
pub(crate) const IMPOSSIBLE: i64 = 666;
/// An account whose row `read_set` does not declare.
pub(crate) const UNDECLARED: &str = "undeclared";
/// An account that Postgres cannot store: its text holds a zero byte (SQLSTATE 22021).
pub(crate) const POISON: &str = "poison\0";

#[derive(Debug)]
pub(crate) struct Till;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Credit(pub(crate) Credited);

#[derive(Debug, thiserror::Error)]
#[error("refused")]
pub(crate) struct Refused;

#[derive(Debug, Default, Clone)]
pub(crate) struct Accounts {
    pub(crate) entries: Rows<String, Entry>,
    pub(crate) accounts: Rows<String, Account>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry(i64);

#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Account(pub(crate) i64);

crate::working_set!(Accounts { entries, accounts });

impl Service for Till {
    const NAME: &'static str = "till";
    type State = Accounts;
    type Command = Credit;
    type Answer = i64;
    type Rejection = Refused;
    type Input = TillInput;
    type Event = TillEvent;

    fn read_set(trigger: Trigger<'_, Self>, state: &mut Accounts) {
        let (entry, account) = match trigger {
            Trigger::Command(Credit(event)) | Trigger::Event(TillEvent::Credited(event)) => {
                (&event.entry, &event.account)
            }
            Trigger::Input(TillInput::Paid(event)) => (&event.entry, &event.account),
        };
        state.entries.need(entry);
        if account != UNDECLARED {
            state.accounts.need(account);
        }
    }

    fn decide(
        state: &Accounts,
        Credit(event): &Credit,
        _: Timestamp,
    ) -> Result<Option<TillEvent>, Refused> {
        if event.amount == IMPOSSIBLE {
            return Err(Refused);
        }
        Ok(state.entries.get(&event.entry).is_none().then(|| event.clone().into()))
    }

    fn react(
        state: &Accounts,
        TillInput::Paid(event): &TillInput,
        _: Timestamp,
    ) -> Result<Option<TillEvent>, Impossible> {
        let Paid { entry, account, amount } = event.clone();
        match amount {
            PANICS => panic!("thirteen"),
            IMPOSSIBLE => Err(Impossible::because("no such payment")),
            _ => Ok(state
                .entries
                .get(&entry)
                .is_none()
                .then(|| Credited { entry, account, amount }.into())),
        }
    }

    fn evolve(state: &mut Accounts, TillEvent::Credited(event): &TillEvent) {
        state.entries.put(event.entry.clone(), Entry(event.amount));
        state.accounts.entry(event.account.clone()).0 += event.amount;
    }

    fn answer(state: &Accounts, Credit(event): &Credit) -> i64 {
        state.accounts.get(&event.account).map_or(0, |account| account.0)
    }
}

impl crate::rows::Row<String> for Entry {
    const TABLE: Table = Table {
        name: "entries",
        key: ("entry", "text"),
        columns: &[("amount", "bigint")],
        shared: false,
    };
    fn write(rows: &[(&String, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, row)| row.0));
    }
    fn read(row: &PgRow) -> sqlx::Result<(String, Self)> {
        Ok((row.try_get(0)?, Self(row.try_get(1)?)))
    }
}

impl crate::rows::Row<String> for Account {
    const TABLE: Table = Table {
        name: "accounts",
        key: ("account", "text"),
        columns: &[("balance", "bigint")],
        shared: true,
    };
    fn write(rows: &[(&String, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, row)| row.0));
    }
    fn read(row: &PgRow) -> sqlx::Result<(String, Self)> {
        Ok((row.try_get(0)?, Self(row.try_get(1)?)))
    }
}

impl Stored for Accounts {
    fn tables(&mut self) -> Vec<&mut dyn StoredRows> {
        vec![&mut self.entries, &mut self.accounts]
    }
}

/// A replica with its own database and topic prefix on the shared stack.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) replica: Arc<Replica<Till>>,
    pub(crate) kafka: KafkaConfig,
    database: Arc<TestDatabase>,
}

pub(crate) const PARTITIONS: i32 = 3;

impl Fixture {
    /// Creates tables and lane rows, and opens no lane.
    pub(crate) async fn closed(name: &str) -> Self {
        let stack = Stack::shared().await.expect("stack");
        let database = TestDatabase::create(stack.postgres(), name).await.expect("database");
        let prefix = devstack::topics::unique_prefix();
        let kafka = KafkaConfig {
            brokers: stack.kafka().to_owned(),
            group: format!("{prefix}till"),
            prefix,
            properties: vec![],
        };

        let service_database =
            Database::new(database.url(), "till", Duration::from_secs(5)).expect("url");
        let mut connection = service_database.connect().await.expect("connection");
        let none = sqlx::migrate::Migrator::with_migrations(vec![]);
        migrations::run(&mut connection, &none).await.expect("toolkit tables");
        sqlx::raw_sql(
            "create table entries (entry text primary key, amount bigint not null);
             create table accounts (account text primary key, balance bigint not null)",
        )
        .execute(&mut connection)
        .await
        .expect("tables");

        let partitions = Partitions::new(PARTITIONS).expect("partitions");
        let replica = Arc::new(Replica {
            instance: name.to_owned(),
            partitions,
            topic: topic_of::<Till>(&kafka),
            inputs: inputs_of::<Till>(&kafka),
            reader: RangeReader::new(kafka.clone()),
            publisher: Arc::new(
                Publisher::new(&kafka, Till::NAME, topic_of::<Till>(&kafka)).expect("publisher"),
            ),
            pool: service_database.pool(16),
            replays: tokio::sync::Semaphore::new(REPLAYS),
            database: service_database,
            service: std::marker::PhantomData,
        });

        let rows =
            tables::create_lane_rows(&mut connection, Till::NAME, &replica.inputs, partitions);
        assert_eq!(rows.await.expect("lane rows"), LaneRows::Complete);
        epoch::current(&mut connection).await.expect("epoch");
        Self { replica, kafka, database: Arc::new(database) }
    }

    /// Marks all lanes as open, though nothing was published.
    pub(crate) async fn open(name: &str) -> Self {
        let fixture = Self::closed(name).await;
        fixture.execute("update reel.heads set opened_run = reel.run()").await;
        fixture
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        self.replica.database.connect().await.expect("connection")
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connection().await).await.expect("statement");
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connection().await).await.expect("count")
    }

    /// Acquires a lane under a new fencing token.
    pub(crate) async fn acquire(&self, partition: Partition) -> Lease {
        let (member, lease) = self.member_and_lease(partition).await;
        let mut connection = self.connection().await;
        assert!(
            member.acquire(&mut connection, Till::NAME, &lease).await.expect("acquire"),
            "the lane is free"
        );
        lease
    }

    /// A live replica, and a lease that it has not acquired yet.
    pub(crate) async fn member_and_lease(&self, partition: Partition) -> (Member, Lease) {
        let epoch = epoch::current(&mut self.connection().await).await.expect("epoch");
        let member = Member {
            instance: self.replica.instance.clone(),
            incarnation: uuid::Uuid::now_v7(),
            lease: Duration::from_secs(5),
        };
        (member, Lease::new(partition, &epoch))
    }

    /// Creates the topics of both services.
    pub(crate) async fn create_topics(&self) {
        let topics = crate::kafka::Topics::new(self.kafka.clone()).expect("admin");
        for topic in ["paid", "credited"] {
            topics.create_journal(topic, PARTITIONS, None).await.expect("topic");
        }
    }
}

pub(crate) fn credit(entry: &str, account: &str, amount: i64) -> Credit {
    Credit(Credited { entry: entry.into(), account: account.into(), amount })
}
