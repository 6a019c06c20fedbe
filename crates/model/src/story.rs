//! A counterexample as a story: one line for each thing that happened.

use crate::checks::why;
use crate::services::{Command, Reaction};
use crate::world::{Action, Record, Rules, World};

/// What happened, line by line, and what is wrong at the end.
#[must_use]
pub fn lines(rules: &Rules, path: &[(World, Option<Action>)]) -> Vec<String> {
    let told = path.iter().filter_map(|(world, action)| action.map(|action| line(rules, world, action)));
    let wrong = path.last().and_then(|(world, _)| why(rules, world)).unwrap_or("it breaks a rule");
    told.enumerate().map(|(nth, line)| format!("{:>3}. {line}", nth + 1)).chain([format!("     => {wrong}")]).collect()
}

/// One thing that happens to a world.
fn line(rules: &Rules, world: &World, action: Action) -> String {
    let after = rules.after(world, action);
    match action {
        Action::Ask { site, lane, command } => format!("{} and {}", asks(command, lane), outcome(rules, world, &after, site, lane)),
        Action::Load { site, lane } => {
            format!("the same request for lane {lane} reaches a second replica of {}, which finds the row absent", name(rules, site))
        }
        Action::Insert { site, lane } => format!("that second replica writes its row and {}", outcome(rules, world, &after, site, lane)),
        Action::Step { site, lane, input } => {
            let read = read(rules, world, site, lane, input);
            format!("{} reads {read} and {}", name(rules, site), outcome(rules, world, &after, site, lane))
        }
        Action::Finish { site, lane } => {
            format!("{} commits the second transaction and {}", name(rules, site), outcome(rules, world, &after, site, lane))
        }
        Action::Drop { site, lane } => format!("a replica of {} dies between the two transactions, in lane {lane}", name(rules, site)),
        Action::Abort { site, lane } => format!("a batch of {} in lane {lane} is undone after it took a number", name(rules, site)),
        Action::Resend { site, lane, from } => {
            format!("the relay of {} starts again in lane {lane} and sends from number {from} on", name(rules, site))
        }
        Action::Take { site, lane, process, free } => {
            let why = if free { ", which nobody holds," } else { "" };
            format!("replica {process} of {} takes lane {lane}{why} and sends reel.opened", name(rules, site))
        }
        Action::Land { site, lane, process } => {
            let outside = &world.sites[site].lanes[lane];
            let sent = record(rules, outside.processes[process].in_flight[0]);
            let offset = outside.topic.len();
            format!("{sent}, sent by replica {process}, lands at offset {offset} of lane {lane} of {}'s topic", name(rules, site))
        }
        Action::Fence { site, lane, process } => {
            format!("replica {process} of {} learns that lane {lane} is no longer its own", name(rules, site))
        }
        Action::Reopen { site, lane, process } => {
            format!("replica {process} of {} saw its acks jump in lane {lane} and opens it anew", name(rules, site))
        }
        Action::Piece { site, lane, process } => {
            format!("replica {process} of {} folds a first piece of lane {lane} from its own topic", name(rules, site))
        }
        Action::Open { site, lane, process } => {
            let (before, after) = (&world.sites[site].db.lanes[lane].rows, &after.sites[site].db.lanes[lane].rows);
            let folded: Vec<String> =
                after.get(before.len()..).unwrap_or_default().iter().map(|row| rules.services.words(row.fact)).collect();
            let folded = if folded.is_empty() { "nothing".to_owned() } else { folded.join(", ") };
            format!("replica {process} of {} opens lane {lane}, folding {folded}", name(rules, site))
        }
        Action::Send { site, lane, process } => {
            let here = &world.sites[site];
            let row = here.db.lanes[lane].rows[usize::from(here.lanes[lane].processes[process].next_send)];
            format!("replica {process} of {} sends number {}, {}", name(rules, site), row.number, rules.services.words(row.fact))
        }
        Action::Cursor { site, lane, process } => {
            let next = after.sites[site].db.lanes[lane].cursor.next;
            format!("replica {process} of {} moves the cursor of lane {lane} to number {next}", name(rules, site))
        }
        Action::Crash { site, lane, process } => format!("replica {process} of {} dies, as far as lane {lane} goes", name(rules, site)),
        Action::OrphanLands { site, lane } => {
            let sent = record(rules, world.sites[site].lanes[lane].orphans[0]);
            format!("{sent}, sent by a dead replica of {}, lands in lane {lane}", name(rules, site))
        }
        Action::OrphanLost { site, lane } => format!("what a dead replica of {} had sent to lane {lane} is lost", name(rules, site)),
        Action::Backup { site } => format!("the database of {} is copied", name(rules, site)),
        Action::Rewind { site } => format!("the database of {} is put back to its copy, under live replicas", name(rules, site)),
    }
}

fn name(rules: &Rules, site: usize) -> &'static str {
    rules.sites[site].name
}

fn asks(command: Command, lane: usize) -> String {
    match command {
        Command::Begin => format!("a client asks something of lane {lane}"),
        Command::Cancel => format!("the customer cancels in lane {lane}"),
        Command::Expire => format!("the deadline passes in lane {lane}"),
    }
}

fn record(rules: &Rules, record: Record) -> String {
    record.row.map_or("reel.opened".to_owned(), |row| {
        format!("number {} of generation {}, {}", row.number, record.generation, rules.services.words(row.fact))
    })
}

/// What a step finds.
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

/// What became of it in the outbox.
fn outcome(rules: &Rules, before: &World, after: &World, site: usize, lane: usize) -> String {
    let rows = &after.sites[site].db.lanes[lane].rows;
    match rows.get(before.sites[site].db.lanes[lane].rows.len()) {
        Some(row) => format!("{} commits {} as number {}", name(rules, site), rules.services.words(row.fact), row.number),
        None if after.sites[site].lanes[lane].hand.is_some() => format!("{} has the rest of it to commit yet", name(rules, site)),
        None => format!("{} has nothing to say", name(rules, site)),
    }
}
