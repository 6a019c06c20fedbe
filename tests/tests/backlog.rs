//! A service that starts before a full topic.

use std::time::Duration;

use anyhow::{Result, ensure};
use contracts::orders::{OrderCreated, OrderEvent};
use contracts::{CustomerId, Money, OrderId, PricedLine, RequestHash};
use devstack::wait;
use orderctl::system::{Service, peak_memory_kib};
use reel::model::Timestamp;
use saga_tests::{Pen, Shop, eventually};

const RECORDS: i64 = 1_000_000;
/// So many of them wait at least when the first batch is handled: it is not all read before anything is done.
const WAIT_AT_FIRST: i64 = 900_000;
/// So many of them are consumed while the test looks at the memory.
const CONSUMED: i64 = 200_000;
const CONSUMED_WITHIN: Duration = Duration::from_secs(300);
const MOST_MIB: u64 = 256;

#[tokio::test]
async fn a_million_records_that_wait_are_taken_in_batches_at_once_and_in_little_memory() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    let mut pen = Pen::new(&shop.system.places().kafka.brokers, &shop.system.topic(Service::Order))?;
    let partitions = shop.partitions();
    for partition in partitions.iter() {
        pen.open(partition).await?;
    }
    let customer: CustomerId = "ann".parse()?;
    let mut numbers = [0; 4];
    pen.write_many((0..RECORDS).map(|nth| {
        let event = created(&customer, nth);
        let partition = partitions.of(event.order_id.to_string().as_bytes());
        let number = &mut numbers[usize::try_from(partition.0).unwrap_or(0)];
        *number += 1;
        (partition, *number - 1, OrderEvent::from(event))
    }))
    .await?;

    let payment = shop.system.start(Service::Payment, "payment-1").await?;
    let consumed = "select coalesce(sum(next_seq), 0)::bigint from reel.positions where topic like '%orders'";
    let handled = "select count(*) from (select from payments limit 1) as one";
    eventually("the first batch is handled", || async { Ok(shop.count(Service::Payment, handled).await? > 0) }).await?;
    let left = RECORDS - shop.count(Service::Payment, consumed).await?;
    println!("{left} records wait when the first batch is handled");
    ensure!(left > WAIT_AT_FIRST, "only {left} records wait when the first batch is handled");
    wait::until(CONSUMED_WITHIN, "many batches to be handled", || async {
        Ok((shop.count(Service::Payment, consumed).await? >= CONSUMED).then_some(()))
    })
    .await?;
    let left = RECORDS - shop.count(Service::Payment, consumed).await?;
    let peak = peak_memory_kib(payment.pid())? / 1024;
    devstack::tell(&format!("{left} records are left; payment took {peak} MiB at most"));
    ensure!(left > 0, "nothing waits any more");
    ensure!(peak < MOST_MIB, "payment took {peak} MiB, and {MOST_MIB} are allowed");
    shop.replicas.push(payment);
    Ok(())
}

/// An order of somebody who has no account.
fn created(customer: &CustomerId, nth: i64) -> OrderCreated {
    let price = Money::new(680, "EUR".parse().expect("a currency"));
    let now = Timestamp::from_micros(1_700_000_000_000_000 + nth);
    OrderCreated {
        order_id: OrderId::of_request(customer, &nth.to_string()),
        customer: customer.clone(),
        lines: vec![PricedLine { sku: "COFFEE".parse().expect("a product"), quantity: 1, unit_price: price }],
        total: price,
        placed_at: now,
        settle_by: now,
        request_hash: RequestHash::of(&nth.to_string()),
    }
}
