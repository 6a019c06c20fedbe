//! Figures: medians over rounds, each beside its yardstick.

mod machine;
pub(crate) mod statements;
mod table;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

pub use machine::Machine;

use crate::stats::{Times, median};

/// A value that one round has measured.
#[derive(Debug, Clone)]
pub struct Sample {
    name: String,
    unit: &'static str,
    value: f64,
    yardstick: Option<(&'static str, f64)>,
}

/// A figure: the median of its rounds.
#[derive(Debug, Clone, Serialize)]
pub struct Figure {
    /// What is measured.
    pub name: String,
    /// The unit of all values.
    pub unit: &'static str,
    /// The median of the rounds.
    pub value: f64,
    /// The yardstick, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yardstick: Option<Yardstick>,
    /// The value of each round.
    pub rounds: Vec<f64>,
}

/// The yardstick of a figure.
#[derive(Debug, Clone, Serialize)]
pub struct Yardstick {
    /// What the yardstick is.
    pub name: &'static str,
    /// The median of the rounds, in the figure's unit.
    pub value: f64,
    /// The median of the ratios of the rounds: value divided by yardstick.
    pub ratio: f64,
}

/// All figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    machine: Machine,
    options: serde_json::Value,
    parts: BTreeMap<String, Vec<Figure>>,
}

impl Sample {
    /// A sample without a yardstick.
    pub fn new(name: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { name: name.into(), unit, value, yardstick: None }
    }

    /// The sample beside a yardstick in the same unit.
    #[must_use]
    pub fn beside(self, name: &'static str, value: f64) -> Self {
        Self { yardstick: Some((name, value)), ..self }
    }

    /// Samples of p50, p95 and p99 of times, the first one beside a yardstick.
    #[must_use]
    pub fn percentiles(
        name: &str,
        times: &Times,
        yardstick: Option<(&'static str, f64)>,
    ) -> Vec<Self> {
        let at = |percent: f64| {
            Self::new(format!("{name}, p{percent}"), "ms", times.percentile(percent))
        };
        vec![Self { yardstick, ..at(50.0) }, at(95.0), at(99.0)]
    }
}

/// Figures from the samples of all rounds, in the order of the first samples.
#[must_use]
pub fn figures(samples: &[Sample]) -> Vec<Figure> {
    let mut names: Vec<&str> = Vec::new();
    for sample in samples {
        if !names.contains(&sample.name.as_str()) {
            names.push(&sample.name);
        }
    }
    let of_name =
        |name: &str| samples.iter().filter(|sample| sample.name == name).collect::<Vec<_>>();
    names.into_iter().filter_map(|name| Figure::from_rounds(&of_name(name))).collect()
}

impl Figure {
    fn from_rounds(samples: &[&Sample]) -> Option<Self> {
        let first = samples.first()?;
        let rounds: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
        let beside: Vec<(f64, f64)> =
            samples.iter().filter_map(|sample| Some((sample.value, sample.yardstick?.1))).collect();

        let yardstick = first.yardstick.and_then(|(name, _)| {
            let value =
                median(&beside.iter().map(|(_, yardstick)| *yardstick).collect::<Vec<_>>())?;
            let ratio = median(
                &beside.iter().map(|(value, yardstick)| value / yardstick).collect::<Vec<_>>(),
            )?;
            Some(Yardstick { name, value, ratio })
        });

        Some(Self {
            name: first.name.clone(),
            unit: first.unit,
            value: median(&rounds)?,
            yardstick,
            rounds,
        })
    }
}

impl Report {
    /// A report without figures.
    #[must_use]
    pub fn new(machine: Machine, options: serde_json::Value) -> Self {
        Self { machine, options, parts: BTreeMap::new() }
    }

    /// Adds a part, and returns its table.
    pub fn add(&mut self, part: &str, samples: &[Sample]) -> String {
        let figures = figures(samples);
        let table = table::table(part, &figures);
        self.parts.insert(part.to_owned(), figures);
        table
    }

    /// Writes the report as JSON.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_the_median_of_its_rounds_and_its_ratio_the_median_of_theirs() {
        let round = |value, bound| Sample::new("drained", "rows/s", value).beside("bound", bound);
        let found = figures(&[
            round(80.0, 100.0),
            Sample::new("read", "rows/s", 7.0),
            round(90.0, 300.0),
            round(70.0, 100.0),
        ]);
        assert_eq!(
            found.iter().map(|figure| figure.name.as_str()).collect::<Vec<_>>(),
            ["drained", "read"]
        );
        let yardstick = found[0].yardstick.as_ref().expect("it has one");
        assert_eq!((found[0].value, yardstick.value), (80.0, 100.0));
        assert!((yardstick.ratio - 0.7).abs() < 1e-9);
        assert!(found[1].yardstick.is_none());
    }
}
