//! How fast committed rows become acked records.

use anyhow::Result;

use crate::report::Sample;
use crate::run::{Bench, say};
use crate::seed::commit_rows;
use crate::stage::Stage;
use crate::stats::{bound, rate};
use crate::yardstick::relay_alone;

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        say(&format!("relay: round {round} of {}", bench.options.rounds));
        let stage = Stage::new(bench).await?;
        samples.extend(drain(&stage, bench.options.rows, "").await?);
        stage.end().await?;
    }
    Ok(())
}

/// Drains so many rows that are committed at once under a ledger that runs, and does both halves of that alone on the same rows.
pub(super) async fn drain(stage: &Stage, rows: u32, suffix: &str) -> Result<Vec<Sample>> {
    let ledger = stage.start(&[]).await?;
    let before = stage.numbered().await?;
    let committed_at = commit_rows(&stage.pool, rows).await?;
    stage.until_published(before + i64::from(rows)).await?;
    let drained = rate(rows as usize, committed_at.elapsed());
    let memory = ledger.peak_memory_mib()?;
    ledger.kill().await?;
    let alone = relay_alone(stage, rows).await?;
    Ok(vec![
        Sample::new(format!("drained to acked{suffix}"), "rows/s", drained).beside("1/(1/r + 1/p)", bound(alone.read, alone.produced)),
        Sample::new(format!("r: the same rows read alone{suffix}"), "rows/s", alone.read),
        Sample::new(format!("p: the same records produced alone{suffix}"), "rows/s", alone.produced),
        Sample::new(format!("memory of the process{suffix}"), "MiB", memory),
    ])
}
