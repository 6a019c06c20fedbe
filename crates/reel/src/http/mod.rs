//! What the HTTP edges of all services share: who may ask, problems (RFC 9457), and the bodies and headers that commands need.

mod access;
mod extract;
mod openapi;
mod prefer;
mod problem;
mod server;

pub use access::Caller;
pub(crate) use access::{Access, Verifier, authenticate};
pub(crate) use extract::LARGEST_BODY;
pub use extract::{Body, IdempotencyKey, Path, Query, TraceParent};
pub(crate) use openapi::complete;
pub use openapi::{KeyReused, NoAnswer};
pub use prefer::Prefer;
pub use problem::Problem;
pub(crate) use server::{ConnectionLimits, TimeLimits, in_time, serve};
pub use utoipa_axum::router::OpenApiRouter;
