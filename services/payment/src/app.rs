//! What the payment service hands to the toolkit to be run as a program.

use reel::http::OpenApiRouter;
use reel::runtime::{ConfigError, HttpContext};
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
        reel::migrations!["../../../migrations/payment/0002_payment.sql"]
    }

    fn router(
        context: HttpContext<PaymentService>,
        _settings: &Settings,
    ) -> Result<OpenApiRouter, ConfigError> {
        Ok(http::router(context))
    }
}
