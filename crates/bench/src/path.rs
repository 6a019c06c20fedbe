//! The way of an order through the services, and where its time goes.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};

use crate::report::Sample;
use crate::watch::Arrival;

/// The events of an order that is confirmed, one of each step.
const STEPS: [&str; 4] = ["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"];
/// The time at which a record was sent is in whole milliseconds, rounded down: in the mean it is so much later, in microseconds.
const ROUNDED: f64 = 500.0;

/// What was seen of orders, by their ids.
#[derive(Default)]
pub(crate) struct Paths(HashMap<String, Path>);

/// What was seen of one.
#[derive(Default)]
struct Path([Option<Moment>; STEPS.len()]);

#[derive(Clone, Copy)]
struct Moment {
    recorded_at: i64,
    sent_at: i64,
}

/// When each step of an order was recorded, and its event handed to Kafka's client: microseconds of the wall clock.
pub(crate) struct Way([Moment; STEPS.len()]);

impl Paths {
    /// Notes an event.
    ///
    /// # Errors
    /// Where it is none of an order that is confirmed.
    pub(crate) fn note(&mut self, arrival: Arrival) -> Result<()> {
        let Arrival { name, key, recorded_at, sent_at, .. } = arrival;
        let step = STEPS.iter().position(|step| *step == name).with_context(|| format!("order {key} took another way: {name}"))?;
        self.0.entry(key).or_default().0[step] = Some(Moment { recorded_at, sent_at });
        Ok(())
    }

    /// How many were seen from their beginning to their end.
    pub(crate) fn ended(&self) -> usize {
        self.0.values().filter(|path| path.0.iter().all(Option::is_some)).count()
    }

    /// The ways of all, which must have ended.
    pub(crate) fn ways(self) -> impl Iterator<Item = (String, Way)> {
        self.0.into_iter().filter_map(|(order, path)| {
            let [Some(created), Some(paid), Some(taken), Some(confirmed)] = path.0 else { return None };
            Some((order, Way([created, paid, taken, confirmed])))
        })
    }
}

impl Way {
    /// When its end was recorded.
    pub(crate) fn ended_at(&self) -> i64 {
        self.0[STEPS.len() - 1].recorded_at
    }
}

/// Where the time of many orders went: sums, in microseconds.
#[derive(Default)]
pub(crate) struct Shares {
    orders: f64,
    first_step: f64,
    to_kafka: f64,
    to_next_step: f64,
}

impl Shares {
    /// Adds an order whose request was due then.
    pub(crate) fn note(&mut self, due_at: i64, way: &Way) {
        self.orders += 1.0;
        self.first_step += (way.0[0].recorded_at - due_at) as f64;
        for [this, next] in way.0.array_windows() {
            self.to_kafka += (this.sent_at - this.recorded_at) as f64 + ROUNDED;
            self.to_next_step += (next.recorded_at - this.sent_at) as f64 - ROUNDED;
        }
    }

    /// The means, in milliseconds, beside what the bare parts of each take.
    pub(crate) fn samples(&self, name: &str, commit: f64, hop: f64) -> Result<Vec<Sample>> {
        ensure!(self.orders > 0.0, "no order ended");
        let mean = |what: &str, sum: f64| Sample::new(format!("{name}, mean share: {what}"), "ms", sum / self.orders / 1_000.0);
        Ok(vec![
            mean("client, HTTP and the first step", self.first_step),
            mean("three times flush and relay", self.to_kafka).beside("three bare commits", 3.0 * commit),
            mean("three times broker, fetch and next step", self.to_next_step).beside("three bare hops", 3.0 * hop),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(name: &str, recorded_at: i64, sent_at: i64) -> Arrival {
        Arrival { partition: 0, seq: 0, name: name.into(), key: "order".into(), recorded_at, sent_at, at: 0 }
    }

    #[test]
    fn the_shares_of_an_order_add_up_to_its_time() {
        let mut paths = Paths::default();
        for (nth, name) in (1..).zip(STEPS) {
            assert_eq!(paths.ended(), 0);
            paths.note(arrival(name, nth * 10_000, nth * 10_000 + 2_000)).expect("it is a step");
        }
        assert!(paths.note(arrival("OrderCancelled", 0, 0)).is_err());
        assert_eq!(paths.ended(), 1);
        let (_, way) = paths.ways().next().expect("it ended");
        let mut shares = Shares::default();
        shares.note(3_000, &way);
        let sum = shares.first_step + shares.to_kafka + shares.to_next_step;
        assert!((sum - (way.ended_at() - 3_000) as f64).abs() < 1e-6, "{sum}");
        assert!((shares.to_kafka - 3.0 * 2_500.0).abs() < 1e-6, "{}", shares.to_kafka);
    }
}
