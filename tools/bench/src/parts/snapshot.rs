//! Sagas while somebody else holds a snapshot of all databases open, as a dump or a report does: no
//! row that is rewritten meanwhile can be cleaned up.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::{join_all, try_join_all};
use orderctl::system::Service;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::parts::sagas::Series;
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::shop::Shop;

/// Sagas a second, unless `RATE` says otherwise.
const RATE: f64 = 500.0;
/// Time of one measurement.
const SLICE: Duration = Duration::from_secs(20);

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("snapshot: round {round} of {}", bench.options.rounds));
        let shop = Shop::open(bench).await?;
        let series = Series::start(bench, &shop, round).await?;
        samples.extend(beside_a_snapshot(bench, &shop, &series).await?);
        join_all(series.into_watches().map(crate::watch::Watch::end)).await;
        shop.close().await?;
    }
    Ok(())
}

async fn beside_a_snapshot(bench: &Bench, shop: &Shop, series: &Series<'_>) -> Result<[Sample; 2]> {
    let rate = bench.options.rate.unwrap_or(RATE);
    series.run(rate, SLICE / 2).await?; // warm-up
    let without = series.run(rate, SLICE).await?.times.percentile(50.0);

    let snapshots = try_join_all(Service::SAGA.map(|service| hold_snapshot(shop, service))).await?;
    let (begun, held) = (Instant::now(), Duration::from_secs(bench.options.snapshot.into()));
    let with = loop {
        let median = series.run(rate, SLICE).await?.times.percentile(50.0);
        let (seconds, ratio) = (begun.elapsed().as_secs(), median / without);
        progress(&format!("snapshot: held for {seconds} s: {ratio:.2} times the median without"));
        if begun.elapsed() >= held {
            break median;
        }
    };
    drop(snapshots);

    let seconds = bench.options.snapshot;
    Ok([
        Sample::new(format!("from request to end at {rate}/s, p50"), "ms", without),
        Sample::new(format!("the same, a snapshot held for {seconds} s"), "ms", with)
            .beside("without it", without),
    ])
}

/// Opens a transaction that sees the database as it is now, until the connection is dropped.
async fn hold_snapshot(shop: &Shop, service: Service) -> Result<PgConnection> {
    let mut connection = PgConnection::connect(&shop.database_url(service)).await?;
    connection.execute("set idle_in_transaction_session_timeout = 0").await?;
    connection.execute("begin isolation level repeatable read").await?;
    connection.execute("select count(*) from reel.heads").await?;
    Ok(connection)
}
