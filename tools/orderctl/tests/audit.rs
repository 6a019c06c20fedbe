//! The audit of real systems: whole ones, running ones, and ones in which something was broken by
//! hand.

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

/// Starts one replica of each service, and places one order of each ending that needs no waiting:
/// confirmed, without money, without an account, without stock.
async fn small_system() -> Result<(System, Vec<Replica>)> {
    let stack = Stack::shared().await?;
    let options = SystemOptions {
        partitions: 3,
        ..SystemOptions::new(stack.kafka(), stack.postgres(), &topics::unique_prefix())
    };
    let system = System::create(options).await?;
    let replicas = system.start_all(1).await?;
    let client = system.client();
    client.deposit("anna", 100_000, "1").await?.created()?;
    client.deposit("bert", 1, "1").await?.created()?;
    client.receive("MUG", 10, "1").await?.created()?;
    for (customer, quantity) in [("anna", 2), ("bert", 1), ("nobody", 1), ("anna", 11)] {
        client
            .place(customer, &[("MUG", quantity)], &format!("{customer} {quantity}"))
            .await?
            .created()?;
    }

    system.until_quiet(LIMIT).await?;
    Ok((system, replicas))
}

/// Returns the figures of the small system.
fn whole() -> Figures {
    let cancelled = [("out_of_stock", 1), ("payment_failed", 2)]
        .map(|(reason, count)| (reason.to_owned(), count))
        .into();
    Figures { orders: 4, confirmed: 1, cancelled, ok: true, ..Figures::default() }
}

async fn audit(system: &System) -> Result<Audit> {
    system.sources().audit().await
}

