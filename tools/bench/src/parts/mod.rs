//! The measurements, part by part.

mod commands;
mod growth;
mod latency;
mod opening;
mod overload;
mod relay;
mod sagas;
mod snapshot;
mod step;

use anyhow::Result;
use serde::Serialize;

use crate::report::Sample;
use crate::run::Bench;

/// A part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Committed rows to acked records
    Relay,
    /// From the commit to the ack and to a consumer
    Latency,
    /// Inputs through one service
    Step,
    /// Whole sagas through all services
    Sagas,
    /// Orders that are placed
    Commands,
    /// More orders than the services can carry
    Overload,
    /// Sagas while somebody else holds a snapshot open
    Snapshot,
    /// From a start to the first step
    Opening,
    /// The same rates when the tables have grown
    Growth,
}

impl Part {
    const ALL: [Self; 9] = [
        Self::Relay,
        Self::Latency,
        Self::Step,
        Self::Sagas,
        Self::Commands,
        Self::Overload,
        Self::Snapshot,
        Self::Opening,
        Self::Growth,
    ];

    /// The selected parts, in the order of `Part::ALL`; all of them if none is selected.
    pub fn selected(only: &[Self]) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |part| only.is_empty() || only.contains(part))
    }

    /// The name on the command line and in the report.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Latency => "latency",
            Self::Step => "step",
            Self::Sagas => "sagas",
            Self::Commands => "commands",
            Self::Overload => "overload",
            Self::Snapshot => "snapshot",
            Self::Opening => "opening",
            Self::Growth => "growth",
        }
    }

    /// Measures all rounds. After an error, `samples` has what was measured before.
    ///
    /// # Errors
    /// If a process cannot be started, or does not do its work.
    pub async fn measure(self, bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
        match self {
            Self::Relay => relay::measure(bench, samples).await,
            Self::Latency => latency::measure(bench, samples).await,
            Self::Step => step::measure(bench, samples).await,
            Self::Sagas => sagas::measure(bench, samples).await,
            Self::Commands => commands::measure(bench, samples).await,
            Self::Overload => overload::measure(bench, samples).await,
            Self::Snapshot => snapshot::measure(bench, samples).await,
            Self::Opening => opening::measure(bench, samples).await,
            Self::Growth => growth::measure(bench, samples).await,
        }
    }
}
