//! Whether relay and step keep their rates, and the process its memory, as the tables grow.

use anyhow::Result;

use super::{relay, step};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::seed::old_rows;
use crate::stage::Stage;

/// The yardstick of grown tables: the same with the fewest old rows.
const YARDSTICK: &str = "with the fewest";

/// The results with one number of old rows.
struct Measured {
    drained: f64,
    stepped: f64,
    memory: f64,
}

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    let mut sizes = bench.options.old_rows.clone();
    sizes.sort_unstable();
    for round in 1..=bench.options.rounds {
        let mut fewest: Option<Measured> = None;
        for old in &sizes {
            progress(&format!("growth: {old} old rows, round {round} of {}", bench.options.rounds));
            let measured = with_old_rows(bench, *old).await?;
            samples.extend(measured.samples(*old, fewest.as_ref()));
            fewest.get_or_insert(measured);
        }
    }
    Ok(())
}

async fn with_old_rows(bench: &Bench, old: u32) -> Result<Measured> {
    let stage = Stage::new(bench).await?;
    stage.opened_once().await?;
    old_rows(&stage.pool, old).await?;
    let drained = relay::drain(&stage, bench.options.rows).await?.rate;
    let stepped = step::through(&stage, bench.options.rows).await?;
    stage.end().await?;
    Ok(Measured { drained, stepped: stepped.rate, memory: stepped.memory })
}

impl Measured {
    fn samples(&self, old: u32, fewest: Option<&Self>) -> Vec<Sample> {
        let beside = |sample: Sample, value: Option<f64>| match value {
            Some(value) => sample.beside(YARDSTICK, value),
            None => sample,
        };
        vec![
            beside(
                Sample::new(format!("drained, {old} old rows"), "rows/s", self.drained),
                fewest.map(|fewest| fewest.drained),
            ),
            beside(
                Sample::new(format!("stepped through, {old} old rows"), "inputs/s", self.stepped),
                fewest.map(|fewest| fewest.stepped),
            ),
            beside(
                Sample::new(format!("memory of the process, {old} old rows"), "MiB", self.memory),
                fewest.map(|fewest| fewest.memory),
            ),
        ]
    }
}
