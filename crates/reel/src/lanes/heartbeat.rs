//! Asks Kafka again and again, so that a replica that does not reach it does not keep its lanes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::kafka::RangeReader;

/// Pause between two requests.
const EVERY: Duration = Duration::from_secs(2);

/// When Kafka last answered this replica.
#[derive(Debug, Clone)]
pub(crate) struct Heartbeat {
    answered_at: watch::Receiver<Instant>,
}

impl Heartbeat {
    /// A heartbeat, and the task that asks, which ends with the last handle. It starts as if Kafka
    /// had just answered.
    pub(crate) fn new(
        reader: RangeReader,
        topic: Arc<str>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (answered, answered_at) = watch::channel(Instant::now());
        (Self { answered_at }, run(reader, topic, answered))
    }

    /// For how long Kafka has not answered.
    pub(super) fn silent_for(&self) -> Duration {
        self.answered_at.borrow().elapsed()
    }
}

/// Asks for the topic, which any broker answers, so that one that is away is not taken for all.
async fn run(reader: RangeReader, topic: Arc<str>, answered: watch::Sender<Instant>) {
    while !answered.is_closed() {
        match reader.partition_count(&topic).await {
            Ok(_) => drop(answered.send_replace(Instant::now())),
            Err(error) => tracing::debug!(error = %error, "no answer to the heartbeat"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
