//! The parts of a world: small values that are hashed and compared.

use std::sync::Arc;

use crate::services::{Fact, Folded, Site as SiteSpec};

/// A state that the checker explores.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The services.
    pub sites: Vec<Arc<Site>>,
    /// The faults that may still happen.
    pub left: Budget,
    /// What the last action found to be wrong.
    pub broken: Option<Broken>,
}

/// The times that each fault may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Budget {
    /// A relay sends again.
    pub resends: u8,
    /// A replica dies.
    pub crashes: u8,
    /// A replica acquires a lane that another one holds.
    pub acquisitions: u8,
    /// A database is put back to an earlier copy.
    pub rewinds: u8,
    /// A batch is rolled back after it took its sequences (if a planted bug uses a Postgres
    /// sequence).
    pub aborts: u8,
    /// A command reaches two replicas at once.
    pub twice: u8,
}

/// A violation that an action finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Broken {
    /// A message met a state in which it is impossible.
    Impossible,
    /// Recovery found one sequence with two contents.
    Fork,
    /// Recovery found that sequences are missing.
    Hole,
}

/// A service: its database, its topic and its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Site {
    /// The database.
    pub db: Database,
    /// A copy of the database, if one was made.
    pub backup: Option<Box<Database>>,
    /// The database epoch, which a rewind raises.
    pub database_epoch: u8,
    /// Whatever is outside the database, lane by lane.
    pub lanes: Vec<Outside>,
}

/// Whatever is outside the database for one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Outside {
    /// The topic-partition.
    pub topic: Vec<Record>,
    /// The position of a reader that has read the whole topic.
    pub read: Position,
    /// The events that this reader has applied.
    pub applied: Vec<Row>,
    /// The replicas, if the site is laned.
    pub processes: Vec<Process>,
    /// Records that dead replicas left in sockets.
    pub orphans: Vec<Record>,
    /// An event that a second replica has decided and not yet written.
    pub loaded: Option<Fact>,
    /// The second transaction of a planted bug, if it is outstanding.
    pub pending: Option<Pending>,
}

/// Work that a planted bug leaves for a second transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pending {
    /// A message whose position is committed and whose effect is not.
    Message(Fact, Cause),
    /// An event whose state is committed and whose outbox row is not.
    Event(Fact, Option<Cause>),
}

/// The database of a site.
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
    /// The sequence of the next row.
    pub head: u8,
    /// The database epoch for which the lane was opened.
    pub opened_epoch: u8,
    /// The fencing token of the last acquisition.
    pub token: Token,
    /// The position up to which its events are known to be in the topic.
    pub cursor: Position,
    /// The position in each input.
    pub positions: Vec<Position>,
    /// Whether a deadline is set.
    pub deadline: bool,
}

/// A row of the outbox. Two rows with one sequence have the same content if they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// The sequence of the event.
    pub sequence: u8,
    /// The event.
    pub fact: Fact,
    /// The record that caused it, if it was not a command.
    pub cause: Option<Cause>,
    /// The database epoch in which it was decided. It takes the place of the event's id: the same
    /// decision in another epoch is another event.
    pub database_epoch: u8,
}

/// The record that caused an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cause {
    /// Index among the inputs of the site.
    pub input: u8,
    /// Its sequence.
    pub sequence: u8,
    /// Its offset.
    pub offset: u8,
    /// Its log epoch.
    pub epoch: i8,
}

/// A record of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Record {
    /// The log epoch under which it was sent.
    pub epoch: i8,
    /// The event; `None` for `reel.opened`.
    pub row: Option<Row>,
}

/// The position of a reader: [`reel_core::log::Position`] in small numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The offset that it reads next.
    pub offset: u8,
    /// The sequence that it applies next.
    pub next: u8,
    /// The log epoch that it is in.
    pub epoch: i8,
}

/// The fencing token of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// Number of the acquisition that made it.
    pub acquisition: u8,
    /// The database epoch of that acquisition.
    pub database_epoch: u8,
}

/// What one replica knows of one lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Process {
    /// How far it has come with the lane.
    pub phase: Phase,
    /// The token of its last acquisition.
    pub token: Token,
    /// The offset of its `reel.opened`, which is the log epoch under which it sends.
    pub epoch: i8,
    /// The sequence that it sends next.
    pub next_send: u8,
    /// The last acked offset.
    pub last_offset: u8,
    /// The sequence after the last acked one.
    pub next_acked: u8,
    /// Records that are sent and not acked.
    pub in_flight: Vec<Record>,
}

/// How far a replica has come with a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It does not own the lane.
    Idle,
    /// It has acquired the lane and sent `reel.opened`.
    Acquired,
    /// Its `reel.opened` is in the topic.
    Marked,
    /// The lane is open, and it relays.
    Active,
    /// Its acked offsets were not consecutive.
    Jumped,
}

impl Default for Position {
    fn default() -> Self {
        Self { offset: 0, next: 0, epoch: -1 }
    }
}

impl Process {
    /// A replica without the lane.
    #[must_use]
    pub fn resting(in_flight: Vec<Record>) -> Self {
        let token = Token { acquisition: 0, database_epoch: 0 };
        Self {
            phase: Phase::Idle,
            token,
            epoch: -1,
            next_send: 0,
            last_offset: 0,
            next_acked: 0,
            in_flight,
        }
    }
}

impl Site {
    /// A site with all lanes open and its script published.
    pub(super) fn opened(spec: &SiteSpec, laned: bool, lanes: usize, state: Folded) -> Self {
        let opened = Record { epoch: 0, row: None };
        let cursor = Position { offset: 1, next: 0, epoch: 0 };
        let token = Token { acquisition: 1, database_epoch: 0 };
        let (mut insides, mut outsides) = (Vec::new(), Vec::new());

        for lane in 0..lanes {
            let script = (0..).zip(&spec.script[lane]);
            let rows: Vec<Row> = script
                .map(|(sequence, fact)| Row {
                    sequence,
                    fact: *fact,
                    cause: None,
                    database_epoch: 0,
                })
                .collect();
            let head = u8::try_from(rows.len()).expect("a short script");
            let topic: Vec<Record> =
                rows.iter().map(|row| Record { epoch: 0, row: Some(*row) }).collect();

            let owner =
                Process { phase: Phase::Active, token, epoch: 0, ..Process::resting(vec![]) };
            let processes = if laned { vec![owner, Process::resting(vec![])] } else { vec![] };
            let positions = vec![Position::default(); spec.inputs.len()];
            let read = Position { offset: head + 1, next: head, epoch: 0 };

            outsides.push(Outside {
                topic: [opened].into_iter().chain(topic).collect(),
                read,
                applied: rows.clone(),
                processes,
                ..Outside::default()
            });
            insides.push(Lane {
                rows,
                head,
                opened_epoch: 0,
                token,
                cursor,
                positions,
                deadline: false,
            });
        }

        Self {
            db: Database { state, lanes: insides },
            backup: None,
            database_epoch: 0,
            lanes: outsides,
        }
    }

    /// Whether all lanes were opened for this database epoch, so that events may get sequences.
    #[must_use]
    pub fn open(&self) -> bool {
        self.db.lanes.iter().all(|lane| lane.opened_epoch == self.database_epoch)
    }
}

impl World {
    pub(super) fn site(&mut self, site: usize) -> &mut Site {
        Arc::make_mut(&mut self.sites[site])
    }
}
