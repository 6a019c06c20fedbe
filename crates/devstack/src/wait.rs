//! Waiting for a condition with a limit, which is what tests do instead of sleeping.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Asks `probe` again and again until it gives a value.
///
/// `what` completes the sentence "waited 5s for ...". An error of `probe` ends the wait at once: return `Ok(None)` for
/// "not yet". The pause between two questions grows from 5 ms to 100 ms.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(path: &std::path::Path) -> anyhow::Result<()> {
/// devstack::wait::until(Duration::from_secs(5), "the file", || async { Ok(path.exists().then_some(())) }).await?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// The probe's own error, or that the limit has passed.
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
