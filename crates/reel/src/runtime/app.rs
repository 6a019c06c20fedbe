//! What a service hands to the toolkit to be run.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use sqlx::PgPool;
use sqlx::migrate::Migrator;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::Commands;
use crate::http::OpenApiRouter;
use crate::model::Service;
use crate::projection::Projection;
use crate::step::Stored;

/// A service as a program: its functions, its tables, its HTTP edge, its own settings.
pub trait App: Sized + Send + Sync + 'static {
    /// The pure functions and the state.
    type Service: Service<State: Stored>;
    /// The settings beside the toolkit's own. Their doc comments are the text of `--help`.
    type Settings: clap::Args + Debug + Clone + Send + Sync + 'static;

    /// The tables: the toolkit's file first, then the service's own.
    fn migrations() -> &'static Migrator;

    /// The projections, which each replica keeps for the lanes that it owns.
    fn projections() -> Vec<Box<dyn Projection>> {
        Vec::new()
    }

    /// The HTTP edge. The toolkit lets in who has a token (a handler learns who by [`Caller`](crate::http::Caller)), and adds
    /// `/health/live`, `/health/ready` and `/openapi.json`, which are open: the document of the routes that are made of handlers with
    /// `utoipa::path`, completed with the errors that all edges share.
    ///
    /// # Errors
    /// Where a setting is wrong, with its name: the process ends with exit code 2.
    fn router(edge: Edge<Self::Service>, settings: &Self::Settings) -> Result<OpenApiRouter, BadSetting>;
}

/// What an HTTP edge works with.
pub struct Edge<S: Service> {
    /// Where commands go.
    pub commands: Commands<S>,
    /// The service's own database, for queries.
    pub database: PgPool,
    pub(super) stop: CancellationToken,
    pub(super) waiting: Arc<Semaphore>,
}

impl<S: Service> Edge<S> {
    /// Returns when the process is to stop: answers that wait for something end then.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// A place among the requests that wait for something to happen, to be kept until the answer has ended; none where all are taken.
    #[must_use]
    pub fn waiting(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.clone().try_acquire_owned().ok()
    }
}

impl<S: Service> Clone for Edge<S> {
    fn clone(&self) -> Self {
        let (stop, waiting) = (self.stop.clone(), self.waiting.clone());
        Self { commands: self.commands.clone(), database: self.database.clone(), stop, waiting }
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
