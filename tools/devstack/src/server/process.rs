//! The processes of a server, which are found and signalled by id and never by name.
//!
//! A process id in a file may be old, and another process may have it by now. So a process counts
//! as ours only if its working directory is the server's folder (its command line would do too, but
//! is empty for a moment during `exec`). Postgres' children leave the session of their parent and
//! outlive it for a while when it is killed; they are found because their working directory is the
//! data folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// Time limit for all processes of a server to end.
const EXIT_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    folder: PathBuf,
}

impl Process {
    pub(crate) fn new(pid: i32, folder: &Path) -> Self {
        Self { pid, folder: folder.to_owned() }
    }

    /// Whether a process with this id is running. That is enough for one that was just started: its
    /// working directory cannot be read during `exec`, nor without permission.
    pub(crate) fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|stat| !stat.is_dead)
    }

    /// Whether the process is running and is the server of this folder.
    pub(crate) fn is_alive(&self) -> bool {
        self.runs() && working_directory(self.pid).is_some_and(|cwd| cwd.starts_with(&self.folder))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.is_alive() { send(self.pid, signal) } else { Ok(()) }
    }

    /// Signals the server and all its children.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        self.all().into_iter().try_for_each(|pid| send(pid, signal))
    }

    /// Kills the server, its children and the orphans of an earlier kill, and waits until all are
    /// gone.
    pub(crate) async fn kill_all(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?; // so that it forks no child meanwhile
        self.until_gone("be killed", || {
            self.signal_all(Signal::SIGKILL)?;
            Ok(self.all().is_empty())
        })
        .await
    }

    /// Waits until the server and all its children are gone.
    pub(crate) async fn ended(&self) -> Result<()> {
        self.until_gone("stop", || Ok(self.all().is_empty())).await
    }

    async fn until_gone(&self, what: &str, gone: impl Fn() -> Result<bool>) -> Result<()> {
        let log = self.folder.join(super::LOG);
        let what = format!("process {} to {what} (log: {})", self.pid, log.display());
        wait::until(EXIT_TIMEOUT, &what, || async { Ok(gone()?.then_some(())) }).await
    }

    /// The server, its children, and orphans of Postgres.
    fn all(&self) -> Vec<i32> {
        let data = self.folder.join(super::DATA);
        let server = if self.is_alive() { Some(self.pid) } else { None };
        let is_part = |pid: i32| {
            let Some(stat) = stat(pid) else { return false };
            // Checks the name too, because somebody's shell may be in the data folder.
            let is_orphan =
                || stat.name == "postgres" && working_directory(pid).is_some_and(|cwd| cwd == data);
            !stat.is_dead && (Some(pid) == server || server == Some(stat.parent) || is_orphan())
        };
        processes().filter(|&pid| is_part(pid)).collect()
    }
}

struct Stat {
    name: String,
    is_dead: bool,
    parent: i32,
}

/// Parses `/proc/PID/stat`: pid (name) state parent ..., where the name may contain anything
/// (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let name = text[text.find('(')? + 1..text.rfind(')')?].to_owned();
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X") && threads(pid).count() <= 1;
    Some(Stat { name, is_dead, parent: fields.next()?.parse().ok()? })
}

/// The working directory of any of its threads: the first thread of a killed process may be gone
/// while others still hold its ports.
fn working_directory(pid: i32) -> Option<PathBuf> {
    threads(pid).find_map(|thread| fs::read_link(thread.join("cwd")).ok())
}

fn threads(pid: i32) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|thread| thread.path())
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => {
            Err(anyhow::Error::new(error).context(format!("cannot signal process {pid}")))
        }
    }
}
