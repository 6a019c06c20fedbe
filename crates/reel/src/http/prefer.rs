//! The `Prefer` header (RFC 7240).

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;

/// What a client would like, if it can be had. What is not understood is passed over, as RFC 7240 wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Prefer {
    /// How long it would wait for the answer, in whole seconds: `wait=5`.
    pub wait: Option<Duration>,
}

/// The longest that anybody waits.
const LONGEST_WAIT: u64 = 60;

impl Prefer {
    fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
        let preferences = values.flat_map(|value| value.split(','));
        // Parameters stand behind a semicolon; of a preference that stands there twice the first counts.
        let mut named = preferences.filter_map(|preference| preference.split(';').next()?.split_once('='));
        let wait = named.find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"));
        let seconds = wait.and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok());
        Self { wait: seconds.map(|seconds| Duration::from_secs(seconds.min(LONGEST_WAIT))) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Prefer {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_wait_is_found_among_other_preferences_and_what_is_none_is_passed_over() {
        let wait = |values: &[&'static str]| {
            let headers = values.iter().map(|value| (axum::http::HeaderName::from_static("prefer"), HeaderValue::from_static(value)));
            Prefer::of(&headers.collect()).wait.map(|wait| wait.as_secs())
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
