//! The Rust types of the events in `schemas/`, one file for each producing service, and of the
//! values in them.
//!
//! Every value is validated when it is parsed, also from the wire: an [`OrderId`] is a uuid, and a
//! [`Sku`] has only characters that are safe in a path, a log line and a Kafka key.

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
