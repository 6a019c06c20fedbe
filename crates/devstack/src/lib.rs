//! Starts a real Apache Kafka and a real Postgres for the demo, the tests and the benches.
//!
//! Most tests share one stack and keep apart by databases and topic prefixes:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use devstack::{Stack, TestDatabase, topics};
//!
//! let stack = Stack::shared().await?;
//! let database = TestDatabase::create(stack.postgres(), "order").await?;
//! let prefix = topics::unique_prefix();
//! // ... database.url(), stack.kafka(), format!("{prefix}orders") ...
//! topics::delete_with_prefix(stack.kafka(), &prefix).await?;
//! # Ok(()) }
//! ```
//!
//! A test that stops, kills, pauses or rewinds a server starts its own, which dies with the test however that ends:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mut postgres = devstack::PostgresServer::temporary().await?;
//! postgres.kill().await?;
//! postgres.start_again().await?;
//! # Ok(()) }
//! ```
//!
//! Where one of several brokers is to die, [`KafkaCluster`] has three. What runs in containers: [`docker`]. Where things lie:
//! [`folders`]. Environment variables: `REEL_KAFKA` and `REEL_POSTGRES` (addresses of a stack that is given), `STACK=docker` (the
//! shared stack runs in containers), `REEL_DEVSTACK_DIR` (data folder), `REEL_DEVSTACK_CACHE` (jars, class archive, empty
//! database), `REEL_KEEP` (keep the folders of temporary servers, and test databases).

mod database;
pub mod docker;
pub mod folders;
mod kafka;
mod postgres;
pub mod proxy;
mod server;
mod stack;
pub mod topics;
pub mod wait;

use std::io::Write;

pub use database::TestDatabase;
pub use kafka::{KafkaCluster, KafkaServer, Listener};
pub use postgres::PostgresServer;
pub use stack::{OwnStack, Source, Stack};

/// Tells the person at the terminal what takes long; the first start fetches and prepares things.
fn say(what: &str) {
    eprintln!("devstack: {what}");
}

/// Writes a line to stderr for whoever runs the tests, of a test that passes too: libtest captures what the macros print, but not this.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
