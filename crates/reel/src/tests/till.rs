//! A till: `Paid` events of another service, and commands, credit accounts that several entries share.

use std::sync::Arc;
use std::time::Duration;

use devstack::{Stack, TestDatabase};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{Connection, PgConnection, Row};

use crate::database::{Sessions, current_run};
use crate::kafka::{Kafka, Reader};
use crate::lanes::{Grant, Identity};
use crate::model::{Ask, Impossible, Key, Keyed, Partition, Partitions, Rows, Service, Timestamp};
use crate::outbox::Publisher;
use crate::replica::{Replica, inputs_of, topic_of};
use crate::step::{Columns, Record, RowKey, Stored, StoredRows, Table};

/// The toolkit's tables.
const TABLES: [&str; 2] =
    [include_str!("../../../../migrations/order/0001_reel.sql"), include_str!("../../../../migrations/order/0003_reel.sql")];

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
        /// What another service publishes.
        #[expect(dead_code, reason = "only its schema is used")]
        pub(crate) enum Foreign on "paid" { Paid: ["paid.v1.avsc"] }
    }
}

crate::events! {
    /// What the till publishes.
    pub(crate) enum TillEvent on "credited" { Credited: ["credited.v1.avsc"] }
}

crate::inputs! {
    /// What the till reacts to.
    pub(crate) enum TillInput { Paid }
}

/// An amount at which `react` panics.
pub(crate) const PANICS: i64 = 13;
/// An amount that is impossible.
pub(crate) const IMPOSSIBLE: i64 = 666;
/// An account whose row nothing declares.
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

    fn needs(ask: Ask<'_, Self>, state: &mut Accounts) {
        let (entry, account) = match ask {
            Ask::Command(Credit(event)) | Ask::Event(TillEvent::Credited(event)) => (&event.entry, &event.account),
            Ask::Input(TillInput::Paid(event)) => (&event.entry, &event.account),
        };
        state.entries.need(entry);
        if account != UNDECLARED {
            state.accounts.need(account);
        }
    }

    fn decide(state: &Accounts, Credit(event): &Credit, _: Timestamp) -> Result<Option<TillEvent>, Refused> {
        if event.amount == IMPOSSIBLE {
            return Err(Refused);
        }
        Ok(state.entries.get(&event.entry).is_none().then(|| event.clone().into()))
    }

    fn react(state: &Accounts, TillInput::Paid(event): &TillInput, _: Timestamp) -> Result<Option<TillEvent>, Impossible> {
        let Paid { entry, account, amount } = event.clone();
        match amount {
            PANICS => panic!("thirteen"),
            IMPOSSIBLE => Err(Impossible::because("no such payment")),
            _ => Ok(state.entries.get(&entry).is_none().then(|| Credited { entry, account, amount }.into())),
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

impl RowKey for String {
    type Column = Self;
    fn column(&self) -> Self {
        self.clone()
    }
    fn bytes(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

impl Record<String> for Entry {
    const TABLE: Table = Table { name: "entries", key: ("entry", "text"), columns: &[("amount", "bigint")], shared: false };
    fn write(rows: &[(&String, &Self)], columns: &mut Columns) {
        columns.push(rows.iter().map(|(_, row)| row.0));
    }
    fn read(row: &PgRow) -> sqlx::Result<(String, Self)> {
        Ok((row.try_get(0)?, Self(row.try_get(1)?)))
    }
}

impl Record<String> for Account {
    const TABLE: Table = Table { name: "accounts", key: ("account", "text"), columns: &[("balance", "bigint")], shared: true };
    fn write(rows: &[(&String, &Self)], columns: &mut Columns) {
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

/// A database of its own and a topic prefix of its own on the shared stack.
#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) replica: Arc<Replica<Till>>,
    pub(crate) kafka: Kafka,
    _database: Arc<TestDatabase>,
}

pub(crate) const PARTITIONS: i32 = 3;

impl Fixture {
    /// Tables and lane rows are there; no lane is open.
    pub(crate) async fn closed(name: &str) -> Self {
        let stack = Stack::shared().await.expect("stack");
        let database = TestDatabase::create(stack.postgres(), name).await.expect("database");
        let prefix = devstack::topics::unique_prefix();
        let kafka = Kafka { brokers: stack.kafka().to_owned(), group: format!("{prefix}till"), prefix, properties: vec![] };
        let sessions = Sessions::new(database.url(), "till", Duration::from_secs(5)).expect("url");
        let mut connection = sessions.connect().await.expect("connection");
        for tables in TABLES {
            sqlx::raw_sql(tables).execute(&mut connection).await.expect("toolkit tables");
        }
        sqlx::raw_sql("create table entries (entry text primary key, amount bigint not null); create table accounts (account text primary key, balance bigint not null)")
            .execute(&mut connection)
            .await
            .expect("tables");
        let partitions = Partitions::new(PARTITIONS).expect("partitions");
        let replica = Arc::new(Replica {
            instance: name.to_owned(),
            partitions,
            topic: topic_of::<Till>(&kafka),
            inputs: inputs_of::<Till>(&kafka),
            reader: Reader::new(kafka.clone()),
            publisher: Publisher::new(&kafka, Till::NAME, topic_of::<Till>(&kafka)).expect("publisher"),
            pool: sessions.pool(16),
            sessions,
            service: std::marker::PhantomData,
        });
        Identity::prepare(&mut connection, Till::NAME, &replica.inputs, partitions).await.expect("rows of the lanes");
        current_run(&mut connection).await.expect("run");
        Self { replica, kafka, _database: Arc::new(database) }
    }

    /// All lanes count as open, though nothing was published.
    pub(crate) async fn open(name: &str) -> Self {
        let fixture = Self::closed(name).await;
        fixture.execute("update reel.heads set opened_run = reel.run()").await;
        fixture
    }

    pub(crate) async fn connection(&self) -> PgConnection {
        let options = self.replica.pool.connect_options();
        PgConnection::connect_with(&options).await.expect("connection")
    }

    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&mut self.connection().await).await.expect("statement");
    }

    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&mut self.connection().await).await.expect("count")
    }

    /// Takes a lane under a new token.
    pub(crate) async fn take(&self, partition: Partition) -> Grant {
        let mut connection = self.connection().await;
        let run = current_run(&mut connection).await.expect("run");
        let identity =
            Identity { instance: self.replica.instance.clone(), incarnation: uuid::Uuid::now_v7(), lease: Duration::from_secs(5) };
        let grant = Grant::new(partition, &run);
        assert!(identity.take(&mut connection, Till::NAME, &grant).await.expect("take"), "the lane is free");
        grant
    }

    /// Makes the topics of both services.
    pub(crate) async fn make_topics(&self) {
        let topics = crate::kafka::Topics::new(self.kafka.clone()).expect("admin");
        for topic in ["paid", "credited"] {
            topics.create_journal(topic, PARTITIONS, None).await.expect("topic");
        }
    }
}

pub(crate) fn credit(entry: &str, account: &str, amount: i64) -> Credit {
    Credit(Credited { entry: entry.into(), account: account.into(), amount })
}
