//! What must always hold, as properties of every state.

use stateright::{Model, Property};

use crate::world::{Action, Broken, Cause, Row, Rules, Site, World};

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.beginnings()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if !self.limit.as_ref().is_some_and(|limit| limit.reached()) {
            Rules::actions(self, world, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        Some(self.after(world, action))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("money and stock are conserved", |rules: &Self, world| conserved(rules, world).is_none()),
            Property::always("no order is both confirmed and undone", |rules: &Self, world| contradiction(rules, world).is_none()),
            Property::always("nothing is applied twice", |_, world: &World| !applied_twice(world)),
            Property::always("no number has two contents", |_, world: &World| !forked(world) && world.broken != Some(Broken::Fork)),
            Property::always("no number is missing", |_, world: &World| world.broken != Some(Broken::Hole)),
            Property::always("nothing impossible happens", |_, world: &World| world.broken != Some(Broken::Impossible)),
            Property::always("positions are not behind what was answered", |_, world: &World| !behind(world)),
            Property::always("when all is quiet, every saga has ended", |rules: &Self, world| unfinished(rules, world).is_none()),
        ]
    }
}

/// Why the world breaks a rule, in words.
#[must_use]
pub fn why(rules: &Rules, world: &World) -> Option<&'static str> {
    let said = match world.broken {
        Some(Broken::Impossible) => Some("an event met a state in which it cannot happen"),
        Some(Broken::Fork) => Some("one number has two contents"),
        Some(Broken::Hole) => Some("a number is missing"),
        None => None,
    };
    said.or_else(|| conserved(rules, world))
        .or_else(|| contradiction(rules, world))
        .or_else(|| applied_twice(world).then_some("an event is there twice, or two events have one cause"))
        .or_else(|| forked(world).then_some("a reader has applied what the open database does not hold"))
        .or_else(|| behind(world).then_some("a position is behind an event that was answered"))
        .or_else(|| unfinished(rules, world))
}

/// After a database went back in time, an account may be below zero until what was lost with it is decided again: another
/// lane's spending may have been relayed, and what paid for it not. It never is when all is quiet.
fn conserved(rules: &Rules, world: &World) -> Option<&'static str> {
    let mut sites = world.sites.iter().enumerate();
    sites.find_map(|(site, here)| rules.services.fault_in(site, here.db.state, here.run == 0))
}

fn overspent(rules: &Rules, world: &World) -> Option<&'static str> {
    world.sites.iter().enumerate().find_map(|(site, here)| rules.services.fault_in(site, here.db.state, here.open()))
}

/// Only whole databases are compared: one that went back in time has to catch up first.
fn contradiction(rules: &Rules, world: &World) -> Option<&'static str> {
    if !world.sites.iter().all(|here| here.open()) {
        return None;
    }
    let states: Vec<_> = world.sites.iter().map(|here| here.db.state).collect();
    rules.services.fault_between(&states)
}

/// A saga's events are each there at most once, and a message has at most one effect.
fn applied_twice(world: &World) -> bool {
    world.sites.iter().flat_map(|here| &here.db.lanes).any(|lane| {
        lane.rows.iter().enumerate().any(|(nth, row)| {
            let of_message = |cause: Cause| (cause.input, cause.number);
            let same = |before: &Row| {
                before.fact == row.fact || before.cause.is_some() && before.cause.map(of_message) == row.cause.map(of_message)
            };
            lane.rows[..nth].iter().any(same)
        })
    })
}

/// An open journal holds all that any reader has applied.
fn forked(world: &World) -> bool {
    world.sites.iter().any(|here| {
        let lanes = here.db.lanes.iter().zip(&here.lanes);
        lanes.filter(|(inside, _)| inside.opened_run == here.run).any(|(inside, outside)| !inside.rows.starts_with(&outside.applied))
    })
}

/// An event in an open journal proves that its cause was consumed.
fn behind(world: &World) -> bool {
    world.sites.iter().any(|here| {
        let open = here.db.lanes.iter().filter(|inside| inside.opened_run == here.run);
        open.into_iter().any(|inside| {
            let mut causes = inside.rows.iter().filter_map(|row| row.cause);
            causes.any(|cause| inside.positions[usize::from(cause.input)].next <= cause.number)
        })
    })
}

fn unfinished(rules: &Rules, world: &World) -> Option<&'static str> {
    let states: Vec<_> = world.sites.iter().map(|here| here.db.state).collect();
    // The cheaper question first: most worlds are unfinished, and few are quiet.
    let unfinished = rules.services.unfinished(&states).or_else(|| undelivered(world)).or_else(|| overspent(rules, world))?;
    (world.broken.is_none() && rules.quiet(world)).then_some(unfinished)
}

/// Every row of an outbox is applied by whoever reads the topic.
fn undelivered(world: &World) -> Option<&'static str> {
    let lanes = |here: &Site| here.db.lanes.iter().zip(&here.lanes).any(|(inside, outside)| inside.rows.len() > outside.applied.len());
    world.sites.iter().any(|here| lanes(here)).then_some("an event is never delivered")
}
