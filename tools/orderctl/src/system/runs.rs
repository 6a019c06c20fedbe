//! The folders of systems that end with the processes that created them: logs, and what to drop if
//! such a process was killed.
//!
//! A process holds the `lock` of its system's folder as long as it lives. A later process that
//! finds the lock free drops what is left, unless the system was kept.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::SystemOptions;

const LOCK: &str = "lock";
const KEEP: &str = "keep";
const OWNED: &str = "system.json";
/// Time for which logs are kept.
const KEPT_FOR: Duration = Duration::from_hours(24);
const DROP_WITHIN: Duration = Duration::from_secs(15);

/// The folder of a system, with its lock.
pub(super) struct Run {
    pub(super) folder: PathBuf,
    _lock: Option<File>,
}

/// What a system has created.
#[derive(Serialize, Deserialize, PartialEq)]
struct Owned {
    kafka: String,
    postgres_admin: String,
    prefix: String,
}

impl Run {
    /// Returns the folder that the options name, which is never swept; or else a new one, after the
    /// remains of dead processes have been dropped.
    pub(super) async fn new(options: &SystemOptions) -> Result<Self> {
        if let Some(folder) = &options.folder {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            return Ok(Self { folder: folder.clone(), _lock: None });
        }

        let runs = devstack::folders::data()?.join("runs");
        fs::create_dir_all(&runs)?;
        sweep(&runs, options).await?;

        let (hidden, folder) =
            (runs.join(format!(".{}", options.suffix())), runs.join(options.suffix()));
        fs::create_dir(&hidden)
            .with_context(|| format!("cannot make {}: is the prefix in use?", hidden.display()))?;

        // Take the lock before the folder has its name, so that no sweep mistakes it for that of a
        // dead process.
        let lock = File::create(hidden.join(LOCK))?;
        lock.lock()?;
        let SystemOptions { kafka, postgres_admin, prefix, .. } = options.clone();
        fs::write(
            hidden.join(OWNED),
            serde_json::to_vec(&Owned { kafka, postgres_admin, prefix })?,
        )?;
        fs::rename(&hidden, &folder)?;
        Ok(Self { folder, _lock: Some(lock) })
    }

    /// Keeps the folder for a day, and the databases and topics for good.
    pub(super) fn keep(&self) {
        let _ = fs::write(self.folder.join(KEEP), "");
    }
}

/// Drops what dead processes have left on these servers, and removes their folders.
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
        let owned = fs::read(folder.join(OWNED))
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Owned>(&bytes).ok());
        let owned = owned.filter(|owned| {
            owned.kafka == ours.kafka && owned.postgres_admin == ours.postgres_admin
        });
        if let Some(Owned { prefix, .. }) = owned.filter(|_| !folder.join(KEEP).exists()) {
            let theirs = SystemOptions { prefix, ..ours.clone() };
            // If this fails, the next process tries again.
            if tokio::time::timeout(DROP_WITHIN, super::drop_everything(&theirs))
                .await
                .is_ok_and(|dropped| dropped.is_ok())
            {
                let _ = fs::remove_dir_all(&folder);
            }
        } else {
            // The databases are kept, or gone with their servers.
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(())
}
