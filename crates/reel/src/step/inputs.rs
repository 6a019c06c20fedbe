//! The inputs of the lanes in the loop: where each stands, and what was read and waits.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::Work;
use crate::kafka::Record;
use crate::lanes::{Grant, OpenLane, Position, Reading, Verdict};
use crate::model::{Message, Partition, Partitions, Service};

/// How long a lane's deadlines wait for its inputs to be read up to where they were at opening.
const CATCH_UP_AT_MOST: Duration = Duration::from_secs(5);

/// A lane in the loop.
pub(super) struct LaneInputs<S: Service> {
    pub(super) grant: Grant,
    pub(super) parked: HashSet<String>,
    inputs: BTreeMap<Arc<str>, Input>,
    queue: VecDeque<Work<S>>,
    /// When the step first worked on the lane, since all lanes were open.
    begun_at: Option<Instant>,
    /// Until when the lane waits for a row that another transaction has locked.
    pub(super) waits_until: Option<Instant>,
    /// Whether so much waits that the rest is read again later.
    pub(super) overflowed: bool,
}

/// One input of a lane.
struct Input {
    /// As the database has it.
    stored: Position,
    reading: Reading,
    end_at_opening: i64,
}

impl<S: Service> LaneInputs<S> {
    pub(super) fn new(lane: OpenLane) -> Self {
        let inputs = lane.positions.into_iter().zip(lane.input_ends).map(|((topic, position), end_at_opening)| {
            (topic, Input { stored: position, reading: Reading::new(position), end_at_opening })
        });
        let (inputs, queue) = (inputs.collect(), VecDeque::new());
        Self { grant: lane.grant, parked: lane.parked, inputs, queue, begun_at: None, waits_until: None, overflowed: false }
    }

    /// The step works on the lane: from now on its deadlines wait for its inputs, for a while.
    pub(super) fn begin(&mut self, now: Instant) {
        self.begun_at.get_or_insert(now);
    }

    /// Judges a record by the consumer's rule and queues what it asks for.
    pub(super) fn accept(&mut self, record: Record, partitions: Partitions, handled: &HashMap<String, HashSet<&'static str>>) {
        let Some(input) = self.inputs.get_mut(&record.topic) else { return };
        let Some(verdict) = input.reading.read(&record) else { return };
        // Where the input is held the position stays, but the write is fenced all the same.
        let (after, held) = (input.reading.sound(), input.reading.is_held());
        match verdict {
            Verdict::Apply => self.queue(record, after, partitions, handled),
            Verdict::Malformed(reason) => self.queue.push_back(Work::Malformed { record, reason, after }),
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale if !held => self.pass(record.topic, record.partition, after),
            Verdict::Opened | Verdict::Duplicate | Verdict::Stale | Verdict::Gap { .. } => {}
        }
    }

    fn queue(&mut self, record: Record, after: Position, partitions: Partitions, handled: &HashMap<String, HashSet<&'static str>>) {
        let name = record.envelope.as_ref().map(|envelope| envelope.name.as_str()).unwrap_or_default();
        let Some(key) = record.sound_key(partitions).map(str::to_owned) else {
            let reason = "its key is no text, or does not hash to its partition".to_owned();
            self.queue.push_back(Work::Malformed { record, reason, after });
            return;
        };
        if !handled.get(record.topic.as_ref()).is_some_and(|names| names.contains(name)) {
            self.pass(record.topic, record.partition, after);
            return;
        }
        let decoded = S::Input::decode(name, record.payload.as_deref().unwrap_or_default()).map_err(|error| whole(&error));
        self.queue.push_back(Work::Input { record, key, decoded, after });
    }

    /// Goes past a record of no effect, together with the one before it where that is of the same input.
    fn pass(&mut self, topic: Arc<str>, partition: Partition, after: Position) {
        if let Some(Work::Pass { topic: before, after: moved, .. }) = self.queue.back_mut()
            && *before == topic
        {
            *moved = after;
            return;
        }
        self.queue.push_back(Work::Pass { topic, partition, after });
    }

    /// The position that the database has.
    pub(super) fn stored(&self, topic: &str) -> Option<&Position> {
        self.inputs.get(topic).map(|input| &input.stored)
    }

    /// The database has this position now.
    pub(super) fn committed(&mut self, topic: &str, position: Position) {
        if let Some(input) = self.inputs.get_mut(topic) {
            input.stored = position;
        }
    }

    /// After doubt about a commit: the database has this position, and what lies before it is done.
    pub(super) fn resume(&mut self, topic: &str, stored: Position) {
        self.committed(topic, stored);
        self.begun_at = None;
        self.queue.retain(|work| match work.moves() {
            Some((_, of, after)) => of.as_ref() != topic || after.next_offset > stored.next_offset,
            None => true,
        });
    }

    /// Takes up to `limit` things that wait.
    pub(super) fn take(&mut self, limit: usize, into: &mut Vec<Work<S>>) {
        let count = limit.min(self.queue.len());
        into.extend(self.queue.drain(..count));
    }

    /// Puts back what was taken, in the order in which it was.
    pub(super) fn put_back(&mut self, works: Vec<Work<S>>) {
        for work in works.into_iter().rev() {
            self.queue.push_front(work);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn has_effects(&self) -> bool {
        self.queue.iter().any(Work::is_effective)
    }

    /// Whether deadlines may fire: what lay in the inputs at opening was handled. Held inputs do not count.
    pub(super) fn caught_up(&self) -> bool {
        let reached = |input: &Input| input.reading.is_held() || input.stored.next_offset >= input.end_at_opening;
        self.begun_at.is_some_and(|at| at.elapsed() > CATCH_UP_AT_MOST)
            || (self.queue.iter().all(|work| !work.is_effective())
                && self.inputs.values().all(|input| reached(input) || input.reading.next_offset() >= input.end_at_opening))
    }

    /// The inputs that wait for missing numbers.
    pub(super) fn held(&self) -> impl Iterator<Item = &Arc<str>> {
        self.inputs.iter().filter(|(_, input)| input.reading.is_held()).map(|(topic, _)| topic)
    }

    /// From where each input is read on, behind what is queued.
    pub(super) fn reading_from(&self) -> impl Iterator<Item = (Arc<str>, i64)> {
        self.inputs.iter().map(|(topic, input)| (topic.clone(), input.reading.next_offset()))
    }

    /// Where each input stands.
    pub(super) fn offsets(&self) -> impl Iterator<Item = (Arc<str>, i64)> {
        self.inputs.iter().map(|(topic, input)| (topic.clone(), input.stored.next_offset))
    }
}

/// An error with its causes, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
