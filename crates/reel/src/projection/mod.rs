//! Projections: tables for queries, folded from the events of any topics (law 6). No decision reads
//! them, so they may lag behind, and if they are lost, the events are read again.

mod projector;

use futures_util::future::BoxFuture;
use sqlx::PgConnection;

use crate::model::{MessageType, Timestamp};
pub(crate) use projector::Projector;

/// A projection of a service. Its positions are in `reel.positions` and advance in the transaction
/// that writes its tables, so it gets each event once.
///
/// To rebuild it, delete its positions: when the next events arrive, or at the next start, it reads
/// everything again, and gets events that it already has with the same sequences as before.
pub trait Projection: Send + Sync + 'static {
    /// Its name among the readers of the service. It must not be the service's name.
    fn name(&self) -> &'static str;

    /// The types of events that it gets.
    fn types(&self) -> &'static [MessageType];

    /// Writes the effects of these events. Events of one topic-partition come in order; events of
    /// one key from different topics come in any order.
    fn project<'a>(
        &'a self,
        events: &'a [Projected],
        connection: &'a mut PgConnection,
    ) -> BoxFuture<'a, sqlx::Result<()>>;
}

/// An event as a projection gets it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Projected {
    /// Its type, which includes its topic.
    pub kind: MessageType,
    /// Its sequence in its topic-partition. Among the events of one key and topic, it is unique and
    /// gives their order.
    pub sequence: i64,
    /// The key: the id of the saga, or of the entity that it is about.
    pub key: String,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its encoded content: see [`Message::decode`](crate::model::Message::decode).
    pub payload: Vec<u8>,
}
