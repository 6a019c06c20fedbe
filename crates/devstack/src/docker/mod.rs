//! Docker: the servers as containers, and deployments of a compose file.
//!
//! What is made here is removed when its value is dropped, and when this process dies, however: a shell that outlives us waits for
//! the end of its standard input and then removes what carries our name.

mod command;
mod compose;
mod containers;
mod guard;

pub use command::{Said, docker, engine, kill, stop};
pub use compose::Compose;
pub use containers::Containers;

use anyhow::{Result, bail};

/// Whether `STACK` asks for servers in containers.
///
/// # Errors
/// If it says anything but `docker` or `local`.
pub fn is_wanted() -> Result<bool> {
    match std::env::var("STACK").unwrap_or_default().as_str() {
        "docker" => Ok(true),
        "" | "local" => Ok(false),
        other => bail!("STACK is {other}: it takes `docker` (servers in containers) or `local` (processes of this machine)"),
    }
}
