//! Databases, topics, lanes and replicas as values, and everything that can happen to them.
//!
//! A site is **plain** or **laned**. The relay of a plain site appends committed events at once,
//! and may send again from any sequence; as readers lag behind at will, all delays of a relay are
//! covered. A laned site has all the fences and the recovery of `docs/laws.md`: replicas with
//! tokens, records in flight, recoveries, cursors, and a database that may be rewound.

mod action;
mod lanes;
mod recovery;
mod state;
mod step;
mod topic;

pub use action::Action;
pub use state::{
    Broken, Budget, Cause, Database, Lane, Pending, Phase, Position, Process, Record, Row, Site,
    Token, World,
};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::plant::Plant;
use crate::services::{Services, Site as SiteSpec};

/// The rules of a world: its services, and what may go wrong how often.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The services as functions.
    pub services: Arc<dyn Services>,
    /// The services as sites: [`Services::sites`].
    pub sites: Vec<SiteSpec>,
    /// Number of lanes of each site.
    pub lanes: usize,
    /// Whether each site is laned.
    pub laned: Vec<bool>,
    /// Number of faults of each kind that may happen.
    pub budget: Budget,
    /// Maximum number of records that a relay has in flight.
    pub in_flight: usize,
    /// Whether a client may cancel, and a deadline pass.
    pub cancels: bool,
    /// Time at which the exploration stops, if it is limited.
    pub limit: Option<Arc<Limit>>,
    /// The planted bug, if any.
    pub plant: Option<Plant>,
}

/// Time limit of an exploration. Once it is reached no action is possible, so the checker ends; it
/// is lifted before stories are printed, which follow actions again.
#[derive(Debug)]
pub struct Limit {
    at: Instant,
    lifted: AtomicBool,
}

impl Limit {
    /// A limit at this time.
    #[must_use]
    pub fn at(at: Instant) -> Self {
        Self { at, lifted: AtomicBool::new(false) }
    }

    /// Lifts the limit, once the exploration has ended.
    pub fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    /// Whether the exploration has to stop.
    #[must_use]
    pub fn reached(&self) -> bool {
        !self.lifted.load(Ordering::Relaxed) && Instant::now() >= self.at
    }
}

impl Rules {
    /// Whether this bug is planted.
    #[must_use]
    pub fn planted(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    /// The initial worlds: all lanes are open, and nothing has happened.
    #[must_use]
    pub fn initial_worlds(&self) -> Vec<World> {
        let begin = |states: Vec<_>| {
            let specs = self.sites.iter().zip(&self.laned).zip(states);
            let sites = specs
                .map(|((spec, laned), state)| {
                    Arc::new(Site::opened(spec, *laned, self.lanes, state))
                })
                .collect();
            World { sites, left: self.budget, broken: None }
        };
        self.services.initial_states().into_iter().map(begin).collect()
    }

    /// Adds every action that is possible in this world.
    pub fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        for site in 0..world.sites.len() {
            self.command_actions(world, site, actions);
            self.step_actions(world, site, actions);
            if self.laned[site] {
                self.relay_actions(world, site, actions);
                self.fault_actions(world, site, actions);
            }
        }
    }

    /// The world after an action.
    #[must_use]
    pub fn after(&self, world: &World, action: Action) -> World {
        let mut world = world.clone();
        self.apply(&mut world, action);
        world
    }

    /// Whether nothing is left to happen except faults, commands of clients, and deadlines.
    #[must_use]
    pub fn quiet(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        actions.iter().all(Action::is_a_fault)
    }

    fn apply(&self, world: &mut World, action: Action) {
        match action {
            Action::Ask { site, lane, command } => self.ask(world, site, lane, command),
            Action::Load { site, lane } => self.load(world, site, lane),
            Action::Insert { site, lane } => self.insert(world, site, lane),
            Action::Step { site, lane, input } => self.step(world, site, lane, input),
            Action::Finish { site, lane } => self.finish(world, site, lane),
            Action::Drop { site, lane } => {
                world.left.crashes -= 1;
                world.site(site).lanes[lane].pending = None;
            }
            Action::Abort { site, lane } => {
                world.left.aborts -= 1;
                world.site(site).db.lanes[lane].head += 1;
            }
            Action::Resend { site, lane, from } => {
                world.left.resends -= 1;
                self.resend(world, site, lane, from);
            }
            Action::Acquire { site, lane, process, free } => {
                self.acquire(world, site, lane, process, free);
            }
            Action::Land { site, lane, process } => self.land(world, site, lane, process),
            Action::Fence { site, lane, process } => self.fence(world, site, lane, process),
            Action::Reopen { site, lane, process } => Self::reopen(world, site, lane, process),
            Action::Chunk { site, lane, process } => self.open(world, site, lane, process, false),
            Action::Open { site, lane, process } => self.open(world, site, lane, process, true),
            Action::Send { site, lane, process } => Self::send(world, site, lane, process),
            Action::Cursor { site, lane, process } => self.cursor(world, site, lane, process),
            Action::Crash { site, lane, process } => Self::crash(world, site, lane, process),
            Action::OrphanLands { site, lane } => {
                let record = world.site(site).lanes[lane].orphans.remove(0);
                self.append(world, site, lane, record);
            }
            Action::OrphanLost { site, lane } => {
                world.site(site).lanes[lane].orphans.remove(0);
            }
            Action::Backup { site } => {
                let site = world.site(site);
                site.backup = Some(Box::new(site.db.clone()));
            }
            Action::Rewind { site } => Self::rewind(world, site),
        }
    }
}
