//! One reservation: the answer to an order.

use contracts::Line;
use contracts::inventory::{InventoryEvent, InventoryFailure};

use super::Inventory;

/// The answer to an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reservation {
    /// The stock was taken.
    Taken {
        /// The lines that were taken.
        lines: Vec<Line>,
    },
    /// The stock was not taken, and will not be.
    Failed {
        /// Why not.
        reason: InventoryFailure,
    },
    /// The stock was taken and put back.
    Restored {
        /// The lines that were put back.
        lines: Vec<Line>,
    },
}

pub(super) fn evolve(state: &mut Inventory, event: &InventoryEvent) {
    match event {
        InventoryEvent::InventoryUpdated(e) => {
            state.reservations.put(e.order_id, Reservation::Taken { lines: e.lines.clone() });
        }
        InventoryEvent::InventoryFailed(e) => {
            state.reservations.put(e.order_id, Reservation::Failed { reason: e.reason });
        }
        InventoryEvent::InventoryRestored(e) => {
            state.reservations.put(e.order_id, Reservation::Restored { lines: e.lines.clone() });
        }
        InventoryEvent::StockReceived(_) => {}
    }
}

impl Reservation {
    /// The lines that the order holds now.
    #[must_use]
    pub fn taken(&self) -> &[Line] {
        match self {
            Self::Taken { lines } => lines,
            Self::Failed { .. } | Self::Restored { .. } => &[],
        }
    }

    /// The status in one word, as it is stored.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "taken",
            Self::Failed { .. } => "failed",
            Self::Restored { .. } => "restored",
        }
    }
}
