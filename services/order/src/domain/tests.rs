//! Every combination of a state and a message, one test for each.

use std::time::Duration;

use contracts::inventory::{InventoryFailed, InventoryFailure, InventoryUpdated};
use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderEvent};
use contracts::payments::{PaymentFailed, PaymentFailure};
use contracts::{Currency, CustomerId, Money, OrderId, PricedLine, RequestHash, Shortage};
use reel_core::model::{DeadlineChange, Service, Timestamp};
use reel_core::testing::Given;

use super::{OrderCommand, OrderRejection, OrderService, PlaceOrder, RequestedLine, Status};

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn given(events: impl IntoIterator<Item = OrderEvent>) -> Given<OrderService> {
    reel_core::testing::given(events).at(NOW)
}

fn order_id() -> OrderId {
    OrderId::of_request(&customer(), "key")
}

fn customer() -> CustomerId {
    "anna".parse().expect("a customer")
}

fn requested(sku: &str, quantity: i64, cents: i64) -> RequestedLine {
    RequestedLine {
        sku: sku.parse().expect("a sku"),
        quantity,
        unit_price: Some(Money::new(cents, Currency::EUR)),
    }
}

fn place(lines: Vec<RequestedLine>) -> PlaceOrder {
    let request_hash = RequestHash::of(&lines);
    PlaceOrder {
        order_id: order_id(),
        customer: customer(),
        lines,
        settle_within: Duration::from_secs(2),
        request_hash,
    }
}

fn placing() -> OrderCommand {
    OrderCommand::PlaceOrder(place(vec![requested("A", 2, 150)]))
}

fn created() -> OrderEvent {
    OrderCreated {
        order_id: order_id(),
        customer: customer(),
        lines: vec![PricedLine {
            sku: "A".parse().expect("a sku"),
            quantity: 2,
            unit_price: Money::new(150, Currency::EUR),
        }],
        total: Money::new(300, Currency::EUR),
        placed_at: NOW,
        settle_by: Timestamp::from_micros(3_000_000),
        request_hash: place(vec![requested("A", 2, 150)]).request_hash,
    }
    .into()
}

fn confirmed() -> OrderEvent {
    OrderConfirmed { order_id: order_id() }.into()
}

fn cancelled(reason: CancelReason, detail: Option<&str>) -> OrderEvent {
    OrderCancelled { order_id: order_id(), reason, detail: detail.map(str::to_owned) }.into()
}

fn by_customer() -> OrderEvent {
    cancelled(CancelReason::Customer, None)
}

fn payment_failed() -> PaymentFailed {
    let amount = Money::new(300, Currency::EUR);
    PaymentFailed {
        order_id: order_id(),
        customer: customer(),
        amount,
        reason: PaymentFailure::InsufficientFunds,
    }
}

fn inventory_updated() -> InventoryUpdated {
    InventoryUpdated { order_id: order_id(), lines: vec![] }
}

fn inventory_failed(reason: InventoryFailure) -> InventoryFailed {
    let shortage = Shortage { sku: "A".parse().expect("a sku"), wanted: 2, available: 1 };
    let short = if reason == InventoryFailure::OutOfStock { vec![shortage] } else { vec![] };
    InventoryFailed { order_id: order_id(), reason, short }
}

fn out_of_stock() -> InventoryFailed {
    inventory_failed(InventoryFailure::OutOfStock)
}

fn barred() -> InventoryFailed {
    inventory_failed(InventoryFailure::OrderCancelled)
}

const CANCEL: fn() -> OrderCommand = || OrderCommand::CancelOrder { order_id: order_id() };
const EXPIRE: fn() -> OrderCommand = || OrderCommand::ExpireOrder { order_id: order_id() };

mod an_order_that_was_never_created {
    use super::*;

    #[test]
    fn is_created_when_placed() {
        given([]).asked(placing()).then(created()).again().then_nothing();
    }

    #[test]
    fn cannot_have_failed_to_be_paid() {
        given([]).when(payment_failed()).then_impossible();
    }

    #[test]
    fn cannot_have_got_stock() {
        given([]).when(inventory_updated()).then_impossible();
    }

    #[test]
    fn cannot_have_failed_to_get_stock() {
        given([]).when(out_of_stock()).then_impossible();
        given([]).when(barred()).then_impossible();
        given([]).when(inventory_failed(InventoryFailure::Unknown)).then_impossible();
    }

