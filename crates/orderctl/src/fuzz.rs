//! `orderctl fuzz-http`: what a property-based tester makes of the services' documents, and whether the services bear it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use devstack::Stack;
use tokio::process::Command;

use crate::system::{Replica, Service, System, SystemOptions};

const QUIET_WITHIN: Duration = Duration::from_secs(60);
/// What the tester does not judge: data that fit the document may still be refused with 400 or 422, as where no such product is sold
/// or a key was used; and an id that is in nobody's hands until it is asked for is no leak of another's.
const NOT_CHECKED: &str = "positive_data_acceptance";

/// For how long a customer's token is valid: longer than anybody tries.
const VALID_FOR: Duration = Duration::from_hours(12);

/// How much is tried.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many requests are made up for each operation
    #[arg(long, env = "EXAMPLES", default_value_t = 50)]
    pub examples: u32,
    /// Makes the same requests again
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// The program `schemathesis`
    #[arg(long, env = "SCHEMATHESIS", default_value = "schemathesis")]
    pub program: PathBuf,
}

/// Runs the tester against each service; exit code 1 if it found something, a process died or panicked, or the audit is not clean.
///
/// # Errors
/// Where something cannot be started.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let stack = Stack::shared().await?;
    // Orders of products and customers that nobody has end soon, one way or the other.
    let mut wanted = SystemOptions::new(stack.kafka(), stack.postgres(), &devstack::topics::unique_prefix());
    wanted.settle_within = Duration::from_secs(10);
    wanted.partitions = 4;
    let system = System::create(wanted).await?;
    let mut replicas = system.start_all(1).await?;
    system.client().deposit("ann", 1_000_000, "fuzz").await?.created()?;
    system.client().receive("COFFEE", 1_000, "fuzz").await?.created()?;
    let tried = tokio::select! {
        tried = try_all(options, &system, &replicas) => tried?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!("stopped, and with it everything that was started"),
    };

    let mut found: Vec<String> = tried.into_iter().map(|service| format!("{service}: see above")).collect();
    for replica in &mut replicas {
        if !replica.is_running() {
            found.push(format!("{} has ended", replica.name()));
        }
        if replica.log_text().contains("panicked") {
            found.push(format!("{} has panicked", replica.name()));
        }
    }
    system.until_quiet(QUIET_WITHIN).await?;
    let audit = system.places().audit().await?;
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

/// What the shop's own people and a customer found: each in which services.
async fn try_all(options: &Options, system: &System, replicas: &[Replica]) -> Result<Vec<Service>> {
    let tokens = system.tokens();
    let staff = try_as(&tokens.staff()?, options, system, replicas).await?;
    let customer = try_as(&tokens.token("ann", "", VALID_FOR)?, options, system, replicas).await?;
    Ok([staff, customer].concat())
}

/// The services in which something was found by whoever has this token.
async fn try_as(token: &str, options: &Options, system: &System, replicas: &[Replica]) -> Result<Vec<Service>> {
    let mut found = Vec::new();
    for replica in replicas {
        println!("fuzz-http: {}", replica.name());
        let mut command = Command::new(&options.program);
        command.arg("run").arg(format!("{}/openapi.json", replica.url()));
        command.args(["--header", &format!("Authorization: Bearer {token}"), "--checks", "all", "--exclude-checks", NOT_CHECKED]);
        command.args(["--max-examples", &options.examples.to_string(), "--continue-on-failure", "--no-color"]);
        command.args(["--request-timeout", "30", "--suppress-health-check", "all", "--warnings", "off"]);
        if let Some(seed) = options.seed {
            command.args(["--seed", &seed.to_string()]);
        }
        command.current_dir(system.folder()).kill_on_drop(true);
        let ended = command.status().await.with_context(|| format!("cannot run {}: use `make fuzz-http`", options.program.display()))?;
        ensure!(ended.code().is_some_and(|code| code <= 1), "{} ended with {ended}", options.program.display());
        if !ended.success() {
            found.push(replica.service());
        }
    }
    Ok(found)
}
