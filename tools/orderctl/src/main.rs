//! `orderctl`: the order system as a whole, from the command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use orderctl::{audit, demo, failover, faults, fuzz, token, up};

/// The order system as a whole: demo, audit, faults, failover, up, down, token.
///
/// If set, REEL_KAFKA (bootstrap servers) and REEL_POSTGRES (a superuser's address) name the stack
/// to use.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive a thousand orders to every ending on real Kafka and Postgres, and audit them; exit 1
    /// if the audit fails
    Demo(demo::Options),
    /// Check that databases and topics agree, and are right; exit 1 if not
    Audit(audit::Options),
    /// Kill, pause, cut off and put back everything there is while orders run; exit 1 if anything
    /// is lost or done twice
    Faults(faults::Options),
    /// Send random requests generated from the services' OpenAPI documents; exit 1 if an answer
    /// violates its document
    FuzzHttp(fuzz::Options),
    /// Measure how long orders wait when a replica, Kafka or Postgres dies: medians over many
    /// trials
    Failover(failover::Options),
    /// Start Kafka, Postgres and two replicas of each service, and leave them running
    Up,
    /// Stop what `up` started; the data stays
    Down,
    /// Print a bearer token for the services
    Token(token::Options),
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse().command).await.unwrap_or_else(|error| {
        eprintln!("orderctl: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(options) => demo::run(&options).await,
        Command::Audit(options) => audit::run(&options).await,
        Command::Faults(options) => faults::run(&options).await,
        Command::FuzzHttp(options) => fuzz::run(&options).await,
        Command::Failover(options) => failover::run(&options).await,
        Command::Up => up::up().await,
        Command::Down => up::down().await,
        Command::Token(options) => token::run(&options),
    }
}
