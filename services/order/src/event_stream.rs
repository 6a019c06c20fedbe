//! `GET /orders/{order_id}/events`: what happens to an order, as server-sent events (WHATWG HTML,
//! 9.2).

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use contracts::OrderId;
use futures_util::{Stream, StreamExt as _, stream};
use reel::http::{Problem, single};
use reel::runtime::ConnectionPool;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::timeline::{self, TimelineEntry};

/// Poll interval of the timelines while there are listeners; longer if the query is slow.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// Shortest pause after a query, as a multiple of the time that the query took.
const PAUSE_PER_QUERY: u32 = 4;
/// Pause after a query that failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);
/// Events that may wait for a slow client. An order seldom has more than six.
const BUFFERED_EVENTS: usize = 16;
/// Interval of the comments that keep an idle connection alive.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Shortest and longest pause of a browser before it connects again, in milliseconds.
const RECONNECT_AFTER: (u64, u64) = (2_000, 6_000);

/// Streams what happens to orders: one query at a time for all listeners of this replica.
#[derive(Debug, Clone)]
pub(crate) struct EventStreams {
    listeners: mpsc::UnboundedSender<Listener>,
}

#[derive(Debug)]
struct Listener {
    order_id: OrderId,
    cursor: StreamCursor,
    sender: mpsc::Sender<(StreamCursor, TimelineEntry)>,
}

/// The number of an order's events that a client has received from each service.
///
/// The events of one service always come in the same order, those of different services in any. So
/// the cursor stays valid even if this service loses part of the timeline and reads it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StreamCursor([u32; 3]);

/// The services in the order in which an id counts their events.
const SERVICES: [&str; 3] = ["order", "payment", "inventory"];

/// What happened, as an event of a stream.
#[derive(Debug, ToSchema)]
pub(crate) struct StreamEvent {
    /// The position in the stream after this event: send it as `Last-Event-ID` to resume.
    #[schema(example = "1.0.0")]
    id: String,
    /// The type of the event.
    #[schema(example = "OrderCreated")]
    event: String,
    /// The entry of the order's timeline, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

impl EventStreams {
    /// Starts the polling task, which runs until this and all clones of it are dropped.
    pub(crate) fn start(database: ConnectionPool) -> Self {
        let (listeners, inbox) = mpsc::unbounded_channel();
        tokio::spawn(poll_timelines(database, inbox));
        Self { listeners }
    }

    /// The past and future events of an order, from the cursor on. The stream ends when nothing
    /// more can happen to the order.
    fn follow(
        &self,
        order_id: OrderId,
        cursor: StreamCursor,
    ) -> impl Stream<Item = (StreamCursor, TimelineEntry)> + use<> {
        let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
        if self.listeners.send(Listener { order_id, cursor, sender }).is_err() {
            tracing::error!(
                event.code = "order.follower_ended",
                "the task that follows orders has ended: streams of orders end at once"
            );
        }
        stream::unfold(
            receiver,
            |mut receiver| async move { Some((receiver.recv().await?, receiver)) },
        )
    }
}

async fn poll_timelines(database: ConnectionPool, mut inbox: mpsc::UnboundedReceiver<Listener>) {
    let mut listeners: Vec<Listener> = Vec::new();
    loop {
        // Without listeners there is nothing to poll: sleep until the first one arrives.
        if listeners.is_empty() {
            let Some(first) = inbox.recv().await else { return };
            listeners.push(first);
        }
        while let Ok(another) = inbox.try_recv() {
            listeners.push(another);
        }
        listeners.retain(|listener| !listener.sender.is_closed());

        let mut watched: Vec<OrderId> =
            listeners.iter().map(|listener| listener.order_id).collect();
        watched.sort_unstable();
        watched.dedup();

        let begun = Instant::now();
        let pause = match timeline::of_all(&database, &watched).await {
            Ok(timelines) => {
                listeners.retain_mut(|listener| {
                    timelines.get(&listener.order_id).is_none_or(|timeline| listener.send(timeline))
                });
                POLL_INTERVAL.max(begun.elapsed() * PAUSE_PER_QUERY)
            }
            Err(error) => {
                tracing::debug!(error = %error, "cannot query the timelines of orders");
                RETRY_DELAY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

impl Listener {
    /// Sends the entries behind the cursor, as far as the client's buffer takes them. Returns
    /// whether there may be more.
    fn send(&mut self, timeline: &[TimelineEntry]) -> bool {
        for entry in timeline {
            let after = self.cursor.after(entry);
            if self.cursor.is_next(entry) && self.sender.try_send((after, entry.clone())).is_ok() {
                self.cursor = after;
            }
        }
        !(timeline::is_over(timeline) && self.cursor.covers(timeline))
    }
}

impl StreamCursor {
    /// The cursor from which a client resumes the stream, from `Last-Event-ID`.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(id) = single(headers, "Last-Event-ID")? else { return Ok(Self::default()) };
        let cursor = id.to_str().ok().and_then(|text| text.parse().ok());
        cursor.ok_or_else(|| {
            Problem::invalid("Last-Event-ID", "send the id of the last event received, unchanged")
        })
    }

    fn count(&self, entry: &TimelineEntry) -> u32 {
        SERVICES
            .iter()
            .zip(self.0)
            .find(|(service, _)| **service == entry.by)
            .map_or(u32::MAX, |(_, count)| count)
    }

    fn is_next(&self, entry: &TimelineEntry) -> bool {
        self.count(entry).checked_add(1) == Some(entry.nth)
    }

    fn after(mut self, entry: &TimelineEntry) -> Self {
        if let Some(index) = SERVICES.iter().position(|service| *service == entry.by) {
            self.0[index] = entry.nth;
        }
        self
    }

    /// Whether the client has received all of these entries.
    fn covers(&self, timeline: &[TimelineEntry]) -> bool {
        timeline.iter().all(|entry| entry.nth <= self.count(entry))
    }
}

impl fmt::Display for StreamCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [order, payment, inventory] = self.0;
        write!(f, "{order}.{payment}.{inventory}")
    }
}

impl FromStr for StreamCursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let counts: Vec<u32> =
            text.split('.').map(str::parse).collect::<Result<_, _>>().map_err(drop)?;
        Ok(Self(counts.try_into().map_err(drop)?))
    }
}

