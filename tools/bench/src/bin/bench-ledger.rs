//! The ledger as a process of its own. It exits when the process that started it is gone, because
//! then its stdin, a pipe, is closed.

use std::io::Read;
use std::process::ExitCode;

use bench::ledger::{App, Settings};
use clap::Parser;
use reel::runtime::{RunSettings, serve};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    toolkit: RunSettings,
    #[command(flatten)]
    ledger: Settings,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Arguments { toolkit, ledger } = Arguments::parse();

    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,librdkafka=off"));
    let log = fmt::layer().with_writer(std::io::stderr).with_filter(filter);
    tracing_subscriber::registry()
        .with(log)
        .with(ledger.remember_acks.then(|| ledger.acks.layer()))
        .init();

    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1)
    });

    match serve::<App>(&toolkit, &ledger).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
