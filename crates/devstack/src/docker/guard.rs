//! Removes containers when whoever made them is gone.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

const SCRIPT: &str = include_str!("guard.sh");

/// A shell that waits for the end of its standard input, a pipe whose other end only we hold, and then removes what is left.
pub(super) struct Guard(Child);

impl Guard {
    /// `look` prints what is left, and `remove` removes that (`$left`), again and again until nothing is left. Both are commands of the
    /// shell, and see the arguments as `$1`, `$2`, ...
    pub(super) fn new(look: &str, remove: &str, args: &[&OsStr]) -> Result<Self> {
        let child = Command::new("/bin/sh")
            .args(["-c", SCRIPT, "reel-guard", look, remove])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for its owner
            .spawn()
            .context("cannot start /bin/sh")?;
        Ok(Self(child))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // It is waited for, so that a test run does not end before everything is gone.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
