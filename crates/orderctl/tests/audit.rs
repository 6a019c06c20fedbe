//! The audit of real systems: of whole ones, of ones at work, and of ones in which something was broken by hand.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contracts::OrderId;
use devstack::{Stack, topics, wait};
use orderctl::audit::{Audit, Figures};
use orderctl::system::{Replica, Service, System, SystemOptions};
use rdkafka::ClientConfig;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{FutureProducer, FutureRecord};
use reel::model::Partition;
use reel::wire::Envelope;
use sqlx::{AssertSqlSafe, Executor};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);

/// One replica of each service, and one order of each ending that needs no waiting: confirmed, without money, without an
/// account, without stock.
async fn small_system() -> Result<(System, Vec<Replica>)> {
    let stack = Stack::shared().await?;
    let options = SystemOptions { partitions: 3, ..SystemOptions::new(stack.kafka(), stack.postgres(), &topics::unique_prefix()) };
    let system = System::create(options).await?;
    let replicas = system.start_all(1).await?;
    let client = system.client();
    client.deposit("anna", 100_000, "1").await?.created()?;
    client.deposit("bert", 1, "1").await?.created()?;
    client.receive("MUG", 10, "1").await?.created()?;
    for (customer, quantity) in [("anna", 2), ("bert", 1), ("nobody", 1), ("anna", 11)] {
        client.place(customer, &[("MUG", quantity)], &format!("{customer} {quantity}")).await?.created()?;
    }
    system.until_quiet(LIMIT).await?;
    Ok((system, replicas))
}

/// The figures of the small system: 2 mugs for 990 each are sold.
fn whole() -> Figures {
    let cancelled = [("out_of_stock", 1), ("payment_failed", 2)].map(|(reason, count)| (reason.to_owned(), count)).into();
    Figures { orders: 4, confirmed: 1, cancelled, ok: true, ..Figures::default() }
}

async fn audit(system: &System) -> Result<Audit> {
    system.places().audit().await
}

/// The audit of a system without replicas, so that nothing repairs or adds anything.
async fn at_rest() -> Result<System> {
    let (system, mut replicas) = small_system().await?;
    for replica in &mut replicas {
        replica.stop().await?;
    }
    let audit = audit(&system).await?;
    assert_eq!(audit.figures, whole(), "{audit}");
    Ok(system)
}

#[tokio::test]
async fn an_order_at_work_is_open_then_undoing_and_in_the_end_all_is_well() -> Result<()> {
    let (system, mut replicas) = small_system().await?;
    let inventory = replicas.iter_mut().find(|replica| replica.service() == Service::Inventory).context("inventory")?;
    inventory.pause()?;
    let client = system.client();
    let order = client.place("anna", &[("MUG", 1)], "late").await?.order_id()?;
    let payments = system.pool(Service::Payment);
    wait::until(LIMIT, "the payment", || async {
        let paid = sqlx::query("select from payments where order_id = $1").bind(order.uuid());
        Ok(paid.fetch_optional(payments).await?)
    })
    .await?;
    until_published(&system).await?;
    let open = audit(&system).await?;
    assert_eq!(open.figures, Figures { orders: 5, open: 1, ok: false, ..whole() }, "{open}");
    assert!(open.to_string().contains(&format!("open: order {order} since ")), "{open}");

    expire(&system, order).await?;
    until_published(&system).await?;
    let undoing = audit(&system).await?;
    assert_eq!((undoing.figures.open, undoing.figures.undoing, undoing.figures.cancelled["expired"]), (0, 1, 1), "{undoing}");
    assert!(undoing.to_string().contains("inventory ha"), "{undoing}");

    inventory.resume()?;
    system.until_quiet(LIMIT).await?;
    let ended = audit(&system).await?;
    assert!(ended.figures.ok && ended.figures.cancelled["expired"] == 1, "{ended}");

    let places = system.places();
    let orderctl = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orderctl"));
        command.arg("audit").env("KAFKA_BROKERS", &places.kafka.brokers).env("TOPIC_PREFIX", &places.kafka.prefix);
        for (service, url) in places.databases.iter() {
            command.env(format!("{}_DATABASE_URL", service.name().to_uppercase()), url);
        }
        command
    };
    let json = orderctl().arg("--json").output()?;
    assert!(json.status.success(), "{json:?}");
    assert_eq!(serde_json::from_slice::<Figures>(&json.stdout)?, ended.figures);
    sqlx::query("update accounts set balance = balance + 1").execute(payments).await?;
    let text = orderctl().output()?;
    assert_eq!(text.status.code(), Some(1));
    assert!(String::from_utf8(text.stdout)?.contains("money drift: account anna"));
    system.drop_all().await
}

