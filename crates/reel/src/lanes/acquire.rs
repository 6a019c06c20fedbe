//! Acquires a lane and recovers it, and tries again until it is open, lost or stopped.

use std::time::Duration;

use tokio::sync::mpsc;

use super::recovery::{self, RecoveryError};
use super::supervisor::TaskEvent;
use crate::database::{DatabaseErrorKind, answered};
use crate::failpoints;
use crate::kafka::continuity::ContinuityError;
use crate::lane::{Lease, OpenLane};
use crate::model::Service;
use crate::pauses::Pauses;
use crate::replica::Replica;
use crate::rows::Stored;
use crate::tables::leases::Member;

/// Pauses between two tries.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// Tries after which status reports why the lane is not open. The log reports it then, and again
/// after every twice as many tries.
const REPORT_AFTER: u32 = 5;

/// A lane to acquire and recover.
pub(super) struct Acquisition {
    pub(super) lease: Lease,
    /// Whether its lease is ours already, as that of a lane whose relay stalled is.
    pub(super) acquired: bool,
    /// The pause before the first try.
    pub(super) pause: Duration,
}

/// Acquires and recovers a lane, trying again until it is open, lost or stopped.
///
/// # Errors
/// [`RecoveryError::Lost`] or [`RecoveryError::Stopped`]. Every other error is tried again.
pub(super) async fn recover_until_open<S: Service<State: Stored>>(
    replica: &Replica<S>,
    member: &Member,
    events: &mpsc::UnboundedSender<TaskEvent>,
    Acquisition { lease, mut acquired, pause }: Acquisition,
) -> Result<Box<OpenLane>, RecoveryError> {
    let Lease { partition, token, .. } = lease;
    let waiting = |reason| drop(events.send(TaskEvent::Waiting { partition, token, reason }));
    let mut pauses = Pauses::new(RETRY.0, RETRY.1);
    tokio::time::sleep(pause).await;

    for tries in 1_u32.. {
        match acquire_and_recover(replica, member, events, &lease, &mut acquired).await {
            Ok(lane) => return Ok(Box::new(lane)),
            Err(error @ (RecoveryError::Lost | RecoveryError::Stopped(_))) => return Err(error),
            // Neither waiting nor another try will help. A lane that is not ours yet does not stop:
            // no other replica would be kept from it, and the next renewal would drop it again.
            Err(RecoveryError::Database(error))
                if acquired && DatabaseErrorKind::classify(&error) == DatabaseErrorKind::Broken =>
            {
                return Err(RecoveryError::Stopped(error.to_string()));
            }

            // Not stopped: after a restart Kafka may not know its topics for a moment.
            Err(RecoveryError::Continuity(error @ ContinuityError::Gone { .. })) => {
                let reason = error.to_string();
                tracing::error!(
                    event.code = "lane.waiting", %partition, reason,
                    "lane waits: an operator has to look, unless it goes on by itself"
                );
                waiting(reason);
                if let ContinuityError::Gone { topic } = error {
                    until_back(replica, &topic, &mut pauses).await;
                }
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                let cause = cause.unwrap_or_default();
                tracing::debug!(%partition, error = %error, cause, "recovery is retried");
                if tries % (2 * REPORT_AFTER) == REPORT_AFTER {
                    tracing::warn!(
                        event.code = "lane.not_open", %partition, tries, error = %error, cause,
                        "a lane could not be opened yet"
                    );
                }

                if tries >= REPORT_AFTER {
                    waiting(format!("{error}: {cause}"));
                }
            }
        }
        tokio::time::sleep(pauses.next()).await;
    }

    Err(RecoveryError::Lost)
}

/// Waits until Kafka knows a topic again. Recovery is not tried meanwhile, because each try may
/// write a `reel.opened`.
async fn until_back<S: Service>(replica: &Replica<S>, topic: &str, pauses: &mut Pauses) {
    while !matches!(replica.reader.partition_count(topic).await, Ok(Some(_))) {
        tokio::time::sleep(pauses.next()).await;
    }
}

/// Makes one try. `acquired` stays set, so that a later one does not change the fencing token
/// again.
async fn acquire_and_recover<S: Service<State: Stored>>(
    replica: &Replica<S>,
    member: &Member,
    events: &mpsc::UnboundedSender<TaskEvent>,
    lease: &Lease,
    acquired: &mut bool,
) -> Result<OpenLane, RecoveryError> {
    if !*acquired {
        let mut connection = replica.pool.get().await?;
        if !answered(member.acquire(&mut connection, S::NAME, lease)).await? {
            return Err(RecoveryError::Lost);
        }
        connection.give_back();
        *acquired = true;
        let _ = events.send(TaskEvent::Acquired { partition: lease.partition, token: lease.token });
        failpoints::reached(failpoints::LANE_ACQUIRED);
    }
    recovery::recover(replica, lease).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Partition;
    use crate::tests::till::Fixture;

    #[tokio::test]
    async fn a_lane_that_cannot_be_acquired_is_tried_again_and_does_not_stop() {
        let fixture = Fixture::closed("unacquirable").await;
        fixture.create_topics().await;
        fixture.execute("alter table reel.lanes rename column owner to hidden").await;
        let (events, mut inbox) = mpsc::unbounded_channel();

        let (member, lease) = fixture.member_and_lease(Partition(0)).await;
        let replica = fixture.replica.clone();
        let acquisition = Acquisition { lease, acquired: false, pause: Duration::ZERO };
        let opening = tokio::spawn(async move {
            recover_until_open(&replica, &member, &events, acquisition).await
        });
        assert!(matches!(inbox.recv().await, Some(TaskEvent::Waiting { .. })));

        fixture.execute("alter table reel.lanes rename column hidden to owner").await;
        opening.await.expect("no panic").expect("opens");
        while let Some(event) = inbox.recv().await {
            if matches!(event, TaskEvent::Acquired { .. }) {
                return;
            }
        }
        panic!("the supervisor never heard that the lane was acquired");
    }
}
