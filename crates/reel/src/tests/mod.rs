//! Tests of the toolkit against a real Postgres and Kafka, with the smallest service that exercises
//! it: a till that credits accounts.

mod migrations;
mod outbox;
pub(crate) mod plan;
mod recovery;
mod step;
pub(crate) mod till;

pub(crate) use till::{Credit, Fixture, Till, credit};
