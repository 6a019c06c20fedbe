//! Benchmarks: rates and latencies of the production code, each with a yardstick from the same run
//! (`docs/performance.md`).
//!
//! | module | holds |
//! |---|---|
//! | [`parts`] | the measurements, part by part |
//! | [`yardstick`] | the same work without the toolkit: bare statements and records |
//! | [`ledger`] | a small service to measure with, and its process |
//! | [`stage`] | a database, topics and a ledger on the stack of the run |
//! | [`run`] | a run: the selected parts, on servers of its own |
//! | [`shop`] | the order system with money and stock, and its orders |
//! | [`seed`] | rows and records that exist before a measurement |
//! | [`load`] | load over HTTP, by a schedule or flat out |
//! | [`watch`] | a consumer that records what arrives, and when |
//! | `path` | the path of an order through the services, and where its time goes |
//! | [`report`] | figures, their table, their JSON |
//! | [`stats`] | medians, percentiles, bounds, the search for the highest rate: pure |

mod clock;
mod consumer;
pub mod ledger;
pub mod load;
pub mod parts;
mod path;
pub mod report;
pub mod run;
pub mod seed;
pub mod shop;
pub mod stage;
pub mod stats;
pub mod watch;
pub mod yardstick;
