//! The ledger's HTTP interface: one note, notes at a rate (made inside the process, so that HTTP
//! costs nothing), and the recorded acks.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use reel::http::Problem;
use reel::{Commands, runtime::HttpContext};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::acks::{Acked, Acks};
use super::{LedgerService, Noted};

/// A load of commands at a steady rate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct LoadSpec {
    /// Commands a second.
    pub rate: u32,
    /// Total number of commands.
    pub count: u32,
}

/// The result of a load.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct LoadOutcome {
    /// Commands that were answered.
    pub done: u32,
    /// Commands that were refused.
    pub refused: u32,
}

#[derive(Clone)]
struct AppState {
    commands: Commands<LedgerService>,
    acks: Acks,
}

pub(super) fn router(context: HttpContext<LedgerService>, acks: Acks) -> Router {
    let state = AppState { commands: context.commands, acks };
    Router::new()
        .route("/notes", post(note))
        .route("/load", post(load))
        .route("/acks", get(take_acks))
        .with_state(state)
}

async fn note(State(app): State<AppState>) -> Result<StatusCode, Problem> {
    app.commands.ask(Noted::random(), None).await?;
    Ok(StatusCode::CREATED)
}

/// Sends commands by a schedule that waits for no answer, so that a slow command delays no other.
async fn load(
    State(app): State<AppState>,
    Query(LoadSpec { rate, count }): Query<LoadSpec>,
) -> Json<LoadOutcome> {
    let started_at = Instant::now();
    let mut pending = JoinSet::new();
    for nth in 0..count {
        tokio::time::sleep_until(started_at + Duration::from_secs(1) * nth / rate.max(1)).await;
        let commands = app.commands.clone();
        pending.spawn(async move { commands.ask(Noted::random(), None).await.is_ok() });
    }

    let mut loaded = LoadOutcome::default();
    while let Some(done) = pending.join_next().await {
        if done.unwrap_or(false) { loaded.done += 1 } else { loaded.refused += 1 }
    }
    Json(loaded)
}

async fn take_acks(State(app): State<AppState>) -> Json<Vec<Acked>> {
    Json(app.acks.take())
}

impl From<super::domain::Never> for Problem {
    fn from(never: super::domain::Never) -> Self {
        match never {}
    }
}
