//! The lanes that a replica holds, with the state of each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::database::DatabaseEpoch;
use crate::lane::{LaneState, Lease};
use crate::model::Partition;
use crate::pauses::Pauses;
use crate::status::Lanes;

/// Pauses before a lane whose relay stalled is recovered. Each recovery writes a `reel.opened`, so
/// they get long if its records are refused again and again.
const REOPEN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(8));
/// Time for which a lane must have been open for its next pause to be short again.
const LONG_OPEN: Duration = Duration::from_secs(10);

/// The lanes that a replica holds.
#[derive(Default)]
pub(super) struct HeldLanes {
    lanes: BTreeMap<Partition, HeldLane>,
}

/// A lane as a replica holds it.
pub(super) struct HeldLane {
    /// The lease, made up before the lane is acquired: its token counts once it was.
    pub(super) lease: Lease,
    pub(super) state: LaneState,
    /// What it waits for, if that takes long; for status.
    pub(super) waiting: Option<String>,
    /// The task that acquires and recovers it, if there ever was one; it may have ended.
    pub(super) recovery: Option<JoinHandle<()>>,
    /// The pauses before it is recovered again if its relay stalls.
    pauses: Pauses,
    /// When it was opened last.
    opened_at: Instant,
}

impl HeldLanes {
    /// The lane, if it is held under this token.
    pub(super) fn under(&mut self, partition: Partition, token: Uuid) -> Option<&mut HeldLane> {
        self.lanes.get_mut(&partition).filter(|held| held.lease.token == token)
    }

    pub(super) fn get_mut(&mut self, partition: Partition) -> Option<&mut HeldLane> {
        self.lanes.get_mut(&partition)
    }

    /// The lanes in such a state.
    pub(super) fn which(&self, wanted: impl Fn(&LaneState) -> bool) -> Vec<Partition> {
        let lanes = self.lanes.iter().filter(|(_, held)| wanted(&held.state));
        lanes.map(|(partition, _)| *partition).collect()
    }

    /// The fencing tokens of all lanes.
    pub(super) fn tokens(&self) -> Vec<Uuid> {
        self.lanes.values().map(|held| held.lease.token).collect()
    }

    /// The lanes whose lease is no longer ours, in a database of this epoch in which these tokens
    /// hold. A lane that is being acquired may have no lease yet, and its task notices by itself.
    pub(super) fn lost(&self, epoch: &DatabaseEpoch, tokens: &[Uuid]) -> Vec<Partition> {
        let lost = |held: &HeldLane| {
            let acquired = held.state != LaneState::Acquiring;
            held.lease.database_epoch != *epoch || (acquired && !tokens.contains(&held.lease.token))
        };
        let lanes = self.lanes.iter().filter(|(_, held)| lost(held));
        lanes.map(|(partition, _)| *partition).collect()
    }

    /// Holds a lane, in the place of what is held of it.
    pub(super) fn insert(&mut self, held: HeldLane) {
        self.lanes.insert(held.lease.partition, held);
    }

    pub(super) fn remove(&mut self, partition: Partition) -> Option<HeldLane> {
        self.lanes.remove(&partition)
    }

    pub(super) fn into_lanes(self) -> impl Iterator<Item = HeldLane> {
        self.lanes.into_values()
    }

    /// The states of the lanes, for status.
    pub(super) fn status(&self) -> Lanes {
        let lanes = || self.lanes.iter().map(|(partition, held)| (partition.0, held));
        let states = lanes().map(|(partition, held)| (partition, held.state.clone()));
        let waiting = lanes().filter_map(|(partition, held)| {
            held.waiting.as_ref().map(|reason| (partition, reason.clone()))
        });
        Lanes { states: states.collect(), waiting: waiting.collect(), cut_off: false }
    }
}

impl HeldLane {
    pub(super) fn new(lease: Lease, state: LaneState) -> Self {
        let pauses = Pauses::new(REOPEN.0, REOPEN.1);
        let opened_at = Instant::now();
        Self { lease, state, waiting: None, recovery: None, pauses, opened_at }
    }

    /// Its log was recovered.
    pub(super) fn opened(&mut self) {
        self.state = LaneState::Open;
        (self.opened_at, self.waiting) = (Instant::now(), None);
    }

    /// Its relay has stalled, for this reason. Returns the pause before its log is recovered.
    pub(super) fn reopen(&mut self, reason: String) -> Duration {
        if self.opened_at.elapsed() > LONG_OPEN {
            self.pauses.reset();
        }
        (self.state, self.waiting) = (LaneState::Reopening, Some(reason));
        self.pauses.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(name: &str) -> DatabaseEpoch {
        DatabaseEpoch::new(name.to_owned())
    }

    /// A lane that was acquired in the epoch "first", and its token.
    fn hold(lanes: &mut HeldLanes, partition: i32, state: LaneState) -> Uuid {
        let lease = Lease::new(Partition(partition), &epoch("first"));
        let token = lease.token;
        lanes.insert(HeldLane::new(lease, state));
        token
    }

    #[test]
    fn a_lane_is_lost_once_its_token_no_longer_holds() {
        let mut lanes = HeldLanes::default();
        let open = hold(&mut lanes, 0, LaneState::Open);
        hold(&mut lanes, 1, LaneState::Recovering);
        hold(&mut lanes, 2, LaneState::Stopped("its end is lost".to_owned()));

        assert_eq!(lanes.lost(&epoch("first"), &[open]), [Partition(1), Partition(2)]);
        assert_eq!(lanes.lost(&epoch("first"), &lanes.tokens()), []);
    }

    #[test]
    fn a_lane_that_is_being_acquired_is_lost_only_with_its_epoch() {
        let mut lanes = HeldLanes::default();
        hold(&mut lanes, 0, LaneState::Acquiring);

        assert_eq!(lanes.lost(&epoch("first"), &[]), []);
        assert_eq!(lanes.lost(&epoch("second"), &lanes.tokens()), [Partition(0)]);
    }

    #[test]
    fn a_lane_is_found_under_its_last_token_only() {
        let mut lanes = HeldLanes::default();
        let before = hold(&mut lanes, 0, LaneState::Open);
        let now = hold(&mut lanes, 0, LaneState::Acquiring);

        assert!(lanes.under(Partition(0), before).is_none());
        assert_eq!(
            lanes.under(Partition(0), now).map(|held| &held.state),
            Some(&LaneState::Acquiring)
        );
    }

    #[test]
    fn the_pauses_of_a_lane_that_stalls_again_and_again_get_longer() {
        let mut lanes = HeldLanes::default();
        let token = hold(&mut lanes, 0, LaneState::Open);
        let held = lanes.under(Partition(0), token).expect("held");

        let pauses: Vec<Duration> = (0..12)
            .map(|_| {
                let pause = held.reopen("refused".to_owned());
                held.opened();
                pause
            })
            .collect();
        assert!(pauses[11] > 10 * pauses[0], "{pauses:?}");
    }
}
