//! Waiting for a condition with a time limit, which tests do instead of sleeping.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Calls `probe` until it returns a value.
///
/// `what` completes the sentence "waited 5s for ...". An error of `probe` ends the wait at once:
/// return `Ok(None)` for "not yet". The pause between two calls grows from 5 ms to 100 ms.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(path: &std::path::Path) -> anyhow::Result<()> {
/// let exists = || async { Ok(path.exists().then_some(())) };
/// devstack::wait::until(Duration::from_secs(5), "the file", exists).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// If `probe` fails, or the limit has passed.
pub async fn until<T, F>(limit: Duration, what: &str, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_millis(5);
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what}");
        }
        sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(100));
    }
}
