//! Taking a lane and opening it, again and again until it is open, another's, or stopped.

use std::time::Duration;

use tokio::sync::mpsc;

use super::keeper::Notice;
use super::lease::{Grant, Identity};
use super::opening::{self, OpenLane, OpeningError};
use crate::database::Failure;
use crate::failpoints;
use crate::model::Service;
use crate::pauses::Pauses;
use crate::replica::Replica;
use crate::step::Stored;

/// The pauses between tries to open a lane.
const OPEN_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// After so many tries it is told why the lane is not open; in the log only every so often.
const TELL_AFTER: u32 = 5;

/// A lane that is to be opened.
pub(super) struct Taking {
    pub(super) grant: Grant,
    /// Whether its lease is ours already.
    pub(super) held: bool,
    /// How long to wait before the first try.
    pub(super) pause: Duration,
}

/// Tries until the lane is open, lost or stopped.
pub(super) async fn open_at_last<S: Service<State: Stored>>(
    replica: &Replica<S>,
    identity: &Identity,
    notices: &mpsc::UnboundedSender<Notice>,
    Taking { grant, mut held, pause }: Taking,
) -> Result<Box<OpenLane>, OpeningError> {
    let partition = grant.partition;
    let mut pauses = Pauses::new(OPEN_AGAIN.0, OPEN_AGAIN.1);
    tokio::time::sleep(pause).await;
    for tries in 1_u32.. {
        match take_and_open(replica, identity, &grant, &mut held).await {
            Ok(lane) => return Ok(Box::new(lane)),
            Err(error @ (OpeningError::Lost | OpeningError::Stopped(_))) => return Err(error),
            Err(OpeningError::Database(error)) if Failure::of(&error) == Failure::Broken => {
                return Err(OpeningError::Stopped(error.to_string()));
            }
            Err(OpeningError::Gone { topic }) => {
                let reason = OpeningError::Gone { topic: topic.clone() }.to_string();
                tracing::error!(%partition, reason, "LANE STANDS STILL: an operator has to look, unless it goes on by itself");
                let _ = notices.send(Notice::Waiting { partition, token: grant.token, reason });
                until_back(replica, &topic, &mut pauses).await;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::debug!(%partition, error = %error, cause, "opening is tried again");
                if tries % (2 * TELL_AFTER) == TELL_AFTER {
                    tracing::warn!(%partition, tries, error = %error, cause, "a lane could not be opened yet");
                }
                if tries >= TELL_AFTER {
                    let _ = notices.send(Notice::Waiting { partition, token: grant.token, reason: format!("{error}: {cause}") });
                }
            }
        }
        tokio::time::sleep(pauses.next()).await;
    }
    Err(OpeningError::Lost)
}

/// Waits until Kafka knows a topic again. No opening is tried meanwhile, for each writes a `reel.opened`.
async fn until_back<S: Service>(replica: &Replica<S>, topic: &str, pauses: &mut Pauses) {
    while !matches!(replica.reader.partition_count(topic).await, Ok(Some(_))) {
        tokio::time::sleep(pauses.next()).await;
    }
}

async fn take_and_open<S: Service<State: Stored>>(
    replica: &Replica<S>,
    identity: &Identity,
    grant: &Grant,
    held: &mut bool,
) -> Result<OpenLane, OpeningError> {
    if !*held {
        let mut connection = replica.pool.acquire().await?;
        *held = identity.take(&mut connection, S::NAME, grant).await?;
        failpoints::reached(failpoints::LANE_TAKEN);
    }
    if *held { opening::open(replica, grant).await } else { Err(OpeningError::Lost) }
}
