//! The step: a batch of messages, one transaction (law 2).

mod batch;
mod inputs;
mod looping;
mod settling;
mod store;
mod transaction;
mod working;

pub(crate) use looping::{StepInbox, StepLimits, StepLoop, StepStopped, ToStep};
pub use store::{Record, RowKey, Stored, StoredRows, Table};

pub use crate::database::{Columns, Writes};
#[cfg(test)]
pub(crate) use transaction::ADVANCE;
pub(crate) use working::{Panicked, Unloaded, attempt, load, save, text_of};
