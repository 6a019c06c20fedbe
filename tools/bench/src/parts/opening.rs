//! The time from a start to the first step: with nothing to recover, after a restart with a full
//! topic, and with a full topic and an empty database. And until all lanes are open behind rows that
//! were not sent.

use std::time::Instant;

use anyhow::Result;
use reel::model::Event;

use crate::ledger::{LedgerEvent, Noted};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::seed::{commit_rows, journal};
use crate::stage::Stage;
use crate::stats::rate;
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

        samples.extend(behind_a_backlog(bench).await?);

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

/// Starts a ledger after kill -9 with all lanes open, first with nothing to send, and then after it
/// was killed with a tenth of its rows sent.
async fn behind_a_backlog(bench: &Bench) -> Result<[Sample; 3]> {
    let stage = Stage::new(bench).await?;
    stage.opened_once().await?;
    let mut ledger = stage.launch(&[])?;
    let nothing = ledger.all_lanes_open().await?.as_secs_f64();
    ledger.kill().await?;

    let rows = bench.options.rows;
    commit_rows(&stage.pool, rows).await?;
    let committed = stage.committed_events().await?;
    let ledger = stage.launch(&[])?;
    stage.until_published(committed - i64::from(rows) * 9 / 10).await?;
    ledger.kill().await?;

    let mut ledger = stage.launch(&[])?;
    let (launched_at, left) = (Instant::now(), committed - stage.published_events().await?);
    let opened = ledger.all_lanes_open().await?.as_secs_f64();
    stage.until_published(committed).await?;
    let drained = rate(usize::try_from(left)?, launched_at.elapsed());
    ledger.kill().await?;
    stage.end().await?;

    Ok([
        Sample::new("all lanes open again, nothing to send", "s", nothing),
        Sample::new(format!("all lanes open again, 0.9 of {rows} rows to send"), "s", opened)
            .beside("with nothing to send", nothing),
        Sample::new("those rows, from the start to acked", "rows/s", drained),
    ])
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
