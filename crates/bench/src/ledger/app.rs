//! The ledger as a program.

use reel::http::OpenApiRouter;
use reel::runtime::{BadSetting, Edge};
use sqlx::migrate::Migrator;

use super::acks::Acks;
use super::{LedgerService, edge};

/// The ledger as a program.
#[derive(Debug)]
pub struct App;

/// The ledger's own settings.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Settings {
    /// Remember when each event was acked, until it is asked for
    #[arg(long, env = "REMEMBER_ACKS")]
    pub remember_acks: bool,
    /// Where acks are remembered.
    #[arg(skip)]
    pub acks: Acks,
}

impl reel::runtime::App for App {
    type Service = LedgerService;
    type Settings = Settings;

    /// None: who measures makes the [tables](super::TABLES) itself.
    fn migrations() -> &'static Migrator {
        static NONE: Migrator = Migrator::DEFAULT;
        &NONE
    }

    fn router(edge: Edge<LedgerService>, settings: &Settings) -> Result<OpenApiRouter, BadSetting> {
        Ok(edge::router(edge, settings.acks.clone()).into())
    }
}
