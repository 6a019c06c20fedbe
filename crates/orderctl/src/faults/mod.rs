//! Nothing lost and nothing done twice, whatever dies: orders, a seeded stream of faults, and what must hold in the end.
//!
//! | module | holds |
//! |---|---|
//! | `schedule` | which fault comes when, by the seed |
//! | `stage` | servers and replicas that belong to the run |
//! | `strike`, `throw`, `repeat` | how each fault is done |
//! | `work`, `tally` | whether its target had work in hand, and how many there were |
//! | `crowd`, `notes`, `told` | clients, and what they were told |
//! | `published` | what of that stands in the topics |
//! | `verdict`, `table` | what must hold |

mod crowd;
mod notes;
mod published;
mod repeat;
mod schedule;
mod stage;
mod strike;
mod table;
mod tally;
mod throw;
mod told;
mod verdict;
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

use crowd::Crowd;
use notes::Notes;
use schedule::{Fault, schedule};
use stage::Stage;
use tally::Struck;
use work::Memory;

use crate::system::Service;

/// How long after the last fault everything must have ended.
const QUIET_WITHIN: Duration = Duration::from_secs(90);

/// What a run of faults is made of.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// How many minutes faults come
    #[arg(long, env = "MINUTES", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub minutes: u32,
    /// What decides which fault comes when; by default another one each time
    #[arg(long, env = "SEED")]
    pub seed: Option<u64>,
    /// How many requests come each second
    #[arg(long, env = "RATE", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub rate: u32,
    /// A bug of the toolkit that is planted in the services, and must be found; in test builds only
    #[arg(long, env = "PLANT")]
    pub plant: Option<String>,
}

/// A run.
struct Run {
    stage: Stage,
    notes: Arc<Notes>,
    crowd: Crowd,
    folder: PathBuf,
    /// When the faults began.
    begun: OnceLock<Instant>,
    struck: Mutex<Vec<Struck>>,
    memory: Mutex<Memory>,
}

/// Runs faults. What is started ends with this process; data and logs stay unless everything held.
///
/// # Errors
/// Where something cannot be started, or a fault cannot be done.
pub async fn run(options: &Options) -> Result<ExitCode> {
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
    let plant = options.plant.as_ref().map_or_else(String::new, |bug| format!(" PLANT={bug}"));
    let again = format!("make faults MINUTES={} SEED={seed} RATE={}{plant}", options.minutes, options.rate);
    let folder = devstack::folders::data()?.join("faults").join(format!("{seed}-{}", std::process::id()));
    say(&format!("seed {seed} (again: {again}); data and logs: {}", folder.display()));
    let faults = async {
        let run = Run::begin(folder.clone(), options.plant.as_deref()).await?;
        let played = run.play(options, seed).await;
        run.judge(options.minutes, seed, played).await
    };
    let held = tokio::select! {
        held = faults => held,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("stopped, and with it everything that was started")),
    };
    if matches!(held, Ok(true)) {
        let _ = std::fs::remove_dir_all(&folder);
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("data and logs are kept: {}; the same again: {again}", folder.display()));
    held.map(|_| ExitCode::FAILURE)
}

impl Run {
    /// Everything runs.
    async fn begin(folder: PathBuf, plant: Option<&str>) -> Result<Self> {
        let stage = Stage::set(&folder, plant).await?;
        let notes = Arc::new(Notes::default());
        let crowd = Crowd::new(stage.system.client(), notes.clone());
        Ok(Self { stage, notes, crowd, folder, begun: OnceLock::new(), struck: Mutex::default(), memory: Mutex::default() })
    }

    /// There are money and stock, orders arrive and faults come; ends when the faults are over, every client has its reply or gave
    /// up, and all is quiet.
    async fn play(&self, options: &Options, seed: u64) -> Result<()> {
        let playing = async {
            self.crowd.stock_up().await?;
            self.stage.system.until_quiet(QUIET_WITHIN).await.context("before the first fault")?;
            let (end, ended) = oneshot::channel();
            let crowd = tokio::spawn(self.crowd.clone().run(options.rate, seed, ended));
            self.strike_all(schedule(options.minutes, seed)).await?;
            say("the faults are over");
            let _ = end.send(());
            crowd.await?;
            self.stage.ready().await?;
            self.stage.system.until_quiet(stage::SETTLE_WITHIN + QUIET_WITHIN).await
        };
        tokio::select! {
            played = playing => played,
            () = self.watch_memory() => Ok(()),
        }
    }

    async fn strike_all(&self, faults: Vec<(Duration, Fault)>) -> Result<()> {
        let begun = *self.begun.get_or_init(Instant::now);
        let mut under_way = FuturesUnordered::new();
        let all = faults.len();
        let mut faults = faults.iter().peekable();
        let mut done = 0;
        while done < all {
            let next_at = faults.peek().map(|(at, _)| begun + *at);
            tokio::select! {
                () = sleep_until(next_at.unwrap_or_else(Instant::now)), if next_at.is_some() => if let Some((_, fault)) = faults.next() {
                    under_way.push(async move { self.strike(fault).await.with_context(|| format!("cannot do {fault:?}")) });
                },
                Some(struck) = under_way.next() => {
                    struck?;
                    done += 1;
                }
            }
        }
        Ok(())
    }

    /// A fault is done now, or when its target has work in hand: it is told and counted.
    async fn begins(&self, fault: &Fault, service: Option<Service>, replica: Option<&str>) {
        let had_work = self.has_work(fault, service, replica).await;
        self.count(fault, had_work).await;
    }

    async fn count(&self, fault: &Fault, had_work: bool) {
        let at = self.begun.get_or_init(Instant::now).elapsed();
        let idle = if had_work { "" } else { " (its target has no work)" };
        say(&format!("{:6.2} s: {fault:?}{idle}", at.as_secs_f64()));
        self.struck.lock().await.push(Struck { kind: fault.kind(), at, had_work });
    }

    fn copy_folder(&self) -> PathBuf {
        self.folder.join("copy")
    }
}

fn say(what: &str) {
    eprintln!("faults: {what}");
}
