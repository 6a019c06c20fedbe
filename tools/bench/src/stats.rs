//! The arithmetic of measurements: pure.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The median: the middle value, or the mean of the two middle ones. `None` if there are none.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(upper) } else { Some((sorted[middle - 1] + upper) / 2.0) }
}

/// The rate of a machine that does one thing at rate `r` and then another one at rate `p`:
/// 1/(1/r + 1/p).
#[must_use]
pub fn bound(r: f64, p: f64) -> f64 {
    1.0 / (1.0 / r + 1.0 / p)
}

/// The rate a second of a number of things in a given time.
#[must_use]
pub fn rate(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

/// The time from `from` after which at least `rate` things a second happened until `to`, in each
/// window of five seconds; `None` if there is none. Times are in microseconds.
#[must_use]
pub fn steady_from(times: &[i64], from: i64, to: i64, rate: f64) -> Option<Duration> {
    let window = i64::try_from(WINDOW.as_micros()).unwrap_or(i64::MAX);
    let enough = |start: &i64| {
        let happened = times.iter().filter(|at| (*start..*start + window).contains(*at)).count();
        happened as f64 >= rate * WINDOW.as_secs_f64()
    };
    let starts = (0..).map(|nth| from + nth * 1_000_000).take_while(|start| start + window <= to);
    let starts: Vec<i64> = starts.collect();
    let steady = starts.iter().rev().take_while(|start| enough(start)).last()?;
    Some(Duration::from_micros(u64::try_from(steady - from).unwrap_or(0)))
}

/// The time over which a rate is taken that has to be steady.
const WINDOW: Duration = Duration::from_secs(5);

/// A distribution of times in microseconds, to three significant digits.
#[derive(Debug, Clone)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are between zero and five"))
    }
}

impl Times {
    /// Records a time in microseconds; a negative one counts as zero.
    pub fn record(&mut self, micros: i64) {
        self.0.record(u64::try_from(micros).unwrap_or(0)).expect("it resizes itself");
    }

    /// Records a time.
    pub fn record_duration(&mut self, time: Duration) {
        self.record(i64::try_from(time.as_micros()).unwrap_or(i64::MAX));
    }

    /// A percentile, in milliseconds.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1_000.0
    }

    /// Number of recorded times.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Adds all times of another distribution.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("it resizes itself");
    }
}

/// A search for the highest sustained rate: it doubles the rate while that is sustained, then
/// halves the interval.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    sustained: Option<f64>,
    failed: Option<f64>,
    next: f64,
    within: f64,
}

impl Search {
    /// A search that begins at rate `first` and has a relative precision of `within`.
    #[must_use]
    pub fn from(first: f64, within: f64) -> Self {
        Self { sustained: None, failed: None, next: first, within }
    }

    /// The rate to try next; `None` once the search has ended.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        let known = |(sustained, failed): (f64, f64)| failed - sustained <= sustained * self.within;
        let hopeless = self.sustained.is_none() && self.next < 1.0;
        (!hopeless && !self.sustained.zip(self.failed).is_some_and(known)).then_some(self.next)
    }

    /// Records whether the last rate was sustained.
    pub fn record(&mut self, sustained: bool) {
        if sustained {
            self.sustained = Some(self.next);
        } else {
            self.failed = Some(self.next);
        }
        self.next = match (self.sustained, self.failed) {
            (Some(sustained), Some(failed)) => f64::midpoint(sustained, failed),
            (Some(sustained), None) => sustained * 2.0,
            (None, _) => self.next / 2.0,
        };
    }

    /// The highest sustained rate, if any.
    #[must_use]
    pub fn found(&self) -> Option<f64> {
        self.sustained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_steady_from_when_no_window_has_too_few() {
        // Ten a second from second 7 on.
        let times: Vec<i64> = (70..300).map(|tenth| tenth * 100_000).collect();
        let steady = steady_from(&times, 0, 30_000_000, 9.9);
        assert_eq!(steady, Some(Duration::from_secs(7)));
        assert_eq!(steady_from(&times, 0, 30_000_000, 10.5), None);
    }

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn two_equal_rates_bound_each_other_to_a_half() {
        assert!((bound(100.0, 100.0) - 50.0).abs() < 1e-9);
        assert!((bound(300_000.0, 150_000.0) - 100_000.0).abs() < 1e-6);
    }

    #[test]
    fn percentiles_are_those_of_all_recorded_times() {
        let (mut low, mut high) = (Times::default(), Times::default());
        (1..=100).for_each(|ms| low.record(ms * 1_000));
        (101..=200).for_each(|ms| high.record(ms * 1_000));
        low.add(&high);
        assert_eq!(low.count(), 200);
        assert!((low.percentile(50.0) - 100.0).abs() < 0.2);
        assert!((low.percentile(99.0) - 198.0).abs() < 0.2);
    }

    fn searched(limit: f64, first: f64) -> (Option<f64>, usize) {
        let mut search = Search::from(first, 0.05);
        let mut tries = 0;
        while let Some(rate) = search.next() {
            search.record(rate <= limit);
            tries += 1;
        }
        (search.found(), tries)
    }

    #[test]
    fn a_search_finds_the_highest_rate_from_below_and_from_above() {
        for (limit, first) in [(1_234.0, 50.0), (1_234.0, 10_000.0), (50.0, 50.0)] {
            let (found, tries) = searched(limit, first);
            let found = found.expect("there is one");
            assert!(
                found <= limit && found >= limit * 0.95 && tries < 16,
                "{found} of {limit} in {tries}"
            );
        }
    }

    #[test]
    fn a_search_for_what_is_never_sustained_ends_with_nothing() {
        assert_eq!(searched(0.0, 100.0).0, None);
    }
}
