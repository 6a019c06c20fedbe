//! Outages as users see them: Kafka or Postgres is down, refuses something, or comes back with less
//! than it had.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devstack::{KafkaServer, PostgresServer, Stack, topics, wait};
use orderctl::system::{Replica, Service};
use reel::model::Partition;
use reqwest::StatusCode;
use saga_tests::{Shop, eventually};

/// Limit of the lines that a replica logs while a server is down: it reports the outage without
/// repeating itself.
const LINES_AT_MOST: usize = 60;
/// Length of Kafka's outage, measured by the age of the oldest event that waits for it.
const AWAY_SECONDS: f64 = 60.0;
/// Time limit for the oldest waiting event to reach that age.
const AWAY_AT_MOST: Duration = Duration::from_secs(180);

fn lines(replica: &Replica) -> usize {
    replica.log_text().lines().count()
}

/// A description of each replica that has logged more than it should.
fn noisy(shop: &Shop, before: &[usize]) -> Vec<String> {
    let pairs = shop
        .replicas
        .iter()
        .zip(before)
        .filter(|(replica, before)| lines(replica) - *before > LINES_AT_MOST);
    pairs
        .map(|(replica, before)| {
            format!("{} logged {} lines", replica.name(), lines(replica) - before)
        })
        .collect()
}

fn answered_with_retry_after(response: &reqwest::Response) -> bool {
    response.status() == StatusCode::SERVICE_UNAVAILABLE
        && response.headers().contains_key("Retry-After")
}

#[tokio::test]
async fn without_kafka_orders_are_accepted_up_to_the_backlog_limit_and_confirmed_afterwards()
-> Result<()> {
    let mut kafka = KafkaServer::temporary().await?;
    let stack = Stack::shared().await?;
    let limit = |options: &mut orderctl::system::SystemOptions| {
        options.env.push(("BACKLOG_LIMIT".into(), "40".into()));
    };
    let mut shop = Shop::on(kafka.bootstrap(), stack.postgres(), limit).await?;
    shop.replicas = shop.system.start_all(2).await?;
    shop.fill().await?;
    shop.order("before", 4).await?;
    shop.ends_well().await?;

    // Orders are accepted while Kafka is down, for a minute at least.
    kafka.kill().await?;
    let before: Vec<usize> = shop.replicas.iter().map(lines).collect();
    let mut accepted = 0;
    for nth in 0..20 {
        let response = shop.ask_once(shop.replica("order-1"), &format!("away-{nth}")).await?;
        assert_eq!(response.status(), StatusCode::CREATED, "order {nth} without Kafka");
        accepted += 1;
    }

    wait::until(AWAY_AT_MOST, "health to show a backlog that is a minute old", || async {
        let health = shop.health(shop.replica("order-2")).await?;
        ensure!(health["ready"] == true, "not ready: {health}");
        let backlog = &health["backlog"];
        let is_old = backlog["events"].as_i64() >= Some(20)
            && backlog["oldest_seconds"].as_f64() > Some(AWAY_SECONDS);
        Ok(is_old.then_some(()))
    })
    .await?;

    // Beyond the backlog limit they are refused.
    loop {
        let response = shop.ask_once(shop.replica("order-1"), &format!("away-{accepted}")).await?;
        if response.status() != StatusCode::CREATED {
            assert!(answered_with_retry_after(&response), "beyond the limit: {response:?}");
            break;
        }

        accepted += 1;
        ensure!(accepted < 2_000, "the backlog has no limit");
    }
    assert!(accepted >= 40, "only {accepted} orders were accepted, although 40 may wait");
    assert_eq!(noisy(&shop, &before), Vec::<String>::new());

    kafka.restart().await?;
    let figures = shop.ends_well().await?;
    assert_eq!((figures.orders, figures.confirmed), (accepted + 4, accepted + 4));
    shop.replicas.clear();
    Ok(())
}

