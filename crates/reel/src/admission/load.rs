//! Load: whether the sagas that are open can end in time.
//!
//! Commands are let in faster than sagas can end, and nothing fails at first: each saga waits a
//! little longer than the one before it. Once the wait is as long as the deadlines, all sagas are
//! begun, paid for and undone, and none ends well; and that stays so after the load has fallen,
//! because what waits is enough to keep everybody late. So no more are let in than can end within a
//! share of their time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::database::{ConnectionPool, answered};
use crate::model::Partitions;
use crate::tables::deadlines::{self, OpenSagas};

/// Open sagas up to which every command is let in: too few to measure a rate by.
const ALWAYS_LET_IN: u64 = 1_000;
/// Share of the time from a deadline's setting until it is due that the open sagas may need to end.
const SHARE: f64 = 0.4;
/// Time over which a rate that rises is averaged. One that falls is averaged over as long as sagas
/// may wait, because a pause of one service does not mean that nothing will end in time.
const RISE: Duration = Duration::from_secs(2);
/// Interval in which open sagas are counted.
const COUNT_EVERY: Duration = Duration::from_millis(500);
/// Share of the time that counting may take, if there is much to count.
const COUNT_SHARE: u32 = 20;

/// How many sagas are open, and whether they can end in time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    /// Sagas with a deadline that is set.
    pub(crate) open: u64,
    /// If there are more than can end in time.
    pub(crate) overload: Option<Overload>,
}

/// More sagas are open than can end in time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Overload {
    /// Time that the open ones need to end, at the rate at which sagas end.
    pub(crate) needed: Duration,
    /// Time that they may need.
    pub(crate) allowed: Duration,
}

/// Longest time that an overload reports: no rate is zero for ever.
const LONGEST: Duration = Duration::from_hours(1);

/// Estimates from one count to the next the rate at which sagas end.
#[derive(Debug, Default)]
struct Meter {
    before: Option<OpenSagas>,
    /// In sagas a second.
    rate: f64,
}

impl Meter {
    /// The load by a count, and by the commands that this replica has let in since the last one.
    fn measure(&mut self, count: OpenSagas, let_in: u64) -> Load {
        let (open, allowed) = (count.open, count.time_allowed.mul_f64(SHARE));
        let before = self.before.replace(count);
        let were_few = before.as_ref().is_none_or(|before| before.open <= ALWAYS_LET_IN);

        if let Some(before) = before {
            let elapsed = count.counted_at.since(before.counted_at).as_secs_f64();
            // Few sagas begin and end between two counts: as many end as are let in.
            let ended =
                if were_few { let_in } else { before.open.saturating_sub(count.left_of_before) };
            if elapsed > 0.0 {
                self.average(ended as f64 / elapsed, elapsed, allowed);
            }
        }
        if open <= ALWAYS_LET_IN {
            return Load { open, overload: None };
        }

        // A rate that was never asked for is not known: half of the time is left to measure it.
        if were_few {
            self.rate = self.rate.max(2.0 * open as f64 / allowed.as_secs_f64().max(1.0));
        }
        let needed = Duration::try_from_secs_f64(open as f64 / self.rate);
        let needed = needed.unwrap_or(LONGEST).min(LONGEST);
        let overload = (needed > allowed).then_some(Overload { needed, allowed });
        Load { open, overload }
    }

    fn average(&mut self, measured: f64, elapsed: f64, allowed: Duration) {
        let over = if measured > self.rate { RISE } else { allowed.max(RISE) };
        self.rate += (measured - self.rate) * (1.0 - (-elapsed / over.as_secs_f64()).exp());
    }
}

