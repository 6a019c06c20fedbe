//! The audit of a small system that is whole, and of the same system with each thing broken that
//! can break.

mod shop;

use std::time::Duration;

use contracts::inventory::InventoryFailure;
use contracts::orders::{CancelReason, OrderConfirmed};
use inventory::domain::{Reservation, Stock};
use order::domain::OrderService;
use reel::model::{Partitions, Rows};
use reel::wire::{Parked, Released};
use uuid::Uuid;

use super::*;
use shop::{
    PARTITIONS, anna, at, cancelled, created, empty, failed, mug, order_id, paid, taken, whole,
};

fn whole_figures() -> Figures {
    let cancelled =
        ["customer", "out_of_stock", "payment_failed"].map(|reason| (reason.to_owned(), 1)).into();
    Figures { orders: 4, confirmed: 1, cancelled, ok: true, ..Figures::default() }
}

/// Returns the figures and the text of the audit of a whole system after a change.
#[track_caller]
fn broken(change: impl FnOnce(&mut Collected)) -> (Figures, String) {
    let mut shop = whole();
    change(&mut shop);
    let audit = audit(&shop, at(10));
    (audit.figures.clone(), audit.to_string())
}

fn key(nth: u128) -> String {
    order_id(nth).to_string()
}

#[test]
fn a_whole_system_is_ok() {
    let audit = audit(&whole(), at(10));
    assert_eq!(audit.figures, whole_figures(), "{audit}");
}

#[test]
fn a_saga_lasts_until_its_last_event_compensations_included() {
    let sagas = audit(&whole(), at(10)).sagas;
    let seconds: Vec<_> = sagas.iter().map(|saga| saga.duration().unwrap()).collect();
    assert_eq!(seconds, [3, 3, 3, 5].map(Duration::from_secs));
}

#[test]
fn an_order_that_has_not_ended_is_open() {
    let (figures, text) = broken(|shop| shop.order.publish(created(5), 5));
    assert_eq!(figures, Figures { orders: 5, open: 1, ok: false, ..whole_figures() });
    assert!(text.contains(&format!("open: order {} since 5.0s", key(5))), "{text}");
}

#[test]
fn a_cancelled_order_is_compensating_until_payment_and_inventory_have_answered() {
    let cancel = |shop: &mut Collected| {
        shop.order.publish(created(5), 5);
        shop.order.publish(cancelled(5, CancelReason::Customer), 6);
    };
    let (figures, text) = broken(cancel);
    assert_eq!((figures.compensating, figures.cancelled["customer"], figures.ok), (1, 2, false));
    assert!(
        text.contains(&format!(
            "compensating: order {} since 4.0s: payment and inventory have not answered",
            key(5)
        )),
        "{text}"
    );
    let (figures, text) = broken(|shop| {
        cancel(shop);
        shop.inventory.publish(failed(5, InventoryFailure::OrderCancelled), 7);
    });
    assert_eq!(figures.compensating, 1);
    assert!(text.contains("since 4.0s: payment has not answered"), "{text}");
}

#[test]
fn a_balance_that_no_event_explains_is_money_drift_and_a_fold_mismatch() {
    let (figures, text) =
        broken(|shop| shop.payment.state.accounts.entry_or(anna(), || unreachable!()).balance -= 7);
    assert_eq!(
        figures,
        Figures { money_drift: 7, fold_mismatches: 1, ok: false, ..whole_figures() },
        "{text}"
    );
    assert!(text.contains("is balance: 8993 and should be balance: 9000"), "{text}");
}

#[test]
fn a_confirmed_order_whose_money_was_not_taken_is_money_drift() {
    let (figures, text) = broken(|shop| {
        shop.order.publish(created(5), 5);
        shop.inventory.publish(taken(5), 6);
        shop.order.publish(OrderConfirmed { order_id: order_id(5) }, 7);
    });
    assert_eq!(
        (figures.money_drift, figures.stock_drift, figures.fold_mismatches),
        (1_000, 0, 1),
        "{text}"
    );
    assert!(text.contains("its money was taken 0 times"), "{text}");
}

#[test]
fn money_taken_twice_for_one_order_is_money_drift() {
    let (figures, text) = broken(|shop| shop.payment.publish(paid(1), 5));
    assert_eq!((figures.money_drift, figures.fold_mismatches), (1_000, 1), "{text}");
}

