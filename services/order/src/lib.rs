//! The order service: takes orders and follows each until it is confirmed or cancelled.
//!
//! [`domain`] is what it decides, and pure. The rest carries it: `store` to Postgres, `http` to clients, `app` to the toolkit.

mod access;
mod app;
mod changes;
mod config;
pub mod domain;
mod endings;
mod http;
mod list;
mod prices;
mod store;
mod timeline;
mod views;

pub use app::App;
pub use config::Settings;
pub use prices::{BadPriceList, PriceList, Product};
