//! The pure part of Reel: no I/O, no clock, no random number, no runtime.
//!
//! | module | holds |
//! |---|---|
//! | [`time`] | a moment in time, handed in and never read |
//! | [`wire`] | events as Kafka records: Avro payloads, CloudEvents headers |
//! | [`model`] | what the author of a service writes: state, pure functions, keys |
//! | [`log`] | the consumer's rule: what a reader of a topic-partition does with the next record |
//! | [`testing`] | scenarios for the pure functions |
//!
//! Modules depend on those above them in this table, and never the other way round;
//! `tests/module_graph.rs` of the `reel` crate checks it.

#![warn(missing_docs)]

pub mod log;
pub mod model;
pub mod testing;
pub mod time;
pub mod wire;

/// The names that the macros expand to. Not part of the public interface.
#[doc(hidden)]
pub mod private {
    pub use crate::model::{
        Contract, Event, Key, Keyed, Message, MessageType, Rows, Savepoint, WorkingSet,
    };
    pub use crate::wire::{Codec, DecodeError, EncodeError};
}
