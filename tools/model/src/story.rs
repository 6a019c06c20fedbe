//! A counterexample as a story: one line per action.

use crate::checks::why;
use crate::services::{Command, Reaction};
use crate::world::{Action, Record, Rules, World};

/// The actions of a path, line by line, and what is wrong at its end.
#[must_use]
pub fn lines(rules: &Rules, path: &[(World, Option<Action>)]) -> Vec<String> {
    let actions =
        path.iter().filter_map(|(world, action)| action.map(|action| line(rules, world, action)));
    let wrong =
        path.last().and_then(|(world, _)| why(rules, world)).unwrap_or("a property is broken");
    actions
        .enumerate()
        .map(|(nth, line)| format!("{:>3}. {line}", nth + 1))
        .chain([format!("     => {wrong}")])
        .collect()
}

/// One action on a world, in words.
fn line(rules: &Rules, world: &World, action: Action) -> String {
    let after = rules.after(world, action);
    match action {
        Action::Ask { site, lane, command } => {
            format!(
                "{} and {}",
                command_words(command, lane),
                outcome(rules, world, &after, site, lane)
            )
        }

        Action::Load { site, lane } => {
            format!(
                "the same request for lane {lane} reaches a second replica of {}, \
                 which finds the row absent",
                name(rules, site)
            )
        }
        Action::Insert { site, lane } => format!(
            "that second replica writes its row and {}",
            outcome(rules, world, &after, site, lane)
        ),
        Action::Step { site, lane, input } => {
            let read = read(rules, world, site, lane, input);
            format!(
                "{} reads {read} and {}",
                name(rules, site),
                outcome(rules, world, &after, site, lane)
            )
        }

        Action::Finish { site, lane } => {
            format!(
                "{} commits the second transaction and {}",
                name(rules, site),
                outcome(rules, world, &after, site, lane)
            )
        }
        Action::Drop { site, lane } => format!(
            "a replica of {} dies between the two transactions, in lane {lane}",
            name(rules, site)
        ),
        Action::Abort { site, lane } => format!(
            "a batch of {} in lane {lane} is rolled back after it took a sequence",
            name(rules, site)
        ),
        Action::Resend { site, lane, from } => {
            format!(
                "the relay of {} starts again in lane {lane} and sends from sequence {from} on",
                name(rules, site)
            )
        }
        Action::Acquire { site, lane, process, free } => {
            let why = if free { ", which no replica holds," } else { "" };
            format!(
                "replica {process} of {} acquires lane {lane}{why} and sends reel.opened",
                name(rules, site)
            )
        }

        Action::Land { site, lane, process } => {
            let outside = &world.sites[site].lanes[lane];
            let sent = record(rules, outside.processes[process].in_flight[0]);
            let offset = outside.topic.len();
            format!(
                "{sent}, sent by replica {process}, lands at offset {offset} of lane {lane} \
                 of {}'s topic",
                name(rules, site)
            )
        }
        Action::Fence { site, lane, process } => {
            format!("replica {process} of {} learns that it lost lane {lane}", name(rules, site))
        }
        Action::Reopen { site, lane, process } => {
            format!(
                "replica {process} of {} saw its acks jump in lane {lane} and recovers it",
                name(rules, site)
            )
        }
        Action::Chunk { site, lane, process } => {
            format!(
                "replica {process} of {} replays a first chunk of lane {lane} from its own topic",
                name(rules, site)
            )
        }
        Action::Open { site, lane, process } => {
            let (before, after) =
                (&world.sites[site].db.lanes[lane].rows, &after.sites[site].db.lanes[lane].rows);
            let replayed: Vec<String> = after
                .get(before.len()..)
                .unwrap_or_default()
                .iter()
                .map(|row| rules.services.words(row.fact))
                .collect();
            let replayed =
                if replayed.is_empty() { "nothing".to_owned() } else { replayed.join(", ") };
            format!(
                "replica {process} of {} opens lane {lane} and replays {replayed}",
                name(rules, site)
            )
        }

        Action::Send { site, lane, process } => {
            let here = &world.sites[site];
            let row = here.db.lanes[lane].rows
                [usize::from(here.lanes[lane].processes[process].next_send)];
            format!(
                "replica {process} of {} sends sequence {}, {}",
                name(rules, site),
                row.sequence,
                rules.services.words(row.fact)
            )
        }

        Action::Cursor { site, lane, process } => {
            let next = after.sites[site].db.lanes[lane].cursor.next;
            format!(
                "replica {process} of {} moves the cursor of lane {lane} to sequence {next}",
                name(rules, site)
            )
        }
        Action::Crash { site, lane, process } => {
            format!(
                "replica {process} of {} dies, as far as lane {lane} is concerned",
                name(rules, site)
            )
        }
        Action::OrphanLands { site, lane } => {
            let sent = record(rules, world.sites[site].lanes[lane].orphans[0]);
            format!("{sent}, sent by a dead replica of {}, lands in lane {lane}", name(rules, site))
        }
        Action::OrphanLost { site, lane } => {
            format!(
                "a record that a dead replica of {} sent to lane {lane} is lost",
                name(rules, site)
            )
        }
        Action::Backup { site } => format!("the database of {} is copied", name(rules, site)),
        Action::Rewind { site } => format!(
            "the database of {} is put back to its copy, under live replicas",
            name(rules, site)
        ),
    }
}

fn name(rules: &Rules, site: usize) -> &'static str {
    rules.sites[site].name
}

fn command_words(command: Command, lane: usize) -> String {
    match command {
        Command::Begin => format!("a client sends a command to lane {lane}"),
        Command::Cancel => format!("the customer cancels in lane {lane}"),
        Command::Expire => format!("the deadline passes in lane {lane}"),
    }
}

fn record(rules: &Rules, record: Record) -> String {
    record.row.map_or("reel.opened".to_owned(), |row| {
        format!(
            "sequence {} of epoch {}, {}",
            row.sequence,
            record.epoch,
            rules.services.words(row.fact)
        )
    })
}

/// The record that a step reads.
fn read(rules: &Rules, world: &World, site: usize, lane: usize, input: usize) -> String {
    let from = rules.sites[site].inputs[input];
    let found = rules.next(world, site, lane, input).map(|row| {
        let state = world.sites[site].db.state;
        let impossible = match rules.services.react(site, state, row.fact) {
            Reaction::Impossible(why) => format!(" (impossible: {why})"),
            Reaction::Event(_) | Reaction::Nothing => String::new(),
        };
        format!("{}{impossible}", rules.services.words(row.fact))
    });
    format!("{} from {}", found.unwrap_or_default(), name(rules, from))
}

/// What an action committed to the outbox.
fn outcome(rules: &Rules, before: &World, after: &World, site: usize, lane: usize) -> String {
    let rows = &after.sites[site].db.lanes[lane].rows;
    match rows.get(before.sites[site].db.lanes[lane].rows.len()) {
        Some(row) => format!(
            "{} commits {} as sequence {}",
            name(rules, site),
            rules.services.words(row.fact),
            row.sequence
        ),
        None if after.sites[site].lanes[lane].pending.is_some() => {
            format!("{} has yet to commit the rest", name(rules, site))
        }
        None => format!("{} publishes nothing", name(rules, site)),
    }
}
