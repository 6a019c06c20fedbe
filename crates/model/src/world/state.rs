//! What a world is made of: small values that are hashed and compared.

use std::sync::Arc;

use crate::services::{Fact, Folded, Site as Made};

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The services.
    pub sites: Vec<Arc<Site>>,
    /// What may still go wrong.
    pub left: Budget,
    /// What was seen to be wrong while it happened.
    pub broken: Option<Broken>,
}

/// How often each thing may still go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// A relay sends again.
    pub resends: u8,
    /// A replica dies.
    pub crashes: u8,
    /// A replica takes a lane that another holds.
    pub takes: u8,
    /// A database is put back in time.
    pub rewinds: u8,
    /// A batch is undone after its numbers were taken (where numbers come from a sequence).
    pub aborts: u8,
    /// A command reaches two replicas at once.
    pub twice: u8,
}

/// What is wrong with what just happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A message met a state in which it cannot happen.
    Impossible,
    /// Opening found one number with two contents.
    Fork,
    /// Opening found that numbers are missing.
    Hole,
}

/// A service: its database, its topic, who works on it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site {
    /// The database.
    pub db: Database,
    /// Its copy.
    pub backup: Option<Box<Database>>,
    /// The server run.
    pub run: u8,
    /// What is outside the database, lane by lane.
    pub lanes: Vec<Outside>,
}

/// What is outside the database for one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Outside {
    /// The topic-partition.
    pub topic: Vec<Record>,
    /// Where a reader stands that has read all of it.
    pub read: Reading,
    /// What that reader applied.
    pub applied: Vec<Row>,
    /// The replicas, for a laned site.
    pub processes: Vec<Process>,
    /// What dead replicas left in sockets.
    pub orphans: Vec<Record>,
    /// What a second replica has decided and not yet written.
    pub loaded: Option<Fact>,
    /// What a planted bug has left for a second transaction.
    pub hand: Option<Hand>,
}

/// What a planted bug has left for a second transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hand {
    /// A message whose position is committed and whose effect is not.
    Message(Fact, Cause),
    /// An event whose state is committed and whose outbox row is not.
    Event(Fact, Option<Cause>),
}

/// A database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Database {
    /// The rows of the service.
    pub state: Folded,
    /// The toolkit's rows, lane by lane.
    pub lanes: Vec<Lane>,
}

/// The toolkit's rows for one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The outbox.
    pub rows: Vec<Row>,
    /// The number of the next row.
    pub head: u8,
    /// The run for which the lane was opened.
    pub opened_run: u8,
    /// Who took it.
    pub token: Token,
    /// Up to where its events are known to be in the topic.
    pub cursor: Reading,
    /// Where it stands in each input.
    pub positions: Vec<Reading>,
    /// Whether a deadline is set.
    pub deadline: bool,
}

/// A row of the outbox. Two rows with one number are the same if they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Its number.
    pub number: u8,
    /// What happened.
    pub fact: Fact,
    /// What it came from.
    pub cause: Option<Cause>,
    /// The server run in which it was decided: it makes the event's id.
    pub run: u8,
}

/// The record that an event came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Which of the inputs.
    pub input: u8,
    /// Its number.
    pub number: u8,
    /// Its offset.
    pub offset: u8,
    /// Its generation.
    pub generation: i8,
}

/// A record of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// The generation under which it was sent.
    pub generation: i8,
    /// The event; nothing in `reel.opened`.
    pub row: Option<Row>,
}

/// Where a reader stands: [`reel::lanes::Position`] in small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reading {
    /// The offset from which it reads on.
    pub offset: u8,
    /// The number that it applies next.
    pub next: u8,
    /// The generation that it reads.
    pub generation: i8,
}

/// A taking of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Which one.
    pub taking: u8,
    /// The run under which it was made.
    pub run: u8,
}

/// What one replica remembers of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// How far it has come.
    pub phase: Phase,
    /// Its token.
    pub token: Token,
    /// The offset of its `reel.opened`.
    pub generation: i8,
    /// The number that it sends next.
    pub next_send: u8,
    /// The offset of the last ack.
    pub last_offset: u8,
    /// The number after the last acked one.
    pub next_acked: u8,
    /// What it has sent and is not acked.
    pub in_flight: Vec<Record>,
}

/// How far a replica has come with a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It does not have it.
    Idle,
    /// It took it and has sent `reel.opened`.
    Taken,
    /// Its `reel.opened` is in the topic.
    Marked,
    /// It works on it.
    Active,
    /// Its acked offsets did not follow each other.
    Jumped,
}

impl Default for Reading {
    fn default() -> Self {
        Self { offset: 0, next: 0, generation: -1 }
    }
}

impl Process {
    /// A replica that knows nothing.
    #[must_use]
    pub fn resting(in_flight: Vec<Record>) -> Self {
        let token = Token { taking: 0, run: 0 };
        Self { phase: Phase::Idle, token, generation: -1, next_send: 0, last_offset: 0, next_acked: 0, in_flight }
    }
}

impl Site {
    /// A site with all its lanes open, and its script published.
    pub(super) fn opened(made: &Made, laned: bool, lanes: usize, state: Folded) -> Self {
        let opened = Record { generation: 0, row: None };
        let cursor = Reading { offset: 1, next: 0, generation: 0 };
        let token = Token { taking: 1, run: 0 };
        let (mut insides, mut outsides) = (Vec::new(), Vec::new());
        for lane in 0..lanes {
            let script = (0..).zip(&made.script[lane]);
            let rows: Vec<Row> = script.map(|(number, fact)| Row { number, fact: *fact, cause: None, run: 0 }).collect();
            let head = u8::try_from(rows.len()).expect("a short script");
            let topic: Vec<Record> = rows.iter().map(|row| Record { generation: 0, row: Some(*row) }).collect();
            let owner = Process { phase: Phase::Active, token, generation: 0, ..Process::resting(vec![]) };
            let processes = if laned { vec![owner, Process::resting(vec![])] } else { vec![] };
            let positions = vec![Reading::default(); made.inputs.len()];
            let read = Reading { offset: head + 1, next: head, generation: 0 };
            outsides.push(Outside {
                topic: [opened].into_iter().chain(topic).collect(),
                read,
                applied: rows.clone(),
                processes,
                ..Outside::default()
            });
            insides.push(Lane { rows, head, opened_run: 0, token, cursor, positions, deadline: false });
        }
        Self { db: Database { state, lanes: insides }, backup: None, run: 0, lanes: outsides }
    }

    /// Whether events may be numbered: all lanes were opened for this run.
    #[must_use]
    pub fn open(&self) -> bool {
        self.db.lanes.iter().all(|lane| lane.opened_run == self.run)
    }
}

impl World {
    pub(super) fn site(&mut self, site: usize) -> &mut Site {
        Arc::make_mut(&mut self.sites[site])
    }
}
