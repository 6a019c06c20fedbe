//! Everything that can happen.

use crate::services::Command;

/// Something that happens. `site`, `lane` and `process` say where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client or a deadline asks, and the answer is committed.
    Ask { site: usize, lane: usize, command: Command },
    /// A second replica, asked the same, loads the row and finds it absent.
    Load { site: usize, lane: usize },
    /// It writes what it decided, or is retried.
    Insert { site: usize, lane: usize },
    /// A replica reads an input up to the next record to apply, and commits.
    Step { site: usize, lane: usize, input: usize },
    /// What a planted bug left for a second transaction is committed.
    Finish { site: usize, lane: usize },
    /// The replica dies between the two.
    Drop { site: usize, lane: usize },
    /// A batch is undone after it took its numbers from a sequence.
    Abort { site: usize, lane: usize },
    /// A relay that was restarted sends again from a number on.
    Resend { site: usize, lane: usize, from: usize },
    /// A replica takes the lane and produces `reel.opened`. `free`: nobody alive holds it, so it is no fault.
    Take { site: usize, lane: usize, process: usize, free: bool },
    /// The first record in flight reaches the topic, and its ack the replica.
    Land { site: usize, lane: usize, process: usize },
    /// A replica learns that the lane is no longer its own.
    Fence { site: usize, lane: usize, process: usize },
    /// A relay that saw its acks jump opens the lane anew.
    Reopen { site: usize, lane: usize, process: usize },
    /// Opening commits its first piece.
    Piece { site: usize, lane: usize, process: usize },
    /// Opening commits the last piece: the lane is open for this run.
    Open { site: usize, lane: usize, process: usize },
    /// The relay reads the next row and sends it.
    Send { site: usize, lane: usize, process: usize },
    /// The relay writes its cursor.
    Cursor { site: usize, lane: usize, process: usize },
    /// A replica dies.
    Crash { site: usize, lane: usize, process: usize },
    /// What a dead replica left in a socket reaches the topic.
    OrphanLands { site: usize, lane: usize },
    /// Or it does not.
    OrphanLost { site: usize, lane: usize },
    /// The database is copied.
    Backup { site: usize },
    /// The copy takes the place of the database, in a new server run.
    Rewind { site: usize },
}

impl Action {
    /// Whether it need not happen: a fault, a client's wish, or a deadline, which no order should need to end.
    #[must_use]
    pub fn is_a_fault(&self) -> bool {
        match self {
            Self::Ask { .. } | Self::Load { .. } | Self::Drop { .. } | Self::Abort { .. } | Self::Resend { .. } => true,
            Self::Crash { .. } | Self::OrphanLost { .. } | Self::Backup { .. } | Self::Rewind { .. } => true,
            Self::Take { free, .. } => !free,
            Self::Insert { .. } | Self::Step { .. } | Self::Finish { .. } | Self::Land { .. } | Self::Fence { .. } => false,
            Self::Reopen { .. } | Self::Piece { .. } | Self::Open { .. } | Self::Send { .. } | Self::Cursor { .. } => false,
            Self::OrphanLands { .. } => false,
        }
    }
}
