//! Errors as `application/problem+json` (RFC 9457).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

/// Time after which a client may try again, if nothing else is known: the shortest one too.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest time after which a client is told to try again, in seconds.
const LONGEST_RETRY_AFTER: u16 = 60;

/// An error response. Its `type`, `/problems/<name>`, is stable: clients may rely on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    /// The value of `WWW-Authenticate` (RFC 6750, 3).
    challenge: Option<String>,
    /// The value of `Retry-After` (RFC 9110, 10.2.3), in seconds.
    retry_after: Option<u16>,
}

impl Problem {
    /// A problem of the type `name`, which is in kebab case.
    pub fn new(
        status: StatusCode,
        name: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        let (challenge, retry_after) = (None, None);
        Self {
            status,
            name,
            title,
            detail: detail.into(),
            members: Map::new(),
            challenge,
            retry_after,
        }
    }

    /// A field of the request is not valid: 400, with the field.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", detail)
            .with("field", json!(field))
    }

    /// The caller is unknown: 401. `had_token` says that the request has a token, but not a valid
    /// one.
    pub(crate) fn unauthorized(detail: impl Into<String>, had_token: bool) -> Self {
        let challenge = if had_token { r#"Bearer error="invalid_token""# } else { "Bearer" };
        let problem =
            Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail);
        Self { challenge: Some(challenge.to_owned()), ..problem }
    }

    /// The caller may not do this: 403, with the scope that a token would need.
    pub fn forbidden(detail: impl Into<String>, scope: &str) -> Self {
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
        Self {
            challenge: Some(challenge),
            ..Self::new(StatusCode::FORBIDDEN, "forbidden", "The token does not allow it", detail)
        }
    }

    /// What the request names does not exist: 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// The path exists, but does not support the method: 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let detail =
            "the path does not support this method; the header Allow names those that it does";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method-not-allowed",
            "Method not allowed",
            detail,
        )
    }

    /// The request, or the event that would follow from it, is too large: 413.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// The `Idempotency-Key` was used before for another request: 422, as in the IETF draft.
    pub fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used before for another request; use a new key for \
                      a new request";
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency-key-reused",
            "The key was used for another request",
            detail,
        )
    }

    /// The caller has sent more than its share: 429 with `Retry-After` (RFC 6585, 4).
    pub fn too_many(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail)
            .retry_after(RETRY_AFTER)
    }

    /// The service cannot handle the request now: 503 with `Retry-After`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later", detail)
            .retry_after(RETRY_AFTER)
    }

    /// Tells the client to try again after this time, in whole seconds from 1 to 60.
    #[must_use]
    pub fn retry_after(mut self, time: Duration) -> Self {
        let seconds = u16::try_from(time.max(RETRY_AFTER).as_secs()).unwrap_or(u16::MAX);
        self.retry_after = Some(seconds.min(LONGEST_RETRY_AFTER));
        self
    }

    /// Something failed that is not the client's fault: 500. The cause is in the log, not in the
    /// response.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something failed here",
            "the request may be sent again; nothing is done twice",
        )
    }

    /// Adds a member to the body.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut body = self.members;
        body.insert("type".into(), json!(format!("/problems/{}", self.name)));
        body.insert("title".into(), json!(self.title));
        body.insert("status".into(), json!(self.status.as_u16()));
        body.insert("detail".into(), json!(self.detail));

        let mut response = (
            self.status,
            [(header::CONTENT_TYPE, "application/problem+json")],
            Value::Object(body).to_string(),
        )
            .into_response();

        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }

        if let Some(challenge) =
            self.challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok())
        {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }

        response
    }
}

/// Turns the error of a query into 503, and logs it here, once.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(event.code = "http.query_failed", error = %error, "a query failed");
        Self::unavailable("the database does not answer")
    }
}
