//! Load over HTTP: requests by a schedule that waits for no answer, or flat out over a number of
//! connections.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::clock;
use crate::stats::Times;

/// Time limit of a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A function that returns the nth request, without its host.
pub trait Requests: Fn(usize) -> Result<Request<Full<Bytes>>> + Send + Sync + 'static {}
impl<F: Fn(usize) -> Result<Request<Full<Bytes>>> + Send + Sync + 'static> Requests for F {}

/// The result of a load.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Times from when a request was due until its answer, of requests that were answered with 2xx.
    pub times: Times,
    /// Times from when a request was sent until its answer, of the same requests: without the wait
    /// for a connection.
    pub sent: Times,
    /// Index of each request and when it was due, in microseconds of the wall clock.
    pub due_at: Vec<(usize, i64)>,
    /// Number of requests that were not answered with 2xx.
    pub refused: usize,
    /// Time from the first request to the last answer.
    pub took: Duration,
}

/// Sends requests at a rate over a number of connections. Each connection has its share of the
/// schedule; a request that is sent late, because the previous answer was late, counts from when it
/// was due (no coordinated omission).
///
/// # Errors
/// If a connection breaks, or a request is not answered in time.
pub async fn at_rate(
    url: &str,
    connections: usize,
    rate: f64,
    count: usize,
    requests: impl Requests,
) -> Result<Outcome> {
    let (started, started_at) = (Instant::now(), clock::micros());
    let due = move |nth: usize| Duration::from_secs_f64(nth as f64 / rate);
    let requests = Arc::new(requests);

    each(url, connections, move |mut connection, place| {
        let requests = requests.clone();
        async move {
            let mut outcome = Outcome::default();
            for nth in (place..count).step_by(connections) {
                tokio::time::sleep_until(started + due(nth)).await;
                let sent_at = Instant::now();
                let is_done = connection.send(requests(nth)?).await?.is_success();
                outcome.record(started + due(nth), sent_at, is_done);
                outcome.due_at.push((nth, started_at + i64::try_from(due(nth).as_micros())?));
            }

            Ok(outcome)
        }
    })
    .await
}

/// Sends requests for a given time: on each connection the next one as soon as the last one is
/// answered.
///
/// # Errors
/// As [`at_rate`].
pub async fn flat_out(
    url: &str,
    connections: usize,
    time: Duration,
    requests: impl Requests,
) -> Result<Outcome> {
    let began = Instant::now();
    let requests = Arc::new(requests);

    each(url, connections, move |mut connection, place| {
        let requests = requests.clone();
        async move {
            let mut outcome = Outcome::default();
            let mut nth = place;
            while began.elapsed() < time {
                let sent_at = Instant::now();
                let is_done = connection.send(requests(nth)?).await?.is_success();
                outcome.record(sent_at, sent_at, is_done);
                nth += connections;
            }

            Ok(outcome)
        }
    })
    .await
}

/// Runs `work` on each of a number of connections, and adds up the results.
async fn each<F: Future<Output = Result<Outcome>> + Send + 'static>(
    url: &str,
    connections: usize,
    work: impl Fn(Connection, usize) -> F,
) -> Result<Outcome> {
    let opened = try_join_all((0..connections).map(|_| Connection::open(url))).await?;

    let began = Instant::now();
    let working: Vec<_> = opened
        .into_iter()
        .enumerate()
        .map(|(place, connection)| tokio::spawn(work(connection, place)))
        .collect();

    let mut all = Outcome::default();
    for done in try_join_all(working).await? {
        let Outcome { times, sent, due_at, refused, .. } = done?;
        all.times.add(&times);
        all.sent.add(&sent);
        all.due_at.extend(due_at);
        all.refused += refused;
    }

    all.took = began.elapsed();
    Ok(all)
}

impl Outcome {
    /// Number of requests that were answered with 2xx.
    #[must_use]
    pub fn done(&self) -> usize {
        usize::try_from(self.times.count()).unwrap_or(usize::MAX)
    }

    fn record(&mut self, due_at: Instant, sent_at: Instant, is_done: bool) {
        if is_done {
            self.times.record_duration(due_at.elapsed());
            self.sent.record_duration(sent_at.elapsed());
        } else {
            self.refused += 1;
        }
    }
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: String,
}

impl Connection {
    async fn open(url: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").to_owned();
        let stream =
            TcpStream::connect(&host).await.with_context(|| format!("{url} is unreachable"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { sender, host })
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<StatusCode> {
        request.headers_mut().insert(hyper::header::HOST, self.host.parse()?);
        let answer = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request).await?;
            let status = response.status();
            response.into_body().collect().await?;
            anyhow::Ok(status)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, answer)
            .await
            .with_context(|| format!("{} gave no answer in {ANSWER_TIMEOUT:?}", self.host))?
    }
}
