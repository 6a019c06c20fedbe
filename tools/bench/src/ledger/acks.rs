//! The time at which each event was acked, from the toolkit's trace.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// Target of the toolkit's trace of acks.
const TARGET: &str = "reel::acked";

/// An event that the broker has acked.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Acked {
    /// The partition of its topic.
    pub partition: i64,
    /// Its sequence in the partition.
    pub sequence: i64,
    /// Time of the ack, in microseconds of the wall clock.
    pub at: i64,
}

/// A tracing layer that records acks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Acks(Arc<Mutex<Vec<Acked>>>);

impl Acks {
    /// This layer, with a filter that lets only acks through.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        self.clone().with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }

    /// Returns and forgets the acks since the last call.
    #[must_use]
    pub fn take(&self) -> Vec<Acked> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for Acks {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut acked = Acked { at: clock::micros(), ..Acked::default() };
        event.record(&mut acked);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(acked);
    }
}

impl Visit for Acked {
    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "partition" => self.partition = value,
            "sequence" => self.sequence = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
