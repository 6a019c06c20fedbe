//! `orderctl token`: a token with which one asks the services.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::system::Tokens;
use crate::up;

/// Whose token, and by which key.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// The customer who gets it, and may see and do only what is its own; without it, it is one of the shop's own people
    #[arg(long)]
    customer: Option<String>,
    /// For how long it is valid
    #[arg(long, default_value = "12h", value_parser = reel::runtime::duration)]
    valid_for: Duration,
    /// A file with the key that signs it: a private Ed25519 key in PEM, or the secret that the services have. By default that of the
    /// system that `up` has started
    #[arg(long, env = "TOKEN_SIGNING_KEY_FILE")]
    key_file: Option<PathBuf>,
}

/// Prints a token.
///
/// # Errors
/// Where there is no key.
pub fn run(options: &Options) -> Result<ExitCode> {
    let key = options.key_file.clone().map_or_else(up::token_key, Ok)?;
    let tokens = Tokens::of_file(&key)?;
    let token = match &options.customer {
        Some(customer) => tokens.token(customer, "", options.valid_for)?,
        None => tokens.token(Tokens::STAFF, Tokens::STAFF_SCOPES, options.valid_for)?,
    };
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}