#[tokio::test]
async fn without_postgres_commands_get_503_and_the_processes_live_on() -> Result<()> {
    let mut postgres = PostgresServer::temporary().await?;
    let stack = Stack::shared().await?;
    let mut shop = Shop::on(stack.kafka(), postgres.url(), |_| {}).await?;
    shop.replicas = shop.system.start_all(2).await?;
    shop.fill().await?;
    shop.order("before", 4).await?;

    postgres.kill().await?;
    let before: Vec<usize> = shop.replicas.iter().map(lines).collect();
    for name in ["order-1", "order-2"] {
        for nth in 0..3 {
            let response = shop.ask_once(shop.replica(name), &format!("away-{nth}")).await?;
            assert!(answered_with_retry_after(&response), "without Postgres: {response:?}");
        }
    }

    for replica in &shop.replicas {
        eventually("health to report why", || async {
            let health = shop.health(replica).await?;
            Ok(health["ready"] == false
                && health["reason"].as_str().is_some_and(|reason| reason.contains("database")))
        })
        .await?;
    }

    assert_eq!(noisy(&shop, &before), Vec::<String>::new());

    // Lanes cannot be handed over, and the process ends all the same.
    shop.take("payment-2").stop().await?;

    postgres.restart().await?;
    shop.order("away", 3).await?;
    let figures = shop.ends_well().await?;
    assert_eq!((figures.orders, figures.confirmed), (7, 7));
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} has died", replica.name());
    }
    shop.replicas.clear();
    shop.system.keep(); // the databases go with their server
    Ok(())
}

#[tokio::test]
async fn an_order_whose_event_is_too_large_is_refused_and_nothing_is_stored() -> Result<()> {
    let shop =
        Shop::open(|options| options.env.push(("MAX_EVENT_BYTES".into(), "1330".into()))).await?;
    let lines = [("COFFEE", 1), ("TEA-GREEN", 1), ("MUG", 1), ("KETTLE", 1), ("GRINDER", 1)];
    let refused = shop.client.place("ann", &lines, "large").await?;
    assert_eq!(refused.status, 413, "{}", refused.json);
    assert!(
        refused.json["detail"].as_str().is_some_and(|detail| detail.contains("1330")),
        "{}",
        refused.json
    );
    shop.order("small", 1).await?;
    assert_eq!(shop.ends_well().await?.orders, 1);
    Ok(())
}

#[tokio::test]
async fn a_topic_that_comes_back_empty_or_truncated_stops_its_own_lanes_only() -> Result<()> {
    let mut kafka = KafkaServer::temporary().await?;
    let stack = Stack::shared().await?;
    let mut shop = Shop::alone_on(kafka.bootstrap(), stack.postgres(), |_| {}).await?;
    for lane in 0..4 {
        let (key, _) = shop.key_in(Partition(lane), "before");
        shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;
    }

    assert_eq!(shop.ends_well().await?.confirmed, 4);
    let before = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;

    // Two of payment's partitions lose records while the broker is down.
    kafka.stop().await?;
    let topic = shop.system.topic(Service::PAYMENT);
    fs::remove_dir_all(kafka.partition_at_rest(&topic, 0)?)?;
    truncate(&kafka.partition_at_rest(&topic, 1)?)?;
    kafka.restart().await?;

    for name in ["order-1", "inventory-1"] {
        for lane in ["0", "1"] {
            eventually("a lane that reads a damaged partition to stop", || async {
                let health = shop.health(shop.replica(name)).await?;
                Ok(health["lanes"]["stopped"][lane]
                    .as_str()
                    .is_some_and(|reason| reason.contains("payments")))
            })
            .await?;
        }
        assert!(shop.replica(name).log_text().contains("lane.stopped"), "{name} must log it");
    }

    // The owner of the topic finds out when it writes.
    for lane in 0..2 {
        let customer = customer_in(&shop, Partition(lane));
        shop.client.deposit(&customer, 100, "after").await?.created()?;
        eventually("the owner's lane to stop", || async {
            Ok(shop.health(shop.replica("payment-1")).await?["lanes"]["stopped"][lane.to_string()]
                .is_string())
        })
        .await?;
    }

    for lane in 2..4 {
        let (key, order) = shop.key_in(Partition(lane), "after");
        shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;
        eventually("the other lanes to go on", || async {
            Ok(shop.status(order).await? == "confirmed")
        })
        .await?;
    }

    let after = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;
    assert_eq!(after[..2], before[..2], "nothing is skipped");
    shop.replicas.clear();
    Ok(())
}

/// A customer whose deposits fall into a lane.
fn customer_in(shop: &Shop, lane: Partition) -> String {
    let partitions = shop.partitions();
    (0..)
        .map(|nth| format!("customer-{nth}"))
        .find(|name| partitions.of(name.as_bytes()) == lane)
        .expect("some name falls into every lane")
}

