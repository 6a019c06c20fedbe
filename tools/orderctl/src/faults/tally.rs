//! The tally of the injected faults, and whether they were enough to show anything. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use super::schedule::{KAFKA_KILLED, POSTGRES_KILLED};

/// Faults that must be injected per minute, and those of them whose target must have work in hand:
/// a replica that was killed a moment ago has no lanes, and so no work.
const A_MINUTE: usize = 20;
const A_MINUTE_AT_WORK: usize = 16;
/// Time by which the last fault may be late: faults wait for each other's targets.
const LATE: Duration = Duration::from_secs(30);

/// A fault that was injected.
#[derive(Debug, Clone, Copy)]
pub(super) struct Injected {
    pub(super) kind: &'static str,
    /// Time since the faults began.
    pub(super) at: Duration,
    /// Whether its target had work in hand.
    pub(super) had_work: bool,
}

/// The faults of a run of this many minutes.
pub(super) struct Tally<'a> {
    pub(super) injected: &'a [Injected],
    pub(super) minutes: u32,
}

impl Tally<'_> {
    /// Returns the rows of the report: the numbers of faults, by kind and in total.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
        for fault in self.injected {
            *kinds.entry(fault.kind).or_default() += 1;
        }
        let mut rows: Vec<_> =
            kinds.into_iter().map(|(kind, count)| (kind, count.to_string())).collect();
        rows.push((
            "faults, and those with work in hand",
            format!("{}, {}", self.injected.len(), self.at_work(None)),
        ));
        let killed = [KAFKA_KILLED, POSTGRES_KILLED].map(|kind| self.at_work(Some(kind)));
        rows.push((
            "servers killed with work in hand",
            format!("kafka {}, postgres {}", killed[0], killed[1]),
        ));
        let time = format!(
            "{} of them in the {} s asked for, the last after {:.0} s",
            self.in_time(),
            self.asked().as_secs(),
            self.last()
        );
        rows.push(("time of the faults", time));
        rows
    }

    /// Returns in what the faults were too few, too idle or too late.
    pub(super) fn shortfalls(&self) -> Vec<String> {
        let (minutes, asked) = (self.minutes as usize, self.asked());
        let mut shortfalls = Vec::new();
        let (in_time, least) = (self.in_time(), A_MINUTE * minutes);
        if in_time < least {
            shortfalls.push(format!(
                "{in_time} faults came in {} s, and {least} should have",
                asked.as_secs()
            ));
        }

        if self.last() > (asked + LATE).as_secs_f64() {
            shortfalls.push(format!(
                "the last fault came after {:.0} s, and {} s were asked for",
                self.last(),
                asked.as_secs()
            ));
        }

        for kind in [KAFKA_KILLED, POSTGRES_KILLED] {
            let killed = self.at_work(Some(kind));
            if killed < minutes {
                shortfalls.push(format!(
                    "{kind} {killed} times with work in hand, \
                     and {minutes} times it should have been"
                ));
            }
        }

        let (at_work, least) = (self.at_work(None), A_MINUTE_AT_WORK * minutes);
        if at_work < least {
            shortfalls.push(format!(
                "{at_work} faults met a target with work in hand, and {least} should have"
            ));
        }

        shortfalls
    }

    fn asked(&self) -> Duration {
        Duration::from_secs(60) * self.minutes
    }

    fn in_time(&self) -> usize {
        self.injected.iter().filter(|fault| fault.at <= self.asked()).count()
    }

    /// Returns the time of the last fault, in seconds.
    fn last(&self) -> f64 {
        self.injected.iter().map(|fault| fault.at).max().unwrap_or_default().as_secs_f64()
    }

    fn at_work(&self, kind: Option<&str>) -> usize {
        self.injected
            .iter()
            .filter(|fault| fault.had_work && kind.is_none_or(|kind| fault.kind == kind))
            .count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: &str = "replica killed";

    fn injected(kind: &'static str, seconds: u64, had_work: bool) -> Injected {
        Injected { kind, at: Duration::from_secs(seconds), had_work }
    }

    /// A minute with enough faults: each server is killed once, and a replica every other second.
    fn enough() -> Vec<Injected> {
        let others = (0..24).map(|nth| injected(KILLED, 2 * nth, true));
        [injected(KAFKA_KILLED, 5, true), injected(POSTGRES_KILLED, 15, true)]
            .into_iter()
            .chain(others)
            .collect()
    }

    fn shortfalls(injected: &[Injected], minutes: u32) -> Vec<String> {
        Tally { injected, minutes }.shortfalls()
    }

    #[test]
    fn a_minute_with_enough_faults_has_no_shortfall() {
        assert_eq!(shortfalls(&enough(), 1), Vec::<String>::new());
    }

    #[test]
    fn too_few_faults_are_a_shortfall() {
        assert_eq!(shortfalls(&enough()[..19], 1), ["19 faults came in 60 s, and 20 should have"]);
        assert_eq!(shortfalls(&enough(), 2).len(), 4, "and each server was to be killed twice");
    }

    #[test]
    fn faults_that_came_after_the_time_do_not_count_in_it() {
        let mut faults = enough();
        for fault in &mut faults[2..10] {
            fault.at = Duration::from_secs(80);
        }
        assert_eq!(shortfalls(&faults, 1), ["18 faults came in 60 s, and 20 should have"]);
        faults[2].at = Duration::from_secs(91);
        assert_eq!(
            shortfalls(&faults, 1)[1],
            "the last fault came after 91 s, and 60 s were asked for"
        );
    }

    #[test]
    fn a_server_that_was_killed_while_it_had_no_work_does_not_count() {
        for server in [0, 1] {
            let mut faults = enough();
            faults[server].had_work = false;
            let kind = faults[server].kind;
            assert_eq!(
                shortfalls(&faults, 1),
                [format!("{kind} 0 times with work in hand, and 1 times it should have been")]
            );
        }
    }

    #[test]
    fn idle_targets_are_a_shortfall() {
        let mut faults = enough();
        for fault in &mut faults[2..12] {
            fault.had_work = false;
        }
        assert_eq!(shortfalls(&faults, 1), Vec::<String>::new(), "16 are enough");

        faults[12].had_work = false;
        assert_eq!(
            shortfalls(&faults, 1),
            ["15 faults met a target with work in hand, and 16 should have"]
        );
    }

    #[test]
    fn the_kinds_are_counted() {
        let faults = enough();
        let rows = Tally { injected: &faults, minutes: 1 }.rows();
        assert!(rows.contains(&(KILLED, "24".to_owned())), "{rows:?}");
        assert!(
            rows.contains(&("faults, and those with work in hand", "26, 26".to_owned())),
            "{rows:?}"
        );
        assert!(
            rows.contains(&("servers killed with work in hand", "kafka 1, postgres 1".to_owned())),
            "{rows:?}"
        );
    }
}
