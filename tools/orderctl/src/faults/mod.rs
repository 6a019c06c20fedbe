//! `orderctl faults`: orders under a seeded stream of faults, after which nothing may be lost or
//! done twice.
//!
//! | module | contents |
//! |---|---|
//! | `schedule` | which fault comes when, by the seed |
//! | `stage` | the servers and replicas of the run |
//! | `inject`, `database_loss`, `repeat` | how each fault is injected and undone |
//! | `work`, `tally` | whether a fault's target had work in hand, and how many faults there were |
//! | `load`, `notes`, `acknowledgements` | clients, and what was acknowledged to them |
//! | `published` | which of their requests are in the topics |
//! | `verify`, `report` | what must hold in the end, and what did not |

mod acknowledgements;
mod database_loss;
mod inject;
mod load;
mod notes;
mod published;
mod repeat;
mod report;
mod schedule;
mod stage;
mod tally;
mod verify;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep_until};

use load::Load;
use notes::Notes;
use schedule::{Fault, schedule};
use stage::Stage;
use tally::Injected;
use work::Memory;

use crate::system::Service;

/// Limit on the time from the last fault until everything has ended.
const QUIET_WITHIN: Duration = Duration::from_secs(90);

/// The options of a fault run.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Minutes for which faults are injected
    #[arg(
        long,
        env = "MINUTES",
        default_value_t = 3,
        value_parser = clap::value_parser!(u32).range(1..=600)
    )]
    pub minutes: u32,
    /// Seed that decides which fault comes when; by default a random one
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// Requests per second
    #[arg(
        long,
        env = "RATE",
        default_value_t = 30,
        value_parser = clap::value_parser!(u32).range(1..=1_000)
    )]
    pub rate: u32,
}

/// A fault run.
struct Run {
    stage: Stage,
    notes: Arc<Notes>,
    load: Load,
    folder: PathBuf,
    /// When the faults began.
    begun: OnceLock<Instant>,
    injected: Mutex<Vec<Injected>>,
    memory: Mutex<Memory>,
}

/// Runs orders and faults, and verifies the outcome. What it starts ends with this process; data
/// and logs stay unless everything held.
///
/// # Errors
/// If something cannot be started, or a fault cannot be injected.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let again =
        format!("make faults MINUTES={} SEED={seed} RATE={}", options.minutes, options.rate);
    let folder =
        devstack::folders::data()?.join("faults").join(format!("{seed}-{}", std::process::id()));
    log(&format!("seed {seed} (again: {again}); data and logs: {}", folder.display()));

    let faults = async {
        let run = Run::begin(folder.clone()).await?;
        let played = run.play(options, seed).await;
        run.verify(options.minutes, seed, played).await
    };
    let held = tokio::select! {
        held = faults => held,
        _ = tokio::signal::ctrl_c() => {
            Err(anyhow::anyhow!("stopped, and with it everything that was started"))
        }
    };

    if matches!(held, Ok(true)) {
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(ExitCode::SUCCESS);
    }

    log(&format!("data and logs are kept: {}; the same again: {again}", folder.display()));
    held.map(|_| ExitCode::FAILURE)
}

impl Run {
    /// Starts servers and replicas.
    async fn begin(folder: PathBuf) -> Result<Self> {
        let stage = Stage::start(&folder).await?;
        let notes = Arc::new(Notes::default());
        let load = Load::new(stage.system.client(), notes.clone());
        Ok(Self {
            stage,
            notes,
            load,
            folder,
            begun: OnceLock::new(),
            injected: Mutex::default(),
            memory: Mutex::default(),
        })
    }

    /// Provides money and stock, and injects the faults while orders arrive. Returns when the
    /// faults are over, every client has its reply or has given up, and the system is quiet.
    async fn play(&self, options: &Options, seed: u64) -> Result<()> {
        let playing = async {
            self.load.stock_up().await?;
            self.stage.system.until_quiet(QUIET_WITHIN).await.context("before the first fault")?;

            let (end, ended) = oneshot::channel();
            let load = tokio::spawn(self.load.clone().run(options.rate, seed, ended));
            self.inject_all(schedule(options.minutes, seed)).await?;
            log("the faults are over");
            let _ = end.send(());
            load.await?;

            self.stage.ready().await?;
            self.stage.system.until_quiet(stage::SETTLE_WITHIN + QUIET_WITHIN).await
        };
        tokio::select! {
            played = playing => played,
            () = self.watch_memory() => Ok(()),
        }
    }

    /// Injects each fault at its time, whether or not those before it are over.
    async fn inject_all(&self, faults: Vec<(Duration, Fault)>) -> Result<()> {
        let begun = *self.begun.get_or_init(Instant::now);
        let mut under_way = FuturesUnordered::new();
        let all = faults.len();
        let mut faults = faults.iter().peekable();
        let mut done = 0;
        while done < all {
            let next_at = faults.peek().map(|(at, _)| begun + *at);
            tokio::select! {
                () = sleep_until(next_at.unwrap_or_else(Instant::now)), if next_at.is_some() => {
                    if let Some((_, fault)) = faults.next() {
                        under_way.push(async move {
                            let injected = self.inject(fault).await;
                            injected.with_context(|| format!("cannot inject {fault:?}"))
                        });
                    }
                }
                Some(injected) = under_way.next() => {
                    injected?;
                    done += 1;
                }
            }
        }

        Ok(())
    }

    /// Waits for a fault's target to have work in hand, though not for long, and counts the fault.
    /// The caller injects it at once.
    async fn begin_fault(&self, fault: &Fault, service: Option<Service>, replica: Option<&str>) {
        let had_work = self.has_work(fault, service, replica).await;
        self.count(fault, had_work).await;
    }

    /// Logs and counts a fault.
    async fn count(&self, fault: &Fault, had_work: bool) {
        let at = self.begun.get_or_init(Instant::now).elapsed();
        let idle = if had_work { "" } else { " (its target has no work)" };
        log(&format!("{:6.2} s: {fault:?}{idle}", at.as_secs_f64()));
        self.injected.lock().await.push(Injected { kind: fault.kind(), at, had_work });
    }

    fn copy_folder(&self) -> PathBuf {
        self.folder.join("copy")
    }
}

fn log(what: &str) {
    eprintln!("faults: {what}");
}
