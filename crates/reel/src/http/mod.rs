//! What the HTTP edges of all services share: problems (RFC 9457), and the bodies and headers that commands need.

mod extract;
mod prefer;
mod problem;
mod server;

pub(crate) use extract::LARGEST_BODY;
pub use extract::{Body, IdempotencyKey, Path, Query, TraceParent};
pub use prefer::Prefer;
pub use problem::Problem;
pub(crate) use server::serve;
