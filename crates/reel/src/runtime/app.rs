//! The parts of a service that the toolkit runs as a program.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use sqlx::migrate::Migrator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::admission::Commands;
use crate::database::ConnectionPool;
use crate::http::OpenApiRouter;
use crate::model::Service;
use crate::projection::Projection;
use crate::rows::Stored;

/// A service as a program: its functions, tables, HTTP edge and own settings.
pub trait App: Sized + Send + Sync + 'static {
    /// The pure functions and the state.
    type Service: Service<State: Stored>;
    /// The service's own settings. Their doc comments are the text of `--help`.
    type Settings: clap::Args + Debug + Clone + Send + Sync + 'static;

    /// The migrations of the service's own tables. The toolkit's run before them.
    fn migrations() -> &'static Migrator;

    /// The projections. Each replica runs them for the lanes that it owns.
    fn projections() -> Vec<Box<dyn Projection>> {
        Vec::new()
    }

    /// The HTTP edge. The toolkit admits only requests with a valid token, whose claims a handler
    /// gets as [`Caller`](crate::http::Caller). It adds `/health/live`, `/health/ready` and
    /// `/openapi.json`, which need no token. The latter documents the routes whose handlers have
    /// `utoipa::path`, and the errors that all edges have in common.
    ///
    /// # Errors
    /// If a setting is wrong. The process then exits with code 2.
    fn router(
        context: HttpContext<Self::Service>,
        settings: &Self::Settings,
    ) -> Result<OpenApiRouter, ConfigError>;
}

/// What the handlers of an HTTP edge use.
pub struct HttpContext<S: Service> {
    /// The queue of commands to the step.
    pub commands: Commands<S>,
    /// The service's own database, for queries.
    pub database: ConnectionPool,
    pub(super) stop: CancellationToken,
    pub(super) waiting: Arc<Semaphore>,
}

impl<S: Service> HttpContext<S> {
    /// Returns when the process is asked to stop. Responses that wait for something end then.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// A permit to wait for something to happen, to be held until the response ends; `None` if all
    /// permits are taken.
    #[must_use]
    pub fn waiting(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }
}

impl<S: Service> Clone for HttpContext<S> {
    fn clone(&self) -> Self {
        let (stop, waiting) = (self.stop.clone(), self.waiting.clone());
        Self { commands: self.commands.clone(), database: self.database.clone(), stop, waiting }
    }
}

/// A setting that is wrong.
#[derive(Debug, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ConfigError {
    /// The setting, by the name of its environment variable.
    pub name: Cow<'static, str>,
    /// What is wrong, and what would be right.
    pub reason: String,
}
