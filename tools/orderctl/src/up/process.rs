//! A process that another process started, identified by its id and its start time: the id alone
//! may have been reused.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::wait;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pid: u32,
    /// Start time in clock ticks after boot. `None` if it could not be read: the process counts as
    /// gone then.
    began: Option<u64>,
}

impl Process {
    pub(super) fn new(pid: u32) -> Self {
        Self { pid, began: start_time(pid) }
    }

    pub(super) fn pid(self) -> u32 {
        self.pid
    }

    pub(super) fn is_alive(self) -> bool {
        self.began.is_some() && start_time(self.pid) == self.began
    }

    pub(super) fn signal(self, signal: Signal) -> Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill(Pid::from_raw(i32::try_from(self.pid)?), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {}", self.pid)),
        }
    }

    pub(super) async fn ended(self, limit: Duration) -> Result<()> {
        let what = format!("process {} to end", self.pid);
        wait::until(limit, &what, || async { Ok((!self.is_alive()).then_some(())) }).await
    }
}

/// Returns the start time of a process; `None` if there is none, or only a zombie. In
/// `/proc/PID/stat`, the fields are pid, (name), state, and starttime as the 22nd; the name may
/// contain anything (proc_pid_stat(5)).
fn start_time(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut after_name = text[text.rfind(')')? + 1..].split_whitespace();
    let state = after_name.next()?;
    if matches!(state, "Z" | "X") { None } else { after_name.nth(18)?.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_lives_until_it_has_ended_even_if_nobody_waits_for_it() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::new(child.id());
        assert!(process.is_alive());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!process.is_alive());
    }

    #[test]
    fn an_id_that_now_belongs_to_another_process_is_not_ours() {
        let ours = Process::new(std::process::id());
        let before = Process { began: ours.began.map(|ticks| ticks - 1), ..ours };
        assert!(ours.is_alive() && !before.is_alive());
    }
}
