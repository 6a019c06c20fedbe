//! The inputs of one lane in the step loop: how far each was read, and what is queued.
//! docs/states.md has the states of [`Flow`] and [`CatchUp`] as diagrams.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::{Amount, Queue};
use super::work::WorkItem;
use crate::kafka::Assignment;
use crate::kafka::continuity::epoch_missed;
use crate::lane::{Lease, OpenInput, OpenLane};
use crate::log::{InputCursor, Position, Record, Verdict};
use crate::model::{Message, Partition, Partitions, Service};

/// Most that a lane keeps in memory while it waits for a locked row, if all lanes wait: a part of
/// these. What comes after it is read from Kafka again later.
const WAITING: Amount = Amount { items: 24_000, bytes: 16 * 1024 * 1024 };
/// The most and the least that one lane keeps.
const WAITING_ITEMS: (usize, usize) = (2_000, 100);

/// The event types that a service handles, by topic as the broker knows it.
pub(super) type HandledTypes = HashMap<String, HashSet<&'static str>>;

/// A lane in the step loop.
pub(super) struct LaneInputs<S: Service> {
    pub(super) lease: Lease,
    /// The assignment whose records the lane takes.
    pub(super) assignment: Assignment,
    /// The parked keys of the lane. Only its owner parks keys, so this may list a key too many, and
    /// never one too few; the step asks the database before it acts on it.
    pub(super) parked: HashSet<String>,
    inputs: BTreeMap<Arc<str>, Input>,
    queue: Queue<S>,
    catch_up: CatchUp,
    flow: Flow,
}

/// One input of a lane.
struct Input {
    /// The position that the database has: what the next transaction moves it from.
    stored: Position,
    /// What was read into the queue. It runs ahead of `stored`.
    cursor: InputCursor,
    /// The offset behind the last record when the lane was opened.
    end_at_opening: i64,
}

/// The wait of deadlines for what was in the inputs when the lane was opened: an outage must not
/// expire orders whose answer is waiting in a topic. [`LaneInputs::has_caught_up`] ends
/// the wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatchUp {
    /// The step has not run since the lane joined, or since an unknown commit: the wait has not
    /// begun.
    NotBegun,
    /// The step has run since then, so the wait is limited by the setting `CATCH_UP`.
    Since(Instant),
}

/// Whether records flow from the consumer into the queue, and from the queue to the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// Both.
    Open,
    /// Another transaction has locked a row that the lane needs. Until then, records are queued and
    /// the step takes none.
    WaitingForRow { until: Instant },
    /// The queue outgrew its [limit](waiting_limit) while the lane waited, so the consumer is unassigned
    /// until the queue is empty. With `until`, the step still waits for the row.
    Overflowed { until: Option<Instant> },
}

impl Flow {
    /// A row that the lane needs was found locked.
    pub(super) fn wait_for_row(self, until: Instant) -> Self {
        match self {
            Self::Open | Self::WaitingForRow { .. } => Self::WaitingForRow { until },
            Self::Overflowed { .. } => Self::Overflowed { until: Some(until) },
        }
    }

    /// A batch with items of the lane was committed, so its row is free again.
    pub(super) fn committed(self) -> Self {
        match self {
            Self::Open | Self::WaitingForRow { .. } => Self::Open,
            Self::Overflowed { .. } => Self::Overflowed { until: None },
        }
    }

    /// The queue holds so much now: a waiting lane may overflow, an overflowed one may be empty.
    pub(super) fn queue_is(self, queued: Amount, limit: Amount) -> Self {
        match self {
            Self::WaitingForRow { until } if queued.exceeds(limit) => {
                Self::Overflowed { until: Some(until) }
            }
            Self::Overflowed { until } if queued.items == 0 => match until {
                Some(until) => Self::WaitingForRow { until },
                None => Self::Open,
            },
            flow => flow,
        }
    }

    /// Whether the step may take from the queue. After `until` it tries the row again.
    pub(super) fn is_ready(self, now: Instant) -> bool {
        match self {
            Self::Open | Self::Overflowed { until: None } => true,
            Self::WaitingForRow { until } | Self::Overflowed { until: Some(until) } => until <= now,
        }
    }

    /// Whether the consumer reads the lane's inputs.
    pub(super) fn is_assigned(self) -> bool {
        !matches!(self, Self::Overflowed { .. })
    }
}

impl<S: Service> LaneInputs<S> {
    pub(super) fn new(lane: OpenLane, assignment: Assignment) -> Self {
        let inputs = lane.inputs.into_iter().map(|OpenInput { topic, position, end }| {
            let cursor = InputCursor::new(position);
            (topic, Input { stored: position, cursor, end_at_opening: end })
        });
        Self {
            lease: lane.lease,
            assignment,
            parked: lane.parked,
            inputs: inputs.collect(),
            queue: Queue::new(),
            catch_up: CatchUp::NotBegun,
            flow: Flow::Open,
        }
    }

