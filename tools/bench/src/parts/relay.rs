//! The rate at which committed rows become acked records.

use anyhow::Result;

use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::seed::commit_rows;
use crate::stage::Stage;
use crate::stats::{bound, rate};
use crate::yardstick::{Alone, relay_alone};

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("relay: round {round} of {}", bench.options.rounds));
        let stage = Stage::new(bench).await?;
        samples.extend(drain(&stage, bench.options.rows).await?.samples());
        stage.end().await?;
    }
    Ok(())
}

/// The results of draining an outbox.
pub(super) struct Drained {
    /// Rows a second, from the commit until all are acked.
    pub(super) rate: f64,
    alone: Alone,
    memory: f64,
}

/// Commits rows in one transaction while a ledger runs, and waits until it has relayed them. Then
/// does each half of that work alone, on the same rows.
pub(super) async fn drain(stage: &Stage, rows: u32) -> Result<Drained> {
    let ledger = stage.start(&[]).await?;
    let before = stage.committed_events().await?;
    let committed_at = commit_rows(&stage.pool, rows).await?;
    stage.until_published(before + i64::from(rows)).await?;
    let drained = rate(rows as usize, committed_at.elapsed());
    let memory = ledger.peak_memory_mib()?;
    ledger.kill().await?;

    Ok(Drained { rate: drained, alone: relay_alone(stage, rows).await?, memory })
}

impl Drained {
    fn samples(&self) -> Vec<Sample> {
        let Alone { read, produced } = self.alone;
        vec![
            Sample::new("drained to acked", "rows/s", self.rate)
                .beside("1/(1/r + 1/p)", bound(read, produced)),
            Sample::new("r: the same rows read alone", "rows/s", read),
            Sample::new("p: the same records produced alone", "rows/s", produced),
            Sample::new("memory of the process", "MiB", self.memory),
        ]
    }
}
