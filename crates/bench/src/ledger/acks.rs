//! When each event was acked, as the toolkit's trace tells it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use crate::clock;

/// The target of the toolkit's trace of acks.
const TARGET: &str = "reel::acked";

/// An event that the broker has acked.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Acked {
    /// Its partition.
    pub partition: i64,
    /// Its number.
    pub seq: i64,
    /// When, in microseconds of the wall clock.
    pub at: i64,
}

/// Remembers acks. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Acks(Arc<Mutex<Vec<Acked>>>);

impl Acks {
    /// The layer that remembers, which sees nothing else.
    pub fn layer<S: Subscriber + for<'a> LookupSpan<'a>>(&self) -> impl Layer<S> + use<S> {
        self.clone().with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))
    }

    /// What was acked since it was last asked.
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
            "seq" => self.seq = value,
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}
