//! A `devstack exec` that holds a Kafka and a Postgres in containers.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use devstack::docker::Containers;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// `STACK=docker devstack exec`, whose command waits for the end of its input, which we hold.
pub struct Owner {
    process: Child,
    /// Where it keeps the logs of its containers if its command fails.
    _folder: TempDir,
}

impl Owner {
    /// Starts it in a process group of its own, as a shell does at a terminal.
    ///
    /// # Errors
    /// Where the program was not built.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(devstack()?);
        command.args(["exec", "--", "sh", "-c", "echo begun; exec cat"]).process_group(0);
        command.env("STACK", "docker").env("REEL_DEVSTACK_DIR", folder.path()).env_remove("REEL_KAFKA").env_remove("REEL_POSTGRES");
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self { process, _folder: folder })
    }

    /// Returns when its command runs, and so both of its containers.
    ///
    /// # Errors
    /// Where it ends before.
    pub fn until_its_command_runs(&mut self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.process.stdout.take().context("is waited for once")?).read_line(&mut line)?;
        ensure!(line == "begun\n", "it has ended before its command: {line:?}");
        Ok(())
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The names of its containers.
    ///
    /// # Errors
    /// Where there is no engine.
    pub async fn containers(&self) -> Result<Vec<String>> {
        Containers::of_process(self.id()).await
    }

    /// Kills it with -9, and not its command.
    ///
    /// # Errors
    /// Where the system refuses.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()?;
        Ok(self.process.wait()?)
    }

    /// Does what Ctrl-C at a terminal does, SIGINT to it and to its command, and waits for its end.
    ///
    /// # Errors
    /// Where it has ended.
    pub fn interrupt(&mut self) -> Result<ExitStatus> {
        killpg(Pid::from_raw(i32::try_from(self.id())?), Signal::SIGINT)?;
        Ok(self.process.wait()?)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Where cargo has put the program: beside this one, or one folder up for a test in `target/debug/deps`.
fn devstack() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join("devstack")).find(|path| path.is_file());
    found.context("there is no binary `devstack`: run cargo build --package devstack")
}
