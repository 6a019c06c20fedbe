//! Bugs planted on purpose: a checker that misses them proves nothing.

use clap::ValueEnum;

/// A bug in the toolkit or in a service, one per rule of the design. The names are those of
/// `ARCHITECTURE.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Plant {
    /// Neither recovery nor the cursor nor the step checks the lane's fencing token.
    TokenNotChecked,
    /// Consumers apply records of any log epoch.
    GenerationNotChecked,
    /// Events get sequences although not all lanes are open for this database epoch.
    DecidesBeforeAllLanesAreOpen,
    /// A refund does not check whether it was already made.
    RefundTwice,
    /// The position advances in a transaction of its own, before the one with the effect.
    PositionApart,
    /// The cursor advances when a record is sent, not when it is acked.
    CursorBeforeAcks,
    /// An event's sequence comes from a Postgres sequence, which a rolled-back batch advances too.
    NumberFromSequence,
    /// The outbox row is written after the state is committed.
    OutboxAfterCommit,
    /// An absent row is upserted, where a plain insert would fail on the row of the other replica.
    AbsentRowUpserted,
    /// Recovery replays events but restores no positions.
    PositionsNotRestored,
    /// Recovery replays nothing: the database goes on from its old state.
    NothingFolded,
    /// An ack is accepted although its offset does not follow the previous one.
    JumpNotChecked,
}
