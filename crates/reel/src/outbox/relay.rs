//! The relay: publishes the outbox of the lanes that this replica owns, in the order of the numbers.
//!
//! Rows come from memory right after their commit where they follow on, else from the table. What waits for a lane is sent
//! at once when its last records were acked; the cursor follows the acks. A crash anywhere sends some records again, which
//! every consumer drops.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::cursor::{self, Advance};
use super::lane::{Lane, RelayLane};
use super::publisher::{Publisher, SendError, Trouble};
use super::wakeup::{self, Woken};
use super::{Numbered, number};
use crate::database::{Commits, Kept, Sessions};
use crate::failpoints::{self, Bug, planted};
use crate::lanes::Notice;
use crate::model::Partition;
use crate::pauses::Pauses;
use crate::runtime::{Backlog, Gate};

/// Rows of one lane in one read.
const READ_ROWS: usize = 1_000;
/// Bundles of rows from the step that may wait; what does not fit is read from the table.
const BUNDLES: usize = 256;
/// The pauses between looking at the table while nothing happens: from the first, doubling, up to the second.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The pauses while the database does not answer.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(300));
/// How often cursors are written.
const CURSOR_EVERY: Duration = Duration::from_millis(50);
/// How often the backlog is counted.
const BACKLOG_EVERY: Duration = Duration::from_millis(500);
/// How long the database may take to answer.
const ANSWER_AT_MOST: Duration = Duration::from_secs(10);
/// How long a lane that leaves in peace may take to send what is committed.
const DRAIN_AT_MOST: Duration = Duration::from_secs(3);

/// How the others reach the relay.
#[derive(Clone)]
pub(crate) struct RelayHandle {
    rows: mpsc::Sender<Vec<Numbered>>,
    orders: mpsc::UnboundedSender<Order>,
}

enum Order {
    Join(RelayLane),
    Leave { partition: Partition, token: Uuid, drain: bool, done: oneshot::Sender<()> },
    Look,
}

/// The relay of one replica.
pub(crate) struct Relay {
    publisher: Arc<dyn Outlet>,
    /// Its commits need not be durable: it only ever writes cursors.
    connection: Kept,
    gate: Arc<Gate>,
    notices: mpsc::UnboundedSender<Notice>,
    lanes: BTreeMap<Partition, Lane>,
    pauses: Pauses,
    poll: Duration,
    polled_at: Instant,
    cursors_at: Instant,
    backlog_at: Instant,
}

/// What the relay sends through: the replica's publisher.
pub(crate) trait Outlet: Send + Sync {
    fn publisher(&self) -> &Publisher;
}

impl RelayHandle {
    /// Rows that were just committed for lanes of this replica.
    pub(crate) fn committed(&self, rows: Vec<Numbered>) {
        if self.rows.try_send(rows).is_err() {
            let _ = self.orders.send(Order::Look);
        }
    }

    /// A lane was opened, or opened anew.
    pub(crate) fn join(&self, lane: RelayLane) {
        let _ = self.orders.send(Order::Join(lane));
    }

    /// A lane leaves: at once, or when what is committed was sent. The receiver tells when it has left.
    pub(crate) fn leave(&self, partition: Partition, token: Uuid, drain: bool) -> oneshot::Receiver<()> {
        let (done, left) = oneshot::channel();
        let _ = self.orders.send(Order::Leave { partition, token, drain, done });
        left
    }
}

impl Relay {
    /// Starts the relay; it ends when the last handle is gone.
    pub(crate) fn start(
        publisher: Arc<dyn Outlet>,
        sessions: &Sessions,
        pool: sqlx::PgPool,
        gate: Arc<Gate>,
        notices: mpsc::UnboundedSender<Notice>,
    ) -> RelayHandle {
        let (rows, row_inbox) = mpsc::channel(BUNDLES);
        let (orders, order_inbox) = mpsc::unbounded_channel();
        let (woken, woken_inbox) = mpsc::channel(BUNDLES);
        tokio::spawn(wakeup::listen(pool, woken));
        let now = Instant::now();
        let relay = Self {
            publisher,
            connection: sessions.keep(Commits::Asynchronous),
            gate,
            notices,
            lanes: BTreeMap::new(),
            pauses: Pauses::new(ASK_AGAIN.0, ASK_AGAIN.1),
            poll: POLL.0,
            polled_at: now,
            cursors_at: now,
            backlog_at: now,
        };
        tokio::spawn(relay.run(row_inbox, order_inbox, woken_inbox));
        RelayHandle { rows, orders }
    }

