//! This replica: who it is, which topics it works on, and what it is connected to.

use std::marker::PhantomData;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::database::{ConnectionPool, Database};
use crate::kafka::{KafkaConfig, RangeReader};
use crate::model::{Event, Message, Partitions, Service};
use crate::relay::Publisher;

/// What the parts of one process share. All of it is made at start and never changes.
pub(crate) struct Replica<S: Service> {
    pub(crate) instance: String,
    pub(crate) partitions: Partitions,
    /// The topic that the service owns, as the broker knows it.
    pub(crate) topic: Arc<str>,
    /// The topics of the inputs, in order, as the broker knows them.
    pub(crate) inputs: Vec<Arc<str>>,
    pub(crate) reader: RangeReader,
    pub(crate) publisher: Arc<Publisher>,
    pub(crate) database: Database,
    pub(crate) pool: ConnectionPool,
    /// The turns of lanes to replay their own topic.
    pub(crate) replays: Semaphore,
    pub(crate) service: PhantomData<S>,
}

/// The topics that a service reads, as the broker knows them.
pub(crate) fn inputs_of<S: Service>(kafka: &KafkaConfig) -> Vec<Arc<str>> {
    let mut topics: Vec<Arc<str>> =
        S::Input::types().iter().map(|known| kafka.topic(known.topic).into()).collect();
    topics.sort();
    topics.dedup();
    topics
}

/// The topic that a service owns, as the broker knows it.
pub(crate) fn topic_of<S: Service>(kafka: &KafkaConfig) -> Arc<str> {
    kafka.topic(S::Event::TOPIC).into()
}
