//! Every combination of a state and a message, one test for each.

use contracts::inventory::{InventoryFailed, InventoryFailure};
use contracts::orders::{CancelReason, OrderCancelled, OrderCreated};
use contracts::payments::{
    AccountCredited, PaymentCompleted, PaymentEvent, PaymentFailed, PaymentFailure, PaymentRefunded,
};
use contracts::{Currency, CustomerId, DepositId, Line, Money, OrderId, PricedLine, RequestHash};
use reel_core::model::{Service, Timestamp, WorkingSet};
use reel_core::testing::Given;

use super::{Account, PaymentCommand, PaymentRejection, PaymentService, Payments};

fn given(events: impl IntoIterator<Item = PaymentEvent>) -> Given<PaymentService> {
    reel_core::testing::given(events)
}

fn order_id() -> OrderId {
    OrderId::of_request(&customer(), "order")
}

fn customer() -> CustomerId {
    "anna".parse().expect("a customer")
}

fn eur(cents: i64) -> Money {
    Money::new(cents, Currency::EUR)
}

fn sek(amount: i64) -> Money {
    Money::new(amount, "SEK".parse().expect("a currency"))
}

fn credited(key: &str, amount: Money) -> PaymentEvent {
    let deposit_id = DepositId::of_request(&customer(), key);
    AccountCredited {
        deposit_id,
        customer: customer(),
        amount,
        request_hash: RequestHash::of(&amount),
    }
    .into()
}

fn deposit(key: &str, amount: Money) -> PaymentCommand {
    let deposit_id = DepositId::of_request(&customer(), key);
    PaymentCommand::Deposit {
        deposit_id,
        customer: customer(),
        amount,
        request_hash: RequestHash::of(&amount),
    }
}

fn order_created() -> OrderCreated {
    OrderCreated {
        order_id: order_id(),
        customer: customer(),
        lines: vec![PricedLine {
            sku: "A".parse().expect("a sku"),
            quantity: 2,
            unit_price: eur(150),
        }],
        total: eur(300),
        placed_at: Timestamp::default(),
        settle_by: Timestamp::default(),
        request_hash: RequestHash::of(&"order"),
    }
}

fn order_cancelled() -> OrderCancelled {
    OrderCancelled { order_id: order_id(), reason: CancelReason::Customer, detail: None }
}

fn inventory_failed(reason: InventoryFailure) -> InventoryFailed {
    InventoryFailed { order_id: order_id(), reason, short: vec![] }
}

fn out_of_stock() -> InventoryFailed {
    inventory_failed(InventoryFailure::OutOfStock)
}

/// Inventory read the cancellation before the payment.
fn barred() -> InventoryFailed {
    inventory_failed(InventoryFailure::OrderCancelled)
}

fn completed() -> PaymentEvent {
    let lines = vec![Line { sku: "A".parse().expect("a sku"), quantity: 2 }];
    PaymentCompleted { order_id: order_id(), customer: customer(), amount: eur(300), lines }.into()
}

fn failed(reason: PaymentFailure) -> PaymentEvent {
    PaymentFailed { order_id: order_id(), customer: customer(), amount: eur(300), reason }.into()
}

fn unpaid() -> PaymentEvent {
    failed(PaymentFailure::UnknownAccount)
}

/// Inventory read the payment after the order's deadline.
fn too_late() -> InventoryFailed {
    inventory_failed(InventoryFailure::TooLate)
}

fn refunded() -> PaymentEvent {
    PaymentRefunded { order_id: order_id(), customer: customer(), amount: eur(300) }.into()
}

mod a_payment_not_asked_for_yet {
    use super::*;

    #[test]
    fn is_completed_when_the_account_has_just_enough() {
        given([credited("1", eur(300))])
            .when(order_created())
            .then(completed())
            .again()
            .then_nothing();
    }

    #[test]
    fn fails_when_the_account_has_too_little() {
        let expected = failed(PaymentFailure::InsufficientFunds);
        given([credited("1", eur(299))])
            .when(order_created())
            .then(expected)
            .again()
            .then_nothing();
    }

    #[test]
    fn fails_when_there_is_no_account() {
        given([]).when(order_created()).then(unpaid()).again().then_nothing();
    }

    #[test]
    fn fails_when_the_account_is_in_another_currency() {
        let expected = failed(PaymentFailure::WrongCurrency);
        given([credited("1", sek(300))])
            .when(order_created())
            .then(expected)
            .again()
            .then_nothing();
    }

    #[test]
    fn fails_after_the_deadline_whatever_the_account_has() {
        let expected = failed(PaymentFailure::TooLate);
        given([credited("1", eur(300))])
            .when_expired(order_created())
            .then(expected)
            .again()
            .then_nothing();
    }

    #[test]
    fn cannot_be_cancelled() {
        given([]).when(order_cancelled()).then_impossible();
    }

    #[test]
    fn has_nothing_to_give_back_when_a_cancel_barred_it() {
        given([]).when(barred()).then_nothing();
    }

    #[test]
    fn cannot_have_been_refused_stock() {
        given([]).when(out_of_stock()).then_impossible();
        given([]).when(too_late()).then_impossible();
    }

    #[test]
    fn has_nothing_to_give_back_when_stock_failed_for_a_reason_not_known_yet() {
        given([]).when(inventory_failed(InventoryFailure::Unknown)).then_nothing();
    }
}

mod a_completed_payment {
    use super::*;

