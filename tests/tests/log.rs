//! The log across services: what a consumer does with what others write, or fail to write.

use std::time::Duration;

use anyhow::{Context, Result};
use contracts::payments::{PaymentEvent, PaymentFailed, PaymentFailure};
use contracts::{Money, OrderId};
use orderctl::system::Service;
use reel::kafka::{Reader, Topics};
use reel::model::Partition;
use saga_tests::{Pen, Shop, eventually};

fn failed(order_id: OrderId) -> PaymentEvent {
    let amount: Money = Money { amount: 680, currency: "EUR".parse().expect("a currency") };
    PaymentFailed { order_id, customer: "ann".parse().expect("a name"), amount, reason: PaymentFailure::InsufficientFunds }.into()
}

#[tokio::test]
async fn a_foreign_opening_makes_the_owner_open_again_and_publish_what_consumers_dropped() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let kafka = shop.system.places().kafka;
    for service in Service::ALL {
        let mut pen = Pen::new(&kafka.brokers, &shop.system.topic(service))?;
        for partition in 0..4 {
            pen.open(Partition(partition)).await?;
        }
    }
    shop.order("after", 12).await?;
    let figures = shop.ends_well().await?;
    assert_eq!(figures.confirmed, 12);
    Ok(())
}

#[tokio::test]
async fn records_that_are_published_again_are_applied_once() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    shop.order("before", 8).await?;
    shop.ends_well().await?;
    let kafka = shop.system.places().kafka;
    let reader = Reader::new(kafka.clone());
    for service in Service::ALL {
        let topic = shop.system.topic(service);
        let pen = Pen::new(&kafka.brokers, &topic)?;
        for partition in (0..4).map(Partition) {
            let (_, end) = reader.watermarks(&topic, partition).await?;
            let mut records = reader.range(&topic, partition, 0, end);
            while let Some(record) = records.recv().await {
                let record = record?;
                if record.envelope.as_ref().is_ok_and(|envelope| envelope.number.is_some()) {
                    let key = String::from_utf8(record.key.clone().unwrap_or_default())?;
                    pen.repeat(&record, &key).await?;
                }
            }
        }
    }
    shop.order("after", 8).await?;
    let figures = shop.ends_well().await?;
    assert_eq!(figures.confirmed, 16);
    assert!(figures.duplicates + figures.stale >= 24, "{figures:?}");
    Ok(())
}

#[tokio::test]
async fn an_input_is_held_at_a_missing_number_while_other_lanes_and_deadlines_go_on() -> Result<()> {
    let mut shop = Shop::prepared(|options| options.settle_within = Duration::from_secs(12)).await?;
    let mut replica = shop.system.start(Service::Order, "order-1").await?;
    replica.wait_ready().await?;
    let mut pen = Pen::new(&shop.system.places().kafka.brokers, &shop.system.topic(Service::Payment))?;
    let (gap, whole) = (Partition(0), Partition(1));
    let place = async |lane: Partition, name: &str| -> Result<OrderId> {
        let (key, id) = shop.key_in(lane, name);
        assert_eq!(shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?, id);
        Ok(id)
    };
    let (late, other) = (place(gap, "late").await?, place(whole, "other").await?);
    pen.open(gap).await?;
    pen.open(whole).await?;
    pen.write(gap, 1, &failed(late)).await?; // number 0 is missing
    pen.write(whole, 0, &failed(other)).await?;
    eventually("the other lane goes on", || async { Ok(shop.status(other).await? == "cancelled") }).await?;
    let held = format!("{}/0", shop.system.topic(Service::Payment));
    eventually("the input is held", || async { Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([held])) }).await?;
    eventually("the deadline of the held lane fires", || async { Ok(shop.client.order(late).await?.success()?["reason"] == "expired") })
        .await?;

    replica.kill().await?;
    let mut replica = shop.system.start(Service::Order, "order-1").await?;
    replica.wait_ready().await?;
    eventually("it is held again", || async { Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([held])) }).await?;

    let first = place(gap, "first").await?;
    pen.write(gap, 0, &failed(first)).await?;
    pen.write(gap, 1, &failed(late)).await?;
    pen.write(gap, 1, &failed(late)).await?; // a duplicate
    let second = place(gap, "second").await?;
    pen.write(gap, 2, &failed(second)).await?;
    for order in [first, second] {
        eventually("the lane goes on", || async { Ok(shop.client.order(order).await?.success()?["reason"] == "payment_failed") }).await?;
    }
    eventually("nothing is held any more", || async { Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([])) }).await?;
    eventually("the position is behind the last number", || async {
        let sql = "select next_seq from reel.positions where reader = 'order' and partition = 0 and topic like '%payments'";
        Ok(shop.count(Service::Order, sql).await? == 3)
    })
    .await?;
    shop.replicas.push(replica);
    Ok(())
}

