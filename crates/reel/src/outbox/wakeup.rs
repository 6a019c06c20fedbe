//! Wakes other replicas: the relay after commands were committed here for its lanes, by a coalesced NOTIFY on a connection of its
//! own and never in the business transaction; the keeper when lanes were given back. It may be lost; both poll behind it.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use tokio::sync::mpsc;

use crate::database::Sessions;
use crate::model::Partition;
use crate::pauses::Pauses;

const CHANNEL: &str = "reel_outbox";
/// Partitions of commits in this time are told together.
const COALESCE: Duration = Duration::from_millis(2);
/// The pauses before it is listened again.
const LISTEN_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What is told instead of partitions when lanes are free.
const FREED: &str = "freed";

/// What another replica tells.
pub(super) enum Woken {
    /// There are new rows for these lanes.
    Rows(Vec<Partition>),
    /// Lanes were given back.
    LanesFreed,
}

/// Tells other replicas that lanes were given back, or that this one has left their circle.
pub(crate) async fn lanes_freed(connection: &mut PgConnection) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(FREED).execute(connection).await.map(drop)
}

/// Tells other replicas of new rows for their lanes.
#[derive(Debug, Clone)]
pub(crate) struct Wakeup {
    sender: mpsc::UnboundedSender<Partition>,
}

impl Wakeup {
    /// Starts the task that tells; it ends with the last handle.
    pub(crate) fn start(sessions: Sessions) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(tell(sessions, receiver));
        Self { sender }
    }

    pub(crate) fn notify(&self, partitions: impl Iterator<Item = Partition>) {
        for partition in partitions {
            let _ = self.sender.send(partition);
        }
    }
}

async fn tell(sessions: Sessions, mut receiver: mpsc::UnboundedReceiver<Partition>) {
    let mut connection: Option<PgConnection> = None;
    while let Some(first) = receiver.recv().await {
        tokio::time::sleep(COALESCE).await;
        let mut partitions = BTreeSet::from([first]);
        while let Ok(partition) = receiver.try_recv() {
            partitions.insert(partition);
        }
        let text = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if connection.is_none() {
            connection = sessions.connect().await.ok();
        }
        let Some(open) = &mut connection else { continue };
        if sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(text).execute(open).await.is_err() {
            connection = None;
        }
    }
}

/// Listens, and passes on what other replicas tell. Ends when nobody takes it.
pub(super) async fn listen(pool: PgPool, woken: mpsc::Sender<Woken>) {
    let mut pauses = Pauses::new(LISTEN_AGAIN.0, LISTEN_AGAIN.1);
    while !woken.is_closed() {
        let listening = async {
            let mut listener = PgListener::connect_with(&pool).await?;
            listener.listen(CHANNEL).await?;
            pauses.reset();
            while let Some(notification) = listener.try_recv().await? {
                let told = match notification.payload() {
                    FREED => Woken::LanesFreed,
                    partitions => Woken::Rows(partitions.split(',').filter_map(|text| text.parse().ok()).map(Partition).collect()),
                };
                if woken.send(told).await.is_err() {
                    break;
                }
            }
            Ok::<_, sqlx::Error>(())
        };
        if let Err(error) = listening.await {
            tracing::debug!(error = %error, "nobody listens for other replicas' commits; the relay polls");
        }
        tokio::time::sleep(pauses.next()).await;
    }
}
