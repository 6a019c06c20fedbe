//! The order service as a program.

use reel::http::OpenApiRouter;
use reel::projection::Projection;
use reel::runtime::{BadSetting, Edge};
use sqlx::migrate::Migrator;

use crate::config::Settings;
use crate::domain::OrderService;
use crate::http;
use crate::timeline::Timeline;

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

    fn projections() -> Vec<Box<dyn Projection>> {
        vec![Box::new(Timeline)]
    }

    fn router(edge: Edge<OrderService>, settings: &Settings) -> Result<OpenApiRouter, BadSetting> {
        Ok(http::router(edge, settings.price_list()?, settings.settle_within))
    }
}
