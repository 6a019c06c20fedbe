//! Ownership of lanes: acquires, recovers and hands them over (docs/laws.md, "Fences").
//!
//! [`supervisor`] keeps the state of each lane of this replica ([`held`]) and decides by
//! [`rebalance`]; its tasks [`acquire`] and then recover a lane ([`recovery`]), or hand it over
//! ([`handover`]). By a [`heartbeat`] it knows whether it reaches Kafka.

mod acquire;
mod handover;
mod heartbeat;
mod held;
mod rebalance;
mod recovery;
mod supervisor;

pub(crate) use heartbeat::Heartbeat;
pub(crate) use recovery::REPLAYS;
#[cfg(test)]
pub(crate) use recovery::{RecoveryError, recover};
pub(crate) use supervisor::{LaneSupervisor, SupervisorInbox, SupervisorStopped};
