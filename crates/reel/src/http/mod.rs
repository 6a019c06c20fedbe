//! What the HTTP edges of all services share: problems (RFC 9457), and the bodies and headers that commands need.

mod extract;
mod problem;

pub use extract::{Body, IdempotencyKey, TraceParent};
pub use problem::Problem;
