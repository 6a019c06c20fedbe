//! Reads the file with the keys of tokens again, so that an issuer can rotate them while the service
//! runs. It is looked at in an interval: no request reads it, whatever its token names.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reel_http::Verifier;
use tokio_util::sync::CancellationToken;

/// Interval in which the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Follows the file until the process stops. If it cannot be used, the keys before it stay.
pub(super) async fn follow(file: PathBuf, verifier: Arc<Verifier>, stop: CancellationToken) {
    let mut known = std::fs::read_to_string(&file).unwrap_or_default();
    let mut reported = String::new();
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        match look(&file, &mut known, &verifier).await {
            Ok(false) => {}
            Ok(true) => {
                reported.clear();
                tracing::info!(
                    event.code = "http.keys_changed",
                    "tokens are verified by other keys"
                );
            }
            Err(reason) if reason != reported => {
                tracing::warn!(
                    event.code = "http.keys_unusable", file = %file.display(), reason,
                    "the keys of tokens cannot be read again; those before stay"
                );
                reported = reason;
            }
            Err(_) => {}
        }
    }
}

/// Looks at the file once. Returns whether there are other keys now.
async fn look(file: &Path, known: &mut String, verifier: &Verifier) -> Result<bool, String> {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
    let text = read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
    if text == *known {
        return Ok(false);
    }
    verifier.replace_keys(&text)?;
    *known = text;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use reel_http::Expected;

    use super::*;

    #[tokio::test]
    async fn a_file_that_changed_is_read_again_and_one_that_is_broken_changes_nothing() {
        let file = std::env::temp_dir().join(format!("reel-keys-{}", uuid::Uuid::now_v7()));
        let mut known = "a secret of more than thirty-two bytes".to_owned();
        std::fs::write(&file, &known).expect("a file");
        let verifier = Verifier::new(&known, Expected::default()).expect("a secret");
        assert_eq!(look(&file, &mut known, &verifier).await, Ok(false));

        std::fs::write(&file, "short").expect("a file");
        assert!(look(&file, &mut known, &verifier).await.is_err());
        std::fs::write(&file, "another secret of more than thirty-two bytes").expect("a file");
        assert_eq!(look(&file, &mut known, &verifier).await, Ok(true));
        std::fs::remove_file(&file).expect("it is there");
        assert!(look(&file, &mut known, &verifier).await.is_err());
    }
}
