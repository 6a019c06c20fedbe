//! `orderctl failover`: how long orders wait when something dies. Each trial measures the time from
//! a fault to the confirmation of an order that is placed right after it, in a lane of the replica
//! that died; the output has medians over many trials.

mod trial;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use devstack::OwnStack;

use crate::percentile::percentile;
use crate::system::{System, SystemOptions};
use trial::{Fault, Measured, Trials};

/// The options of the measurement.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Trials of each fault
    #[arg(
        long,
        env = "TRIALS",
        default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub trials: u32,
    /// Lease of the lanes: a dead replica keeps them for this long
    #[arg(long, env = "LEASE", default_value = "5s", value_parser = reel::runtime::duration)]
    pub lease: Duration,
}

/// Measures on its own servers, and prints a table.
///
/// # Errors
/// If something cannot be started, or an order is not confirmed.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let stack = OwnStack::start().await?;
    let system = System::create(SystemOptions {
        lease: options.lease,
        ..SystemOptions::new(
            stack.kafka.bootstrap(),
            stack.postgres.url(),
            &format!("failover-{}", devstack::topics::unique_prefix()),
        )
    });
    let system = system.await?;
    system.keep(); // its servers end with this process, and its databases and topics with them

    let measured = tokio::select! {
        measured = measure(options, stack, &system) => measured?,
        _ = tokio::signal::ctrl_c() => {
            anyhow::bail!("stopped, and with it everything that was started")
        }
    };
    print!("\n{}", table(options, measured));
    std::fs::remove_dir_all(system.folder())?;
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    options: &Options,
    stack: OwnStack,
    system: &System,
) -> Result<BTreeMap<Fault, Vec<Measured>>> {
    let mut trials = Trials::begin(system, stack).await?;
    let mut measured: BTreeMap<Fault, Vec<Measured>> = BTreeMap::new();
    for nth in 1..=options.trials {
        for fault in Fault::ALL {
            let waited = trials.try_once(fault).await?;
            eprintln!(
                "failover: {nth} of {}: {fault}: {} ms",
                options.trials,
                waited.from_fault.as_millis()
            );
            measured.entry(fault).or_default().push(waited);
        }
    }

    trials.end().await?;
    Ok(measured)
}

fn table(options: &Options, measured: BTreeMap<Fault, Vec<Measured>>) -> String {
    let mut text = format!(
        "from the fault to the confirmation of an order placed right after it, \
         lease {}, {} trials each (ms)\n\n",
        humantime::format_duration(options.lease),
        options.trials
    );
    let _ = writeln!(
        text,
        "{:<44}{:>8}{:>8}{:>8}   median from when the server answered again",
        "fault", "median", "p95", "longest"
    );
    for (fault, waited) in measured {
        let mut all: Vec<Duration> = waited.iter().map(|measured| measured.from_fault).collect();
        all.sort_unstable();
        let [median, p95, longest] =
            [50, 95, 100].map(|percent| percentile(&all, percent).as_millis());

        let mut since_answer: Vec<Duration> =
            waited.iter().filter_map(|measured| measured.from_answer).collect();
        since_answer.sort_unstable();
        let since_answer = if since_answer.is_empty() {
            String::new()
        } else {
            percentile(&since_answer, 50).as_millis().to_string()
        };
        let _ = writeln!(
            text,
            "{:<44}{median:>8}{p95:>8}{longest:>8}   {since_answer}",
            fault.to_string()
        );
    }

    text
}
