//! A record as it came from Kafka.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::{Partition, Partitions};
use crate::wire::{Envelope, Malformed, Opened, RecordRef};

/// The longest key of an event, in bytes: it must fit into an index of Postgres.
pub const MAX_KEY_BYTES: usize = 512;

/// A record, owned, whose headers are parsed and whose payload is not decoded yet.
#[derive(Debug, Clone)]
pub struct Record {
    /// The topic, as the broker knows it.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: Partition,
    /// The offset in the partition.
    pub offset: i64,
    /// The key; whether an event may have it is what [`Record::valid_key`] says.
    pub key: Option<Vec<u8>>,
    /// The payload: one Avro datum in single-object encoding.
    pub payload: Option<Vec<u8>>,
    /// The attributes in the headers.
    pub envelope: Result<Envelope, Malformed>,
}

impl Record {
    /// The key as text, if it is text that Postgres can hold and hashes to the record's partition
    /// (law 4).
    #[must_use]
    pub fn valid_key(&self, partitions: Partitions) -> Option<&str> {
        let key = str::from_utf8(self.key.as_deref()?).ok()?;
        let fits = key.len() <= MAX_KEY_BYTES && !key.contains('\0');
        (fits && partitions.of(key.as_bytes()) == self.partition).then_some(key)
    }

    /// The name of the event type; empty if the headers are malformed.
    #[must_use]
    pub fn event_type(&self) -> &str {
        self.envelope.as_ref().map(|envelope| envelope.event_type.as_str()).unwrap_or_default()
    }

    /// About how many bytes of memory it takes: key, payload, and an allowance for the rest.
    #[must_use]
    pub fn size(&self) -> usize {
        const REST: usize = 512;
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.payload) + REST
    }

    /// The sequence in the topic-partition, if the record has one.
    #[must_use]
    pub fn sequence(&self) -> Option<i64> {
        self.envelope.as_ref().ok()?.sequence
    }

    /// Where the record is, if it has an epoch and a sequence.
    #[must_use]
    pub fn record_ref(&self) -> Option<RecordRef> {
        let envelope = self.envelope.as_ref().ok()?;
        Some(RecordRef {
            topic: self.topic.to_string(),
            partition: self.partition.0,
            epoch: envelope.epoch?,
            sequence: envelope.sequence?,
            offset: self.offset,
        })
    }

    /// The id of the record, if it is a `reel.opened`.
    #[must_use]
    pub fn opened_id(&self) -> Option<Uuid> {
        let envelope = self.envelope.as_ref().ok()?;
        let opens = envelope.event_type == Opened::NAME && envelope.sequence.is_none();
        opens.then_some(envelope.id)
    }
}
