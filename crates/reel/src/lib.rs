//! Choreographed sagas on Kafka and Postgres.
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | what the author of a service writes: state, pure functions, keys |
//! | [`wire`] | events as Kafka records: Avro and CloudEvents |
//! | [`step`] | one batch, one transaction; how rows lie in Postgres |
//! | [`projection`] | tables for queries, folded from the events of any topics |
//! | [`lanes`] | who works on what: leases, opening, the consumer's rule |
//! | [`kafka`] | clients, topics, reading a range |
//! | [`database`] | sessions and the server run |
//! | [`runtime`] | what runs a service |
//! | [`http`] | what HTTP edges share |
//! | [`failpoints`] | every point at which a process can die |
//! | [`testing`] | scenarios for the pure functions |

pub mod database;
mod dead_letters;
mod deadlines;
pub mod failpoints;
pub mod http;
pub mod kafka;
pub mod lanes;
pub mod model;
mod outbox;
mod pauses;
pub mod projection;
mod replica;
pub mod runtime;
pub mod step;
pub mod testing;
#[cfg(test)]
mod tests;
pub mod wire;