#[tokio::test]
async fn an_input_made_anew_stops_the_lane() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let mut replica = shop.system.start(Service::Order, "order-1").await?;
    replica.wait_ready().await?;
    let (kafka, topic) = (shop.system.places().kafka, shop.system.topic(Service::Payment));
    let mut pen = Pen::new(&kafka.brokers, &topic)?;
    pen.open(Partition(2)).await?;
    eventually("the opening was read", || async {
        Ok(shop.count(Service::Order, "select count(*) from reel.positions where reader = 'order' and generation = 0").await? == 1)
    })
    .await?;
    replica.stop().await?;

    devstack::topics::delete_with_prefix(&kafka.brokers, &topic).await?;
    let topics = Topics::new(kafka.clone())?;
    topics.create_journal(Service::Payment.topic(), 4, None).await?;
    let mut pen = Pen::new(&kafka.brokers, &topic)?;
    pen.open(Partition(2)).await?;
    let replica = shop.system.start(Service::Order, "order-1").await?;
    eventually("the lane is stopped, and says why", || async {
        let Ok(health) = shop.health(&replica).await else { return Ok(false) };
        Ok(health["lanes"]["stopped"]["2"].as_str().is_some_and(|reason| reason.contains("made anew")))
    })
    .await?;
    eventually("the other lanes are open", || async { Ok(shop.health(&replica).await?["lanes"]["open"] == 3) }).await?;
    Ok(())
}

#[tokio::test]
async fn a_topic_that_is_deleted_stops_its_lanes_which_say_so_and_skip_nothing() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    shop.order("before", 8).await?;
    shop.ends_well().await?;
    let (kafka, topic) = (shop.system.places().kafka, shop.system.topic(Service::Payment));
    let read = "select count(*) from reel.positions where reader in ('order', 'inventory') and topic like '%payments' and generation >= 0";
    for service in [Service::Order, Service::Inventory] {
        eventually("every lane has read of it", || async { Ok(shop.count(service, read).await? == 4) }).await?;
    }
    let positions = "select sum(next_offset)::bigint from reel.positions where reader = 'order' and topic like '%payments'";
    let before = shop.count(Service::Order, positions).await?;

    devstack::topics::delete_with_prefix(&kafka.brokers, &topic).await?;
    for name in ["order-1", "inventory-1"] {
        for lane in ["0", "1", "2", "3"] {
            eventually("a lane that reads what is gone stands still", || async {
                let health = shop.health(shop.replica(name)).await?;
                Ok(health["lanes"]["waiting"][lane].as_str().is_some_and(|reason| reason.contains("payments is gone")))
            })
            .await?;
        }
        assert!(shop.replica(name).log_text().contains("LANE STANDS STILL"), "{name} says so loudly");
    }
    shop.client.deposit("ann", 100, "after").await?.created()?;
    eventually("the owner's lane says so when it writes", || async {
        let health = shop.health(shop.replica("payment-1")).await?;
        let waiting = health["lanes"]["waiting"].as_object().context("an object")?;
        Ok(waiting.values().any(|reason| reason.as_str().is_some_and(|reason| reason.contains("payments is gone"))))
    })
    .await?;
    shop.take("inventory-1").kill().await?;
    let inventory = shop.system.start(Service::Inventory, "inventory-1").await?;
    eventually("a replica that starts says so too", || async {
        let Ok(health) = shop.health(&inventory).await else { return Ok(false) };
        Ok(health["reason"].as_str().is_some_and(|reason| reason.contains("payments IS GONE")))
    })
    .await?;

    Topics::new(kafka.clone())?.create_journal(Service::Payment.topic(), 4, None).await?;
    for lane in ["0", "1", "2", "3"] {
        eventually("a lane whose topic comes back as another one stops for good", || async {
            let health = shop.health(shop.replica("order-1")).await?;
            Ok(health["lanes"]["stopped"][lane].as_str().is_some_and(|reason| reason.contains("made anew")))
        })
        .await?;
    }
    assert_eq!(shop.count(Service::Order, positions).await?, before, "nothing is skipped");
    Ok(())
}
