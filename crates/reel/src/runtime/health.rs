//! `/health/live` and `/health/ready`, and the client behind the command `health`.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::HOST;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::admission::{Admission, Overload};
use crate::lane::LaneState;
use crate::status::Status;

/// Longest time for the service to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The state that the health checks report.
#[derive(Clone)]
pub(super) struct Health {
    pub(super) admission: Admission,
    pub(super) status: Status,
}

pub(super) fn router(health: Health) -> Router {
    Router::new()
        .route("/health/live", get(|| async { "live\n" }))
        .route("/health/ready", get(ready))
        .with_state(health)
}

/// Why a replica is not ready that admits commands: others serve them without the detour by its
/// database.
const CUT_OFF: &str = "kafka answers other replicas and not this one";

/// 200 if commands are admitted and this replica is not worse off than others, otherwise 503. The
/// body has the reason, and the state of this replica's lanes.
async fn ready(State(health): State<Health>) -> Response {
    let Health { admission, status: replica } = health;
    let lanes = replica.lanes.borrow().clone();
    let closed = admission.closed().or_else(|| lanes.cut_off.then(|| CUT_OFF.to_owned()));
    let (backlog, load) = (*replica.backlog.borrow(), admission.load());
    let count = |wanted: fn(&LaneState) -> bool| {
        lanes.states.values().filter(|state| wanted(state)).count()
    };

    let stopped: serde_json::Map<String, serde_json::Value> = lanes
        .states
        .iter()
        .filter_map(|(partition, state)| {
            if let LaneState::Stopped(reason) = state {
                Some((partition.to_string(), json!(reason)))
            } else {
                None
            }
        })
        .collect();

    let status = if closed.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };

    let body = json!({
        "ready": closed.is_none(),
        "reason": closed,
        "lanes": {
            "open": count(LaneState::is_open),
            "opening": count(LaneState::is_opening),
            "waiting": lanes.waiting,
            "stopped": stopped,
        },
        "warnings": *replica.warnings.borrow(),
        "held_inputs": *replica.blocked_inputs.borrow(),
        "projections": *replica.projections.borrow(),
        "load": {
            "open_sagas": load.open,
            "overload": load.overload.map(|Overload { needed, allowed }| json!({
                "needed_seconds": needed.as_secs_f64(),
                "allowed_seconds": allowed.as_secs_f64(),
            })),
        },
        "backlog": { "events": backlog.events, "oldest_seconds": backlog.oldest.as_secs_f64() },
    });
    (status, Json(body)).into_response()
}

/// The service is not ready for commands.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unhealthy {
    /// It is not ready, for this reason.
    #[error("{0}")]
    NotReady(String),
    /// It did not answer.
    #[error("nothing answers at {0}")]
    NoAnswer(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Asks the service at an address of this machine for `/health/ready`, and returns the body.
pub(super) async fn ask(address: SocketAddr) -> Result<String, Unhealthy> {
    let address = if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()))
    } else {
        address
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, get_ready(address))
        .await
        .unwrap_or_else(|late| Err(late.into()));
    let (status, body) = answered.map_err(|error| Unhealthy::NoAnswer(address, error))?;
    if status == StatusCode::OK { Ok(body) } else { Err(Unhealthy::NotReady(body)) }
}

async fn get_ready(
    address: SocketAddr,
) -> Result<(StatusCode, String), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let request = Request::get("/health/ready")
        .header(HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let (status, body) = (response.status(), response.into_body().collect().await?.to_bytes());
    connection.abort();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
