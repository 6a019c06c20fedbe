//! A lane as the relay works on it: what is pending in memory, what was sent, and how far it was
//! acked. docs/states.md has the states of [`NextRows`] and [`Sending`] as diagrams.
//!
//! The sequences of a lane, in order: acked and in the cursor, up to `written`; handed to the
//! producer, up to `next_send`; pending in memory, up to [`Lane::next_row`]; only in the table.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::publisher::Acks;
use crate::lane::Lease;
use crate::tables::outbox::OutboxEvent;

/// Most rows of one lane in memory that were not sent yet. When half of them are left, or half of
/// the bytes that the lane may hold, more are read.
const PENDING_ROWS: usize = 4_000;
/// Bytes of rows in memory: of all lanes together, which share them, and the least and most of one
/// lane. One row more may be there, however large.
const PENDING_BYTES: usize = 32 * 1024 * 1024;
const LEAST_SHARE: usize = 256 * 1024;
const LARGEST_SHARE: usize = 4 * 1024 * 1024;
/// Unanswered records of a partition from which on no more are handed over; a burst may exceed it.
/// While there are so many, librdkafka's idempotent producer sends no further request for the
/// partition (<https://github.com/confluentinc/librdkafka/pull/4989>), and its thread spins on a
/// core if it holds more. So the next burst waits, and then goes as one request.
const BUSY_FROM: u64 = 5;
/// Most bytes handed over at once: one request of up to a megabyte takes them.
const BURST_BYTES: usize = 512 * 1024;
/// Divides the bytes of a burst after the broker has refused one as too large.
const SMALLER: usize = 4;
/// What headers add to a record, roughly; it counts once bursts are smaller.
const HEADER_BYTES: usize = 512;

/// A lane that was opened, and where its relay begins.
#[derive(Debug, Clone)]
pub(crate) struct RelayLane {
    pub(crate) lease: Lease,
    /// The log epoch.
    pub(crate) epoch: i64,
    /// The sequence that is sent first.
    pub(crate) next_sequence: i64,
}

/// A lane that the relay works on, for one log epoch. Recovery replaces it.
pub(super) struct Lane {
    pub(super) lease: Lease,
    /// The log epoch under which its records are sent.
    pub(super) epoch: i64,
    pub(super) acks: Arc<Acks>,
    /// The next sequence in the cursor: everything before it is known to be published.
    pub(super) written: i64,
    /// The sequence that is sent next.
    next_send: i64,
    /// The number of records handed to the producer, to compare with those answered.
    sent: u64,
    /// Rows in memory, from `next_send` on.
    pending: Pending,
    next_rows: NextRows,
    sending: Sending,
    burst_bytes: BurstBytes,
}

/// The most bytes that a lane hands over at once. The topic's `max.message.bytes` limits the batch
/// that librdkafka makes of a burst, and not only each record in it. So after a refusal bursts get
/// smaller, down to single records. They stay so while this replica has the lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BurstBytes(usize);

/// Rows in memory that were not sent yet.
#[derive(Default)]
struct Pending {
    rows: VecDeque<OutboxEvent>,
    bytes: usize,
}

/// How much of what it may hold in memory a lane holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    Less,
    Half,
    Full,
}

/// Where the rows behind those in memory come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextRows {
    /// Everything in the table is in memory or sent; the step hands further rows over as it commits
    /// them.
    Memory,
    /// The table may hold rows that are not in memory, so it is read next.
    Table,
}

/// Whether the lane sends.
#[derive(Debug)]
enum Sending {
    Active,
    /// A record failed, and later ones may have been taken. Nothing more is sent in this epoch;
    /// recovery begins another one, with a new [`Lane`].
    Stalled,
    /// The lane is being handed over: it sends what is committed, but not for longer than `until`.
    Draining {
        done: oneshot::Sender<()>,
        until: Instant,
    },
    /// A record failed while the lane drained: it leaves at once, and its next owner recovers it.
    Abandoned {
        done: oneshot::Sender<()>,
    },
}

