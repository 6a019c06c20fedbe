//! The tokens with which one asks the services.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use serde::Serialize;

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
    /// Whom tokens of the shop's own people name.
    pub const STAFF: &str = "staff";
    /// What they may do: act for all customers, take money, bring goods.
    pub const STAFF_SCOPES: &str = "shop till warehouse";

    /// By a key in a file: a private Ed25519 key in PEM, or else the secret that the services have.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no such key.
    pub fn of_file(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("cannot read the key of tokens in {}", file.display()))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.starts_with("-----BEGIN") {
            let key = EncodingKey::from_ed_pem(text.as_bytes());
            let key = key.with_context(|| format!("{} holds no private Ed25519 key", file.display()))?;
            return Ok(Self { algorithm: Algorithm::EdDSA, key });
        }
        Ok(Self { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(text.as_bytes()) })
    }

    /// By the secret that lies in a file, which is made if it is not there.
    pub(super) fn of_secret(file: &Path) -> Result<Self> {
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(file) {
            Ok(mut created) => {
                let secret = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()].map(|random| random.simple().to_string());
                created.write_all(secret.concat().as_bytes())?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write {}", file.display())),
        }
        Self::of_file(file)
    }

    /// A token for `subject` with these scopes, which have spaces between them.
    ///
    /// # Errors
    /// Where the key signs nothing.
    pub fn token(&self, subject: &str, scopes: &str, valid_for: Duration) -> Result<String> {
        let iat = get_current_timestamp();
        let claims = Claims { sub: subject, scope: scopes, iat, exp: iat + valid_for.as_secs() };
        encode(&Header::new(self.algorithm), &claims, &self.key).context("the token cannot be signed")
    }

    /// A token that may do everything, for twelve hours.
    ///
    /// # Errors
    /// Where the key signs nothing.
    pub fn staff(&self) -> Result<String> {
        self.token(Self::STAFF, Self::STAFF_SCOPES, STAFF_FOR)
    }
}

/// Where the key of a system's tokens lies.
pub(crate) fn key_in(folder: &Path) -> PathBuf {
    folder.join("token-key")
}
