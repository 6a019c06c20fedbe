//! Which worlds are explored, how far, and what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

use crate::plant::Plant;
use crate::services::Services;
use crate::services::ledger::{LEDGER, Ledger};
use crate::services::shop::{INVENTORY, ORDER, PAYMENT, Shop};
use crate::story;
use crate::world::{Budget, Limit, Rules};

/// A kind of world, and how much of it is explored.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What goes on in it.
    pub about: &'static str,
    services: Made,
    laned: &'static [usize],
    lanes: usize,
    budget: Budget,
    in_flight: usize,
    cancels: bool,
}

#[derive(Debug, Clone)]
enum Made {
    Shop(&'static [(i64, i64)]),
    Ledger { looks: bool, pays_in: bool },
}

/// What exploring came to.
#[derive(Debug)]
pub struct Explored {
    /// How many different states were met.
    pub states: usize,
    /// How many steps the longest of the shortest ways to a state has.
    pub depth: usize,
    /// Whether all states within the faults allowed were met.
    pub whole: bool,
    /// How long it took.
    pub took: Duration,
    /// The properties that were broken, each with its story.
    pub broken: Vec<(&'static str, Vec<String>)>,
}

/// How far to go.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// So many states.
    pub states: usize,
    /// So long.
    pub time: Duration,
    /// On so many threads.
    pub threads: usize,
}

const NO_FAULTS: Budget = Budget { resends: 0, crashes: 0, takes: 0, rewinds: 0, aborts: 0, twice: 0 };

/// One after the other: small ones first.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let saga =
        |name, about, services, lanes, budget| Scenario { name, about, services, laned: &[], lanes, budget, in_flight: 1, cancels: true };
    let laned =
        |name, about, laned, budget| Scenario { laned, in_flight: 1, ..saga(name, about, Made::Shop(&[(1, 1), (1, 0)]), 1, budget) };
    let log = |name, about, looks, lanes, in_flight, budget| Scenario {
        laned: &[LEDGER],
        in_flight,
        cancels: false,
        ..saga(name, about, Made::Ledger { looks, pays_in: false }, lanes, budget)
    };
    let (zombie, rewind) = (Budget { takes: 1, crashes: 1, ..NO_FAULTS }, Budget { rewinds: 1, ..NO_FAULTS });
    let both = Budget { takes: 1, rewinds: 1, ..NO_FAULTS };
    let every = Budget { takes: 1, rewinds: 1, crashes: 1, ..NO_FAULTS };
    let one = Made::Shop(&[(0, 0), (0, 1), (1, 0), (1, 1)]);
    let two = Made::Shop(&[(1, 1), (1, 2), (2, 1), (2, 2)]);
    let repeats = Budget { resends: 2, crashes: 1, aborts: 1, twice: 1, ..NO_FAULTS };
    vec![
        saga("saga-one", "one order: cancel, deadline, relays that repeat, a request that comes twice", one, 1, repeats),
        saga("saga-two", "two orders that share an account and a product", two.clone(), 2, NO_FAULTS),
        saga("saga-two-repeats", "the same, and a relay that repeats", two, 2, Budget { resends: 1, ..NO_FAULTS }),
        log("log-zombie", "one lane: a replica takes it from a live one, a replica dies", true, 1, 2, zombie),
        log("log-rewind", "one lane: its database goes back in time under live replicas", true, 1, 2, rewind),
        log("log-both", "one lane: a taking and a rewind", true, 1, 2, both),
        log("log-two-takes", "one lane: two takings and a rewind", false, 1, 1, Budget { takes: 2, ..both }),
        log("log-every", "one lane: a taking, a crash and a rewind", true, 1, 2, every),
        log("log-shared-zombie", "two lanes that share an account: a taking and a crash", false, 2, 1, zombie),
        log("log-shared-rewind", "two lanes that share an account: a rewind", false, 2, 1, rewind),
        log("log-shared-both", "two lanes that share an account: a taking and a rewind", false, 2, 1, both),
        laned("order-zombie", "one order, and a zombie of the order service", &[ORDER], zombie),
        laned("order-rewind", "one order, and the order service's database goes back", &[ORDER], rewind),
        laned("order-both", "one order, a zombie of the order service and a rewind", &[ORDER], both),
        laned("payment-zombie", "one order, and a zombie of the payment service", &[PAYMENT], zombie),
        laned("payment-rewind", "one order, and the payment service's database goes back", &[PAYMENT], rewind),
        laned("payment-both", "one order, a zombie of the payment service and a rewind", &[PAYMENT], both),
        laned("inventory-zombie", "one order, and a zombie of the inventory service", &[INVENTORY], zombie),
        laned("inventory-rewind", "one order, and the inventory service's database goes back", &[INVENTORY], rewind),
        laned("inventory-both", "one order, a zombie of the inventory service and a rewind", &[INVENTORY], both),
        Scenario {
            lanes: 2,
            services: Made::Shop(&[(1, 2)]),
            ..laned("two-payment-rewind", "two orders, money for one, and payment's database goes back", &[PAYMENT], rewind)
        },
    ]
}