/// Counts the open sagas of the service again and again, until the process stops.
pub(super) async fn measure(
    database: ConnectionPool,
    partitions: Partitions,
    load: watch::Sender<Load>,
    let_in: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let mut meter = Meter::default();
    let mut pause = COUNT_EVERY;
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        let began = tokio::time::Instant::now();
        match count(&database, partitions, meter.before.as_ref()).await {
            Ok(count) => {
                load.send_replace(meter.measure(count, let_in.swap(0, Ordering::Relaxed)));
            }
            // Nobody is refused for what is not known: that the database is away is told elsewhere.
            Err(error) => {
                tracing::debug!(error = %error, "open sagas cannot be counted");
                meter = Meter::default();
                load.send_replace(Load::default());
            }
        }
        pause = COUNT_EVERY.max(began.elapsed() * COUNT_SHARE);
    }
}

async fn count(
    database: &ConnectionPool,
    partitions: Partitions,
    before: Option<&OpenSagas>,
) -> sqlx::Result<OpenSagas> {
    let mut connection = database.get().await?;
    let before = before.map(|before| before.counted_at);
    let count = answered(deadlines::count_open(&mut connection, partitions, before)).await?;
    connection.give_back();
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    /// Counts a load once a second, with deadlines after ten seconds: `arriving` sagas a second
    /// are let in unless it is overloaded, and `ending` a second end. Returns the last open count,
    /// and the seconds in which nothing was let in.
    fn after(seconds: u64, open: u64, arriving: u64, ending: impl Fn(u64) -> u64) -> (u64, u64) {
        let (mut meter, mut open, mut left, mut refused) = (Meter::default(), open, open, 0);
        let mut let_in = 0;
        for second in 0..seconds {
            let count = OpenSagas {
                open,
                left_of_before: left,
                counted_at: Timestamp::from_micros(second.cast_signed() * 1_000_000),
                time_allowed: Duration::from_secs(10),
            };
            let load = meter.measure(count, let_in);
            left = open.saturating_sub(ending(second));
            open = left;
            let_in = if load.overload.is_none() { arriving } else { 0 };
            open += let_in;
            refused += u64::from(load.overload.is_some());
        }
        (open, refused)
    }

    #[test]
    fn a_load_that_can_end_in_time_is_let_in() {
        assert_eq!(after(60, 0, 900, |_| 1_000).1, 0);
        assert_eq!(after(60, 3_000, 900, |_| 1_000).1, 0, "three seconds' worth is open");
    }

    #[test]
    fn a_load_above_what_ends_is_let_in_up_to_a_share_of_the_deadline() {
        let (open, refused) = after(120, 0, 1_300, |_| 1_000);
        assert!((3_000..6_000).contains(&open), "{open} are open, 1,000 end a second");
        assert!((15..45).contains(&refused), "refused in {refused} of 120 seconds");
    }

    #[test]
    fn few_open_sagas_are_always_let_in_however_slowly_they_end() {
        assert_eq!(after(60, 900, 1, |_| 1).1, 0);
    }

    #[test]
    fn a_short_pause_refuses_nobody_and_a_long_one_does() {
        let pause = |from: u64, length: u64| {
            move |second| if (from..from + length).contains(&second) { 0 } else { 1_000 }
        };
        assert_eq!(after(60, 0, 500, pause(20, 2)).1, 0);
        let (open, refused) = after(60, 0, 500, pause(20, 15));
        assert!(refused > 5, "refused in {refused} seconds");
        assert!(open <= 1_000, "all is well again: {open} are open");
    }

    #[test]
    fn an_overload_says_how_long_the_open_sagas_need() {
        let count = |second: i64, open, left| OpenSagas {
            open,
            left_of_before: left,
            counted_at: Timestamp::from_micros(second * 1_000_000),
            time_allowed: Duration::from_secs(10),
        };
        let mut meter = Meter::default();
        assert_eq!(meter.measure(count(0, 2_000, 0), 0).overload, None);
        for second in 1..40 {
            meter.measure(count(second, 2_000, 1_900), 0);
        }
        let overload = meter.measure(count(40, 2_000, 1_900), 0).overload;
        let overload = overload.expect("100 a second end");
        assert_eq!(overload.allowed, Duration::from_secs(4));
        assert!((19..=21).contains(&overload.needed.as_secs()), "{overload:?}");
    }
}
