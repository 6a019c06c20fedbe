//! Bugs planted on purpose: a checker that finds none of them shows nothing.

use clap::ValueEnum;

/// A mistake in the toolkit or in a service, one for each rule that it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Plant {
    /// Neither opening nor the cursor nor the step checks the lane's token.
    TokenNotChecked,
    /// Readers apply records of any generation.
    GenerationNotChecked,
    /// Events are numbered though not all lanes were opened for this run.
    DecidesBeforeAllLanesAreOpen,
    /// A refund does not look whether it was made.
    RefundTwice,
    /// The position is advanced in a transaction of its own, before that of the effect.
    PositionApart,
    /// The cursor moves when a record is sent, not when it is acked.
    CursorBeforeAcks,
    /// The number comes from a sequence, which an aborted batch has moved too.
    NumberFromSequence,
    /// The outbox row is written after the commit of the state.
    OutboxAfterCommit,
    /// A row that was absent is upserted, where a plain insert would have met the other one.
    AbsentRowUpserted,
    /// Opening folds the events and restores no position.
    PositionsNotRestored,
    /// Opening folds nothing: the database goes on from where it is.
    NothingFolded,
    /// An ack whose offset does not follow the one before is taken for good.
    JumpNotChecked,
}
