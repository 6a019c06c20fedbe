//! The worlds that are explored, how far, and with what result.

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
    /// The name, which `--only` selects by.
    pub name: &'static str,
    /// What happens in it, in a few words.
    pub about: &'static str,
    services: Setup,
    laned: &'static [usize],
    lanes: usize,
    budget: Budget,
    in_flight: usize,
    cancels: bool,
}

#[derive(Debug, Clone)]
enum Setup {
    Shop(&'static [(i64, i64)]),
    Ledger { no_op_first: bool, pays_in: bool },
}

/// The result of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// Number of different states.
    pub states: usize,
    /// Length of the longest of the shortest paths to a state.
    pub depth: usize,
    /// Whether all states within the budget of faults were explored.
    pub whole: bool,
    /// Wall-clock time.
    pub took: Duration,
    /// The broken properties, each with its story.
    pub broken: Vec<(&'static str, Vec<String>)>,
}

/// Bounds of an exploration.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of states.
    pub states: usize,
    /// Maximum time.
    pub time: Duration,
    /// Number of threads.
    pub threads: usize,
}

const NO_FAULTS: Budget =
    Budget { resends: 0, crashes: 0, acquisitions: 0, rewinds: 0, aborts: 0, twice: 0 };

/// All scenarios, small ones first.
#[must_use]
pub fn all() -> Vec<Scenario> {
    let saga = |name, about, services, lanes, budget| Scenario {
        name,
        about,
        services,
        laned: &[],
        lanes,
        budget,
        in_flight: 1,
        cancels: true,
    };
    let laned = |name, about, laned, budget| Scenario {
        laned,
        in_flight: 1,
        ..saga(name, about, Setup::Shop(&[(1, 1), (1, 0)]), 1, budget)
    };
    let log = |name, about, no_op_first, lanes, in_flight, budget| Scenario {
        laned: &[LEDGER],
        in_flight,
        cancels: false,
        ..saga(name, about, Setup::Ledger { no_op_first, pays_in: false }, lanes, budget)
    };

    let (zombie, rewind) =
        (Budget { acquisitions: 1, crashes: 1, ..NO_FAULTS }, Budget { rewinds: 1, ..NO_FAULTS });
    let both = Budget { acquisitions: 1, rewinds: 1, ..NO_FAULTS };
    let every = Budget { acquisitions: 1, rewinds: 1, crashes: 1, ..NO_FAULTS };

    let one = Setup::Shop(&[(0, 0), (0, 1), (1, 0), (1, 1)]);
    let two = Setup::Shop(&[(1, 1), (1, 2), (2, 1), (2, 2)]);
    let repeats = Budget { resends: 2, crashes: 1, aborts: 1, twice: 1, ..NO_FAULTS };

    vec![
        saga(
            "saga-one",
            "one order: cancel, deadline, relays that send again, a request that comes twice",
            one,
            1,
            repeats,
        ),
        saga(
            "saga-two",
            "two orders that share an account and a product",
            two.clone(),
            2,
            NO_FAULTS,
        ),
        saga(
            "saga-two-repeats",
            "the same, and a relay that sends again",
            two,
            2,
            Budget { resends: 1, ..NO_FAULTS },
        ),
        log(
            "log-zombie",
            "one lane: a replica acquires it from a live one, a replica dies",
            true,
            1,
            2,
            zombie,
        ),
        log(
            "log-rewind",
            "one lane: its database is rewound under live replicas",
            true,
            1,
            2,
            rewind,
        ),
        log("log-both", "one lane: an acquisition and a rewind", true, 1, 2, both),
        log(
            "log-two-takes",
            "one lane: two acquisitions and a rewind",
            false,
            1,
            1,
            Budget { acquisitions: 2, ..both },
        ),
        log("log-every", "one lane: an acquisition, a crash and a rewind", true, 1, 2, every),
        log(
            "log-shared-zombie",
            "two lanes that share an account: an acquisition and a crash",
            false,
            2,
            1,
            zombie,
        ),
        log("log-shared-rewind", "two lanes that share an account: a rewind", false, 2, 1, rewind),
        log(
            "log-shared-both",
            "two lanes that share an account: an acquisition and a rewind",
            false,
            2,
            1,
            both,
        ),
        laned("order-zombie", "one order, and a zombie of the order service", &[ORDER], zombie),
        laned(
            "order-rewind",
            "one order, and the order service's database is rewound",
            &[ORDER],
            rewind,
        ),
        laned(
            "order-both",
            "one order, a zombie of the order service and a rewind",
            &[ORDER],
            both,
        ),
        laned(
            "payment-zombie",
            "one order, and a zombie of the payment service",
            &[PAYMENT],
            zombie,
        ),
        laned(
            "payment-rewind",
            "one order, and the payment service's database is rewound",
            &[PAYMENT],
            rewind,
        ),
        laned(
            "payment-both",
            "one order, a zombie of the payment service and a rewind",
            &[PAYMENT],
            both,
        ),
        laned(
            "inventory-zombie",
            "one order, and a zombie of the inventory service",
            &[INVENTORY],
            zombie,
        ),
        laned(
            "inventory-rewind",
            "one order, and the inventory service's database is rewound",
            &[INVENTORY],
            rewind,
        ),
        laned(
            "inventory-both",
            "one order, a zombie of the inventory service and a rewind",
            &[INVENTORY],
            both,
        ),
        Scenario {
            lanes: 2,
            services: Setup::Shop(&[(1, 2)]),
            ..laned(
                "two-payment-rewind",
                "two orders, money for one, and the payment service's database is rewound",
                &[PAYMENT],
                rewind,
            )
        },
    ]
}

