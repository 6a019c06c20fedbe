//! Bearer tokens for the services.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use reel_http::token_crypto;
use serde::Serialize;

use super::Service;

const STAFF_FOR: Duration = Duration::from_hours(12);

/// Signs tokens.
#[derive(Clone)]
pub struct Tokens {
    algorithm: Algorithm,
    key: EncodingKey,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    scope: &'a str,
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// The subject of staff's tokens.
    pub const STAFF: &str = "staff";

    /// Returns what staff may do: the scopes of all services, separated by spaces.
    #[must_use]
    pub fn staff_scopes() -> String {
        Service::all().flat_map(Service::scopes).collect::<Vec<_>>().join(" ")
    }

    /// Reads the key in a file: a private Ed25519 key in PEM, or else the secret that the services
    /// have.
    ///
    /// # Errors
    /// If the file cannot be read, or its PEM is not such a key.
    pub fn of_file(file: &Path) -> Result<Self> {
        token_crypto::install();
        let text = fs::read_to_string(file).with_context(|| {
            format!("cannot read the key that signs tokens in {}", file.display())
        })?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.starts_with("-----BEGIN") {
            let key = EncodingKey::from_ed_pem(text.as_bytes());
            let key =
                key.with_context(|| format!("{} holds no private Ed25519 key", file.display()))?;
            return Ok(Self { algorithm: Algorithm::EdDSA, key });
        }
        Ok(Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(text.as_bytes()) })
    }

    /// Reads the secret in a file, which is created with a random one if it is missing.
    pub(super) fn of_secret(file: &Path) -> Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(mut created) => {
                let secret = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()]
                    .map(|random| random.simple().to_string());
                created.write_all(secret.concat().as_bytes())?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot write {}", file.display()));
            }
        }
        Self::of_file(file)
    }

    /// Returns a token for `subject` with these scopes, which are separated by spaces.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn token(&self, subject: &str, scopes: &str, valid_for: Duration) -> Result<String> {
        let iat = get_current_timestamp();
        let claims = Claims { sub: subject, scope: scopes, iat, exp: iat + valid_for.as_secs() };
        encode(&Header::new(self.algorithm), &claims, &self.key)
            .context("the token cannot be signed")
    }

    /// Returns a token with the scopes of all services, valid for twelve hours.
    ///
    /// # Errors
    /// If the token cannot be signed.
    pub fn staff(&self) -> Result<String> {
        self.token(Self::STAFF, &Self::staff_scopes(), STAFF_FOR)
    }
}

/// Returns the path of the key that signs a system's tokens.
pub(crate) fn key_in(folder: &Path) -> PathBuf {
    folder.join("token-key")
}