    /// The step runs: from now on the wait of the lane's deadlines is limited.
    pub(super) fn begin_catch_up(&mut self, now: Instant) {
        if self.catch_up == CatchUp::NotBegun {
            self.catch_up = CatchUp::Since(now);
        }
    }

    /// Classifies a record by the consumer's rule (law 3) and queues the item that it leads to.
    ///
    /// # Errors
    /// If it proves that records are lost, with the reason: the lane must not go on.
    pub(super) fn accept(
        &mut self,
        record: Record,
        partitions: Partitions,
        handled: &HandledTypes,
    ) -> Result<(), String> {
        let Some(input) = self.inputs.get_mut(&record.topic) else { return Ok(()) };

        // No verdict: the record was delivered before.
        let Some(verdict) = input.cursor.read(&record) else { return Ok(()) };

        // While the input is blocked on a gap, `after` is the position that the database has
        // already. A dead letter still moves it there, because only the move carries the fence.
        let (after, blocked) = (input.cursor.committable(), input.cursor.is_blocked());
        match verdict {
            Verdict::Apply => self.queue(record, after, partitions, handled),
            Verdict::Malformed(reason) => {
                self.queue.push_back(WorkItem::Malformed { record, reason, after });
            }
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale if !blocked => {
                self.skip(record.topic, record.partition, after);
            }
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } => {}
            Verdict::EpochMissed { epoch } => return Err(epoch_missed(&record, epoch)),
        }
        Ok(())
    }

    /// Queues an event whose turn it is. Its sequence is used up whatever becomes of it.
    fn queue(
        &mut self,
        record: Record,
        after: Position,
        partitions: Partitions,
        handled: &HandledTypes,
    ) {
        let Some(key) = record.valid_key(partitions).map(str::to_owned) else {
            let reason = "its key is not text, or does not hash to its partition".to_owned();
            self.queue.push_back(WorkItem::Malformed { record, reason, after });
            return;
        };

        let event_type = record.event_type();
        if !handled.get(record.topic.as_ref()).is_some_and(|types| types.contains(event_type)) {
            self.skip(record.topic, record.partition, after);
            return;
        }

        let payload = record.payload.as_deref().unwrap_or_default();
        let decoded = S::Input::decode(event_type, payload).map_err(|error| with_causes(&error));
        self.queue.push_back(WorkItem::Input { record, key, decoded, after });
    }

    /// Queues a record without effect. It joins the last item if that is a skip of the same input,
    /// so that a long run of them costs one item.
    fn skip(&mut self, topic: Arc<str>, partition: Partition, after: Position) {
        if let Some(WorkItem::Skip { topic: before, after: moved, .. }) = self.queue.back_mut()
            && *before == topic
        {
            *moved = after;
            return;
        }
        self.queue.push_back(WorkItem::Skip { topic, partition, after });
    }

    pub(super) fn flow(&self) -> Flow {
        self.flow
    }

    /// Applies a transition of [`Flow`].
    pub(super) fn set_flow(&mut self, change: impl FnOnce(Flow) -> Flow) {
        self.flow = change(self.flow);
    }

    /// Reports to the flow how much is queued, of the most that a waiting lane may hold.
    pub(super) fn update_flow(&mut self, limit: Amount) {
        self.flow = self.flow.queue_is(self.queue.amount(), limit);
    }

    /// The position of an input in the database; `None` if the lane has no such input.
    pub(super) fn stored(&self, topic: &str) -> Option<&Position> {
        self.inputs.get(topic).map(|input| &input.stored)
    }

    /// Records the position that a commit has put into the database.
    pub(super) fn committed(&mut self, topic: &str, position: Position) {
        if let Some(input) = self.inputs.get_mut(topic) {
            input.stored = position;
        }
    }

    /// Resumes an input after an unknown commit: drops what `stored`, reloaded from the database,
    /// shows as done. What was read ahead stays in the queue, so the cursor stays too.
    pub(super) fn resume(&mut self, topic: &str, stored: Position) {
        self.committed(topic, stored);
        self.catch_up = CatchUp::NotBegun;
        self.queue.retain(|item| !item.is_done_at(topic, &stored));
    }

    /// Takes items from the front of the queue until `room` is used up.
    pub(super) fn take(&mut self, room: &mut Amount, into: &mut Vec<WorkItem<S>>) {
        self.queue.take(room, into);
    }

    /// Puts items that were taken back at the front of the queue, in their order.
    pub(super) fn put_back(&mut self, items: Vec<WorkItem<S>>) {
        for item in items.into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    pub(super) fn queued(&self) -> Amount {
        self.queue.amount()
    }

    pub(super) fn has_effects(&self) -> bool {
        self.queue.iter().any(WorkItem::is_effective)
    }

    /// Whether deadlines may fire (law 9): what was in the inputs when the lane was opened has been
    /// handled, or the wait has lasted for longer than `limit`. Blocked inputs do not count.
    pub(super) fn has_caught_up(&self, limit: Duration) -> bool {
        let waited_too_long = match self.catch_up {
            CatchUp::NotBegun => false,
            CatchUp::Since(since) => since.elapsed() > limit,
        };
        waited_too_long || self.has_handled_all()
    }

    /// Whether what was in the inputs when the lane was opened has been handled, whatever has come
    /// since.
    fn has_handled_all(&self) -> bool {
        let is_queued = self.has_effects();
        self.inputs.values().all(|input| {
            let end = input.end_at_opening;
            let has_read = input.cursor.is_blocked() || input.cursor.next_offset() >= end;
            input.stored.next_offset >= end || (has_read && !is_queued)
        })
    }

    /// The topics of the inputs that are blocked on a gap.
    pub(super) fn blocked(&self) -> impl Iterator<Item = &Arc<str>> {
        let inputs = self.inputs.iter().filter(|(_, input)| input.cursor.is_blocked());
        inputs.map(|(topic, _)| topic)
    }

    /// The offset from which each input is read on, behind what is queued.
    pub(super) fn next_offsets(&self) -> impl Iterator<Item = (Arc<str>, i64)> {
        self.inputs.iter().map(|(topic, input)| (topic.clone(), input.cursor.next_offset()))
    }

    /// The next offset of each input in the database.
    pub(super) fn stored_offsets(&self) -> impl Iterator<Item = (Arc<str>, i64)> {
        self.inputs.iter().map(|(topic, input)| (topic.clone(), input.stored.next_offset))
    }
}

