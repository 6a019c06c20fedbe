//! The saga model: what the author of a service writes.
//!
//! A service is a state made of [`Rows`], three pure functions on it (`decide`, `react`, `evolve`)
//! and the keys that a message touches. Nothing here does I/O or reads a clock (law 5): the same
//! functions run in production, in replay, in tests and in the model checker.

mod contract;
mod deadlines;
mod event;
mod partition;
mod rows;
mod service;

pub use contract::Contract;
pub use deadlines::{DeadlineChange, Deadlines};
pub use event::{Event, Key, Keyed, Message, MessageType};
pub use partition::{Partition, Partitions};
#[doc(hidden)]
pub use rows::{Changes, Savepoint, Undeclared};
pub use rows::{RowKey, Rows, WorkingSet};
pub use service::{Impossible, Service, Trigger};

pub use crate::time::Timestamp;
