//! The wire format as any Kafka client sees it: the headers of the raw records.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use orderctl::system::Service;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use reel::model::Partition;
use saga_tests::Shop;

/// A record's key, headers, and first two bytes of the payload.
type Raw = (String, BTreeMap<String, String>, Vec<u8>);

/// Reads the first records of a topic-partition.
fn raw(brokers: &str, topic: &str, partition: Partition, count: usize) -> Result<Vec<Raw>> {
    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", brokers).set("group.id", "raw").create()?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition.0, Offset::Beginning)?;
    consumer.assign(&list)?;

    let mut records = Vec::new();
    while records.len() < count {
        let message = consumer.poll(Duration::from_secs(20)).expect("a record in time")?;
        let headers = message.headers().into_iter().flat_map(Headers::iter);
        let headers = headers.map(|header| {
            (
                header.key.to_owned(),
                String::from_utf8_lossy(header.value.unwrap_or_default()).into_owned(),
            )
        });
        let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
        records.push((key, headers.collect(), message.payload().unwrap_or_default()[..2].to_vec()));
    }

    Ok(records)
}

#[tokio::test]
async fn headers_follow_the_cloudevents_kafka_binding() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let (key, order) = shop.key_in(Partition(2), "wire");
    shop.client.place("ann", &[("COFFEE", 1)], &key).await?.order_id()?;
    shop.ends_well().await?;

    let kafka = shop.system.sources().kafka;
    let of_order = |service: Service| -> Result<Vec<Raw>> {
        let topic = shop.system.topic(service);
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("group.id", "raw")
            .create()?;
        let (_, end) = consumer.fetch_watermarks(&topic, 2, Duration::from_secs(10))?;
        let records = raw(&kafka.brokers, &topic, Partition(2), usize::try_from(end)?)?;
        assert!(
            records.iter().all(|(_, headers, _)| headers["ce_specversion"] == "1.0"),
            "{records:?}"
        );

        Ok(records.into_iter().filter(|(key, ..)| *key == order.to_string()).collect())
    };

    let created = &of_order(Service::ORDER)?[0];
    let completed = &of_order(Service::PAYMENT)?[0];
    let (key, headers, payload) = completed;
    assert_eq!(
        (key.as_str(), payload.as_slice()),
        (order.to_string().as_str(), [0xc3, 0x01].as_slice()),
        "Avro single-object encoding"
    );

    let expected = [
        ("ce_type", "PaymentCompleted".to_owned()),
        ("ce_source", "payment".to_owned()),
        ("ce_subject", order.to_string()),
        ("ce_correlationid", order.to_string()),
        ("ce_causationid", created.1["ce_id"].clone()),
        ("content-type", "application/avro".to_owned()),
    ];
    for (name, value) in expected {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(uuid::Uuid::parse_str(&headers["ce_id"])?.get_version_num(), 7);
    assert!(
        headers["ce_time"].ends_with('Z') && headers["ce_time"].contains('T'),
        "RFC 3339: {}",
        headers["ce_time"]
    );

    let cause: Vec<&str> = headers["ce_cause"].split('/').collect();
    let (sequence, epoch) = (&created.1["ce_sequence"], &created.1["ce_generation"]);
    assert_eq!(
        cause[..4],
        [shop.system.topic(Service::ORDER).as_str(), "2", epoch.as_str(), sequence.as_str()]
    );

    let (step, place) = headers["ce_decided"].split_once('/').expect("step/place");
    assert!(step.parse::<i64>().is_ok() && place.parse::<i32>().is_ok());
    Ok(())
}
