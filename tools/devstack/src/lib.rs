//! Starts a real Apache Kafka and a real Postgres for the demo, the tests and the benches.
//!
//! Most tests share one stack, and are isolated by databases and topic prefixes of their own:
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
//! A test that stops, kills, pauses or rewinds a server starts its own, which dies with the test,
//! however that ends:
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! let mut postgres = devstack::PostgresServer::temporary().await?;
//! postgres.kill().await?;
//! postgres.restart().await?;
//! # Ok(()) }
//! ```
//!
//! For tests in which one of several brokers dies, [`KafkaCluster`] has three. [`docker`] has what
//! runs in containers, and [`folders`] says where data, caches and logs are.
//!
//! | environment variable | meaning |
//! |---|---|
//! | `REEL_KAFKA`, `REEL_POSTGRES` | addresses of a stack to use instead of starting one |
//! | `STACK=docker` | the shared stack runs in containers |
//! | `REEL_DEVSTACK_DIR` | data folder |
//! | `REEL_DEVSTACK_CACHE` | folder of jars, class archive and empty database |
//! | `REEL_KEEP` | keep test databases and the folders of temporary servers |

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
pub use server::Port;
pub use stack::{OwnStack, Source, Stack};

/// Reports progress on stderr: the first start downloads and prepares things, which takes a while.
fn progress(what: &str) {
    eprintln!("devstack: {what}");
}

/// Writes a line to stderr, even from a test that passes: libtest captures what the print macros
/// write, but not this.
pub fn print_uncaptured(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
