//! `devstack`: Kafka and Postgres for this repository, from the command line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use devstack::docker;
use devstack::{OwnStack, Stack, folders};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

/// Starts a real Kafka and a real Postgres for this repository.
///
/// If REEL_KAFKA (bootstrap servers) and REEL_POSTGRES (URL of a superuser) are set, that stack is
/// used instead. With STACK=docker, `exec` runs the command on containers.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
    /// Data folder; by default one in /var/tmp.
    #[arg(long, global = true, env = "REEL_DEVSTACK_DIR")]
    dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Commands {
    /// Start the shared stack unless it is running, and print its addresses.
    Up,
    /// Stop the shared stack.
    Down {
        /// Delete its topics and databases too.
        #[arg(long)]
        delete_data: bool,
    },
    /// Print what is running; exit with 1 if nothing is.
    Status,
    /// Print the shared stack's addresses as shell exports: eval "$(devstack env)".
    Env,
    /// Run a command with REEL_KAFKA and REEL_POSTGRES set: of the given or running stack if there
    /// is one, otherwise of a temporary one.
    Exec {
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse()).await.unwrap_or_else(|error| {
        eprintln!("devstack: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(Arguments { command, dir }: Arguments) -> Result<ExitCode> {
    let data = match dir {
        Some(dir) => {
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
            dir.canonicalize()?
        }
        None => folders::data()?,
    };

    if docker::is_wanted()? && !matches!(command, Commands::Exec { .. }) {
        bail!(
            "STACK=docker works only with `devstack exec`: the containers are removed when its \
             command ends"
        );
    }

    match command {
        Commands::Up => println!("{}", Stack::shared_in(&data).await?),
        Commands::Down { delete_data } => {
            let stopped = Stack::stop_in(&data).await?;
            println!("{}", if stopped { "stopped" } else { "nothing was running" });
            if delete_data {
                fs::remove_dir_all(data.join("shared"))?;
            }
        }

        Commands::Status => {
            let found = match Stack::given().await? {
                Some(given) => Some(given),
                None => Stack::running_in(&data)?,
            };
            let Some(stack) = found else {
                println!("nothing is running");
                return Ok(ExitCode::FAILURE);
            };
            println!("{stack}");
        }
        Commands::Env => {
            for (name, value) in Stack::shared_in(&data).await?.variables() {
                println!("export {name}='{value}'");
            }
        }
        Commands::Exec { command } => {
            let found = match Stack::given().await? {
                Some(given) => Some(given),
                None if docker::is_wanted()? => return exec_in_docker(&command, &data).await,
                None => Stack::running_in(&data)?,
            };
            if let Some(stack) = found {
                return exec(&command, &stack).await;
            }
            let own = OwnStack::start().await?;
            return exec(&command, &own.stack()).await;
        }
    }

    Ok(ExitCode::SUCCESS)
}

#[cfg(not(feature = "docker"))]
async fn exec_in_docker(_: &[String], _: &Path) -> Result<ExitCode> {
    bail!(docker::NOT_BUILT)
}

/// Runs the command on containers of its own. If it fails, the logs of the containers are kept.
#[cfg(feature = "docker")]
async fn exec_in_docker(command: &[String], data: &Path) -> Result<ExitCode> {
    let containers = docker::Containers::start().await?;
    let code = exec(command, &Stack::from_containers(&containers)).await?;
    if code != ExitCode::SUCCESS {
        let folder = data.join(format!("docker-{}", std::process::id()));
        containers.write_logs(&folder).await?;
        eprintln!("devstack: the logs of the containers are in {}", folder.display());
    }
    Ok(code)
}

/// Runs the command and returns its exit code. Ctrl-C reaches it from the terminal by itself;
/// SIGTERM is forwarded.
async fn exec(command: &[String], stack: &Stack) -> Result<ExitCode> {
    eprintln!("devstack: {stack}");
    let [mut interrupt, mut terminate] =
        [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?];
    let mut process = Command::new(&command[0]);
    process.args(&command[1..]).envs(stack.variables());
    let mut child = process.spawn().with_context(|| format!("cannot run {}", command[0]))?;

    loop {
        tokio::select! {
            status = child.wait() => return Ok(code(status?)),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    kill(Pid::from_raw(pid), Signal::SIGTERM)?;
                }
            }
        }
    }
}

/// The exit code as a shell reports it: 128 plus the signal's number for a killed command.
fn code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
