//! What a service hands to the toolkit to be run.

use std::borrow::Cow;
use std::fmt::Debug;

use sqlx::PgPool;
use sqlx::migrate::Migrator;

use super::Commands;
use crate::model::Service;
use crate::step::Stored;

/// A service as a program: its functions, its tables, its HTTP edge, its own settings.
pub trait App: Sized + Send + Sync + 'static {
    /// The pure functions and the state.
    type Service: Service<State: Stored>;
    /// The settings beside the toolkit's own. Their doc comments are the text of `--help`.
    type Settings: clap::Args + Debug + Clone + Send + Sync + 'static;

    /// The tables: the toolkit's file first, then the service's own.
    fn migrations() -> &'static Migrator;

    /// The HTTP edge. The toolkit adds `/health/live` and `/health/ready`.
    ///
    /// # Errors
    /// Where a setting is wrong, with its name: the process ends with exit code 2.
    fn router(edge: Edge<Self::Service>, settings: &Self::Settings) -> Result<axum::Router, BadSetting>;
}

/// What an HTTP edge works with.
pub struct Edge<S: Service> {
    /// Where commands go.
    pub commands: Commands<S>,
    /// The service's own database, for queries.
    pub database: PgPool,
}

impl<S: Service> Clone for Edge<S> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), database: self.database.clone() }
    }
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct BadSetting {
    /// The setting, as its environment variable is called.
    pub name: Cow<'static, str>,
    /// What is wrong, and what would be right.
    pub reason: String,
}
