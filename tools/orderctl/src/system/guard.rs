//! The guard, which kills the replicas when the process that started them dies, even by kill -9.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// The guard's script. Its stdin is a pipe whose other end only this process holds, so it reads to
/// the end when this process dies.
const SCRIPT: &str = r#"
alive=
while read -r sign pid; do
    rest=
    for other in $alive; do [ "$other" = "$pid" ] || rest="$rest $other"; done
    [ "$sign" = + ] && rest="$rest $pid"
    alive=$rest
done
[ -z "$alive" ] || kill -KILL $alive
"#;

/// A shell that is sent the ids of running processes, and kills them when this process is gone.
pub(super) struct Guard {
    shell: Child,
    pipe: Mutex<Option<ChildStdin>>,
}

impl Guard {
    pub(super) fn start() -> Result<Self> {
        // A process group of its own, so that Ctrl-C reaches only its owner.
        let shell = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "orderctl-guard"])
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn();
        let mut shell = shell.context("cannot start /bin/sh")?;
        let pipe = Mutex::new(shell.stdin.take());
        Ok(Self { shell, pipe })
    }

    /// Adds a process that has started.
    pub(super) fn add(&self, pid: u32) -> Result<()> {
        self.send('+', pid).context("the guard of the replicas is gone")
    }

    /// Removes a process that has ended and was waited for: its id may be reused from now on.
    pub(super) fn remove(&self, pid: u32) {
        // If the guard is gone, it kills nothing.
        let _ = self.send('-', pid);
    }

    fn send(&self, sign: char, pid: u32) -> std::io::Result<()> {
        match &mut *self.pipe.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(pipe) => pipe.write_all(format!("{sign} {pid}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.pipe.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.shell.wait();
    }
}
