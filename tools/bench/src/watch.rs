//! A consumer that records what arrives, and when, with the settings of the toolkit's consumers.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use reel::kafka::KafkaConfig;

use crate::clock;
use crate::consumer::{StartAt, assigned};

const POLL_TIMEOUT: Duration = Duration::from_millis(100);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// An event that a consumer has read.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// The partition of its topic.
    pub partition: i64,
    /// Its sequence; -1 if it has none.
    pub sequence: i64,
    /// The event type.
    pub name: String,
    /// The key of the record.
    pub key: String,
    /// Time at which it was recorded in its transaction, before the commit: microseconds of the
    /// wall clock.
    pub recorded_at: i64,
    /// Time at which it was handed to Kafka's client: microseconds of the wall clock, rounded down
    /// to whole milliseconds.
    pub sent_at: i64,
    /// Time at which it was read: microseconds of the wall clock.
    pub at: i64,
}

/// Reads the new records of a topic, on a thread of its own, until it is dropped.
pub struct Watch {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Starts to read at the current end of the topic.
    ///
    /// # Errors
    /// If Kafka does not answer.
    pub async fn start(kafka: &KafkaConfig, topic: &str) -> Result<Self> {
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        let (consumer, _) =
            tokio::task::spawn_blocking(move || assigned(&kafka, &topic, StartAt::End)).await??;
        let (arrivals, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, until) = (arrivals.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("bench-watch".into()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(POLL_TIMEOUT)
                    && let Some(arrival) = Arrival::from_message(&message)
                {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
                }
            }
        })?;
        Ok(Self { arrivals, stop, thread: Some(thread) })
    }

    /// Returns and forgets what has arrived since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until a number of records have arrived, and takes them.
    ///
    /// # Errors
    /// If they do not arrive within the limit.
    pub async fn until(&self, count: usize, limit: Duration) -> Result<Vec<Arrival>> {
        let deadline = Instant::now() + limit;
        loop {
            let arrived = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len();
            if arrived >= count {
                return Ok(self.take());
            }
            if Instant::now() > deadline {
                bail!("{arrived} of {count} records arrived in {limit:?}");
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Stops the thread and waits for it.
    pub async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(|| thread.join()).await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Arrival {
    /// The event in a record; `None` for `reel.opened`, which is not one.
    fn from_message(message: &BorrowedMessage<'_>) -> Option<Self> {
        let at = clock::micros();
        let envelope = reel::kafka::envelope(message.headers()).ok()?;
        Some(Self {
            partition: i64::from(message.partition()),
            sequence: envelope.sequence.unwrap_or(-1),
            recorded_at: envelope.recorded_at?.micros(),
            key: String::from_utf8_lossy(message.key()?).into_owned(),
            name: envelope.event_type,
            sent_at: message.timestamp().to_millis()? * 1_000,
            at,
        })
    }
}
