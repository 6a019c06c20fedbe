//! The hash of a request, which distinguishes a retry from another request under the same
//! `Idempotency-Key`.

use std::fmt::{self, Display};
use std::str::FromStr;

use apache_avro::Schema;
use apache_avro::schema::derive::AvroSchemaComponent;
use apache_avro::schema::{Name, Namespace};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::Invalid;
use crate::ids::travels_as_text;

/// The SHA-256 of a request as JSON, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestHash(String);

impl RequestHash {
    /// Hashes a parsed request, so that white space and the order of the fields in the JSON that
    /// the client sent do not matter.
    ///
    /// # Panics
    /// If the request cannot be serialized as JSON, which cannot happen for a plain struct.
    pub fn of(request: &impl Serialize) -> Self {
        let json = serde_json::to_vec(request).expect("a request is a plain struct");
        Self(Sha256::digest(json).iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The hexadecimal text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for RequestHash {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let good =
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid("a request hash is 64 lower-case hexadecimal digits"))
        }
    }
}

travels_as_text!(RequestHash, Schema::String);
