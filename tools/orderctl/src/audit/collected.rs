//! What an audit reads of each service: its topic and its tables.

use reel::kafka::Record;
use reel::model::{Partition, Service, Timestamp};
use uuid::Uuid;

/// One service: its topic and its database.
#[derive(Debug)]
pub struct Side<S: Service> {
    /// The topic, as the broker knows it.
    pub topic: String,
    /// Each partition of the topic, with the lane's rows in the database.
    pub lanes: Vec<Lane>,
    /// The service's own tables.
    pub state: S::State,
    /// The table of deadlines.
    pub deadlines: Vec<DeadlineRow>,
    /// The table of parked messages.
    pub parked: Vec<ParkedRow>,
    /// Number of dead letters that wait for the operator.
    pub dead_letters: i64,
}

/// A partition of a service's own topic.
#[derive(Debug, Clone)]
pub struct Lane {
    /// The partition's number.
    pub partition: Partition,
    /// Every record, from the first to the high watermark.
    pub records: Vec<Record>,
    /// The rows that are still in the outbox, by sequence.
    pub outbox: Vec<OutboxRow>,
    /// The sequence of the next event when the tables were read.
    pub next_sequence: i64,
    /// The same after the topic was read; a running system has moved it on meanwhile.
    pub next_sequence_after: i64,
}

/// A row of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxRow {
    /// The sequence of the event.
    pub sequence: i64,
    /// The id of the event.
    pub event_id: Uuid,
}

/// A row of the table of deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadlineRow {
    /// The lane.
    pub partition: i32,
    /// The key that it belongs to.
    pub key: String,
    /// Its name, unique within the key.
    pub name: String,
    /// When it is due.
    pub due_at: Timestamp,
    /// The command that is decided then.
    pub command: serde_json::Value,
}

/// A row of the table of parked messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedRow {
    /// The input's topic.
    pub topic: String,
    /// The lane, which is the input's partition.
    pub partition: i32,
    /// The input's epoch.
    pub epoch: i64,
    /// The message's sequence in its topic-partition.
    pub sequence: i64,
    /// The message's offset.
    pub offset: i64,
    /// The message's key.
    pub key: String,
    /// The message's type.
    pub message_type: String,
    /// Why it was parked.
    pub reason: String,
}
