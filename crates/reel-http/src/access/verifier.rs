//! Verifies the tokens of requests.

use std::sync::{Arc, RwLock};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use headers::HeaderMapExt as _;
use headers::authorization::{Authorization, Bearer};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};

use super::Caller;
use super::claims::Claims;
use super::keys::Keys;
use crate::{Problem, single, token_crypto};

/// The types of tokens that are taken: a plain one, and an access token (RFC 9068).
const TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Verifies tokens by the keys of one issuer, which may change while it is used.
pub struct Verifier {
    keys: RwLock<Arc<Keys>>,
    validation: Validation,
}

/// What tokens must say besides.
#[derive(Debug, Clone, Copy, Default)]
pub struct Expected<'a> {
    /// The audience that they must name; without it, tokens that name one are rejected.
    pub audience: Option<&'a str>,
    /// The issuer that they must name; without it, any.
    pub issuer: Option<&'a str>,
}

impl Verifier {
    /// A verifier by these keys: a public key in PEM (Ed25519, P-256 or RSA), a JWK set (RFC 7517),
    /// or else a secret (HS256).
    ///
    /// # Errors
    /// If the keys are none of these; the text says what is wrong with them.
    pub fn new(keys: &str, expected: Expected<'_>) -> Result<Self, String> {
        let keys = RwLock::new(Arc::new(Keys::parse(keys)?));
        token_crypto::install();

        let mut required = vec!["exp", "sub"];
        let mut validation = Validation::new(Algorithm::HS256); // the key's, for each token
        validation.validate_nbf = true;
        if let Some(audience) = expected.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = expected.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { keys, validation })
    }

    /// Takes other keys in the place of those before, as when an issuer rotates them.
    ///
    /// # Errors
    /// As [`new`](Self::new); then those before stay.
    pub fn replace_keys(&self, keys: &str) -> Result<(), String> {
        let keys = Arc::new(Keys::parse(keys)?);
        *self.keys.write().unwrap_or_else(std::sync::PoisonError::into_inner) = keys;
        Ok(())
    }

    /// The caller, from the token of a request.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if single(headers, AUTHORIZATION.as_str()).is_err() {
            let detail = "the header Authorization occurs more than once: send it once";
            return Err(Problem::unauthorized(detail, false));
        }
        let bearer = match headers.typed_try_get::<Authorization<Bearer>>() {
            Ok(Some(Authorization(bearer))) => bearer,
            Ok(None) => {
                let detail = "send a token, as Authorization: Bearer <token>";
                return Err(Problem::unauthorized(detail, false));
            }
            Err(_) => {
                let detail = "the header Authorization is not of the form Bearer <token>";
                return Err(Problem::unauthorized(detail, false));
            }
        };
        let claims = self.claims(bearer.token().trim());
        claims.map(Caller::of).map_err(|why| Problem::unauthorized(why, true))
    }

    /// The claims of a token, or why it is refused.
    fn claims(&self, token: &str) -> Result<Claims, String> {
        let header = decode_header(token).map_err(|error| describe(error.kind()))?;
        check_header(&header)?;

        let keys = self.keys.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let mut refused = ErrorKind::InvalidSignature;
        for key in keys.for_header(&header) {
            let validation =
                Validation { algorithms: vec![key.algorithm], ..self.validation.clone() };
            match decode::<Claims>(token, &key.key, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => refused = error.into_kind(),
            }
        }
        Err(describe(&refused))
    }
}

/// Refuses a header that says more than is understood.
fn check_header(header: &Header) -> Result<(), String> {
    if let Some(critical) = &header.crit {
        return Err(format!(
            "the token needs what is not understood here: {}",
            critical.join(", ")
        ));
    }
    let Some(of_token) = header.typ.as_deref().map(str::to_ascii_lowercase) else { return Ok(()) };
    if TYPES.contains(&of_token.trim_start_matches("application/")) {
        Ok(())
    } else {
        Err(format!("the token is of the type {of_token}, and no access token"))
    }
}

fn describe(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired: get a new one".into(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".into(),
        ErrorKind::InvalidAudience => "the token is for another audience".into(),
        ErrorKind::InvalidIssuer => "the token is of another issuer".into(),
        ErrorKind::Json(error) => format!("the token cannot be read: {error}"),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token lacks the claim {claim}"),
        _ => "the token is not one that was made for this service".into(),
    }
}
