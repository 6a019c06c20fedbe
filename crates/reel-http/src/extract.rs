//! Extractors for requests, whose problems name the field that is wrong.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, EXPECT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use headers::{ContentLength, HeaderMapExt as _};
use http_body_util::{BodyExt as _, Limited};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::Problem;
use super::object::Object;

/// A JSON body: an object. What is in it is read as serde derives, so give each list of structs
/// [`objects`](crate::objects).
#[derive(Debug, Clone)]
pub struct Body<T>(pub T);

/// The `Idempotency-Key` header (IETF draft-ietf-httpapi-idempotency-key-header): 1 to 255
/// printable ASCII characters. `"k"`, the quoted form of the draft, and `k` are the same key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey(pub String);

/// The `traceparent` header (W3C Trace Context), if there is one.
#[derive(Debug, Clone, Default)]
pub struct TraceParent(pub Option<String>);

/// The parameters in the path of a request.
#[derive(Debug, Clone, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

/// The query parameters of a request. `T` decides whether unknown ones are rejected.
#[derive(Debug, Clone, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

/// The largest body that is accepted, in bytes.
pub const LARGEST_BODY: usize = 64 * 1024;
/// Longest time in which a client may send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a rejected body that are read and discarded, at most.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
/// Time for which a rejected body is read and discarded.
const LINGER: Duration = Duration::from_secs(5);
/// The longest `Idempotency-Key` that is accepted, in bytes.
pub(crate) const MAX_KEY_BYTES: usize = 255;
/// The length of a `traceparent` of version 00, in bytes.
const TRACEPARENT_BYTES: usize = 55;

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            let detail = "send the body as Content-Type: application/json";
            let problem = Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content-type",
                "The content type is not supported",
                detail,
            );
            return Err(problem.with("field", json!("Content-Type")));
        }

        // Reject a large body before reading it: a client that sent `Expect: 100-continue` then
        // does not send it at all.
        let announced = request.headers().typed_get::<ContentLength>();
        if announced.is_some_and(|ContentLength(bytes)| bytes > LARGEST_BODY as u64) {
            if !request.headers().contains_key(EXPECT) {
                tokio::spawn(tokio::time::timeout(LINGER, discard(request.into_body())));
            }
            return Err(too_large());
        }

        let bytes = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, state))
            .await
            .map_err(|_| too_slow())?;
        let bytes = bytes.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => too_large(),
            status => Problem::new(
                status,
                "unreadable-body",
                "The body cannot be read",
                rejection.body_text(),
            ),
        })?;

        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let read = serde_path_to_error::deserialize(&mut json);
        let Object(body) = read.map_err(|error| {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            Problem::invalid(&field(&path, &message), message)
        })?;
        json.end().map_err(|error| Problem::invalid("body", error.to_string()))?;
        Ok(Self(body))
    }
}

/// Reads and discards some of a rejected body. If the connection were closed at once, a client that
/// is still sending would fail before it reads the response.
async fn discard(body: axum::body::Body) {
    let mut body = Limited::new(body, MAX_DISCARDED);
    while let Some(Ok(_)) = body.frame().await {}
}

/// The field that is wrong: the one at `path`, or the one that is missing there. The path is a dot
/// at the root, and a question mark if the body is not JSON.
fn field(path: &str, message: &str) -> String {
    let at_root = [".", "?"].contains(&path);
    match message.strip_prefix("missing field `").and_then(|rest| rest.split_once('`')) {
        Some((missing, _)) if at_root => missing.to_owned(),
        Some((missing, _)) => format!("{path}.{missing}"),
        None if at_root => "body".to_owned(),
        None => path.to_owned(),
    }
}

fn too_slow() -> Problem {
    let detail =
        format!("the body did not arrive within {} s; nothing was done", BODY_TIMEOUT.as_secs());
    Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The body took too long", detail)
}

