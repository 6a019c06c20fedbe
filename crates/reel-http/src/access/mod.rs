//! Access by bearer token (RFC 6750): a JWT (RFC 7519), which is verified before anything else of a
//! request is read.

mod claims;
mod keys;
mod verifier;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jsonwebtoken::get_current_timestamp;

use super::Problem;
use claims::Claims;
pub use verifier::{Expected, Verifier};

/// Which requests the HTTP edge admits.
#[derive(Clone)]
#[non_exhaustive]
pub enum Access {
    /// All requests: anybody may do anything.
    Open,
    /// Requests with a token that this verifier accepts.
    Tokens(Arc<Verifier>),
}

/// Who sent a request, for handlers. The token has been verified before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller(Option<Claims>);

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

    /// A caller with a token of this subject.
    #[cfg(test)]
    pub(crate) fn named(subject: &str) -> Self {
        let claims = serde_json::json!({"sub": subject, "exp": 4_102_444_800_u64});
        Self::of(serde_json::from_value(claims).expect("claims"))
    }

    /// The caller with these claims.
    fn of(claims: Claims) -> Self {
        Self(Some(claims))
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
        self.0.as_ref().is_none_or(|claims| claims.has(scope))
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
    use axum::http::header::AUTHORIZATION;
    use axum::http::{HeaderMap, HeaderValue};
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;
    use crate::token_crypto;

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

    fn of(key: &str) -> Verifier {
        Verifier::new(key, Expected::default()).expect("a key")
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
            let verifier = of(key);
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
        let verifier = of(SECRET);
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
        let verifier = of(PUBLIC);
        refused(
            &verifier,
            &signed(Algorithm::HS256, &EncodingKey::from_secret(PUBLIC.as_bytes()), |_| {}),
            "not one",
        );
    }

    #[test]
    fn an_audience_that_is_set_must_be_named() {
        let expected = Expected { audience: Some("shop"), issuer: None };
        let verifier = Verifier::new(SECRET, expected).expect("a key");
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
        let verifier = of(SECRET);
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
    fn tokens_of_several_keys_are_told_apart_by_name_and_algorithm() {
        let expected = Expected { audience: Some("shop"), issuer: Some("https://issuer") };
        let verifier =
            Verifier::new(include_str!("../../testdata/jwks.json"), expected).expect("keys");
        for token in
            [include_str!("../../testdata/rs256.jwt"), include_str!("../../testdata/es256.jwt")]
        {
            let caller = ask(&verifier, &format!("Bearer {token}")).expect("a good token");
            assert!(caller.has("till") && caller.has("shop") && !caller.has("warehouse"));
        }
        let other = include_str!("../../testdata/of_an_encryption_key.jwt");
        refused(&verifier, other, "not one");

        // The issuer has rotated its keys.
        let (old, new) = (include_str!("../../testdata/es256.jwt"), secret());
        verifier.replace_keys("nothing").expect_err("too short");
        assert!(ask(&verifier, &format!("Bearer {old}")).is_ok(), "those before stay");
        verifier.replace_keys(SECRET).expect("a secret");
        refused(&verifier, old, "not one");
        let new = signed(Algorithm::HS256, &new, |claims| {
            claims["aud"] = json!("shop");
            claims["iss"] = json!("https://issuer");
        });
        assert!(ask(&verifier, &format!("Bearer {new}")).is_ok());
    }

    #[test]
    fn an_issuer_that_is_set_must_be_named() {
        let expected = Expected { audience: None, issuer: Some("https://issuer") };
        let verifier = Verifier::new(SECRET, expected).expect("a key");
        let of = |issuer: Option<&str>| {
            signed(Algorithm::HS256, &secret(), |claims| {
                if let Some(issuer) = issuer {
                    claims["iss"] = json!(issuer);
                }
            })
        };
        refused(&verifier, &of(None), "claim iss");
        refused(&verifier, &of(Some("https://other")), "another issuer");
        assert!(ask(&verifier, &format!("Bearer {}", of(Some("https://issuer")))).is_ok());
    }

    #[test]
    fn a_header_that_says_more_than_is_understood_is_refused() {
        let verifier = of(SECRET);
        let token = |change: fn(&mut Header)| {
            let mut header = Header::new(Algorithm::HS256);
            change(&mut header);
            let claims = json!({"sub": "ann", "exp": get_current_timestamp() + 600});
            encode(&header, &claims, &secret()).expect("it can be signed")
        };
        refused(&verifier, &token(|header| header.crit = Some(vec!["b64".into()])), "b64");
        refused(&verifier, &token(|header| header.typ = Some("logout+jwt".into())), "logout+jwt");
        for typ in [None, Some("at+jwt"), Some("application/at+JWT")] {
            let mut header = Header::new(Algorithm::HS256);
            header.typ = typ.map(Into::into);
            let claims = json!({"sub": "ann", "exp": get_current_timestamp() + 600});
            let token = encode(&header, &claims, &secret()).expect("it can be signed");
            assert!(ask(&verifier, &format!("Bearer {token}")).is_ok(), "{typ:?}");
        }
    }

    #[test]
    fn times_with_fractions_are_taken() {
        for exp in [json!(4_102_444_800.5_f64), json!(4.1e9)] {
            let token = signed(Algorithm::HS256, &secret(), |claims| claims["exp"] = exp.clone());
            assert!(ask(&of(SECRET), &format!("Bearer {token}")).is_ok(), "{exp}");
        }
    }

    #[test]
    fn if_access_is_open_anybody_may_do_anything() {
        let anybody = Caller::anybody();
        assert!(
            anybody.subject().is_none() && anybody.has("till") && anybody.acts_for("ann", "shop")
        );
    }
}
