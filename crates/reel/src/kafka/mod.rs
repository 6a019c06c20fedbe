//! Kafka as the toolkit uses it: clients, records, topics, reading a range, taking in the inputs of the lanes.

mod client;
mod intake;
mod reader;
mod record;
mod topics;

pub(crate) use client::watched;
pub use client::{Kafka, Quiet};
pub(crate) use intake::{Delivered, Intake, Taken};
pub use reader::{ReadError, Reader};
pub(crate) use record::LONGEST_KEY;
pub use record::Record;
pub use topics::{TopicError, Topics};