    async fn run(
        mut self,
        mut rows: mpsc::Receiver<Vec<Numbered>>,
        mut orders: mpsc::UnboundedReceiver<Order>,
        mut woken: mpsc::Receiver<Woken>,
    ) {
        let publisher = self.publisher.clone();
        loop {
            let pause = if self.is_busy() { CURSOR_EVERY } else { self.poll.saturating_sub(self.polled_at.elapsed()) };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                Some(rows) = rows.recv() => self.take(rows),
                Some(told) = woken.recv() => match told {
                    Woken::Rows(partitions) => self.look(&partitions),
                    Woken::LanesFreed => drop(self.notices.send(Notice::LanesFreed)),
                },
                () = publisher.publisher().acked() => {}
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(order) = orders.try_recv() {
                self.obey(order);
            }
            while let Ok(rows) = rows.try_recv() {
                self.take(rows);
            }
            if self.polled_at.elapsed() >= self.poll {
                self.polled_at = Instant::now();
                self.poll = (self.poll * 2).min(POLL.1);
                self.lanes.values_mut().for_each(|lane| lane.behind = true);
            }
            let turn = tokio::time::timeout(ANSWER_AT_MOST, self.turn()).await;
            match turn.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
                Ok(()) => self.pauses.reset(),
                Err(error) => {
                    if self.connection.is_connected() {
                        tracing::warn!(error = %error, "the relay lost its connection to the database and makes a new one");
                    }
                    self.connection.lose();
                    tokio::time::sleep(self.pauses.next()).await;
                }
            }
        }
    }

    fn is_busy(&self) -> bool {
        self.lanes.values().any(|lane| lane.leaving.is_some() || lane.behind || lane.written < lane.next_send || !lane.pending.is_empty())
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Join(lane) => {
                self.lanes.insert(lane.grant.partition, Lane::new(lane));
            }
            Order::Leave { partition, token, drain, done } => match self.lanes.get_mut(&partition) {
                Some(lane) if lane.grant.token == token && drain && !lane.stalled => {
                    lane.behind = true;
                    lane.leaving = Some((done, Instant::now() + DRAIN_AT_MOST));
                }
                Some(lane) if lane.grant.token == token => drop((self.lanes.remove(&partition), done.send(()))),
                _ => drop(done.send(())),
            },
            Order::Look => self.lanes.values_mut().for_each(|lane| lane.behind = true),
        }
    }

    fn look(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(lane) = self.lanes.get_mut(partition) {
                lane.behind = true;
            }
        }
    }

    /// Takes rows from memory where they follow on; where they do not, the table is read.
    fn take(&mut self, rows: Vec<Numbered>) {
        for row in rows {
            if let Some(lane) = self.lanes.get_mut(&row.partition) {
                lane.take(row);
            }
        }
    }

    /// One turn: read what is missing, send, see what was acked, write the cursors.
    async fn turn(&mut self) -> sqlx::Result<()> {
        self.send();
        self.read().await?;
        self.send();
        self.settle().await?;
        self.count_backlog().await
    }

    async fn read(&mut self) -> sqlx::Result<()> {
        let wanted: Vec<(Partition, i64)> =
            self.lanes.iter().filter(|(_, lane)| lane.wants_rows()).map(|(partition, lane)| (*partition, lane.next_row())).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let limit = i64::try_from(READ_ROWS).unwrap_or(i64::MAX);
        let rows = number::read(self.connection.get().await?, &wanted, limit).await?;
        if !rows.is_empty() {
            failpoints::reached(failpoints::RELAY_ROWS_READ);
            self.poll = POLL.0;
        }
        let mut counts: BTreeMap<Partition, usize> = wanted.iter().map(|(partition, _)| (*partition, 0)).collect();
        for row in rows {
            *counts.entry(row.partition).or_default() += 1;
            if let Some(lane) = self.lanes.get_mut(&row.partition) {
                lane.pending.push_back(row);
            }
        }
        for (partition, count) in counts {
            if let Some(lane) = self.lanes.get_mut(&partition) {
                lane.behind = count == READ_ROWS;
            }
        }
        Ok(())
    }

    fn send(&mut self) {
        for lane in self.lanes.values_mut() {
            for _ in 0..lane.burst() {
                let Some(row) = lane.pending.front() else { break };
                match self.publisher.publisher().send(row, lane.generation, &lane.acks) {
                    Ok(()) => {
                        lane.next_send = row.seq + 1;
                        lane.sent += 1;
                        lane.pending.pop_front();
                        failpoints::reached(failpoints::RELAY_PRODUCED);
                    }
                    Err(SendError::Full) => return,
                    Err(SendError::Refused(error)) => {
                        lane.stall(&Trouble::Refused(error), &self.notices);
                        break;
                    }
                }
            }
        }
    }

    /// Follows the acks: writes cursors once in a while, has lanes opened anew, lets lanes go.
    async fn settle(&mut self) -> sqlx::Result<()> {
        let mut advances = Vec::new();
        let urgent = self.cursors_at.elapsed() >= CURSOR_EVERY;
        for lane in self.lanes.values_mut() {
            let acked = lane.acks.get();
            if let Some(trouble) = acked.trouble.filter(|_| !lane.stalled) {
                if let Trouble::Refused(error) = &trouble {
                    self.publisher.publisher().renew_after(error.clone());
                }
                lane.stall(&trouble, &self.notices);
            }
            let ahead = if planted(Bug::CursorEarly) { lane.next_send - acked.next_seq } else { 0 };
            let (seq, next_offset) = (acked.next_seq + ahead, acked.last_offset + ahead + 1);
            // Where somebody else wrote in between, the lane is opened anew before its cursor moves again.
            if seq > lane.written && !lane.stalled && urgent {
                advances.push(Advance { grant: lane.grant.clone(), seq, next_offset });
            }
        }
        if !advances.is_empty() {
            self.cursors_at = Instant::now();
            failpoints::reached(failpoints::RELAY_ACKED);
            let lost = cursor::advance(self.connection.get().await?, &advances).await?;
            for advance in advances {
                let partition = advance.grant.partition;
                if lost.contains(&partition) {
                    self.lanes.remove(&partition);
                    let _ = self.notices.send(Notice::Lost { partition, token: advance.grant.token });
                } else if let Some(lane) = self.lanes.get_mut(&partition) {
                    lane.written = advance.seq;
                }
            }
        }
        let now = Instant::now();
        let left: Vec<Partition> = self.lanes.iter().filter(|(_, lane)| lane.may_leave(now)).map(|(partition, _)| *partition).collect();
        for partition in left {
            if let Some((done, _)) = self.lanes.remove(&partition).and_then(|lane| lane.leaving) {
                let _ = done.send(());
            }
        }
        Ok(())
    }

    async fn count_backlog(&mut self) -> sqlx::Result<()> {
        if self.backlog_at.elapsed() < BACKLOG_EVERY {
            return Ok(());
        }
        self.backlog_at = Instant::now();
        self.publisher.publisher().renew_if_failed();
        let (events, age): (i64, f64) = sqlx::query_as(cursor::BACKLOG).fetch_one(self.connection.get().await?).await?;
        self.gate.set_backlog(Backlog { events: usize::try_from(events).unwrap_or(0), oldest: Duration::from_secs_f64(age.max(0.0)) });
        Ok(())
    }
}
