//! The same work without the toolkit: what this machine, this Kafka and this Postgres can do right
//! now.

mod commit;
mod hop;
mod read;
mod relay;
mod step;

pub use commit::{Commits, commits};
pub use hop::{Hops, hops};
pub use read::read_topic;
pub use relay::{Alone, relay_alone};
pub use step::bare_steps;
