//! Docker: the servers as containers, and deployments from a compose file.
//!
//! What is created here is removed when its value is dropped, and when this process dies for any
//! reason: a shell that outlives us waits until its standard input is closed, and then removes
//! everything with our label.

mod command;
#[cfg(feature = "docker")]
mod compose;
#[cfg(feature = "docker")]
mod containers;
#[cfg(feature = "docker")]
mod guard;

pub use command::{CommandOutput, docker, engine, kill, stop};
#[cfg(feature = "docker")]
pub use compose::Compose;
#[cfg(feature = "docker")]
pub use containers::Containers;

use anyhow::{Result, bail};

/// The error of a build without the feature `docker` when containers are requested.
pub const NOT_BUILT: &str =
    "this build has no support for containers: `make STACK=docker` builds one that has";

/// Whether `STACK` requests servers in containers.
///
/// # Errors
/// If it is neither `docker` nor `local`.
pub fn is_wanted() -> Result<bool> {
    match std::env::var("STACK").unwrap_or_default().as_str() {
        "docker" => Ok(true),
        "" | "local" => Ok(false),
        other => bail!(
            "STACK is {other}: set it to `docker` (servers in containers) or `local` (processes \
             of this machine)"
        ),
    }
}
