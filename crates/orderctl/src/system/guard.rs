//! Ends the replicas when whoever started them dies, even by kill -9.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Its stdin is a pipe whose other end only we hold, so that it ends with us.
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

/// A shell that is told which processes live, and kills them when this process is gone.
pub(super) struct Guard {
    shell: Child,
    told: Mutex<Option<ChildStdin>>,
}

impl Guard {
    pub(super) fn start() -> Result<Self> {
        // A group of its own: Ctrl-C is for its owner.
        let shell = Command::new("/bin/sh").args(["-c", SCRIPT, "orderctl-guard"]).stdin(Stdio::piped()).process_group(0).spawn();
        let mut shell = shell.context("cannot start /bin/sh")?;
        let told = Mutex::new(shell.stdin.take());
        Ok(Self { shell, told })
    }

    /// The process lives.
    pub(super) fn add(&self, pid: u32) -> Result<()> {
        self.tell('+', pid).context("the guard of the replicas is gone")
    }

    /// The process has ended and was waited for: its id may be given to somebody else.
    pub(super) fn remove(&self, pid: u32) {
        // If the guard is gone, nobody will kill it.
        let _ = self.tell('-', pid);
    }

    fn tell(&self, sign: char, pid: u32) -> std::io::Result<()> {
        match &mut *self.told.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(told) => told.write_all(format!("{sign} {pid}\n").as_bytes()),
            None => Ok(()),
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.told.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = self.shell.wait();
    }
}
