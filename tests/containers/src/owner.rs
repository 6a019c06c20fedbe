//! A `devstack exec` process that owns a Kafka and a Postgres in containers.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, Result, ensure};
use devstack::docker::Containers;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A running `STACK=docker devstack exec`. Its command runs until its input ends, and this value
/// keeps the input open.
pub struct Owner {
    process: Child,
    /// Folder in which it keeps its containers' logs if its command fails.
    _folder: TempDir,
}

impl Owner {
    /// Starts the process in its own process group, as a shell at a terminal does.
    ///
    /// # Errors
    /// If the program was not built or cannot be started.
    pub fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut command = Command::new(devstack()?);
        command.args(["exec", "--", "sh", "-c", "echo begun; exec cat"]).process_group(0);
        command
            .env("STACK", "docker")
            .env("REEL_DEVSTACK_DIR", folder.path())
            .env_remove("REEL_KAFKA")
            .env_remove("REEL_POSTGRES");
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        Ok(Self { process, _folder: folder })
    }

    /// Waits until the command runs, and therefore both containers.
    ///
    /// # Errors
    /// If the process ends before that.
    pub fn until_command_runs(&mut self) -> Result<()> {
        let mut line = String::new();
        BufReader::new(self.process.stdout.take().context("the output was already taken")?)
            .read_line(&mut line)?;
        ensure!(line == "begun\n", "the process ended before its command ran: {line:?}");
        Ok(())
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// The names of the process's containers.
    ///
    /// # Errors
    /// If there is no engine.
    pub async fn containers(&self) -> Result<Vec<String>> {
        Containers::of_process(self.id()).await
    }

    /// Kills the process, but not its command, with SIGKILL.
    ///
    /// # Errors
    /// If the signal cannot be sent.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.process.kill()?;
        Ok(self.process.wait()?)
    }

    /// Sends SIGINT to the process and its command, as Ctrl-C at a terminal does, and waits for the
    /// process to end.
    ///
    /// # Errors
    /// If the process has already ended.
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

/// Path of the program that cargo has built: beside this one, or one folder up for a test in
/// `target/debug/deps`.
fn devstack() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let found = this
        .ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join("devstack"))
        .find(|path| path.is_file());
    found.context("there is no binary `devstack`: run cargo build --package devstack")
}
