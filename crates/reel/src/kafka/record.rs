//! A record as it came from Kafka.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;

use crate::model::{Partition, Partitions};
use crate::wire::{Cause, Envelope, Malformed};

/// The longest key of an event, in bytes: an index holds it.
pub(crate) const LONGEST_KEY: usize = 512;

/// An owned record, its headers read and its payload not.
#[derive(Debug, Clone)]
pub struct Record {
    /// The topic, as the broker knows it.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Partition,
    /// The offset.
    pub offset: i64,
    /// The key's bytes.
    pub key: Option<Vec<u8>>,
    /// The payload's bytes.
    pub payload: Option<Vec<u8>>,
    /// What the headers say.
    pub envelope: Result<Envelope, Malformed>,
}

impl Record {
    /// The key as text, if it is text that Postgres can hold and hashes to the record's partition (law 4).
    #[must_use]
    pub fn sound_key(&self, partitions: Partitions) -> Option<&str> {
        let key = self.key.as_deref()?;
        let key = str::from_utf8(key).ok().filter(|key| key.len() <= LONGEST_KEY && !key.contains('\0'))?;
        (partitions.of(key.as_bytes()) == self.partition).then_some(key)
    }

    /// Where the record lies, if it is numbered.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
        let envelope = self.envelope.as_ref().ok()?;
        Some(Cause {
            topic: self.topic.to_string(),
            partition: self.partition.0,
            generation: envelope.generation?,
            number: envelope.number?,
            offset: self.offset,
        })
    }
}

/// Makes records, and shares the names of their topics.
#[derive(Debug, Default)]
pub(super) struct Records {
    topics: HashMap<String, Arc<str>>,
}

impl Records {
    pub(super) fn read(&mut self, message: &BorrowedMessage<'_>) -> Record {
        let topic = match self.topics.get(message.topic()) {
            Some(topic) => topic.clone(),
            None => self.topics.entry(message.topic().to_owned()).or_insert_with(|| message.topic().into()).clone(),
        };
        Record {
            topic,
            partition: Partition(message.partition()),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            envelope: Envelope::read(message.headers()),
        }
    }
}