    #[test]
    fn cannot_be_cancelled() {
        given([]).asked(CANCEL()).then_rejected(&OrderRejection::NotFound);
    }

    #[test]
    fn cannot_expire() {
        given([]).asked(EXPIRE()).then_rejected(&OrderRejection::NotFound);
    }
}

mod an_open_order {
    use super::*;

    #[test]
    fn is_not_created_again_by_a_retry() {
        given([created()]).asked(placing()).then_nothing();
    }

    #[test]
    fn keeps_its_key_from_another_request() {
        let other = OrderCommand::PlaceOrder(place(vec![requested("A", 3, 150)]));
        given([created()]).asked(other).then_rejected(&OrderRejection::KeyReused);
    }

    #[test]
    fn is_cancelled_when_its_payment_failed() {
        let expected = cancelled(CancelReason::PaymentFailed, Some("insufficient_funds"));
        given([created()]).when(payment_failed()).then(expected).again().then_nothing();
    }

    #[test]
    fn is_confirmed_when_its_stock_was_taken() {
        given([created()]).when(inventory_updated()).then(confirmed()).again().then_nothing();
    }

    #[test]
    fn is_cancelled_when_there_was_not_enough_stock() {
        let expected = cancelled(CancelReason::OutOfStock, Some("A: 2 wanted, 1 available"));
        given([created()]).when(out_of_stock()).then(expected).again().then_nothing();
    }

    #[test]
    fn is_cancelled_when_its_stock_failed_for_a_reason_not_known_yet() {
        let expected = cancelled(CancelReason::Unknown, None);
        given([created()])
            .when(inventory_failed(InventoryFailure::Unknown))
            .then(expected)
            .again()
            .then_nothing();
    }

    #[test]
    fn cannot_be_barred_by_a_cancel_that_never_was() {
        given([created()]).when(barred()).then_impossible();
    }

    #[test]
    fn is_cancelled_when_the_customer_says_so() {
        given([created()]).asked(CANCEL()).then(by_customer()).again().then_nothing();
    }

    #[test]
    fn is_cancelled_when_its_deadline_passed_elsewhere_first() {
        let expired = || cancelled(CancelReason::Expired, None);
        let unpaid = PaymentFailed { reason: PaymentFailure::TooLate, ..payment_failed() };
        given([created()]).when(unpaid).then(expired()).again().then_nothing();
        let without_stock = inventory_failed(InventoryFailure::TooLate);
        given([created()]).when(without_stock).then(expired()).again().then_nothing();
    }

    #[test]
    fn is_cancelled_when_its_deadline_passed() {
        given([created()])
            .asked(EXPIRE())
            .then(cancelled(CancelReason::Expired, None))
            .again()
            .then_nothing();
    }
}

mod a_confirmed_order {
    use super::*;

    #[test]
    fn is_not_created_again_by_a_retry() {
        given([created(), confirmed()]).asked(placing()).then_nothing();
    }

    #[test]
    fn keeps_its_key_from_another_request() {
        let other = OrderCommand::PlaceOrder(place(vec![requested("B", 2, 150)]));
        given([created(), confirmed()]).asked(other).then_rejected(&OrderRejection::KeyReused);
    }

    #[test]
    fn is_not_confirmed_again() {
        given([created(), confirmed()]).when(inventory_updated()).then_nothing();
    }

    #[test]
    fn cannot_fail_to_be_paid() {
        given([created(), confirmed()]).when(payment_failed()).then_impossible();
    }

    #[test]
    fn cannot_fail_to_get_stock() {
        given([created(), confirmed()]).when(out_of_stock()).then_impossible();
        given([created(), confirmed()]).when(barred()).then_impossible();
        given([created(), confirmed()])
            .when(inventory_failed(InventoryFailure::Unknown))
            .then_impossible();
    }

    #[test]
    fn cannot_be_cancelled_any_more() {
        given([created(), confirmed()]).asked(CANCEL()).then_rejected(&OrderRejection::TooLate);
    }

    #[test]
    fn does_not_expire() {
        given([created(), confirmed()]).asked(EXPIRE()).then_nothing();
    }
}

mod a_cancelled_order {
    use super::*;