/// Truncates a partition's log by its last batch of records, like a broker that lost its last
/// writes.
fn truncate(folder: &Path) -> Result<()> {
    let log = folder.join("00000000000000000000.log");
    let bytes = fs::read(&log)?;
    let (mut start, mut last) = (0, 0);
    while start < bytes.len() {
        last = start;
        // The batch header: base offset (8 bytes), then length of the rest (4 bytes, big-endian).
        let length = bytes.get(start + 8..start + 12).context("a batch is cut off")?;
        start += 12 + usize::try_from(u32::from_be_bytes(length.try_into()?))?;
    }

    ensure!(last > 0, "{} holds a single batch", log.display());
    fs::OpenOptions::new().write(true).open(&log)?.set_len(u64::try_from(last)?)?;

    // The broker rebuilds its indexes from the log.
    for file in fs::read_dir(folder)?.flatten() {
        if file.path().extension().is_some_and(|extension| {
            ["index", "timeindex", "snapshot"].iter().any(|derived| extension == *derived)
        }) {
            fs::remove_file(file.path())?;
        }
    }

    // Without the mark of a clean shutdown, the broker recovers its logs when it starts.
    let _ = fs::remove_file(folder.with_file_name(".kafka_cleanshutdown"));

    Ok(())
}

#[tokio::test]
async fn a_lane_waits_and_reports_why_while_the_broker_refuses_its_records() -> Result<()> {
    let authorizer = [
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ];
    let kafka = KafkaServer::temporary_with(&authorizer).await?;
    let stack = Stack::shared().await?;
    let mut shop = Shop::alone_on(kafka.bootstrap(), stack.postgres(), |_| {}).await?;

    // Large enough for `reel.opened`, and too small for any event.
    let orders = shop.system.topic(Service::ORDER);
    topics::configure(kafka.bootstrap(), &orders, "max.message.bytes", "450").await?;
    let order = shop.order("large", 1).await?[0];
    waits(&shop, "order-1", "too large").await?;
    assert_eq!(shop.health(shop.replica("order-1")).await?["ready"], true);
    topics::configure(kafka.bootstrap(), &orders, "max.message.bytes", "1048588").await?;
    eventually("the lane to go on by itself", || async {
        Ok(shop.status(order).await? == "confirmed")
    })
    .await?;

    let payments = shop.system.topic(Service::PAYMENT);
    let rules = ["--topic", payments.as_str(), "--allow-principal", "User:*", "--operation", "All"];
    let no_write =
        ["--topic", payments.as_str(), "--deny-principal", "User:*", "--operation", "Write"];
    kafka.acls(&[&["--add"], &rules[..]].concat()).await?;
    kafka.acls(&[&["--add"], &no_write[..]].concat()).await?;
    let order = shop.order("forbidden", 1).await?[0];
    waits(&shop, "payment-1", "authorization").await?;
    kafka.acls(&[&["--remove"], &no_write[..]].concat()).await?;
    eventually("the lane to go on by itself", || async {
        Ok(shop.status(order).await? == "confirmed")
    })
    .await?;
    assert_eq!(shop.ends_well().await?.confirmed, 2);
    shop.replicas.clear();
    Ok(())
}

/// The topic's `max.message.bytes` limits the batches that a producer makes, and not only each
/// event in them.
#[tokio::test]
async fn events_that_fit_only_one_by_one_are_published_all_the_same() -> Result<()> {
    let kafka = KafkaServer::temporary().await?;
    let stack = Stack::shared().await?;
    let mut shop = Shop::alone_on(kafka.bootstrap(), stack.postgres(), |_| {}).await?;
    let orders = shop.system.topic(Service::ORDER);
    topics::configure(kafka.bootstrap(), &orders, "max.message.bytes", "4000").await?;

    // They gather in the outbox, and go as one burst.
    kafka.pause()?;
    shop.order("many", 60).await?;
    kafka.resume()?;
    assert_eq!(shop.ends_well().await?.confirmed, 60);
    shop.replicas.clear();
    Ok(())
}

/// Waits until some lane waits and reports this reason.
async fn waits(shop: &Shop, name: &str, why: &str) -> Result<()> {
    eventually("a lane to wait and report why", || async {
        let health = shop.health(shop.replica(name)).await?;
        let waiting = health["lanes"]["waiting"].as_object().context("an object")?;
        Ok(waiting.values().any(|reason| {
            reason.as_str().is_some_and(|reason| reason.to_lowercase().contains(why))
        }))
    })
    .await
}
