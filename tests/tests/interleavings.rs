//! Every saga ends confirmed or undone, whatever order events arrive in, and no money or stock is
//! lost or created.
//!
//! The three services' own functions run on complete states. Events of one key in one topic keep
//! their order, as in Kafka; all others interleave freely. In between, customers order, cancel and
//! retry, deadlines fire, and messages arrive after them. Services also lose their databases, rebuild them from their topics,
//! and then read inputs again that had no effect. Proptest chooses the schedule and shrinks it.

use std::collections::BTreeMap;
use std::time::Duration;

use contracts::orders::OrderEvent;
use contracts::payments::PaymentEvent;
use contracts::{Currency, CustomerId, DepositId, Money, OrderId, ReceiptId, RequestHash, Sku};
use inventory::domain::{Inventory, InventoryCommand, InventoryService, Reservation};
use order::domain::{OrderCommand, OrderService, Orders, PlaceOrder, RequestedLine};
use payment::domain::{PaymentCommand, PaymentService, Payments};
use proptest::collection::vec;
use proptest::prelude::*;
use reel::model::{DeadlineChange, Event, Key, Keyed, Message, Service, Timestamp, WorkingSet};

/// One service: its state, its topic and its pending inputs.
struct Node<S: Service> {
    state: S::State,
    topic: Vec<S::Event>,
    inboxes: BTreeMap<(Key, &'static str), Inbox<S::Input>>,
    show: fn(&S::State) -> String,
}

/// The events of one key in one input topic.
struct Inbox<I> {
    messages: Vec<I>,
    next: usize,
    /// Position after the last message that had an effect. A rebuilt database continues from here,
    /// because its events carry their causes.
    after_effect: usize,
}

impl<S: Service> Node<S> {
    fn new(show: fn(&S::State) -> String) -> Self {
        Self { state: S::State::complete(), topic: Vec::new(), inboxes: BTreeMap::new(), show }
    }

    /// Delivers an event of another service to the inbox, encoded and decoded as on the wire, if
    /// this service handles its type.
    fn offer<E: Event>(&mut self, event: &E) {
        let Some(known) = S::Input::types()
            .iter()
            .find(|known| known.topic == E::TOPIC && known.name == event.name())
        else {
            return;
        };
        let input =
            S::Input::decode(known.name, &event.encode().expect("an event fits its schema"))
                .expect("an encoded event can be decoded");
        let empty = || Inbox { messages: Vec::new(), next: 0, after_effect: 0 };
        self.inboxes.entry((event.key(), known.topic)).or_insert_with(empty).messages.push(input);
    }

    fn waiting(&self) -> impl Iterator<Item = &(Key, &'static str)> {
        self.inboxes
            .iter()
            .filter(|(_, inbox)| inbox.next < inbox.messages.len())
            .map(|(key, _)| key)
    }

