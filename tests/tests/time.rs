//! Databases that are put back in time or dropped under live replicas.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Result;
use contracts::OrderId;
use contracts::inventory::{InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored};
use devstack::{PostgresServer, Stack};
use orderctl::system::Service;
use reel::inspect::InputProgress;
use reel::model::Partition;
use saga_tests::{LIMIT, Pen, Shop, eventually};

#[tokio::test]
async fn a_database_put_back_in_time_under_live_replicas_catches_up_before_it_assigns_a_sequence()
-> Result<()> {
    let kafka = Stack::shared().await?;
    let mut postgres = PostgresServer::temporary().await?;
    let mut shop =
        Shop::on(kafka.kafka(), postgres.url(), |options| options.lease = Duration::from_secs(1))
            .await?;
    shop.replicas = shop.system.start_all(2).await?;
    shop.fill().await?;
    shop.order("first", 8).await?;
    shop.ends_well().await?;

    // Copy the database, then publish events that the copy lacks.
    let copy = postgres.log().with_file_name("copy");
    postgres.stop().await?;
    postgres.copy_to(&copy).await?;
    postgres.restart().await?;
    shop.order("lacking", 8).await?;
    shop.ends_well().await?;

    // Put the database back in time.
    postgres.stop().await?;
    postgres.restore_from(&copy).await?;
    postgres.restart().await?;
    shop.order("after", 8).await?;
    let figures = shop.ends_well().await?;

    for service in Service::all() {
        let mut replicas = shop.replicas.iter().filter(|replica| replica.service() == service);
        assert!(
            replicas
                .any(|replica| replica.log_text().contains("replaying what the database lacks")),
            "{service} must replay what its database lacks"
        );
    }

    assert_eq!((figures.orders, figures.confirmed, figures.forks), (24, 24, 0));
    timelines_are_complete(&shop, 24).await?;
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} has died", replica.name());
    }
    shop.replicas.clear();
    shop.system.keep(); // the databases go with their server
    Ok(())
}

#[tokio::test]
async fn a_database_dropped_mid_run_is_rebuilt_from_its_topic() -> Result<()> {
    let mut shop = Shop::open(|options| options.lease = Duration::from_secs(1)).await?;

    // Orders that were acknowledged before order's database is dropped are at risk; later ones are
    // safe.
    let (mut at_risk, mut safe) = (Vec::new(), Vec::new());
    for service in Service::all() {
        let before = shop.order(&format!("before-{service}"), 6).await?;
        if service == Service::ORDER {
            at_risk.extend(before);
        } else {
            safe.extend(before);
        }

        shop.drop_database(service).await?;
        shop.system.run(service, "migrate").await?;
        safe.extend(shop.order(&format!("after-{service}"), 6).await?);
    }

    shop.system.until_quiet(LIMIT).await?;
    let audit = shop.system.sources().audit().await?;
    assert!(audit.figures.ok, "{:#?}\n{:#?}", audit.figures, audit.findings);

    // An order that was acknowledged, but not yet published when the database was dropped, is
    // absent from the topic and therefore from the service.
    let published: HashSet<OrderId> = audit.sagas.iter().map(|saga| saga.order_id).collect();
    for order in &safe {
        assert!(published.contains(order), "{order} was acknowledged and is lost");
    }
    let mut lost = 0;
    for order in &at_risk {
        let answer = shop.client.order(*order).await?.status;
        assert_eq!(answer, if published.contains(order) { 200 } else { 404 }, "{order}");
        lost += u64::from(answer == 404);
    }

    assert_eq!(audit.figures.orders + lost, 36);
    assert_eq!(audit.figures.confirmed, audit.figures.orders);
    timelines_are_complete(&shop, i64::try_from(audit.figures.orders)?).await?;
    for replica in &mut shop.replicas {
        assert!(replica.is_running(), "{} has died", replica.name());
    }

    Ok(())
}

