//! What the inventory service decides: it takes the stock for a paid order once or says that it
//! will not, and restores it at most once.

mod reactions;
mod reservation;
mod stock;
#[cfg(test)]
mod tests;

use contracts::inventory::InventoryEvent;
use contracts::{Line, OrderId, ReceiptId, Sku};
use reel_core::model::{Impossible, Rows, Service, Timestamp, Trigger};

pub use reactions::InventoryInput;
pub use reservation::Reservation;
pub use stock::{InventoryCommand, InventoryRejection, Receipt, Stock};

/// The inventory service.
#[derive(Debug)]
pub struct InventoryService;

/// What the inventory service remembers.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The answer to each order.
    pub reservations: Rows<OrderId, Reservation>,
    /// The stock of each product. All orders share it, so events only add to it.
    pub stock: Rows<Sku, Stock>,
    /// All receipts of goods.
    pub receipts: Rows<ReceiptId, Receipt>,
}

reel_core::working_set!(Inventory { reservations, stock, receipts });

impl Service for InventoryService {
    const NAME: &'static str = "inventory";
    type State = Inventory;
    type Command = InventoryCommand;
    type Answer = Option<Receipt>;
    type Rejection = InventoryRejection;
    type Input = InventoryInput;
    type Event = InventoryEvent;

    fn read_set(trigger: Trigger<'_, Self>, state: &mut Inventory) {
        match trigger {
            Trigger::Command(InventoryCommand::ReceiveStock { receipt_id, sku, .. }) => {
                state.need_receipt(*receipt_id, sku);
            }
            Trigger::Input(InventoryInput::PaymentCompleted(e)) => {
                state.need_reservation(e.order_id, &e.lines);
            }
            Trigger::Input(InventoryInput::OrderCancelled(e)) => {
                state.need_reservation(e.order_id, &[]);
            }
            Trigger::Event(InventoryEvent::InventoryUpdated(e)) => {
                state.need_reservation(e.order_id, &e.lines);
            }
            Trigger::Event(InventoryEvent::InventoryFailed(e)) => {
                state.need_reservation(e.order_id, &[]);
            }
            Trigger::Event(InventoryEvent::InventoryRestored(e)) => {
                state.need_reservation(e.order_id, &e.lines);
            }
            Trigger::Event(InventoryEvent::StockReceived(e)) => {
                state.need_receipt(e.receipt_id, &e.sku);
            }
        }
    }

    fn decide(
        state: &Inventory,
        command: &InventoryCommand,
        _now: Timestamp,
    ) -> Result<Option<InventoryEvent>, InventoryRejection> {
        stock::decide(state, command)
    }

    fn react(
        state: &Inventory,
        input: &InventoryInput,
        _now: Timestamp,
    ) -> Result<Option<InventoryEvent>, Impossible> {
        Ok(reactions::react(state, input))
    }

    fn react_expired(
        state: &Inventory,
        input: &InventoryInput,
        _now: Timestamp,
    ) -> Result<Option<InventoryEvent>, Impossible> {
        Ok(reactions::react_expired(state, input))
    }

    fn evolve(state: &mut Inventory, event: &InventoryEvent) {
        reservation::evolve(state, event);
        stock::evolve(state, event);
    }

    fn answer(state: &Inventory, command: &InventoryCommand) -> Option<Receipt> {
        let InventoryCommand::ReceiveStock { receipt_id, .. } = command;
        state.receipts.get(receipt_id).cloned()
    }
}

impl Inventory {
    fn need_receipt(&mut self, receipt_id: ReceiptId, sku: &Sku) {
        self.stock.need(sku);
        self.receipts.need(&receipt_id);
    }

    /// The products are those of `lines` and those that the order holds.
    fn need_reservation(&mut self, order_id: OrderId, lines: &[Line]) {
        self.reservations.need(&order_id);
        let taken = self.reservations.peek(&order_id).map_or(&[][..], Reservation::taken);
        for line in lines.iter().chain(taken) {
            self.stock.need(&line.sku);
        }
    }
}
