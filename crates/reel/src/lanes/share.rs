//! Which lanes a replica should take or give up. Pure.

use std::collections::BTreeMap;

use crate::model::Partition;

/// A lane as the lease table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) partition: Partition,
    /// Who holds it, if its lease runs and belongs to the server's run.
    pub(crate) owner: Option<String>,
}

/// What a replica does next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// Lanes that nobody holds, up to this replica's share.
    pub(crate) take: Vec<Partition>,
    /// One lane to hand over, where this replica holds more than its share and another one less.
    pub(crate) give: Option<Partition>,
}

/// Shares the lanes evenly among the replicas that live. `mine` are the lanes that this replica holds
/// or is opening, `open` those of them that work.
pub(crate) fn share(me: &str, mine: &[Partition], open: &[Partition], leases: &[Lease], live: &[String]) -> Change {
    let replicas = live.iter().filter(|name| *name != me).count() + 1;
    let (least, most) = (leases.len() / replicas, leases.len().div_ceil(replicas));
    let mut held: BTreeMap<&str, usize> = live.iter().map(|name| (name.as_str(), 0)).collect();
    for lease in leases {
        if let Some(count) = lease.owner.as_deref().and_then(|owner| held.get_mut(owner)) {
            *count += 1;
        }
    }
    let free: Vec<Partition> = leases
        .iter()
        .filter(|lease| !mine.contains(&lease.partition))
        .filter(|lease| lease.owner.as_deref().is_none_or(|owner| owner == me || !held.contains_key(owner)))
        .map(|lease| lease.partition)
        .collect();
    let take = free.into_iter().take(most.saturating_sub(mine.len())).collect::<Vec<_>>();
    let somebody_lacks = held.iter().any(|(name, count)| *name != me && *count < least);
    let too_many = mine.len() > most || (mine.len() > least && somebody_lacks);
    let give = if too_many && take.is_empty() { open.iter().max().copied() } else { None };
    Change { take, give }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leases(owners: &[Option<&str>]) -> Vec<Lease> {
        owners.iter().zip(0..).map(|(owner, n)| Lease { partition: Partition(n), owner: owner.map(str::to_owned) }).collect()
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn partitions(numbers: &[i32]) -> Vec<Partition> {
        numbers.iter().copied().map(Partition).collect()
    }

    #[test]
    fn a_replica_without_live_peers_takes_all() {
        let change = share("a", &[], &[], &leases(&[None, Some("dead"), None]), &names(&["a"]));
        assert_eq!(change, Change { take: partitions(&[0, 1, 2]), give: None });
    }

    #[test]
    fn two_that_start_together_take_half_each() {
        let change = share("b", &[], &[], &leases(&[None, None, None, None]), &names(&["a", "b"]));
        assert_eq!(change.take, partitions(&[0, 1]));
    }

    #[test]
    fn a_replica_that_joins_is_handed_one_lane_after_the_other() {
        let all = leases(&[Some("a"), Some("a"), Some("a"), Some("a")]);
        assert_eq!(
            share("a", &partitions(&[0, 1, 2, 3]), &partitions(&[0, 1, 2, 3]), &all, &names(&["a", "b"])),
            Change { take: vec![], give: Some(Partition(3)) }
        );
        let even = leases(&[Some("a"), Some("a"), Some("b"), Some("b")]);
        assert_eq!(share("a", &partitions(&[0, 1]), &partitions(&[0, 1]), &even, &names(&["a", "b"])), Change::default());
    }

    #[test]
    fn an_uneven_rest_stays_where_it_is_unless_another_lacks() {
        let rest = leases(&[Some("a"), Some("a"), Some("b")]);
        assert_eq!(share("a", &partitions(&[0, 1]), &partitions(&[0, 1]), &rest, &names(&["a", "b"])), Change::default());
        let lacking = leases(&[Some("a"), Some("a"), Some("b"), Some("b"), Some("b")]);
        assert_eq!(
            share("b", &partitions(&[2, 3, 4]), &partitions(&[2, 3, 4]), &lacking, &names(&["a", "b", "c"])).give,
            Some(Partition(4))
        );
    }

    #[test]
    fn a_lane_of_mine_that_i_do_not_hold_is_taken_back() {
        let change = share("a", &[], &[], &leases(&[Some("a"), Some("b")]), &names(&["a", "b"]));
        assert_eq!(change.take, partitions(&[0]));
    }
}
