//! Every combination of a state and a message, one test for each.

use contracts::inventory::{
    InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored, InventoryUpdated,
    StockReceived,
};
use contracts::orders::{CancelReason, OrderCancelled};
use contracts::payments::PaymentCompleted;
use contracts::{Currency, Line, Money, OrderId, ReceiptId, RequestHash, Shortage, Sku};
use reel_core::model::{Service, WorkingSet};
use reel_core::testing::Given;

use super::{Inventory, InventoryCommand, InventoryRejection, InventoryService, Stock};

fn given(events: impl IntoIterator<Item = InventoryEvent>) -> Given<InventoryService> {
    reel_core::testing::given(events)
}

fn order_id() -> OrderId {
    OrderId::of_request(&"anna", "order")
}

fn sku(text: &str) -> Sku {
    text.parse().expect("a sku")
}

fn lines<const N: usize>(lines: [(&str, i64); N]) -> Vec<Line> {
    lines.into_iter().map(|(text, quantity)| Line { sku: sku(text), quantity }).collect()
}

fn received(key: &str, product: &str, quantity: i64) -> InventoryEvent {
    let receipt_id = ReceiptId::of_request(&product, key);
    StockReceived {
        receipt_id,
        sku: sku(product),
        quantity,
        request_hash: RequestHash::of(&quantity),
    }
    .into()
}

fn receive(key: &str, product: &str, quantity: i64) -> InventoryCommand {
    let receipt_id = ReceiptId::of_request(&product, key);
    InventoryCommand::ReceiveStock {
        receipt_id,
        sku: sku(product),
        quantity,
        request_hash: RequestHash::of(&quantity),
    }
}

fn payment_completed<const N: usize>(wanted: [(&str, i64); N]) -> PaymentCompleted {
    let customer = "anna".parse().expect("a customer");
    PaymentCompleted {
        order_id: order_id(),
        customer,
        amount: Money::new(300, Currency::EUR),
        lines: lines(wanted),
    }
}

fn order_cancelled() -> OrderCancelled {
    OrderCancelled { order_id: order_id(), reason: CancelReason::Customer, detail: None }
}

fn updated<const N: usize>(taken: [(&str, i64); N]) -> InventoryEvent {
    InventoryUpdated { order_id: order_id(), lines: lines(taken) }.into()
}

fn restored<const N: usize>(taken: [(&str, i64); N]) -> InventoryEvent {
    InventoryRestored { order_id: order_id(), lines: lines(taken) }.into()
}

fn short<const N: usize>(short: [(&str, i64, i64); N]) -> InventoryEvent {
    let short = short
        .into_iter()
        .map(|(text, wanted, available)| Shortage { sku: sku(text), wanted, available })
        .collect();
    InventoryFailed { order_id: order_id(), reason: InventoryFailure::OutOfStock, short }.into()
}

fn failed(reason: InventoryFailure) -> InventoryEvent {
    InventoryFailed { order_id: order_id(), reason, short: vec![] }.into()
}

fn barred() -> InventoryEvent {
    failed(InventoryFailure::OrderCancelled)
}

mod an_order_not_seen_yet {
    use super::*;

    #[test]
    fn gets_its_stock_when_every_line_is_on_hand() {
        given([received("1", "A", 2), received("1", "B", 9)])
            .when(payment_completed([("A", 2), ("B", 1)]))
            .then(updated([("A", 2), ("B", 1)]))
            .again()
            .then_nothing();
    }

    #[test]
    fn gets_nothing_when_one_line_is_short() {
        given([received("1", "A", 2), received("1", "B", 9)])
            .when(payment_completed([("A", 3), ("B", 1), ("C", 4)]))
            .then(short([("A", 3, 2), ("C", 4, 0)]))
            .again()
            .then_nothing();
    }

    #[test]
    fn gets_nothing_after_its_deadline() {
        given([received("1", "A", 2)])
            .when_expired(payment_completed([("A", 2)]))
            .then(failed(InventoryFailure::TooLate))
            .again()
            .then_nothing();
    }

    #[test]
    fn is_barred_when_it_is_cancelled_after_its_deadline() {
        given([]).when_expired(order_cancelled()).then(barred()).again().then_nothing();
    }

