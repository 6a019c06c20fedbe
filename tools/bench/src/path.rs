//! The path of an order through the services, and where its time goes.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::report::Sample;
use crate::watch::Arrival;

/// The events of a confirmed order, one per step.
const STEPS: [&str; 4] = ["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"];
/// Mean error of the time at which a record was sent, in microseconds: Kafka's timestamps are whole
/// milliseconds, rounded down.
const MEAN_ROUNDING: f64 = 500.0;

/// The paths of orders, by order id, as far as they were seen.
#[derive(Default)]
pub(crate) struct Paths(HashMap<String, Path>);

/// The path of one order, as far as it was seen.
#[derive(Default)]
struct Path([Option<Moment>; STEPS.len()]);

#[derive(Clone, Copy)]
struct Moment {
    recorded_at: i64,
    sent_at: i64,
}

/// The complete path of an order: when the event of each step was recorded, and when it was handed
/// to Kafka's client, in microseconds of the wall clock.
pub(crate) struct CompletePath([Moment; STEPS.len()]);

impl Paths {
    /// Records an event.
    ///
    /// # Errors
    /// If it is not an event of an order that is confirmed.
    pub(crate) fn record(&mut self, arrival: Arrival) -> Result<()> {
        let Arrival { name, key, recorded_at, sent_at, .. } = arrival;
        let step = STEPS
            .iter()
            .position(|step| *step == name)
            .with_context(|| format!("order {key} was not confirmed: unexpected event {name}"))?;
        self.0.entry(key).or_default().0[step] = Some(Moment { recorded_at, sent_at });
        Ok(())
    }

    /// Number of orders whose path is complete.
    pub(crate) fn ended(&self) -> usize {
        self.0.values().filter(|path| path.0.iter().all(Option::is_some)).count()
    }

    /// The complete paths.
    pub(crate) fn complete(self) -> impl Iterator<Item = (String, CompletePath)> {
        self.0.into_iter().filter_map(|(order, path)| {
            let [Some(created), Some(paid), Some(taken), Some(confirmed)] = path.0 else {
                return None;
            };
            Some((order, CompletePath([created, paid, taken, confirmed])))
        })
    }
}

impl CompletePath {
    /// Time at which the last event was recorded.
    pub(crate) fn ended_at(&self) -> i64 {
        self.0[STEPS.len() - 1].recorded_at
    }
}

/// Where the time of orders went: sums over all of them, in microseconds.
#[derive(Default)]
pub(crate) struct Shares {
    orders: f64,
    first_step: f64,
    to_kafka: f64,
    to_next_step: f64,
}

impl Shares {
    /// Adds an order whose request was due at a given time.
    pub(crate) fn record(&mut self, due_at: i64, path: &CompletePath) {
        self.orders += 1.0;
        self.first_step += (path.0[0].recorded_at - due_at) as f64;
        for [this, next] in path.0.array_windows() {
            self.to_kafka += (this.sent_at - this.recorded_at) as f64 + MEAN_ROUNDING;
            self.to_next_step += (next.recorded_at - this.sent_at) as f64 - MEAN_ROUNDING;
        }
    }

    /// The means in milliseconds, each beside the time that its bare parts take.
    ///
    /// # Errors
    /// If no order was added.
    pub(crate) fn samples(&self, name: &str, commit: f64, hop: f64) -> Result<Vec<Sample>> {
        ensure!(self.orders > 0.0, "no order ended");
        let mean = |what: &str, sum: f64| {
            Sample::new(format!("{name}, mean share: {what}"), "ms", sum / self.orders / 1_000.0)
        };
        Ok(vec![
            mean("client, HTTP and the first step", self.first_step),
            mean("three times flush and relay", self.to_kafka)
                .beside("three bare commits", 3.0 * commit),
            mean("three times broker, fetch and next step", self.to_next_step)
                .beside("three bare hops", 3.0 * hop),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(name: &str, recorded_at: i64, sent_at: i64) -> Arrival {
        Arrival {
            partition: 0,
            sequence: 0,
            name: name.into(),
            key: "order".into(),
            recorded_at,
            sent_at,
            at: 0,
        }
    }

    #[test]
    fn the_shares_of_an_order_add_up_to_its_time() {
        let mut paths = Paths::default();
        for (nth, name) in (1..).zip(STEPS) {
            assert_eq!(paths.ended(), 0);
            paths.record(arrival(name, nth * 10_000, nth * 10_000 + 2_000)).expect("it is a step");
        }
        assert!(paths.record(arrival("OrderCancelled", 0, 0)).is_err());
        assert_eq!(paths.ended(), 1);
        let (_, path) = paths.complete().next().expect("it ended");
        let mut shares = Shares::default();
        shares.record(3_000, &path);
        let sum = shares.first_step + shares.to_kafka + shares.to_next_step;
        assert!((sum - (path.ended_at() - 3_000) as f64).abs() < 1e-6, "{sum}");
        assert!((shares.to_kafka - 3.0 * 2_500.0).abs() < 1e-6, "{}", shares.to_kafka);
    }
}
