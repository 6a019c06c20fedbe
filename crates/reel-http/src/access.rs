//! Access by bearer token (RFC 6750): a JWT (RFC 7519), which is verified before anything else of a
//! request is read.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use headers::HeaderMapExt as _;
use headers::authorization::{Authorization, Bearer};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, get_current_timestamp};
use serde::Deserialize;

use super::{Problem, single, token_crypto};

/// The shortest secret that is accepted for HS256, in bytes (RFC 7518, 3.2).
const SHORTEST_SECRET: usize = 32;

/// Which requests the HTTP edge admits.
#[derive(Clone)]
#[non_exhaustive]
pub enum Access {
    /// All requests: anybody may do anything.
    Open,
    /// Requests with a token that this verifier accepts.
    Tokens(Arc<Verifier>),
}

/// Verifies tokens by one key. The key determines the algorithm, not the token.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

/// Who sent a request, for handlers. The token has been verified before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Option<Claims>);

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Claims {
    sub: String,
    /// The time of expiry, in seconds since 1970.
    exp: u64,
    /// The scopes, separated by spaces (RFC 8693, 4.2).
    #[serde(default)]
    scope: String,
}

/// The beginnings of public keys that are not PEM: those of SSH, and a JWK.
const NOT_SECRETS: [&str; 3] = ["ssh-", "ecdsa-", "{"];

impl Verifier {
    /// A verifier for a public Ed25519 key in PEM (EdDSA), or else a secret (HS256). With an
    /// `audience`, tokens must name it; without, tokens that name one are rejected.
    ///
    /// # Errors
    /// If the key is neither; the text says what is wrong with it.
    pub fn new(key: &str, audience: Option<&str>) -> Result<Self, String> {
        // With a byte order mark or a blank line before it, a public key must not pass for a
        // secret.
        let key = key.trim_start_matches('\u{feff}').trim();
        let (algorithm, key) = if key.starts_with("-----BEGIN PUBLIC KEY-----") {
            let key = DecodingKey::from_ed_pem(key.as_bytes())
                .map_err(|error| format!("it holds no Ed25519 key: {error}"))?;
            (Algorithm::EdDSA, key)
        } else if key.contains("-----BEGIN")
            || NOT_SECRETS.iter().any(|begin| key.starts_with(begin))
        {
            return Err(
                "it must contain nothing but a public Ed25519 key in PEM; a service takes the \
                 public half, as `openssl pkey -pubout` writes it"
                    .into(),
            );
        } else if key.len() < SHORTEST_SECRET {
            return Err(format!(
                "its secret has {} bytes; HS256 takes {SHORTEST_SECRET} or more",
                key.len()
            ));
        } else {
            (Algorithm::HS256, DecodingKey::from_secret(key.as_bytes()))
        };

        token_crypto::install();
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "sub"]);
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&["exp", "sub", "aud"]);
        }

        Ok(Self { key, validation })
    }

    /// The caller, from the token of a request.
    fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
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

        match decode::<Claims>(bearer.token().trim(), &self.key, &self.validation) {
            Ok(token) => Ok(Caller(Some(token.claims))),
            Err(error) => Err(Problem::unauthorized(describe(error.kind()), true)),
        }
    }
}

fn describe(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::ExpiredSignature => "the token has expired: get a new one".into(),
        ErrorKind::ImmatureSignature => "the token is not valid yet".into(),
        ErrorKind::InvalidAudience => "the token is for another audience".into(),
        ErrorKind::Json(error) => format!("the token cannot be read: {error}"),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token lacks the claim {claim}"),
        _ => "the token is not one that was made for this service".into(),
    }
}

