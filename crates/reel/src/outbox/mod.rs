//! The outbox: events numbered at commit (law 3), and the relay that publishes them in that order.

mod cursor;
mod lane;
mod number;
mod publisher;
mod relay;
mod wakeup;

#[cfg(test)]
pub(crate) use cursor::{ADVANCE as ADVANCE_CURSOR, BACKLOG};
pub(crate) use lane::RelayLane;
pub(crate) use number::{Draft, Numbered, number};
#[cfg(test)]
pub(crate) use number::{NUMBER, READ, read};
#[cfg(test)]
pub(crate) use publisher::Acks;
pub(crate) use publisher::Publisher;
pub(crate) use relay::{Outlet, Relay, RelayHandle};
pub(crate) use wakeup::{Wakeup, lanes_freed};
