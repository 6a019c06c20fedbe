//! The summary of a demo: what became of the orders, for people.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use contracts::orders::CancelReason;

use crate::audit::{Ending, Saga};
use crate::percentile::percentile;

/// Writes the orders by outcome, the sagas per second, and their durations, by the times in the
/// topics.
pub(super) fn of(sagas: &[Saga]) -> String {
    let created: Vec<_> =
        sagas.iter().filter_map(|saga| Some((saga, saga.created.as_ref()?.1))).collect();
    let first = created.iter().map(|(_, at)| *at).min().unwrap_or_default();
    let last = sagas.iter().map(|saga| saga.last_at).max().unwrap_or_default();
    let span = last.since(first);
    let a_second = if span.is_zero() { 0.0 } else { created.len() as f64 / span.as_secs_f64() };

    let mut outcomes: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for (saga, _) in &created {
        outcomes.entry(outcome(saga)).or_default().extend(saga.duration());
    }

    let mut text = format!(
        "{} orders in {:.1} s: {a_second:.1} sagas a second\n\n",
        created.len(),
        span.as_secs_f64()
    );
    let _ =
        writeln!(text, "from OrderCreated to the saga's last event, compensation included (ms)");
    let _ = writeln!(text, "{:<48}{:>8}{:>8}{:>8}{:>8}", "outcome", "orders", "p50", "p95", "p99");
    for (outcome, durations) in &mut outcomes {
        row(&mut text, outcome, durations);
    }
    let mut all: Vec<Duration> = outcomes.into_values().flatten().collect();
    row(&mut text, "all", &mut all);
    text
}

fn row(text: &mut String, outcome: &str, durations: &mut [Duration]) {
    durations.sort_unstable();
    let [p50, p95, p99] = [50, 95, 99].map(|percent| percentile(durations, percent).as_millis());
    let _ = writeln!(text, "{outcome:<48}{:>8}{p50:>8}{p95:>8}{p99:>8}", durations.len());
}

fn outcome(saga: &Saga) -> String {
    match &saga.ending {
        None => "open".to_owned(),
        Some(Ending::Confirmed) => "confirmed".to_owned(),
        Some(Ending::Cancelled {
            reason: CancelReason::PaymentFailed,
            detail: Some(detail),
            ..
        }) => {
            format!("cancelled: {} ({detail})", CancelReason::PaymentFailed)
        }
        Some(Ending::Cancelled { reason, .. }) => format!("cancelled: {reason}"),
    }
}