fn too_large() -> Problem {
    let detail = format!("a body has at most {LARGEST_BODY} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
}

/// `application/json`, with or without parameters, or any type of the form `application/…+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let value = single(headers, CONTENT_TYPE.as_str()).ok().flatten();
    let essence =
        value.and_then(|value| value.to_str().ok()).and_then(|value| value.split(';').next());
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// A header that may occur once.
///
/// # Errors
/// If it occurs more than once: which of its values is meant is unknown.
pub fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a HeaderValue>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => {
            let detail = format!("the header {name} occurs more than once: send it once");
            Err(Problem::invalid(name, detail))
        }
    }
}

/// The content of a quoted string (RFC 9651, 3.3.3); any other text, and `""`, as it is.
fn unquoted(text: &str) -> String {
    let quoted = || {
        let mut content = String::new();
        let mut characters = text.strip_prefix('"')?.strip_suffix('"')?.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => return None,
                '\\' => content.push(characters.next().filter(|next| matches!(next, '"' | '\\'))?),
                _ => content.push(character),
            }
        }
        Some(content).filter(|content| !content.is_empty())
    };
    quoted().unwrap_or_else(|| text.to_owned())
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::invalid("path", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::invalid("query", rejection.body_text())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        const NAME: &str = "Idempotency-Key";
        let Some(value) = single(&parts.headers, NAME)? else {
            return Err(Problem::invalid(
                NAME,
                "the header Idempotency-Key is missing: send a text of your choice, the same for \
                 every retry of this request",
            ));
        };

        let key = value
            .to_str()
            .ok()
            .filter(|key| !key.is_empty() && key.len() <= MAX_KEY_BYTES && !key.contains('\t'));
        key.map(|key| Self(unquoted(key))).ok_or_else(|| {
            let detail = format!(
                "the header Idempotency-Key must have 1 to {MAX_KEY_BYTES} printable ASCII \
                 characters"
            );
            Problem::invalid(NAME, detail)
        })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for TraceParent {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let value = single(&parts.headers, "traceparent").ok().flatten();
        let value = value.and_then(|value| value.to_str().ok());
        Ok(Self(
            value
                .filter(|text| text.len() == TRACEPARENT_BYTES && text.is_ascii())
                .map(str::to_owned),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn key(values: &[&str]) -> Result<String, u16> {
        let mut request = Request::builder();
        for value in values {
            request = request.header("Idempotency-Key", *value);
        }
        let (mut parts, ()) = request.body(()).expect("a request").into_parts();
        let key = IdempotencyKey::from_request_parts(&mut parts, &()).await;
        key.map(|IdempotencyKey(key)| key).map_err(|problem| problem.status().as_u16())
    }

    #[tokio::test]
    async fn a_quoted_key_is_the_key_in_the_quotes() {
        for (sent, meant) in [
            ("k", "k"),
            (r#""k""#, "k"),
            (r#""a \"k\" \\""#, r#"a "k" \"#),
            (r#""k"#, r#""k"#),
            (r#""a"b""#, r#""a"b""#),
            (r#""""#, r#""""#),
        ] {
            assert_eq!(key(&[sent]).await.as_deref(), Ok(meant), "{sent}");
        }
    }

    #[tokio::test]
    async fn a_key_that_is_missing_or_sent_twice_is_refused() {
        assert_eq!(key(&[]).await, Err(400));
        assert_eq!(key(&[""]).await, Err(400));
        assert_eq!(key(&["k", "l"]).await, Err(400));
        assert_eq!(key(&["k", "k"]).await, Err(400));
    }

    #[test]
    fn a_body_with_two_content_types_is_not_json() {
        let json = HeaderValue::from_static("application/json; charset=utf-8");
        let mut headers = HeaderMap::new();
        headers.append(CONTENT_TYPE, json.clone());
        assert!(is_json(&headers));
        headers.append(CONTENT_TYPE, json);
        assert!(!is_json(&headers));
    }
}
