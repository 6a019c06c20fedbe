//! The log across services: how a consumer handles records that others write, or fail to write.

use std::time::Duration;

use anyhow::{Context, Result};
use contracts::payments::{PaymentEvent, PaymentFailed, PaymentFailure};
use contracts::{Money, OrderId};
use orderctl::system::Service;
use reel::kafka::{RangeReader, Topics};
use reel::model::Partition;
use saga_tests::{Pen, Shop, eventually};

fn failed(order_id: OrderId) -> PaymentEvent {
    let amount: Money = Money { amount: 680, currency: "EUR".parse().expect("a currency") };
    PaymentFailed {
        order_id,
        customer: "ann".parse().expect("a name"),
        amount,
        reason: PaymentFailure::InsufficientFunds,
    }
    .into()
}

#[tokio::test]
async fn a_foreign_opening_makes_the_owner_recover_and_republish_what_consumers_dropped()
-> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let kafka = shop.system.sources().kafka;
    for service in Service::all() {
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
async fn republished_records_are_applied_once() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    shop.order("before", 8).await?;
    shop.ends_well().await?;
    let kafka = shop.system.sources().kafka;
    let reader = RangeReader::new(kafka.clone());
    for service in Service::all() {
        let topic = shop.system.topic(service);
        let pen = Pen::new(&kafka.brokers, &topic)?;
        for partition in (0..4).map(Partition) {
            let (_, end) = reader.watermarks(&topic, partition).await?;
            let mut records = reader.range(&topic, partition, 0, end);
            while let Some(record) = records.recv().await {
                let record = record?;
                if record.envelope.as_ref().is_ok_and(|envelope| envelope.sequence.is_some()) {
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
async fn an_input_is_blocked_on_a_gap_while_other_lanes_and_deadlines_go_on() -> Result<()> {
    let mut shop =
        Shop::prepared(|options| options.settle_within = Duration::from_secs(12)).await?;
    let mut replica = shop.system.start(Service::ORDER, "order-1").await?;
    replica.wait_ready().await?;
    let mut pen =
        Pen::new(&shop.system.sources().kafka.brokers, &shop.system.topic(Service::PAYMENT))?;
    let (gap, whole) = (Partition(0), Partition(1));
    let place = async |lane: Partition, name: &str| -> Result<OrderId> {
        let (key, id) = shop.key_in(lane, name);
        assert_eq!(shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?, id);
        Ok(id)
    };
    let (late, other) = (place(gap, "late").await?, place(whole, "other").await?);
    pen.open(gap).await?;
    pen.open(whole).await?;

    // In one lane, sequence 0 is missing.
    pen.write(gap, 1, &failed(late)).await?;
    pen.write(whole, 0, &failed(other)).await?;
    eventually("the other lane to go on", || async {
        Ok(shop.status(other).await? == "cancelled")
    })
    .await?;
    let blocked = format!("{}/0", shop.system.topic(Service::PAYMENT));
    eventually("the input to be blocked", || async {
        Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([blocked]))
    })
    .await?;
    eventually("the deadline of the blocked lane to fire", || async {
        Ok(shop.client.order(late).await?.success()?["reason"] == "expired")
    })
    .await?;

    // A restart does not lose the gap.
    replica.kill().await?;
    let mut replica = shop.system.start(Service::ORDER, "order-1").await?;
    replica.wait_ready().await?;
    eventually("the input to be blocked again", || async {
        Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([blocked]))
    })
    .await?;

    // The owner sends again from the gap on.
    let first = place(gap, "first").await?;
    pen.write(gap, 0, &failed(first)).await?;
    pen.write(gap, 1, &failed(late)).await?;
    pen.write(gap, 1, &failed(late)).await?; // a duplicate
    let second = place(gap, "second").await?;
    pen.write(gap, 2, &failed(second)).await?;
    for order in [first, second] {
        eventually("the lane to go on", || async {
            Ok(shop.client.order(order).await?.success()?["reason"] == "payment_failed")
        })
        .await?;
    }

    eventually("the input to be unblocked", || async {
        Ok(shop.health(&replica).await?["held_inputs"] == serde_json::json!([]))
    })
    .await?;
    eventually("the position to be behind the last sequence", || async {
        let inputs = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;
        Ok(inputs[0].next_sequence == 3)
    })
    .await?;
    shop.replicas.push(replica);
    Ok(())
}

#[tokio::test]
async fn a_recreated_input_topic_stops_the_lane() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let mut replica = shop.system.start(Service::ORDER, "order-1").await?;
    replica.wait_ready().await?;
    let (kafka, topic) = (shop.system.sources().kafka, shop.system.topic(Service::PAYMENT));
    let mut pen = Pen::new(&kafka.brokers, &topic)?;
    pen.open(Partition(2)).await?;
    eventually("the opening to be read", || async {
        let inputs = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;
        Ok(inputs[2].epoch == 0)
    })
    .await?;
    replica.stop().await?;

    devstack::topics::delete_with_prefix(&kafka.brokers, &topic).await?;
    let topics = Topics::new(kafka.clone())?;
    topics.create_journal(Service::PAYMENT.topic(), 4, None).await?;
    let mut pen = Pen::new(&kafka.brokers, &topic)?;
    pen.open(Partition(2)).await?;
    let replica = shop.system.start(Service::ORDER, "order-1").await?;
    eventually("the lane to stop and report why", || async {
        let Ok(health) = shop.health(&replica).await else { return Ok(false) };
        Ok(health["lanes"]["stopped"]["2"]
            .as_str()
            .is_some_and(|reason| reason.contains("recreated")))
    })
    .await?;
    eventually("the other lanes to be open", || async {
        Ok(shop.health(&replica).await?["lanes"]["open"] == 3)
    })
    .await?;

    Ok(())
}

#[tokio::test]
async fn a_deleted_topic_stops_its_lanes_which_report_it_and_skip_nothing() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    shop.order("before", 8).await?;
    shop.ends_well().await?;
    let (kafka, topic) = (shop.system.sources().kafka, shop.system.topic(Service::PAYMENT));
    for service in [Service::ORDER, Service::INVENTORY] {
        eventually("every lane to have read from the topic", || async {
            let inputs = shop.inputs(service, service.name(), Service::PAYMENT).await?;
            Ok(inputs.iter().filter(|input| input.epoch >= 0).count() == 4)
        })
        .await?;
    }

    let before = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;

    devstack::topics::delete_with_prefix(&kafka.brokers, &topic).await?;
    for name in ["order-1", "inventory-1"] {
        for lane in ["0", "1", "2", "3"] {
            eventually("a lane that reads the deleted topic to wait", || async {
                let health = shop.health(shop.replica(name)).await?;
                Ok(health["lanes"]["waiting"][lane]
                    .as_str()
                    .is_some_and(|reason| reason.contains("payments is gone")))
            })
            .await?;
        }
        assert!(shop.replica(name).log_text().contains("lane.waiting"), "{name} must log it");
    }

    // The owner finds out when it writes, and a new replica when it starts.
    shop.client.deposit("ann", 100, "after").await?.created()?;
    eventually("the owner's lane to report it when it writes", || async {
        let health = shop.health(shop.replica("payment-1")).await?;
        let waiting = health["lanes"]["waiting"].as_object().context("an object")?;
        Ok(waiting.values().any(|reason| {
            reason.as_str().is_some_and(|reason| reason.contains("payments is gone"))
        }))
    })
    .await?;
    shop.take("inventory-1").kill().await?;
    let inventory = shop.system.start(Service::INVENTORY, "inventory-1").await?;
    eventually("a replica that starts to report it too", || async {
        let Ok(health) = shop.health(&inventory).await else { return Ok(false) };
        Ok(health["reason"].as_str().is_some_and(|reason| reason.contains("payments is gone")))
    })
    .await?;

    Topics::new(kafka.clone())?.create_journal(Service::PAYMENT.topic(), 4, None).await?;
    for lane in ["0", "1", "2", "3"] {
        eventually("a lane whose topic was recreated to stop for good", || async {
            let health = shop.health(shop.replica("order-1")).await?;
            Ok(health["lanes"]["stopped"][lane]
                .as_str()
                .is_some_and(|reason| reason.contains("recreated")))
        })
        .await?;
    }

    let after = shop.inputs(Service::ORDER, "order", Service::PAYMENT).await?;
    assert_eq!(after, before, "nothing is skipped");
    Ok(())
}
