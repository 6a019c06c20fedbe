//! The rate of whole sagas, and the time of one from its HTTP request to its end.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};

use crate::load::at_rate;
use crate::path::{Paths, Shares};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::shop::{Shop, order, order_id};
use crate::stats::{Search, Times};
use crate::watch::{Arrival, Watch};
use crate::yardstick::{commits, hops};

const CONNECTIONS: usize = 64;
/// Rate at which the search begins, in orders a second, and its relative precision.
const FIRST: f64 = 100.0;
const WITHIN: f64 = 0.1;
/// A rate is too high if, when the last order is due, more orders are open than come in this time.
const MAX_BACKLOG: Duration = Duration::from_millis(500);
/// Time limit for all orders to end, even after a rate that was too high.
const END_TIMEOUT: Duration = Duration::from_secs(120);
/// Factor by which the highest rate found is lowered until it can be held.
const BACK_OFF: f64 = 0.9;
/// Poll interval for orders that have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// A rate without any contention, in orders a second.
const SLOW: f64 = 10.0;
/// Commits and hops on the path of an order, for the floor of its time.
const COMMITS: f64 = 4.0;
const HOPS: f64 = 3.0;
const HOPS_A_SECOND: u32 = 100;

/// The result of one series of orders.
pub(super) struct SeriesResult {
    /// Times from when the request was due until the end of the saga was recorded.
    pub(super) times: Times,
    shares: Shares,
    /// Number of orders that were open when the last one was due.
    open: usize,
    sustained: bool,
}

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("sagas: round {round} of {}", bench.options.rounds));
        let shop = Shop::open(bench).await?;
        let series = Series::start(bench, &shop, round).await?;
        samples.extend(series.measure(bench).await?);
        join_all(series.into_watches().map(Watch::end)).await;
        shop.close().await?;
    }
    Ok(())
}

/// A shop, and the consumers that follow its orders.
pub(super) struct Series<'a> {
    shop: &'a Shop,
    watches: Vec<Watch>,
    round: u32,
}

impl<'a> Series<'a> {
    /// Starts to follow the orders of a shop.
    pub(super) async fn start(bench: &Bench, shop: &'a Shop, round: u32) -> Result<Self> {
        let (kafka, topics) = shop.topics(bench);
        let watches = try_join_all(topics.iter().map(|topic| Watch::start(&kafka, topic))).await?;
        Ok(Self { shop, watches, round })
    }

    /// The events that have arrived since the last call.
    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.watches.iter().flat_map(Watch::take).collect()
    }

    /// The consumers, to be ended.
    pub(super) fn into_watches(self) -> impl Iterator<Item = Watch> {
        self.watches.into_iter()
    }

    async fn measure(&self, bench: &Bench) -> Result<Vec<Sample>> {
        let seconds = Duration::from_secs(bench.options.seconds.into());
        self.run(FIRST, seconds).await?; // warm-up

        let mut samples = Vec::new();
        let rates = if let Some(rate) = bench.options.rate {
            vec![(format!("at {rate}/s"), rate)]
        } else {
            let highest =
                self.highest(seconds, Duration::from_secs(bench.options.hold.into())).await?;
            samples.push(Sample::new("sagas that end", "/s", highest));
            vec![
                (format!("at {SLOW}/s"), SLOW),
                ("at a quarter of the highest rate".to_owned(), highest / 4.0),
            ]
        };

        // The floor: what the commits and hops of a saga take without the toolkit.
        let commit = commits(bench).await?.whole.percentile(50.0);
        let hop = hops(bench, HOPS_A_SECOND, HOPS_A_SECOND * bench.options.seconds.min(5))
            .await?
            .consumed
            .percentile(50.0);
        let floor = COMMITS * commit + HOPS * hop;

        for (name, rate) in rates {
            let result = self.run(rate, seconds).await?;
            let name = format!("from request to end, {name}");
            samples.extend(Sample::percentiles(
                &name,
                &result.times,
                Some(("four bare commits and three bare hops", floor)),
            ));
            samples.extend(result.shares.samples(&name, commit, hop)?);
        }

        for (service, memory) in self.shop.memory()? {
            samples.push(Sample::new(format!("memory of {service}"), "MiB", memory));
        }

        Ok(samples)
    }

    /// The highest rate that is sustained, found by a search and then lowered until it is held.
    pub(super) async fn highest(&self, seconds: Duration, hold: Duration) -> Result<f64> {
        let mut search = Search::from(FIRST, WITHIN);
        while let Some(rate) = search.next() {
            search.record(self.is_sustained(rate, seconds).await?);
        }
        let mut rate =
            search.found().context("no rate is sustained, not even one order a second")?;
        while !self.is_sustained(rate, hold).await? {
            rate *= BACK_OFF;
            ensure!(rate >= 1.0, "no rate is sustained for {hold:?}");
        }
        Ok(rate)
    }

    async fn is_sustained(&self, rate: f64, time: Duration) -> Result<bool> {
        let SeriesResult { open, sustained, .. } = self.run(rate, time).await?;
        let (verdict, seconds) = (if sustained { "sustained" } else { "too much" }, time.as_secs());
        progress(&format!(
            "sagas: {rate:.0}/s for {seconds} s: {verdict}, {open} open when the last one was due"
        ));
        Ok(sustained)
    }

    /// Places orders at a rate and follows each to its end.
    pub(super) async fn run(&self, rate: f64, time: Duration) -> Result<SeriesResult> {
        let series = format!("{}-{}", self.round, fastrand::u32(..));
        let count = (rate * time.as_secs_f64()).ceil() as usize;
        drop(self.arrivals());
        let placing = series.clone();
        let token = self.shop.token()?;
        let outcome = at_rate(self.shop.url(), CONNECTIONS, rate, count, move |nth| {
            order(&token, &placing, nth)
        })
        .await?;

        let last_due = outcome
            .due_at
            .iter()
            .map(|(_, due_at)| *due_at)
            .max()
            .context("some order was placed")?;
        let due: HashMap<String, i64> = outcome
            .due_at
            .into_iter()
            .map(|(nth, due)| (order_id(&series, nth).to_string(), due))
            .collect();

        let (mut times, mut shares, mut open) = (Times::default(), Shares::default(), count);
        for (order, path) in self.follow(&due, count - outcome.refused).await?.complete() {
            let due_at = due[&order];
            times.record(path.ended_at() - due_at);
            shares.record(due_at, &path);
            open -= usize::from(path.ended_at() <= last_due);
        }

        self.shop.quiet().await?;

        let limit = (rate * MAX_BACKLOG.as_secs_f64()).max(CONNECTIONS as f64);
        let sustained = outcome.refused == 0 && (open as f64) <= limit;
        Ok(SeriesResult { times, shares, open, sustained })
    }

    /// Follows orders until this many have ended.
    async fn follow(&self, orders: &HashMap<String, i64>, count: usize) -> Result<Paths> {
        let deadline = tokio::time::Instant::now() + END_TIMEOUT;
        let mut paths = Paths::default();
        loop {
            let mut arrived = self.arrivals();
            arrived.retain(|arrival| orders.contains_key(&arrival.key));
            arrived.into_iter().try_for_each(|arrival| paths.record(arrival))?;

            let ended = paths.ended();
            if ended >= count {
                return Ok(paths);
            }
            ensure!(
                tokio::time::Instant::now() < deadline,
                "{ended} of {count} orders ended in {END_TIMEOUT:?}"
            );
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}
