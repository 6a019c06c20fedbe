//! The system left running in the background: `orderctl up`, `orderctl down`.
//!
//! What runs is written into `up/` of devstack's data folder before anything else is done, so that either command works
//! again after a crash of the other.

mod process;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devstack::{Stack, folders, wait};
use futures_util::future::{join_all, try_join_all};
use nix::sys::signal::Signal;

use crate::audit::Places;
use crate::system::{Service, System, SystemOptions, key_in};
use state::{Running, Started};

const PREFIX: &str = "shop-";
/// The replicas take this port and those after it, where they are free.
const FIRST_PORT: u16 = 8081;
const REPLICAS: u16 = 2;
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// Starts what does not run yet, and prints where everything is.
///
/// # Errors
/// Where something cannot be started.
pub async fn up() -> Result<ExitCode> {
    let _lock = state::lock()?;
    let stack = Stack::shared().await?;
    let mut running = Running::read()?;
    if running.kafka != stack.kafka() || running.postgres != stack.postgres() {
        stop(&mut running).await?; // they belong to a stack that is gone
    }
    running.kafka = stack.kafka().to_owned();
    running.postgres = stack.postgres().to_owned();
    let system = create(&running).await?;
    running.replicas.retain(|replica| replica.process.is_alive());
    let mut port = FIRST_PORT;
    for service in Service::ALL {
        for nth in 1..=REPLICAS {
            let name = format!("{service}-{nth}");
            if !running.replicas.iter().any(|replica| replica.name == name) {
                let detached = system.start_detached(service, &name, port)?;
                running.replicas.push(Started::new(service, name, detached));
                running.write()?;
            }
            port += 1;
        }
    }
    running.replicas.sort_by_key(|replica| (replica.service, replica.name.clone()));
    try_join_all(running.replicas.iter().map(ready)).await?;
    println!("{}", running.description(&system.tokens().staff()?));
    Ok(ExitCode::SUCCESS)
}

/// Stops the services, then the stack, unless that is not ours.
///
/// # Errors
/// Where something cannot be stopped.
pub async fn down() -> Result<ExitCode> {
    let _lock = state::lock()?;
    let mut running = Running::read()?;
    let services = stop(&mut running).await?;
    let stack = match Stack::given().await {
        Ok(Some(_)) => false,
        Ok(None) | Err(_) => Stack::stop_in(&folders::data()?).await?,
    };
    println!(
        "{}",
        match (services, stack) {
            (0, false) => "nothing ran".to_owned(),
            (services, true) => format!("{services} replicas, kafka and postgres are stopped; their data stays"),
            (services, false) => format!("{services} replicas are stopped"),
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Where the system that `up` started is, if it was started.
///
/// # Errors
/// Where what was written down cannot be read.
pub fn places() -> Result<Option<Places>> {
    let running = Running::read()?;
    if running.kafka.is_empty() {
        return Ok(None);
    }
    let options = SystemOptions::new(&running.kafka, &running.postgres, PREFIX);
    Places::of(&options).map(Some)
}

/// Where the key of its tokens lies.
///
/// # Errors
/// Where it was never started.
pub fn token_key() -> Result<PathBuf> {
    let key = key_in(&state::folder()?);
    ensure!(key.exists(), "there is no key of tokens: run `orderctl up`, or name one with --key-file");
    Ok(key)
}

async fn create(running: &Running) -> Result<System> {
    let mut options = SystemOptions::new(&running.kafka, &running.postgres, PREFIX);
    options.folder = Some(state::folder()?);
    let system = System::create(options).await?;
    system.keep();
    Ok(system)
}

async fn ready(replica: &Started) -> Result<()> {
    let detached = replica.detached();
    let waiting = wait::until(READY_WITHIN, &replica.name, || async {
        if !replica.process.is_alive() {
            bail!("{} ended while it started{}", replica.name, detached.last_words());
        }
        Ok(detached.is_ready().await?.ok())
    });
    waiting.await.with_context(|| format!("{} is not ready{}", replica.name, detached.last_words()))
}

/// Stops all replicas and says how many ran; what does not stop is killed.
async fn stop(running: &mut Running) -> Result<usize> {
    let alive: Vec<&Started> = running.replicas.iter().filter(|replica| replica.process.is_alive()).collect();
    for replica in &alive {
        replica.process.signal(Signal::SIGCONT)?;
        replica.process.signal(Signal::SIGTERM)?;
    }
    let stopped = join_all(alive.iter().map(|replica| replica.process.ended(STOPPED_WITHIN))).await;
    for (replica, _) in alive.iter().zip(stopped).filter(|(_, stopped)| stopped.is_err()) {
        eprintln!("orderctl: {} did not stop in {STOPPED_WITHIN:?} and is killed (log: {})", replica.name, replica.log.display());
        replica.process.signal(Signal::SIGKILL)?;
        replica.process.ended(STOPPED_WITHIN).await?;
    }
    let count = alive.len();
    running.replicas.clear();
    running.write()?;
    Ok(count)
}
