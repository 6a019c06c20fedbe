//! The ledger as a program: settings, migrations, router.

use reel::http::OpenApiRouter;
use reel::runtime::{ConfigError, HttpContext};
use sqlx::migrate::Migrator;

use super::acks::Acks;
use super::{LedgerService, http};

/// The ledger, for [`reel::runtime::serve`].
#[derive(Debug)]
pub struct App;

/// The ledger's own settings.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// Record when each event was acked, for `GET /acks`
    #[arg(long, env = "REMEMBER_ACKS")]
    pub remember_acks: bool,
    /// The recorded acks.
    #[arg(skip)]
    pub acks: Acks,
}

impl reel::runtime::App for App {
    type Service = LedgerService;
    type Settings = Settings;

    fn migrations() -> &'static Migrator {
        reel::migrations!["../../migrations/0001_ledger.sql"]
    }

    fn router(
        context: HttpContext<LedgerService>,
        settings: &Settings,
    ) -> Result<OpenApiRouter, ConfigError> {
        Ok(http::router(context, settings.acks.clone()).into())
    }
}
