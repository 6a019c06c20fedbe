//! What the order service is: an order is open until its money and its stock are there, or one of them is not to be had.

mod order;
mod reactions;
#[cfg(test)]
mod tests;

use contracts::OrderId;
use contracts::orders::OrderEvent;
use reel::model::{Ask, Deadlines, Impossible, Rows, Service, Timestamp};

pub use order::{Order, OrderCommand, OrderRejection, PlaceOrder, Status, WantedLine};
pub use reactions::OrderInput;

/// The order service.
#[derive(Debug)]
pub struct OrderService;

/// What the order service remembers.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Every order there ever was.
    pub orders: Rows<OrderId, Order>,
}

reel::working_set!(Orders { orders });

impl Service for OrderService {
    const NAME: &'static str = "order";
    type State = Orders;
    type Command = OrderCommand;
    type Answer = Option<Order>;
    type Rejection = OrderRejection;
    type Input = OrderInput;
    type Event = OrderEvent;

    fn needs(ask: Ask<'_, Self>, state: &mut Orders) {
        state.orders.need(&match ask {
            Ask::Command(command) => command.order_id(),
            Ask::Input(input) => input.order_id(),
            Ask::Event(event) => order::order_id(event),
        });
    }

    fn decide(state: &Orders, command: &OrderCommand, now: Timestamp) -> Result<Option<OrderEvent>, OrderRejection> {
        order::decide(state.orders.get(&command.order_id()), command, now)
    }

    fn react(state: &Orders, input: &OrderInput, _now: Timestamp) -> Result<Option<OrderEvent>, Impossible> {
        reactions::react(state.orders.get(&input.order_id()), input)
    }

    fn evolve(state: &mut Orders, event: &OrderEvent) {
        order::evolve(state, event);
    }

    fn answer(state: &Orders, command: &OrderCommand) -> Option<Order> {
        let order = state.orders.get(&command.order_id())?.clone();
        match command {
            // As it was when it was placed, whatever has become of it since: a retry is answered alike.
            OrderCommand::PlaceOrder(_) => Some(Order { status: Status::Open, ..order }),
            OrderCommand::CancelOrder { .. } | OrderCommand::ExpireOrder { .. } => Some(order),
        }
    }

    fn deadlines(event: &OrderEvent) -> Deadlines<Self> {
        const SETTLE: &str = "settle";
        match event {
            OrderEvent::OrderCreated(e) => Deadlines::set(SETTLE, e.settle_by, OrderCommand::ExpireOrder { order_id: e.order_id }),
            OrderEvent::OrderConfirmed(_) | OrderEvent::OrderCancelled(_) => Deadlines::clear(SETTLE),
        }
    }
}
