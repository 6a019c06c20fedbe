//! Choreographed sagas on Kafka and Postgres.
//!
//! For the author of a service:
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | state, pure functions, keys: what a service decides |
//! | [`rows`] | how the rows of the state are stored |
//! | [`http`] | what HTTP edges share |
//! | [`projection`] | tables for queries, folded from the events of any topics |
//! | [`runtime`] | runs a service |
//! | [`testing`] | scenarios for the pure functions |
//!
//! For tools beside a service: [`wire`], [`log`], [`kafka`], [`inspect`].
//!
//! Inside, modules depend on those above them and never the other way round;
//! `tests/module_graph.rs` has the order and checks it.

#![warn(missing_docs)]

mod admission;
mod database;
#[doc(hidden)]
pub mod failpoints;
mod from_row;
pub mod inspect;
pub mod kafka;
mod lane;
mod lanes;
mod migrations;
mod notify;
mod pauses;
pub mod projection;
mod relay;
mod replica;
pub mod rows;
pub mod runtime;
mod status;
mod step;
mod tables;
#[cfg(test)]
mod tests;

pub use reel_core::{events, inputs, log, model, testing, wire, working_set};

/// What the HTTP edges of services share: problems, tokens, bodies and headers of commands.
pub mod http {
    pub use reel_http::{
        Body, Caller, IdempotencyKey, KeyReused, NoAnswer, OpenApiRouter, Path, Prefer, Problem,
        Query, TraceParent, objects, single,
    };
}

/// What the macros expand to. Not part of the interface.
#[doc(hidden)]
pub mod private {
    pub use crate::migrations::embedded;
    pub use sqlx::migrate::Migrator;
}

pub use admission::{CommandError, Commands};
