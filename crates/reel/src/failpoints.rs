//! Every point at which a process can die and leave work half done, by name.
//!
//! With the feature `failpoints`, which test builds have and release builds lack, a process whose
//! environment variable `REEL_FAILPOINT` names a point aborts when it gets there: no unwinding, no
//! goodbye. `tests/tests/failpoints.rs` goes through all of them.

/// A batch was gathered and nothing of it was done.
pub const STEP_BATCH_READ: &str = "step.batch_read";
/// The rows of a batch were loaded and locked.
pub const STEP_ROWS_LOADED: &str = "step.rows_loaded";
/// Everything was written and nothing committed.
pub const STEP_BEFORE_COMMIT: &str = "step.before_commit";
/// The batch was committed, and nobody knows it yet.
pub const STEP_AFTER_COMMIT: &str = "step.after_commit";
/// Rows of the outbox were read and not sent.
pub const RELAY_ROWS_READ: &str = "relay.rows_read";
/// Records were handed to the producer and not acked.
pub const RELAY_PRODUCED: &str = "relay.produced";
/// Records were acked and the cursor was not advanced.
pub const RELAY_ACKED: &str = "relay.acked";
/// A lane was acquired, and its positions were not read yet.
pub const LANE_ACQUIRED: &str = "lane.acquired";
/// A lane has left the step and the relay, and its lease still runs.
pub const LANE_HANDED_OVER: &str = "lane.handed_over";
/// A command was committed and its reply not sent.
pub const COMMAND_COMMITTED: &str = "command.committed";
/// Due deadlines were read and not decided.
pub const DEADLINE_DUE: &str = "deadline.due";
/// A deadline was decided and not committed.
pub const DEADLINE_BEFORE_COMMIT: &str = "deadline.before_commit";
/// The tables are there and no lane was acquired.
pub const START_MIGRATED: &str = "start.migrated";

/// All of them.
pub const ALL: [&str; 13] = [
    STEP_BATCH_READ,
    STEP_ROWS_LOADED,
    STEP_BEFORE_COMMIT,
    STEP_AFTER_COMMIT,
    RELAY_ROWS_READ,
    RELAY_PRODUCED,
    RELAY_ACKED,
    LANE_ACQUIRED,
    LANE_HANDED_OVER,
    COMMAND_COMMITTED,
    DEADLINE_DUE,
    DEADLINE_BEFORE_COMMIT,
    START_MIGRATED,
];

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature failpoints is for test builds: build releases without it");

/// The process is at this point.
#[inline]
pub(crate) fn reached(point: &'static str) {
    #[cfg(feature = "failpoints")]
    {
        static WANTED: std::sync::LazyLock<Option<String>> =
            std::sync::LazyLock::new(|| std::env::var("REEL_FAILPOINT").ok());
        if WANTED.as_deref() == Some(point) {
            eprintln!("failpoint {point}: aborting");
            std::process::abort();
        }
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}
