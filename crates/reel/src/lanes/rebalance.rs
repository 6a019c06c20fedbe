//! Decides which lanes a replica acquires, hands over or gives up. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::model::Partition;
use crate::tables::leases::{LaneOwner, LiveReplica};

/// Time for which Kafka must have answered others and not a replica that is cut off. It is longer
/// than one heartbeat takes to fail and the next one to succeed: in an outage, replicas do not
/// hear Kafka for the last time at the same moment.
const CUT_OFF_AFTER: Duration = Duration::from_secs(15);

/// The lanes of this replica, as its supervisor has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Holdings<'a> {
    /// The instance id of this replica.
    pub(super) me: &'a str,
    /// The lanes that it holds, in whatever state, stopped ones among them.
    pub(super) all: &'a [Partition],
    /// Those of them in the state `Open`, which can be handed over.
    pub(super) open: &'a [Partition],
    /// Those of them that are being recovered, for the first time or again.
    pub(super) recovering: &'a [Partition],
}

/// What a replica changes next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// Free lanes to acquire, up to this replica's share.
    pub(super) acquire: Vec<Partition>,
    /// Lanes to hand over: one, if this replica holds more than its share, or all, if it cannot
    /// work.
    pub(super) hand_over: Vec<Partition>,
    /// Lanes that cannot be recovered here, and whose leases are released for those who can.
    pub(super) give_up: Vec<Partition>,
}

impl Change {
    /// Whether nothing is to be changed.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Compares the lanes of this replica with its share of all. Each replica decides for itself from
/// the same two tables; if two of them want one lane, the database grants it to one.
///
/// A replica that is cut off from Kafka has no share.
pub(super) fn rebalance(mine: &Holdings<'_>, owners: &[LaneOwner], live: &[LiveReplica]) -> Change {
    if is_cut_off(mine.me, live) {
        let (hand_over, give_up) = (mine.open.to_vec(), mine.recovering.to_vec());
        return Change { acquire: Vec::new(), hand_over, give_up };
    }

    let others = || live.iter().map(|replica| &*replica.instance).filter(|name| *name != mine.me);
    let mut held: BTreeMap<&str, usize> =
        others().filter(|name| !is_cut_off(name, live)).map(|name| (name, 0)).collect();
    let replicas = held.len() + 1;

    // The shares differ by one at most if the lanes cannot be divided evenly.
    let (least, most) = (owners.len() / replicas, owners.len().div_ceil(replicas));

    for lane in owners {
        if let Some(count) = lane.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
            *count += 1;
        }
    }

    // A lane is free if nobody alive owns it, or if this instance does and has forgotten it,
    // because it restarted or dropped the lane. If its owner left without releasing it, the
    // database grants it only once the lease has run out.
    let is_alive = |owner: &str| others().any(|name| name == owner);
    let is_free = |lane: &&LaneOwner| {
        let owner = lane.owner.as_deref();
        !mine.all.contains(&lane.partition)
            && owner.is_none_or(|owner| owner == mine.me || !is_alive(owner))
    };
    let room = most.saturating_sub(mine.all.len());
    let acquire: Vec<Partition> =
        owners.iter().filter(is_free).map(|lane| lane.partition).take(room).collect();

    // Lanes move one by one, and only if that makes the shares more even, so none moves back and
    // forth.
    let somebody_lacks = held.values().any(|count| *count < least);
    let count = mine.all.len();
    let has_too_many = count > most || (count > least && somebody_lacks);
    let gives = has_too_many && acquire.is_empty();
    let hand_over = mine.open.iter().max().copied().filter(|_| gives).into_iter().collect();
    Change { acquire, hand_over, give_up: Vec::new() }
}

