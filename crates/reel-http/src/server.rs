//! The HTTP server: a limited number of connections, none of which a client can hold without
//! sending or reading. Connections over the limit get 503, but health checks are answered on them
//! too: an orchestrator must not mistake a full process for a dead one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::Problem;

/// Largest head of a request, in bytes. A connection may hold as much before any token is seen.
const LARGEST_HEAD: usize = 16 * 1024;
/// Longest time for the head of a request on a connection over the limit.
const BUSY_HEAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest time in which a client may read nothing of a response.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Most connections over the limit at a time; others wait in the kernel's queue.
const MAX_BUSY: usize = 64;
/// Pause after an error of `accept`, such as too many open files.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Limits of the connections of clients.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ConnectionLimits {
    /// Most connections that are served at a time.
    pub connections: usize,
    /// Longest time for the head of the first request.
    pub head_timeout: Duration,
    /// Longest idle time of a connection between two requests, and time for the head of a later
    /// one: longer than that of a proxy in front, which would otherwise send a request just when the
    /// connection is closed.
    pub keep_alive: Duration,
}

/// Serves requests until `stop`, and then until the accepted ones are answered. Connections over
/// the limit get what `health` answers, and 503 to everything else.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    health: Router,
    limits: ConnectionLimits,
    stop: CancellationToken,
) {
    let ConnectionLimits { connections, head_timeout, keep_alive } = limits;
    let open = GracefulShutdown::new();
    let served = Arc::new(Semaphore::new(connections));
    let refused = Arc::new(Semaphore::new(MAX_BUSY));
    let busy = health.fallback(async move || {
        Problem::unavailable(format!("all {connections} connections of this replica are taken"))
    });

    while let Some((stream, permit)) =
        stop.run_until_cancelled(accept(&listener, &served, &refused)).await
    {
        let mut http = http1::Builder::new();
        let (router, head_timeout) = match permit {
            Permit::Served(_) => (router.clone(), head_timeout),
            Permit::Refused(_) => (busy.clone(), head_timeout.min(BUSY_HEAD_TIMEOUT)),
        };
        http.timer(TokioTimer::new())
            .header_read_timeout(head_timeout.max(keep_alive))
            .max_buf_size(LARGEST_HEAD)
            .keep_alive(matches!(permit, Permit::Served(_)));

        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let asked = Arc::new(AtomicBool::new(false));
        let noted = asked.clone();
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |request| {
            noted.store(true, Ordering::Relaxed);
            router.call(request)
        });
        let connection = open.watch(http.serve_connection(TokioIo::new(Box::pin(stream)), service));
        tokio::spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(error = %error, "a connection ended");
                },
                () = silent(head_timeout, &asked) => tracing::debug!("a connection asked nothing"),
            }
            drop(permit); // held for as long as the connection is open
        });
    }

    drop(listener);
    open.shutdown().await;
}

