//! Everything that can happen in a world.

use crate::services::Command;

/// A step of the world, at a `site`, in a `lane`, by a `process` (a replica).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// A client or a deadline sends a command, and what it decides is committed.
    Ask { site: usize, lane: usize, command: Command },
    /// A second replica gets the same command, loads the row and finds it absent.
    Load { site: usize, lane: usize },
    /// The second replica writes what it decided, or retries.
    Insert { site: usize, lane: usize },
    /// A replica reads an input up to the next record that it applies, and commits.
    Step { site: usize, lane: usize, input: usize },
    /// The second transaction of a planted bug commits.
    Finish { site: usize, lane: usize },
    /// The replica dies between the two transactions of a planted bug.
    Drop { site: usize, lane: usize },
    /// A batch is rolled back after it took its sequences from a Postgres sequence.
    Abort { site: usize, lane: usize },
    /// A restarted relay sends again, from this sequence on.
    Resend { site: usize, lane: usize, from: usize },
    /// A replica acquires the lane and produces `reel.opened`. If the lane is `free`, no live
    /// replica holds it, and this is no fault.
    Acquire { site: usize, lane: usize, process: usize, free: bool },
    /// The first record in flight reaches the topic, and its ack the replica.
    Land { site: usize, lane: usize, process: usize },
    /// A replica learns that it lost the lane.
    Fence { site: usize, lane: usize, process: usize },
    /// A replica recovers a lane whose acks have jumped.
    Reopen { site: usize, lane: usize, process: usize },
    /// Recovery commits its first replay chunk.
    Chunk { site: usize, lane: usize, process: usize },
    /// Recovery commits the last chunk, and the lane is open for this database epoch.
    Open { site: usize, lane: usize, process: usize },
    /// The relay reads the next row and sends it.
    Send { site: usize, lane: usize, process: usize },
    /// The relay writes its cursor.
    Cursor { site: usize, lane: usize, process: usize },
    /// A replica dies.
    Crash { site: usize, lane: usize, process: usize },
    /// A record that a dead replica left in a socket reaches the topic.
    OrphanLands { site: usize, lane: usize },
    /// A record that a dead replica left in a socket is lost.
    OrphanLost { site: usize, lane: usize },
    /// The database is copied.
    Backup { site: usize },
    /// The copy replaces the database, in a new database epoch.
    Rewind { site: usize },
}

impl Action {
    /// Whether the action may stay away: a fault, a client's command, or a deadline, which no order
    /// may need in order to end.
    #[must_use]
    pub fn is_a_fault(&self) -> bool {
        match self {
            Self::Ask { .. }
            | Self::Load { .. }
            | Self::Drop { .. }
            | Self::Abort { .. }
            | Self::Resend { .. } => true,
            Self::Crash { .. }
            | Self::OrphanLost { .. }
            | Self::Backup { .. }
            | Self::Rewind { .. } => true,
            Self::Acquire { free, .. } => !free,
            Self::Insert { .. }
            | Self::Step { .. }
            | Self::Finish { .. }
            | Self::Land { .. }
            | Self::Fence { .. } => false,
            Self::Reopen { .. }
            | Self::Chunk { .. }
            | Self::Open { .. }
            | Self::Send { .. }
            | Self::Cursor { .. } => false,
            Self::OrphanLands { .. } => false,
        }
    }
}
