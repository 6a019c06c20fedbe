//! The production code of the three services.

use contracts::inventory::{InventoryEvent, InventoryFailure, StockReceived};
use contracts::orders::OrderEvent;
use contracts::payments::{AccountCredited, PaymentEvent, PaymentRefunded};
use contracts::{Currency, CustomerId, DepositId, Money, OrderId, ReceiptId, RequestHash, Sku};
use inventory::domain::{Inventory, InventoryInput, InventoryService, Reservation};
use order::domain::{
    OrderCommand, OrderInput, OrderService, Orders, PlaceOrder, RequestedLine,
    Status as OrderStatus,
};
use payment::domain::{PaymentInput, PaymentService, Payments, Status as PaymentStatus};
use reel_core::model::Message;
use uuid::Uuid;

use super::functions::Functions;
use super::interner::{Interner, Memo};
use super::{Command, DeadlineChange, Fact, Folded, Reaction, Services, Site};

/// Index of the order service among the sites.
pub const ORDER: usize = 0;
/// Index of the payment service among the sites.
pub const PAYMENT: usize = 1;
/// Index of the inventory service among the sites.
pub const INVENTORY: usize = 2;

const PRICE: i64 = 500;

/// Order, payment and inventory, with orders that share an account and a product.
#[derive(Debug)]
pub struct Shop {
    orders: usize,
    /// Numbers of orders for which there are money and stock, one pair per initial world.
    supplies: Vec<(i64, i64)>,
    refund_twice: bool,
    order: Functions<OrderService>,
    payment: Functions<PaymentService>,
    inventory: Functions<InventoryService>,
    events: Interner<Event>,
    reactions: Memo<(usize, Folded, Fact), Reaction>,
    decisions: Memo<(usize, Folded, usize, Command), Reaction>,
    folds: Memo<(usize, Folded, Fact), Folded>,
    between: Memo<[u16; 3], (Option<&'static str>, Option<&'static str>)>,
}

#[derive(Debug, Clone)]
enum Event {
    Order(OrderEvent),
    Payment(PaymentEvent),
    Inventory(InventoryEvent),
}

impl Shop {
    /// A shop with money and stock for some orders; each pair of `supplies` is an initial world.
    #[must_use]
    pub fn new(orders: usize, supplies: &[(i64, i64)], refund_twice: bool) -> Self {
        Self {
            orders,
            supplies: supplies.to_vec(),
            refund_twice,
            order: Functions::new(),
            payment: Functions::new(),
            inventory: Functions::new(),
            events: Interner::new(),
            reactions: Memo::new(),
            decisions: Memo::new(),
            folds: Memo::new(),
            between: Memo::new(),
        }
    }

    fn fact(&self, event: Event) -> Fact {
        Fact(self.events.intern(event))
    }

    fn reaction(&self, decided: Result<Option<Event>, String>) -> Reaction {
        match decided {
            Ok(Some(event)) => Reaction::Event(self.fact(event)),
            Ok(None) => Reaction::Nothing,
            Err(why) => Reaction::Impossible(why),
        }
    }

    fn react_to(&self, site: usize, state: Folded, event: &Event) -> Result<Option<Event>, String> {
        match site {
            ORDER => order_input(event).map_or(Ok(None), |input| {
                self.order.react(state, &input).map(|it| it.map(Event::Order))
            }),
            PAYMENT => payment_input(event)
                .map_or(Ok(None), |input| self.pay(state, &input).map(|it| it.map(Event::Payment))),
            _ => inventory_input(event).map_or(Ok(None), |input| {
                self.inventory.react(state, &input).map(|it| it.map(Event::Inventory))
            }),
        }
    }

