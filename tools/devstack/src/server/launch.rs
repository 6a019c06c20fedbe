//! Starts a server process: owned (with a guard that ends it when its owner dies) or shared (it
//! outlives the process that started it).

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid};

use super::process::Process;

const OWNED: &str = include_str!("guard.sh");
const SHARED: &str = r#"shift; "$@" </dev/null >&2 & echo "$!""#;

/// A command line, and how its process runs.
pub(crate) struct Launch {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    /// The user to run as, if it is another one.
    pub(crate) user: Option<(Uid, Gid)>,
    /// The signal that ends the server at once and leaves nothing behind.
    pub(crate) end_signal: Signal,
}

/// The shell that ends an owned server when its owner dies.
pub(crate) struct Guard(Child);

impl Launch {
    /// Starts the server in its folder. It ends when the guard is ended or this process dies.
    pub(crate) fn owned(&self, folder: &Path) -> Result<(Process, Guard)> {
        let (process, child) = self.spawn(folder, OWNED, Stdio::piped())?;
        Ok((process, Guard(child)))
    }

    /// Starts the server in its folder. It runs until it is stopped.
    pub(crate) fn shared(&self, folder: &Path) -> Result<Process> {
        let (process, mut shell) = self.spawn(folder, SHARED, Stdio::null())?;
        shell.wait()?;
        Ok(process)
    }

    fn spawn(&self, folder: &Path, script: &str, stdin: Stdio) -> Result<(Process, Child)> {
        let log = OpenOptions::new().create(true).append(true).open(folder.join(super::LOG))?;
        let end_signal = self.end_signal.as_str().trim_start_matches("SIG");
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", script, "devstack-guard", end_signal])
            .arg(&self.program)
            .args(&self.args);
        shell.current_dir(folder).stdin(stdin).stdout(Stdio::piped()).stderr(log);

        // A process group of its own: Ctrl-C reaches only the owner, which then ends the server.
        shell.process_group(0);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG"))
        {
            shell.env_remove(name); // PGDATA, PGPORT and others are for another server
        }

        if let Some((uid, gid)) = self.user {
            shell.uid(uid.as_raw()).gid(gid.as_raw());
        }

        let mut child =
            shell.spawn().with_context(|| format!("cannot start {}", self.program.display()))?;

        // The shell prints the process id of the server.
        let stdout = child.stdout.take().context("the guard has no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let pid = line
            .trim()
            .parse()
            .with_context(|| format!("{} did not start", self.program.display()))?;

        Ok((Process::new(pid, folder), child))
    }
}

impl Guard {
    /// Ends the server, if it still runs, and the guard.
    pub(crate) fn end(mut self) {
        self.end_in_place();
    }

    fn end_in_place(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.end_in_place();
    }
}
