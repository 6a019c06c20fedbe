//! A lane as the relay works on it: what was sent of it, what waits in memory, and how far it was acked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::Numbered;
use super::publisher::{Acks, Trouble};
use crate::lanes::{Grant, Notice};

/// Rows of one lane in memory that were not sent yet.
const PENDING_ROWS: usize = 4_000;
/// While so many records of a partition are not acked, librdkafka's idempotent producer sends no further request for it
/// (<https://github.com/confluentinc/librdkafka/pull/4989>), and its thread spins on a core if it holds more. So it is given no more.
const IN_FLIGHT: u64 = 5;
/// So many bytes are handed over at once: one request takes them, for it takes a megabyte.
const BURST_BYTES: usize = 512 * 1024;

/// A lane that was opened: where its relay begins.
#[derive(Debug, Clone)]
pub(crate) struct RelayLane {
    pub(crate) grant: Grant,
    pub(crate) generation: i64,
    pub(crate) next_seq: i64,
}

/// A lane that this replica owns.
pub(super) struct Lane {
    pub(super) grant: Grant,
    pub(super) generation: i64,
    pub(super) acks: Arc<Acks>,
    /// The number that is sent next.
    pub(super) next_send: i64,
    pub(super) sent: u64,
    /// Rows in memory, from `next_send` on.
    pub(super) pending: VecDeque<Numbered>,
    /// Whether the table may hold rows that are not in memory.
    pub(super) behind: bool,
    /// The number up to which the cursor was written.
    pub(super) written: i64,
    /// Whether it waits to be opened anew.
    pub(super) stalled: bool,
    pub(super) leaving: Option<(oneshot::Sender<()>, Instant)>,
}

impl Lane {
    /// A lane that was just opened.
    pub(super) fn new(RelayLane { grant, generation, next_seq }: RelayLane) -> Self {
        Self {
            grant,
            generation,
            acks: Arc::new(Acks::new(next_seq, generation)),
            next_send: next_seq,
            sent: 0,
            pending: VecDeque::new(),
            behind: true,
            written: next_seq,
            stalled: false,
            leaving: None,
        }
    }

    /// The number of the first row that is not in memory.
    pub(super) fn next_row(&self) -> i64 {
        self.pending.back().map_or(self.next_send, |row| row.seq + 1)
    }

    /// Takes a row from memory where it follows on; where it does not, the table is read.
    pub(super) fn take(&mut self, row: Numbered) {
        let next = self.next_row();
        if row.seq == next && !self.behind && self.pending.len() < PENDING_ROWS {
            self.pending.push_back(row);
        } else if row.seq >= next {
            self.behind = true;
        }
    }

    pub(super) fn wants_rows(&self) -> bool {
        self.behind && !self.stalled && self.pending.len() < PENDING_ROWS / 2
    }

    /// How many of the rows in memory may be handed over now: what one request takes, or none while the last ones are not acked.
    pub(super) fn burst(&self) -> usize {
        if self.stalled || self.sent - self.acks.get().answered >= IN_FLIGHT {
            return 0;
        }
        let mut bytes = 0;
        let fits = |row: &&Numbered| {
            let before = bytes;
            bytes += row.payload.len();
            before < BURST_BYTES
        };
        self.pending.iter().take_while(fits).count()
    }

    pub(super) fn may_leave(&self, now: Instant) -> bool {
        let drained = !self.behind && self.pending.is_empty() && self.written == self.next_send;
        self.leaving.as_ref().is_some_and(|(_, until)| drained || self.stalled || *until <= now)
    }

    /// Sends nothing more, and asks to be opened anew.
    pub(super) fn stall(&mut self, trouble: &Trouble, notices: &mpsc::UnboundedSender<Notice>) {
        let partition = self.grant.partition;
        self.stalled = true;
        tracing::warn!(%partition, "{trouble}; the lane is opened anew");
        let _ = notices.send(Notice::Reopen { partition, token: self.grant.token, reason: trouble.to_string() });
    }
}
