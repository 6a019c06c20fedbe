//! Databases, topics, lanes and replicas as values, and everything that can happen to them.
//!
//! A site is **plain** or **laned**. A plain site's relay appends what was committed at once: its readers lag behind at will,
//! which makes every delay of the relay; it may send again from any number. A laned site has all of DESIGN section 3:
//! replicas with tokens, records in flight, openings, cursors, a database that may be put back in time.

mod action;
mod lanes;
mod opening;
mod state;
mod step;
mod topic;

pub use action::Action;
pub use state::{Broken, Budget, Cause, Database, Hand, Lane, Phase, Process, Reading, Record, Row, Site, Token, World};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::plant::Plant;
use crate::services::{Services, Site as Made};

/// The rules of a world: who is in it, what may go wrong and how often.
#[derive(Debug, Clone)]
pub struct Rules {
    /// What the services decide.
    pub services: Arc<dyn Services>,
    /// The services, as [`Services::sites`] has them.
    pub sites: Vec<Made>,
    /// How many lanes each site has.
    pub lanes: usize,
    /// The sites that are laned.
    pub laned: Vec<bool>,
    /// How often things may go wrong.
    pub budget: Budget,
    /// How many records a relay may have in flight.
    pub in_flight: usize,
    /// Whether a client may cancel, and a deadline pass.
    pub cancels: bool,
    /// When exploring stops.
    pub limit: Option<Arc<Limit>>,
    /// The bug, if one is planted.
    pub plant: Option<Plant>,
}

/// When exploring stops: from then on nothing more happens, until the stories are told.
#[derive(Debug)]
pub struct Limit {
    at: Instant,
    lifted: AtomicBool,
}

impl Limit {
    /// At this time.
    #[must_use]
    pub fn at(at: Instant) -> Self {
        Self { at, lifted: AtomicBool::new(false) }
    }

    /// Nothing is explored any more.
    pub fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    /// Whether exploring stops here.
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

    /// The worlds in which it begins: all lanes open, nothing has happened.
    #[must_use]
    pub fn beginnings(&self) -> Vec<World> {
        let begin = |states: Vec<_>| {
            let made = self.sites.iter().zip(&self.laned).zip(states);
            let sites = made.map(|((made, laned), state)| Arc::new(Site::opened(made, *laned, self.lanes, state))).collect();
            World { sites, left: self.budget, broken: None }
        };
        self.services.beginnings().into_iter().map(begin).collect()
    }

    /// Everything that may happen next.
    pub fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if world.broken.is_some() {
            return;
        }
        for site in 0..world.sites.len() {
            self.asked(world, site, actions);
            self.steps(world, site, actions);
            if self.laned[site] {
                self.relays(world, site, actions);
                self.lane_faults(world, site, actions);
            }
        }
    }

    /// The world after it.
    #[must_use]
    pub fn after(&self, world: &World, action: Action) -> World {
        let mut world = world.clone();
        self.happen(&mut world, action);
        world
    }

    /// Whether nothing is left to happen but faults and what clients and deadlines may do.
    #[must_use]
    pub fn quiet(&self, world: &World) -> bool {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        actions.iter().all(Action::is_a_fault)
    }

    fn happen(&self, world: &mut World, action: Action) {
        match action {
            Action::Ask { site, lane, command } => self.ask(world, site, lane, command),
            Action::Load { site, lane } => self.load(world, site, lane),
            Action::Insert { site, lane } => self.insert(world, site, lane),
            Action::Step { site, lane, input } => self.step(world, site, lane, input),
            Action::Finish { site, lane } => self.finish(world, site, lane),
            Action::Drop { site, lane } => {
                world.left.crashes -= 1;
                world.site(site).lanes[lane].hand = None;
            }
            Action::Abort { site, lane } => {
                world.left.aborts -= 1;
                world.site(site).db.lanes[lane].head += 1;
            }
            Action::Resend { site, lane, from } => {
                world.left.resends -= 1;
                self.resend(world, site, lane, from);
            }
            Action::Take { site, lane, process, free } => self.take(world, site, lane, process, free),
            Action::Land { site, lane, process } => self.land(world, site, lane, process),
            Action::Fence { site, lane, process } => self.fence(world, site, lane, process),
            Action::Reopen { site, lane, process } => Self::reopen(world, site, lane, process),
            Action::Piece { site, lane, process } => self.open(world, site, lane, process, false),
            Action::Open { site, lane, process } => self.open(world, site, lane, process, true),
            Action::Send { site, lane, process } => Self::send(world, site, lane, process),
            Action::Cursor { site, lane, process } => self.cursor(world, site, lane, process),
            Action::Crash { site, lane, process } => Self::crash(world, site, lane, process),
            Action::OrphanLands { site, lane } => {
                let record = world.site(site).lanes[lane].orphans.remove(0);
                self.append(world, site, lane, record);
            }
            Action::OrphanLost { site, lane } => drop(world.site(site).lanes[lane].orphans.remove(0)),
            Action::Backup { site } => {
                let site = world.site(site);
                site.backup = Some(Box::new(site.db.clone()));
            }
            Action::Rewind { site } => Self::rewind(world, site),
        }
    }
}
