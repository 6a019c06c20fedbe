//! The toolkit against real Postgres and Kafka, with a service just large enough: a till that credits accounts.

mod opening;
mod outbox;
mod statements;
mod step;
mod till;

pub(crate) use till::{Credit, Fixture, Till, credit};
