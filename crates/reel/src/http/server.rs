//! The HTTP server: as many connections as it is told, none of which a client can hold that does not send, or does not read. To more of
//! them it says that it is busy, and how it is: who looks after the process must not take a full one for a dead one.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::Problem;

/// How long a client that is only told that the service is busy may take to send the head of its request.
const BUSY_HEAD_WITHIN: Duration = Duration::from_secs(3);
/// How long a client may take none of an answer.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How many clients are told at a time that the service is busy; others wait in the kernel's queue.
const TOLD_BUSY: usize = 64;
/// The pause after a connection could not be accepted, as where no more files can be opened.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// What clients may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// How many connections are served at a time.
    pub(crate) connections: usize,
    /// How long a client may take to send the head of a request; a connection that is kept alive may be idle as long.
    pub(crate) head_within: Duration,
}

/// Serves until it is told to stop, and then until the requests that it has taken are answered. Over more connections than
/// are allowed it answers what `health` does, and otherwise 503.
pub(crate) async fn serve(listener: TcpListener, router: Router, health: Router, limits: ConnectionLimits, stop: CancellationToken) {
    let ConnectionLimits { connections, head_within } = limits;
    let open = GracefulShutdown::new();
    let (room, refusals) = (Arc::new(Semaphore::new(connections)), Arc::new(Semaphore::new(TOLD_BUSY)));
    let busy = health.fallback(async move || Problem::unavailable(format!("all {connections} connections of this replica are taken")));
    while let Some((stream, place)) = stop.run_until_cancelled(accept(&listener, &room, &refusals)).await {
        let mut http = http1::Builder::new();
        let (router, head_within) = match place {
            Place::Served(_) => (router.clone(), head_within),
            Place::Refused(_) => (busy.clone(), head_within.min(BUSY_HEAD_WITHIN)),
        };
        http.timer(TokioTimer::new()).header_read_timeout(head_within).keep_alive(matches!(place, Place::Served(_)));
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(READ_WITHIN));
        let connection = open.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), TowerToHyperService::new(router)));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    open.shutdown().await;
}

impl ConnectionLimits {
    /// So many connections, and half a minute for a head.
    pub(crate) fn of(connections: usize) -> Self {
        Self { connections, head_within: Duration::from_secs(30) }
    }
}

/// What a connection takes up for as long as it is open.
enum Place {
    Served(#[allow(dead_code, reason = "it is held")] OwnedSemaphorePermit),
    Refused(#[allow(dead_code, reason = "it is held")] Option<OwnedSemaphorePermit>),
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>, refusals: &Arc<Semaphore>) -> (TcpStream, Place) {
    let refusal = refusals.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "a connection cannot be told to send at once");
                }
                return (stream, room.clone().try_acquire_owned().map_or(Place::Refused(refusal), Place::Served));
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// How long requests may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    pub(crate) query: Duration,
    /// With the time in which the body comes, and that which the client prefers to wait.
    pub(crate) command: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { query: Duration::from_secs(10), command: Duration::from_secs(120) }
    }
}

/// Gives up a request that is not answered in time. What a command has begun goes on, and is not done twice when it is sent again.
pub(crate) async fn in_time(State(limits): State<TimeLimits>, request: Request, next: Next) -> Response {
    let limit = if request.method() == Method::GET { limits.query } else { limits.command };
    let late = || Problem::unavailable(format!("no answer was found within {}", humantime::format_duration(limit))).into_response();
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").as_bytes()).await.expect("it is open");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn connections_over_the_limit_get_503_but_for_health_and_stopping_ends_those_that_are_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let health = Router::new().route("/health", get(|| async { "live" }));
        let router = Router::new().route("/", get(|| async { "here" })).merge(health.clone());
        let server = tokio::spawn(serve(listener, router, health, ConnectionLimits::of(1), stop.clone()));
        let connect = async || TcpStream::connect(address).await.expect("it listens");

        let mut first = connect().await;
        assert_eq!(ask(&mut first, "/").await, "HTTP/1.1 200");
        let mut second = connect().await;
        assert_eq!(ask(&mut second, "/").await, "HTTP/1.1 503", "the first has the only place");
        let mut rest = String::new();
        second.read_to_string(&mut rest).await.expect("it is closed after the answer");
        assert!(rest.contains("retry-after: 1") && rest.contains("all 1 connections"), "{rest}");
        assert_eq!(ask(&mut connect().await, "/health").await, "HTTP/1.1 200", "a full service is not a dead one");
        assert_eq!(first.read(&mut [0; 1024]).await.map(|bytes| bytes > 0).ok(), Some(true), "the rest of the first answer");
        drop(first);
        let mut third = connect().await;
        while ask(&mut third, "/").await != "HTTP/1.1 200" {
            third = connect().await; // the server has not seen yet that the first has gone
        }
        stop.cancel();
        server.await.expect("it ends although the third connection is open");
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_head_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut half = TcpStream::connect(listener.local_addr().expect("it is bound")).await.expect("it listens");
        let limits = ConnectionLimits { connections: 1, head_within: Duration::from_millis(50) };
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Router::new(), Router::new(), limits, stop.clone()));
        half.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("it is open");
        half.read_to_end(&mut Vec::new()).await.expect("it is closed");
        stop.cancel();
        server.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_request_that_finds_no_answer_is_given_up() {
        let limits = TimeLimits { query: Duration::from_millis(1), ..TimeLimits::default() };
        let router = Router::new().route("/", get(std::future::pending::<()>)).layer(from_fn_with_state(limits, in_time));
        let request = Request::get("/").body(axum::body::Body::empty()).expect("a request");
        let response = hyper::service::Service::call(&TowerToHyperService::new(router), request).await.expect("it never fails");
        assert_eq!(response.status().as_u16(), 503);
    }
}