/// Rejects requests without a valid token, and passes the caller on to the handlers.
pub async fn authenticate(
    State(access): State<Access>,
    mut request: Request,
    next: Next,
) -> Response {
    let caller = match &access {
        Access::Open => Ok(Caller::anybody()),
        Access::Tokens(verifier) => verifier.caller(request.headers()),
    };
    match caller {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

impl Caller {
    /// A caller without a token, if access is open.
    #[must_use]
    pub fn anybody() -> Self {
        Self(None)
    }

    /// The subject of the token; `None` if access is open.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.0.as_ref().map(|claims| claims.sub.as_str())
    }

    /// Returns when the token expires; never if access is open. Long-lived responses end then.
    pub async fn expired(&self) {
        match &self.0 {
            Some(claims) => {
                tokio::time::sleep(Duration::from_secs(
                    claims.exp.saturating_sub(get_current_timestamp()),
                ))
                .await;
            }
            None => std::future::pending().await,
        }
    }

    /// Whether the token has a scope. If access is open, every caller has every scope.
    #[must_use]
    pub fn has(&self, scope: &str) -> bool {
        self.0.as_ref().is_none_or(|claims| claims.scope.split(' ').any(|has| has == scope))
    }

    /// Whether the caller may act for `subject`: it is the token's subject, or the token has
    /// `scope`, which acts for all subjects.
    #[must_use]
    pub fn acts_for(&self, subject: &str, scope: &str) -> bool {
        self.has(scope) || self.subject() == Some(subject)
    }

    /// Requires a scope.
    ///
    /// # Errors
    /// If the token lacks the scope: 403.
    pub fn must_have(&self, scope: &'static str) -> Result<(), Problem> {
        if self.has(scope) {
            Ok(())
        } else {
            Err(Problem::forbidden(format!("this requires a token with the scope {scope}"), scope))
        }
    }

    /// Requires that the caller may act for `subject`: see [`acts_for`](Self::acts_for).
    ///
    /// # Errors
    /// If the token is another subject's and lacks the scope: 403.
    pub fn must_act_for(&self, subject: &str, scope: &'static str) -> Result<(), Problem> {
        if self.acts_for(subject, scope) {
            return Ok(());
        }
        let own = self.subject().unwrap_or_default();
        Err(Problem::forbidden(
            format!(
                "the token of {own} does not act for {subject}: that requires the scope {scope}"
            ),
            scope,
        ))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        // A route without `authenticate` is a programming error, and stays closed.
        parts.extensions.get::<Self>().cloned().ok_or_else(Problem::internal)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use jsonwebtoken::{EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "a secret that is long enough for all of them";
    /// RFC 8410, 10.3.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n\
        -----END PRIVATE KEY-----\n";
    /// RFC 8410, 10.1.
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n\
        -----END PUBLIC KEY-----\n";

    fn signed(algorithm: Algorithm, key: &EncodingKey, change: impl FnOnce(&mut Value)) -> String {
        let mut claims =
            json!({"sub": "ann", "exp": get_current_timestamp() + 600, "scope": "till warehouse"});
        change(&mut claims);
        token_crypto::install();
        encode(&Header::new(algorithm), &claims, key).expect("it can be signed")
    }

    fn secret() -> EncodingKey {
        EncodingKey::from_secret(SECRET.as_bytes())
    }

    fn ask(verifier: &Verifier, authorization: &str) -> Result<Caller, String> {
        let headers = [(AUTHORIZATION, HeaderValue::from_str(authorization).expect("a header"))]
            .into_iter()
            .collect();
        verifier.caller(&headers).map_err(|problem| format!("{problem:?}"))
    }

    #[track_caller]
    fn refused(verifier: &Verifier, token: &str, why: &str) {
        let problem = ask(verifier, &format!("Bearer {token}")).expect_err("it is wrong");
        assert!(
            problem.contains("status: 401")
                && problem.contains(why)
                && problem.contains("invalid_token"),
            "{problem}"
        );
    }

    #[test]
    fn a_token_of_the_key_identifies_the_caller_and_its_scopes() {
        let eddsa = EncodingKey::from_ed_pem(PRIVATE.as_bytes()).expect("a key");
        for (key, token) in [
            (SECRET, signed(Algorithm::HS256, &secret(), |_| {})),
            (PUBLIC, signed(Algorithm::EdDSA, &eddsa, |_| {})),
        ] {
            let verifier = Verifier::new(key, None).expect("a key");
            let caller = ask(&verifier, &format!("bearer {token}")).expect("a good token");
            assert_eq!(caller.subject(), Some("ann"));
            assert!(
                caller.has("till")
                    && caller.has("warehouse")
                    && !caller.has("shop")
                    && !caller.has("")
            );
            assert!(
                caller.must_act_for("ann", "shop").is_ok()
                    && caller.must_act_for("bob", "till").is_ok()
            );
            assert_eq!(caller.must_act_for("bob", "shop").expect_err("not his").status(), 403);
            assert_eq!(caller.must_have("shop").expect_err("it lacks").status(), 403);
        }
    }

    #[test]
    fn other_tokens_are_refused_with_the_reason() {
        let verifier = Verifier::new(SECRET, None).expect("a key");
        let now = get_current_timestamp();
        let token = |change: fn(&mut Value, u64)| {
            signed(Algorithm::HS256, &secret(), |claims| change(claims, now))
        };
        refused(&verifier, &token(|claims, now| claims["exp"] = json!(now - 600)), "expired");
        refused(&verifier, &token(|claims, now| claims["nbf"] = json!(now + 600)), "not valid yet");
        refused(&verifier, &token(|claims, _| claims["aud"] = json!("others")), "another audience");
        refused(
            &verifier,
            &token(|claims, _| drop(claims.as_object_mut().map(|claims| claims.remove("exp")))),
            "missing field `exp`",
        );
        refused(
            &verifier,
            &token(|claims, _| drop(claims.as_object_mut().map(|claims| claims.remove("sub")))),
            "missing field `sub`",
        );
        refused(&verifier, &token(|claims, _| claims["sub"] = json!(7)), "cannot be read");

        let other = EncodingKey::from_secret(b"another secret that is long enough too");
        refused(&verifier, &signed(Algorithm::HS256, &other, |_| {}), "not one");
        let own = signed(Algorithm::HS256, &secret(), |_| {});
        let (_, rest) = own.split_once('.').expect("a header and the rest");
        let other_algorithm = format!("eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzUxMiJ9.{rest}"); // HS512
        refused(&verifier, &other_algorithm, "not one");

        let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbm4iLCJleHAiOjk5OTk5OTk5OTl9.";
        for token in [unsigned, "", "a", "a.b.c", "a b"] {
            refused(&verifier, token, "the token");
        }
    }

    #[test]
    fn a_public_key_is_not_a_secret_that_signs_tokens() {
        let verifier = Verifier::new(PUBLIC, None).expect("a key");
        refused(
            &verifier,
            &signed(Algorithm::HS256, &EncodingKey::from_secret(PUBLIC.as_bytes()), |_| {}),
            "not one",
        );
    }

    #[test]
    fn an_audience_that_is_set_must_be_named() {
        let verifier = Verifier::new(SECRET, Some("shop")).expect("a key");
        refused(&verifier, &signed(Algorithm::HS256, &secret(), |_| {}), "claim aud");
        refused(
            &verifier,
            &signed(Algorithm::HS256, &secret(), |claims| claims["aud"] = json!("till")),
            "another audience",
        );
        let token =
            signed(Algorithm::HS256, &secret(), |claims| claims["aud"] = json!(["till", "shop"]));
        assert!(ask(&verifier, &format!("Bearer {token}")).is_ok());
    }

    #[test]
    fn a_request_without_a_token_learns_how_to_send_one() {
        let verifier = Verifier::new(SECRET, None).expect("a key");
        let problem = format!("{:?}", verifier.caller(&HeaderMap::new()).expect_err("no token"));
        assert!(
            problem.contains("Authorization: Bearer") && !problem.contains("invalid_token"),
            "{problem}"
        );
        assert!(
            ask(&verifier, "Basic YTpi").is_err_and(|problem| problem.contains("Bearer <token>"))
        );
    }

    #[test]
    fn a_key_that_cannot_be_used_is_rejected_with_the_reason() {
        let refused = |key: &str| Verifier::new(key, None).err().unwrap_or_default();
        assert!(refused("short").contains("32 or more"));
        assert!(refused(PRIVATE).contains("public half"));

        let jwk =
            r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        let ssh = "ssh-ed25519 \
                   AAAAC3NzaC1lZDI1NTE5AAAAIBm/RAlphM3+hUG6wWfcO5bIUKocaMLa2ywxcOK1wMWb ann@here";
        for known in [jwk.to_owned(), ssh.to_owned(), format!("# our key\n{PUBLIC}")] {
            assert!(refused(&known).contains("public half"), "a public key is no secret: {known}");
        }
        assert!(
            Verifier::new(&format!("\u{feff}\n{PUBLIC}"), None)
                .is_ok_and(|verifier| verifier.validation.algorithms == [Algorithm::EdDSA])
        );
        assert!(
            refused("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n")
                .contains("no Ed25519 key")
        );
    }

    #[test]
    fn if_access_is_open_anybody_may_do_anything() {
        let anybody = Caller::anybody();
        assert!(
            anybody.subject().is_none() && anybody.has("till") && anybody.acts_for("ann", "shop")
        );
    }
}
