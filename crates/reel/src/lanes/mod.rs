//! Lanes: one partition number across all topics of a service, with one owner at a time (DESIGN section 3).

mod keeper;
mod lease;
mod leaving;
mod opening;
mod position;
mod reading;
mod share;
mod taking;

pub use keeper::LaneState;
pub(crate) use keeper::{Keeper, KeeperStopped, Notice};
pub(crate) use lease::Grant;
#[cfg(test)]
pub(crate) use lease::Identity;
#[cfg(test)]
pub(crate) use opening::open;
pub(crate) use opening::{OpenLane, OpeningError, sound_input};
pub use position::{Position, Verdict};
pub(crate) use reading::Reading;
