//! What the order service hands to the toolkit to be run as a program.

use reel::http::OpenApiRouter;
use reel::projection::Projection;
use reel::runtime::{ConfigError, HttpContext};
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
        reel::migrations![
            "../../../migrations/order/0002_order.sql",
            "../../../migrations/order/0004_order.sql",
            "../../../migrations/order/0005_order.sql",
            "../../../migrations/order/0006_order.sql",
        ]
    }

    fn projections() -> Vec<Box<dyn Projection>> {
        vec![Box::new(Timeline)]
    }

    fn router(
        context: HttpContext<OrderService>,
        settings: &Settings,
    ) -> Result<OpenApiRouter, ConfigError> {
        Ok(http::router(context, settings.price_list()?, settings.settle_within))
    }
}
