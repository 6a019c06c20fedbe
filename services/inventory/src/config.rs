//! The inventory service's own settings.

/// The inventory service's own settings: none. It has those of the toolkit.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {}
