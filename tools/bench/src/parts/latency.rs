//! The time of an event from its commit to its ack and to a consumer, with and without a foreign
//! transaction.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Result, ensure};
use sqlx::{Connection, PgConnection};

use crate::ledger::LoadSpec;
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::stage::{Ledger, Stage};
use crate::stats::Times;
use crate::watch::Watch;
use crate::yardstick::{commits, hops};

const RATES: [u32; 2] = [500, 5_000];
/// Time that the load runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(1);
const ARRIVAL_TIMEOUT: Duration = Duration::from_secs(60);

/// Times from when an event is recorded in its transaction, so that they include the commit.
struct Delays {
    acked: Times,
    consumed: Times,
}

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        for rate in RATES {
            progress(&format!("latency: round {round} of {}, {rate}/s", bench.options.rounds));
            samples.extend(at(bench, rate).await?);
        }
    }
    Ok(())
}

async fn at(bench: &Bench, rate: u32) -> Result<Vec<Sample>> {
    let count = rate * bench.options.seconds;
    let commit = commits(bench).await?.commit.percentile(50.0);
    let bare = hops(bench, rate, count).await?;
    let stage = Stage::new(bench).await?;
    let ledger = stage.start(&[("REMEMBER_ACKS", "true")]).await?;
    let watch = Watch::start(&stage.kafka, &stage.kafka.topic("notes")).await?;
    delays(&ledger, &watch, LoadSpec { rate, count: rate * u32::try_from(WARM_UP.as_secs())? })
        .await?;

    let alone = delays(&ledger, &watch, LoadSpec { rate, count }).await?;
    let mut foreign = stage.pool.acquire().await?;
    let transaction = foreign_write(&mut foreign).await?;
    let disturbed = delays(&ledger, &watch, LoadSpec { rate, count }).await?;
    transaction.rollback().await?;
    drop(foreign);

    ledger.kill().await?;
    watch.end().await;
    stage.end().await?;

    let floor =
        |hop: &Times| Some(("a bare commit and a bare record", commit + hop.percentile(50.0)));
    let mut samples =
        Sample::percentiles(&format!("{rate}/s, commit to ack"), &alone.acked, floor(&bare.acked));
    samples.extend(Sample::percentiles(
        &format!("{rate}/s, commit to consumer"),
        &alone.consumed,
        floor(&bare.consumed),
    ));
    for (to, with, without) in [
        ("ack", &disturbed.acked, &alone.acked),
        ("consumer", &disturbed.consumed, &alone.consumed),
    ] {
        for percent in [50.0, 99.0] {
            let name = format!("{rate}/s, commit to {to}, a foreign transaction open, p{percent}");
            samples.push(
                Sample::new(name, "ms", with.percentile(percent))
                    .beside("without it", without.percentile(percent)),
            );
        }
    }

    Ok(samples)
}

/// A transaction of somebody else that has written and stays open: the relay must not wait for it.
async fn foreign_write(
    connection: &mut PgConnection,
) -> Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    sqlx::query("create table if not exists elsewhere (id integer)")
        .execute(&mut *connection)
        .await?;
    let mut transaction = connection.begin().await?;
    sqlx::query("insert into elsewhere (id) values (1)").execute(&mut *transaction).await?;
    Ok(transaction)
}

async fn delays(ledger: &Ledger, watch: &Watch, spec: LoadSpec) -> Result<Delays> {
    ledger.load(spec).await?;
    let arrivals = watch.until(spec.count as usize, ARRIVAL_TIMEOUT).await?;
    let acks: HashMap<(i64, i64), i64> = ledger
        .acks()
        .await?
        .into_iter()
        .map(|acked| ((acked.partition, acked.sequence), acked.at))
        .collect();

    let mut delays = Delays { acked: Times::default(), consumed: Times::default() };
    for arrival in &arrivals {
        delays.consumed.record(arrival.at - arrival.recorded_at);
        if let Some(acked_at) = acks.get(&(arrival.partition, arrival.sequence)) {
            delays.acked.record(acked_at - arrival.recorded_at);
        }
    }

    ensure!(
        delays.acked.count() == u64::from(spec.count),
        "{} of {} events were acked",
        delays.acked.count(),
        spec.count
    );

    Ok(delays)
}
