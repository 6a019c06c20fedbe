//! The cryptography of bearer tokens: HMAC with SHA-256, Ed25519, and for those of other issuers
//! P-256 and RSA. It uses `ring`, which TLS
//! needs in any case; the providers of `jsonwebtoken` would each add a second library.

use std::sync::LazyLock;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, RSA_PKCS1_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use signature::{Error, Signer, Verifier};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(), // only for making JWKs
};

/// Installs this provider in the process, unless it has one. Call it before signing or verifying a
/// token.
pub fn install() {
    static INSTALLED: LazyLock<()> = LazyLock::new(|| {
        let _ = PROVIDER.install_default(); // an error means that the process has another one
    });
    LazyLock::force(&INSTALLED);
}

struct Hmac(hmac::Key);
struct EddsaSigner(Ed25519KeyPair);
/// Verifies by a public key, of any algorithm but those with a shared secret.
struct PublicKey {
    algorithm: Algorithm,
    key: UnparsedPublicKey<Vec<u8>>,
}
/// Verifies by a public RSA key that is given as its numbers.
struct RsaNumbers(RsaPublicKeyComponents<Vec<u8>>);

fn signer(algorithm: &Algorithm, key: &EncodingKey) -> Result<Box<dyn JwtSigner>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Ok(Box::new(Hmac::new(key.as_bytes()))),
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            // OpenSSL writes PKCS #8 version 1, which lacks the public key.
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes());
            Ok(Box::new(EddsaSigner(pair.map_err(|_| ErrorKind::InvalidEddsaKey)?)))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>> {
    match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => {
            Ok(Box::new(Hmac::new(key.try_get_as_bytes()?)))
        }
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => public_key(*algorithm, &ED25519, key),
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            public_key(*algorithm, &ECDSA_P256_SHA256_FIXED, key)
        }
        (Algorithm::RS256, AlgorithmFamily::Rsa) => match key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let (n, e) = (n.clone(), e.clone());
                Ok(Box::new(RsaNumbers(RsaPublicKeyComponents { n, e })))
            }
            DecodingKeyKind::SecretOrDer(_) => {
                public_key(*algorithm, &RSA_PKCS1_2048_8192_SHA256, key)
            }
        },
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

fn public_key(
    algorithm: Algorithm,
    by: &'static dyn VerificationAlgorithm,
    key: &DecodingKey,
) -> Result<Box<dyn JwtVerifier>> {
    let key = UnparsedPublicKey::new(by, key.try_get_as_bytes()?.to_vec());
    Ok(Box::new(PublicKey { algorithm, key }))
}

impl Hmac {
    fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }
}

impl Signer<Vec<u8>> for Hmac {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(hmac::sign(&self.0, message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for Hmac {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| Error::new())
    }
}

impl Signer<Vec<u8>> for EddsaSigner {
    fn try_sign(&self, message: &[u8]) -> std::result::Result<Vec<u8>, Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl Verifier<Vec<u8>> for PublicKey {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        self.key.verify(message, signature).map_err(|_| Error::new())
    }
}

impl Verifier<Vec<u8>> for RsaNumbers {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> std::result::Result<(), Error> {
        let by = &RSA_PKCS1_2048_8192_SHA256;
        self.0.verify(by, message, signature).map_err(|_| Error::new())
    }
}

impl JwtSigner for Hmac {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtVerifier for Hmac {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

impl JwtSigner for EddsaSigner {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

impl JwtVerifier for PublicKey {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl JwtVerifier for RsaNumbers {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Header, Validation, decode, encode};
    use serde_json::{Value, json};

    use super::*;

    /// RFC 8037, appendix A: a key, the signed part of a token, and the signature.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";
    const SIGNED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    #[test]
    fn a_signature_is_that_of_the_rfc() {
        install();
        let key = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).expect("a key");
        let signed = jsonwebtoken::crypto::sign(SIGNED.as_bytes(), &key, Algorithm::EdDSA);
        assert_eq!(signed.expect("it signs"), SIGNATURE);
    }

    #[test]
    fn an_algorithm_that_is_not_that_of_the_key_is_refused() {
        install();
        let secret = EncodingKey::from_secret(b"secret");
        let claims = json!({"exp": 4_000_000_000_u64});
        for algorithm in [Algorithm::EdDSA, Algorithm::HS512, Algorithm::RS256] {
            assert!(encode(&Header::new(algorithm), &claims, &secret).is_err(), "{algorithm:?}");
        }
        let token = encode(&Header::new(Algorithm::HS256), &claims, &secret).expect("it signs");
        let other = DecodingKey::from_secret(b"another secret");
        assert!(decode::<Value>(&token, &other, &Validation::new(Algorithm::HS256)).is_err());
    }
}