    /// Handles the next message of an inbox, and then again, which must have no effect.
    fn deliver(&mut self, key: &(Key, &'static str), arrival: Arrival) -> Option<S::Event> {
        let inbox = self.inboxes.get_mut(key).expect("an inbox");
        let message = &inbox.messages[inbox.next];
        let react = |state: &S::State| match arrival {
            Arrival::InTime => S::react(state, message, Timestamp::default()),
            Arrival::Expired => S::react_expired(state, message, Timestamp::default()),
        };
        let event = react(&self.state).unwrap_or_else(|impossible| {
            panic!("{} reports an impossible input: {impossible}", S::NAME)
        });
        inbox.next += 1;
        if let Some(event) = &event {
            assert_eq!(event.key(), message.key(), "the effect must have the key of its cause");
            inbox.after_effect = inbox.next;
            S::evolve(&mut self.state, event);
            self.topic.push(event.clone());
            assert!(
                matches!(react(&self.state), Ok(None)),
                "{} handles {message:?} twice",
                S::NAME
            );
        }

        event
    }

    /// Decides a command, and then again, which must have no effect.
    fn decide(&mut self, command: &S::Command) -> Option<S::Event> {
        let event = S::decide(&self.state, command, Timestamp::default()).ok().flatten()?;
        S::evolve(&mut self.state, &event);
        self.topic.push(event.clone());
        assert!(
            matches!(S::decide(&self.state, command, Timestamp::default()), Ok(None)),
            "{} does {command:?} twice",
            S::NAME
        );
        Some(event)
    }

    /// Rebuilds a lost database: folds the topic partition by partition, and goes back to inputs
    /// that had no effect.
    fn rebuild(&mut self, partitions: usize) {
        let partition = |event: &S::Event| {
            event.key().as_str().bytes().map(usize::from).sum::<usize>() % partitions
        };
        let mut state = S::State::complete();
        for nth in 0..partitions {
            self.topic
                .iter()
                .filter(|event| partition(event) == nth)
                .for_each(|event| S::evolve(&mut state, event));
        }

        assert_eq!(
            (self.show)(&state),
            (self.show)(&self.state),
            "the state of {} must be the fold of its topic",
            S::NAME
        );
        self.state = state;
        self.inboxes.values_mut().for_each(|inbox| inbox.next = inbox.after_effect);
    }
}

struct World {
    order: Node<OrderService>,
    payment: Node<PaymentService>,
    inventory: Node<InventoryService>,
    commands: Vec<Command>,
    deadlines: BTreeMap<(Key, &'static str), OrderCommand>,
}

#[derive(Debug, Clone)]
enum Command {
    Order(OrderCommand),
    Payment(PaymentCommand),
    Inventory(InventoryCommand),
}

/// Whether a message arrives before the deadline of its saga, by the clock of the service.
#[derive(Clone, Copy)]
enum Arrival {
    InTime,
    Expired,
}

enum Action {
    Command(usize),
    Order((Key, &'static str)),
    Payment((Key, &'static str), Arrival),
    Inventory((Key, &'static str), Arrival),
    Deadline((Key, &'static str)),
    Rebuild(usize),
}

impl World {
    fn new(commands: Vec<Command>) -> Self {
        Self {
            order: Node::new(|state: &Orders| {
                format!("{:?}", state.orders.iter().collect::<Vec<_>>())
            }),
            payment: Node::new(|state: &Payments| {
                let (payments, accounts, deposits) =
                    (state.payments.iter(), state.accounts.iter(), state.deposits.iter());
                format!(
                    "{:?}",
                    (
                        payments.collect::<Vec<_>>(),
                        accounts.collect::<Vec<_>>(),
                        deposits.collect::<Vec<_>>()
                    )
                )
            }),
            inventory: Node::new(|state: &Inventory| {
                let (reservations, stock, receipts) =
                    (state.reservations.iter(), state.stock.iter(), state.receipts.iter());
                format!(
                    "{:?}",
                    (
                        reservations.collect::<Vec<_>>(),
                        stock.collect::<Vec<_>>(),
                        receipts.collect::<Vec<_>>()
                    )
                )
            }),
            commands,
            deadlines: BTreeMap::new(),
        }
    }

    /// The actions that must still happen before the system is quiet, and those that may.
    fn actions(&self) -> (Vec<Action>, Vec<Action>) {
        let must = (0..self.commands.len()).map(Action::Command);
        let must = must.chain(self.order.waiting().cloned().map(Action::Order));
        let payment = |arrival| move |key| Action::Payment(key, arrival);
        let inventory = |arrival| move |key| Action::Inventory(key, arrival);
        let must = must.chain(self.payment.waiting().cloned().map(payment(Arrival::InTime)));
        let must = must.chain(self.inventory.waiting().cloned().map(inventory(Arrival::InTime)));

        let may = self.deadlines.keys().cloned().map(Action::Deadline);
        let may = may.chain(self.payment.waiting().cloned().map(payment(Arrival::Expired)));
        let may = may.chain(self.inventory.waiting().cloned().map(inventory(Arrival::Expired)));
        let may = may.chain((1..=3).map(Action::Rebuild));
        (must.collect(), may.collect())
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Command(nth) => match self.commands.swap_remove(nth) {
                Command::Order(command) => self.decide_order(&command),
                Command::Payment(command) => drop(self.payment.decide(&command)),
                Command::Inventory(command) => drop(self.inventory.decide(&command)),
            },
            Action::Order(key) => {
                let event = self.order.deliver(&key, Arrival::InTime);
                self.publish_order(event);
            }
            Action::Payment(key, arrival) => {
                if let Some(event) = self.payment.deliver(&key, arrival) {
                    self.order.offer(&event);
                    self.inventory.offer(&event);
                }
            }
            Action::Inventory(key, arrival) => {
                if let Some(event) = self.inventory.deliver(&key, arrival) {
                    self.order.offer(&event);
                    self.payment.offer(&event);
                }
            }
            Action::Deadline(key) => {
                let command = self.deadlines.remove(&key).expect("a deadline");
                self.decide_order(&command);
            }
            Action::Rebuild(partitions) => {
                self.order.rebuild(partitions);
                self.payment.rebuild(partitions);
                self.inventory.rebuild(partitions);
            }
        }

        assert!(
            self.payment.state.accounts.iter().all(|(_, account)| account.balance >= 0),
            "an account is overdrawn"
        );
        assert!(
            self.inventory.state.stock.iter().all(|(_, stock)| stock.on_hand >= 0),
            "more stock was taken than was on hand"
        );
    }

    fn decide_order(&mut self, command: &OrderCommand) {
        let event = self.order.decide(command);
        self.publish_order(event);
    }

    fn publish_order(&mut self, event: Option<OrderEvent>) {
        let Some(event) = event else { return };
        for change in OrderService::deadlines(&event) {
            match change {
                DeadlineChange::Set { name, command, .. } => {
                    drop(self.deadlines.insert((event.key(), name), command));
                }
                DeadlineChange::Clear { name } => drop(self.deadlines.remove(&(event.key(), name))),
            }
        }
        self.payment.offer(&event);
        self.inventory.offer(&event);
    }

    /// Checks that every order is confirmed or undone, and that money and stock agree with the
    /// orders.
    fn check_the_end(&self) {
        assert!(self.deadlines.is_empty(), "a settled order must have no deadline");
        let (payments, reservations) =
            (&self.payment.state.payments, &self.inventory.state.reservations);
        for (id, order) in self.order.state.orders.iter() {
            let (payment, reservation) = (
                payments.get(id).map(|payment| payment.status.name()),
                reservations.get(id).map(Reservation::name),
            );
            match order.status.name() {
                "confirmed" => assert_eq!(
                    (payment, reservation),
                    (Some("completed"), Some("taken")),
                    "{id} is confirmed"
                ),
                "cancelled" => {
                    assert!(
                        matches!(payment, Some("failed" | "refunded")),
                        "{id} is cancelled, its payment {payment:?}"
                    );
                    assert!(
                        matches!(reservation, Some("failed" | "restored")),
                        "{id} is cancelled, its stock {reservation:?}"
                    );
                }
                other => panic!("{id} is {other}, although every event has arrived"),
            }
        }

        for (customer, account) in self.payment.state.accounts.iter() {
            let spent = payments.iter().filter(|(_, payment)| {
                payment.customer == *customer && payment.status.name() == "completed"
            });
            assert_eq!(
                account.deposited,
                account.balance + spent.map(|(_, payment)| payment.amount.amount).sum::<i64>(),
                "{customer}"
            );
            let credited = self.payment.topic.iter().map(|event| match event {
                PaymentEvent::AccountCredited(e) if e.customer == *customer => e.amount.amount,
                _ => 0,
            });
            assert_eq!(account.deposited, credited.sum::<i64>(), "{customer}");
        }

        for (sku, stock) in self.inventory.state.stock.iter() {
            let lines = reservations
                .iter()
                .flat_map(|(_, reservation)| reservation.taken())
                .filter(|line| line.sku == *sku);
            assert_eq!(
                (stock.taken, stock.received),
                (lines.map(|line| line.quantity).sum(), stock.on_hand + stock.taken),
                "{sku}"
            );
        }

        self.check_each_event_was_published_once();
    }

    /// Checks that each service published each kind of event at most once for a saga. Deposits and
    /// receipts belong to no saga.
    fn check_each_event_was_published_once(&self) {
        let mut counts: BTreeMap<(Key, &str), usize> = BTreeMap::new();
        let payments = self.payment.topic.iter().map(|event| (event.key(), event.name()));
        let inventory = self.inventory.topic.iter().map(|event| (event.key(), event.name()));
        let orders = self.order.topic.iter().map(|event| (event.key(), event.name()));

        for event in payments
            .chain(inventory)
            .chain(orders)
            .filter(|(_, name)| !matches!(*name, "AccountCredited" | "StockReceived"))
        {
            let times = counts.entry(event.clone()).or_default();
            *times += 1;
            assert_eq!(*times, 1, "{event:?} was published twice");
        }
    }
}

fn customer(nth: usize) -> CustomerId {
    ["anna", "bert", "carl"][nth].parse().expect("a customer")
}

fn sku(nth: usize) -> Sku {
    ["A", "B", "C"][nth].parse().expect("a sku")
}

prop_compose! {
    fn ordering()(
        nth in 0..1000u32,
        buyer in 0..3usize,
        lines in vec((0..3usize, 1..4i64), 1..4),
        retried: bool,
        cancelled: bool,
    ) -> Vec<Command> {
        let order_id = OrderId::of_request(&customer(buyer), &nth.to_string());
        let price = Some(Money::new(100, Currency::EUR));
        let line = |(product, quantity)| {
            RequestedLine { sku: sku(product), quantity, unit_price: price }
        };
        let place = OrderCommand::PlaceOrder(PlaceOrder {
            order_id,
            customer: customer(buyer),
            lines: lines.into_iter().map(line).collect(),
            settle_within: Duration::from_secs(1),
            request_hash: RequestHash::of(&nth),
        });
        let retry = retried.then(|| place.clone());
        let cancel = cancelled.then_some(OrderCommand::CancelOrder { order_id });
        [Some(place), retry, cancel].into_iter().flatten().map(Command::Order).collect()
    }
}

prop_compose! {
    /// Carl's account is in another currency.
    fn deposit()(
        nth in 0..1000u32,
        owner in 0..3usize,
        amount in 1..1500i64,
        times in 1..3usize,
    ) -> Vec<Command> {
        let currency = if owner == 2 { "SEK".parse().expect("a currency") } else { Currency::EUR };
        let deposit = PaymentCommand::Deposit {
            deposit_id: DepositId::of_request(&customer(owner), &nth.to_string()),
            customer: customer(owner),
            amount: Money::new(amount, currency),
            request_hash: RequestHash::of(&nth),
        };
        vec![Command::Payment(deposit); times]
    }
}

prop_compose! {
    fn receipt()(
        nth in 0..1000u32,
        product in 0..3usize,
        quantity in 1..8i64,
        times in 1..3usize,
    ) -> Vec<Command> {
        let receipt = InventoryCommand::ReceiveStock {
            receipt_id: ReceiptId::of_request(&sku(product), &nth.to_string()),
            sku: sku(product),
            quantity,
            request_hash: RequestHash::of(&nth),
        };
        vec![Command::Inventory(receipt); times]
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 1_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_interleaving_ends_with_each_order_confirmed_or_undone(
        orders in vec(ordering(), 1..7),
        deposits in vec(deposit(), 0..6),
        receipts in vec(receipt(), 0..6),
        choices in vec(any::<u16>(), 0..300),
    ) {
        let mut world = World::new([orders, deposits, receipts].concat().concat());
        for choice in choices {
            let (must, may) = world.actions();
            let mut actions: Vec<Action> = must.into_iter().chain(may).collect();
            world.act(actions.swap_remove(usize::from(choice) % actions.len()));
        }
        while let Some(next) = world.actions().0.into_iter().next() {
            world.act(next);
        }
        world.check_the_end();
    }
}
