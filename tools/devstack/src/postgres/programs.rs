//! The programs of Postgres on this machine: those of Debian's packages, or the `postgres` on the
//! PATH.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result, bail};
use nix::unistd::{Gid, Uid, User};
use tokio::process::Command;

const OLDEST: u32 = 15;
const HINT: &str =
    "install one (Debian: apt-get install postgresql) or set REEL_KAFKA and REEL_POSTGRES";

/// The folder of `postgres` and `initdb`, and their version.
pub(super) struct Programs {
    pub(super) folder: PathBuf,
    /// As `postgres --version` prints it: `15.18`, `18.6`.
    pub(super) version: String,
}

impl Programs {
    /// The newest Postgres of Debian's packages, or else the first on the PATH, that is not too
    /// old.
    ///
    /// # Errors
    /// If there is none.
    pub(super) async fn find() -> Result<Self> {
        Self::among(candidates()).await
    }

    async fn among(candidates: Vec<PathBuf>) -> Result<Self> {
        let mut too_old = Vec::new();
        for postgres in candidates {
            let Some(version) = version(&postgres).await else { continue };
            if major(&version) >= OLDEST {
                let folder = postgres.parent().context("a program has a parent folder")?.to_owned();
                return Ok(Self { folder, version });
            }
            too_old.push(format!("postgres {version} ({}) is too old", postgres.display()));
        }
        if too_old.is_empty() {
            bail!("found no postgres: {HINT}");
        }
        bail!("{}, {OLDEST} or newer is needed: {HINT}", too_old.join(", "))
    }
}

/// The user that the server runs as if we are root, because Postgres refuses to run as root.
pub(super) fn unprivileged_user() -> Result<Option<(Uid, Gid)>> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    let user = User::from_name("postgres")?.or(User::from_name("nobody")?);
    let user = user.context(
        "postgres refuses to run as root, and there is no user postgres or nobody: add one",
    )?;
    Ok(Some((user.uid, user.gid)))
}

fn candidates() -> Vec<PathBuf> {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut debian: Vec<_> = debian.collect();
    debian.sort_by_key(|folder| {
        folder.file_name().and_then(OsStr::to_str).and_then(|name| name.parse::<u32>().ok())
    });
    let debian = debian.into_iter().rev().map(|folder| folder.join("bin/postgres"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path: Vec<_> = env::split_paths(&path).map(|folder| folder.join("postgres")).collect();
    // Follows links, because `initdb` is beside the program and not beside the link.
    debian.chain(path).filter_map(|postgres| postgres.canonicalize().ok()).collect()
}

async fn version(postgres: &Path) -> Option<String> {
    let output = Command::new(postgres).arg("--version").output().await.ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.strip_prefix("postgres (PostgreSQL) ")?.split_whitespace().next()?.to_owned())
}

/// The major version: 15 of `15.18`, 9 of `9.6.24`, 19 of `19beta1`.
fn major(version: &str) -> u32 {
    let digits = version.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn fake(folder: &Path, version: &str) -> PathBuf {
        let path = folder.join(version).join("postgres");
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version} (Debian)'\n"))
            .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn a_postgres_that_is_too_old_is_refused_by_name_and_version() {
        let folder = tempfile::tempdir().unwrap();
        let old = [fake(folder.path(), "14.9"), fake(folder.path(), "9.6.24")];
        let error = Programs::among(old.to_vec()).await.err().unwrap().to_string();
        for part in [
            "postgres 14.9",
            "postgres 9.6.24",
            "too old",
            "15 or newer",
            &old[0].display().to_string(),
        ] {
            assert!(error.contains(part), "{part} is missing in: {error}");
        }
    }

    #[tokio::test]
    async fn an_old_postgres_does_not_hide_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let found = Programs::among(vec![fake(folder.path(), "14.9"), fake(folder.path(), "18.6")])
            .await
            .unwrap();
        assert_eq!(found.version, "18.6");
    }

    #[tokio::test]
    async fn without_any_postgres_the_error_says_what_to_install() {
        let error = Programs::among(vec![]).await.err().unwrap().to_string();
        assert!(error.contains("apt-get install postgresql"), "{error}");
    }
}
