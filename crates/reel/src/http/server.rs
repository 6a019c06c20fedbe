//! The HTTP server: as many connections as it is told, none of which can be held by a client that does not send.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// How long a client may take to send the head of a request; a connection that is kept alive may be idle as long.
const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, as where no more files can be opened.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Serves until it is told to stop, and then until the requests that it has taken are answered. Of more than `connections` at a time, the
/// others wait in the kernel's queue.
pub(crate) async fn serve(listener: TcpListener, router: Router, connections: usize, stop: CancellationToken) {
    let open = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(connections));
    while let Some((stream, permit)) = stop.run_until_cancelled(accept(&listener, &room)).await {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
        let connection = open.watch(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone())));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    open.shutdown().await;
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let permit = room.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "a connection cannot be told to send at once");
                }
                return (stream, permit);
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection cannot be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.expect("it is open");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn connections_over_the_limit_wait_until_one_ends_and_stopping_ends_those_that_are_idle() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("it is bound");
        let stop = CancellationToken::new();
        let router = Router::new().route("/", get(|| async { "here" }));
        let server = tokio::spawn(serve(listener, router, 1, stop.clone()));

        let mut first = TcpStream::connect(address).await.expect("it listens");
        assert_eq!(ask(&mut first).await, "HTTP/1.1 200");
        let mut second = TcpStream::connect(address).await.expect("the kernel takes it");
        let answered = tokio::spawn(async move { (ask(&mut second).await, second) });
        assert_eq!(first.read(&mut [0; 1024]).await.map(|bytes| bytes > 0).ok(), Some(true), "the rest of the first answer");
        assert!(!answered.is_finished(), "the first has the only place");
        drop(first);
        let (answer, _second) = answered.await.expect("it ends");
        assert_eq!(answer, "HTTP/1.1 200");
        stop.cancel();
        server.await.expect("it ends although the second connection is open");
    }
}
