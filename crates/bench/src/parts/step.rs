//! How fast one service goes through a full topic.

use anyhow::Result;

use crate::ledger::{RequestEvent, Requested};
use crate::report::Sample;
use crate::run::{Bench, say};
use crate::seed::journal;
use crate::stage::Stage;
use crate::yardstick::bare_steps;

/// Who asks the ledger for notes.
const SOURCE: &str = "asker";

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        say(&format!("step: round {round} of {}", bench.options.rounds));
        let stage = Stage::new(bench).await?;
        let stepped = through(&stage, bench.options.rows).await?;
        stage.end().await?;
        let bare = Stage::new(bench).await?;
        let yardstick = bare_steps(&bare, bench.options.rows, stepped.batch).await?;
        bare.end().await?;
        samples.extend(stepped.samples("", Some(yardstick)));
    }
    Ok(())
}

/// How a ledger went through a topic.
pub(super) struct Stepped {
    inputs_a_second: f64,
    /// Inputs of one transaction on average.
    pub(super) batch: u32,
    published_a_second: f64,
    memory: f64,
}

/// Fills the topic of requests and lets the ledger go through it, with its relay running. The clock is the database's, from the first
/// event to the last, so that the start of the process is not in it.
pub(super) async fn through(stage: &Stage, inputs: u32) -> Result<Stepped> {
    journal::<RequestEvent, Requested>(&stage.kafka, SOURCE, inputs, Requested::random).await?;
    let (before, step_before): (i64, i64) = sqlx::query_as(
        "select coalesce(sum(next_seq), 0)::bigint, case when (select is_called from reel.decided) then (select last_value from reel.decided) else 0 end from reel.heads",
    )
    .fetch_one(&stage.pool)
    .await?;
    let ledger = stage.start(&[]).await?;
    stage.until_numbered(before + i64::from(inputs)).await?;
    stage.until_published(before + i64::from(inputs)).await?;
    let (seconds, published_seconds, steps): (f64, f64, i64) = sqlx::query_as(
        "select extract(epoch from max(recorded_at) - min(recorded_at))::float8,
             extract(epoch from clock_timestamp() - min(recorded_at))::float8, count(distinct step)
         from reel.outbox where step > $1",
    )
    .bind(step_before)
    .fetch_one(&stage.pool)
    .await?;
    let memory = ledger.peak_memory_mib()?;
    ledger.kill().await?;
    let of = |seconds: f64| f64::from(inputs) / seconds;
    Ok(Stepped {
        inputs_a_second: of(seconds),
        batch: inputs / u32::try_from(steps.max(1))?,
        published_a_second: of(published_seconds),
        memory,
    })
}

impl Stepped {
    pub(super) fn samples(&self, suffix: &str, yardstick: Option<f64>) -> Vec<Sample> {
        let stepped = Sample::new(format!("stepped through{suffix}"), "inputs/s", self.inputs_a_second);
        vec![
            match yardstick {
                Some(bare) => stepped.beside("the bare transaction, same batch", bare),
                None => stepped,
            },
            Sample::new(format!("stepped through and published{suffix}"), "inputs/s", self.published_a_second),
            Sample::new(format!("inputs of one transaction{suffix}"), "", f64::from(self.batch)),
            Sample::new(format!("memory of the process, stepping{suffix}"), "MiB", self.memory),
        ]
    }
}
