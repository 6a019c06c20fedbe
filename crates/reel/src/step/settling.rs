//! Bringing a batch to its end: whole, without lanes that were lost, or in parts; and what is done when it cannot be.
//!
//! Nothing here is skipped: inputs go back to the front of their lanes, commands are told to come again, deadlines are found
//! again, and after a doubtful commit the positions in the database say what was done.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Stored;
use super::batch::Work;
use super::looping::{ANSWER_AT_MOST, StepLoop, StepStopped};
use super::transaction::{self, Failed, Manner};
use crate::lanes::{Notice, Position};
use crate::model::{Partition, Service};
use crate::pauses::Pauses;
use crate::runtime::Refused;
use crate::{dead_letters, failpoints};

/// So many conflicts of one batch in a row are more than other transactions being in the way.
const CONFLICTS_AT_MOST: u32 = 20;
/// How long a lane waits before it asks again for a row that another transaction has locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(250);
/// How long after a row was found locked no batch waits long for one.
const IMPATIENT_FOR: Duration = Duration::from_secs(1);
/// The pauses after conflicts.
const CONFLICT_PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// What is still to be run of a batch, the next part last, and why its one message cannot be stored.
type Parts<S> = Vec<(Vec<Work<S>>, Option<String>)>;

impl<S: Service<State: Stored>> StepLoop<S> {
    /// Runs a batch to its end: whole, without lanes that were lost, or in parts.
    pub(super) async fn settle(&mut self, batch: Vec<Work<S>>) -> Result<(), StepStopped> {
        let mut parts: Parts<S> = vec![(batch, None)];
        let mut conflicts = 0_u32;
        let mut pauses = Pauses::new(CONFLICT_PAUSES.0, CONFLICT_PAUSES.1);
        while let Some((part, poisoned)) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let impatient = self.locked_at.is_some_and(|at| at.elapsed() < IMPATIENT_FOR);
            let manner = Manner { poisoned: poisoned.as_deref(), impatient, max_event_bytes: self.max_event_bytes };
            match transaction::run(&mut self.connection, &self.replica, &self.lanes, &part, manner).await {
                Ok(done) => {
                    failpoints::reached(failpoints::STEP_AFTER_COMMIT);
                    self.committed(part, done);
                }
                Err(Failed::Conflict) => {
                    conflicts += 1;
                    tokio::time::sleep(pauses.next()).await;
                    if conflicts > CONFLICTS_AT_MOST {
                        tracing::warn!(conflicts, "a batch conflicts with other transactions again and again");
                        self.put_back(part, parts, "other transactions are in the way");
                        return Ok(());
                    }
                    parts.push((part, poisoned));
                }
                Err(Failed::Fenced(lost)) => {
                    for partition in &lost {
                        self.lose(*partition);
                    }
                    let rest = part.into_iter().filter(|work| work.lane().is_none_or(|lane| !lost.contains(&lane))).collect();
                    parts.push((rest, poisoned));
                }
                Err(Failed::Poison(reason)) if poisoned.is_some() => {
                    self.put_back(part, parts, "it stops");
                    return Err(StepStopped(format!("not even the dead letter can be stored: {reason}")));
                }
                Err(Failed::Poison(reason)) => match halves(part) {
                    Halves::Two(first, second) => parts.extend([(second, None), (first, None)]),
                    Halves::One(single) => parts.push((single, Some(reason))),
                },
                Err(Failed::Locked) => {
                    self.locked_at = Some(Instant::now());
                    match halves(part) {
                        Halves::Two(first, second) => parts.extend([(second, None), (first, None)]),
                        Halves::One(single) => self.wait_for_lock(single, &mut parts),
                    }
                }
                Err(Failed::Closed) => {
                    self.gate.lanes_closed();
                    let _ = self.notices.send(Notice::Closed);
                    self.put_back(part, parts, "its lanes are not open yet");
                    return Ok(());
                }
                Err(Failed::Lost(error)) => {
                    if !self.doubt {
                        tracing::warn!(error = %error, "the database does not answer; the step waits");
                    }
                    self.doubt = true;
                    self.gate.lanes_closed();
                    self.gate.set(Some("the database does not answer".into()));
                    self.put_back(part, parts, "the database does not answer");
                    tokio::time::sleep(self.pauses.next()).await;
                    return Ok(());
                }
                Err(Failed::Broken(reason)) => {
                    tracing::error!(reason, "a programming error stops the step; nothing of this batch was stored");
                    self.put_back(part, parts, "it stops");
                    return Err(StepStopped(reason));
                }
            }
        }
        Ok(())
    }

    /// The one message waits for a row, and with it what follows in its lane; the others go on.
    fn wait_for_lock(&mut self, single: Vec<Work<S>>, parts: &mut [(Vec<Work<S>>, Option<String>)]) {
        let waiting: HashSet<Partition> = single.iter().filter_map(Work::lane).collect();
        let mut behind = Vec::new();
        for (part, _) in parts.iter_mut().rev() {
            let (wait, go): (Vec<_>, Vec<_>) =
                std::mem::take(part).into_iter().partition(|work| work.lane().is_some_and(|lane| waiting.contains(&lane)));
            *part = go;
            behind.extend(wait);
        }
        for partition in waiting {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.waits_until = Some(Instant::now() + LOCKED_PAUSE);
            }
        }
        for work in &single {
            if let Work::Deadline { due, .. } = work {
                self.waiting.insert((due.key.clone(), due.name.clone()), Instant::now() + LOCKED_PAUSE);
            }
        }
        self.put_back(single.into_iter().chain(behind).collect(), Vec::new(), "a row that it needs is locked");
    }

    /// Inputs go back to the front of their lanes, commands are refused, deadlines are found again.
    fn put_back(&mut self, part: Vec<Work<S>>, parts: Parts<S>, reason: &str) {
        let mut of_lanes: HashMap<Partition, Vec<Work<S>>> = HashMap::new();
        for work in part.into_iter().chain(parts.into_iter().rev().flat_map(|(part, _)| part)) {
            match (work.lane(), work) {
                (Some(lane), work) => of_lanes.entry(lane).or_default().push(work),
                (None, Work::Command(asked)) => drop(asked.reply.send(Err(Refused::Closed(reason.to_owned())))),
                (None, _) => {}
            }
        }
        for (partition, works) in of_lanes {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.put_back(works);
            }
        }
    }

    /// After a lost connection: reads which positions the database has, so that nothing is done twice.
    pub(super) async fn resolve(&mut self) -> bool {
        let read = async {
            let connection = self.connection.get().await?;
            let grants: Vec<_> = self.lanes.values().map(|lane| lane.grant.clone()).collect();
            let partitions: Vec<i32> = grants.iter().map(|grant| grant.partition.0).collect();
            let parked = dead_letters::parked_in(&mut *connection, &partitions).await?;
            let rows = sqlx::query_as::<_, (String, i32, i64, i64, i64, Option<Uuid>)>(
                "select topic, position.partition, next_offset, next_seq, generation, opened_id
                 from reel.positions as position
                 join unnest($2::integer[], $3::uuid[], $4::text[]) as mine(partition, token, run)
                   on mine.partition = position.partition and mine.token = position.token and mine.run = position.run
                 where reader = $1 and mine.run = (select reel.run())",
            )
            .bind(S::NAME)
            .bind(partitions)
            .bind(grants.iter().map(|grant| grant.token).collect::<Vec<_>>())
            .bind(grants.iter().map(|grant| grant.run.as_str()).collect::<Vec<_>>())
            .fetch_all(&mut *connection)
            .await?;
            Ok::<_, sqlx::Error>((rows, parked))
        };
        let (rows, parked) = match tokio::time::timeout(ANSWER_AT_MOST, read).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(read) => read,
            Err(error) => {
                self.connection.lose();
                tracing::debug!(error = %error, "the database does not answer yet");
                tokio::time::sleep(self.pauses.next()).await;
                return false;
            }
        };
        let mut ours = HashSet::new();
        for (topic, partition, next_offset, next_seq, generation, opened_id) in rows {
            if let Some(lane) = self.lanes.get_mut(&Partition(partition)) {
                ours.insert(Partition(partition));
                lane.resume(&topic, Position { next_offset, next_seq, generation, opened_id });
            }
        }
        for (partition, key) in parked {
            if let Some(lane) = self.lanes.get_mut(&Partition(partition)) {
                lane.parked.insert(key);
            }
        }
        let lost: Vec<Partition> = self.lanes.keys().filter(|partition| !ours.contains(partition)).copied().collect();
        for partition in lost {
            self.lose(partition);
        }
        tracing::info!(lanes = self.lanes.len(), "the database answers again");
        self.doubt = false;
        self.pauses.reset();
        let _ = self.notices.send(Notice::Closed);
        true
    }

    fn lose(&mut self, partition: Partition) {
        if let Some(lane) = self.lanes.remove(&partition) {
            self.intake.unassign(partition);
            let _ = self.notices.send(Notice::Lost { partition, token: lane.grant.token });
        }
    }
}

/// What is left of a batch in which one message is to be found.
enum Halves<S: Service> {
    /// Its halves.
    Two(Vec<Work<S>>, Vec<Work<S>>),
    /// It has a single message of effect.
    One(Vec<Work<S>>),
}

/// Cuts a batch in two at its middle.
fn halves<S: Service>(batch: Vec<Work<S>>) -> Halves<S> {
    let effective = batch.iter().filter(|work| work.is_effective()).count();
    if effective < 2 {
        return Halves::One(batch);
    }
    let mut seen = 0;
    let cut = batch.iter().position(|work| {
        seen += usize::from(work.is_effective());
        seen > effective / 2
    });
    let mut first = batch;
    let second = first.split_off(cut.unwrap_or(first.len()));
    Halves::Two(first, second)
}
