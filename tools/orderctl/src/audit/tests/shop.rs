//! A small system, built event by event as the toolkit would build it.

use contracts::inventory::{
    InventoryFailed, InventoryFailure, InventoryRestored, InventoryUpdated, StockReceived,
};
use contracts::orders::{CancelReason, OrderCancelled, OrderConfirmed, OrderCreated};
use contracts::payments::{
    AccountCredited, PaymentCompleted, PaymentFailed, PaymentFailure, PaymentRefunded,
};
use contracts::{
    Currency, CustomerId, DepositId, Line, Money, OrderId, PricedLine, ReceiptId, RequestHash, Sku,
};
use reel::kafka::Record;
use reel::model::{
    DeadlineChange, Event, Message, Partition, Partitions, Savepoint, Service, Timestamp,
    WorkingSet,
};
use reel::wire::{Envelope, Opened};
use uuid::Uuid;

use crate::audit::{Collected, DeadlineRow, Lane, OutboxRow, Side};

pub(super) const PARTITIONS: i32 = 3;
pub(super) const PRICE: i64 = 500;

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

pub(super) fn order_id(nth: u128) -> OrderId {
    OrderId::from(Uuid::from_u128(nth))
}

pub(super) fn anna() -> CustomerId {
    "anna".parse().unwrap()
}

pub(super) fn mug() -> Sku {
    "MUG".parse().unwrap()
}

pub(super) fn eur(cents: i64) -> Money {
    Money::new(cents, Currency::EUR)
}

pub(super) fn lines() -> Vec<Line> {
    vec![Line { sku: mug(), quantity: 2 }]
}

/// A service that has published nothing yet.
pub(super) fn empty<S: Service>(topic: &str) -> Side<S> {
    let lane = |partition| Lane {
        partition: Partition(partition),
        records: vec![],
        outbox: vec![],
        next_sequence: 0,
        next_sequence_after: 0,
    };
    let lanes = (0..PARTITIONS).map(lane).collect();
    let state = S::State::complete();
    let mut side = Side {
        topic: topic.into(),
        lanes,
        state,
        deadlines: vec![],
        parked: vec![],
        dead_letters: 0,
    };
    for partition in 0..PARTITIONS {
        side.open(partition);
    }
    side
}

impl Lane {
    pub(super) fn append(&mut self, key: Option<&str>, payload: Vec<u8>, envelope: Envelope) {
        let (offset, key) = (self.records.len() as i64, key.map(|key| key.as_bytes().to_vec()));
        let (topic, partition) = ("t".into(), self.partition);
        self.records.push(Record {
            topic,
            partition,
            offset,
            key,
            payload: Some(payload),
            envelope: Ok(envelope),
        });
    }

    pub(super) fn epoch(&self) -> i64 {
        self.records
            .iter()
            .rfind(|record| record.envelope.as_ref().unwrap().sequence.is_none())
            .unwrap()
            .offset
    }

    /// Appends an event again as a service would publish it, with something changed.
    pub(super) fn send_again(&mut self, nth_event: usize, change: impl FnOnce(&mut Envelope)) {
        let sequenced = |record: &&Record| record.envelope.as_ref().unwrap().sequence.is_some();
        let mut record = self.records.iter().filter(sequenced).nth(nth_event).unwrap().clone();
        record.offset = self.records.len() as i64;
        let envelope = record.envelope.as_mut().unwrap();
        envelope.epoch = Some(self.epoch());
        change(envelope);
        self.records.push(record);
    }
}

impl<S: Service> Side<S> {
    pub(super) fn open(&mut self, partition: i32) {
        let envelope =
            Envelope { id: Uuid::new_v4(), event_type: Opened::NAME.into(), ..Envelope::default() };
        self.lanes[usize::try_from(partition).unwrap()].append(None, vec![], envelope);
    }

    pub(super) fn lane_of(&mut self, key: &str) -> &mut Lane {
        let partition = Partitions::new(PARTITIONS).unwrap().of(key.as_bytes());
        &mut self.lanes[usize::try_from(partition.0).unwrap()]
    }

    /// Does what the toolkit does with an event: outbox, topic, tables, deadlines.
    pub(super) fn publish(&mut self, event: impl Into<S::Event>, second: i64) {
        let event = event.into();
        let key = reel::model::Keyed::key(&event);
        self.send(key.as_str(), event.name(), event.encode().unwrap(), second);
        S::evolve(&mut self.state, &event);
        self.state.each(&mut |table: &mut dyn Savepoint| table.release());
        let partition = self.lane_of(key.as_str()).partition.0;
        for change in S::deadlines(&event) {
            let name = match &change {
                DeadlineChange::Set { name, .. } | DeadlineChange::Clear { name } => {
                    (*name).to_owned()
                }
            };
            self.deadlines.retain(|row| (&row.key, &row.name) != (&key.to_string(), &name));
            if let DeadlineChange::Set { due_at, command, .. } = change {
                let command = serde_json::to_value(command).unwrap();
                self.deadlines.push(DeadlineRow {
                    partition,
                    key: key.to_string(),
                    name,
                    due_at,
                    command,
                });
            }
        }
    }

