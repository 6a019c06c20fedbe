//! What an audit computes from: the topics and the tables, as they were read.

use inventory::domain::InventoryService;
use order::domain::OrderService;
use payment::domain::PaymentService;
use reel::kafka::Record;
use reel::model::{Partition, Service, Timestamp};
use uuid::Uuid;

/// The whole system.
#[derive(Debug)]
pub struct Collected {
    /// The order service.
    pub order: Side<OrderService>,
    /// The payment service.
    pub payment: Side<PaymentService>,
    /// The inventory service.
    pub inventory: Side<InventoryService>,
}

/// One service: its topic and its database.
#[derive(Debug)]
pub struct Side<S: Service> {
    /// The topic, as the broker knows it.
    pub topic: String,
    /// Each partition of the topic, with what the database has to say about it.
    pub lanes: Vec<Lane>,
    /// The service's own tables.
    pub state: S::State,
    /// The table of deadlines.
    pub deadlines: Vec<DeadlineRow>,
    /// The table of parked messages.
    pub parked: Vec<ParkedRow>,
    /// How many dead letters wait for the operator.
    pub dead_letters: i64,
}

/// A partition of a service's own topic.
#[derive(Debug, Clone)]
pub struct Lane {
    /// Which one.
    pub partition: Partition,
    /// Every record, from the first to the high watermark.
    pub records: Vec<Record>,
    /// The rows that the outbox still has, in the order of their numbers.
    pub outbox: Vec<OutboxRow>,
    /// The number that the database gave next, when its tables were read.
    pub next_seq: i64,
    /// The same after the topic was read: a system that works meanwhile has given more of them.
    pub next_seq_after: i64,
}

/// A row of the outbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxRow {
    /// Its number.
    pub seq: i64,
    /// Its event.
    pub event_id: Uuid,
}

/// A row of the table of deadlines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadlineRow {
    /// The lane.
    pub partition: i32,
    /// Of what.
    pub key: String,
    /// Its name within the key.
    pub name: String,
    /// When it is due.
    pub due_at: Timestamp,
    /// What is decided then.
    pub command: serde_json::Value,
}

/// A row of the table of parked messages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ParkedRow {
    /// The input's topic.
    pub topic: String,
    /// The lane, which is the input's partition.
    pub partition: i32,
    /// The input's generation.
    pub generation: i64,
    /// The message's number.
    pub number: i64,
    /// The message's offset.
    pub offset: i64,
    /// The message's key.
    pub key: String,
    /// The message's type.
    pub message_type: String,
    /// Why.
    pub reason: String,
}
