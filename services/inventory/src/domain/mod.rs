//! What the inventory service is: it takes the stock for a paid order once, or says that it will not, and puts it back once.

mod reactions;
mod reservation;
mod stock;
#[cfg(test)]
mod tests;

use contracts::inventory::InventoryEvent;
use contracts::{Line, OrderId, ReceiptId, Sku};
use reel::model::{Ask, Impossible, Rows, Service, Timestamp};

pub use reactions::InventoryInput;
pub use reservation::Reservation;
pub use stock::{InventoryCommand, InventoryRejection, Receipt, Stock};

/// The inventory service.
#[derive(Debug)]
pub struct InventoryService;

/// What the inventory service remembers.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// What it said to each order.
    pub reservations: Rows<OrderId, Reservation>,
    /// What there is of each product. Shared by all orders: events only add to it.
    pub stock: Rows<Sku, Stock>,
    /// What came in.
    pub receipts: Rows<ReceiptId, Receipt>,
}

reel::working_set!(Inventory { reservations, stock, receipts });

impl Service for InventoryService {
    const NAME: &'static str = "inventory";
    type State = Inventory;
    type Command = InventoryCommand;
    type Answer = Option<Receipt>;
    type Rejection = InventoryRejection;
    type Input = InventoryInput;
    type Event = InventoryEvent;

    fn needs(ask: Ask<'_, Self>, state: &mut Inventory) {
        match ask {
            Ask::Command(InventoryCommand::ReceiveStock { receipt_id, sku, .. }) => state.need_receipt(*receipt_id, sku),
            Ask::Input(InventoryInput::PaymentCompleted(e)) => state.need_reservation(e.order_id, &e.lines),
            Ask::Input(InventoryInput::OrderCancelled(e)) => state.need_reservation(e.order_id, &[]),
            Ask::Event(InventoryEvent::InventoryUpdated(e)) => state.need_reservation(e.order_id, &e.lines),
            Ask::Event(InventoryEvent::InventoryFailed(e)) => state.need_reservation(e.order_id, &[]),
            Ask::Event(InventoryEvent::InventoryRestored(e)) => state.need_reservation(e.order_id, &e.lines),
            Ask::Event(InventoryEvent::StockReceived(e)) => state.need_receipt(e.receipt_id, &e.sku),
        }
    }

    fn decide(state: &Inventory, command: &InventoryCommand, _now: Timestamp) -> Result<Option<InventoryEvent>, InventoryRejection> {
        stock::decide(state, command)
    }

    fn react(state: &Inventory, input: &InventoryInput, _now: Timestamp) -> Result<Option<InventoryEvent>, Impossible> {
        Ok(reactions::react(state, input))
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

    /// The products are those of `lines`, and those that were taken.
    fn need_reservation(&mut self, order_id: OrderId, lines: &[Line]) {
        self.reservations.need(&order_id);
        let taken = self.reservations.peek(&order_id).map_or(&[][..], Reservation::taken);
        for line in lines.iter().chain(taken) {
            self.stock.need(&line.sku);
        }
    }
}
