//! The replicas of a demo: paused for a while, killed at random, and started again.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Error, Result};
use fastrand::Rng;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::member::Member;
use crate::system::{PerService, Service};

/// The replicas. Pausing and killing take turns, so that no paused replica is killed and started
/// again.
pub(super) struct Replicas<'a> {
    state: Mutex<State<'a>>,
}

struct State<'a> {
    replicas: Vec<Member<'a>>,
    paused: Option<Service>,
    kills: PerService<u32>,
}

impl<'a> Replicas<'a> {
    pub(super) fn new(replicas: Vec<Member<'a>>) -> Self {
        Self { state: Mutex::new(State { replicas, paused: None, kills: PerService::default() }) }
    }

    /// Pauses all replicas of a service; they are not killed until they are resumed.
    pub(super) async fn pause(&self, service: Service) -> Result<()> {
        let mut state = self.state.lock().await;
        state.paused = Some(service);
        for replica in state.replicas.iter_mut().filter(|replica| replica.service() == service) {
            replica.pause().await?;
        }
        Ok(())
    }

    /// Resumes the service that is paused.
    pub(super) async fn resume(&self) -> Result<()> {
        let mut state = self.state.lock().await;
        let paused = state.paused.take();
        for replica in state.replicas.iter_mut().filter(|replica| paused == Some(replica.service()))
        {
            replica.resume().await?;
        }
        Ok(())
    }

    /// Kills a random replica with -9 after each pause, and starts it again at once with its
    /// instance id; with a pause of zero it never does. Returns only if one cannot be started.
    pub(super) async fn kill_every(&self, pause: Duration, mut rng: Rng) -> Error {
        if pause.is_zero() {
            std::future::pending::<()>().await;
        }
        loop {
            sleep(pause).await;
            if let Err(error) = self.kill_one(&mut rng).await {
                return error;
            }
        }
    }

    async fn kill_one(&self, rng: &mut Rng) -> Result<()> {
        let mut state = self.state.lock().await;
        let State { replicas, paused, kills } = &mut *state;
        let free = replicas.iter_mut().filter(|replica| *paused != Some(replica.service()));
        let Some(victim) = rng.choice(free.collect::<Vec<_>>()) else { return Ok(()) };
        kills[victim.service()] += 1;
        victim.kill_and_start().await
    }

    /// Waits until all replicas are ready, those that were killed last included.
    pub(super) async fn ready(&self) -> Result<()> {
        for replica in &mut self.state.lock().await.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    /// Stops all replicas.
    pub(super) async fn stop(&self) -> Result<()> {
        for replica in &mut self.state.lock().await.replicas {
            replica.stop().await?;
        }
        Ok(())
    }

    /// Returns how many were killed, for people.
    pub(super) async fn kills(&self) -> String {
        let kills = &self.state.lock().await.kills;
        let total: u32 = kills.iter().map(|(_, count)| count).sum();
        let mut text = format!("{total} replicas were killed with -9 meanwhile");
        for (nth, (service, count)) in kills.iter().enumerate() {
            let _ = write!(text, "{} {service} {count}", if nth == 0 { ":" } else { "," });
        }
        text
    }
}
