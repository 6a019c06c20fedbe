//! Lanes: one partition number across all topics of a service, with one owner at a time (DESIGN section 3).

mod keeper;
mod lease;
mod leaving;
mod opening;
mod position;
mod share;
mod taking;

pub use keeper::LaneState;
pub(crate) use keeper::{Keeper, KeeperStopped, Notice};
pub(crate) use lease::Grant;
#[cfg(test)]
pub(crate) use lease::Identity;
pub(crate) use opening::OpenLane;
#[cfg(test)]
pub(crate) use opening::{OpeningError, open};
pub use position::{Position, Verdict};
