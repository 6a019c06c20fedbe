//! A consumer that notes what arrives, and when, with the settings of the toolkit's own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::Message as _;
use rdkafka::message::BorrowedMessage;
use reel::kafka::Kafka;
use reel::wire::Envelope;

use crate::clock;
use crate::consumer::{From, assigned};

const POLL: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(50);

/// An event that a consumer has read.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// Its partition.
    pub partition: i64,
    /// Its number; -1 where it has none.
    pub seq: i64,
    /// Its type.
    pub name: String,
    /// Its key.
    pub key: String,
    /// When it was recorded, which is in its transaction and before the commit: microseconds of the wall clock.
    pub recorded_at: i64,
    /// When it was handed to Kafka's client: microseconds of the wall clock, of which only whole milliseconds are known.
    pub sent_at: i64,
    /// When it was read.
    pub at: i64,
}

/// Reads a topic from its end on, on a thread of its own, until it is dropped.
pub struct Watch {
    arrivals: Arc<Mutex<Vec<Arrival>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    /// Begins behind what the topic holds now.
    ///
    /// # Errors
    /// Where Kafka does not answer.
    pub async fn start(kafka: &Kafka, topic: &str) -> Result<Self> {
        let (kafka, topic) = (kafka.clone(), topic.to_owned());
        let (consumer, _) = tokio::task::spawn_blocking(move || assigned(&kafka, &topic, From::End)).await??;
        let (arrivals, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (into, until) = (arrivals.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("bench-watch".into()).spawn(move || {
            while !until.load(Ordering::Relaxed) {
                if let Some(Ok(message)) = consumer.poll(POLL)
                    && let Some(arrival) = Arrival::of(&message)
                {
                    into.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
                }
            }
        })?;
        Ok(Self { arrivals, stop, thread: Some(thread) })
    }

    /// What has arrived since it was last asked.
    #[must_use]
    pub fn take(&self) -> Vec<Arrival> {
        std::mem::take(&mut self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until so much has arrived, and takes it.
    ///
    /// # Errors
    /// Where it does not arrive within the limit.
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
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends the thread, and waits until it has.
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
    /// An event; what opens a lane is none.
    fn of(message: &BorrowedMessage<'_>) -> Option<Self> {
        let at = clock::micros();
        let envelope = Envelope::read(message.headers()).ok()?;
        Some(Self {
            partition: i64::from(message.partition()),
            seq: envelope.number.unwrap_or(-1),
            recorded_at: envelope.recorded_at?.micros(),
            key: String::from_utf8_lossy(message.key()?).into_owned(),
            name: envelope.name,
            sent_at: message.timestamp().to_millis()? * 1_000,
            at,
        })
    }
}