/// A limit of the design: a deposit that was not relayed is lost with the database, while what
/// another lane spent of it is not.
#[must_use]
pub fn a_deposit_lost_with_the_database() -> Scenario {
    Scenario {
        name: "lost-deposit",
        about: "a deposit is lost with the database, but what another lane spent of it is not",
        services: Setup::Ledger { no_op_first: false, pays_in: true },
        laned: &[LEDGER],
        lanes: 2,
        budget: Budget { rewinds: 1, ..NO_FAULTS },
        in_flight: 1,
        cancels: false,
    }
}

/// The scenarios that end in seconds, and the first states of the larger ones that matter: two
/// orders, zombies, two orders and a rewind.
#[must_use]
pub fn quick() -> Vec<Scenario> {
    let only_in_full = [
        "saga-two-repeats",
        "log-every",
        "log-shared-both",
        "order-both",
        "payment-both",
        "inventory-both",
    ];
    all().into_iter().filter(|scenario| !only_in_full.contains(&scenario.name)).collect()
}

/// How many states an exploration of each quick scenario has at least: all of them, if five seconds
/// on two cores reach them by far, and otherwise a tenth of those that they reach. With fewer, what
/// holds in all of them shows too little.
const FLOORS: [(&str, usize); 15] = [
    ("saga-one", 138_524),
    ("saga-two", 92_000),
    ("log-zombie", 130_764),
    ("log-rewind", 5_568),
    ("log-both", 155_109),
    ("log-two-takes", 440_846),
    ("log-shared-zombie", 326_122),
    ("log-shared-rewind", 313_743),
    ("order-zombie", 130_000),
    ("order-rewind", 321_782),
    ("payment-zombie", 140_000),
    ("payment-rewind", 322_710),
    ("inventory-zombie", 130_000),
    ("inventory-rewind", 178_199),
    ("two-payment-rewind", 130_000),
];

impl Scenario {
    /// The states that an exploration has at least, of the quick scenarios; otherwise one.
    #[must_use]
    pub fn floor(&self) -> usize {
        FLOORS.iter().find(|(name, _)| *name == self.name).map_or(1, |(_, floor)| *floor)
    }

    /// The rules of its worlds, with a planted bug if one is given.
    #[must_use]
    pub fn rules(&self, plant: Option<Plant>) -> Rules {
        let services: Arc<dyn Services> = match self.services {
            Setup::Shop(supplies) => {
                Arc::new(Shop::new(self.lanes, supplies, plant == Some(Plant::RefundTwice)))
            }
            Setup::Ledger { no_op_first, pays_in } => {
                Arc::new(Ledger::new(self.lanes, no_op_first, pays_in))
            }
        };
        let sites = services.sites();
        let laned = (0..sites.len()).map(|site| self.laned.contains(&site)).collect();
        let (lanes, budget, in_flight, cancels) =
            (self.lanes, self.budget, self.in_flight, self.cancels);
        Rules { services, sites, lanes, laned, budget, in_flight, cancels, limit: None, plant }
    }

    /// Explores the scenario breadth first: on one thread, stories are as short as possible.
    #[must_use]
    pub fn explore(&self, plant: Option<Plant>, bounds: Bounds) -> Explored {
        let began = Instant::now();

        // The checker sees its own timeout only if threads share work.
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

        let mut broken: Vec<_> = checker
            .discoveries()
            .into_iter()
            .map(|(name, path)| (name, story::lines(&rules, &path.into_vec())))
            .collect();
        broken.sort_by_key(|(_, story)| story.len());

        let took = began.elapsed();
        let whole =
            broken.is_empty() && took < bounds.time && checker.state_count() < bounds.states;
        Explored {
            states: checker.unique_state_count(),
            depth: checker.max_depth(),
            whole,
            took,
            broken,
        }
    }
}
