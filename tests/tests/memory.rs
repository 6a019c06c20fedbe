//! Memory: a replica keeps to what compose gives it, however large the events and however many the
//! lanes.

use std::time::Duration;

use anyhow::{Result, ensure};
use devstack::Port;
use futures_util::future::try_join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use orderctl::system::{Replica, Service, peak_memory_kib};
use saga_tests::{Shop, eventually};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What compose gives a replica.
const LIMIT_KIB: u64 = 256 * 1024;
const LANES: i32 = 48;
const ROWS: i64 = 3_000;
const HOSTILE: usize = 2_000;
/// Connections that a replica serves at a time, by default.
const SERVED: usize = 1_000;
/// The soft limit of open files that systems set.
const SOFT_LIMIT: u64 = 1_024;

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

/// Two thousand connections with half a head each, at a process with the soft limit of open files
/// that systems set.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_hostile_connections_take_little_memory_and_health_answers() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    let port = Port::reserve(None)?;
    let address = format!("127.0.0.1:{}", port.number());
    let environment = [("HEALTH_ADDRESS", address.as_str())];
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, SOFT_LIMIT, most)?;
    let replica = shop.system.start_with(Service::ORDER, "order-1", &environment).await?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    shop.replicas.push(replica);
    eventually("the replica to be ready", || async {
        Ok(reqwest::get(format!("http://{address}/health/ready"))
            .await
            .is_ok_and(|it| it.status() == 200))
    })
    .await?;

    let host = shop.replica("order-1").url().trim_start_matches("http://").to_owned();
    let half = format!("GET /orders HTTP/1.1\r\nhost: here\r\nx: {}", "x".repeat(15_000));
    let hostile = (0..HOSTILE).map(async |_| {
        let mut stream = TcpStream::connect(&host).await?;
        stream.write_all(half.as_bytes()).await?;
        anyhow::Ok(stream)
    });
    let held = try_join_all(hostile).await?;
    eventually("all that are served to be held", || async {
        let open = std::fs::read_dir(format!("/proc/{}/fd", shop.replica("order-1").pid()))?;
        Ok(open.count() > SERVED)
    })
    .await?;

    for path in ["live", "ready"] {
        let answer = reqwest::get(format!("http://{address}/health/{path}")).await?;
        ensure!(answer.status() == 200, "{path}: {answer:?}");
    }
    let peak = peak_memory_kib(shop.replica("order-1").pid())? / 1024;
    ensure!(peak < 128, "{} connections took {peak} MiB", held.len());
    Ok(())
}

fn stays_within_its_memory(replica: &Replica) -> Result<()> {
    let peak = peak_memory_kib(replica.pid())?;
    ensure!(peak < LIMIT_KIB, "{} took {} MiB", replica.name(), peak / 1024);
    Ok(())
}
