//! The replicas of a demo: held for a while, killed at random, and started again.

use std::fmt::Write;
use std::time::Duration;

use anyhow::{Error, Result};
use fastrand::Rng;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::member::Member;
use crate::system::{PerService, Service};

/// The replicas. Who holds a service and who kills take turns, so that nothing that is held is started anew.
pub(super) struct Crew<'a> {
    members: Mutex<Members<'a>>,
}

struct Members<'a> {
    replicas: Vec<Member<'a>>,
    held: Option<Service>,
    kills: PerService<u32>,
}

impl<'a> Crew<'a> {
    pub(super) fn new(replicas: Vec<Member<'a>>) -> Self {
        Self { members: Mutex::new(Members { replicas, held: None, kills: PerService::default() }) }
    }

    /// Stops all replicas of a service where they are; they are not killed until they go on.
    pub(super) async fn hold(&self, service: Service) -> Result<()> {
        let mut members = self.members.lock().await;
        members.held = Some(service);
        for replica in members.replicas.iter_mut().filter(|replica| replica.service() == service) {
            replica.pause().await?;
        }
        Ok(())
    }

    /// Lets what is held go on.
    pub(super) async fn let_go(&self) -> Result<()> {
        let mut members = self.members.lock().await;
        let held = members.held.take();
        for replica in members.replicas.iter_mut().filter(|replica| held == Some(replica.service())) {
            replica.resume().await?;
        }
        Ok(())
    }

    /// Kills one of the replicas with -9 again and again, each so long after the last one, and starts it again at once under its
    /// instance id. Ends only if one cannot be started.
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
        let mut members = self.members.lock().await;
        let Members { replicas, held, kills } = &mut *members;
        let free = replicas.iter_mut().filter(|replica| *held != Some(replica.service()));
        let Some(victim) = rng.choice(free.collect::<Vec<_>>()) else { return Ok(()) };
        kills[victim.service()] += 1;
        victim.kill_and_start().await
    }

    /// Waits until those that were killed last are back.
    pub(super) async fn ready(&self) -> Result<()> {
        for replica in &mut self.members.lock().await.replicas {
            replica.ready().await?;
        }
        Ok(())
    }

    /// Asks all of them to stop.
    pub(super) async fn stop(&self) -> Result<()> {
        for replica in &mut self.members.lock().await.replicas {
            replica.stop().await?;
        }
        Ok(())
    }

    /// How many were killed, for people.
    pub(super) async fn kills(&self) -> String {
        let kills = &self.members.lock().await.kills;
        let total: u32 = kills.iter().map(|(_, count)| count).sum();
        let mut text = format!("{total} replicas were killed with -9 meanwhile");
        for (nth, (service, count)) in kills.iter().enumerate() {
            let _ = write!(text, "{} {service} {count}", if nth == 0 { ":" } else { "," });
        }
        text
    }
}
