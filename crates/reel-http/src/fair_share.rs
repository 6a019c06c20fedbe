//! How many requests of one caller are in progress at a time: one that sends too many must not keep
//! the others out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http_body_util::BodyExt as _;
use hyper::body::Body as _;

use super::{Caller, Problem};

/// Counts the requests in progress of each subject, streams among them until they end. It has one
/// entry for each subject with a request in progress, so no more than there are connections.
#[derive(Debug, Clone)]
pub struct FairShare {
    limit: usize,
    in_progress: Arc<Mutex<HashMap<String, usize>>>,
}

/// A request in progress, until it is dropped.
struct InProgress {
    of: FairShare,
    subject: String,
}

impl FairShare {
    /// At most so many requests of one subject at a time.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self { limit, in_progress: Arc::default() }
    }

    /// Begins a request; `None` if too many are in progress.
    fn begin(&self, subject: &str) -> Option<InProgress> {
        let mut in_progress = self.lock();
        let count = in_progress.entry(subject.to_owned()).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(InProgress { of: self.clone(), subject: subject.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.in_progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        let mut in_progress = self.of.lock();
        if let Some(count) = in_progress.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                in_progress.remove(&self.subject);
            }
        }
    }
}

/// Answers 429 if the caller has too many requests in progress. It comes behind
/// [`authenticate`](super::authenticate); callers without a token are not told apart, and not
/// limited.
pub async fn share_fairly(
    State(share): State<FairShare>,
    request: Request,
    next: Next,
) -> Response {
    let caller = request.extensions().get::<Caller>();
    let Some(subject) = caller.and_then(|caller| caller.subject().map(str::to_owned)) else {
        return next.run(request).await;
    };
    let Some(in_progress) = share.begin(&subject) else {
        let limit = share.limit;
        let detail =
            format!("{limit} requests of {subject} are in progress; wait for their answers");
        return Problem::too_many(detail).into_response();
    };

    // A stream is in progress for as long as its body is. A body that is there already is handed on
    // as it is, with its length.
    let body_of = |body: Body| {
        if body.size_hint().exact().is_some() {
            return body;
        }
        Body::new(body.map_frame(move |frame| {
            let _ = &in_progress;
            frame
        }))
    };
    next.run(request).await.map(body_of)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::middleware::{from_fn, from_fn_with_state};
    use axum::routing::get;
    use hyper::service::Service as _;
    use hyper_util::service::TowerToHyperService;

    use super::*;

    #[test]
    fn each_subject_has_its_share_and_gets_it_back() {
        let share = FairShare::new(2);
        let (first, second) = (share.begin("ann"), share.begin("ann"));
        assert!(first.is_some() && second.is_some() && share.begin("ann").is_none());
        assert!(share.begin("bob").is_some(), "others are not kept out");
        drop(first);
        assert!(share.begin("ann").is_some());
        drop(second);
        assert!(share.lock().is_empty(), "who has nothing in progress takes no memory");
    }

    #[tokio::test]
    async fn a_stream_is_in_progress_until_it_ends_and_an_answer_keeps_its_length() {
        let share = FairShare::new(1);
        // A body whose length is not known, as that of a stream.
        let stream = async || Body::new(Body::from("four").map_frame(|frame| frame));
        let router = Router::new()
            .route("/answer", get(async || "four"))
            .route("/stream", get(stream))
            .route_layer(from_fn_with_state(share.clone(), share_fairly))
            .route_layer(from_fn(async |mut request: Request, next: Next| {
                request.extensions_mut().insert(Caller::named("ann"));
                next.run(request).await
            }));
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            TowerToHyperService::new(router.clone()).call(request).await.expect("an answer")
        };

        let answer = ask("/answer").await;
        assert_eq!(answer.headers()["content-length"], "4");
        assert!(share.lock().is_empty());
        let streaming = ask("/stream").await;
        assert_eq!(ask("/answer").await.status(), 429);
        drop(streaming);
        assert_eq!(ask("/answer").await.status(), 200);
    }
}
