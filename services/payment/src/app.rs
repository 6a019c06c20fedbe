//! The payment service as a program.

use reel::http::OpenApiRouter;
use reel::runtime::{BadSetting, Edge};
use sqlx::migrate::Migrator;

use crate::config::Settings;
use crate::domain::PaymentService;
use crate::http;

/// The payment service as a program.
#[derive(Debug)]
pub struct App;

impl reel::runtime::App for App {
    type Service = PaymentService;
    type Settings = Settings;

    fn migrations() -> &'static Migrator {
        static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/payment");
        &MIGRATIONS
    }

    fn router(edge: Edge<PaymentService>, _settings: &Settings) -> Result<OpenApiRouter, BadSetting> {
        Ok(http::router(edge))
    }
}
