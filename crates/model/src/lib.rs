//! The model checker: the three services' `decide`, `react`, `evolve` and `deadlines` as they run in production, inside a model
//! of what the toolkit does with them (DESIGN sections 2 and 3).
//!
//! | module | holds |
//! |---|---|
//! | [`services`] | what a modelled service decides: the shop's production functions, and a ledger for the log alone |
//! | [`world`] | databases, topics, lanes and replicas, and everything that can happen to them |
//! | [`checks`] | what must always hold |
//! | [`scenario`] | which worlds are explored, and how far |
//! | [`story`] | a counterexample as a story |
//! | [`plant`] | bugs planted on purpose |

pub mod checks;
pub mod plant;
pub mod scenario;
pub mod services;
pub mod story;
pub mod world;

#[cfg(test)]
mod tests;
