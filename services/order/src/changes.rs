//! `GET /orders/{order_id}/events`: what happens to an order, as server-sent events (WHATWG HTML, 9.2).

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use contracts::OrderId;
use futures_util::{Stream, StreamExt as _, stream};
use reel::http::Problem;
use serde_json::json;
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::timeline::{self, Happened};

/// How often it is looked what has happened, while somebody listens; more seldom where looking takes long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How many times as long as a look took passes until the next.
const LOOK_SHARE: u32 = 4;
/// How long the database may take to answer, and the pause after it did not.
const ANSWER_AT_MOST: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// How many events may wait for a client that is slow. An order has seldom more than six.
const WAITING: usize = 16;
/// How often a comment keeps the connection alive.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Tells what happens to orders: one query at a time for all listeners of this replica.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    listeners: mpsc::UnboundedSender<Listener>,
}

#[derive(Debug)]
struct Listener {
    order_id: OrderId,
    seen: Seen,
    told: mpsc::Sender<(Seen, Happened)>,
}

/// How many events of an order a client has had from each service. Each service's come in one order for ever, those of several in any, so
/// this is where a client stands, even if this service has lost what it had heard and hears it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Seen([u32; 3]);

/// In the order in which an id counts them.
const SERVICES: [&str; 3] = ["order", "payment", "inventory"];

/// What happened, as an event of a stream.
#[derive(Debug, ToSchema)]
pub(crate) struct StreamEvent {
    /// Where the stream stands then: what `Last-Event-ID` names.
    #[schema(example = "1.0.0")]
    id: String,
    /// The type of the event.
    #[schema(example = "OrderCreated")]
    event: String,
    /// What the timeline of the order has, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

impl Changes {
    /// Looks for as long as this or a clone of it is kept.
    pub(crate) fn start(database: PgPool) -> Self {
        let (listeners, inbox) = mpsc::unbounded_channel();
        tokio::spawn(look(database, inbox));
        Self { listeners }
    }

