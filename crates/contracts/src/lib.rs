//! The Rust types of the events in `schemas/`, one file for each producing service, and the values that they are made of.
//!
//! Every value checks itself, when it is made and when it is read from the wire: an [`OrderId`] is a uuid, a [`Sku`] has
//! only characters that a path, a log line and a Kafka key can hold.

mod ids;
pub mod inventory;
mod line;
mod money;
pub mod orders;
pub mod payments;
mod request;
pub mod samples;
mod symbols;

pub use ids::{CustomerId, DepositId, Invalid, OrderId, ReceiptId, Sku};
pub use line::{Line, PricedLine, Shortage};
pub use money::{Currency, Money};
pub use request::RequestHash;

#[cfg(test)]
mod tests;