    #[test]
    fn is_barred_when_it_is_cancelled() {
        given([received("1", "A", 2)])
            .when(order_cancelled())
            .then(barred())
            .again()
            .then_nothing();
    }
}

mod an_order_that_took_its_stock {
    use super::*;

    fn taken() -> Given<InventoryService> {
        given([received("1", "A", 5), updated([("A", 2)])])
    }

    #[test]
    fn takes_no_more() {
        taken().when(payment_completed([("A", 2)])).then_nothing();
    }

    #[test]
    fn puts_it_back_when_it_is_cancelled() {
        taken().when(order_cancelled()).then(restored([("A", 2)])).again().then_nothing();
    }
}

mod an_order_that_got_no_stock {
    use super::*;

    #[test]
    fn gets_none_later_when_it_was_short() {
        given([short([("A", 2, 0)]), received("1", "A", 5)])
            .when(payment_completed([("A", 2)]))
            .then_nothing();
    }

    #[test]
    fn gets_none_later_when_it_was_barred() {
        given([barred(), received("1", "A", 5)]).when(payment_completed([("A", 2)])).then_nothing();
    }

    #[test]
    fn has_nothing_to_put_back_when_it_is_cancelled() {
        given([short([("A", 2, 0)])]).when(order_cancelled()).then_nothing();
        given([barred()]).when(order_cancelled()).then_nothing();
    }
}

mod an_order_that_put_its_stock_back {
    use super::*;

    fn restored_order() -> Given<InventoryService> {
        given([received("1", "A", 5), updated([("A", 2)]), restored([("A", 2)])])
    }

    #[test]
    fn takes_none_again() {
        restored_order().when(payment_completed([("A", 2)])).then_nothing();
    }

    #[test]
    fn puts_nothing_back_again() {
        restored_order().when(order_cancelled()).then_nothing();
    }
}

mod a_receipt {
    use super::*;

    #[test]
    fn comes_in_once() {
        given([]).asked(receive("1", "A", 5)).then(received("1", "A", 5)).again().then_nothing();
    }

    #[test]
    fn keeps_its_key_from_another_request() {
        given([received("1", "A", 5)])
            .asked(receive("1", "A", 6))
            .then_rejected(&InventoryRejection::KeyReused);
    }

    #[test]
    fn is_refused_when_it_is_not_above_zero() {
        given([]).asked(receive("1", "A", 0)).then_rejected(&InventoryRejection::NotPositive);
        given([]).asked(receive("1", "A", -1)).then_rejected(&InventoryRejection::NotPositive);
    }

    #[test]
    fn is_refused_if_the_stock_would_overflow_now_or_after_a_restore() {
        given([received("1", "A", i64::MAX)])
            .asked(receive("2", "A", 1))
            .then_rejected(&InventoryRejection::TooMany);
        given([received("1", "A", i64::MAX), updated([("A", 2)])])
            .asked(receive("2", "A", 1))
            .then_rejected(&InventoryRejection::TooMany);
        given([received("1", "A", i64::MAX)])
            .asked(receive("2", "B", 1))
            .then(received("2", "B", 1))
            .again()
            .then_nothing();
    }

    #[test]
    fn is_answered_alike_when_it_is_retried() {
        let first = given([]).asked(receive("1", "A", 5)).answer();
        assert_eq!(
            given([received("1", "A", 5), updated([("A", 2)])])
                .asked(receive("1", "A", 5))
                .answer(),
            first
        );
    }
}

#[test]
fn stock_comes_out_alike_in_whatever_order_keys_are_folded() {
    let (saga, product) = (
        [updated([("A", 2)]), restored([("A", 2)])],
        [received("1", "A", i64::MAX - 1), received("2", "A", 1)],
    );
    let orders = [
        [&saga[0], &saga[1], &product[0], &product[1]],
        [&product[0], &saga[0], &product[1], &saga[1]],
    ];
    for events in orders {
        let mut state = Inventory::complete();
        events.into_iter().for_each(|event| InventoryService::evolve(&mut state, event));
        assert_eq!(
            state.stock.get(&sku("A")),
            Some(&Stock { received: i64::MAX, on_hand: i64::MAX, taken: 0 })
        );
    }
}
