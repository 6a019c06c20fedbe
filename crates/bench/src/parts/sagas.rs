//! How many whole sagas end a second, and how long one takes from its HTTP request to its end.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};

use crate::load::at_rate;
use crate::path::{Paths, Shares};
use crate::report::Sample;
use crate::run::{Bench, say};
use crate::shop::{Shop, order, order_id};
use crate::stats::{Search, Times};
use crate::watch::Watch;
use crate::yardstick::{commits, hops};

const CONNECTIONS: usize = 64;
/// Where the search begins, in orders a second, and how near it comes.
const FIRST: f64 = 100.0;
const WITHIN: f64 = 0.1;
/// The backlog grows if more orders are open, when the last one was due, than come in this time.
const OPEN_AT_MOST: Duration = Duration::from_millis(500);
/// After a rate that was too high, what is left must end in this time.
const END_WITHIN: Duration = Duration::from_secs(120);
/// What is held for long is a little below what was found, if that is not held.
const LESS: f64 = 0.9;
/// How often it is looked which orders have ended.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const SLOW: f64 = 10.0;
const COMMITS: f64 = 4.0;
const HOPS: f64 = 3.0;
const HOPS_A_SECOND: u32 = 100;

/// What became of the orders of one series.
struct Ended {
    /// From when the request was due to when the end was recorded.
    times: Times,
    shares: Shares,
    /// Orders that were open when the last one was due.
    open: usize,
    sustained: bool,
}

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        say(&format!("sagas: round {round} of {}", bench.options.rounds));
        let shop = Shop::open(bench).await?;
        let (kafka, topics) = shop.topics(bench);
        let watches = try_join_all(topics.iter().map(|topic| Watch::start(&kafka, topic))).await?;
        let series = Series { shop: &shop, watches: &watches, round };
        samples.extend(series.measure(bench).await?);
        join_all(watches.into_iter().map(Watch::end)).await;
        shop.close().await?;
    }
    Ok(())
}

/// Orders on a shop, and the consumers that see what becomes of them.
struct Series<'a> {
    shop: &'a Shop,
    watches: &'a [Watch],
    round: u32,
}

impl Series<'_> {
    async fn measure(&self, bench: &Bench) -> Result<Vec<Sample>> {
        let seconds = Duration::from_secs(bench.options.seconds.into());
        self.ended(FIRST, seconds).await?; // so that what follows is warm
        let mut samples = Vec::new();
        let rates = if let Some(rate) = bench.options.rate {
            vec![(format!("at {rate}/s"), rate)]
        } else {
            let highest = self.highest(seconds, Duration::from_secs(bench.options.hold.into())).await?;
            samples.push(Sample::new("sagas that end", "/s", highest));
            vec![(format!("at {SLOW}/s"), SLOW), ("at a quarter of the highest rate".to_owned(), highest / 4.0)]
        };
        let commit = commits(bench).await?.whole.percentile(50.0);
        let hop = hops(bench, HOPS_A_SECOND, HOPS_A_SECOND * bench.options.seconds.min(5)).await?.consumed.percentile(50.0);
        let floor = COMMITS * commit + HOPS * hop;
        for (name, rate) in rates {
            let ended = self.ended(rate, seconds).await?;
            let name = format!("from request to end, {name}");
            samples.extend(Sample::percentiles(&name, &ended.times, Some(("four bare commits and three bare hops", floor))));
            samples.extend(ended.shares.samples(&name, commit, hop)?);
        }
        for (service, memory) in self.shop.memory()? {
            samples.push(Sample::new(format!("memory of {service}"), "MiB", memory));
        }
        Ok(samples)
    }

    /// The highest rate that is sustained, found by search and then held.
    async fn highest(&self, seconds: Duration, hold: Duration) -> Result<f64> {
        let mut search = Search::from(FIRST, WITHIN);
        while let Some(rate) = search.next() {
            search.tell(self.is_sustained(rate, seconds).await?);
        }
        let mut rate = search.found().context("no rate is sustained, however low")?;
        while !self.is_sustained(rate, hold).await? {
            rate *= LESS;
            ensure!(rate >= 1.0, "no rate is sustained for {hold:?}");
        }
        Ok(rate)
    }

    async fn is_sustained(&self, rate: f64, time: Duration) -> Result<bool> {
        let Ended { open, sustained, .. } = self.ended(rate, time).await?;
        let (verdict, seconds) = (if sustained { "sustained" } else { "too much" }, time.as_secs());
        say(&format!("sagas: {rate:.0}/s for {seconds} s: {verdict}, {open} open when the last one was due"));
        Ok(sustained)
    }

    /// Places orders at a rate and follows each to its end.
    async fn ended(&self, rate: f64, time: Duration) -> Result<Ended> {
        let series = format!("{}-{}", self.round, fastrand::u32(..));
        let count = (rate * time.as_secs_f64()).ceil() as usize;
        self.watches.iter().for_each(|watch| drop(watch.take()));
        let placing = series.clone();
        let token = self.shop.token()?;
        let outcome = at_rate(self.shop.url(), CONNECTIONS, rate, count, move |nth| order(&token, &placing, nth)).await?;
        let last_due = outcome.due_at.iter().map(|(_, due_at)| *due_at).max().context("some order was placed")?;
        let due: HashMap<String, i64> = outcome.due_at.into_iter().map(|(nth, due)| (order_id(&series, nth).to_string(), due)).collect();
        let (mut times, mut shares, mut open) = (Times::default(), Shares::default(), count);
        for (order, way) in self.follow(&due, count - outcome.refused).await?.ways() {
            let due_at = due[&order];
            times.note(way.ended_at() - due_at);
            shares.note(due_at, &way);
            open -= usize::from(way.ended_at() <= last_due);
        }
        self.shop.quiet().await?;
        let limit = (rate * OPEN_AT_MOST.as_secs_f64()).max(CONNECTIONS as f64);
        Ok(Ended { times, shares, open, sustained: outcome.refused == 0 && (open as f64) <= limit })
    }

    /// Follows so many of the orders to their end.
    async fn follow(&self, orders: &HashMap<String, i64>, count: usize) -> Result<Paths> {
        let deadline = tokio::time::Instant::now() + END_WITHIN;
        let mut paths = Paths::default();
        loop {
            let arrived = self.watches.iter().flat_map(Watch::take).filter(|arrival| orders.contains_key(&arrival.key));
            arrived.into_iter().try_for_each(|arrival| paths.note(arrival))?;
            let ended = paths.ended();
            if ended >= count {
                return Ok(paths);
            }
            ensure!(tokio::time::Instant::now() < deadline, "{ended} of {count} orders ended in {END_WITHIN:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
