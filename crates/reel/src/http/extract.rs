//! What commands take from a request, with problems that name what is wrong.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::Problem;

/// A JSON body.
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

/// The `Idempotency-Key` header (IETF draft-ietf-httpapi-idempotency-key-header): 1 to 255 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

/// The `traceparent` header (W3C Trace Context), if there is one.
#[derive(Debug, Clone, Default)]
pub struct TraceParent(pub Option<String>);

/// The longest `Idempotency-Key` that is taken.
const LONGEST_KEY: usize = 255;
/// The length of a `traceparent` of version 00.
const TRACEPARENT: usize = 55;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(rejection) => Err(refuse(&rejection)),
        }
    }
}

fn refuse(rejection: &JsonRejection) -> Problem {
    match rejection {
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            rejection.status(),
            "content-type",
            "The content type is not taken",
            "send the body as Content-Type: application/json",
        ),
        JsonRejection::BytesRejection(_) => {
            Problem::new(rejection.status(), "too-large", "The request is too large", rejection.body_text())
        }
        _ => Problem::invalid("body", rejection.body_text()),
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        const NAME: &str = "Idempotency-Key";
        let Some(value) = parts.headers.get(NAME) else {
            return Err(Problem::invalid(
                NAME,
                "the header Idempotency-Key is missing: send a text of your own, the same for every retry of this request",
            ));
        };
        let key = value.to_str().ok().filter(|key| !key.is_empty() && key.len() <= LONGEST_KEY);
        key.map(|key| Self(key.to_owned()))
            .ok_or_else(|| Problem::invalid(NAME, format!("the header Idempotency-Key holds 1 to {LONGEST_KEY} visible ASCII characters")))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TraceParent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let value = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
        Ok(Self(value.filter(|text| text.len() == TRACEPARENT && text.is_ascii()).map(str::to_owned)))
    }
}
