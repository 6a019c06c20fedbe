//! Decides which lanes a replica acquires or hands over. Pure.

use std::collections::BTreeMap;

use crate::model::Partition;
use crate::tables::leases::LaneOwner;

/// The lanes of this replica, as its supervisor has them.
pub(super) struct Holdings<'a> {
    /// The instance id of this replica.
    pub(super) me: &'a str,
    /// The lanes that it holds, in whatever state, stopped ones among them.
    pub(super) all: &'a [Partition],
    /// Those of them in the state `Open`, which can be handed over.
    pub(super) open: &'a [Partition],
}

/// What a replica changes next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// Free lanes to acquire, up to this replica's share.
    pub(super) acquire: Vec<Partition>,
    /// One lane to hand over, if this replica holds more than its share.
    pub(super) hand_over: Option<Partition>,
}

impl Change {
    /// Whether nothing is to be changed.
    pub(super) fn is_none(&self) -> bool {
        self.acquire.is_empty() && self.hand_over.is_none()
    }
}

/// Compares the lanes of this replica with its share of all. Each replica decides for itself from
/// the same two tables; if two of them want one lane, the database grants it to one.
pub(super) fn rebalance(mine: &Holdings<'_>, owners: &[LaneOwner], live: &[String]) -> Change {
    let replicas = live.iter().filter(|name| *name != mine.me).count() + 1;

    // The shares differ by one at most if the lanes cannot be divided evenly.
    let (least, most) = (owners.len() / replicas, owners.len().div_ceil(replicas));

    let mut held: BTreeMap<&str, usize> = live.iter().map(|name| (name.as_str(), 0)).collect();
    for lane in owners {
        if let Some(count) = lane.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
            *count += 1;
        }
    }

    // A lane is free if nobody alive owns it, or if this instance does and has forgotten it,
    // because it restarted or dropped the lane. If its owner left without releasing it, the
    // database grants it only once the lease has run out.
    let is_free = |lane: &&LaneOwner| {
        let owner = lane.owner.as_deref();
        !mine.all.contains(&lane.partition)
            && owner.is_none_or(|owner| owner == mine.me || !held.contains_key(owner))
    };
    let room = most.saturating_sub(mine.all.len());
    let acquire: Vec<Partition> =
        owners.iter().filter(is_free).map(|lane| lane.partition).take(room).collect();

    // Lanes move one by one, and only if that makes the shares more even, so none moves back and
    // forth.
    let somebody_lacks = held.iter().any(|(name, count)| *name != mine.me && *count < least);
    let count = mine.all.len();
    let has_too_many = count > most || (count > least && somebody_lacks);
    let gives = has_too_many && acquire.is_empty();
    let hand_over = if gives { mine.open.iter().max().copied() } else { None };
    Change { acquire, hand_over }
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
        live: &[String],
    ) -> Change {
        rebalance(&Holdings { me, all, open }, owners, live)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn partitions(numbers: &[i32]) -> Vec<Partition> {
        numbers.iter().copied().map(Partition).collect()
    }

    #[test]
    fn a_replica_without_live_peers_takes_all() {
        let change = shared("a", &[], &[], &owners(&[None, Some("dead"), None]), &names(&["a"]));
        assert_eq!(change, Change { acquire: partitions(&[0, 1, 2]), hand_over: None });
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
            Change { acquire: vec![], hand_over: Some(Partition(3)) }
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
            Some(Partition(4))
        );
    }

    #[test]
    fn a_lane_of_mine_that_i_do_not_hold_is_taken_back() {
        let change = shared("a", &[], &[], &owners(&[Some("a"), Some("b")]), &names(&["a", "b"]));
        assert_eq!(change.acquire, partitions(&[0]));
    }
}