impl Lane {
    /// A lane that was just opened. `before` is the lane in its last epoch, if it is ours still.
    pub(super) fn new(opened: RelayLane, before: Option<&Self>) -> Self {
        let RelayLane { lease, epoch, next_sequence } = opened;
        Self {
            lease,
            epoch,
            acks: Arc::new(Acks::new(next_sequence, epoch)),
            written: next_sequence,
            next_send: next_sequence,
            sent: 0,
            pending: Pending::default(),
            next_rows: NextRows::Table,
            sending: Sending::Active,
            burst_bytes: before.map_or(BurstBytes::MOST, |before| before.burst_bytes),
        }
    }

    /// Takes a row that was just committed, if it follows on what is in memory. If rows in between
    /// are missing (another replica committed them), it is left to the table. One that is known
    /// already is ignored.
    pub(super) fn take(&mut self, row: OutboxEvent, share: usize) {
        let next = self.next_row();
        let has_room = self.pending.fill(share) < Fill::Full;
        if row.sequence == next && self.next_rows == NextRows::Memory && has_room {
            self.pending.push(row);
        } else if row.sequence >= next {
            self.next_rows = NextRows::Table;
        }
    }

    /// Has the table read next.
    pub(super) fn look_in_table(&mut self) {
        self.next_rows = NextRows::Table;
    }

    /// The sequence from which the table is to be read; `None` if nothing is wanted from it now.
    pub(super) fn wants_rows(&self, share: usize) -> Option<i64> {
        let wants = self.next_rows == NextRows::Table && self.pending.fill(share) < Fill::Half;
        (wants && self.sends()).then(|| self.next_row())
    }

    /// Takes rows that were read from the table; `complete` if it had no more. Rows committed
    /// meanwhile are still in the channel, and follow on.
    pub(super) fn read(&mut self, rows: Vec<OutboxEvent>, complete: bool) {
        rows.into_iter().for_each(|row| self.pending.push(row));
        self.next_rows = if complete { NextRows::Memory } else { NextRows::Table };
    }

    /// The number of pending rows that may be handed over now: what one request takes, or none
    /// while [`BUSY_FROM`] records are unanswered.
    pub(super) fn burst(&self) -> usize {
        let unanswered = self.sent - self.acks.get().answered;
        if !self.sends() || unanswered >= self.burst_bytes.busy_from() {
            return 0;
        }
        self.burst_bytes.take(self.pending.rows.iter().map(|row| row.payload.len()))
    }

    /// The broker refused a batch as too large: later ones are smaller.
    pub(super) fn send_less(&mut self) {
        self.burst_bytes = BurstBytes(self.burst_bytes.0 / SMALLER);
    }

    /// The row that is sent next.
    pub(super) fn next(&self) -> Option<&OutboxEvent> {
        self.pending.rows.front()
    }

    /// The next row was handed to the producer.
    pub(super) fn sent_next(&mut self) {
        if let Some(row) = self.pending.pop() {
            self.next_send = row.sequence + 1;
            self.sent += 1;
        }
    }

    /// A record failed: nothing more is sent. Returns whether the lane was sending until now.
    pub(super) fn stall(&mut self) -> bool {
        let stalls = self.sends();
        self.sending = match std::mem::replace(&mut self.sending, Sending::Stalled) {
            Sending::Active | Sending::Stalled => Sending::Stalled,
            Sending::Draining { done, .. } | Sending::Abandoned { done } => {
                Sending::Abandoned { done }
            }
        };
        stalls
    }

    /// Begins to leave: sends what is committed first, unless a record has failed. Hands `done`
    /// back if the lane leaves at once.
    pub(super) fn drain(
        &mut self,
        done: oneshot::Sender<()>,
        until: Instant,
    ) -> Option<oneshot::Sender<()>> {
        if !self.sends() {
            return Some(done);
        }

        // What other replicas have committed is drained too, although no notification may have
        // come.
        self.next_rows = NextRows::Table;
        self.sending = Sending::Draining { done, until };
        None
    }