/// The most that a lane keeps in memory while it waits for a locked row, if the service has so many
/// lanes.
pub(super) fn waiting_limit(partitions: Partitions) -> Amount {
    let count = usize::try_from(partitions.count()).unwrap_or(1);
    let (most, least) = WAITING_ITEMS;
    Amount { items: (WAITING.items / count).clamp(least, most), bytes: WAITING.bytes / count }
}

/// The event types that a service handles; `topic` maps a name to the broker's name of the topic.
pub(super) fn handled_types<S: Service>(topic: impl Fn(&str) -> String) -> HandledTypes {
    let mut handled = HandledTypes::new();
    for known in S::Input::types() {
        handled.entry(topic(known.topic)).or_default().insert(known.name);
    }
    handled
}

/// An error with its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::DatabaseEpoch;
    use crate::tests::till::Till;
    use crate::wire::Envelope;

    const LIMIT: Amount = Amount { items: 10, bytes: 1_000 };
    const FULL: Amount = Amount { items: 11, bytes: 11 };

    fn items(items: usize) -> Amount {
        Amount { items, bytes: 0 }
    }
    const TOPIC: &str = "paid";

    /// A lane that was opened when its input had this end.
    fn opened(end: i64) -> LaneInputs<Till> {
        let position = Position { epoch: 0, ..Position::START };
        let input = OpenInput { topic: TOPIC.into(), position, end };
        let lease = Lease::new(Partition(0), &DatabaseEpoch::new("epoch".to_owned()));
        let lane = OpenLane {
            lease,
            epoch: 0,
            next_sequence: 0,
            inputs: vec![input],
            parked: HashSet::new(),
        };
        LaneInputs::new(lane, Assignment::nth(0))
    }

    /// The record with this sequence and offset; what it holds cannot be decoded.
    fn record(sequence: i64) -> Record {
        let envelope = Envelope {
            event_type: "Paid".to_owned(),
            sequence: Some(sequence),
            epoch: Some(0),
            ..Envelope::default()
        };
        Record {
            topic: TOPIC.into(),
            partition: Partition(0),
            offset: sequence,
            key: Some(b"a".to_vec()),
            payload: None,
            envelope: Ok(envelope),
        }
    }

    #[test]
    fn deadlines_wait_for_what_was_there_at_the_opening_and_not_for_what_came_since() {
        let partitions = Partitions::new(1).expect("a count");
        let handled = HandledTypes::from([(TOPIC.to_owned(), HashSet::from(["Paid"]))]);
        let limit = Duration::from_mins(5);
        let mut lane = opened(2);
        lane.begin_catch_up(Instant::now());
        for sequence in 0..3 {
            lane.accept(record(sequence), partitions, &handled).expect("nothing is lost");
        }
        assert!(!lane.has_caught_up(limit), "two records are queued that were there");

        let mut batch = Vec::new();
        lane.take(&mut Amount { items: 2, bytes: 100_000 }, &mut batch);
        let (_, after) = batch[1].moves().expect("an input");
        assert!(!lane.has_caught_up(limit), "they are in a batch");
        lane.committed(TOPIC, after);
        assert!(lane.has_caught_up(limit), "the third came later");
    }

    #[test]
    fn a_foreign_record_gets_its_dead_letter_although_the_input_is_blocked() {
        let partitions = Partitions::new(1).expect("a count");
        let handled = HandledTypes::new();
        let mut lane = opened(0);
        let foreign = Record { envelope: Ok(Envelope::default()), ..record(2) };
        for read in [record(1), foreign] {
            lane.accept(read, partitions, &handled).expect("nothing is lost");
        }
        assert_eq!(lane.blocked().count(), 1, "0 is missing");

        let mut batch = Vec::new();
        lane.take(&mut Amount { items: 2, bytes: 100_000 }, &mut batch);
        let [WorkItem::Malformed { after, .. }] = &batch[..] else {
            panic!("only its dead letter")
        };
        assert_eq!(after.next_offset, 0, "the position stays before the gap");
    }

    #[test]
    fn a_record_of_an_epoch_that_was_never_opened_is_reported_and_not_queued() {
        let partitions = Partitions::new(1).expect("a count");
        let mut lane = opened(0);
        let later = Envelope { epoch: Some(4), ..record(0).envelope.expect("parsed") };
        let later = Record { offset: 7, envelope: Ok(later), ..record(0) };
        let reason = lane.accept(later, partitions, &HandledTypes::new()).expect_err("loss");
        assert!(reason.contains("epoch 4 at offset 7"), "{reason}");
        assert_eq!(lane.queued(), Amount::default());
    }

    #[test]
    fn deadlines_wait_no_longer_than_the_limit() {
        let limit = Duration::from_mins(5);
        let mut lane = opened(2);
        assert!(!lane.has_caught_up(limit), "the wait has not begun");
        lane.begin_catch_up(Instant::now() - Duration::from_secs(60));
        assert!(!lane.has_caught_up(limit));
        assert!(lane.has_caught_up(Duration::from_secs(59)));
    }

    #[test]
    fn a_lane_that_waits_for_a_row_overflows_and_is_read_again_when_its_queue_is_empty() {
        let until = Instant::now() + Duration::from_secs(60);
        let waiting = Flow::Open.wait_for_row(until);
        assert_eq!(waiting.queue_is(LIMIT, LIMIT), waiting);
        let overflowed = waiting.queue_is(FULL, LIMIT);
        assert_eq!(waiting.queue_is(Amount { items: 1, bytes: 1_001 }, LIMIT), overflowed);
        assert!(waiting.is_assigned() && !overflowed.is_assigned());
        assert!(!overflowed.is_ready(Instant::now()) && overflowed.is_ready(until));

        let draining = overflowed.committed();
        assert!(draining.is_ready(Instant::now()) && !draining.is_assigned());
        assert_eq!(draining.queue_is(items(1), LIMIT), draining);
        assert_eq!(draining.queue_is(items(0), LIMIT), Flow::Open);
    }

    #[test]
    fn an_overflowed_lane_that_meets_another_locked_row_waits_for_it_behind_an_empty_queue_too() {
        let until = Instant::now();
        let overflowed = Flow::Open.wait_for_row(until).queue_is(FULL, LIMIT).committed();
        let again = overflowed.wait_for_row(until);
        assert_eq!(again.queue_is(items(0), LIMIT), Flow::WaitingForRow { until });
    }

    #[test]
    fn the_lanes_that_wait_share_what_they_may_keep() {
        let limit = |count| waiting_limit(Partitions::new(count).expect("a count"));
        assert_eq!(limit(4).items, 2_000);
        assert_eq!(limit(12), Amount { items: 2_000, bytes: WAITING.bytes / 12 });
        assert_eq!(limit(96).items, 250);
        assert_eq!(limit(1_000).items, 100);
    }

    #[test]
    fn a_lane_that_waits_for_nothing_never_overflows() {
        assert_eq!(Flow::Open.queue_is(FULL, LIMIT), Flow::Open);
        assert_eq!(Flow::Open.wait_for_row(Instant::now()).committed(), Flow::Open);
    }
}
