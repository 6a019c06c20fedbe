//! Projections: tables that are folded from the events of any topics, for queries only (law 6). No decision reads them, so they may lag
//! behind, and what is lost of them is read again.

mod positions;
mod projector;

use futures_util::future::BoxFuture;
use sqlx::PgConnection;

use crate::model::{MessageType, Timestamp};
pub(crate) use projector::Projector;

/// A projection of a service. Its positions lie in `reel.positions` and move in the transaction that writes its tables, so each event
/// is given to it once. To rebuild it, delete its positions: with the next events, or the next start, all is read again,
/// and what is there already comes again with the same number.
pub trait Projection: Send + Sync + 'static {
    /// Its name among the readers of the service; not that of the service.
    fn name(&self) -> &'static str;

    /// The types of events that it is given.
    fn types(&self) -> &'static [MessageType];

    /// Writes what follows from these events. Those of a topic-partition come in their order, those of a key from several topics in
    /// any.
    fn project<'a>(&'a self, events: &'a [Projected], connection: &'a mut PgConnection) -> BoxFuture<'a, sqlx::Result<()>>;
}

/// An event as a projection gets it.
#[derive(Debug, Clone)]
pub struct Projected {
    /// Its type, which also tells its topic.
    pub kind: MessageType,
    /// Its number in its topic-partition. Of one key, it tells the events of a topic apart and gives their order.
    pub number: i64,
    /// The saga, or the entity that it is about.
    pub key: String,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its content: see [`Message::decode`](crate::model::Message::decode).
    pub payload: Vec<u8>,
}
