//! Kafka as the toolkit uses it: clients, records, topics, the range reader and the input consumer.

mod client;
pub(crate) mod continuity;
mod headers;
mod input_consumer;
mod range_reader;
mod topics;

pub(crate) use client::watched;
pub use client::{ClientHealth, KafkaConfig};
pub use headers::{envelope, headers};
pub(crate) use input_consumer::{Assignment, Delivered, InputConsumer, Polled};
pub use range_reader::{RangeReader, RangeRecords, ReadError};
pub use topics::{TopicError, Topics};

pub use crate::log::Record;
