//! Removes containers when the process that created them is gone.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("guard.sh");

/// A shell that waits until its standard input is closed, a pipe whose other end only we hold, and
/// then removes what is left.
pub(super) struct Guard(Child);

impl Guard {
    /// Starts a guard. `list` prints what is left, and `remove` removes it (`$left`), until nothing
    /// is left. Both are shell commands, and see the arguments as `$1`, `$2`, and so on.
    pub(super) fn new(list: &str, remove: &str, args: &[&OsStr]) -> Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "reel-guard", list, remove])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for the owner
            .spawn()
            .context("cannot start /bin/sh")?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Closes the pipe and waits, so that a test run does not end before everything is gone.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