    /// Whether the lane may leave: all that is committed is in the cursor, or time is up, or a
    /// record has failed.
    pub(super) fn has_left(&self, now: Instant) -> bool {
        match &self.sending {
            Sending::Active | Sending::Stalled => false,
            Sending::Draining { until, .. } => self.is_drained() || *until <= now,
            Sending::Abandoned { .. } => true,
        }
    }

    /// Reports that the lane has left, if somebody waits for that.
    pub(super) fn left(self) {
        if let Sending::Draining { done, .. } | Sending::Abandoned { done } = self.sending {
            let _ = done.send(());
        }
    }

    /// Whether the lane sends. If not, its cursor stays where it is, too.
    pub(super) fn sends(&self) -> bool {
        matches!(self.sending, Sending::Active | Sending::Draining { .. })
    }

    /// Whether a turn is due soon, rather than at the next poll.
    pub(super) fn is_busy(&self) -> bool {
        let leaves = !matches!(self.sending, Sending::Active | Sending::Stalled);
        leaves || !self.is_drained()
    }

    /// Whether everything that is known to be committed was sent, acked and written to the cursor.
    fn is_drained(&self) -> bool {
        let no_rows = self.next_rows == NextRows::Memory && self.pending.rows.is_empty();
        no_rows && self.written == self.next_send
    }

    /// The sequence of the first row that is not in memory.
    fn next_row(&self) -> i64 {
        self.pending.rows.back().map_or(self.next_send, |row| row.sequence + 1)
    }
}

/// The bytes of rows that each of so many lanes may hold in memory.
pub(super) fn share(lanes: usize) -> usize {
    (PENDING_BYTES / lanes.max(1)).clamp(LEAST_SHARE, LARGEST_SHARE)
}

impl Pending {
    fn push(&mut self, row: OutboxEvent) {
        self.bytes += row.size();
        self.rows.push_back(row);
    }

    fn pop(&mut self) -> Option<OutboxEvent> {
        let row = self.rows.pop_front()?;
        self.bytes -= row.size();
        Some(row)
    }

    /// How full it is, if the lane may hold `share` bytes.
    fn fill(&self, share: usize) -> Fill {
        let Self { rows, bytes } = self;
        if rows.len() >= PENDING_ROWS || *bytes >= share {
            Fill::Full
        } else if rows.len() >= PENDING_ROWS / 2 || *bytes >= share / 2 {
            Fill::Half
        } else {
            Fill::Less
        }
    }
}

impl BurstBytes {
    const MOST: Self = Self(BURST_BYTES);

    /// The number of unanswered records from which on nothing is handed over. Smaller bursts wait
    /// for all answers, so that librdkafka does not make one batch of two.
    fn busy_from(self) -> u64 {
        if self == Self::MOST { BUSY_FROM } else { 1 }
    }

