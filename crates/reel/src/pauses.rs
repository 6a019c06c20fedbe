//! Pauses between tries: longer and longer, with jitter, so that replicas that were cut off
//! together do not all come back at once.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// Pauses that double from the first to the longest; jitter adds up to as much again.
#[derive(Debug)]
pub(crate) struct Pauses {
    builder: ExponentialBuilder,
    pauses: ExponentialBackoff,
}

impl Pauses {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let builder = ExponentialBuilder::new()
            .with_min_delay(first)
            .with_max_delay(longest)
            .with_factor(2.0)
            .with_jitter()
            .without_max_times();
        Self { builder, pauses: builder.build() }
    }

    /// The pause before the next try.
    pub(crate) fn next(&mut self) -> Duration {
        self.pauses.next().unwrap_or_default()
    }

    /// A try succeeded: the next failure pauses briefly again.
    pub(crate) fn reset(&mut self) {
        self.pauses = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_restart_after_a_success() {
        let (first, longest) = (Duration::from_millis(50), Duration::from_millis(300));
        let mut pauses = Pauses::new(first, longest);
        for least in [50, 100, 200, 300, 300, 300] {
            let least = Duration::from_millis(least);
            let pause = pauses.next();
            assert!((least..=2 * least).contains(&pause), "{pause:?} for {least:?}");
        }
        pauses.reset();
        assert!(pauses.next() <= 2 * first);
    }
}
