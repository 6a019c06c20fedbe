//! Memory: a replica keeps to what compose gives it, however large the events and however many the
//! lanes.

use std::time::Duration;

use anyhow::{Result, ensure};
use orderctl::system::{Replica, Service, peak_memory_kib};
use saga_tests::{Shop, eventually};

/// What compose gives a replica.
const LIMIT_KIB: u64 = 256 * 1024;
const LANES: i32 = 48;
const ROWS: i64 = 3_000;

/// Three thousand events of 300 kB that wait for the relay, of a type that nobody handles.
const LARGE_ROWS: &str = "
with rows as (
    insert into reel.outbox
        (partition, seq, event_id, key, type, payload, headers, step, place)
    select partition, next_seq + nth, gen_random_uuid(), 'ballast', 'Ballast',
        decode(repeat('5a', 300000), 'hex'), '{}', 0, 0
    from reel.heads cross join generate_series(0, $1 / (select count(*) from reel.heads)) as nth
    returning partition
)
update reel.heads set next_seq = next_seq + added.count
from (select partition, count(*) from rows group by partition) as added
where heads.partition = added.partition";

#[tokio::test]
async fn a_gigabyte_that_waits_to_be_published_does_not_pass_through_memory_at_once() -> Result<()>
{
    let mut shop = Shop::prepared(|options| options.partitions = LANES).await?;
    let mut first = shop.system.start(Service::ORDER, "order-1").await?;
    first.wait_ready().await?;
    first.stop().await?;
    sqlx::query(LARGE_ROWS).bind(ROWS).execute(shop.system.pool(Service::ORDER)).await?;

    shop.replicas.push(shop.system.start(Service::ORDER, "order-1").await?);
    let unsent = "select coalesce(sum(next_seq - seq), 0)::bigint
        from reel.heads join reel.cursors using (partition)";
    eventually("all to be published", || async {
        Ok(shop.count(Service::ORDER, unsent).await? == 0)
    })
    .await?;
    ensure!(shop.count(Service::ORDER, "select count(*) from reel.outbox").await? > ROWS);
    stays_within_its_memory(shop.replica("order-1"))
}

#[tokio::test]
async fn many_lanes_are_rebuilt_a_few_at_a_time() -> Result<()> {
    let mut shop = Shop::prepared(|options| {
        options.partitions = LANES;
        options.lease = Duration::from_secs(5);
    })
    .await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    shop.order("order", 300).await?;
    shop.ends_well().await?;

    shop.take("order-1").stop().await?;
    shop.drop_database(Service::ORDER).await?;
    shop.system.run(Service::ORDER, "migrate").await?;
    shop.replicas.push(shop.system.start(Service::ORDER, "order-1").await?);
    shop.ends_well().await?;
    stays_within_its_memory(shop.replica("order-1"))
}

fn stays_within_its_memory(replica: &Replica) -> Result<()> {
    let peak = peak_memory_kib(replica.pid())?;
    println!("{} took {} MiB", replica.name(), peak / 1024);
    ensure!(peak < LIMIT_KIB, "{} took {} MiB", replica.name(), peak / 1024);
    Ok(())
}
