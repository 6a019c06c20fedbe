//! The top layer: settings, wiring, start, health and shutdown. No other module depends on it.

mod app;
mod health;
mod program;
mod serve;
mod settings;
mod token_keys;
mod topics;
mod wiring;

pub use crate::database::ConnectionPool;
pub use app::{App, ConfigError, HttpContext};
pub use program::{main, migrate};
pub use serve::{ServeError, serve};
pub use settings::{
    AccessSettings, Auth, DatabaseSettings, HttpSettings, KafkaSettings, RunSettings, duration,
};
