//! `bench`: the benchmarks, from the command line.

use std::process::ExitCode;

use bench::run::{Options, run};
use clap::Parser;

/// Measures rates and latencies, each with a yardstick from the same run, on a Kafka and a Postgres
/// that it starts.
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
