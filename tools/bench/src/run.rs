//! A run: the selected parts, on servers of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use devstack::OwnStack;
use serde::Serialize;
use tempfile::TempDir;

use crate::parts::Part;
use crate::report::statements;
use crate::report::{Machine, Report};

/// Default number of rounds: with fewer, a median means little.
const ROUNDS: u32 = 3;

/// Options of a run.
#[derive(Debug, Clone, clap::Args, Serialize)]
pub struct Options {
    /// Parts to measure, comma-separated; by default all
    #[arg(long, env = "ONLY", value_enum, value_delimiter = ',')]
    pub only: Vec<Part>,
    /// Rounds of each part; a figure is their median
    #[arg(
        long,
        env = "ROUNDS",
        default_value_t = ROUNDS,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub rounds: u32,
    /// Number of rows that are relayed, and of inputs that are stepped through
    #[arg(
        long,
        env = "ROWS",
        default_value_t = 200_000,
        value_parser = clap::value_parser!(u32).range(100..),
    )]
    pub rows: u32,
    /// Seconds for which a rate is held
    #[arg(
        long,
        env = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub seconds: u32,
    /// Seconds for which the highest rate of sagas is held
    #[arg(
        long,
        env = "HOLD",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub hold: u32,
    /// Sagas a second, instead of a search for the highest rate
    #[arg(long, env = "RATE")]
    pub rate: Option<f64>,
    /// Seconds for which a snapshot is held open
    #[arg(
        long,
        env = "SNAPSHOT",
        default_value_t = 600,
        value_parser = clap::value_parser!(u32).range(1..),
    )]
    pub snapshot: u32,
    /// Number of events in the topic of the opening part
    #[arg(
        long,
        env = "EVENTS",
        default_value_t = 1_000_000,
        value_parser = clap::value_parser!(u32).range(100..),
    )]
    pub events: u32,
    /// Numbers of rows that the tables hold before growth is measured, comma-separated
    #[arg(long, env = "OLD_ROWS", value_delimiter = ',', default_value = "0,1000000,10000000")]
    pub old_rows: Vec<u32>,
    /// After each part, print the statements on which Postgres spent its time; this has a cost of
    /// its own
    #[arg(long, env = "STATEMENTS", value_parser = clap::builder::FalseyValueParser::new())]
    pub statements: bool,
    /// File to which the figures are written as JSON
    #[arg(long, env = "JSON", default_value = "target/bench.json")]
    pub json: PathBuf,
}

/// The context of every part.
pub struct Bench {
    /// The servers of this run.
    pub stack: OwnStack,
    /// The options of the run.
    pub options: Options,
    /// Folder of the logs of all processes.
    pub logs: TempDir,
}

/// Measures the selected parts, prints a table after each, and writes all figures as JSON. Ctrl-C
/// stops everything that was started.
///
/// # Errors
/// If a process cannot be started or does not do its work. What was measured before is written.
pub async fn run(options: Options) -> Result<ExitCode> {
    tokio::select! {
        done = measure(options) => done.map(|()| ExitCode::SUCCESS),
        _ = tokio::signal::ctrl_c() => {
            anyhow::bail!("interrupted: everything that was started is stopped")
        }
    }
}

async fn measure(options: Options) -> Result<()> {
    let stack = if options.statements {
        statements::watched_stack().await?
    } else {
        OwnStack::for_benchmarks(&[]).await?
    };
    let bench = Bench { stack, options, logs: TempDir::new()? };
    let machine = Machine::detect(&bench.stack).await?;
    println!("{}", machine.line());
    if cfg!(debug_assertions) {
        println!("this is not a release build: its figures mean nothing (run `make bench`)");
    }

    let mut report = Report::new(machine, serde_json::to_value(&bench.options)?);
    for part in Part::selected(&bench.options.only) {
        let mut samples = Vec::new();
        let measured = part.measure(&bench, &mut samples).await;
        print!("\n{}", report.add(part.name(), &samples));
        report.write(&bench.options.json)?;
        if bench.options.statements {
            print!("\n{}", statements::since_last_call(bench.stack.postgres.url()).await?);
        }
        measured.with_context(|| format!("the part {} did not finish", part.name()))?;
    }

    println!(
        "\nmedians of {} rounds; the values of all rounds are in {}",
        bench.options.rounds,
        bench.options.json.display()
    );

    Ok(())
}

/// Reports progress on stderr.
pub(crate) fn progress(what: &str) {
    eprintln!("bench: {what}");
}
