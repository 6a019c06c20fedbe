//! How many orders the order service takes a second.

use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::load::{Outcome, at_rate, flat_out};
use crate::report::Sample;
use crate::run::{Bench, say};
use crate::shop::{Shop, order};

const CONNECTIONS: usize = 64;
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        say(&format!("commands: round {round} of {}", bench.options.rounds));
        let shop = Shop::of_orders_alone(bench).await?;
        samples.extend(placed(bench, &shop).await?);
        shop.close().await?;
    }
    Ok(())
}

async fn placed(bench: &Bench, shop: &Shop) -> Result<Vec<Sample>> {
    let time = Duration::from_secs(bench.options.seconds.into());
    flat_out(shop.url(), CONNECTIONS, WARM_UP, |nth| order("warm", nth)).await?;
    let flat = flat_out(shop.url(), CONNECTIONS, time, |nth| order("flat", nth)).await?;
    let live = flat_out(shop.url(), CONNECTIONS, time, |_| live()).await?;
    let rate = of(&flat)? / 2.0;
    let half = at_rate(shop.url(), CONNECTIONS, rate, (rate * time.as_secs_f64()) as usize, |nth| order("half", nth)).await?;
    of(&half)?;
    let mut samples = vec![Sample::new("POST /orders, 64 connections", "/s", of(&flat)?).beside("GET /health/live", of(&live)?)];
    samples.extend(Sample::percentiles("from request to answer, flat out", &flat.times, None));
    samples.push(Sample::new("half of that rate, by schedule", "/s", rate));
    samples.extend(Sample::percentiles("from when it was due to answer", &half.times, None));
    let memory = shop.memory()?.into_iter().map(|(service, memory)| Sample::new(format!("memory of {service}"), "MiB", memory));
    samples.extend(memory);
    Ok(samples)
}

fn of(outcome: &Outcome) -> Result<f64> {
    ensure!(outcome.refused == 0, "{} of {} requests were refused", outcome.refused, outcome.times.count());
    Ok(outcome.done() as f64 / outcome.took.as_secs_f64())
}

fn live() -> Result<Request<Full<Bytes>>> {
    Ok(Request::get("/health/live").body(Full::default())?)
}
