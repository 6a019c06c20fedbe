//! The saga model: what the author of a service writes.
//!
//! A service is a state made of [`Rows`], three pure functions on it (`decide`, `react`, `evolve`) and the keys that a
//! message needs. Nothing here does I/O or reads a clock (law 5): the same functions run in production, in replay, in
//! tests and in a model checker.

mod deadlines;
mod event;
mod partition;
mod rows;
mod service;
mod timestamp;

pub use deadlines::{DeadlineChange, Deadlines};
pub use event::{Event, Key, Keyed, Message, MessageType};
pub use partition::{Partition, Partitions};
pub(crate) use rows::Changes;
pub use rows::{Rows, Undeclared, Undo, WorkingSet};
pub use service::{Ask, Impossible, Service};
pub use timestamp::Timestamp;