    /// The reaction of the payment service, or the planted one that does not check whether the
    /// refund was already made.
    fn pay(&self, state: Folded, input: &PaymentInput) -> Result<Option<PaymentEvent>, String> {
        let compensates =
            matches!(input, PaymentInput::OrderCancelled(_) | PaymentInput::InventoryFailed(_));
        if self.refund_twice && compensates {
            let order_id = input.order_id();
            if let Some(paid) = self
                .payment
                .state(state)
                .payments
                .get(&order_id)
                .filter(|it| it.status == PaymentStatus::Refunded)
            {
                return Ok(Some(
                    PaymentRefunded {
                        order_id,
                        customer: paid.customer.clone(),
                        amount: paid.amount,
                    }
                    .into(),
                ));
            }
        }

        self.payment.react(state, input)
    }

    /// The first contradiction and the first unfinished saga between the states of all services.
    fn together(&self, states: &[Folded]) -> (Option<&'static str>, Option<&'static str>) {
        self.between.get_or_compute(
            [states[ORDER].0, states[PAYMENT].0, states[INVENTORY].0],
            || {
                let (order, payment) =
                    (self.order.state(states[ORDER]), self.payment.state(states[PAYMENT]));
                let inventory = self.inventory.state(states[INVENTORY]);
                let first =
                    |check: fn(&Orders, &Payments, &Inventory, OrderId) -> Option<&'static str>| {
                        (0..self.orders)
                            .find_map(|nth| check(&order, &payment, &inventory, order_id(nth)))
                    };
                (first(contradiction), first(unfinished))
            },
        )
    }
}

impl Services for Shop {
    fn sites(&self) -> Vec<Site> {
        let site = |name, inputs: [usize; 2]| Site {
            name,
            inputs: inputs.to_vec(),
            script: vec![vec![]; self.orders],
        };
        vec![
            site("order", [PAYMENT, INVENTORY]),
            site("payment", [ORDER, INVENTORY]),
            site("inventory", [ORDER, PAYMENT]),
        ]
    }

    fn initial_states(&self) -> Vec<Vec<Folded>> {
        let begin = |(money, stock)| {
            vec![
                self.order.fold([]),
                self.payment.fold(credited(money)),
                self.inventory.fold(received(stock)),
            ]
        };
        self.supplies.iter().copied().map(begin).collect()
    }

    fn commands(&self, site: usize) -> &'static [Command] {
        if site == ORDER { &[Command::Begin, Command::Cancel, Command::Expire] } else { &[] }
    }

    fn decide(&self, site: usize, state: Folded, lane: usize, command: Command) -> Reaction {
        self.decisions.get_or_compute((site, state, lane, command), || {
            let order_id = order_id(lane);
            let command = match command {
                Command::Begin => OrderCommand::PlaceOrder(place(order_id)),
                Command::Cancel => OrderCommand::CancelOrder { order_id },
                Command::Expire => OrderCommand::ExpireOrder { order_id },
            };
            self.reaction(Ok(self.order.decide(state, &command).map(Event::Order)))
        })
    }

    fn react(&self, site: usize, state: Folded, fact: Fact) -> Reaction {
        self.reactions.get_or_compute((site, state, fact), || {
            self.reaction(self.react_to(site, state, &self.events.value(fact.0)))
        })
    }

    fn evolve(&self, site: usize, state: Folded, fact: Fact) -> Folded {
        self.folds.get_or_compute((site, state, fact), || match &*self.events.value(fact.0) {
            Event::Order(event) => self.order.evolve(state, event),
            Event::Payment(event) => self.payment.evolve(state, event),
            Event::Inventory(event) => self.inventory.evolve(state, event),
        })
    }

    fn deadline(&self, _site: usize, fact: Fact) -> DeadlineChange {
        match &*self.events.value(fact.0) {
            Event::Order(event) => Functions::<OrderService>::deadline(event),
            Event::Payment(event) => Functions::<PaymentService>::deadline(event),
            Event::Inventory(event) => Functions::<InventoryService>::deadline(event),
        }
    }

    fn fault_in(&self, site: usize, state: Folded, whole: bool) -> Option<&'static str> {
        match site {
            PAYMENT => self.payment.fault(state, whole, money_fault),
            INVENTORY => self.inventory.fault(state, whole, stock_fault),
            _ => None,
        }
    }

    fn fault_between(&self, states: &[Folded]) -> Option<&'static str> {
        self.together(states).0
    }

    fn unfinished(&self, states: &[Folded]) -> Option<&'static str> {
        self.together(states).1
    }

    fn words(&self, fact: Fact) -> String {
        match &*self.events.value(fact.0) {
            Event::Order(event) => match event {
                OrderEvent::OrderCancelled(e) => {
                    format!("OrderCancelled({}) of {}", e.reason, nth(e.order_id))
                }
                OrderEvent::OrderCreated(e) => format!("{} of {}", event.name(), nth(e.order_id)),
                OrderEvent::OrderConfirmed(e) => format!("{} of {}", event.name(), nth(e.order_id)),
            },
            Event::Payment(event) => match event {
                PaymentEvent::PaymentCompleted(e) => {
                    format!("{} of {}", event.name(), nth(e.order_id))
                }
                PaymentEvent::PaymentFailed(e) => {
                    format!("PaymentFailed({}) of {}", e.reason, nth(e.order_id))
                }
                PaymentEvent::PaymentRefunded(e) => {
                    format!("{} of {}", event.name(), nth(e.order_id))
                }
                PaymentEvent::AccountCredited(_) => event.name().to_owned(),
            },
            Event::Inventory(event) => match event {
                InventoryEvent::InventoryUpdated(e) => {
                    format!("{} of {}", event.name(), nth(e.order_id))
                }
                InventoryEvent::InventoryFailed(e) => {
                    format!("InventoryFailed({}) of {}", e.reason, nth(e.order_id))
                }
                InventoryEvent::InventoryRestored(e) => {
                    format!("{} of {}", event.name(), nth(e.order_id))
                }
                InventoryEvent::StockReceived(_) => event.name().to_owned(),
            },
        }
    }
}

