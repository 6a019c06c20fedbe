//! Postgres as the toolkit uses it: sessions that block nobody for long, the server run, and what an error asks for.

mod failure;
mod run;
mod session;

pub(crate) use failure::Failure;
pub use run::{Run, current_run};
pub use session::Sessions;
pub(crate) use session::{Commits, Kept};
