//! The claims of a token, in the forms that issuers write them.

use serde::{Deserialize, Deserializer};

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Claims {
    pub(super) sub: String,
    /// The time of expiry, in seconds since 1970: a JSON number, also with a fraction (RFC 7519, 2).
    #[serde(deserialize_with = "seconds")]
    pub(super) exp: u64,
    /// The scopes, separated by spaces (RFC 8693, 4.2) or as an array.
    #[serde(default)]
    scope: Scopes,
    /// The same, as some issuers name them.
    #[serde(default)]
    scp: Scopes,
}

/// Scopes, as text or as an array.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Scopes {
    Text(String),
    Array(Vec<String>),
}

impl Default for Scopes {
    fn default() -> Self {
        Self::Array(Vec::new())
    }
}

impl Scopes {
    fn has(&self, scope: &str) -> bool {
        match self {
            Self::Text(text) => text.split(' ').any(|has| has == scope),
            Self::Array(scopes) => scopes.iter().any(|has| has == scope),
        }
    }
}

impl Claims {
    /// Whether the token has a scope.
    pub(super) fn has(&self, scope: &str) -> bool {
        self.scope.has(scope) || self.scp.has(scope)
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let seconds = f64::deserialize(deserializer)?;
    if seconds.is_finite() && seconds >= 0.0 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
        Ok(seconds as u64)
    } else {
        Err(serde::de::Error::custom("a time is a number of seconds since 1970"))
    }
}
