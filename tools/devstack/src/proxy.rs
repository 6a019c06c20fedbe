//! A TCP proxy in front of a server, for network faults: it can delay data, hold it back, cut
//! connections, or forget them.
//!
//! ```no_run
//! # async fn example(postgres: &devstack::PostgresServer) -> anyhow::Result<()> {
//! use devstack::proxy::{Network, Proxy};
//!
//! let proxy = Proxy::to(postgres.port()).await?;
//! let url = format!("postgres://postgres@127.0.0.1:{}/postgres", proxy.port());
//! // ... a client connects to `url` ...
//! proxy.set(Network::BlackHole);
//! # Ok(()) }
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

use crate::server::Port;

const CHUNK_BYTES: usize = 64 * 1024;

/// The state of the network between clients and their server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    #[default]
    Pass,
    /// All data arrives later by this much, in either direction.
    Delay(Duration),
    /// Connections stay open and new ones are accepted, but nothing passes. Data on the way arrives
    /// when this ends.
    BlackHole,
    /// Connections are closed at once, new ones too.
    Cut,
}

/// A port on 127.0.0.1 that forwards to another one. The port and all connections are closed when
/// this value is dropped.
pub struct Proxy {
    port: Port,
    state: watch::Sender<State>,
    listening: AbortHandle,
}

/// What the connections of a proxy look at.
#[derive(Clone, Copy, Debug, Default)]
struct State {
    network: Network,
    /// The number of connections that have begun.
    begun: u64,
    /// How many of these, the first ones, are forgotten.
    forgotten: u64,
}

/// The state of the network, as one connection sees it.
#[derive(Clone)]
struct View {
    state: watch::Receiver<State>,
    /// The number of connections that had begun before this one.
    nth: u64,
}

impl Proxy {
    /// Starts a proxy for the server at a port on 127.0.0.1, which need not be running yet.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn to(server: u16) -> Result<Self> {
        let port = Port::reserve(None)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await?;
        let state = watch::Sender::new(State::default());
        let listening = tokio::spawn(listen(listener, server, state.clone())).abort_handle();
        Ok(Self { port, state, listening })
    }

    /// Starts a proxy for the server in a URL of the form `scheme://user@127.0.0.1:port/path`. Also
    /// returns the URL by which clients connect through it.
    ///
    /// # Errors
    /// If no port is free, or the URL has none.
    pub async fn to_url(url: &str) -> Result<(Self, String)> {
        let (before, rest) = url.rsplit_once(':').context("the URL has a port")?;
        let (server, path) = rest.split_once('/').context("the URL has a path")?;
        let proxy = Self::to(server.parse().context("the URL has a port")?).await?;
        let through = format!("{before}:{}/{path}", proxy.port());
        Ok((proxy, through))
    }

    /// The port that clients connect to.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes the state of the network, for existing and later connections.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    /// Forgets the connections that exist, like a firewall that was restarted: whatever either end
    /// sends on them vanishes, with what was held back, and neither learns of it. New connections
    /// pass as the network lets them.
    pub fn forget(&self) {
        self.state.send_modify(|state| state.forgotten = state.begun);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn listen(listener: TcpListener, server: u16, state: watch::Sender<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                let view = View { state: state.subscribe(), nth: state.borrow().begun };
                state.send_modify(|state| state.begun += 1);
                connections.spawn(forward(client, server, view));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Forwards one connection until one of its ends, or the network, closes it.
async fn forward(client: TcpStream, server: u16, view: View) -> io::Result<()> {
    let mut until_cut = view.state.clone();
    let both = async {
        view.clone().pass().await;
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(
            pump(from_client, to_server, view.clone()),
            pump(from_server, to_client, view)
        )?;

        Ok(())
    };

    tokio::select! {
        done = both => done,
        _ = until_cut.wait_for(|state| state.network == Network::Cut) => Ok(()),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut view: View,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = from.read(&mut chunk).await?;
        let passes = view.pass().await;
        match (passes, count) {
            (true, 0) => return to.shutdown().await,
            (true, count) => to.write_all(&chunk[..count]).await?,
            // The other end does not even learn that this one has gone.
            (false, 0) => return Ok(()),
            (false, _) => {}
        }
    }
}

impl View {
    /// Waits for as long as the network holds data back. Returns whether it passes then.
    async fn pass(&mut self) -> bool {
        let nth = self.nth;
        let is_forgotten = |state: &State| nth < state.forgotten;
        let settled = |state: &State| is_forgotten(state) || state.network != Network::BlackHole;
        let state = self.state.wait_for(settled).await.map(|state| *state);
        match state {
            Ok(state) if is_forgotten(&state) => false,
            Ok(State { network: Network::Delay(by), .. }) => {
                sleep(by).await;
                true
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const SOON: Duration = Duration::from_secs(5);
    const NEVER: Duration = Duration::from_millis(200);

    /// An echo server behind a proxy, and a connection through it.
    async fn echo() -> (Proxy, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let proxy = Proxy::to(listener.local_addr().unwrap().port()).await.unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    io::copy(&mut from, &mut to).await
                });
            }
        });
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        (proxy, stream)
    }

    async fn answer(stream: &mut TcpStream) -> io::Result<u8> {
        stream.write_all(&[7]).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn everything_passes_and_may_be_delayed() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(answer(&mut stream).await.unwrap(), 7);
        proxy.set(Network::Delay(NEVER));
        let before = Instant::now();
        assert_eq!(answer(&mut stream).await.unwrap(), 7);
        assert!(before.elapsed() >= 2 * NEVER);
    }

    #[tokio::test]
    async fn a_black_hole_holds_back_and_then_lets_go() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Network::BlackHole);
        assert!(timeout(NEVER, answer(&mut stream)).await.is_err());
        proxy.set(Network::Pass);
        assert_eq!(timeout(SOON, stream.read_u8()).await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_forgotten_connection_is_silent_for_good_and_new_ones_pass() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(answer(&mut stream).await.unwrap(), 7);
        proxy.set(Network::BlackHole);
        stream.write_all(&[8]).await.unwrap();
        proxy.forget();
        proxy.set(Network::Pass);
        assert!(timeout(NEVER, answer(&mut stream)).await.is_err());
        let mut other = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        assert_eq!(timeout(SOON, answer(&mut other)).await.unwrap().unwrap(), 7);
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_until_it_is_over() {
        let (proxy, mut stream) = echo().await;
        assert_eq!(answer(&mut stream).await.unwrap(), 7);
        proxy.set(Network::Cut);
        assert!(timeout(SOON, answer(&mut stream)).await.unwrap().is_err());
        let mut other = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        assert!(timeout(SOON, answer(&mut other)).await.unwrap().is_err());
        proxy.set(Network::Pass);
        let mut after = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
        assert_eq!(timeout(SOON, answer(&mut after)).await.unwrap().unwrap(), 7);
    }
}