/// The stream as a response; 204 if there is nothing more to send, so that a browser does not
/// reconnect. The response ends when `end` does, and holds `permit` until then.
pub(crate) fn response(
    streams: &EventStreams,
    order_id: OrderId,
    timeline: &[TimelineEntry],
    cursor: StreamCursor,
    permit: impl Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> Response {
    if timeline::is_over(timeline) && cursor.covers(timeline) {
        return StatusCode::NO_CONTENT.into_response();
    }

    let events = streams.follow(order_id, cursor).take_until(end).map(move |(cursor, entry)| {
        let _ = &permit;
        let event = StreamEvent {
            id: cursor.to_string(),
            data: json!(entry).to_string(),
            event: entry.event,
        };
        Ok::<_, Infallible>(Event::default().id(event.id).event(event.event).data(event.data))
    });
    // A browser reconnects when a stream ends: after a while, and not all of them together when a
    // replica stops. If the order is over by then, it gets 204 and stops.
    let (least, most) = RECONNECT_AFTER;
    let retry = Duration::from_millis(fastrand::u64(least..most));
    let first = stream::once(async move { Ok(Event::default().retry(retry)) });
    let events = Sse::new(first.chain(events)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));

    // Nothing between here and the browser is to keep it, or to hold it back until it is over.
    let headers =
        [(CACHE_CONTROL, "no-store"), (HeaderName::from_static("x-accel-buffering"), "no")];
    (headers, events).into_response()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;
    use crate::timeline::tests::entries;

    #[test]
    fn a_stream_resumes_behind_the_last_event() {
        let of = |id: Option<&str>| {
            let headers = id.map(|id| {
                (
                    "last-event-id".parse().expect("a name"),
                    HeaderValue::from_str(id).expect("a value"),
                )
            });
            StreamCursor::from_headers(&headers.into_iter().collect())
        };

        assert_eq!(of(None), Ok(StreamCursor::default()));
        assert_eq!(of(Some("2.1.0")), Ok(StreamCursor([2, 1, 0])));
        assert_eq!(of(Some("2.1.0")).map(|cursor| cursor.to_string()).as_deref(), Ok("2.1.0"));
        for bad in ["", "-1", "1.1", "1.1.1.1", "1.1.x", "1.1.99999999999"] {
            assert_eq!(
                of(Some(bad)).map_err(|problem| problem.status().as_u16()),
                Err(400),
                "{bad:?}"
            );
        }
    }

    fn listener(cursor: &str) -> (Listener, mpsc::Receiver<(StreamCursor, TimelineEntry)>) {
        let (sender, receiver) = mpsc::channel(2);
        let order_id = "018f3f5e-7b1a-7c3d-8e2f-0123456789ab".parse().expect("an id");
        (Listener { order_id, cursor: cursor.parse().expect("an id"), sender }, receiver)
    }

    fn received(
        receiver: &mut mpsc::Receiver<(StreamCursor, TimelineEntry)>,
    ) -> Vec<(String, String)> {
        std::iter::from_fn(|| receiver.try_recv().ok())
            .map(|(cursor, entry)| (cursor.to_string(), entry.event))
            .collect()
    }

    #[test]
    fn a_slow_client_gets_later_what_it_could_not_take_and_each_event_once() {
        let (mut listener, mut receiver) = listener("0.0.0");
        let timeline =
            entries(&["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"]);
        assert!(listener.send(&timeline), "there is more");
        assert_eq!(
            received(&mut receiver),
            [("1.0.0".into(), "OrderCreated".into()), ("1.1.0".into(), "PaymentCompleted".into())]
        );
        assert!(!listener.send(&timeline), "it is over");
        assert_eq!(
            received(&mut receiver),
            [
                ("1.1.1".into(), "InventoryUpdated".into()),
                ("2.1.1".into(), "OrderConfirmed".into())
            ]
        );
    }

    #[test]
    fn what_is_read_again_in_another_order_is_sent_once_and_nothing_is_left_out() {
        // The client has received the order and its stock, but not the payment between them.
        let (mut listener, mut receiver) = listener("1.0.1");
        assert!(
            listener.send(&entries(&["OrderCreated"])),
            "the database was restored, and reads the others again"
        );

        assert!(received(&mut receiver).is_empty());
        assert!(!listener.send(&entries(&[
            "OrderCreated",
            "PaymentCompleted",
            "OrderConfirmed",
            "InventoryUpdated"
        ])));
        assert_eq!(
            received(&mut receiver),
            [
                ("1.1.1".into(), "PaymentCompleted".into()),
                ("2.1.1".into(), "OrderConfirmed".into())
            ]
        );
    }

    #[test]
    fn a_client_that_claims_to_have_seen_more_gets_nothing_until_its_stream_ends_with_the_order() {
        let (mut listener, mut receiver) = listener("9.9.9");
        assert!(listener.send(&entries(&["OrderCreated"])));
        assert!(!listener.send(&entries(&[
            "OrderCreated",
            "PaymentFailed",
            "OrderCancelled",
            "InventoryFailed"
        ])));
        assert!(received(&mut receiver).is_empty());
    }
}
