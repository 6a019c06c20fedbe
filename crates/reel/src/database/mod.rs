//! Postgres as the toolkit uses it: sessions that block nobody for long, the server run, what an error asks for, and
//! many writes in one statement.

mod failure;
mod run;
mod session;
mod writes;

pub(crate) use failure::Failure;
pub use run::{Run, current_run};
pub use session::Sessions;
pub(crate) use session::{Commits, Kept};
pub use writes::{Columns, Writes};
