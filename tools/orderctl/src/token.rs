//! `orderctl token`: a bearer token for the services.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::system::Tokens;
use crate::up;

/// The token's owner and lifetime, and the key that signs it.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// Customer that the token is for, who may see and do only what is its own; by default the
    /// token is for staff
    #[arg(long)]
    customer: Option<String>,
    /// Time for which the token is valid
    #[arg(long, default_value = "12h", value_parser = reel::runtime::duration)]
    valid_for: Duration,
    /// File with the key that signs the token: a private Ed25519 key in PEM, or the secret that the
    /// services have. By default, the key of the system that `up` started
    #[arg(long, env = "TOKEN_SIGNING_KEY_FILE")]
    key_file: Option<PathBuf>,
}

/// Prints a token.
///
/// # Errors
/// If there is no key, or it cannot sign.
pub fn run(options: &Options) -> Result<ExitCode> {
    let key = options.key_file.clone().map_or_else(up::token_key, Ok)?;
    let tokens = Tokens::of_file(&key)?;
    let token = match &options.customer {
        Some(customer) => tokens.token(customer, "", options.valid_for)?,
        None => tokens.token(Tokens::STAFF, &Tokens::staff_scopes(), options.valid_for)?,
    };
    println!("{token}");
    Ok(ExitCode::SUCCESS)
}
