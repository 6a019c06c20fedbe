//! The items of a lane that wait for the step.

use std::collections::VecDeque;

use super::work::WorkItem;
use crate::model::Service;

/// A queue that knows how much memory its items take.
pub(super) struct Queue<S: Service> {
    items: VecDeque<WorkItem<S>>,
    bytes: usize,
}

/// A number of items, and about how many bytes of memory they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Amount {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Amount {
    /// Whether either exceeds its limit.
    pub(super) fn exceeds(self, limit: Self) -> bool {
        self.items > limit.items || self.bytes > limit.bytes
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |Self { items, bytes }, other| Self {
            items: items + other.items,
            bytes: bytes + other.bytes,
        })
    }
}

impl<S: Service> Queue<S> {
    pub(super) fn new() -> Self {
        Self { items: VecDeque::new(), bytes: 0 }
    }

    pub(super) fn amount(&self) -> Amount {
        Amount { items: self.items.len(), bytes: self.bytes }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WorkItem<S>> {
        self.items.iter()
    }

    pub(super) fn push_back(&mut self, item: WorkItem<S>) {
        self.bytes += item.size();
        self.items.push_back(item);
    }

    pub(super) fn push_front(&mut self, item: WorkItem<S>) {
        self.bytes += item.size();
        self.items.push_front(item);
    }

    /// The last item. Only a skip may be changed, which takes no memory of its own.
    pub(super) fn back_mut(&mut self) -> Option<&mut WorkItem<S>> {
        self.items.back_mut()
    }

    /// Keeps the items that fit.
    pub(super) fn retain(&mut self, keep: impl FnMut(&WorkItem<S>) -> bool) {
        self.items.retain(keep);
        self.bytes = self.items.iter().map(WorkItem::size).sum();
    }

    /// Takes items from the front until `room` is used up: the last one may exceed its bytes.
    pub(super) fn take(&mut self, room: &mut Amount, into: &mut Vec<WorkItem<S>>) {
        while room.items > 0
            && room.bytes > 0
            && let Some(item) = self.items.pop_front()
        {
            let size = item.size();
            self.bytes -= size;
            room.items -= 1;
            room.bytes = room.bytes.saturating_sub(size);
            into.push(item);
        }
    }
}
