//! What the payment service decides: it takes the money for an order once or says that it will not,
//! and refunds it at most once.

mod account;
mod payment;
mod reactions;
#[cfg(test)]
mod tests;

use contracts::payments::PaymentEvent;
use contracts::{CustomerId, DepositId, OrderId};
use reel_core::model::{Impossible, Rows, Service, Timestamp, Trigger};

pub use account::{Account, Deposit, PaymentCommand, PaymentRejection};
pub use payment::{Payment, Status};
pub use reactions::PaymentInput;

/// The payment service.
#[derive(Debug)]
pub struct PaymentService;

/// What the payment service remembers.
#[derive(Debug, Clone, Default)]
pub struct Payments {
    /// The answer to each order.
    pub payments: Rows<OrderId, Payment>,
    /// Each customer's account. All orders of the customer share it, so events only add to it.
    pub accounts: Rows<CustomerId, Account>,
    /// All deposits.
    pub deposits: Rows<DepositId, Deposit>,
}

reel_core::working_set!(Payments { payments, accounts, deposits });

impl Service for PaymentService {
    const NAME: &'static str = "payment";
    type State = Payments;
    type Command = PaymentCommand;
    type Answer = Option<Deposit>;
    type Rejection = PaymentRejection;
    type Input = PaymentInput;
    type Event = PaymentEvent;

    fn read_set(trigger: Trigger<'_, Self>, state: &mut Payments) {
        match trigger {
            Trigger::Command(PaymentCommand::Deposit { deposit_id, customer, .. }) => {
                state.need_deposit(*deposit_id, customer);
            }
            Trigger::Input(PaymentInput::OrderCreated(e)) => {
                state.need_payment(e.order_id, Some(&e.customer));
            }
            Trigger::Input(PaymentInput::OrderCancelled(e)) => state.need_payment(e.order_id, None),
            Trigger::Input(PaymentInput::InventoryFailed(e)) => {
                state.need_payment(e.order_id, None);
            }
            Trigger::Event(PaymentEvent::PaymentCompleted(e)) => {
                state.need_payment(e.order_id, Some(&e.customer));
            }
            Trigger::Event(PaymentEvent::PaymentFailed(e)) => state.need_payment(e.order_id, None),
            Trigger::Event(PaymentEvent::PaymentRefunded(e)) => {
                state.need_payment(e.order_id, Some(&e.customer));
            }
            Trigger::Event(PaymentEvent::AccountCredited(e)) => {
                state.need_deposit(e.deposit_id, &e.customer);
            }
        }
    }

    fn decide(
        state: &Payments,
        command: &PaymentCommand,
        _now: Timestamp,
    ) -> Result<Option<PaymentEvent>, PaymentRejection> {
        account::decide(state, command)
    }

    fn react(
        state: &Payments,
        input: &PaymentInput,
        _now: Timestamp,
    ) -> Result<Option<PaymentEvent>, Impossible> {
        reactions::react(state, input)
    }

    fn react_expired(
        state: &Payments,
        input: &PaymentInput,
        _now: Timestamp,
    ) -> Result<Option<PaymentEvent>, Impossible> {
        reactions::react_expired(state, input)
    }

    fn evolve(state: &mut Payments, event: &PaymentEvent) {
        payment::evolve(state, event);
        account::evolve(state, event);
    }

    fn answer(state: &Payments, command: &PaymentCommand) -> Option<Deposit> {
        let PaymentCommand::Deposit { deposit_id, .. } = command;
        state.deposits.get(deposit_id).cloned()
    }
}

impl Payments {
    fn need_deposit(&mut self, deposit_id: DepositId, customer: &CustomerId) {
        self.accounts.need(customer);
        self.deposits.need(&deposit_id);
    }

    /// The account is that of `customer`, or else of the payment that is already stored.
    fn need_payment(&mut self, order_id: OrderId, customer: Option<&CustomerId>) {
        self.payments.need(&order_id);
        if let Some(customer) =
            customer.or(self.payments.peek(&order_id).map(|payment| &payment.customer))
        {
            self.accounts.need(customer);
        }
    }
}
