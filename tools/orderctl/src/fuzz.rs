//! `orderctl fuzz-http`: random requests that a property-based tester (Schemathesis) generates from
//! the services' OpenAPI documents.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devstack::Stack;
use tokio::process::Command;

use crate::system::{Replica, Service, System, SystemOptions};

const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// Checks that the tester leaves out. Data that fit the document may still be refused with 400 or
/// 422, for example if no such product is sold or a key was used before.
const NOT_CHECKED: &str = "positive_data_acceptance";

/// Lifetime of a customer's token: longer than any run.
const VALID_FOR: Duration = Duration::from_hours(12);

/// Options of a fuzz run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Requests that are generated for each operation
    #[arg(long, env = "EXAMPLES", default_value_t = 50)]
    pub examples: u32,
    /// Seed of the requests; the same seed gives the same requests
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// Path of the program `schemathesis`
    #[arg(long, env = "SCHEMATHESIS", default_value = "schemathesis")]
    pub program: PathBuf,
}

/// Runs the tester against each service; exit code 1 if it finds something, if a process dies or
/// panics, or if the audit is not ok.
///
/// # Errors
/// If something cannot be started.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let stack = Stack::shared().await?;

    // A short deadline, so that orders of unknown customers and products end soon.
    let mut wanted =
        SystemOptions::new(stack.kafka(), stack.postgres(), &devstack::topics::unique_prefix());
    wanted.settle_within = Duration::from_secs(10);
    wanted.partitions = 4;

    let system = System::create(wanted).await?;
    let mut replicas = system.start_all(1).await?;
    system.client().deposit("ann", 1_000_000, "fuzz").await?.created()?;
    system.client().receive("COFFEE", 1_000, "fuzz").await?.created()?;
    let tried = tokio::select! {
        tried = try_all(options, &system, &replicas) => tried?,
        _ = tokio::signal::ctrl_c() => {
            anyhow::bail!("stopped, and with it everything that was started")
        }
    };

    let mut found: Vec<String> =
        tried.into_iter().map(|service| format!("{service}: see above")).collect();
    for replica in &mut replicas {
        if !replica.is_running() {
            found.push(format!("{} has ended", replica.name()));
        }
        if replica.log_text().contains("panicked") {
            found.push(format!("{} has panicked", replica.name()));
        }
    }

    system.until_quiet(QUIET_WITHIN).await?;
    let audit = system.sources().audit().await?;
    if !audit.figures.ok {
        found.push(format!("the audit: {:#?}", audit.findings));
    }

    if found.is_empty() {
        println!("fuzz-http: nothing was found; the audit is clean");
        return Ok(ExitCode::SUCCESS);
    }

    system.keep();
    println!("fuzz-http: {}\nthe logs are in {}", found.join("\n"), system.folder().display());
    Ok(ExitCode::FAILURE)
}

/// Runs the tester as staff and as a customer, and returns the services in which it found
/// something.
async fn try_all(options: &Options, system: &System, replicas: &[Replica]) -> Result<Vec<Service>> {
    let tokens = system.tokens();
    let staff = try_as(&tokens.staff()?, options, system, replicas).await?;
    let customer = try_as(&tokens.token("ann", "", VALID_FOR)?, options, system, replicas).await?;
    Ok([staff, customer].concat())
}

/// Runs the tester with this token, and returns the services in which it found something.
async fn try_as(
    token: &str,
    options: &Options,
    system: &System,
    replicas: &[Replica],
) -> Result<Vec<Service>> {
    let mut found = Vec::new();
    for replica in replicas {
        println!("fuzz-http: {}", replica.name());
        let mut command = Command::new(&options.program);
        command.arg("run").arg(format!("{}/openapi.json", replica.url()));
        command.args([
            "--header",
            &format!("Authorization: Bearer {token}"),
            "--checks",
            "all",
            "--exclude-checks",
            NOT_CHECKED,
        ]);
        command.args([
            "--max-examples",
            &options.examples.to_string(),
            "--continue-on-failure",
            "--no-color",
        ]);
        command.args([
            "--request-timeout",
            "30",
            "--suppress-health-check",
            "all",
            "--warnings",
            "off",
        ]);
        if let Some(seed) = options.seed {
            command.args(["--seed", &seed.to_string()]);
        }

        command.current_dir(system.folder()).kill_on_drop(true);
        let ended = command.status().await.with_context(|| {
            format!("cannot run {}: use `make fuzz-http`", options.program.display())
        })?;
        ensure!(
            ended.code().is_some_and(|code| code <= 1),
            "{} ended with {ended}",
            options.program.display()
        );
        if !ended.success() {
            found.push(replica.service());
        }
    }

    Ok(found)
}
