//! What runs a service: settings, start, health, shutdown.

mod app;
mod commands;
mod gate;
mod health;
mod program;
mod serve;
mod settings;

pub use app::{App, BadSetting, Edge};
pub(crate) use commands::Asked;
pub use commands::{Commands, Refused};
pub(crate) use gate::{Backlog, Gate};
pub use program::main;
pub use serve::{ServeError, serve};
pub use settings::{AccessSettings, DatabaseSettings, HttpSettings, KafkaSettings, LogFormat, RunSettings, TopicSettings, duration};