/// Returns a small system whose replicas are stopped, so that nothing repairs or adds anything.
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
async fn a_running_order_is_open_then_compensating_and_in_the_end_all_is_well() -> Result<()> {
    let (system, mut replicas) = small_system().await?;
    let inventory = replicas
        .iter_mut()
        .find(|replica| replica.service() == Service::INVENTORY)
        .context("inventory")?;
    inventory.pause()?;
    let client = system.client();
    let order = client.place("anna", &[("MUG", 1)], "late").await?.order_id()?;
    let payments = system.pool(Service::PAYMENT);
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
    let compensating = audit(&system).await?;
    assert_eq!(
        (
            compensating.figures.open,
            compensating.figures.compensating,
            compensating.figures.cancelled["expired"],
        ),
        (0, 1, 1),
        "{compensating}"
    );
    assert!(compensating.to_string().contains("inventory ha"), "{compensating}");

    inventory.resume()?;
    system.until_quiet(LIMIT).await?;
    let ended = audit(&system).await?;
    assert!(ended.figures.ok && ended.figures.cancelled["expired"] == 1, "{ended}");

    let sources = system.sources();
    let orderctl = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_orderctl"));
        command
            .arg("audit")
            .env("KAFKA_BROKERS", &sources.kafka.brokers)
            .env("TOPIC_PREFIX", &sources.kafka.prefix);
        for (service, url) in sources.databases.iter() {
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

    // What is broken: the service, the table, the statement, and the figures to expect.
    let breaks = [
        (
            Service::ORDER,
            "orders",
            "update orders set status = 'open' where status = 'confirmed'",
            mismatch(),
        ),
        (Service::ORDER, "orders", "delete from orders where status = 'confirmed'", mismatch()),
        (
            Service::PAYMENT,
            "payments",
            "delete from payments where status = 'completed'",
            mismatch(),
        ),
        (Service::PAYMENT, "deposits", "delete from deposits where customer = 'bert'", mismatch()),
        (
            Service::INVENTORY,
            "reservations",
            "delete from reservations where status = 'taken'",
            mismatch(),
        ),
        (
            Service::PAYMENT,
            "accounts",
            "update accounts set balance = balance + 5 where customer = 'anna'",
            Figures { money_drift: 5, ..mismatch() },
        ),
        (
            Service::PAYMENT,
            "accounts",
            "delete from accounts where customer = 'anna'",
            Figures { money_drift: 100_000, ..mismatch() },
        ),
        (
            Service::INVENTORY,
            "stock",
            "update stock set on_hand = on_hand - 3",
            Figures { stock_drift: 3, ..mismatch() },
        ),
        (
            Service::INVENTORY,
            "stock",
            "update stock set taken = 0",
            Figures { stock_drift: 2, ..mismatch() },
        ),
        (
            Service::INVENTORY,
            "reel.parked",
            "insert into reel.parked
             values (0, 'k', 't', 0, 0, 0, 'PaymentCompleted', 'broken by hand')",
            Figures { parked: 1, ..mismatch() },
        ),
        (
            Service::ORDER,
            "reel.deadlines",
            "insert into reel.deadlines values (0, 'k', 'settle', now(), '{}')",
            mismatch(),
        ),
        (
            Service::ORDER,
            "reel.heads",
            "update reel.heads set next_seq = next_seq + 2 where partition = 0",
            Figures { gaps: 2, ..not_ok() },
        ),
        (
            Service::PAYMENT,
            "reel.outbox",
            "update reel.outbox set event_id = gen_random_uuid()
             where type = 'PaymentCompleted'
             and seq = (
                 select min(seq) from reel.outbox as other
                 where other.partition = outbox.partition and other.type = outbox.type
             )
             and partition = (
                 select min(partition) from reel.outbox where type = 'PaymentCompleted'
             )",
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

    // A head behind its topic: the database has lost an event.
    run(
        system.pool(Service::ORDER),
        "update reel.heads set next_seq = next_seq - 1 where next_seq > 0",
    )
    .await?;
    let behind = audit(&system).await?;
    assert!(behind.figures.fold_mismatches > 0 && !behind.figures.ok, "{behind}");
    system.drop_all().await
}

#[tokio::test]
async fn what_is_broken_in_a_topic_is_found() -> Result<()> {
    let system = at_rest().await?;
    let collected = system.sources().collect().await?;
    let lane =
        collected.payment.lanes.iter().max_by_key(|lane| lane.next_sequence).context("a lane")?;
    let last = lane.records.last().context("a record")?;
    let envelope = last.envelope.as_ref().map_err(|error| anyhow::anyhow!("{error}"))?;
    let foreign = Foreign::new(&system, lane.partition, last)?;

    foreign.send(envelope).await?;
    let duplicate = audit(&system).await?;
    assert_eq!(duplicate.figures, Figures { duplicates: 1, ..whole() }, "{duplicate}");

    foreign.send(&Envelope { id: Uuid::new_v4(), epoch: Some(-2), ..envelope.clone() }).await?;
    let stale = audit(&system).await?;
    assert_eq!(stale.figures, Figures { duplicates: 1, stale: 1, ..whole() }, "{stale}");

    foreign.send(&Envelope { id: Uuid::new_v4(), ..envelope.clone() }).await?;
    let fork = audit(&system).await?;
    assert_eq!(
        fork.figures,
        Figures { duplicates: 2, stale: 1, forks: 1, ok: false, ..whole() },
        "{fork}"
    );
    assert!(
        fork.to_string()
            .contains(&format!("fork: {}/{} sequence", collected.payment.topic, lane.partition)),
        "{fork}"
    );

    let beyond = envelope.sequence.map(|sequence| sequence + 3);
    foreign.send(&Envelope { id: Uuid::new_v4(), sequence: beyond, ..envelope.clone() }).await?;
    let gap = audit(&system).await?;
    assert_eq!(
        gap.figures,
        Figures { duplicates: 2, stale: 1, forks: 1, gaps: 3, ok: false, ..whole() },
        "{gap}"
    );

    let next = envelope.sequence.map(|sequence| sequence + 1);
    foreign.send(&Envelope { id: Uuid::new_v4(), sequence: next, ..envelope.clone() }).await?;
    let ahead = audit(&system).await?;
    assert!(ahead.figures.fold_mismatches > 0, "{ahead}");
    assert!(ahead.to_string().contains("the head of the database says"), "{ahead}");
    system.drop_all().await
}

/// A producer that writes to a service's topic, which only the service may do.
struct Foreign {
    producer: FutureProducer,
    topic: String,
    partition: Partition,
    key: Vec<u8>,
    payload: Vec<u8>,
}

impl Foreign {
    fn new(system: &System, partition: Partition, like: &reel::kafka::Record) -> Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", &system.sources().kafka.brokers)
            .create()?;
        let (key, payload) =
            (like.key.clone().unwrap_or_default(), like.payload.clone().unwrap_or_default());
        Ok(Self { producer, topic: like.topic.to_string(), partition, key, payload })
    }

    async fn send(&self, envelope: &Envelope) -> Result<()> {
        let headers: OwnedHeaders =
            reel::kafka::headers(envelope, "foreign", str::from_utf8(&self.key)?);
        let record = FutureRecord::to(&self.topic)
            .partition(self.partition.0)
            .key(&self.key)
            .payload(&self.payload)
            .headers(headers);
        self.producer.send(record, LIMIT).await.map_err(|(error, _)| error)?;
        Ok(())
    }
}

async fn run(pool: &sqlx::PgPool, statement: &str) -> Result<u64> {
    Ok(pool.execute(sqlx::query(AssertSqlSafe(statement.to_owned()))).await?.rows_affected())
}

async fn until_published(system: &System) -> Result<()> {
    wait::until(LIMIT, "the outboxes", || async {
        Ok((system.progress().await?.unpublished == 0).then_some(()))
    })
    .await
}

/// Makes the order's deadline due, and waits for its cancel.
async fn expire(system: &System, order: OrderId) -> Result<()> {
    let orders = system.pool(Service::ORDER);
    let due = sqlx::query("update reel.deadlines set due_at = clock_timestamp() where key = $1")
        .bind(order.to_string());
    assert_eq!(due.execute(orders).await?.rows_affected(), 1);
    wait::until(LIMIT, "the cancel", || async {
        Ok((system.client().order(order).await?.success()?["status"] == "cancelled").then_some(()))
    })
    .await
}
