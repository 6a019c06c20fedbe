//! What the order service decides: an order is open until both its money and its stock are taken,
//! or one of them cannot be.

mod order;
mod reactions;
#[cfg(test)]
mod tests;

use contracts::OrderId;
use contracts::orders::OrderEvent;
use reel_core::model::{Deadlines, Impossible, Rows, Service, Timestamp, Trigger};

pub use order::{Order, OrderCommand, OrderRejection, PlaceOrder, RequestedLine, Status};
pub use reactions::OrderInput;

/// The order service.
#[derive(Debug)]
pub struct OrderService;

/// What the order service remembers.
#[derive(Debug, Clone, Default)]
pub struct Orders {
    /// Every order ever placed.
    pub orders: Rows<OrderId, Order>,
}

reel_core::working_set!(Orders { orders });

impl Service for OrderService {
    const NAME: &'static str = "order";
    const SHEDS_LOAD: bool = true;
    type State = Orders;
    type Command = OrderCommand;
    type Answer = Option<Order>;
    type Rejection = OrderRejection;
    type Input = OrderInput;
    type Event = OrderEvent;

    fn read_set(trigger: Trigger<'_, Self>, state: &mut Orders) {
        state.orders.need(&match trigger {
            Trigger::Command(command) => command.order_id(),
            Trigger::Input(input) => input.order_id(),
            Trigger::Event(event) => order::order_id(event),
        });
    }

    fn decide(
        state: &Orders,
        command: &OrderCommand,
        now: Timestamp,
    ) -> Result<Option<OrderEvent>, OrderRejection> {
        order::decide(state.orders.get(&command.order_id()), command, now)
    }

    fn react(
        state: &Orders,
        input: &OrderInput,
        _now: Timestamp,
    ) -> Result<Option<OrderEvent>, Impossible> {
        reactions::react(state.orders.get(&input.order_id()), input)
    }

    fn evolve(state: &mut Orders, event: &OrderEvent) {
        order::evolve(state, event);
    }

    fn answer(state: &Orders, command: &OrderCommand) -> Option<Order> {
        let order = state.orders.get(&command.order_id())?.clone();
        match command {
            // The order as it was when it was placed, whatever has happened since, so that a retry
            // gets the same answer.
            OrderCommand::PlaceOrder(_) => Some(Order { status: Status::Open, ..order }),
            OrderCommand::CancelOrder { .. } | OrderCommand::ExpireOrder { .. } => Some(order),
        }
    }

    fn deadlines(event: &OrderEvent) -> Deadlines<Self> {
        const SETTLE: &str = "settle";
        match event {
            OrderEvent::OrderCreated(e) => Deadlines::set(
                SETTLE,
                e.settle_by,
                OrderCommand::ExpireOrder { order_id: e.order_id },
            ),
            OrderEvent::OrderConfirmed(_) | OrderEvent::OrderCancelled(_) => {
                Deadlines::clear(SETTLE)
            }
        }
    }
}
