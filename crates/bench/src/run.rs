//! A run: the parts that are asked for, on servers of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use devstack::OwnStack;
use serde::Serialize;
use tempfile::TempDir;

use crate::parts::Part;
use crate::report::statements;
use crate::report::{Machine, Report};

/// Fewer rounds than this make no median.
const ROUNDS: u32 = 3;

/// What is measured, and with how much.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// The parts that are measured, comma-separated; by default all
    #[arg(long, env = "ONLY", value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// How often each is measured; a figure is the median
    #[arg(long, env = "ROUNDS", default_value_t = ROUNDS, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How many rows are relayed, and how many inputs are stepped through
    #[arg(long, env = "ROWS", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub rows: u32,
    /// For how many seconds a rate is held
    #[arg(long, env = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub seconds: u32,
    /// For how many seconds the highest rate of sagas is held
    #[arg(long, env = "HOLD", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub hold: u32,
    /// At this rate of sagas, instead of looking for the highest
    #[arg(long, env = "RATE")]
    pub rate: Option<f64>,
    /// How many events the topic holds that is opened
    #[arg(long, env = "EVENTS", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..))]
    pub events: u32,
    /// How many rows the tables hold before growth is measured, comma-separated
    #[arg(long, env = "OLD_ROWS", value_delimiter = ',', default_value = "0,1000000,10000000")]
    pub old_rows: Vec<u32>,
    /// Print after each part on which statements Postgres has spent its time; that costs some time itself
    #[arg(long, env = "STATEMENTS", value_parser = clap::builder::FalseyValueParser::new())]
    pub statements: bool,
    /// Where the figures are written as JSON
    #[arg(long, env = "JSON", default_value = "target/bench.json")]
    pub json: PathBuf,
}

/// What every part works with.
pub struct Bench {
    /// The servers of this run.
    pub stack: OwnStack,
    /// What was asked for.
    pub options: Options,
    /// Where the processes log.
    pub logs: TempDir,
}

/// Measures what is asked for, prints a table after each part, and writes all of it as JSON. Ctrl-C stops everything that was started.
///
/// # Errors
/// Where something cannot be started, or does not do its work; what was measured before is written.
pub async fn run(options: Options) -> Result<ExitCode> {
    tokio::select! {
        done = measure(options) => done.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped, and with it everything that was started"),
    }
}

async fn measure(options: Options) -> Result<()> {
    let stack = if options.statements { statements::watched_stack().await? } else { OwnStack::to_measure(&[]).await? };
    let bench = Bench { stack, options, logs: TempDir::new()? };
    let machine = Machine::of(&bench.stack).await?;
    println!("{}", machine.line());
    if cfg!(debug_assertions) {
        println!("this is no release build: its figures say nothing");
    }
    let mut report = Report::new(machine, serde_json::to_value(&bench.options)?);
    for part in Part::of(&bench.options.only) {
        let mut samples = Vec::new();
        let measured = part.measure(&bench, &mut samples).await;
        print!("\n{}", report.add(part.name(), &samples));
        report.write(&bench.options.json)?;
        if bench.options.statements {
            print!("\n{}", statements::since_last_asked(bench.stack.postgres.url()).await?);
        }
        measured.with_context(|| format!("{} could not be measured to its end", part.name()))?;
    }
    println!("\nmedians of {} rounds, all of them in {}", bench.options.rounds, bench.options.json.display());
    Ok(())
}

/// Tells what is going on.
pub(crate) fn say(what: &str) {
    eprintln!("bench: {what}");
}
