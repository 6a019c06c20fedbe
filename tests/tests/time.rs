//! Databases that go back in time, or are gone, under live replicas.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use contracts::OrderId;
use contracts::inventory::{InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored};
use devstack::{PostgresServer, Stack};
use orderctl::system::Service;
use reel::model::Partition;
use saga_tests::{LIMIT, Pen, Shop, eventually};
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn a_database_put_back_in_time_under_live_replicas_catches_up_before_it_numbers_anything() -> Result<()> {
    let kafka = Stack::shared().await?;
    let mut postgres = PostgresServer::temporary().await?;
    let mut shop = Shop::on(kafka.kafka(), postgres.url(), |options| options.lease = Duration::from_secs(1)).await?;
    shop.replicas = shop.system.start_all(2).await?;
    shop.fill().await?;
    shop.order("first", 8).await?;
    shop.ends_well().await?;

    let copy = postgres.log().with_file_name("copy");
    postgres.stop().await?;
    postgres.copy_to(&copy).await?;
    postgres.start_again().await?;
    shop.order("lacking", 8).await?;
    shop.ends_well().await?;

    postgres.stop().await?;
    postgres.restore_from(&copy).await?;
    postgres.start_again().await?;
    shop.order("after", 8).await?;
    let figures = shop.ends_well().await?;
    for service in Service::ALL {
        let mut replicas = shop.replicas.iter().filter(|replica| replica.service() == service);
        assert!(replicas.any(|replica| replica.log_text().contains("folding what the database lacks")), "{service} folds what it lacks");
    }
    assert_eq!((figures.orders, figures.confirmed, figures.forks), (24, 24, 0));
    timelines_are_whole(&shop, 24).await?;
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} lives on", replica.name());
    }
    shop.replicas.clear();
    shop.system.keep(); // the databases go with their server
    Ok(())
}

#[tokio::test]
async fn a_database_dropped_in_mid_run_is_rebuilt_from_its_topic() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(1)).await?;
    // Orders that were acknowledged before order's database went; those after it are safe.
    let (mut at_risk, mut safe) = (Vec::new(), Vec::new());
    for service in Service::ALL {
        let before = shop.order(&format!("before-{service}"), 6).await?;
        if service == Service::Order {
            at_risk.extend(before);
        } else {
            safe.extend(before);
        }
        drop_database(&shop, service).await?;
        shop.system.run(service, "migrate").await?;
        safe.extend(shop.order(&format!("after-{service}"), 6).await?);
    }
    shop.system.until_quiet(LIMIT).await?;
    let audit = shop.system.places().audit().await?;
    assert!(audit.figures.ok, "{:#?}\n{:#?}", audit.figures, audit.findings);
    // What was acknowledged and not published when the database went is absent from the topic, and so from the service.
    let published: HashSet<OrderId> = audit.sagas.iter().map(|saga| saga.order_id).collect();
    for order in &safe {
        assert!(published.contains(order), "{order} was acknowledged and is gone");
    }
    let mut lost = 0;
    for order in &at_risk {
        let answer = shop.client.order(*order).await?.status;
        assert_eq!(answer, if published.contains(order) { 200 } else { 404 }, "{order}");
        lost += u64::from(answer == 404);
    }
    assert_eq!(audit.figures.orders + lost, 36);
    assert_eq!(audit.figures.confirmed, audit.figures.orders);
    timelines_are_whole(&shop, i64::try_from(audit.figures.orders)?).await?;
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} lives on", replica.name());
    }
    Ok(())
}

/// A projection went back with its database, or with nothing to begin with, and has each event of the orders once: all are confirmed.
async fn timelines_are_whole(shop: &Shop, orders: i64) -> Result<()> {
    let told = "select count(*) from timeline";
    eventually("every event to be in a timeline, once", || async { Ok(shop.count(Service::Order, told).await? == orders * 4) }).await
}

#[tokio::test]
async fn a_rebuild_restores_positions_deadlines_and_parked_keys() -> Result<()> {
    // Inventory does not run: its topic is written by the test.
    let mut shop = Shop::prepared(|options| options.settle_within = Duration::from_mins(1)).await?;
    for service in [Service::Order, Service::Payment] {
        shop.replicas.push(shop.system.start(service, &format!("{service}-1")).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }
    shop.client.deposit("ann", 1_000_000, "first").await?.created()?;
    let lane = Partition(3);
    let (key, order) = shop.key_in(lane, "open");
    shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;
    let (_, unknown) = shop.key_in(lane, "never-placed");
    let mut pen = Pen::new(&shop.system.places().kafka.brokers, &shop.system.topic(Service::Inventory))?;
    pen.open(lane).await?;
    // Out of stock for an order that payment never saw: impossible. What follows under its key waits.
    let impossible = InventoryFailed { order_id: unknown, reason: InventoryFailure::OutOfStock, short: vec![] };
    pen.write(lane, 0, &InventoryEvent::from(impossible.clone())).await?;
    pen.write(lane, 1, &InventoryEvent::from(InventoryRestored { order_id: unknown, lines: vec![] })).await?; // passed over
    pen.write(lane, 2, &InventoryEvent::from(impossible)).await?;
    let parked = "select count(*) from reel.parked";
    let consumed = "select next_seq from reel.positions where topic like '%inventory' and partition = 3";
    eventually("both are parked", || async { Ok(shop.count(Service::Payment, parked).await? == 2) }).await?;
    eventually("payment has taken the money", || async { Ok(shop.count(Service::Payment, "select count(*) from payments").await? == 1) })
        .await?;
    let published =
        "select count(*) from reel.heads as head join reel.cursors as cursor using (partition) where head.next_seq <> cursor.seq";
    for service in [Service::Order, Service::Payment] {
        eventually("everything is published", || async { Ok(shop.count(service, published).await? == 0) }).await?;
    }
    let before = shop.count(Service::Payment, consumed).await?;
    for service in [Service::Order, Service::Payment] {
        drop_database(&shop, service).await?;
        shop.system.run(service, "migrate").await?;
    }
    eventually("the keys are parked again", || async { Ok(shop.count(Service::Payment, parked).await.unwrap_or(0) == 2) }).await?;
    eventually("the position is restored", || async { Ok(shop.count(Service::Payment, consumed).await.unwrap_or(0) == before) }).await?;
    let numbered = "select next_seq from reel.heads where partition = 3";
    let events = shop.count(Service::Payment, numbered).await?;
    eventually("the deadline is restored", || async {
        Ok(shop.count(Service::Order, "select count(*) from reel.deadlines").await.unwrap_or(0) == 1)
    })
    .await?;
    assert_eq!(shop.status(order).await?, "open");
    eventually("the deadline fires", || async { Ok(shop.status(order).await? == "cancelled") }).await?;
    eventually("the money comes back", || async {
        Ok(shop.count(Service::Payment, "select balance from accounts where customer = 'ann'").await? == 1_000_000)
    })
    .await?;
    assert_eq!(shop.count(Service::Payment, numbered).await?, events + 1, "one refund, and nothing else, was decided after the rebuild");
    Ok(())
}

async fn drop_database(shop: &Shop, service: Service) -> Result<()> {
    let url = shop.system.database_url(service);
    let (server, name) = url.rsplit_once('/').expect("a url with a database");
    let mut admin = PgConnection::connect(&format!("{server}/postgres")).await?;
    for statement in [format!("drop database \"{name}\" with (force)"), format!("create database \"{name}\"")] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await?;
    }
    Ok(())
}