fn order_input(event: &Event) -> Option<OrderInput> {
    match event {
        Event::Payment(PaymentEvent::PaymentFailed(e)) => Some(e.clone().into()),
        Event::Inventory(InventoryEvent::InventoryUpdated(e)) => Some(e.clone().into()),
        Event::Inventory(InventoryEvent::InventoryFailed(e)) => Some(e.clone().into()),
        _ => None,
    }
}

fn payment_input(event: &Event) -> Option<PaymentInput> {
    match event {
        Event::Order(OrderEvent::OrderCreated(e)) => Some(e.clone().into()),
        Event::Order(OrderEvent::OrderCancelled(e)) => Some(e.clone().into()),
        Event::Inventory(InventoryEvent::InventoryFailed(e)) => Some(e.clone().into()),
        _ => None,
    }
}

fn inventory_input(event: &Event) -> Option<InventoryInput> {
    match event {
        Event::Payment(PaymentEvent::PaymentCompleted(e)) => Some(e.clone().into()),
        Event::Order(OrderEvent::OrderCancelled(e)) => Some(e.clone().into()),
        _ => None,
    }
}

/// Checks that money is conserved: deposits equal the balance plus what orders hold.
fn money_fault(state: &Payments, whole: bool) -> Option<&'static str> {
    let held: i64 = state
        .payments
        .iter()
        .filter(|(_, it)| it.status == PaymentStatus::Completed)
        .map(|(_, it)| it.amount.amount)
        .sum();
    let account = state
        .accounts
        .get(&customer())
        .map_or((0, 0), |account| (account.deposited, account.balance));
    match account {
        (deposited, balance) if deposited != balance + held => {
            Some("deposits do not equal the balance plus what orders hold")
        }
        (_, balance) if whole && balance < 0 => Some("the account is below zero"),
        _ => None,
    }
}

/// Checks that stock is conserved: receipts equal the stock on hand plus what orders hold.
fn stock_fault(state: &Inventory, whole: bool) -> Option<&'static str> {
    let lines = state.reservations.iter().flat_map(|(_, it)| it.taken());
    let held: i64 = lines.map(|line| line.quantity).sum();
    let stock = state.stock.get(&product()).cloned().unwrap_or_default();
    if stock.received != stock.on_hand + held || stock.taken != held {
        Some("receipts do not equal the stock on hand plus what orders hold")
    } else if whole && stock.on_hand < 0 {
        Some("the stock is below zero")
    } else {
        None
    }
}

