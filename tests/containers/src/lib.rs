//! Fixtures of the tests of the deployment: `compose/compose.yaml` starts the images, as a user
//! would, and each test has its own Compose project.

mod deployment;
mod load;
mod owner;

pub use deployment::Deployment;
pub use load::Load;
pub use owner::Owner;

use std::time::Duration;

/// Time limit for any one wait, generous because machines are slow at times.
pub const LIMIT: Duration = Duration::from_secs(180);
