//! Whether drain and step keep their rates, and processes their size, when the tables have grown.

use anyhow::Result;

use super::{relay, step};
use crate::report::Sample;
use crate::run::{Bench, say};
use crate::seed::old_rows;
use crate::stage::Stage;

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for old in &bench.options.old_rows {
        let suffix = format!(", {old} old rows");
        for round in 1..=bench.options.rounds {
            say(&format!("growth: {old} old rows, round {round} of {}", bench.options.rounds));
            let stage = Stage::new(bench).await?;
            stage.opened_once().await?;
            old_rows(&stage.pool, *old).await?;
            let drained = relay::drain(&stage, bench.options.rows, &suffix).await?;
            let stepped = step::through(&stage, bench.options.rows).await?.samples(&suffix, None);
            stage.end().await?;
            samples.extend(drained.into_iter().chain(stepped));
        }
    }
    Ok(())
}
