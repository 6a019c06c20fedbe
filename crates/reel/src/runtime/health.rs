//! `/health/live` and `/health/ready`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Gate;
use crate::lanes::LaneState;

pub(super) fn router(gate: Arc<Gate>) -> Router {
    Router::new().route("/health/live", get(|| async { "live\n" })).route("/health/ready", get(ready)).with_state(gate)
}

/// Ready means that commands are taken. The body says what stands in the way, and how the lanes of this replica are.
async fn ready(State(gate): State<Arc<Gate>>) -> Response {
    let closed = gate.closed();
    let lanes = gate.lanes();
    let count = |wanted: fn(&LaneState) -> bool| lanes.states.values().filter(|state| wanted(state)).count();
    let stopped: serde_json::Map<String, serde_json::Value> = lanes
        .states
        .iter()
        .filter_map(
            |(partition, state)| if let LaneState::Stopped(reason) = state { Some((partition.to_string(), json!(reason))) } else { None },
        )
        .collect();
    let status = if closed.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "ready": closed.is_none(),
        "reason": closed,
        "lanes": {
            "open": count(|state| matches!(state, LaneState::Open | LaneState::Reopening)),
            "opening": count(|state| matches!(state, LaneState::Opening)),
            "waiting": lanes.waiting,
            "stopped": stopped,
        },
        "held_inputs": gate.held(),
        "backlog": { "events": gate.backlog().events, "oldest_seconds": gate.backlog().oldest.as_secs_f64() },
    });
    (status, Json(body)).into_response()
}
