//! The three services, and one of something for each.

use std::fmt::{self, Display};
use std::ops::{Index, IndexMut};

use contracts::inventory::InventoryEvent;
use contracts::orders::OrderEvent;
use contracts::payments::PaymentEvent;
use inventory::domain::InventoryService;
use order::domain::OrderService;
use payment::domain::PaymentService;
use reel::model::Event;

/// A service of the order system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// Takes orders.
    Order,
    /// Takes money.
    Payment,
    /// Takes stock.
    Inventory,
}

/// One of something for each service.
#[derive(Debug, Clone, Default)]
pub struct PerService<T>([T; 3]);

impl Service {
    /// All of them, in the order in which an order meets them.
    pub const ALL: [Self; 3] = [Self::Order, Self::Payment, Self::Inventory];

    /// Its name, which is also that of its binary.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Order => <OrderService as reel::model::Service>::NAME,
            Self::Payment => <PaymentService as reel::model::Service>::NAME,
            Self::Inventory => <InventoryService as reel::model::Service>::NAME,
        }
    }

    /// The topic that it owns, without a deployment's prefix.
    #[must_use]
    pub const fn topic(self) -> &'static str {
        match self {
            Self::Order => <OrderEvent as Event>::TOPIC,
            Self::Payment => <PaymentEvent as Event>::TOPIC,
            Self::Inventory => <InventoryEvent as Event>::TOPIC,
        }
    }
}

impl Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl<T> PerService<T> {
    /// Made for each in turn.
    pub fn new(make: impl FnMut(Service) -> T) -> Self {
        Self(Service::ALL.map(make))
    }

    /// Made for each in turn, unless one cannot be made.
    ///
    /// # Errors
    /// The first.
    pub fn try_new<E>(mut make: impl FnMut(Service) -> Result<T, E>) -> Result<Self, E> {
        let [order, payment, inventory] = Service::ALL;
        Ok(Self([make(order)?, make(payment)?, make(inventory)?]))
    }

    /// Each with its service.
    pub fn iter(&self) -> impl Iterator<Item = (Service, &T)> {
        Service::ALL.into_iter().zip(&self.0)
    }
}

impl<T> Index<Service> for PerService<T> {
    type Output = T;

    fn index(&self, service: Service) -> &T {
        &self.0[service as usize]
    }
}

impl<T> IndexMut<Service> for PerService<T> {
    fn index_mut(&mut self, service: Service) -> &mut T {
        &mut self.0[service as usize]
    }
}
