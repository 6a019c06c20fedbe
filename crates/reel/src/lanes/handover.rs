//! Hands a lane over between two batches: the step lets it go, the relay sends what is committed,
//! the lease ends.

use tokio::sync::{mpsc, oneshot};

use crate::database::answered;
use crate::failpoints;
use crate::lane::Lease;
use crate::model::Service;
use crate::notify;
use crate::relay::RelayHandle;
use crate::replica::Replica;
use crate::step::StepControl;
use crate::tables::leases;

/// Hands a lane over. If the lease cannot be released, it runs out by itself.
pub(super) async fn hand_over<S: Service>(
    replica: &Replica<S>,
    step: &mpsc::UnboundedSender<StepControl>,
    relay: &RelayHandle,
    lease: &Lease,
) {
    let Lease { partition, token, .. } = *lease;

    // The step first, so that the relay sends what it commits last. In either, an answer that does
    // not come means that the lane is not there any longer, or that it is handed over twice because
    // the replica stops.
    let (done, left) = oneshot::channel();
    let _ = step.send(StepControl::Leave { partition, token, done });
    let _ = left.await;
    let _ = relay.leave(partition, token, true).await;
    failpoints::reached(failpoints::LANE_HANDED_OVER);
    release(replica, lease).await;
}

/// Releases a lease, so that others need not wait for it to run out, nor for their next poll.
pub(super) async fn release<S: Service>(replica: &Replica<S>, lease: &Lease) {
    let Lease { partition, token, .. } = *lease;
    let released = async {
        let mut connection = replica.pool.get().await?;
        answered(leases::release(&mut connection, token)).await?;
        answered(notify::lanes_freed(&mut connection)).await?;
        connection.give_back();
        Ok::<_, sqlx::Error>(())
    };
    if let Err(error) = released.await {
        tracing::debug!(%partition, error = %error, "the lease runs out by itself");
    }
}
