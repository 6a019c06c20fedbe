//! `orderctl`: the order system as a whole, from the command line.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use orderctl::{audit, demo, failover, faults, fuzz, token, up};

/// The order system as a whole: demo, audit, faults, failover, up, down, token.
///
/// REEL_KAFKA (bootstrap servers) and REEL_POSTGRES (a superuser's address), when set, name the stack to be used.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Drive a thousand orders to every ending on real Kafka and Postgres, and audit them; exit 1 if the audit fails
    Demo(demo::Options),
    /// Check that databases and topics say the same, and the right thing; exit 1 if they do not
    Audit(audit::Options),
    /// Kill, pause, cut off and put back whatever there is while orders run; exit 1 unless nothing is lost or done twice
    Faults(faults::Options),
    /// Send made-up requests to the services by their OpenAPI documents; exit 1 if one is answered otherwise than they say
    FuzzHttp(fuzz::Options),
    /// Measure how long others wait when a replica, Kafka or Postgres dies: medians over many trials
    Failover(failover::Options),
    /// Start Kafka, Postgres and two replicas of each service, and leave them running
    Up,
    /// Stop what `up` has started; the data stays
    Down,
    /// Print a token with which one asks the services
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