#[tokio::test]
async fn what_is_broken_in_a_database_is_found() -> Result<()> {
    let system = at_rest().await?;
    let not_ok = || Figures { ok: false, ..whole() };
    let mismatch = || Figures { fold_mismatches: 1, ..not_ok() };
    let breaks = [
        (Service::Order, "orders", "update orders set status = 'open' where status = 'confirmed'", mismatch()),
        (Service::Order, "orders", "delete from orders where status = 'confirmed'", mismatch()),
        (Service::Payment, "payments", "delete from payments where status = 'completed'", mismatch()),
        (Service::Payment, "deposits", "delete from deposits where customer = 'bert'", mismatch()),
        (Service::Inventory, "reservations", "delete from reservations where status = 'taken'", mismatch()),
        (
            Service::Payment,
            "accounts",
            "update accounts set balance = balance + 5 where customer = 'anna'",
            Figures { money_drift: 5, ..mismatch() },
        ),
        (Service::Payment, "accounts", "delete from accounts where customer = 'anna'", Figures { money_drift: 100_000, ..mismatch() }),
        (Service::Inventory, "stock", "update stock set on_hand = on_hand - 3", Figures { stock_drift: 3, ..mismatch() }),
        (Service::Inventory, "stock", "update stock set taken = 0", Figures { stock_drift: 2, ..mismatch() }),
        (
            Service::Inventory,
            "reel.parked",
            "insert into reel.parked values (0, 'k', 't', 0, 0, 0, 'PaymentCompleted', 'broken by hand')",
            Figures { parked: 1, ..mismatch() },
        ),
        (Service::Order, "reel.deadlines", "insert into reel.deadlines values (0, 'k', 'settle', now(), '{}')", mismatch()),
        (
            Service::Order,
            "reel.heads",
            "update reel.heads set next_seq = next_seq + 2 where partition = 0",
            Figures { gaps: 2, ..not_ok() },
        ),
        (
            Service::Payment,
            "reel.outbox",
            "update reel.outbox set event_id = gen_random_uuid() where type = 'PaymentCompleted' and seq =
             (select min(seq) from reel.outbox as other where other.partition = outbox.partition and other.type = outbox.type)
             and partition = (select min(partition) from reel.outbox where type = 'PaymentCompleted')",
            Figures { forks: 1, ..not_ok() },
        ),
    ];
    for (service, table, statement, expected) in breaks {
        let pool = system.pool(service);
        run(pool, &format!("create table saved as table {table}")).await?;
        let changed = run(pool, statement).await?;
        ensure!(changed > 0, "changes nothing: {statement}");
        let broken = audit(&system).await?;
        assert_eq!(broken.figures, expected, "{statement}\n{broken}");
        run(pool, &format!("truncate {table}")).await?;
        run(pool, &format!("insert into {table} overriding system value table saved")).await?;
        run(pool, "drop table saved").await?;
    }
    let whole_again = audit(&system).await?;
    assert_eq!(whole_again.figures, whole(), "{whole_again}");
    // A head that is behind its topic: the database has forgotten an event.
    run(system.pool(Service::Order), "update reel.heads set next_seq = next_seq - 1 where next_seq > 0").await?;
    let behind = audit(&system).await?;
    assert!(behind.figures.fold_mismatches > 0 && !behind.figures.ok, "{behind}");
    system.drop_all().await
}

