//! The model checker: the production `decide`, `react`, `evolve` and `deadlines` of the three
//! services, inside a model of what the toolkit does with them (`docs/laws.md`).
//!
//! | module | holds |
//! |---|---|
//! | [`services`] | what a modelled service decides: the shop, and a ledger for the log alone |
//! | [`world`] | databases, topics, lanes and replicas, and everything that can happen to them |
//! | [`checks`] | the properties of every state |
//! | [`scenario`] | the worlds that are explored, and how far |
//! | [`story`] | a counterexample as a story, one line per action |
//! | [`plant`] | bugs planted on purpose |

pub mod checks;
pub mod plant;
pub mod scenario;
pub mod services;
pub mod story;
pub mod world;

#[cfg(test)]
mod tests;
