//! The order service: takes orders and follows each until it is confirmed or cancelled.
//!
//! [`domain`] holds its decisions, as pure functions. The rest connects them: `store` to Postgres,
//! `http` to clients, `app` to the toolkit.

#[cfg(feature = "program")]
mod access;
#[cfg(feature = "program")]
mod app;
#[cfg(feature = "program")]
mod completion;
#[cfg(feature = "program")]
mod config;
pub mod domain;
#[cfg(feature = "program")]
mod event_stream;
#[cfg(feature = "program")]
mod http;
#[cfg(feature = "program")]
mod list;
#[cfg(feature = "program")]
mod prices;
#[cfg(feature = "program")]
mod store;
#[cfg(feature = "program")]
mod timeline;
#[cfg(feature = "program")]
mod views;

#[cfg(feature = "program")]
pub use app::App;
#[cfg(feature = "program")]
pub use config::Settings;
#[cfg(feature = "program")]
pub use prices::{PriceList, PriceListError, Product};
