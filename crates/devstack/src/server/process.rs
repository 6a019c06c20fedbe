//! A server's processes, found and signalled by id and never by name.
//!
//! A process id in a file may be years old and belong to somebody else by now, so a process counts as ours only if it works
//! in the server's folder (its command line would say so too, but is empty for a moment while it is executed). Postgres'
//! children leave the session of their parent and outlive it for a while when it is killed, but all of them work in the
//! data folder, by which they are found.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    folder: PathBuf,
}

impl Process {
    pub(crate) fn new(pid: i32, folder: &Path) -> Self {
        Self { pid, folder: folder.to_owned() }
    }

    /// Whether a process runs under this id. Of one that was just started this is enough; where it works cannot be seen while it is
    /// executed, nor without the right to look.
    pub(crate) fn runs(&self) -> bool {
        stat(self.pid).is_some_and(|stat| !stat.is_dead)
    }

    /// Whether it runs and is the server of this folder.
    pub(crate) fn is_alive(&self) -> bool {
        self.runs() && works_in(self.pid).is_some_and(|cwd| cwd.starts_with(&self.folder))
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        if self.is_alive() { send(self.pid, signal) } else { Ok(()) }
    }

    /// Signals the server and all its children.
    pub(crate) fn signal_all(&self, signal: Signal) -> Result<()> {
        self.all().into_iter().try_for_each(|pid| send(pid, signal))
    }

    /// Kills the server, its children and the orphans of an earlier kill, and returns when all are gone.
    pub(crate) async fn kill_all(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?; // so that it makes no child while we look
        self.until_gone("be killed", || {
            self.signal_all(Signal::SIGKILL)?;
            Ok(self.all().is_empty())
        })
        .await
    }

    /// Returns when the server and all its children are gone.
    pub(crate) async fn ended(&self) -> Result<()> {
        self.until_gone("stop", || Ok(self.all().is_empty())).await
    }

    async fn until_gone(&self, what: &str, gone: impl Fn() -> Result<bool>) -> Result<()> {
        let log = self.folder.join(super::LOG);
        let what = format!("process {} to {what} (log: {})", self.pid, log.display());
        wait::until(PATIENCE, &what, || async { Ok(gone()?.then_some(())) }).await
    }

    fn all(&self) -> Vec<i32> {
        let data = self.folder.join(super::DATA);
        let server = if self.is_alive() { Some(self.pid) } else { None };
        let is_part = |pid: i32| {
            let Some(stat) = stat(pid) else { return false };
            // The name is asked for because somebody's shell may be in that folder too.
            let is_orphan = || stat.name == "postgres" && works_in(pid).is_some_and(|cwd| cwd == data);
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

/// `/proc/PID/stat`: pid (name) state parent ..., where the name may hold anything (proc_pid_stat(5)).
fn stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let name = text[text.find('(')? + 1..text.rfind(')')?].to_owned();
    let mut fields = text[text.rfind(')')? + 1..].split_whitespace();
    let is_dead = matches!(fields.next()?, "Z" | "X") && threads(pid).count() <= 1;
    Some(Stat { name, is_dead, parent: fields.next()?.parse().ok()? })
}

/// By any of its threads: the first one of a killed process may be gone while others still hold its ports.
fn works_in(pid: i32) -> Option<PathBuf> {
    threads(pid).find_map(|thread| fs::read_link(thread.join("cwd")).ok())
}

fn threads(pid: i32) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().map(|thread| thread.path())
}

fn processes() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn send(pid: i32, signal: Signal) -> Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(anyhow::Error::new(error).context(format!("cannot signal process {pid}"))),
    }
}
