//! What is there before it begins: committed rows in the outbox, and topics as a service has left them.

mod outbox;
mod producer;
mod topic;

pub use outbox::{commit_rows, old_rows};
pub use producer::Producer;
pub use topic::{Journal, journal};
