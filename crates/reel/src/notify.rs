//! LISTEN and NOTIFY between replicas: a relay is woken when another replica committed rows for its
//! lanes, a supervisor when lanes were given back. Both may be lost; both poll behind it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgNotification};
use sqlx::{Executor as _, PgConnection};
use tokio::sync::{Notify, mpsc};

use crate::database::{Database, answered};
use crate::model::Partition;
use crate::pauses::Pauses;

const CHANNEL: &str = "reel_outbox";
/// Payload that says that lanes are free. Any other is a list of partitions with new rows.
const LANES_FREED: &str = "freed";
/// Window in which the partitions of several commits share a notification.
const COALESCE: Duration = Duration::from_millis(2);
/// Silence after which a listener asks whether its connection still lives. One that a firewall has
/// forgotten would hear nothing any more, and would not learn that it does not.
const SILENCE: Duration = Duration::from_secs(15);
/// Pauses before LISTEN is tried again.
const LISTEN_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Notifies other replicas that lanes were given back, or that this one has left.
pub(crate) async fn lanes_freed(connection: &mut PgConnection) -> sqlx::Result<()> {
    notify(connection, LANES_FREED).await
}

/// Notifies other replicas of new rows for their lanes, on a connection of its own and never in a
/// business transaction.
#[derive(Debug, Clone)]
pub(crate) struct Notifier {
    partitions: mpsc::UnboundedSender<Partition>,
}

impl Notifier {
    /// A handle, and the task that notifies, which ends with the last handle.
    pub(crate) fn new(database: Database) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (partitions, inbox) = mpsc::unbounded_channel();
        (Self { partitions }, run(database, inbox))
    }

    pub(crate) fn new_rows(&self, partitions: impl Iterator<Item = Partition>) {
        for partition in partitions {
            let _ = self.partitions.send(partition);
        }
    }
}

async fn run(database: Database, mut inbox: mpsc::UnboundedReceiver<Partition>) {
    let mut connection: Option<PgConnection> = None;
    while let Some(first) = inbox.recv().await {
        tokio::time::sleep(COALESCE).await;
        let mut partitions = BTreeSet::from([first]);
        while let Ok(partition) = inbox.try_recv() {
            partitions.insert(partition);
        }

        let payload = partitions.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        if connection.is_none() {
            connection = database.connect().await.ok();
        }
        let Some(open) = &mut connection else { continue };
        if answered(notify(open, &payload)).await.is_err() {
            connection = None;
        }
    }
}

async fn notify(connection: &mut PgConnection, payload: &str) -> sqlx::Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(connection).await?;
    Ok(())
}

/// Listens, and passes on what other replicas notify: new rows to the relay, free lanes to the
/// supervisor. Ends when the relay does.
pub(crate) async fn listen(
    database: Database,
    new_rows: mpsc::Sender<Vec<Partition>>,
    lanes_freed: Arc<Notify>,
) {
    let mut pauses = Pauses::new(LISTEN_AGAIN.0, LISTEN_AGAIN.1);
    while !new_rows.is_closed() {
        let listening = async {
            let mut listener = database.listen(CHANNEL).await?;
            pauses.reset();
            while let Some(notification) = hear(&mut listener).await? {
                let payload = notification.payload();
                if payload == LANES_FREED {
                    lanes_freed.notify_one();
                    continue;
                }

                let partitions = payload.split(',').filter_map(|text| text.parse().ok());
                if new_rows.send(partitions.map(Partition).collect()).await.is_err() {
                    break;
                }
            }

            Ok::<_, sqlx::Error>(())
        };
        if let Err(error) = listening.await {
            tracing::debug!(error = %error, "LISTEN failed; the relay polls");
        }
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Waits for a notification; `None` if the connection was lost.
///
/// # Errors
/// If the connection does not answer any more.
async fn hear(listener: &mut PgListener) -> sqlx::Result<Option<PgNotification>> {
    loop {
        match tokio::time::timeout(SILENCE, listener.try_recv()).await {
            Ok(heard) => return heard,
            Err(_) => {
                answered(listener.execute("select 1")).await?;
            }
        }
    }
}
