//! The lanes in the step loop, and the consumer that reads their inputs.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::inputs::{Flow, HandledTypes, LaneInputs, waiting_limit};
use super::queue::Amount;
use super::work::{Moves, WorkItem};
use crate::kafka::{Delivered, InputConsumer};
use crate::lane::{Lease, OpenLane};
use crate::log::Position;
use crate::model::{Partition, Partitions, Service};

/// The lanes that this replica's step works on. Each is here from `Join` until it leaves or is
/// fenced, whatever the supervisor calls its state.
pub(super) struct LaneSet<S: Service> {
    lanes: HashMap<Partition, LaneInputs<S>>,
    consumer: InputConsumer,
    partitions: Partitions,
    handled: HandledTypes,
    waiting_limit: Amount,
}

impl<S: Service> LaneSet<S> {
    pub(super) fn new(
        consumer: InputConsumer,
        partitions: Partitions,
        handled: HandledTypes,
    ) -> Self {
        let waiting_limit = waiting_limit(partitions);
        Self { lanes: HashMap::new(), consumer, partitions, handled, waiting_limit }
    }

    pub(super) fn get(&self, partition: Partition) -> Option<&LaneInputs<S>> {
        self.lanes.get(&partition)
    }

    pub(super) fn get_mut(&mut self, partition: Partition) -> Option<&mut LaneInputs<S>> {
        self.lanes.get_mut(&partition)
    }

    pub(super) fn count(&self) -> usize {
        self.lanes.len()
    }

    /// Whether the lane is in the loop under this token. A message about an earlier acquisition of
    /// the lane carries another token, and must not touch this one.
    pub(super) fn holds(&self, partition: Partition, token: Uuid) -> bool {
        self.get(partition).is_some_and(|lane| lane.lease.token == token)
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.lanes.values().map(|lane| lane.lease.clone()).collect()
    }

    /// Adds a lane, and consumes its inputs from the positions that the database has.
    pub(super) fn join(&mut self, lane: OpenLane) {
        let partition = lane.lease.partition;
        let offsets = lane.inputs.iter().map(|input| (input.topic.clone(), input.position));
        let offsets = offsets.map(|(topic, position)| (topic, position.next_offset)).collect();
        let assignment = self.consumer.assign(partition, offsets);
        self.lanes.insert(partition, LaneInputs::new(lane, assignment));
    }

    /// Stops consuming a lane's inputs. The lane stays in the loop with what it has queued.
    pub(super) fn unassign(&self, partition: Partition) {
        self.consumer.unassign(partition);
    }

    /// Takes a lane out of the loop. What it had queued is dropped: its positions were not moved,
    /// so the next owner reads it again.
    pub(super) fn remove(&mut self, partition: Partition) -> Option<Lease> {
        self.consumer.unassign(partition);
        self.lanes.remove(&partition).map(|lane| lane.lease)
    }

    /// Takes out of the loop every lane that is not among `ours`.
    pub(super) fn remove_others(&mut self, ours: &HashSet<Partition>) -> Vec<Lease> {
        let lost = self.lanes.extract_if(|partition, _| !ours.contains(partition));
        lost.map(|(_, lane)| lane.lease).collect()
    }

    /// Queues records for their lanes. A record is dropped if it was read for another assignment,
    /// or if its lane has overflowed: either way somebody reads it again. Takes the lanes out of
    /// the loop in which a record proves that others are lost, and returns them with the reasons.
    pub(super) fn accept(&mut self, records: Vec<Delivered>) -> Vec<(Lease, String)> {
        let mut broken = Vec::new();
        for Delivered { assignment, record } in records {
            let lane = self.lanes.get_mut(&record.partition);
            let lane =
                lane.filter(|lane| lane.assignment == assignment && lane.flow().is_assigned());
            let Some(lane) = lane else { continue };
            let partition = record.partition;
            if let Err(reason) = lane.accept(record, self.partitions, &self.handled) {
                broken.extend(self.remove(partition).map(|lease| (lease, reason)));
                continue;
            }

            // Too many wait for a locked row. From the next record on they are dropped here, and
            // read again once the queue is empty.
            lane.update_flow(self.waiting_limit);
            if !lane.flow().is_assigned() {
                self.consumer.unassign(partition);
            }
        }
        broken
    }

