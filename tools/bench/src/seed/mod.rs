//! Data that exists before a measurement: committed rows in the outbox, and topics as a service
//! leaves them.

mod outbox;
mod producer;
mod topic;

pub use outbox::{commit_rows, old_rows};
pub use producer::Producer;
pub use topic::{Journal, journal};