    /// How many of these payloads, given by their lengths, make a burst: one at least.
    fn take(self, payloads: impl Iterator<Item = usize>) -> usize {
        let headers = if self == Self::MOST { 0 } else { HEADER_BYTES };
        let mut bytes = 0;
        let fits = payloads.enumerate().take_while(|(nth, payload)| {
            bytes += payload + headers;
            *nth == 0 || bytes <= self.0
        });
        fits.count()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::database::DatabaseEpoch;
    use crate::model::Partition;
    use crate::wire::Envelope;

    fn lane() -> Lane {
        let lease = Lease::new(Partition(0), &DatabaseEpoch::new("run".into()));
        Lane::new(RelayLane { lease, epoch: 0, next_sequence: 7 }, None)
    }

    fn row(sequence: i64) -> OutboxEvent {
        let (key, payload, envelope) = ("k".into(), vec![0], Envelope::default());
        OutboxEvent { partition: Partition(0), sequence, key, payload, envelope }
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn rows_from_memory_are_taken_only_once_the_table_was_read_and_only_if_they_follow_on() {
        let mut lane = lane();
        assert_eq!(
            lane.wants_rows(LARGEST_SHARE),
            Some(7),
            "what was committed before is in the table"
        );
        lane.take(row(8), LARGEST_SHARE);
        assert_eq!(lane.burst(), 0);

        lane.read(vec![row(7), row(8)], true);
        lane.take(row(9), LARGEST_SHARE);
        assert_eq!((lane.burst(), lane.wants_rows(LARGEST_SHARE)), (3, None));
        lane.take(row(11), LARGEST_SHARE);
        assert_eq!(
            (lane.burst(), lane.wants_rows(LARGEST_SHARE)),
            (3, Some(10)),
            "10 must be in the table"
        );
        lane.take(row(8), LARGEST_SHARE);
        assert_eq!(lane.burst(), 3, "it is there already");
    }

    #[test]
    fn after_a_refusal_for_size_bursts_get_smaller_down_to_single_records() {
        let mut lane = lane();
        let rows = |lane: &Lane| {
            let rows = (lane.next_row()..)
                .map(|sequence| OutboxEvent { payload: vec![0; 1_000], ..row(sequence) });
            rows.take(1_000).collect::<Vec<_>>()
        };
        lane.read(rows(&lane), true);
        assert_eq!(lane.burst(), 524, "half a megabyte");

        let mut bursts = Vec::new();
        for _ in 0..6 {
            lane.send_less();
            let opened = RelayLane { lease: lane.lease.clone(), epoch: 9, next_sequence: 7 };
            lane = Lane::new(opened, Some(&lane));
            lane.read(rows(&lane), true);
            bursts.push(lane.burst());
        }
        assert_eq!(bursts, [86, 21, 5, 1, 1, 1]);

        lane.sent_next();
        assert_eq!(lane.burst(), 0, "the next one waits for the answer");
        lane.acks.deliver_next();
        assert_eq!(lane.burst(), 1);
    }

    #[test]
    fn a_stalled_lane_sends_nothing_and_leaves_at_once() {
        let mut lane = lane();
        lane.read(vec![row(7)], true);
        assert!(lane.stall());
        assert!(!lane.stall(), "it is reported once");
        assert_eq!((lane.burst(), lane.sends()), (0, false));
        let (done, _left) = oneshot::channel();
        assert!(lane.drain(done, later()).is_some());
    }

    #[test]
    fn a_draining_lane_leaves_when_all_is_sent_and_its_cursor_written() {
        let mut lane = lane();
        let (done, _left) = oneshot::channel();
        assert!(lane.drain(done, later()).is_none());
        assert_eq!(lane.wants_rows(LARGEST_SHARE), Some(7), "the table is read a last time");
        lane.read(vec![row(7)], true);
        assert!(!lane.has_left(Instant::now()));
        lane.sent_next();
        assert!(!lane.has_left(Instant::now()), "it is not acked");
        lane.written = 8;
        assert!(lane.has_left(Instant::now()));
    }

    #[test]
    fn a_draining_lane_leaves_when_time_is_up_or_a_record_fails() {
        for fails in [false, true] {
            let mut lane = lane();
            let (done, mut left) = oneshot::channel();
            let until = if fails { later() } else { Instant::now() };
            assert!(lane.drain(done, until).is_none());
            assert_eq!(lane.stall() && fails, fails);
            assert!(lane.has_left(Instant::now()));
            lane.left();
            assert!(left.try_recv().is_ok(), "who waits is told");
        }
    }

    #[test]
    fn a_lane_holds_its_share_of_bytes_and_reads_the_rest_later() {
        let mut lane = lane();
        let large = |sequence| OutboxEvent { payload: vec![0; 300_000], ..row(sequence) };
        lane.read(vec![large(7), large(8)], false);
        assert_eq!(lane.wants_rows(LEAST_SHARE), None);
        lane.look_in_table();
        lane.take(large(9), LEAST_SHARE);
        assert_eq!(lane.next_row(), 9, "it is left to the table");
        lane.sent_next();
        lane.sent_next();
        assert_eq!(lane.wants_rows(LEAST_SHARE), Some(9));

        assert_eq!((share(0), share(12), share(1_000)), (LARGEST_SHARE, 2_796_202, LEAST_SHARE));
    }
}
