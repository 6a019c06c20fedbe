//! The rate at which the order service accepts orders.

use std::time::Duration;

use anyhow::{Result, ensure};
use http_body_util::Full;
use hyper::Request;
use hyper::body::Bytes;

use crate::load::{Outcome, Requests, at_rate, flat_out};
use crate::report::Sample;
use crate::run::{Bench, progress};
use crate::shop::{Shop, order};

const CONNECTIONS: usize = 64;
/// Nearly the number of connections that a replica serves.
const MANY_CONNECTIONS: usize = 900;
const WARM_UP: Duration = Duration::from_secs(1);

pub(super) async fn measure(bench: &Bench, samples: &mut Vec<Sample>) -> Result<()> {
    for round in 1..=bench.options.rounds {
        progress(&format!("commands: round {round} of {}", bench.options.rounds));
        let shop = Shop::orders_only(bench).await?;
        samples.extend(placed(bench, &shop).await?);
        shop.close().await?;
    }
    Ok(())
}

async fn placed(bench: &Bench, shop: &Shop) -> Result<Vec<Sample>> {
    let time = Duration::from_secs(bench.options.seconds.into());
    let tokens = shop.tokens()?;
    let orders = |series: &'static str| {
        let tokens = tokens.clone();
        move |nth: usize| order(&tokens[nth % tokens.len()], series, nth)
    };

    flat_out(shop.url(), CONNECTIONS, WARM_UP, orders("warm")).await?;
    let flat = flat_out(shop.url(), CONNECTIONS, time, orders("flat")).await?;
    let live = flat_out(shop.url(), CONNECTIONS, time, |_| live()).await?;
    let rate = accepted_rate(&flat)? / 2.0;
    let half = at_rate(
        shop.url(),
        CONNECTIONS,
        rate,
        (rate * time.as_secs_f64()) as usize,
        orders("half"),
    )
    .await?;
    accepted_rate(&half)?;

    let mut samples = vec![
        Sample::new("POST /orders, 64 connections", "/s", accepted_rate(&flat)?)
            .beside("GET /health/live", accepted_rate(&live)?),
    ];
    samples.extend(Sample::percentiles("from request to answer, flat out", &flat.times, None));
    samples.push(Sample::new("half of that rate, by schedule", "/s", rate));
    samples.extend(Sample::percentiles("from when it was due to answer", &half.times, None));
    samples.extend(overloaded(shop, accepted_rate(&flat)?, time, orders("over")).await?);

    let memory = shop
        .memory()?
        .into_iter()
        .map(|(service, memory)| Sample::new(format!("memory of {service}"), "MiB", memory));
    samples.extend(memory);
    Ok(samples)
}

/// The rate of a load of which no request was refused.
fn accepted_rate(outcome: &Outcome) -> Result<f64> {
    ensure!(
        outcome.refused == 0,
        "{} of {} requests were refused",
        outcome.refused,
        outcome.done() + outcome.refused
    );
    Ok(rate_of(outcome))
}

fn rate_of(outcome: &Outcome) -> f64 {
    outcome.done() as f64 / outcome.took.as_secs_f64()
}

/// Measures twice the rate that the service can do, over enough connections to reach its limits.
async fn overloaded(
    shop: &Shop,
    flat: f64,
    time: Duration,
    orders: impl Requests,
) -> Result<Vec<Sample>> {
    let rate = flat * 2.0;
    let over =
        at_rate(shop.url(), MANY_CONNECTIONS, rate, (rate * time.as_secs_f64()) as usize, orders)
            .await?;
    let refused = 100.0 * over.refused as f64 / (over.done() + over.refused) as f64;

    let mut samples = vec![
        Sample::new(
            format!("taken of twice that rate, {MANY_CONNECTIONS} connections"),
            "/s",
            rate_of(&over),
        )
        .beside("flat out", flat),
        Sample::new("refused with 503", "%", refused),
    ];
    samples.extend(Sample::percentiles(
        "from when it was due to answer, of those taken",
        &over.times,
        None,
    ));
    samples.extend(Sample::percentiles(
        "from when it was sent to answer, of those taken",
        &over.sent,
        None,
    ));

    Ok(samples)
}

fn live() -> Result<Request<Full<Bytes>>> {
    Ok(Request::get("/health/live").body(Full::default())?)
}
