//! The binaries of the services.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use super::{PerService, Service};

const COMMAND_WITHIN: Duration = Duration::from_secs(60);

/// The paths of the binaries: beside this one, or one folder up for a test in `target/debug/deps`.
#[derive(Debug, Clone)]
pub(super) struct Programs(PerService<PathBuf>);

impl Programs {
    pub(super) fn find() -> Result<Self> {
        let this = std::env::current_exe().context("cannot find the path of this program")?;
        let folders: Vec<&Path> = this.ancestors().skip(1).take(2).collect();
        let find = |service: Service| {
            let found = folders
                .iter()
                .map(|folder| folder.join(service.name()))
                .find(|path| path.is_file());
            found.with_context(|| {
                let beside = folders
                    .first()
                    .map_or_else(String::new, |folder| format!(" beside {}", folder.display()));
                format!("there is no binary `{service}`{beside}: run cargo build --workspace")
            })
        };
        Ok(Self(PerService::try_new(find)?))
    }

    pub(super) fn path(&self, service: Service) -> &Path {
        &self.0[service]
    }

    /// Runs a command of a service to its end.
    pub(super) async fn run(
        &self,
        service: Service,
        command: &str,
        environment: Vec<(String, String)>,
    ) -> Result<()> {
        let mut process = Command::new(self.path(service));
        process.arg(command).envs(environment).stdin(Stdio::null()).kill_on_drop(true);
        let output = tokio::time::timeout(COMMAND_WITHIN, process.output()).await;
        let output = output.with_context(|| {
            format!("`{service} {command}` took longer than {COMMAND_WITHIN:?}")
        })??;
        if !output.status.success() {
            bail!(
                "`{service} {command}` failed, {}: {}",
                output.status,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }

        Ok(())
    }
}
