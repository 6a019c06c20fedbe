//! `orderctl demo`: a thousand orders with every ending, driven over HTTP, and their audit.

mod drive;
mod follow;
mod member;
mod plan;
mod replicas;
mod servers;
mod summary;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use devstack::docker;
use fastrand::Rng;
use nix::libc;
use tokio::signal::unix::{SignalKind, signal};

pub use plan::{Plan, Planned, Wish};

use crate::audit::Audit;
use crate::system::{System, SystemOptions, View};
use drive::Driver;
use follow::Follow;
use member::Member;
use replicas::Replicas;
use servers::Servers;

/// Limit on the time from the last order until everything has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(60);
const REPLICAS: usize = 2;

/// The options of a demo.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Orders that are placed
    #[arg(
        long,
        env = "ORDERS",
        default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub orders: u32,
    /// Orders per second
    #[arg(
        long,
        env = "RATE",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub rate: u32,
    /// Seed that decides which order ends how; by default a random one
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// Deadline of an order, after which it is cancelled
    #[arg(
        long,
        env = "SETTLE_WITHIN",
        default_value = "4s",
        value_name = "TIME",
        value_parser = reel::runtime::duration
    )]
    pub settle_within: Duration,
    /// Seconds between kills: while the orders run, a random process of a service is killed with -9
    /// and started again at once; 0 turns it off
    #[arg(long, env = "KILL", default_value = "1", value_name = "SECONDS", value_parser = seconds)]
    pub kill: Duration,
    /// Keep the stack, the databases, the topics and the logs when the demo is over
    #[arg(long)]
    pub keep: bool,
}

/// Runs the demo; exit code 1 if the audit fails. Ctrl-C stops everything that it has started.
///
/// # Errors
/// If something cannot be started or driven to its end.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let [mut interrupt, mut terminate, mut hangup] = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let code = |signal: i32| ExitCode::from(u8::try_from(128 + signal).unwrap_or(1));
    let stopped_by = tokio::select! {
        done = demo(options) => {
            return done.map(|ok| if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        _ = interrupt.recv() => libc::SIGINT,
        _ = terminate.recv() => libc::SIGTERM,
        _ = hangup.recv() => libc::SIGHUP,
    };
    eprintln!("orderctl: stopped, and with it everything that was started");
    Ok(code(stopped_by))
}

/// Runs the demo, and returns whether the audit is ok.
async fn demo(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let plan = Plan::new(options.orders as usize, seed, options.settle_within);
    log(&format!(
        "{} orders, {} a second, seed {seed} (again: SEED={seed})",
        options.orders, options.rate
    ));

    if docker::is_wanted()? {
        on_containers(options, seed, &plan).await
    } else {
        on_processes(options, seed, &plan).await
    }
}

async fn on_processes(options: &Options, seed: u64, plan: &Plan) -> Result<bool> {
    let servers = Servers::find(options.keep).await?;
    log(&format!("{}", servers.stack()));
    let prefix = format!("demo-{}-", devstack::topics::unique_prefix().trim_matches(['t', '-']));
    let system = System::create(SystemOptions {
        settle_within: options.settle_within,
        ..SystemOptions::new(servers.stack().kafka(), servers.stack().postgres(), &prefix)
    });
    let system = system.await?;
    if options.keep || servers.are_own() {
        system.keep(); // its databases and topics end with the servers, or are to be kept
    }
    log(&format!(
        "databases and topics {prefix}* are made; \
         {REPLICAS} replicas of each service start, logs: {}",
        system.folder().display()
    ));

    let done = async {
        let replicas = Replicas::new(Member::processes(system.start_all(REPLICAS).await?, &system));
        drive_and_audit(options, seed, plan, system.view(), &replicas).await
    };
    let done = done.await;

    match (&done, options.keep) {
        (Ok(audit), false) if audit.figures.ok => {
            if servers.are_own() {
                let _ = std::fs::remove_dir_all(system.folder());
            } else {
                system.drop_all().await?;
            }
        }
        _ => {
            system.keep();
            log(&format!("the logs are kept: {}", system.folder().display()));
        }
    }

    Ok(done?.figures.ok)
}

#[cfg(not(feature = "docker"))]
async fn on_containers(_: &Options, _: u64, _: &Plan) -> Result<bool> {
    anyhow::bail!(docker::NOT_BUILT)
}

#[cfg(feature = "docker")]
async fn on_containers(options: &Options, seed: u64, plan: &Plan) -> Result<bool> {
    ensure!(
        !options.keep,
        "--keep is for processes; `make up STACK=docker` leaves a deployment running"
    );
    log("the containers of compose/compose.yaml start");
    let deployed = crate::system::Deployed::up(&[(
        "SETTLE_WITHIN",
        &format!("{}ms", options.settle_within.as_millis()),
    )])
    .await?;

    let replicas = Replicas::new(Member::containers(&deployed));
    let done = drive_and_audit(options, seed, plan, deployed.view(), &replicas).await;
    if done.is_err() {
        deployed.compose().show_logs().await;
    }
    drop(replicas);
    deployed.down().await?;
    Ok(done?.figures.ok)
}

async fn drive_and_audit(
    options: &Options,
    seed: u64,
    plan: &Plan,
    view: &View,
    replicas: &Replicas<'_>,
) -> Result<Audit> {
    plan.stock_up(&view.client()).await?;

    let follow = Follow::new(plan.orders.len() as u64);
    let work = async {
        let driver =
            Driver { client: view.client(), plan, rate: options.rate, follow: &follow, replicas };
        let placed = tokio::select! {
            placed = driver.drive() => placed?,
            error = replicas.kill_every(options.kill, Rng::with_seed(seed)) => return Err(error),
        };
        replicas.ready().await?;
        view.until_quiet(options.settle_within + QUIET_WITHIN).await?;
        anyhow::Ok(placed)
    };
    let placed = tokio::select! {
        placed = work => placed?,
        error = follow.show(view) => return Err(error),
    };
    follow.end();

    let audit = view.sources().audit().await?;
    print(&format!("\n{}\n{}\n\n{audit}", summary::of(&audit.sagas), replicas.kills().await))?;
    replicas.stop().await?;
    ensure!(
        audit.figures.orders == placed,
        "{placed} orders were acknowledged, and the topics hold {}",
        audit.figures.orders
    );

    Ok(audit)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wrong = || "a number of seconds such as 1 or 0.5; 0 for never".to_owned();
    let seconds: f64 = text.parse().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

fn log(what: &str) {
    eprintln!("demo: {what}");
}

fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
