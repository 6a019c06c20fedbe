//! The ledger: the smallest service that a user could write, run by the toolkit as any other. It notes what it is asked to, by events
//! of another service or by commands, and each time a row changes and an event is published.

mod acks;
mod app;
mod domain;
mod edge;
mod store;

pub use acks::{Acked, Acks};
pub use app::{App, Settings};
pub use domain::{LedgerEvent, LedgerService, Noted, REQUESTS, RequestEvent, Requested};
pub use edge::{Loaded, Loading};

/// The toolkit's tables, the same file as every service's, and the ledger's own.
pub const TABLES: [&str; 3] = [
    include_str!("../../../../migrations/order/0001_reel.sql"),
    include_str!("../../../../migrations/order/0003_reel.sql"),
    include_str!("../../schemas/tables.sql"),
];
