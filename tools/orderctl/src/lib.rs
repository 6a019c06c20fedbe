//! The order system as a whole: three services on one Kafka and one Postgres.
//!
//! | module | contents |
//! |---|---|
//! | [`system`] | databases, topics and replicas of the three services, and a client of them |
//! | [`audit`] | whether the databases and the topics of a quiet system agree, and are right |
//! | [`demo`] | a thousand orders with every ending |
//! | [`faults`] | orders under faults, and what must hold afterwards |
//! | [`fuzz`] | random requests, generated from the services' OpenAPI documents |
//! | [`failover`] | how long orders wait when something dies |
//! | [`token`] | bearer tokens for the services |
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
