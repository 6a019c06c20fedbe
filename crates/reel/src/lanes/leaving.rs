//! Handing a lane over between two batches: the step lets it go, the relay sends what is committed, the lease ends.

use tokio::sync::{mpsc, oneshot};

use super::lease::{Grant, Identity};
use crate::failpoints;
use crate::model::Service;
use crate::outbox::RelayHandle;
use crate::replica::Replica;
use crate::step::ToStep;

pub(super) async fn leave<S: Service>(replica: &Replica<S>, step: &mpsc::UnboundedSender<ToStep>, relay: &RelayHandle, grant: &Grant) {
    let (done, left) = oneshot::channel();
    let _ = step.send(ToStep::Leave { partition: grant.partition, token: grant.token, done });
    let _ = left.await;
    let _ = relay.leave(grant.partition, grant.token, true).await;
    failpoints::reached(failpoints::LANE_HANDED_OVER);
    let released = async {
        let mut connection = replica.pool.acquire().await?;
        Identity::release(&mut connection, &[grant.token]).await
    };
    if let Err(error) = released.await {
        tracing::debug!(partition = %grant.partition, error = %error, "the lease runs out by itself");
    }
}
