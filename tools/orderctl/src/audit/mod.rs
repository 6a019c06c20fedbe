//! The audit: whether the databases and the topics of a quiet system agree, and are right.
//!
//! The audit does not rely on what the services report. It reads every record of the three topics
//! by the consumer's rule (law 3), folds what is accepted with the production `evolve` (law 6), and
//! compares the result with the tables row by row. Then it joins the three logs order by order.
//! [`collect`](Sources::collect) reads; [`audit`] computes and is pure.
//!
//! `order_saga` knows orders, money and stock. The other modules know services in general, except
//! that the [kinds of findings](Kind) name what can go wrong with an order.

mod collect;
mod collected;
mod command;
mod deadlines;
mod findings;
mod fold;
mod journal;
mod order_saga;
mod parked;
mod tables;
#[cfg(test)]
mod tests;

pub use collect::Sources;
pub use collected::{DeadlineRow, Lane, OutboxRow, ParkedRow, Side};
pub use command::{Options, run};
pub use findings::{Finding, Findings, Kind};
pub use order_saga::{Audit, Collected, Ending, Figures, Saga, audit};