#[tokio::test]
async fn what_is_broken_in_a_topic_is_found() -> Result<()> {
    let system = at_rest().await?;
    let collected = system.places().collect().await?;
    let lane = collected.payment.lanes.iter().max_by_key(|lane| lane.next_seq).context("a lane")?;
    let last = lane.records.last().context("a record")?;
    let envelope = last.envelope.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let foreign = Foreign::new(&system, lane.partition, last)?;

    foreign.send(envelope).await?;
    let duplicate = audit(&system).await?;
    assert_eq!(duplicate.figures, Figures { duplicates: 1, ..whole() }, "{duplicate}");

    foreign.send(&Envelope { id: Uuid::new_v4(), generation: Some(-2), ..envelope.clone() }).await?;
    let stale = audit(&system).await?;
    assert_eq!(stale.figures, Figures { duplicates: 1, stale: 1, ..whole() }, "{stale}");

    foreign.send(&Envelope { id: Uuid::new_v4(), ..envelope.clone() }).await?;
    let fork = audit(&system).await?;
    assert_eq!(fork.figures, Figures { duplicates: 2, stale: 1, forks: 1, ok: false, ..whole() }, "{fork}");
    assert!(fork.to_string().contains(&format!("fork: {}/{} number", collected.payment.topic, lane.partition)), "{fork}");

    let beyond = envelope.number.map(|number| number + 3);
    foreign.send(&Envelope { id: Uuid::new_v4(), number: beyond, ..envelope.clone() }).await?;
    let gap = audit(&system).await?;
    assert_eq!(gap.figures, Figures { duplicates: 2, stale: 1, forks: 1, gaps: 3, ok: false, ..whole() }, "{gap}");

    let next = envelope.number.map(|number| number + 1);
    foreign.send(&Envelope { id: Uuid::new_v4(), number: next, ..envelope.clone() }).await?;
    let ahead = audit(&system).await?;
    assert!(ahead.figures.fold_mismatches > 0, "{ahead}");
    assert!(ahead.to_string().contains("the head of the database says"), "{ahead}");
    system.drop_all().await
}

/// Somebody who writes to a topic that is not theirs.
struct Foreign {
    producer: FutureProducer,
    topic: String,
    partition: Partition,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Foreign {
    fn new(system: &System, partition: Partition, like: &reel::kafka::Record) -> Result<Self> {
        let producer = ClientConfig::new().set("bootstrap.servers", &system.places().kafka.brokers).create()?;
        let (key, payload) = (like.key.clone().unwrap_or_default(), like.payload.clone().unwrap_or_default());
        Ok(Self { producer, topic: like.topic.to_string(), partition, key, payload })
    }

    async fn send(&self, envelope: &Envelope) -> Result<()> {
        let headers: OwnedHeaders = envelope.headers("foreign", str::from_utf8(&self.key)?);
        let record = FutureRecord::to(&self.topic).partition(self.partition.0).key(&self.key).payload(&self.payload).headers(headers);
        self.producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        Ok(())
    }
}

async fn run(pool: &sqlx::PgPool, statement: &str) -> Result<u64> {
    Ok(pool.execute(sqlx::query(AssertSqlSafe(statement.to_owned()))).await?.rows_affected())
}

async fn until_published(system: &System) -> Result<()> {
    wait::until(LIMIT, "the outboxes", || async { Ok((system.progress().await?.unpublished == 0).then_some(())) }).await
}

/// Lets the order's deadline be now, and waits for its cancel.
async fn expire(system: &System, order: OrderId) -> Result<()> {
    let orders = system.pool(Service::Order);
    let due = sqlx::query("update reel.deadlines set due_at = clock_timestamp() where key = $1").bind(order.to_string());
    assert_eq!(due.execute(orders).await?.rows_affected(), 1);
    wait::until(LIMIT, "the cancel", || async {
        Ok((system.client().order(order).await?.success()?["status"] == "cancelled").then_some(()))
    })
    .await
}
