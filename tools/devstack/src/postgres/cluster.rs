//! The database cluster in the folder of a server: copied from a template, and started with
//! settings for development.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};
use sqlx::{Connection, PgConnection};
use tokio::process::Command;

use super::programs::{Programs, unprivileged_user};
use crate::folders;
use crate::server::{DATA, Kind, Launch};

/// Settings of servers on this machine.
const LOCAL_SETTINGS: [&str; 2] = ["listen_addresses=127.0.0.1", "unix_socket_directories="];
/// Settings of all servers. `fsync` and `synchronous_commit` stay on, because the guarantees of
/// Reel depend on them.
pub(crate) const SETTINGS: [&str; 9] = [
    "max_connections=500",
    "shared_buffers=256MB",
    "fsync=on",
    "synchronous_commit=on",
    "max_wal_size=2GB",
    "checkpoint_timeout=15min",
    "jit=off",
    "logging_collector=off",
    "log_line_prefix=%m [%p] %q%u@%d ",
];

pub(crate) struct Postgres {
    /// Additional settings, as `name=value`.
    pub(crate) settings: Vec<String>,
}

impl Kind for Postgres {
    const NAME: &'static str = "postgres";
    const PORTS: usize = 1;
    /// Fast shutdown: ends the sessions and writes a checkpoint.
    const STOP: Signal = Signal::SIGINT;

    async fn prepare(&self, folder: &Path, ports: &[u16]) -> Result<Launch> {
        let programs = Programs::find().await?;
        let user = unprivileged_user()?;

        let data = folder.join(DATA);
        if !data.join("PG_VERSION").exists() {
            let _ = fs::remove_dir_all(&data); // of an interrupted copy
            folders::copy(&template(&programs, user).await?, &data).await?;
        }

        check_version(&programs, &data)?;
        check_access(user, &data).await?;
        remove_stale_pid_file(&data)?;

        let settings = LOCAL_SETTINGS
            .iter()
            .chain(&SETTINGS)
            .copied()
            .chain(self.settings.iter().map(String::as_str));
        let mut args =
            vec!["-D".into(), data.into_os_string(), "-p".into(), ports[0].to_string().into()];
        args.extend(settings.flat_map(|setting| ["-c".into(), setting.into()]));

        // SIGQUIT is an immediate shutdown: no checkpoint, but it leaves no shared memory behind.
        Ok(Launch {
            program: programs.folder.join("postgres"),
            args,
            user,
            end_signal: Signal::SIGQUIT,
        })
    }

    async fn probe(port: u16) -> Result<()> {
        let mut connection = PgConnection::connect(&super::url(port)).await?;
        sqlx::query("select 1").execute(&mut connection).await?;
        Ok(connection.close().await?)
    }
}

/// An empty cluster, made once per version.
async fn template(programs: &Programs, user: Option<(Uid, Gid)>) -> Result<PathBuf> {
    let cached = folders::cache()?.join(format!("postgres-{}", programs.version));
    folders::once(&cached, |partial: PathBuf| async move {
        // Not in the cache, because the unprivileged user may be unable to enter it.
        let (folder, _lock) = folders::temporary("initdb")?;
        let data = folder.join(DATA);
        fs::create_dir(&data)?;
        if let Some((uid, gid)) = user {
            chown(&data, Some(uid.as_raw()), Some(gid.as_raw()))?;
        }

        let mut initdb = Command::new(programs.folder.join("initdb"));
        initdb
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "--no-instructions",
                "-D",
            ])
            .arg(&data);
        initdb.current_dir(&folder).env("LC_ALL", "C");
        if let Some((uid, gid)) = user {
            initdb.uid(uid.as_raw()).gid(gid.as_raw());
        }

        let output = initdb.output().await.with_context(|| format!("cannot run {initdb:?}"))?;
        if !output.status.success() {
            bail!("{initdb:?} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        folders::copy(&data, &partial).await?;
        Ok(fs::remove_dir_all(folder)?)
    })
    .await?;
    Ok(cached)
}

fn check_version(programs: &Programs, data: &Path) -> Result<()> {
    let of_data = fs::read_to_string(data.join("PG_VERSION"))?;
    if programs.version.split('.').next() != Some(of_data.trim()) {
        let (data, of_data, found) = (data.display(), of_data.trim(), &programs.version);
        bail!(
            "{data} was created by postgres {of_data}, but postgres {found} is installed: \
             remove that folder"
        );
    }
    Ok(())
}

async fn check_access(user: Option<(Uid, Gid)>, data: &Path) -> Result<()> {
    let Some((uid, gid)) = user else { return Ok(()) };
    let mut test = Command::new("/bin/sh");
    test.args(["-c", r#"cd "$1" 2>&-"#, "sh"])
        .arg(data)
        .current_dir("/")
        .uid(uid.as_raw())
        .gid(gid.as_raw());
    if !test.status().await?.success() {
        bail!(
            "user {uid} cannot enter {}: set REEL_DEVSTACK_DIR to another folder",
            data.display()
        );
    }
    Ok(())
}

/// Removes the pid file of a killed server. Postgres does so itself, unless another process has
/// that id by now.
fn remove_stale_pid_file(data: &Path) -> Result<()> {
    let path = data.join("postmaster.pid");
    let text = fs::read_to_string(&path).unwrap_or_default();
    let is_taken =
        text.lines().next().is_some_and(|pid| Path::new("/proc").join(pid.trim()).exists());
    if is_taken {
        fs::remove_file(path)?; // the caller has checked that no server runs in this folder
    }
    Ok(())
}
