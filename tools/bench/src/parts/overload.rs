//! More orders than the services can carry, and then fewer again: how many are confirmed.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;

use crate::clock;
use crate::load::{Outcome, at_rate};
use crate::parts::sagas::Series;
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::shop::{Shop, order};
use crate::stats::steady_from;

/// Deadline of the orders.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// Connections over which the orders come.
const CONNECTIONS: usize = 400;
/// The load, as a share of the highest rate that is held: too much, then less than it.
const OVER: f64 = 1.3;
const UNDER: f64 = 0.9;
/// For how long each comes.
const OVER_FOR: Duration = Duration::from_secs(60);
const UNDER_FOR: Duration = Duration::from_secs(40);
/// The first part of the overload, in which what waits still accumulates.
const ACCUMULATES: Duration = Duration::from_secs(20);
/// Share of the offered rate at which the confirmed rate counts as back.
const BACK_AT: f64 = 0.95;

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("overload: round {round} of {}", bench.options.rounds));
        let shop = Shop::open_with(bench, |options| options.settle_within = SETTLE_WITHIN).await?;
        let series = Series::start(bench, &shop, round).await?;
        samples.extend(overloaded(bench, &shop, &series).await?);
        join_all(series.into_watches().map(crate::watch::Watch::end)).await;
        shop.close().await?;
    }
    Ok(())
}

async fn overloaded(bench: &Bench, shop: &Shop, series: &Series<'_>) -> Result<Vec<Sample>> {
    let held = match bench.options.rate {
        Some(rate) => rate,
        None => {
            let seconds = Duration::from_secs(bench.options.seconds.into());
            series.highest(seconds, Duration::from_secs(bench.options.hold.into())).await?
        }
    };
    shop.quiet().await?;
    drop(series.arrivals());

    let place = async |name: String, rate: f64, time: Duration| -> Result<(i64, Outcome)> {
        let token = shop.token()?;
        let (began, count) = (clock::micros(), (rate * time.as_secs_f64()) as usize);
        let orders = move |nth| order(&token, &name, nth);
        Ok((began, at_rate(shop.url(), CONNECTIONS, rate, count, orders).await?))
    };
    let name = fastrand::u32(..);
    let (over_at, over) = place(format!("over-{name}"), held * OVER, OVER_FOR).await?;
    let (under_at, under) = place(format!("under-{name}"), held * UNDER, UNDER_FOR).await?;
    let under_to = clock::micros();
    shop.quiet().await?;

    let arrivals = series.arrivals();
    let recorded = |name: &str| -> Vec<i64> {
        arrivals.iter().filter(|it| it.name == name).map(|it| it.recorded_at).collect()
    };
    let (confirmed, cancelled) = (recorded("OrderConfirmed"), recorded("OrderCancelled"));
    let between = |times: &[i64], from: i64, to: i64| {
        times.iter().filter(|at| (from..to).contains(*at)).count() as f64
    };
    let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
    let from = over_at + micros(ACCUMULATES);
    let during = between(&confirmed, from, under_at) / ((under_at - from) as f64 / 1e6);
    let back = steady_from(&confirmed, under_at, under_to, held * UNDER * BACK_AT);

    let share = |part: usize, outcome: &Outcome| {
        100.0 * part as f64 / (outcome.done() + outcome.refused) as f64
    };
    let settled = confirmed.len() + cancelled.len();
    Ok(vec![
        Sample::new(format!("confirmed at {OVER} times the held rate"), "/s", during)
            .beside("the held rate", held),
        Sample::new("refused with 503 meanwhile", "%", share(over.refused, &over)),
        Sample::new(
            "cancelled of those taken",
            "%",
            100.0 * cancelled.len() as f64 / settled.max(1) as f64,
        ),
        Sample::new(
            format!("until confirmed again as they come, at {UNDER} times"),
            "s",
            back.map_or(f64::INFINITY, |back| back.as_secs_f64()),
        ),
        Sample::new("refused with 503 then", "%", share(under.refused, &under)),
    ])
}
