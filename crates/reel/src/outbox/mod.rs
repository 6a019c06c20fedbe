//! The outbox: events numbered at commit (law 3), and the relay that publishes them in that order.

mod cursor;
mod number;
mod publisher;
mod relay;
mod wakeup;

pub(crate) use number::{Draft, Numbered, number};
pub(crate) use publisher::Publisher;
pub(crate) use relay::{Outlet, Relay, RelayHandle, RelayLane};
pub(crate) use wakeup::Wakeup;