/// Whether Kafka has answered another replica long after it last answered this one. If it answers
/// none, none is cut off: they keep their lanes, and what they accept waits in the outbox.
pub(super) fn is_cut_off(instance: &str, live: &[LiveReplica]) -> bool {
    let silences = live.iter().filter_map(|replica| replica.kafka_silent_for);
    let mine = live.iter().find(|replica| replica.instance == instance);
    match (mine.and_then(|replica| replica.kafka_silent_for), silences.min()) {
        (Some(mine), Some(shortest)) => mine > shortest + CUT_OFF_AFTER,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owners(owners: &[Option<&str>]) -> Vec<LaneOwner> {
        let lane = |(owner, n): (&Option<&str>, i32)| LaneOwner {
            partition: Partition(n),
            owner: owner.map(str::to_owned),
        };
        owners.iter().zip(0..).map(lane).collect()
    }

    fn shared(
        me: &str,
        all: &[Partition],
        open: &[Partition],
        owners: &[LaneOwner],
        live: &[LiveReplica],
    ) -> Change {
        rebalance(&Holdings { me, all, open, recovering: &[] }, owners, live)
    }

    fn silent(name: &str, seconds: u64) -> LiveReplica {
        let kafka_silent_for = Some(Duration::from_secs(seconds));
        LiveReplica { instance: name.to_owned(), kafka_silent_for }
    }

    fn names(names: &[&str]) -> Vec<LiveReplica> {
        names.iter().map(|name| silent(name, 1)).collect()
    }

    fn partitions(numbers: &[i32]) -> Vec<Partition> {
        numbers.iter().copied().map(Partition).collect()
    }

    #[test]
    fn a_replica_without_live_peers_takes_all() {
        let change = shared("a", &[], &[], &owners(&[None, Some("dead"), None]), &names(&["a"]));
        assert_eq!(change, Change { acquire: partitions(&[0, 1, 2]), ..Change::default() });
    }

    #[test]
    fn two_that_start_together_take_half_each() {
        let change = shared("b", &[], &[], &owners(&[None, None, None, None]), &names(&["a", "b"]));
        assert_eq!(change.acquire, partitions(&[0, 1]));
    }

    #[test]
    fn a_replica_that_joins_is_handed_one_lane_after_the_other() {
        let all = owners(&[Some("a"), Some("a"), Some("a"), Some("a")]);
        assert_eq!(
            shared(
                "a",
                &partitions(&[0, 1, 2, 3]),
                &partitions(&[0, 1, 2, 3]),
                &all,
                &names(&["a", "b"])
            ),
            Change { hand_over: partitions(&[3]), ..Change::default() }
        );
        let even = owners(&[Some("a"), Some("a"), Some("b"), Some("b")]);
        assert_eq!(
            shared("a", &partitions(&[0, 1]), &partitions(&[0, 1]), &even, &names(&["a", "b"])),
            Change::default()
        );
    }

    #[test]
    fn an_uneven_rest_stays_where_it_is_unless_another_lacks() {
        let rest = owners(&[Some("a"), Some("a"), Some("b")]);
        assert_eq!(
            shared("a", &partitions(&[0, 1]), &partitions(&[0, 1]), &rest, &names(&["a", "b"])),
            Change::default()
        );
        let lacking = owners(&[Some("a"), Some("a"), Some("b"), Some("b"), Some("b")]);
        assert_eq!(
            shared(
                "b",
                &partitions(&[2, 3, 4]),
                &partitions(&[2, 3, 4]),
                &lacking,
                &names(&["a", "b", "c"])
            )
            .hand_over,
            partitions(&[4])
        );
    }

    #[test]
    fn a_lane_of_mine_that_i_do_not_hold_is_taken_back() {
        let change = shared("a", &[], &[], &owners(&[Some("a"), Some("b")]), &names(&["a", "b"]));
        assert_eq!(change.acquire, partitions(&[0]));
    }

    #[test]
    fn a_replica_that_is_cut_off_gives_its_lanes_to_one_that_is_not() {
        let live = [silent("a", 20), silent("b", 1)];
        let all = owners(&[Some("a"), Some("a"), Some("a"), None, Some("b")]);
        let (mine, open, recovering) =
            (partitions(&[0, 1, 2]), partitions(&[0, 2]), partitions(&[1]));
        let holdings = Holdings { me: "a", all: &mine, open: &open, recovering: &recovering };
        assert_eq!(
            rebalance(&holdings, &all, &live),
            Change { acquire: vec![], hand_over: open.clone(), give_up: recovering.clone() }
        );
        assert_eq!(shared("b", &partitions(&[4]), &[], &all, &live).acquire, partitions(&[3]));
    }

    #[test]
    fn a_lane_is_not_free_before_a_replica_that_is_cut_off_has_let_it_go() {
        let live = [silent("a", 20), silent("b", 1)];
        let all = owners(&[Some("a"), Some("b")]);
        assert_eq!(
            shared("b", &partitions(&[1]), &partitions(&[1]), &all, &live),
            Change::default()
        );
    }

    #[test]
    fn if_kafka_answers_none_each_keeps_its_lanes() {
        let live = [silent("a", 100), silent("b", 92)];
        let all = owners(&[Some("a"), Some("b"), None]);
        let change = shared("a", &partitions(&[0]), &partitions(&[0]), &all, &live);
        assert_eq!(change, Change { acquire: partitions(&[2]), ..Change::default() });
    }

    #[test]
    fn an_older_binary_counts_as_one_that_hears_kafka_and_proves_nothing() {
        let older = LiveReplica { instance: "b".to_owned(), kafka_silent_for: None };
        let all = owners(&[Some("a"), None]);
        let live = [silent("a", 60), older];
        let change = shared("a", &partitions(&[0]), &partitions(&[0]), &all, &live);
        assert_eq!(change, Change::default());
        assert_eq!(shared("b", &[], &[], &all, &live).acquire, partitions(&[1]));
    }
}
