//! `bench`: what it costs, from the command line.

use std::process::ExitCode;

use bench::run::{Options, run};
use clap::Parser;

/// What it costs: rates and latencies, each beside a yardstick taken in the same run, on a Kafka and a Postgres that it starts.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[tokio::main]
async fn main() -> ExitCode {
    run(Arguments::parse().options).await.unwrap_or_else(|error| {
        eprintln!("bench: {error:#}");
        ExitCode::FAILURE
    })
}
