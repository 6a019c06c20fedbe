//! The rate at which one service steps through a full topic.

use anyhow::Result;
use sqlx::types::chrono::{DateTime, Utc};

use crate::ledger::{RequestEvent, Requested};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::seed::journal;
use crate::stage::Stage;
use crate::stats::rate;
use crate::yardstick::bare_steps;

/// Name of the service that asks the ledger for notes.
const SOURCE: &str = "asker";

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("step: round {round} of {}", bench.options.rounds));
        let stage = Stage::new(bench).await?;
        let stepped = through(&stage, bench.options.rows).await?;
        stage.end().await?;

        let bare = Stage::new(bench).await?;
        let yardstick = bare_steps(&bare, bench.options.rows, stepped.batch).await?;
        bare.end().await?;
        samples.extend(stepped.samples(yardstick));
    }
    Ok(())
}

/// The results of stepping through a topic.
pub(super) struct Stepped {
    /// Inputs a second.
    pub(super) rate: f64,
    published_rate: f64,
    /// Mean number of inputs in a transaction.
    batch: u32,
    /// Peak memory of the process, in MiB.
    pub(super) memory: f64,
}

/// Fills the topic of requests and lets the ledger step through it, with its relay running. The
/// time is taken by the database's clock, from the first event to the last, so that it does not
/// include the start of the process.
pub(super) async fn through(stage: &Stage, inputs: u32) -> Result<Stepped> {
    journal::<RequestEvent, Requested>(&stage.kafka, SOURCE, inputs, Requested::random).await?;

    let (before, began_at) = (stage.committed_events().await?, stage.database_time().await?);
    let ledger = stage.start(&[]).await?;
    stage.until_published(before + i64::from(inputs)).await?;
    let published_at = stage.database_time().await?;
    let (first_at, last_at, steps): (DateTime<Utc>, DateTime<Utc>, i64) = sqlx::query_as(
        "select min(recorded_at), max(recorded_at), count(distinct step)
             from reel.outbox where recorded_at > $1",
    )
    .bind(began_at)
    .fetch_one(&stage.pool)
    .await?;
    let memory = ledger.peak_memory_mib()?;
    ledger.kill().await?;

    let rate_until =
        |at: DateTime<Utc>| anyhow::Ok(rate(inputs as usize, (at - first_at).to_std()?));
    let batch = inputs / u32::try_from(steps.max(1))?;
    Ok(Stepped {
        rate: rate_until(last_at)?,
        published_rate: rate_until(published_at)?,
        batch,
        memory,
    })
}

impl Stepped {
    fn samples(&self, bare: f64) -> Vec<Sample> {
        vec![
            Sample::new("stepped through", "inputs/s", self.rate)
                .beside("the bare transaction, same batch", bare),
            Sample::new("stepped through and published", "inputs/s", self.published_rate),
            Sample::new("inputs of one transaction", "", f64::from(self.batch)),
            Sample::new("memory of the process", "MiB", self.memory),
        ]
    }
}