    pub(super) fn send(&mut self, key: &str, name: &str, payload: Vec<u8>, second: i64) {
        let lane = self.lane_of(key);
        let (sequence, epoch, id) = (lane.next_sequence, lane.epoch(), Uuid::new_v4());
        let recorded_at = Some(at(second));
        let envelope = Envelope {
            id,
            event_type: name.into(),
            recorded_at,
            sequence: Some(sequence),
            epoch: Some(epoch),
            ..Envelope::default()
        };
        lane.append(Some(key), payload, envelope);
        lane.outbox.push(OutboxRow { sequence, event_id: id });
        lane.next_sequence += 1;
        lane.next_sequence_after += 1;
    }
}

pub(super) fn created(nth: u128) -> OrderCreated {
    OrderCreated {
        order_id: order_id(nth),
        customer: anna(),
        lines: vec![PricedLine { sku: mug(), quantity: 2, unit_price: eur(PRICE) }],
        total: eur(2 * PRICE),
        placed_at: at(1),
        settle_by: at(900),
        request_hash: RequestHash::of(&"a request"),
    }
}

pub(super) fn cancelled(nth: u128, reason: CancelReason) -> OrderCancelled {
    OrderCancelled { order_id: order_id(nth), reason, detail: None }
}

pub(super) fn paid(nth: u128) -> PaymentCompleted {
    PaymentCompleted {
        order_id: order_id(nth),
        customer: anna(),
        amount: eur(2 * PRICE),
        lines: lines(),
    }
}

pub(super) fn refunded(nth: u128) -> PaymentRefunded {
    PaymentRefunded { order_id: order_id(nth), customer: anna(), amount: eur(2 * PRICE) }
}

pub(super) fn taken(nth: u128) -> InventoryUpdated {
    InventoryUpdated { order_id: order_id(nth), lines: lines() }
}

pub(super) fn failed(nth: u128, reason: InventoryFailure) -> InventoryFailed {
    InventoryFailed { order_id: order_id(nth), reason, short: vec![] }
}

/// One order of each ending: 1 confirmed, 2 without money, 3 without stock, 4 cancelled by its
/// customer after both were taken.
pub(super) fn whole() -> Collected {
    let mut shop = Collected {
        order: empty("orders"),
        payment: empty("payments"),
        inventory: empty("inventory"),
    };
    let request_hash = || RequestHash::of(&"a request");
    let deposit_id = DepositId::of_request(&"anna", "1");
    shop.payment.publish(
        AccountCredited {
            deposit_id,
            customer: anna(),
            amount: eur(10_000),
            request_hash: request_hash(),
        },
        0,
    );
    let receipt_id = ReceiptId::of_request(&"MUG", "1");
    shop.inventory.publish(
        StockReceived { receipt_id, sku: mug(), quantity: 10, request_hash: request_hash() },
        0,
    );
    (1..=4).for_each(|nth| shop.order.publish(created(nth), 1));

    shop.payment.publish(paid(1), 2);
    shop.inventory.publish(taken(1), 3);
    shop.order.publish(OrderConfirmed { order_id: order_id(1) }, 4);

    let reason = PaymentFailure::InsufficientFunds;
    shop.payment.publish(
        PaymentFailed { order_id: order_id(2), customer: anna(), amount: eur(2 * PRICE), reason },
        2,
    );
    shop.order.publish(cancelled(2, CancelReason::PaymentFailed), 3);
    shop.inventory.publish(failed(2, InventoryFailure::OrderCancelled), 4);

    shop.payment.publish(paid(3), 2);
    shop.inventory.publish(failed(3, InventoryFailure::OutOfStock), 3);
    shop.order.publish(cancelled(3, CancelReason::OutOfStock), 4);
    shop.payment.publish(refunded(3), 4);

    shop.payment.publish(paid(4), 2);
    shop.inventory.publish(taken(4), 3);
    shop.order.publish(cancelled(4, CancelReason::Customer), 3);
    shop.payment.publish(refunded(4), 4);
    shop.inventory.publish(InventoryRestored { order_id: order_id(4), lines: lines() }, 6);
    shop
}