    #[test]
    fn is_not_completed_again() {
        let paid = || given([credited("1", eur(600)), completed()]);
        paid().when(order_created()).then_nothing();
        paid().when_expired(order_created()).then_nothing();
    }

    #[test]
    fn is_refunded_when_the_order_is_cancelled() {
        given([credited("1", eur(300)), completed()])
            .when(order_cancelled())
            .then(refunded())
            .again()
            .then_nothing();
    }

    #[test]
    fn is_refunded_when_stock_failed() {
        for reason in [
            InventoryFailure::OutOfStock,
            InventoryFailure::OrderCancelled,
            InventoryFailure::TooLate,
            InventoryFailure::Unknown,
        ] {
            given([credited("1", eur(300)), completed()])
                .when(inventory_failed(reason))
                .then(refunded())
                .again()
                .then_nothing();
        }
    }

    #[test]
    fn is_refunded_once_whichever_of_cancel_and_failure_comes_first() {
        let paid = || given([credited("1", eur(300)), completed()]);
        paid().when(order_cancelled()).then(refunded()).and().when(out_of_stock()).then_nothing();
        paid().when(out_of_stock()).then(refunded()).and().when(order_cancelled()).then_nothing();
    }
}

mod a_failed_payment {
    use super::*;

    #[test]
    fn stays_failed_when_the_order_comes_again() {
        given([unpaid(), credited("1", eur(300))]).when(order_created()).then_nothing();
    }

    #[test]
    fn has_nothing_to_give_back_when_the_order_is_cancelled() {
        given([unpaid()]).when(order_cancelled()).then_nothing();
    }

    #[test]
    fn has_nothing_to_give_back_when_a_cancel_barred_it() {
        given([unpaid()]).when(barred()).then_nothing();
    }

    #[test]
    fn cannot_have_been_refused_stock() {
        given([unpaid()]).when(out_of_stock()).then_impossible();
        given([unpaid()]).when(too_late()).then_impossible();
    }

    #[test]
    fn has_nothing_to_give_back_when_stock_failed_for_a_reason_not_known_yet() {
        given([unpaid()]).when(inventory_failed(InventoryFailure::Unknown)).then_nothing();
    }
}

mod a_refunded_payment {
    use super::*;

    fn paid_and_refunded() -> Given<PaymentService> {
        given([credited("1", eur(300)), completed(), refunded()])
    }

    #[test]
    fn is_not_completed_again() {
        paid_and_refunded().when(order_created()).then_nothing();
    }

    #[test]
    fn is_not_refunded_again() {
        paid_and_refunded().when(order_cancelled()).then_nothing();
        for reason in [
            InventoryFailure::OutOfStock,
            InventoryFailure::OrderCancelled,
            InventoryFailure::TooLate,
            InventoryFailure::Unknown,
        ] {
            paid_and_refunded().when(inventory_failed(reason)).then_nothing();
        }
    }
}

mod a_deposit {
    use super::*;

    #[test]
    fn is_credited_once() {
        given([]).asked(deposit("1", eur(5))).then(credited("1", eur(5))).again().then_nothing();
    }

    #[test]
    fn keeps_its_key_from_another_request() {
        given([credited("1", eur(5))])
            .asked(deposit("1", eur(6)))
            .then_rejected(&PaymentRejection::KeyReused);
    }

    #[test]
    fn is_refused_when_it_is_not_above_zero() {
        given([]).asked(deposit("1", eur(0))).then_rejected(&PaymentRejection::NotPositive);
        given([]).asked(deposit("1", eur(-1))).then_rejected(&PaymentRejection::NotPositive);
    }

    #[test]
    fn is_refused_in_another_currency() {
        given([credited("1", eur(5))])
            .asked(deposit("2", sek(5)))
            .then_rejected(&PaymentRejection::WrongCurrency(Currency::EUR));
    }

    #[test]
    fn is_refused_if_the_account_would_overflow_now_or_after_a_refund() {
        given([credited("1", eur(i64::MAX - 1))])
            .asked(deposit("2", eur(2)))
            .then_rejected(&PaymentRejection::TooMuch);
        given([credited("1", eur(i64::MAX - 1)), completed()])
            .asked(deposit("2", eur(2)))
            .then_rejected(&PaymentRejection::TooMuch);
        given([credited("1", eur(i64::MAX - 1))])
            .asked(deposit("2", eur(1)))
            .then(credited("2", eur(1)))
            .again()
            .then_nothing();
    }

    #[test]
    fn is_answered_alike_when_it_is_retried() {
        let first = given([]).asked(deposit("1", eur(500))).answer();
        assert_eq!(
            given([credited("1", eur(500)), completed()]).asked(deposit("1", eur(500))).answer(),
            first
        );
    }
}

#[test]
fn accounts_come_out_alike_in_whatever_order_keys_are_folded() {
    let (saga, account) =
        ([completed(), refunded()], [credited("1", eur(i64::MAX - 1)), credited("2", eur(1))]);
    let orders = [
        [&saga[0], &saga[1], &account[0], &account[1]],
        [&account[0], &saga[0], &account[1], &saga[1]],
    ];
    for events in orders {
        let mut state = Payments::complete();
        events.into_iter().for_each(|event| PaymentService::evolve(&mut state, event));
        let expected = Account { currency: Currency::EUR, deposited: i64::MAX, balance: i64::MAX };
        assert_eq!(state.accounts.get(&customer()), Some(&expected));
    }
}