/// Waits until the timelines hold each event of the orders once. All orders are confirmed, so each
/// has four events. The projection was put back with its database or started empty.
async fn timelines_are_complete(shop: &Shop, orders: i64) -> Result<()> {
    let entries = "select count(*) from timeline";
    eventually("every event to be in a timeline, once", || async {
        Ok(shop.count(Service::ORDER, entries).await? == orders * 4)
    })
    .await
}

#[tokio::test]
async fn a_rebuild_restores_positions_deadlines_and_parked_keys() -> Result<()> {
    // Inventory does not run: the test writes to its topic.
    let mut shop = Shop::prepared(|options| options.settle_within = Duration::from_mins(1)).await?;
    for service in [Service::ORDER, Service::PAYMENT] {
        shop.replicas.push(shop.system.start(service, &format!("{service}-1")).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }
    shop.client.deposit("ann", 1_000_000, "first").await?.created()?;

    // An open order in the lane, with a deadline and a payment.
    let lane = Partition(3);
    let (key, order) = shop.key_in(lane, "open");
    shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;

    // Out of stock for an order that payment has never seen, which is impossible: the message is
    // parked. The later ones of its key wait.
    let (_, unknown) = shop.key_in(lane, "never-placed");
    let mut pen =
        Pen::new(&shop.system.sources().kafka.brokers, &shop.system.topic(Service::INVENTORY))?;
    pen.open(lane).await?;
    let impossible =
        InventoryFailed { order_id: unknown, reason: InventoryFailure::OutOfStock, short: vec![] };
    pen.write(lane, 0, &InventoryEvent::from(impossible.clone())).await?;

    // Payment does not handle this type.
    pen.write(
        lane,
        1,
        &InventoryEvent::from(InventoryRestored { order_id: unknown, lines: vec![] }),
    )
    .await?;
    pen.write(lane, 2, &InventoryEvent::from(impossible)).await?;

    eventually("both messages to be parked", || async {
        Ok(shop.parked(Service::PAYMENT).await? == 2)
    })
    .await?;
    eventually("payment to have taken the money", || async {
        Ok(shop.count(Service::PAYMENT, "select count(*) from payments").await? == 1)
    })
    .await?;
    for service in [Service::ORDER, Service::PAYMENT] {
        eventually("every event to be published", || async {
            let lanes = shop.lanes(service).await?;
            Ok(!lanes.is_empty() && lanes.iter().all(|lane| lane.published == lane.next_sequence))
        })
        .await?;
    }

    let before = shop.inputs(Service::PAYMENT, "payment", Service::INVENTORY).await?;
    for service in [Service::ORDER, Service::PAYMENT] {
        shop.drop_database(service).await?;
        shop.system.run(service, "migrate").await?;
    }

    eventually("the messages to be parked again", || async {
        Ok(shop.parked(Service::PAYMENT).await.is_ok_and(|parked| parked == 2))
    })
    .await?;
    eventually("the position to be restored", || async {
        let restored = shop.inputs(Service::PAYMENT, "payment", Service::INVENTORY).await;
        Ok(restored.is_ok_and(|restored| next_sequences(&restored) == next_sequences(&before)))
    })
    .await?;
    let events = shop.lanes(Service::PAYMENT).await?[3].next_sequence;
    eventually("the deadline to be restored", || async {
        Ok(shop.deadlines(Service::ORDER).await.is_ok_and(|deadlines| deadlines == 1))
    })
    .await?;
    assert_eq!(shop.status(order).await?, "open");

    eventually("the deadline to fire", || async { Ok(shop.status(order).await? == "cancelled") })
        .await?;
    eventually("the money to come back", || async {
        Ok(shop
            .count(Service::PAYMENT, "select balance from accounts where customer = 'ann'")
            .await?
            == 1_000_000)
    })
    .await?;
    assert_eq!(
        shop.lanes(Service::PAYMENT).await?[3].next_sequence,
        events + 1,
        "the rebuild must lead to one refund and to no other event"
    );

    Ok(())
}

fn next_sequences(inputs: &[InputProgress]) -> Vec<i64> {
    inputs.iter().map(|input| input.next_sequence).collect()
}
