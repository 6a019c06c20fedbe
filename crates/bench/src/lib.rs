//! What it costs: rates and latencies of the production code, each beside a yardstick that was taken in the same run.
//!
//! | module | holds |
//! |---|---|
//! | [`parts`] | what is measured, part by part |
//! | [`yardstick`] | the same work without the toolkit: the bare statements and records |
//! | [`ledger`] | a small service to measure with, and the process that it is |
//! | [`stage`] | a database, topics and a ledger on the stack of the run |
//! | [`run`] | a run: the parts that are asked for, on servers of its own |
//! | [`shop`] | the order system with money and stock, and orders |
//! | [`seed`] | rows and records that are there before it begins |
//! | [`load`] | arrivals by a schedule, over HTTP |
//! | [`watch`] | a consumer that notes what arrives, and when |
//! | `path` | the way of an order through the services, and where its time goes |
//! | [`report`] | figures, their table, their JSON |
//! | [`stats`] | medians, percentiles, the bound of two, the search for the highest rate: pure |

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
