//! The keys that verify tokens: one in PEM, a secret, or a JWK set (RFC 7517) with several. The key
//! determines the algorithm, not the token.

use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde_json::Value;

/// The shortest secret that is accepted for HS256, in bytes (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;
/// Bytes of an uncompressed point of the curve P-256 (SEC 1, 2.3.3).
const P256_POINT: usize = 65;
/// The beginning of public keys in PEM.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----";
/// The beginnings of SSH's public keys, which are no secrets.
const SSH: [&str; 2] = ["ssh-", "ecdsa-"];

/// A key, and the algorithm that it is for.
pub(super) struct Key {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Its name in the headers of tokens (`kid`); one without a name may have signed any.
    id: Option<String>,
}

/// The keys of one issuer.
pub(super) struct Keys(Vec<Key>);

impl Keys {
    /// Reads a public key in PEM, a JWK or a JWK set, or else a secret.
    ///
    /// # Errors
    /// If it is none of these; the text says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        // With a byte order mark or a blank line before it, a public key must not pass for a
        // secret.
        let text = text.trim_start_matches('\u{feff}').trim();
        let key = if text.starts_with('{') {
            return Self::from_json(text);
        } else if text.starts_with(PUBLIC_KEY) {
            from_pem(text)?
        } else if text.contains("-----BEGIN") || SSH.iter().any(|begin| text.starts_with(begin)) {
            return Err(
                "it must contain nothing but a public key in PEM or a JWK set; a service takes the \
                 public half, as `openssl pkey -pubout` writes it"
                    .into(),
            );
        } else {
            (Algorithm::HS256, secret(text.as_bytes())?)
        };
        let (algorithm, key) = key;
        Ok(Self(vec![Key { algorithm, key, id: None }]))
    }

    fn from_json(text: &str) -> Result<Self, String> {
        let wrong = |error: serde_json::Error| format!("it is neither a JWK nor a set: {error}");
        let json: Value = serde_json::from_str(text).map_err(wrong)?;
        let is_set = json.get("keys").is_some();
        let jwks = json.get("keys").and_then(Value::as_array);
        let mut raw = jwks.into_iter().flatten().chain(std::iter::once(&json));
        if raw.any(|jwk| jwk.get("d").is_some()) {
            return Err("it holds a private key; a service takes the public half".into());
        }
        let keys = if is_set {
            serde_json::from_value::<JwkSet>(json).map_err(wrong)?.keys
        } else {
            vec![serde_json::from_value::<Jwk>(json).map_err(wrong)?]
        };

        // Sets hold keys for other purposes too.
        let keys: Vec<Key> = keys.iter().filter_map(from_jwk).collect();
        if keys.is_empty() {
            return Err("it holds no key for RS256, ES256, EdDSA or HS256".into());
        }
        Ok(Self(keys))
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn for_header(&self, header: &Header) -> impl Iterator<Item = &Key> {
        let (algorithm, id) = (header.alg, header.kid.clone());
        self.0.iter().filter(move |key| {
            let is_named = key.id.is_none() || id.is_none() || key.id == id;
            key.algorithm == algorithm && is_named
        })
    }
}

/// A public key in PEM: of Ed25519, P-256 or RSA.
fn from_pem(text: &str) -> Result<(Algorithm, DecodingKey), String> {
    let pem = text.as_bytes();
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Ok((Algorithm::EdDSA, key));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        return match key.try_get_as_bytes() {
            Ok(point) if point.len() == P256_POINT => Ok((Algorithm::ES256, key)),
            _ => Err("its curve is not P-256 or Ed25519".to_owned()),
        };
    }
    let key = DecodingKey::from_rsa_pem(pem)
        .map_err(|error| format!("it holds no key of Ed25519, P-256 or RSA: {error}"))?;
    Ok((Algorithm::RS256, key))
}

/// A key of a set; `None` if it is for something else.
fn from_jwk(jwk: &Jwk) -> Option<Key> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            Algorithm::ES256
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Algorithm::EdDSA
        }
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        _ => return None,
    };
    let named = match jwk.common.key_algorithm {
        None => Some(algorithm),
        Some(KeyAlgorithm::RS256) => Some(Algorithm::RS256),
        Some(KeyAlgorithm::ES256) => Some(Algorithm::ES256),
        Some(KeyAlgorithm::EdDSA) => Some(Algorithm::EdDSA),
        Some(KeyAlgorithm::HS256) => Some(Algorithm::HS256),
        Some(_) => None,
    };
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    if algorithm == Algorithm::HS256 {
        secret(key.try_get_as_bytes().ok()?).ok()?;
    }
    (signs && named == Some(algorithm)).then(|| Key {
        algorithm,
        key,
        id: jwk.common.key_id.clone(),
    })
}

fn secret(secret: &[u8]) -> Result<DecodingKey, String> {
    let length = secret.len();
    if length < SHORTEST_SECRET {
        return Err(format!(
            "its secret has {length} bytes; HS256 takes {SHORTEST_SECRET} or more"
        ));
    }
    Ok(DecodingKey::from_secret(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_in_pem_determines_the_algorithm() {
        for (pem, algorithm) in [
            (include_str!("../../testdata/rsa.pem"), Algorithm::RS256),
            (include_str!("../../testdata/p256.pem"), Algorithm::ES256),
        ] {
            let keys = Keys::parse(&format!("\u{feff}\n{pem}")).map_err(|e| panic!("{e}"));
            assert!(keys.is_ok_and(|keys| keys.0[0].algorithm == algorithm));
        }
    }

    #[test]
    fn a_set_gives_the_keys_that_sign_by_the_algorithms_we_know() {
        let keys =
            Keys::parse(include_str!("../../testdata/jwks.json")).unwrap_or_else(|e| panic!("{e}"));
        let named: Vec<_> = keys.0.iter().map(|key| (key.id.as_deref(), key.algorithm)).collect();
        assert_eq!(named, [(Some("r"), Algorithm::RS256), (Some("e"), Algorithm::ES256)]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let refused = |text: &str| Keys::parse(text).err().unwrap_or_default();
        assert!(refused("short").contains("32 or more"));
        assert!(refused("{").contains("neither a JWK nor a set"));
        assert!(refused("{}").contains("no key for"));
        assert!(refused(r#"{"keys": []}"#).contains("no key for"));
        assert!(
            refused(r#"{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "AA"}"#)
                .contains("private key")
        );
        let short = r#"{"keys": [{"kty": "oct", "k": "c2hvcnQ"}]}"#;
        assert!(refused(short).contains("no key for"), "a short secret is none");
        let nothing = "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n";
        assert!(refused(nothing).contains("no key of"));
    }
}