/// Returns after this time if nothing was asked by then; otherwise never.
async fn silent(head_timeout: Duration, asked: &AtomicBool) {
    tokio::time::sleep(head_timeout).await;
    if asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

impl ConnectionLimits {
    /// This many connections, half a minute for the first head, and this time between requests.
    #[must_use]
    pub fn of(connections: usize, keep_alive: Duration) -> Self {
        Self { connections, head_timeout: Duration::from_secs(30), keep_alive }
    }
}

/// The permit of a connection, held for as long as it is open.
enum Permit {
    Served(#[allow(dead_code, reason = "held until it is dropped")] OwnedSemaphorePermit),
    Refused(#[allow(dead_code, reason = "held until it is dropped")] Option<OwnedSemaphorePermit>),
}

async fn accept(
    listener: &TcpListener,
    served: &Arc<Semaphore>,
    refused: &Arc<Semaphore>,
) -> (TcpStream, Permit) {
    // Take this permit first: if none is free, new connections wait in the kernel's queue.
    let refusal = refused.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "cannot set TCP_NODELAY on a connection");
                }
                return (
                    stream,
                    served
                        .clone()
                        .try_acquire_owned()
                        .map_or(Permit::Refused(refusal), Permit::Served),
                );
            }
            Err(error) => {
                tracing::warn!(
                    event.code = "http.accept_failed", error = %error,
                    "cannot accept a connection"
                );
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Longest times for requests.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct TimeLimits {
    /// For a query (`GET`).
    pub query: Duration,
    /// For a command, including the time for its body and the wait that the client prefers.
    pub command: Duration,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { query: Duration::from_secs(10), command: Duration::from_secs(120) }
    }
}

/// Answers 503 if a request takes too long. A command that has begun continues, and has no second
/// effect if the client sends it again.
pub async fn in_time(State(limits): State<TimeLimits>, request: Request, next: Next) -> Response {
    let limit = if request.method() == Method::GET { limits.query } else { limits.command };
    let late = || {
        Problem::unavailable(format!(
            "the request was not answered within {}",
            humantime::format_duration(limit)
        ))
        .into_response()
    };
    tokio::time::timeout(limit, next.run(request)).await.unwrap_or_else(|_| late())
}

#[cfg(test)]
mod tests {
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Longer than any test takes.
    const LONG: Duration = Duration::from_secs(600);

    async fn ask(stream: &mut TcpStream, path: &str) -> String {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: here\r\n\r\n").as_bytes())
            .await
            .expect("it is open");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn connections_over_the_limit_get_503_except_for_health_and_stopping_ends_idle_ones() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let health = Router::new().route("/health", get(|| async { "live" }));
        let router = Router::new().route("/", get(|| async { "here" })).merge(health.clone());
        let server = tokio::spawn(serve(
            listener,
            router,
            health,
            ConnectionLimits::of(1, LONG),
            stop.clone(),
        ));
        let connect = async || TcpStream::connect(address).await.expect("it listens");

        let mut first = connect().await;
        assert_eq!(ask(&mut first, "/").await, "HTTP/1.1 200");

        let mut second = connect().await;
        assert_eq!(ask(&mut second, "/").await, "HTTP/1.1 503", "the first has the only permit");
        let mut rest = String::new();
        second.read_to_string(&mut rest).await.expect("the server closes it after the response");
        assert!(rest.contains("retry-after: 1") && rest.contains("all 1 connections"), "{rest}");
        assert_eq!(
            ask(&mut connect().await, "/health").await,
            "HTTP/1.1 200",
            "a full service is not a dead one"
        );
        assert_eq!(
            first.read(&mut [0; 1024]).await.map(|bytes| bytes > 0).ok(),
            Some(true),
            "the rest of the first answer"
        );
        drop(first);

        let mut third = connect().await;
        while ask(&mut third, "/").await != "HTTP/1.1 200" {
            third = connect().await; // the server has not noticed yet that the first is closed
        }
        stop.cancel();
        server.await.expect("it ends although the third connection is open");
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut large = TcpStream::connect(listener.local_addr().expect("it is bound"))
            .await
            .expect("it listens");
        let stop = CancellationToken::new();
        let limits = ConnectionLimits::of(1, LONG);
        let server =
            tokio::spawn(serve(listener, Router::new(), Router::new(), limits, stop.clone()));
        let head = format!("GET / HTTP/1.1\r\nhost: here\r\nx: {}", "x".repeat(LARGEST_HEAD));
        large.write_all(head.as_bytes()).await.expect("it is open");
        let mut answer = [0; 12];
        large.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 431");
        stop.cancel();
        server.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_client_that_sends_half_a_head_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut half = TcpStream::connect(listener.local_addr().expect("it is bound"))
            .await
            .expect("it listens");
        let head_timeout = Duration::from_millis(50);
        let limits = ConnectionLimits { head_timeout, ..ConnectionLimits::of(1, head_timeout) };
        let stop = CancellationToken::new();
        let server =
            tokio::spawn(serve(listener, Router::new(), Router::new(), limits, stop.clone()));
        half.write_all(b"GET / HTTP/1.1\r\nhost").await.expect("it is open");
        half.read_to_end(&mut Vec::new()).await.expect("it is closed");
        stop.cancel();
        server.await.expect("it ends");
    }

    #[tokio::test]
    async fn a_connection_that_was_used_outlives_one_that_asks_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let connect = async || TcpStream::connect(address).await.expect("it listens");
        let head_timeout = Duration::from_millis(50);
        let limits = ConnectionLimits { head_timeout, ..ConnectionLimits::of(2, LONG) };
        let (stop, router) = (CancellationToken::new(), Router::new().route("/", get(async || "")));
        let server = tokio::spawn(serve(listener, router, Router::new(), limits, stop.clone()));

        let mut used = connect().await;
        assert_eq!(ask(&mut used, "/").await, "HTTP/1.1 200");
        let mut mute = connect().await;
        mute.read_to_end(&mut Vec::new()).await.expect("it is closed");
        while !answered_whole(&mut used).await {}
        assert_eq!(ask(&mut used, "/").await, "HTTP/1.1 200", "longer than a head may take");
        stop.cancel();
        server.await.expect("it ends");
    }

    /// Reads on, and returns whether that was the end of a head.
    async fn answered_whole(stream: &mut TcpStream) -> bool {
        let mut rest = [0; 1024];
        let read = stream.read(&mut rest).await.expect("the rest of the answer");
        rest[..read].ends_with(b"\r\n\r\n")
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_gets_503() {
        let limits = TimeLimits { query: Duration::from_millis(1), ..TimeLimits::default() };
        let router = Router::new()
            .route("/", get(std::future::pending::<()>))
            .layer(from_fn_with_state(limits, in_time));
        let request = Request::get("/").body(axum::body::Body::empty()).expect("a request");
        let response = hyper::service::Service::call(&TowerToHyperService::new(router), request)
            .await
            .expect("it never fails");
        assert_eq!(response.status().as_u16(), 503);
    }
}
