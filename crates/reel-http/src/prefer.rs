//! The `Prefer` header (RFC 7240).

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

/// The preferences of a client. Unknown ones are ignored, as RFC 7240 requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Prefer {
    /// Time for which the client would wait for the response, in whole seconds: `wait=5`.
    pub wait: Option<Duration>,
}

/// The longest wait that is granted, in seconds.
const LONGEST_WAIT: u64 = 60;

impl Prefer {
    fn from_headers(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split(','));

        // Parameters follow a semicolon. If a preference occurs twice, the first one counts.
        let mut named =
            preferences.filter_map(|preference| preference.split(';').next()?.split_once('='));
        let wait = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
        let seconds =
            wait.and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok());
        Self { wait: seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT))) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::from_headers(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_wait_is_found_among_other_preferences_and_an_invalid_one_is_ignored() {
        let wait = |values: &[&'static str]| {
            let headers = values.iter().map(|value| {
                (axum::http::HeaderName::from_static("prefer"), HeaderValue::from_static(value))
            });
            Prefer::from_headers(&headers.collect()).wait.map(|wait| wait.as_secs())
        };
        assert_eq!(wait(&["wait=5"]), Some(5));
        assert_eq!(wait(&["respond-async, Wait = \"7\"; x=1, wait=9"]), Some(7));
        assert_eq!(wait(&["handling=lenient", "wait=0"]), Some(0));
        assert_eq!(wait(&["wait=100000"]), Some(60));
        for none in ["wait", "wait=-1", "wait=soon", "return=minimal", ""] {
            assert_eq!(wait(&[none]), None, "{none:?}");
        }
    }
}