    /// What has happened to an order and what happens, but for what was seen. The stream ends when the order is over.
    fn follow(&self, order_id: OrderId, seen: Seen) -> impl Stream<Item = (Seen, Happened)> + use<> {
        let (told, receiver) = mpsc::channel(WAITING);
        if self.listeners.send(Listener { order_id, seen, told }).is_err() {
            tracing::error!("nobody looks what happens to orders any more: its streams end at once");
        }
        stream::unfold(receiver, |mut receiver| async move { Some((receiver.recv().await?, receiver)) })
    }
}

async fn look(database: PgPool, mut inbox: mpsc::UnboundedReceiver<Listener>) {
    let mut listeners: Vec<Listener> = Vec::new();
    loop {
        if listeners.is_empty() {
            let Some(first) = inbox.recv().await else { return };
            listeners.push(first);
        }
        while let Ok(another) = inbox.try_recv() {
            listeners.push(another);
        }
        listeners.retain(|listener| !listener.told.is_closed());
        let mut watched: Vec<OrderId> = listeners.iter().map(|listener| listener.order_id).collect();
        watched.sort_unstable();
        watched.dedup();
        let begun = Instant::now();
        let timelines = tokio::time::timeout(ANSWER_AT_MOST, timeline::of_all(&database, &watched)).await;
        let pause = match timelines.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(timelines) => {
                listeners.retain_mut(|listener| timelines.get(&listener.order_id).is_none_or(|timeline| listener.tell(timeline)));
                LOOK_EVERY.max(begun.elapsed() * LOOK_SHARE)
            }
            Err(error) => {
                tracing::debug!(error = %error, "it cannot be seen what happens to orders");
                LOOK_AGAIN
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Listener {
    /// Tells what it has not seen, as far as its client takes it. Whether there may be more.
    fn tell(&mut self, timeline: &[Happened]) -> bool {
        for happened in timeline {
            let seen = self.seen.with(happened);
            if self.seen.is_next(happened) && self.told.try_send((seen, happened.clone())).is_ok() {
                self.seen = seen;
            }
        }
        !(timeline::is_over(timeline) && self.seen.all(timeline))
    }
}

impl Seen {
    /// Behind which event a client wants to be told, by `Last-Event-ID`.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(id) = headers.get("last-event-id") else { return Ok(Self::default()) };
        let seen = id.to_str().ok().and_then(|text| text.parse().ok());
        seen.ok_or_else(|| Problem::invalid("Last-Event-ID", "it is the id of the last event that was received, as it was"))
    }

    fn count(&self, happened: &Happened) -> u32 {
        SERVICES.iter().zip(self.0).find(|(service, _)| **service == happened.by).map_or(u32::MAX, |(_, count)| count)
    }

    fn is_next(&self, happened: &Happened) -> bool {
        self.count(happened).checked_add(1) == Some(happened.nth)
    }

    fn with(mut self, happened: &Happened) -> Self {
        if let Some(place) = SERVICES.iter().position(|service| *service == happened.by) {
            self.0[place] = happened.nth;
        }
        self
    }

    fn all(&self, timeline: &[Happened]) -> bool {
        timeline.iter().all(|happened| happened.nth <= self.count(happened))
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [order, payment, inventory] = self.0;
        write!(f, "{order}.{payment}.{inventory}")
    }
}

impl FromStr for Seen {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let counts: Vec<u32> = text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(drop)?;
        Ok(Self(counts.try_into().map_err(drop)?))
    }
}

/// The stream as a response; 204, which tells a browser not to come again, where there is nothing to be told any more. `held` is dropped
/// with it, and it ends with `end`.
pub(crate) fn response(
    changes: &Changes,
    order_id: OrderId,
    timeline: &[Happened],
    seen: Seen,
    held: impl Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> Response {
    if timeline::is_over(timeline) && seen.all(timeline) {
        return StatusCode::NO_CONTENT.into_response();
    }
    let told = changes.follow(order_id, seen).take_until(end).map(move |(seen, happened)| {
        let _ = &held;
        let event = StreamEvent { id: seen.to_string(), data: json!(happened).to_string(), event: happened.event };
        Ok::<_, Infallible>(Event::default().id(event.id).event(event.event).data(event.data))
    });
    Sse::new(told).keep_alive(KeepAlive::new().interval(ALIVE_EVERY)).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::timeline::tests::happened;

    #[test]
    fn a_stream_goes_on_behind_the_last_event() {
        let of = |id: Option<&str>| {
            let headers = id.map(|id| ("last-event-id".parse().expect("a name"), HeaderValue::from_str(id).expect("a value")));
            Seen::of(&headers.into_iter().collect())
        };
        assert_eq!(of(None), Ok(Seen::default()));
        assert_eq!(of(Some("2.1.0")), Ok(Seen([2, 1, 0])));
        assert_eq!(of(Some("2.1.0")).map(|seen| seen.to_string()).as_deref(), Ok("2.1.0"));
        for bad in ["", "-1", "1.1", "1.1.1.1", "1.1.x", "1.1.99999999999"] {
            assert_eq!(of(Some(bad)).map_err(|problem| problem.status().as_u16()), Err(400), "{bad:?}");
        }
    }

    fn listener(seen: &str) -> (Listener, mpsc::Receiver<(Seen, Happened)>) {
        let (told, receiver) = mpsc::channel(2);
        let order_id = "018f3f5e-7b1a-7c3d-8e2f-0123456789ab".parse().expect("an id");
        (Listener { order_id, seen: seen.parse().expect("an id"), told }, receiver)
    }

    fn told(receiver: &mut mpsc::Receiver<(Seen, Happened)>) -> Vec<(String, String)> {
        std::iter::from_fn(|| receiver.try_recv().ok()).map(|(seen, happened)| (seen.to_string(), happened.event)).collect()
    }

    #[test]
    fn a_slow_client_gets_later_what_it_could_not_take_and_each_event_once() {
        let (mut listener, mut receiver) = listener("0.0.0");
        let timeline = happened(&["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"]);
        assert!(listener.tell(&timeline), "there is more");
        assert_eq!(told(&mut receiver), [("1.0.0".into(), "OrderCreated".into()), ("1.1.0".into(), "PaymentCompleted".into())]);
        assert!(!listener.tell(&timeline), "it is over");
        assert_eq!(told(&mut receiver), [("1.1.1".into(), "InventoryUpdated".into()), ("2.1.1".into(), "OrderConfirmed".into())]);
    }

    #[test]
    fn what_is_heard_again_in_another_order_is_told_once_and_nothing_is_left_out() {
        let (mut listener, mut receiver) = listener("1.0.1"); // it had the order and its stock, and not the payment between them
        assert!(listener.tell(&happened(&["OrderCreated"])), "the database went back, and hears the others again");
        assert!(told(&mut receiver).is_empty());
        assert!(!listener.tell(&happened(&["OrderCreated", "PaymentCompleted", "OrderConfirmed", "InventoryUpdated"])));
        assert_eq!(told(&mut receiver), [("1.1.1".into(), "PaymentCompleted".into()), ("2.1.1".into(), "OrderConfirmed".into())]);
    }

    #[test]
    fn a_client_that_claims_to_have_seen_more_is_told_nothing_and_let_go_when_the_order_is_over() {
        let (mut listener, mut receiver) = listener("9.9.9");
        assert!(listener.tell(&happened(&["OrderCreated"])));
        assert!(!listener.tell(&happened(&["OrderCreated", "PaymentFailed", "OrderCancelled", "InventoryFailed"])));
        assert!(told(&mut receiver).is_empty());
    }
}
