//! The services of `services.toml`, and collections with one value for each.

use std::fmt::{self, Display};
use std::ops::{Index, IndexMut};
use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

static DEPLOYMENT: LazyLock<Deployment> = LazyLock::new(|| {
    toml::from_str(include_str!("../../../../services.toml")).expect("a test reads services.toml")
});

#[derive(Debug, Deserialize)]
struct Deployment {
    service: Vec<Definition>,
}

/// A table of `services.toml`, without what only compose/ needs.
#[derive(Debug, Deserialize)]
struct Definition {
    name: String,
    topic: String,
    scopes: Vec<String>,
}

/// A service of the deployment: its index in `services.toml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Service(usize);

/// One value for each service.
#[derive(Debug, Clone)]
pub struct PerService<T>(Vec<T>);

impl Service {
    /// The order service, which accepts orders.
    pub const ORDER: Self = Self(0);
    /// The payment service, which takes money.
    pub const PAYMENT: Self = Self(1);
    /// The inventory service, which takes stock.
    pub const INVENTORY: Self = Self(2);

    /// The services of the order saga, in the order in which an order reaches them.
    pub const SAGA: [Self; 3] = [Self::ORDER, Self::PAYMENT, Self::INVENTORY];

    /// Returns all services of the deployment.
    pub fn all() -> impl ExactSizeIterator<Item = Self> + Clone {
        (0..DEPLOYMENT.service.len()).map(Self)
    }

    /// Returns the service with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::all().find(|service| service.name() == name)
    }

    /// Returns its name, which is also the name of its binary and its database.
    #[must_use]
    pub fn name(self) -> &'static str {
        &self.definition().name
    }

    /// Returns the topic that it owns, without a deployment's prefix.
    #[must_use]
    pub fn topic(self) -> &'static str {
        &self.definition().topic
    }

    /// Returns the scopes that tokens of staff have for it.
    pub fn scopes(self) -> impl Iterator<Item = &'static str> {
        self.definition().scopes.iter().map(String::as_str)
    }

    /// Returns its index in `services.toml`.
    #[must_use]
    pub fn index(self) -> usize {
        self.0
    }

    fn definition(self) -> &'static Definition {
        &DEPLOYMENT.service[self.0]
    }
}

impl Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl From<Service> for String {
    fn from(service: Service) -> Self {
        service.name().to_owned()
    }
}

impl TryFrom<String> for Service {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::named(&name).ok_or_else(|| format!("services.toml has no service {name}"))
    }
}

impl<T> PerService<T> {
    /// Calls `make` for each service in turn.
    pub fn new(make: impl FnMut(Service) -> T) -> Self {
        Self(Service::all().map(make).collect())
    }

    /// Calls `make` for each service in turn, up to the first error.
    ///
    /// # Errors
    /// If `make` fails; with its first error.
    pub fn try_new<E>(make: impl FnMut(Service) -> Result<T, E>) -> Result<Self, E> {
        Service::all().map(make).collect::<Result<_, E>>().map(Self)
    }

    /// Returns each value with its service.
    pub fn iter(&self) -> impl Iterator<Item = (Service, &T)> {
        Service::all().zip(&self.0)
    }
}

impl<T: Default> Default for PerService<T> {
    fn default() -> Self {
        Self::new(|_| T::default())
    }
}

impl<T> Index<Service> for PerService<T> {
    type Output = T;

    fn index(&self, service: Service) -> &T {
        &self.0[service.0]
    }
}

impl<T> IndexMut<Service> for PerService<T> {
    fn index_mut(&mut self, service: Service) -> &mut T {
        &mut self.0[service.0]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use inventory::domain::InventoryService;
    use order::domain::OrderService;
    use payment::domain::PaymentService;
    use reel::model::{Event, Message};

    use super::*;

    /// Returns the name of a service, its topic, and the topics that it reads, as the code has
    /// them.
    fn in_code<S: reel::model::Service>() -> (&'static str, &'static str, BTreeSet<&'static str>) {
        let inputs = S::Input::types().iter().map(|input| input.topic);
        (S::NAME, <S::Event as Event>::TOPIC, inputs.collect())
    }

    #[test]
    fn services_toml_and_the_code_of_the_saga_agree() {
        #[derive(Deserialize)]
        struct Deployment {
            service: Vec<Declared>,
        }
        #[derive(Deserialize)]
        struct Declared {
            inputs: BTreeSet<String>,
        }
        let text = include_str!("../../../../services.toml");
        let declared: Deployment = toml::from_str(text).expect("it is TOML");
        let code =
            [in_code::<OrderService>(), in_code::<PaymentService>(), in_code::<InventoryService>()];
        for (service, (name, topic, inputs)) in Service::SAGA.into_iter().zip(code) {
            assert_eq!((service.name(), service.topic()), (name, topic));
            let declared = declared.service[service.0].inputs.iter().map(String::as_str);
            assert_eq!(declared.collect::<BTreeSet<_>>(), inputs, "the inputs of {name}");
        }
    }
}
