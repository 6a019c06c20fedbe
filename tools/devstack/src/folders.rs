//! The folders of data, caches and logs.
//!
//! - The **data folder** (`REEL_DEVSTACK_DIR`, otherwise one in `/var/tmp` named by a hash of the
//!   repository's path) has `shared/` (the stack that tests share), `own/` (temporary servers) and
//!   `ports/` (locks of the ports in use). It is not in the repository, because Postgres runs as an
//!   unprivileged user if we are root, and that user may be unable to enter the repository.
//! - The **cache** (`REEL_DEVSTACK_CACHE`, otherwise `reel` in the user's cache folder) has what is
//!   made only once: Kafka's jars, the class archive, a formatted Kafka folder, an initialised
//!   database cluster.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use uuid::Uuid;

/// Time for which [`keep`] keeps a folder.
const KEPT_FOR: Duration = Duration::from_hours(24);

/// The data folder, created if it is missing.
///
/// # Errors
/// If it cannot be created, or belongs to another user.
pub fn data() -> Result<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let uid = nix::unistd::geteuid();
    let path = env::var_os("REEL_DEVSTACK_DIR").map_or_else(
        || {
            format!(
                "/var/tmp/reel-devstack-{}",
                short_hash(&format!("{} {uid}", repository.display()))
            )
            .into()
        },
        PathBuf::from,
    );
    create_ours(&path)?;
    Ok(path)
}

/// The cache folder, created if it is missing.
///
/// # Errors
/// If it cannot be created, or belongs to another user.
pub fn cache() -> Result<PathBuf> {
    let of_user = || {
        let base = variable("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".cache")))?;
        Some(base.join("reel"))
    };
    let path = variable("REEL_DEVSTACK_CACHE").map(PathBuf::from).or_else(of_user);
    let path = path.context("neither REEL_DEVSTACK_CACHE nor HOME is set: set one of them")?;
    create_ours(&path)?;
    Ok(path)
}

/// Creates a folder for a temporary server, and takes the lock that shows that its owner is alive.
/// Removes the folders of dead owners.
pub(crate) fn temporary(name: &str) -> Result<(PathBuf, File)> {
    let parent = data()?.join("own");
    create_ours(&parent)?;
    sweep(&parent)?;
    let id = Uuid::new_v4().simple().to_string();
    let folder = parent.join(format!("{name}-{}", &id[..12]));

    // Take the lock before the folder gets its name: otherwise a sweep could take its owner for
    // dead.
    let hidden = parent.join(format!(".{}", &id[..12]));
    create_ours(&hidden)?;
    let lock = File::create(hidden.join("lock"))?;
    lock.lock()?;
    fs::rename(&hidden, &folder)?;
    Ok((folder, lock))
}

/// Makes `path` unless it exists, once for all processes: `make` writes to a path beside it, which
/// is then renamed.
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
    let _ = fs::remove_dir_all(&partial); // left by a process that was killed
    let _ = fs::remove_file(&partial);
    make(partial.clone()).await?;
    Ok(fs::rename(partial, path)?)
}

/// Waits for a lock between processes. It is released when the file is dropped.
pub(crate) async fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("cannot open {}", path.display()))?;
    tokio::task::spawn_blocking(move || file.lock().map(|()| file)).await?.context("cannot lock")
}

/// Keeps a temporary folder for a day, so that somebody can look into it.
pub(crate) fn keep(folder: &Path) -> Result<()> {
    Ok(fs::write(folder.join("keep"), "")?)
}

/// Removes the temporary folders whose owners are dead.
fn sweep(parent: &Path) -> Result<()> {
    for entry in fs::read_dir(parent)?.flatten() {
        let folder = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue; // still being created
        }

        let kept = fs::metadata(folder.join("keep")).and_then(|keep| keep.modified());
        if kept.is_ok_and(|since| since.elapsed().is_ok_and(|age| age < KEPT_FOR)) {
            continue;
        }

        let owner_is_dead =
            File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_ok());
        if owner_is_dead {
            // May fail, because another process may be removing the folder too.
            let _ = fs::remove_dir_all(&folder);
        }
    }
    Ok(())
}

/// Copies a folder with owners and modes, as a reflink if the file system can.
pub(crate) async fn copy(from: &Path, to: &Path) -> Result<()> {
    let output =
        Command::new("cp").args(["-a", "--reflink=auto", "--"]).arg(from).arg(to).output().await?;
    if !output.status.success() {
        bail!(
            "cannot copy {} to {}: {}",
            from.display(),
            to.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Creates a folder, or checks that the existing one belongs to us: in `/var/tmp`, anybody could
/// have created it.
pub(crate) fn create_ours(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    let owner = fs::metadata(path)?.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        bail!(
            "{} belongs to user {owner}: remove it, or set REEL_DEVSTACK_DIR to another folder",
            path.display()
        );
    }
    Ok(())
}

/// An environment variable; an empty one counts as not set.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// A hash of `text` with eight hexadecimal digits.
pub(crate) fn short_hash(text: &str) -> String {
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).simple().to_string()[..8].to_owned()
}
