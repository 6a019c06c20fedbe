//! The order service as a program.

use reel::runtime::{BadSetting, Edge};
use sqlx::migrate::Migrator;

use crate::config::Settings;
use crate::domain::OrderService;
use crate::http;

/// The order service as a program.
#[derive(Debug)]
pub struct App;

impl reel::runtime::App for App {
    type Service = OrderService;
    type Settings = Settings;

    fn migrations() -> &'static Migrator {
        static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/order");
        &MIGRATIONS
    }

    fn router(edge: Edge<OrderService>, settings: &Settings) -> Result<axum::Router, BadSetting> {
        Ok(http::router(edge, settings.price_list()?, settings.settle_within))
    }
}
