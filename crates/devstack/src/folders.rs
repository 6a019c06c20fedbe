//! Where data, caches and logs lie.
//!
//! - The **data folder** (`REEL_DEVSTACK_DIR`, otherwise one in `/var/tmp` named by a hash of the repository's path) holds
//!   `shared/` (the stack that tests share), `own/` (temporary servers) and `ports/` (which of them holds which port).
//!   It is not in the repository because Postgres runs as an unprivileged user if we are root, and that user need not be
//!   able to enter the repository.
//! - The **cache** (`REEL_DEVSTACK_CACHE`, otherwise `reel` in the user's cache folder) holds what is made once: Kafka's
//!   jars, the class archive, a formatted Kafka folder, an initialised database cluster.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use uuid::Uuid;

const KEPT_FOR: Duration = Duration::from_hours(24);

/// The data folder, made if it is missing.
///
/// # Errors
/// If it cannot be made, or belongs to somebody else.
pub fn data() -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let uid = nix::unistd::geteuid();
    let path = env::var_os("REEL_DEVSTACK_DIR")
        .map_or_else(|| format!("/var/tmp/reel-devstack-{}", short_hash(&format!("{} {uid}", repository.display()))).into(), PathBuf::from);
    make_ours(&path)?;
    Ok(path)
}

/// The cache folder, made if it is missing.
///
/// # Errors
/// If it cannot be made, or belongs to somebody else.
pub fn cache() -> Result<PathBuf> {
    let of_user = || {
        let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
        Some(base.join("reel"))
    };
    let path = variable("REEL_DEVSTACK_CACHE").map(PathBuf::from).or_else(of_user);
    let path = path.context("neither REEL_DEVSTACK_CACHE nor HOME is set: say where jars may be kept")?;
    make_ours(&path)?;
    Ok(path)
}

/// A new folder for a temporary server, and the lock that says that its owner lives. Folders of dead owners are removed.
pub(crate) fn temporary(name: &str) -> Result<(PathBuf, File)> {
    let parent = data()?.join("own");
    make_ours(&parent)?;
    sweep(&parent)?;
    let id = Uuid::new_v4().simple().to_string();
    let folder = parent.join(format!("{name}-{}", &id[..12]));
    // The lock is taken before the folder is visible under its name, so that no sweep takes it for a dead owner's.
    let hidden = parent.join(format!(".{}", &id[..12]));
    make_ours(&hidden)?;
    let lock = File::create(hidden.join("lock"))?;
    lock.lock()?;
    fs::rename(&hidden, &folder)?;
    Ok((folder, lock))
}

/// Makes something that is made once: `make` writes to a path beside it, which is then given the final name.
pub(crate) async fn once<F>(path: &Path, make: impl FnOnce(PathBuf) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    if path.exists() {
        return Ok(());
    }
    let _lock = lock(&path.with_added_extension("lock")).await?;
    if path.exists() {
        return Ok(());
    }
    let partial = path.with_added_extension("partial");
    let _ = fs::remove_dir_all(&partial); // of a maker that was killed
    let _ = fs::remove_file(&partial);
    make(partial.clone()).await?;
    Ok(fs::rename(partial, path)?)
}

/// Waits for a lock between processes; it is let go when the file is dropped.
pub(crate) async fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("cannot lock")
}

/// Marks a temporary folder as one to look into: it stays for a day.
pub(crate) fn keep(folder: &Path) -> Result<()> {
    Ok(fs::write(folder.join("keep"), "")?)
}

fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        let folder = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let kept = fs::metadata(folder.join("keep")).and_then(|keep| keep.modified());
        if kept.is_ok_and(|since| since.elapsed().is_ok_and(|age| age < KEPT_FOR)) {
            continue;
        }
        let owner_is_dead = File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if owner_is_dead {
            // Another process may sweep at the same moment; whoever comes second finds nothing.
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(())
}

/// Copies a folder with owners and modes, as a file system copy (reflink) where that is possible.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let output = Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).output().await?;
    if !output.status.success() {
        bail!("cannot copy {} to {}: {}", from.display(), to.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Makes a folder, or checks that the one that is there belongs to us: in `/var/tmp` anybody could have made it.
pub(crate) fn make_ours(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let owner = fs::metadata(path)?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        bail!("{} belongs to user {owner}: remove it, or set REEL_DEVSTACK_DIR to another folder", path.display());
    }
    Ok(())
}

/// A variable that is set to nothing counts as not set, as for the programs of a shell.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Eight hexadecimal digits that stand for `text`.
pub(crate) fn short_hash(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()[..8].to_owned()
}
