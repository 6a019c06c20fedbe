//! The system as users deploy it: the images, started by `compose/compose.yaml`, each test with a project of its own.

mod deployment;
mod load;
mod owner;

pub use deployment::Deployment;
pub use load::Load;
pub use owner::Owner;

use std::time::Duration;

/// How long anything may take: far more than it does, for machines are slow at times.
pub const LIMIT: Duration = Duration::from_secs(180);
