//! The order system as a whole: three services on one Kafka and one Postgres.
//!
//! | module | holds |
//! |---|---|
//! | [`system`] | databases, topics and replicas of the three services, and a client of them |
//! | [`audit`] | whether the databases and the topics of a quiet system say the same, and the right thing |
//! | [`demo`] | a thousand orders with every ending |
//! | [`faults`] | orders while everything dies, and what must hold then |
//! | [`fuzz`] | made-up requests to the services' documents |
//! | [`failover`] | how long others wait when something dies |
//! | [`token`] | tokens with which one asks the services |
//! | [`up`] | the system left running |

pub mod audit;
pub mod demo;
pub mod failover;
pub mod faults;
pub mod fuzz;
mod percentile;
pub mod system;
pub mod token;
pub mod up;
