//! Load over HTTP: requests by a schedule that waits for no answer, or as many as some connections can do.

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

/// How long one request may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The nth request, without its host.
pub trait Requests: Fn(usize) -> Result<Request<Full<Bytes>>> + Send + Sync + 'static {}
impl<F: Fn(usize) -> Result<Request<Full<Bytes>>> + Send + Sync + 'static> Requests for F {}

/// What became of requests.
#[derive(Debug, Default)]
pub struct Outcome {
    /// From when a request was due to its answer, of those that were answered with 2xx.
    pub times: Times,
    /// From when a request was sent to its answer, of the same: without the time that it waited for a connection.
    pub sent: Times,
    /// When each was due, by its place, in microseconds of the wall clock.
    pub due_at: Vec<(usize, i64)>,
    /// Requests with another answer than 2xx.
    pub refused: usize,
    /// From the first request to the last answer.
    pub took: Duration,
}

/// Sends requests at a rate over so many connections. Each connection has its share of the schedule; what is sent late, because the
/// answer before was late, counts from when it was due.
///
/// # Errors
/// Where a connection breaks, or an answer stays away.
pub async fn at_rate(url: &str, connections: usize, rate: f64, count: usize, requests: impl Requests) -> Result<Outcome> {
    let (began, began_at) = (Instant::now(), clock::micros());
    let due = move |nth: usize| Duration::from_secs_f64(nth as f64 / rate);
    let requests = Arc::new(requests);
    each(url, connections, move |mut connection, place| {
        let requests = requests.clone();
        async move {
            let mut outcome = Outcome::default();
            for nth in (place..count).step_by(connections) {
                tokio::time::sleep_until(began + due(nth)).await;
                let sent_at = Instant::now();
                let is_done = connection.send(requests(nth)?).await?.is_success();
                outcome.note(began + due(nth), sent_at, is_done);
                outcome.due_at.push((nth, began_at + i64::try_from(due(nth).as_micros())?));
            }
            Ok(outcome)
        }
    })
    .await
}

/// Sends the next request on each connection as soon as the last one is answered, for so long.
///
/// # Errors
/// As [`at_rate`].
pub async fn flat_out(url: &str, connections: usize, time: Duration, requests: impl Requests) -> Result<Outcome> {
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
                outcome.note(sent_at, sent_at, is_done);
                nth += connections;
            }
            Ok(outcome)
        }
    })
    .await
}

async fn each<F: Future<Output = Result<Outcome>> + Send + 'static>(
    url: &str,
    connections: usize,
    work: impl Fn(Connection, usize) -> F,
) -> Result<Outcome> {
    let opened = try_join_all((0..connections).map(|_| Connection::open(url))).await?;
    let began = Instant::now();
    let working: Vec<_> = opened.into_iter().enumerate().map(|(place, connection)| tokio::spawn(work(connection, place))).collect();
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
    /// Requests that were answered as they should be.
    #[must_use]
    pub fn done(&self) -> usize {
        usize::try_from(self.times.count()).unwrap_or(usize::MAX)
    }

    fn note(&mut self, due_at: Instant, sent_at: Instant, is_done: bool) {
        if is_done {
            self.times.note_duration(due_at.elapsed());
            self.sent.note_duration(sent_at.elapsed());
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
        let stream = TcpStream::connect(&host).await.with_context(|| format!("{url} does not answer"))?;
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
        tokio::time::timeout(ANSWER_WITHIN, answer).await.with_context(|| format!("{} gave no answer in {ANSWER_WITHIN:?}", self.host))?
    }
}
