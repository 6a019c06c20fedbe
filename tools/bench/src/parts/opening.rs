//! The time from a start to the first step: with nothing to recover, after a restart with a full
//! topic, and with a full topic and an empty database.

use anyhow::Result;
use reel::model::Event;

use crate::ledger::{LedgerEvent, Noted};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::seed::journal;
use crate::stage::Stage;
use crate::yardstick::read_topic;

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    let events = bench.options.events;
    for round in 1..=bench.options.rounds {
        progress(&format!("opening: round {round} of {}", bench.options.rounds));
        let empty = Stage::new(bench).await?;
        let first = first_step(&empty).await?;
        let again = first_step(&empty).await?;
        empty.end().await?;
        samples.push(Sample::new("first start, empty topic", "s", first.0));
        samples.push(Sample::new("start again, empty topic", "s", again.0));

        let full = Stage::new(bench).await?;
        journal::<LedgerEvent, Noted>(&full.kafka, "ledger", events, Noted::random).await?;
        let read = read_topic(&full.kafka, LedgerEvent::TOPIC).await?.as_secs_f64();
        let (rebuilt, memory) = first_step(&full).await?;
        let restarted = first_step(&full).await?;
        full.end().await?;
        samples.push(
            Sample::new(format!("start again, {events} events"), "s", restarted.0)
                .beside("with an empty topic", again.0),
        );
        samples.push(
            Sample::new(format!("rebuilt from {events} events"), "s", rebuilt)
                .beside("reading the topic alone", read),
        );
        samples.push(Sample::new("memory of the process, rebuilding", "MiB", memory));
    }

    Ok(())
}

/// Starts a ledger, and returns the seconds until its first step was answered and its peak memory.
/// Once everything is published, the ledger is killed.
async fn first_step(stage: &Stage) -> Result<(f64, f64)> {
    let mut ledger = stage.launch(&[])?;
    let seconds = ledger.first_step().await?.as_secs_f64();
    let memory = ledger.peak_memory_mib()?;
    stage.until_published(stage.committed_events().await?).await?;
    ledger.kill().await?;
    Ok((seconds, memory))
}