/// The limit of the design: a deposit that was not relayed is lost with the database, and what was spent of it in another lane is not.
#[must_use]
pub fn a_deposit_lost_with_the_database() -> Scenario {
    Scenario {
        name: "lost-deposit",
        about: "money paid in is lost with the database, and what another lane spent of it is not",
        services: Made::Ledger { looks: false, pays_in: true },
        laned: &[LEDGER],
        lanes: 2,
        budget: Budget { rewinds: 1, ..NO_FAULTS },
        in_flight: 1,
        cancels: false,
    }
}

/// Those that end in seconds, and the beginnings of the larger ones that matter: two orders, zombies, two orders and a rewind.
#[must_use]
pub fn quick() -> Vec<Scenario> {
    let in_full = ["saga-two-repeats", "log-every", "log-shared-both", "order-both", "payment-both", "inventory-both"];
    all().into_iter().filter(|scenario| !in_full.contains(&scenario.name)).collect()
}

impl Scenario {
    /// The rules of its worlds.
    #[must_use]
    pub fn rules(&self, plant: Option<Plant>) -> Rules {
        let services: Arc<dyn Services> = match self.services {
            Made::Shop(supplies) => Arc::new(Shop::new(self.lanes, supplies, plant == Some(Plant::RefundTwice))),
            Made::Ledger { looks, pays_in } => Arc::new(Ledger::new(self.lanes, looks, pays_in)),
        };
        let sites = services.sites();
        let laned = (0..sites.len()).map(|site| self.laned.contains(&site)).collect();
        let (lanes, budget, in_flight, cancels) = (self.lanes, self.budget, self.in_flight, self.cancels);
        Rules { services, sites, lanes, laned, budget, in_flight, cancels, limit: None, plant }
    }

    /// Explores it, breadth first, so that a story is as short as can be (on one thread).
    #[must_use]
    pub fn explore(&self, plant: Option<Plant>, bounds: Bounds) -> Explored {
        let began = Instant::now();
        // The checker's own timeout is only seen where threads share work.
        let limit = Arc::new(Limit::at(began + bounds.time));
        let rules = Rules { limit: Some(limit.clone()), ..self.rules(plant) };
        let checker = rules
            .clone()
            .checker()
            .threads(bounds.threads)
            .target_state_count(bounds.states)
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        limit.lift();
        let mut broken: Vec<_> =
            checker.discoveries().into_iter().map(|(name, path)| (name, story::lines(&rules, &path.into_vec()))).collect();
        broken.sort_by_key(|(_, story)| story.len());
        let took = began.elapsed();
        let whole = broken.is_empty() && took < bounds.time && checker.state_count() < bounds.states;
        Explored { states: checker.unique_state_count(), depth: checker.max_depth(), whole, took, broken }
    }
}
