//! The step: handles a batch of messages in one Postgres transaction (law 2).
//!
//! In reading order: [`gather`] collects what is waiting; [`transaction`] loads the rows, has
//! [`decide`] call the pure functions, writes what they return and commits; [`commit`] brings the
//! batch to its end, whole or in parts, and answers commands. [`lane_set`], [`inputs`] and [`queue`]
//! hold the inputs that are waiting, [`due`] finds deadlines, [`locked_rows`] knows which rows somebody else
//! has locked, [`batch_size`] how much the server ends in time, [`work`] is what all of them pass around.

mod batch_size;
mod commit;
mod decide;
mod due;
mod gather;
mod inputs;
mod lane_set;
mod locked_rows;
mod queue;
mod transaction;
mod work;

pub(crate) use gather::{StepControl, StepInbox, StepLimits, StepLoop, StepParts, StepStopped};
