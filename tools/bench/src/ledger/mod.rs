//! The ledger: the smallest service that a user could write, run by the toolkit like any other.
//! Events of another service and commands ask it for notes; each note inserts a row and publishes
//! an event.

mod acks;
mod app;
mod domain;
mod http;
mod store;

pub use acks::{Acked, Acks};
pub use app::{App, Settings};
pub use domain::{LedgerEvent, LedgerService, Noted, REQUESTS, RequestEvent, Requested};
pub use http::{LoadOutcome, LoadSpec};
