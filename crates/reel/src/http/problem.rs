//! Errors as `application/problem+json` (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::runtime::Refused;

/// After how many seconds a refused command may be tried again.
const RETRY_AFTER_SECONDS: &str = "1";

/// An error response. Its `type` is `/problems/<name>` and stable: clients may rely on it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    status: StatusCode,
    name: &'static str,
    title: &'static str,
    detail: String,
    members: Map<String, Value>,
    /// What stands in `WWW-Authenticate` (RFC 6750, 3).
    challenge: Option<String>,
}

impl Problem {
    /// A problem of the type `name`, in kebab case.
    pub fn new(status: StatusCode, name: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, name, title, detail: detail.into(), members: Map::new(), challenge: None }
    }

    /// The request names something that is not allowed: 400, with the field.
    pub fn invalid(field: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid-request", "The request is not valid", detail).with("field", json!(field))
    }

    /// Nobody knows who asks: 401. `had_token` tells that a token was sent, and is not good.
    pub(super) fn unauthorized(detail: impl Into<String>, had_token: bool) -> Self {
        let challenge = if had_token { r#"Bearer error="invalid_token""# } else { "Bearer" };
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A token is needed", detail);
        Self { challenge: Some(challenge.to_owned()), ..problem }
    }

    /// Who asks may not: 403, with the scope that a token would need.
    pub fn forbidden(detail: impl Into<String>, scope: &str) -> Self {
        let challenge = format!(r#"Bearer error="insufficient_scope", scope="{scope}""#);
        Self { challenge: Some(challenge), ..Self::new(StatusCode::FORBIDDEN, "forbidden", "The token does not allow it", detail) }
    }

    /// There is no such thing: 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    /// There is such a path, and the method is not for it: 405.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let detail = "the path does not take this method; the header Allow names those that it takes";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "Method not allowed", detail)
    }

    /// The `Idempotency-Key` was used before with another request: 422, as the IETF draft has it.
    pub fn key_reused() -> Self {
        let detail = "this Idempotency-Key was used before with another request; take a new key for a new request";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", "The key was used for another request", detail)
    }

    /// The service cannot take it now: 503 with `Retry-After`.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Try again later", detail)
    }

    /// Something failed that is not the client's doing: 500. What it was stands in the log, not in the answer.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Something failed here",
            "the request may be sent again; nothing is done twice",
        )
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.members.insert(name.to_owned(), value);
        self
    }

    /// The status.
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
        let mut response =
            (self.status, [(header::CONTENT_TYPE, "application/problem+json")], Value::Object(body).to_string()).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if let Some(challenge) = self.challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl<R: std::error::Error + Into<Problem>> From<Refused<R>> for Problem {
    fn from(refused: Refused<R>) -> Self {
        match refused {
            Refused::Rejected(rejection) => rejection.into(),
            Refused::Closed(_) | Refused::Busy(_) | Refused::TimedOut(_) => Self::unavailable(refused.to_string()),
            Refused::TooLarge { .. } => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", refused.to_string())
            }
            Refused::Failed(_) => Self::internal(),
        }
    }
}

/// A query outside any step failed: it is logged here, once.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::warn!(error = %error, "a query failed");
        Self::unavailable("the database does not answer")
    }
}