#[test]
fn stock_that_no_event_explains_is_stock_drift_and_a_fold_mismatch() {
    for change in [
        |stock: &mut Stock| stock.on_hand += 3,
        |stock: &mut Stock| stock.taken += 3,
        |stock: &mut Stock| stock.received += 3,
    ] {
        let (figures, text) = broken(|shop| change(shop.inventory.state.stock.entry(mug())));
        assert_eq!(
            figures,
            Figures { stock_drift: 3, fold_mismatches: 1, ok: false, ..whole_figures() },
            "{text}"
        );
    }
}

#[test]
fn a_confirmed_order_whose_stock_was_not_taken_is_stock_drift() {
    let (figures, text) = broken(|shop| {
        shop.order.publish(created(5), 5);
        shop.payment.publish(paid(5), 6);
        shop.order.publish(OrderConfirmed { order_id: order_id(5) }, 7);
    });
    assert_eq!(
        (figures.money_drift, figures.stock_drift, figures.fold_mismatches),
        (0, 2, 1),
        "{text}"
    );
}

#[test]
fn a_record_that_is_gone_is_a_gap_up_to_the_head() {
    let (figures, text) = broken(|shop| {
        let lane = shop.order.lane_of(&key(1));
        let last = lane.records.pop().unwrap();
        assert_eq!(last.envelope.unwrap().sequence, Some(lane.next_sequence - 1));
    });
    assert_eq!(figures.gaps, 1, "{text}");
    let (figures, text) = broken(|shop| {
        let lane = shop.order.lane_of(&key(1));
        lane.records.remove(1);
    });
    assert_eq!(
        figures.gaps,
        u64::try_from(whole().order.lane_of(&key(1)).next_sequence).unwrap(),
        "{text}"
    );
}

#[test]
fn a_record_of_a_sequence_not_yet_assigned_is_a_gap_before_it() {
    let (figures, text) = broken(|shop| {
        let lane = shop.order.lane_of(&key(1));
        let beyond = lane.next_sequence + 1;
        lane.send_again(0, |envelope| envelope.sequence = Some(beyond));
    });
    assert_eq!(figures.gaps, 2, "{text}");
}

#[test]
fn two_current_records_of_one_sequence_and_different_ids_are_a_fork() {
    let (figures, text) = broken(|shop| {
        shop.order.lane_of(&key(1)).send_again(0, |envelope| envelope.id = Uuid::new_v4());
    });
    assert_eq!(
        figures,
        Figures { forks: 1, duplicates: 1, ok: false, ..whole_figures() },
        "{text}"
    );
}

#[test]
fn a_record_and_an_outbox_row_of_different_ids_are_a_fork() {
    let (figures, text) =
        broken(|shop| shop.order.lane_of(&key(1)).outbox[0].event_id = Uuid::new_v4());
    assert_eq!(figures, Figures { forks: 1, ok: false, ..whole_figures() }, "{text}");
}

#[test]
fn a_duplicate_and_a_stale_record_are_counted_and_lawful() {
    let (figures, text) = broken(|shop| {
        let partition = shop.order.lane_of(&key(1)).partition.0;
        shop.order.open(partition);
        let lane = shop.order.lane_of(&key(1));
        lane.send_again(0, |_| ());
        lane.send_again(0, |envelope| {
            envelope.epoch = Some(0);
            envelope.id = Uuid::new_v4();
        });
    });
    assert_eq!(figures, Figures { duplicates: 1, stale: 1, ..whole_figures() }, "{text}");
}

#[test]
fn every_row_that_differs_from_the_fold_is_a_mismatch() {
    let (figures, text) = broken(|shop| shop.order.state.orders = Rows::complete());
    assert_eq!(figures, Figures { fold_mismatches: 4, ok: false, ..whole_figures() }, "{text}");
    let (figures, text) = broken(|shop| {
        let other = order_id(9);
        shop.inventory.state.reservations.put(other, Reservation::Taken { lines: vec![] });
    });
    assert_eq!(figures, Figures { fold_mismatches: 1, ok: false, ..whole_figures() }, "{text}");
    assert!(text.contains("no event says so"), "{text}");
}

#[test]
fn an_open_order_has_its_deadline_and_an_ended_one_none() {
    let (figures, text) = broken(|shop| {
        shop.order.publish(created(5), 5);
        shop.order.deadlines.clear();
    });
    assert_eq!((figures.open, figures.fold_mismatches), (1, 1), "{text}");
    assert!(text.contains(&format!("deadline settle of {} is missing", key(5))), "{text}");
    let (figures, text) = broken(|shop| {
        let mut other = empty::<OrderService>("orders");
        other.publish(created(1), 1);
        shop.order.deadlines = other.deadlines;
    });
    assert_eq!(figures, Figures { fold_mismatches: 1, ok: false, ..whole_figures() }, "{text}");
}

