//! The inventory service: keeps stock, takes it for paid orders and puts it back.
//!
//! [`domain`] holds its decisions, as pure functions. The rest connects them: `store` to Postgres,
//! `http` to clients, `app` to the toolkit.

#[cfg(feature = "program")]
mod app;
#[cfg(feature = "program")]
mod config;
pub mod domain;
#[cfg(feature = "program")]
mod http;
#[cfg(feature = "program")]
mod store;

#[cfg(feature = "program")]
pub use app::App;
#[cfg(feature = "program")]
pub use config::Settings;
