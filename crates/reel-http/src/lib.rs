//! The common parts of the HTTP edges of Reel's services: access by token, problems (RFC 9457),
//! OpenAPI, the bodies and headers of commands, and the server with its limits.

#![warn(missing_docs)]

mod access;
mod extract;
mod fair_share;
mod object;
mod openapi;
mod prefer;
mod problem;
mod server;
pub mod token_crypto;

pub use access::{Access, Caller, Expected, Verifier, authenticate};
pub use extract::{Body, IdempotencyKey, LARGEST_BODY, Path, Query, TraceParent, single};
pub use fair_share::{FairShare, share_fairly};
pub use object::objects;
pub use openapi::{KeyReused, NoAnswer, complete};
pub use prefer::Prefer;
pub use problem::Problem;
pub use server::{ConnectionLimits, TimeLimits, in_time, serve};
pub use utoipa_axum::router::OpenApiRouter;