#[test]
fn a_head_behind_its_topic_is_a_mismatch() {
    let (figures, text) = broken(|shop| {
        let lane = shop.order.lane_of(&key(1));
        lane.next_sequence_after -= 1;
    });
    assert_eq!(figures, Figures { fold_mismatches: 1, ok: false, ..whole_figures() }, "{text}");
}

#[test]
fn a_record_whose_key_belongs_elsewhere_is_a_mismatch() {
    let (figures, text) = broken(|shop| {
        let lane = shop.payment.lane_of("anna");
        let partitions = Partitions::new(PARTITIONS).unwrap();
        let other = (0..)
            .map(|nth| format!("key-{nth}"))
            .find(|key| partitions.of(key.as_bytes()) != lane.partition)
            .unwrap();
        lane.records[1].key = Some(other.into_bytes());
    });
    assert!(figures.fold_mismatches > 0, "{text}");
    assert!(text.contains("its key does not belong into this partition"), "{text}");
}

#[test]
fn an_order_that_ended_twice_or_was_never_created_is_a_mismatch() {
    let (figures, text) =
        broken(|shop| shop.order.publish(cancelled(1, CancelReason::Customer), 5));
    assert!(figures.fold_mismatches == 1 && text.contains("ended 2 times"), "{text}");
    let (figures, text) =
        broken(|shop| shop.inventory.publish(failed(9, InventoryFailure::OrderCancelled), 5));
    assert!(figures.fold_mismatches == 1 && text.contains("was never created"), "{text}");
}

#[test]
fn a_message_is_parked_from_its_event_to_its_release() {
    let parked = Parked {
        topic: "orders".into(),
        partition: 0,
        generation: 0,
        number: 1,
        offset: 2,
        message_type: "OrderCreated".into(),
        reason: "it cannot be decoded".into(),
    };
    let park = |shop: &mut Collected| {
        shop.payment.send(&key(1), Parked::NAME, Parked::codec().encode(&parked).unwrap(), 5);
    };
    let (figures, text) = broken(park);
    assert_eq!(figures, Figures { fold_mismatches: 1, ok: false, ..whole_figures() }, "{text}");
    let row = ParkedRow {
        topic: "orders".into(),
        partition: 0,
        epoch: 0,
        sequence: 1,
        offset: 2,
        key: key(1),
        message_type: "OrderCreated".into(),
        reason: "it cannot be decoded".into(),
    };
    let (figures, text) = broken(|shop| {
        park(shop);
        shop.payment.parked.push(row.clone());
    });
    assert_eq!(figures, Figures { parked: 1, ok: false, ..whole_figures() }, "{text}");
    let released = Released { topic: "orders".into(), partition: 0, generation: 0, number: 1 };
    let (figures, text) = broken(|shop| {
        park(shop);
        shop.payment.send(&key(1), Released::NAME, Released::codec().encode(&released).unwrap(), 6);
    });
    assert_eq!(figures, whole_figures(), "{text}");
    let (figures, text) = broken(|shop| shop.payment.parked.push(row.clone()));
    assert_eq!(
        figures,
        Figures { parked: 1, fold_mismatches: 1, ok: false, ..whole_figures() },
        "{text}"
    );
}

#[test]
fn events_after_the_tables_were_read_are_no_mismatch() {
    let (figures, text) = broken(|shop| {
        let before = whole();
        shop.order.publish(created(5), 5);
        shop.payment.publish(paid(5), 6);
        for (lane, before) in shop.order.lanes.iter_mut().zip(before.order.lanes) {
            lane.next_sequence = before.next_sequence;
        }
        for (lane, before) in shop.payment.lanes.iter_mut().zip(before.payment.lanes) {
            lane.next_sequence = before.next_sequence;
        }
        (shop.order.state, shop.order.deadlines) = (before.order.state, before.order.deadlines);
        shop.payment.state = before.payment.state;
    });
    assert_eq!(figures, Figures { orders: 5, open: 1, ok: false, ..whole_figures() }, "{text}");
}

#[test]
fn only_the_first_of_each_kind_are_shown() {
    let (_, text) = broken(|shop| (10..30).for_each(|nth| shop.order.publish(created(nth), 5)));
    assert_eq!(text.matches("open: order").count(), 10, "{text}");
    assert!(text.contains("open: 10 more"), "{text}");
}