    /// Fills the batch from the lanes that have something to do, until `room` is used up. With
    /// `flush`, also from those in which only positions have moved.
    pub(super) fn take(
        &mut self,
        mut room: Amount,
        flush: bool,
        now: Instant,
        batch: &mut Vec<WorkItem<S>>,
    ) {
        for (partition, lane) in &mut self.lanes {
            lane.begin_catch_up(now);
            if lane.flow().is_ready(now) && (flush || lane.has_effects()) {
                lane.take(&mut room, batch);
            }

            // An overflowed lane is read on, from behind what it had queued, once all of that has
            // been taken. If the batch fails, the items come back to the front of the queue.
            if lane.flow().is_assigned() {
                continue;
            }
            lane.update_flow(self.waiting_limit);
            if lane.flow().is_assigned() {
                lane.assignment = self.consumer.assign(*partition, lane.next_offsets().collect());
            }
        }
    }

    /// Puts items back at the front of their lanes, in their order. Items of a lane that has left
    /// are dropped: its next owner reads them again.
    pub(super) fn put_back(&mut self, items: impl IntoIterator<Item = WorkItem<S>>) {
        let mut by_lane: HashMap<Partition, Vec<WorkItem<S>>> = HashMap::new();
        for item in items {
            if let Some(lane) = item.lane() {
                by_lane.entry(lane).or_default().push(item);
            }
        }
        for (partition, items) in by_lane {
            if let Some(lane) = self.get_mut(partition) {
                lane.put_back(items);
            }
        }
    }

    /// Records what a commit has put into the database: positions and parked keys. A lane that
    /// moved no longer waits for a row.
    pub(super) fn committed(&mut self, moved: Moves, parked: Vec<(Partition, String)>) {
        for ((partition, topic), position) in moved {
            if let Some(lane) = self.get_mut(partition) {
                lane.committed(&topic, position);
                lane.set_flow(Flow::committed);
            }
        }
        self.park(parked);
    }

    pub(super) fn park(&mut self, parked: Vec<(Partition, String)>) {
        for (partition, key) in parked {
            if let Some(lane) = self.get_mut(partition) {
                lane.parked.insert(key);
            }
        }
    }

    /// Resumes an input at the position that was reloaded after an unknown commit.
    pub(super) fn resume(&mut self, partition: Partition, topic: &str, stored: Position) {
        if let Some(lane) = self.get_mut(partition) {
            lane.resume(topic, stored);
        }
    }

    /// What is queued in the lanes that do not wait for a locked row. Those that do have limits of
    /// their own, so that they keep nothing from the others.
    pub(super) fn queued(&self) -> Amount {
        let now = Instant::now();
        let running = self.lanes.values().filter(|lane| lane.flow().is_ready(now));
        running.map(LaneInputs::queued).sum()
    }

    /// The lanes whose deadlines may fire (law 9), which wait no longer than `limit`.
    pub(super) fn caught_up(&self, limit: Duration) -> Vec<i32> {
        let lanes = self.lanes.iter().filter(|(_, lane)| lane.has_caught_up(limit));
        lanes.map(|(partition, _)| partition.0).collect()
    }

    /// Commits the stored offsets to Kafka, as a hint for lag tools. Nothing ever starts from them.
    pub(super) fn hint(&self) {
        let lanes = self.lanes.iter();
        let offsets = lanes.flat_map(|(partition, lane)| {
            lane.stored_offsets().map(|(topic, offset)| (topic, *partition, offset))
        });
        self.consumer.hint(offsets.collect());
    }

    /// The inputs that are blocked on a gap, as `topic/partition`.
    pub(super) fn blocked(&self) -> Vec<String> {
        let lanes = self.lanes.iter();
        let blocked = lanes.flat_map(|(partition, lane)| {
            lane.blocked().map(move |topic| format!("{topic}/{partition}"))
        });
        blocked.collect()
    }
}
