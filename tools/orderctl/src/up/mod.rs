//! `orderctl up` and `orderctl down`: the system left running in the background.
//!
//! Each replica is written down in `up/` of devstack's data folder as soon as it is started, so
//! that either command works after a crash of the other.

mod process;
mod state;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use devstack::{Port, Stack, folders, wait};
use futures_util::future::{join_all, try_join_all};
use nix::sys::signal::Signal;

use crate::audit::Sources;
use crate::system::{Service, System, SystemOptions, key_in};
use state::{Running, Started};

const PREFIX: &str = "shop-";
/// Port of the first replica. The others have the ports after it; a port in use is replaced by a
/// random one.
const FIRST_PORT: u16 = 8081;
const REPLICAS: u16 = 2;
const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(30);

/// Starts what does not run yet, and prints the addresses of everything.
///
/// # Errors
/// If something cannot be started.
pub async fn up() -> Result<ExitCode> {
    let _lock = state::lock()?;
    let stack = Stack::shared().await?;
    let mut running = Running::read()?;
    if running.kafka != stack.kafka() || running.postgres != stack.postgres() {
        stop(&mut running).await?; // its replicas belong to a stack that is gone
    }
    running.kafka = stack.kafka().to_owned();
    running.postgres = stack.postgres().to_owned();
    let system = create(&running).await?;

    running.replicas.retain(|replica| replica.process.is_alive());
    let mut preferred = FIRST_PORT;
    let mut ports = Vec::new(); // reserved until all are ready
    for service in Service::all() {
        for nth in 1..=REPLICAS {
            let name = format!("{service}-{nth}");
            if !running.replicas.iter().any(|replica| replica.name == name) {
                let port = Port::reserve(Some(preferred))?;
                let detached = system.start_detached(service, &name, &port)?;
                ports.push(port);
                running.replicas.push(Started::new(service, name, detached));
                running.write()?;
            }

            preferred += 1;
        }
    }

    running.replicas.sort_by_key(|replica| (replica.service, replica.name.clone()));
    try_join_all(running.replicas.iter().map(ready)).await?;
    drop(ports);
    println!("{}", running.description(&system.tokens().staff()?));
    Ok(ExitCode::SUCCESS)
}

/// Stops the services, then the stack unless the environment names it.
///
/// # Errors
/// If something cannot be stopped.
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
            (services, true) =>
                format!("{services} replicas, kafka and postgres are stopped; their data stays"),
            (services, false) => format!("{services} replicas are stopped"),
        }
    );
    Ok(ExitCode::SUCCESS)
}

/// Returns where the system that `up` started is, if there is one.
///
/// # Errors
/// If the file that says what runs cannot be read.
pub fn sources() -> Result<Option<Sources>> {
    let running = Running::read()?;
    if running.kafka.is_empty() {
        return Ok(None);
    }
    let options = SystemOptions::new(&running.kafka, &running.postgres, PREFIX);
    Sources::of(&options).map(Some)
}

/// Returns the path of the key that signs the tokens of the system that `up` started.
///
/// # Errors
/// If `up` has never started a system.
pub fn token_key() -> Result<PathBuf> {
    let key = key_in(&state::folder()?);
    ensure!(
        key.exists(),
        "there is no key that signs tokens: run `orderctl up`, or name one with --key-file"
    );
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

/// Stops all replicas, kills those that do not stop, and returns how many ran.
async fn stop(running: &mut Running) -> Result<usize> {
    let alive: Vec<&Started> =
        running.replicas.iter().filter(|replica| replica.process.is_alive()).collect();
    for replica in &alive {
        replica.process.signal(Signal::SIGCONT)?;
        replica.process.signal(Signal::SIGTERM)?;
    }

    let stopped = join_all(alive.iter().map(|replica| replica.process.ended(STOPPED_WITHIN))).await;
    for (replica, _) in alive.iter().zip(stopped).filter(|(_, stopped)| stopped.is_err()) {
        eprintln!(
            "orderctl: {} did not stop within {STOPPED_WITHIN:?} and is killed (log: {})",
            replica.name,
            replica.log.display()
        );
        replica.process.signal(Signal::SIGKILL)?;
        replica.process.ended(STOPPED_WITHIN).await?;
    }

    let count = alive.len();
    running.replicas.clear();
    running.write()?;
    Ok(count)
}