    #[test]
    fn is_not_created_again_by_a_retry() {
        given([created(), by_customer()]).asked(placing()).then_nothing();
    }

    #[test]
    fn keeps_its_key_from_another_request() {
        let other =
            OrderCommand::PlaceOrder(place(vec![requested("A", 2, 150), requested("A", 1, 150)]));
        given([created(), by_customer()]).asked(other).then_rejected(&OrderRejection::KeyReused);
    }

    #[test]
    fn stays_cancelled_whatever_payment_and_inventory_say() {
        given([created(), by_customer()]).when(payment_failed()).then_nothing();
        given([created(), by_customer()]).when(inventory_updated()).then_nothing();
        given([created(), by_customer()]).when(out_of_stock()).then_nothing();
        given([created(), by_customer()]).when(barred()).then_nothing();
        given([created(), by_customer()])
            .when(inventory_failed(InventoryFailure::Unknown))
            .then_nothing();
    }

    #[test]
    fn is_cancelled_only_once() {
        given([created(), by_customer()]).asked(CANCEL()).then_nothing();
    }

    #[test]
    fn does_not_expire() {
        given([created(), by_customer()]).asked(EXPIRE()).then_nothing();
    }
}

mod placing_an_order {
    use super::*;

    #[test]
    fn merges_the_lines_of_one_product() {
        let lines = vec![requested("A", 2, 150), requested("B", 1, 10), requested("A", 3, 150)];
        let order =
            given([]).asked(OrderCommand::PlaceOrder(place(lines))).answer().expect("an order");
        let merged: Vec<_> =
            order.lines.iter().map(|line| (line.sku.as_str(), line.quantity)).collect();
        assert_eq!((merged, order.total.amount), (vec![("A", 5), ("B", 1)], 760));
    }

    #[test]
    fn is_refused_for_a_product_without_a_price() {
        let unknown = RequestedLine { unit_price: None, ..requested("B", 1, 0) };
        let sku = unknown.sku.clone();
        given([])
            .asked(OrderCommand::PlaceOrder(place(vec![requested("A", 1, 1), unknown])))
            .then_rejected(&OrderRejection::UnknownProduct { line: 1, sku });
    }

    #[test]
    fn is_refused_when_the_total_overflows() {
        for lines in [
            vec![requested("A", 3, i64::MAX / 2)],
            vec![requested("A", 1, i64::MAX), requested("B", 1, 1)],
        ] {
            given([])
                .asked(OrderCommand::PlaceOrder(place(lines)))
                .then_rejected(&OrderRejection::NoTotal);
        }
    }

    #[test]
    fn is_refused_in_two_currencies() {
        let kronor = Money::new(1, "SEK".parse().expect("a currency"));
        let lines = vec![
            requested("A", 1, 1),
            RequestedLine { unit_price: Some(kronor), ..requested("B", 1, 1) },
        ];
        given([])
            .asked(OrderCommand::PlaceOrder(place(lines)))
            .then_rejected(&OrderRejection::NoTotal);
    }

    #[test]
    fn is_answered_alike_when_it_is_retried_after_the_order_was_confirmed_or_at_another_price() {
        let first = given([]).asked(placing()).answer();
        let mut retry = place(vec![requested("A", 2, 150)]);
        retry.lines[0].unit_price = None;
        assert_eq!(
            given([created(), confirmed()]).asked(OrderCommand::PlaceOrder(retry)).answer(),
            first
        );
    }
}

#[test]
fn a_cancel_is_answered_with_what_became_of_the_order() {
    let order = given([created()]).asked(CANCEL()).answer().expect("an order");
    assert_eq!(order.status, Status::Cancelled { reason: CancelReason::Customer, detail: None });
}

#[test]
fn an_order_has_a_deadline_until_it_is_settled() {
    let changes =
        |event: &OrderEvent| OrderService::deadlines(event).into_iter().collect::<Vec<_>>();
    assert!(matches!(
        changes(&created())[..],
        [DeadlineChange::Set { name: "settle", due_at, command: OrderCommand::ExpireOrder { .. } }]
            if due_at.micros() == 3_000_000
    ));
    for settled in [confirmed(), by_customer()] {
        assert!(matches!(changes(&settled)[..], [DeadlineChange::Clear { name: "settle" }]));
    }
}
