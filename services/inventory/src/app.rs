//! The inventory service as a program.

use reel::http::OpenApiRouter;
use reel::runtime::{BadSetting, Edge};
use sqlx::migrate::Migrator;

use crate::config::Settings;
use crate::domain::InventoryService;
use crate::http;

/// The inventory service as a program.
#[derive(Debug)]
pub struct App;

impl reel::runtime::App for App {
    type Service = InventoryService;
    type Settings = Settings;

    fn migrations() -> &'static Migrator {
        static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/inventory");
        &MIGRATIONS
    }

    fn router(edge: Edge<InventoryService>, _settings: &Settings) -> Result<OpenApiRouter, BadSetting> {
        Ok(http::router(edge))
    }
}
