//! The payment service: keeps accounts, takes the money for orders and gives it back.
//!
//! [`domain`] is what it decides, and pure. The rest carries it: `store` to Postgres, `http` to clients, `app` to the toolkit.

mod app;
mod config;
pub mod domain;
mod http;
mod store;

pub use app::App;
pub use config::Settings;
