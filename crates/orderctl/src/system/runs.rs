//! The folders of systems that end with their makers: logs, and what to drop if the maker was killed.
//!
//! A folder's `lock` is held while its maker lives. Whoever comes later finds the lock free and drops what is left, unless
//! the system was kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::SystemOptions;

const LOCK: &str = "lock";
const KEEP: &str = "keep";
const OWNED: &str = "system.json";
/// Logs that are kept stay for a day.
const KEPT_FOR: Duration = Duration::from_hours(24);
const DROP_WITHIN: Duration = Duration::from_secs(15);

/// The folder of a system.
pub(super) struct Run {
    pub(super) folder: PathBuf,
    _lock: Option<File>,
}

/// What a system has made.
#[derive(Serialize, Deserialize, PartialEq)]
struct Owned {
    kafka: String,
    postgres_admin: String,
    prefix: String,
}

impl Run {
    /// A folder that is given, and swept by nobody; or else a new one, after the remains of dead makers have been dropped.
    pub(super) async fn new(options: &SystemOptions) -> Result<Self> {
        if let Some(folder) = &options.folder {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
            return Ok(Self { folder: folder.clone(), _lock: None });
        }
        let runs = devstack::folders::data()?.join("runs");
        fs::create_dir_all(&runs)?;
        sweep(&runs, options).await?;
        let (hidden, folder) = (runs.join(format!(".{}", options.suffix())), runs.join(options.suffix()));
        fs::create_dir(&hidden).with_context(|| format!("cannot make {}: is the prefix in use?", hidden.display()))?;
        // The lock is taken before the folder is visible under its name, so that no sweep takes it for a dead maker's.
        let lock = File::create(hidden.join(LOCK))?;
        lock.lock()?;
        let SystemOptions { kafka, postgres_admin, prefix, .. } = options.clone();
        fs::write(hidden.join(OWNED), serde_json::to_vec(&Owned { kafka, postgres_admin, prefix })?)?;
        fs::rename(&hidden, &folder)?;
        Ok(Self { folder, _lock: Some(lock) })
    }

    /// Lets the folder stay for a day, and what was made for good.
    pub(super) fn keep(&self) {
        let _ = fs::write(self.folder.join(KEEP), "");
    }
}

async fn sweep(runs: &Path, ours: &SystemOptions) -> Result<()> {
    for entry in fs::read_dir(runs)?.flatten() {
        let folder = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let Ok(lock) = File::open(folder.join(LOCK)) else { continue };
        let kept = fs::metadata(folder.join(KEEP)).and_then(|keep| keep.modified());
        let is_kept = kept.is_ok_and(|since| since.elapsed().is_ok_and(|age| age < KEPT_FOR));
        if is_kept || lock.try_lock().is_err() {
            continue;
        }
        let owned = fs::read(folder.join(OWNED)).ok().and_then(|bytes| serde_json::from_slice::<Owned>(&bytes).ok());
        let owned = owned.filter(|owned| owned.kafka == ours.kafka && owned.postgres_admin == ours.postgres_admin);
        if let Some(Owned { prefix, .. }) = owned.filter(|_| !folder.join(KEEP).exists()) {
            let theirs = SystemOptions { prefix, ..ours.clone() };
            // If it does not work now, the next one tries again.
            if tokio::time::timeout(DROP_WITHIN, super::drop_everything(&theirs)).await.is_ok_and(|dropped| dropped.is_ok()) {
                let _ = fs::remove_dir_all(&folder);
            }
        } else {
            let _ = fs::remove_dir_all(&folder); // the servers are gone, and all databases with them
        }
    }
    Ok(())
}
