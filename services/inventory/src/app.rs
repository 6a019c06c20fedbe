//! What the inventory service hands to the toolkit to be run as a program.

use reel::http::OpenApiRouter;
use reel::runtime::{ConfigError, HttpContext};
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
        reel::migrations!["../../../migrations/inventory/0002_inventory.sql"]
    }

    fn router(
        context: HttpContext<InventoryService>,
        _settings: &Settings,
    ) -> Result<OpenApiRouter, ConfigError> {
        Ok(http::router(context))
    }
}
