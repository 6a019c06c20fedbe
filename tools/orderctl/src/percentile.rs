//! Percentiles of durations.

use std::time::Duration;

/// Returns a percentile of sorted values, by nearest rank; zero if there are none.
pub(crate) fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<Duration> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(
            [50, 95, 99].map(|percent| percentile(&values, percent).as_millis()),
            [100, 190, 198]
        );
        assert_eq!(percentile(&values[..1], 99).as_millis(), 1);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