fn contradiction(
    orders: &Orders,
    payments: &Payments,
    inventory: &Inventory,
    id: OrderId,
) -> Option<&'static str> {
    let confirmed =
        orders.orders.get(&id).is_some_and(|order| order.status == OrderStatus::Confirmed);
    let refunded = payments
        .payments
        .get(&id)
        .is_some_and(|payment| payment.status != PaymentStatus::Completed);
    let restored =
        inventory.reservations.get(&id).is_some_and(|reservation| reservation.taken().is_empty());
    match confirmed {
        true if refunded => {
            Some("an order is confirmed, but its money was refunded or never taken")
        }
        true if restored => {
            Some("an order is confirmed, but its stock was restored or never taken")
        }
        _ => None,
    }
}

fn unfinished(
    orders: &Orders,
    payments: &Payments,
    inventory: &Inventory,
    id: OrderId,
) -> Option<&'static str> {
    let status = orders.orders.get(&id).map(|order| &order.status);
    let money = payments.payments.get(&id).map(|payment| payment.status);
    let stock = inventory.reservations.get(&id);
    match (status, money, stock) {
        (None, None, None) => None,
        (None, ..) => Some("money or stock is held for an unknown order"),
        (Some(OrderStatus::Open), ..) => Some("an order stays open: only its deadline can end it"),
        (
            Some(OrderStatus::Confirmed),
            Some(PaymentStatus::Completed),
            Some(Reservation::Taken { .. }),
        ) => None,
        (Some(OrderStatus::Confirmed), ..) => {
            Some("an order is confirmed, but does not hold its money and its stock")
        }
        (
            Some(OrderStatus::Cancelled { .. }),
            Some(PaymentStatus::Failed(_) | PaymentStatus::Refunded),
            Some(
                Reservation::Failed {
                    reason: InventoryFailure::OrderCancelled | InventoryFailure::OutOfStock,
                    ..
                }
                | Reservation::Restored { .. },
            ),
        ) => None,
        (Some(OrderStatus::Cancelled { .. }), ..) => Some("a cancelled order is never compensated"),
    }
}

fn place(order_id: OrderId) -> PlaceOrder {
    let line = RequestedLine { sku: product(), quantity: 1, unit_price: Some(eur(PRICE)) };
    let settle_within = std::time::Duration::from_secs(900);
    PlaceOrder {
        order_id,
        customer: customer(),
        lines: vec![line],
        settle_within,
        request_hash: RequestHash::of(&"an order"),
    }
}

fn credited(orders: i64) -> Option<PaymentEvent> {
    let deposit_id = DepositId::from(Uuid::from_u128(1));
    let amount = eur(orders * PRICE);
    let request_hash = RequestHash::of(&"a deposit");
    (orders > 0)
        .then(|| AccountCredited { deposit_id, customer: customer(), amount, request_hash }.into())
}

fn received(orders: i64) -> Option<InventoryEvent> {
    let receipt_id = ReceiptId::from(Uuid::from_u128(1));
    let request_hash = RequestHash::of(&"a receipt");
    (orders > 0).then(|| {
        StockReceived { receipt_id, sku: product(), quantity: orders, request_hash }.into()
    })
}

fn order_id(lane: usize) -> OrderId {
    OrderId::from(Uuid::from_u128(lane as u128 + 1))
}

fn nth(order_id: OrderId) -> String {
    format!("order {}", order_id.uuid().as_u128())
}

fn customer() -> CustomerId {
    "anna".parse().expect("a customer")
}

fn product() -> Sku {
    "MUG".parse().expect("a sku")
}

fn eur(cents: i64) -> Money {
    Money::new(cents, Currency::EUR)
}
