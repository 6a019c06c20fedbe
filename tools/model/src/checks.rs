//! The properties that must hold in every state.

use stateright::{Model, Property};

use crate::world::{Action, Broken, Cause, Row, Rules, Site, World};

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.initial_worlds()
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
            Property::always("money and stock are conserved", |rules: &Self, world| {
                conserved(rules, world).is_none()
            }),
            Property::always(
                "no order is both confirmed and compensated",
                |rules: &Self, world| contradiction(rules, world).is_none(),
            ),
            Property::always("nothing is applied twice", |_, world: &World| !applied_twice(world)),
            Property::always("no sequence has two contents", |_, world: &World| {
                !forked(world) && world.broken != Some(Broken::Fork)
            }),
            Property::always("no sequence is missing", |_, world: &World| {
                world.broken != Some(Broken::Hole)
            }),
            Property::always("nothing impossible happens", |_, world: &World| {
                world.broken != Some(Broken::Impossible)
            }),
            Property::always(
                "no position is behind an input that was handled",
                |_, world: &World| !behind(world),
            ),
            Property::always(
                "when nothing is left to happen, every saga has ended",
                |rules: &Self, world| unfinished(rules, world).is_none(),
            ),
        ]
    }
}

/// Why this world breaks a property; `None` if it breaks none.
#[must_use]
pub fn why(rules: &Rules, world: &World) -> Option<&'static str> {
    let broken = match world.broken {
        Some(Broken::Impossible) => Some("an event met a state in which it is impossible"),
        Some(Broken::Fork) => Some("one sequence has two contents"),
        Some(Broken::Hole) => Some("a sequence is missing"),
        None => None,
    };
    broken
        .or_else(|| conserved(rules, world))
        .or_else(|| contradiction(rules, world))
        .or_else(|| {
            applied_twice(world)
                .then_some("an event was recorded twice, or two events have one cause")
        })
        .or_else(|| {
            forked(world).then_some("a consumer applied an event that the open database lacks")
        })
        .or_else(|| behind(world).then_some("a position is behind an input that was handled"))
        .or_else(|| unfinished(rules, world))
}

/// Checks that money and stock are conserved.
///
/// After a database was rewound, an account may be negative until the lost inputs are handled
/// again: the spending of another lane may have been relayed, but not the deposit that paid for it.
/// [`overspent`] checks that it is not negative once nothing is left to happen.
fn conserved(rules: &Rules, world: &World) -> Option<&'static str> {
    let mut sites = world.sites.iter().enumerate();
    sites.find_map(|(site, here)| {
        rules.services.fault_in(site, here.db.state, here.database_epoch == 0)
    })
}

/// As [`conserved`], and no balance may be negative if all lanes of the site are open.
fn overspent(rules: &Rules, world: &World) -> Option<&'static str> {
    world
        .sites
        .iter()
        .enumerate()
        .find_map(|(site, here)| rules.services.fault_in(site, here.db.state, here.open()))
}

/// Compares services only if all lanes are open: a rewound database has to catch up first.
fn contradiction(rules: &Rules, world: &World) -> Option<&'static str> {
    if !world.sites.iter().all(|here| here.open()) {
        return None;
    }
    let states: Vec<_> = world.sites.iter().map(|here| here.db.state).collect();
    rules.services.fault_between(&states)
}

/// Whether an event was recorded twice in a lane, or a message had two effects.
fn applied_twice(world: &World) -> bool {
    world.sites.iter().flat_map(|here| &here.db.lanes).any(|lane| {
        lane.rows.iter().enumerate().any(|(nth, row)| {
            let of_message = |cause: Cause| (cause.input, cause.sequence);
            let same = |before: &Row| {
                before.fact == row.fact
                    || before.cause.is_some()
                        && before.cause.map(of_message) == row.cause.map(of_message)
            };
            lane.rows[..nth].iter().any(same)
        })
    })
}

/// Whether a consumer applied an event that the outbox of an open lane lacks.
fn forked(world: &World) -> bool {
    world.sites.iter().any(|here| {
        let lanes = here.db.lanes.iter().zip(&here.lanes);
        lanes
            .filter(|(inside, _)| inside.opened_epoch == here.database_epoch)
            .any(|(inside, outside)| !inside.rows.starts_with(&outside.applied))
    })
}

/// Whether a position is behind the cause of a recorded event: the event proves that the cause was
/// consumed.
fn behind(world: &World) -> bool {
    world.sites.iter().any(|here| {
        let open = here.db.lanes.iter().filter(|inside| inside.opened_epoch == here.database_epoch);
        open.into_iter().any(|inside| {
            let mut causes = inside.rows.iter().filter_map(|row| row.cause);
            causes.any(|cause| inside.positions[usize::from(cause.input)].next <= cause.sequence)
        })
    })
}

/// What keeps a saga from ending although nothing is left to happen.
fn unfinished(rules: &Rules, world: &World) -> Option<&'static str> {
    let states: Vec<_> = world.sites.iter().map(|here| here.db.state).collect();
    // The cheaper question first: most worlds are unfinished, and few are quiet.
    let unfinished = rules
        .services
        .unfinished(&states)
        .or_else(|| undelivered(world))
        .or_else(|| overspent(rules, world))?;
    (world.broken.is_none() && rules.quiet(world)).then_some(unfinished)
}

/// Whether a committed event has not reached the consumers of its topic.
fn undelivered(world: &World) -> Option<&'static str> {
    let lags = |here: &Site| {
        here.db
            .lanes
            .iter()
            .zip(&here.lanes)
            .any(|(inside, outside)| inside.rows.len() > outside.applied.len())
    };
    world.sites.iter().any(|here| lags(here)).then_some("an event is never delivered")
}
