//! The payment service has no settings but the toolkit's.

/// The payment service has no settings but the toolkit's.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {}
