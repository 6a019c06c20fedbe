//! The ledger's HTTP edge: a note; a stream of notes at a rate, made inside the process so that HTTP costs nothing; the acks.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use reel::http::Problem;
use reel::runtime::{Commands, Edge};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::acks::{Acked, Acks};
use super::{LedgerService, Noted};

/// Commands at a rate.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Loading {
    /// How many a second.
    pub rate: u32,
    /// How many in all.
    pub count: u32,
}

/// What became of them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Loaded {
    /// Commands that were answered.
    pub done: u32,
    /// Commands that were refused.
    pub refused: u32,
}

#[derive(Clone)]
struct Desk {
    commands: Commands<LedgerService>,
    acks: Acks,
}

pub(super) fn router(edge: Edge<LedgerService>, acks: Acks) -> Router {
    let desk = Desk { commands: edge.commands, acks };
    Router::new().route("/notes", post(note)).route("/load", post(load)).route("/acks", get(taken)).with_state(desk)
}

async fn note(State(desk): State<Desk>) -> Result<StatusCode, Problem> {
    desk.commands.ask(Noted::random(), None).await?;
    Ok(StatusCode::CREATED)
}

/// Asks by a schedule that waits for no answer: a command that is late is not a command less.
async fn load(State(desk): State<Desk>, Query(Loading { rate, count }): Query<Loading>) -> Json<Loaded> {
    let began = Instant::now();
    let mut asked = JoinSet::new();
    for nth in 0..count {
        tokio::time::sleep_until(began + Duration::from_secs(1) * nth / rate.max(1)).await;
        let commands = desk.commands.clone();
        asked.spawn(async move { commands.ask(Noted::random(), None).await.is_ok() });
    }
    let mut loaded = Loaded::default();
    while let Some(done) = asked.join_next().await {
        if done.unwrap_or(false) { loaded.done += 1 } else { loaded.refused += 1 }
    }
    Json(loaded)
}

async fn taken(State(desk): State<Desk>) -> Json<Vec<Acked>> {
    Json(desk.acks.take())
}

impl From<super::domain::Never> for Problem {
    fn from(never: super::domain::Never) -> Self {
        match never {}
    }
}
