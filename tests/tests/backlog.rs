//! A service that starts with a long backlog in its input topic.

use std::time::Duration;

use anyhow::{Result, ensure};
use contracts::orders::{OrderCreated, OrderEvent};
use contracts::{CustomerId, Money, OrderId, PricedLine, RequestHash};
use devstack::wait;
use orderctl::system::{Service, peak_memory_kib};
use reel::model::Timestamp;
use saga_tests::{Pen, Shop, eventually};

const RECORDS: i64 = 1_000_000;
/// Least number of records that still wait when the first batch has been handled, which shows that
/// the service does not read everything before it handles anything.
const WAIT_AT_FIRST: i64 = 900_000;
/// Number of records to consume before the test measures the peak memory.
const CONSUMED: i64 = 200_000;
const CONSUMED_WITHIN: Duration = Duration::from_secs(300);
/// Limit of the service's peak memory.
const MOST_MIB: u64 = 256;

#[tokio::test]
async fn a_million_waiting_records_are_consumed_in_batches_from_the_start_and_in_little_memory()
-> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    let mut pen =
        Pen::new(&shop.system.sources().kafka.brokers, &shop.system.topic(Service::ORDER))?;
    let partitions = shop.partitions();
    for partition in partitions.iter() {
        pen.open(partition).await?;
    }

    let customer: CustomerId = "ann".parse()?;
    let mut sequences = [0; 4];
    pen.write_many((0..RECORDS).map(|nth| {
        let event = created(&customer, nth);
        let partition = partitions.of(event.order_id.to_string().as_bytes());
        let next = &mut sequences[usize::try_from(partition.0).unwrap_or(0)];
        *next += 1;
        (partition, *next - 1, OrderEvent::from(event))
    }))
    .await?;

    let payment = shop.system.start(Service::PAYMENT, "payment-1").await?;
    let handled = "select count(*) from (select from payments limit 1) as one";
    eventually("the first batch to be handled", || async {
        Ok(shop.count(Service::PAYMENT, handled).await? > 0)
    })
    .await?;

    let left = RECORDS - consumed(&shop).await?;
    println!("{left} records wait when the first batch is handled");
    ensure!(left > WAIT_AT_FIRST, "only {left} records wait when the first batch is handled");

    wait::until(CONSUMED_WITHIN, "many batches to be handled", || async {
        Ok((consumed(&shop).await? >= CONSUMED).then_some(()))
    })
    .await?;

    let left = RECORDS - consumed(&shop).await?;
    let peak = peak_memory_kib(payment.pid())? / 1024;
    devstack::print_uncaptured(&format!(
        "{left} records are left; payment's peak memory was {peak} MiB"
    ));
    ensure!(left > 0, "no record waits any more: the peak was measured too late");
    ensure!(peak < MOST_MIB, "payment's peak memory was {peak} MiB; the limit is {MOST_MIB} MiB");
    shop.replicas.push(payment);
    Ok(())
}

/// An order of a customer who has no account.
fn created(customer: &CustomerId, nth: i64) -> OrderCreated {
    let price = Money::new(680, "EUR".parse().expect("a currency"));
    let now = Timestamp::from_micros(1_700_000_000_000_000 + nth);
    OrderCreated {
        order_id: OrderId::of_request(customer, &nth.to_string()),
        customer: customer.clone(),
        lines: vec![PricedLine {
            sku: "COFFEE".parse().expect("a product"),
            quantity: 1,
            unit_price: price,
        }],
        total: price,
        placed_at: now,
        settle_by: now,
        request_hash: RequestHash::of(&nth.to_string()),
    }
}

/// The number of records of the orders topic that payment has consumed.
async fn consumed(shop: &Shop) -> Result<i64> {
    let inputs = shop.inputs(Service::PAYMENT, "payment", Service::ORDER).await?;
    Ok(inputs.iter().map(|input| input.next_sequence).sum())
}
