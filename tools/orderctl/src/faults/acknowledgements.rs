//! What was acknowledged to a client, and whether it was lost with its database. Pure.
//!
//! What was acknowledged and not yet published is lost with its database. Postgres is stopped
//! first, and is replaced only when every try that was sent before has its reply or was given up
//! (`Client::TRY`). So there are two cases:
//!
//! - The reply arrived before Postgres stopped: this is the loss that the design admits.
//! - The try was sent before Postgres stopped, and its reply arrived while it was stopped. Nothing
//!   commits in that time, so the commit came before, and only the reply was late, from a replica
//!   that was paused or busy. It is the same loss, and is counted separately.
//!
//! A reply from the new database is never excused.

use tokio::time::Instant;

/// An acknowledgement that a client may have received for its request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Acknowledgement {
    reply: Option<Reply>,
    /// The last loss of its database at which its topic did not hold it.
    absent: Option<DatabaseLoss>,
}

/// The times of the try that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) sent_at: Instant,
    pub(super) replied_at: Instant,
}

/// The loss of a database.
#[derive(Debug, Clone, Copy)]
pub(super) struct DatabaseLoss {
    /// When Postgres stopped: nothing was committed to the database from then on.
    pub(super) stopped_at: Instant,
    /// When it may have been replaced at the earliest.
    pub(super) replaced_at: Instant,
}

/// What became of an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nothing was acknowledged.
    Unacknowledged,
    /// What was acknowledged holds.
    Kept,
    /// It was lost with its database, which stopped after the reply.
    Lost,
    /// It was lost with its database, which stopped before the reply.
    LostUnderWay,
    /// What was acknowledged does not hold, and no loss of a database excuses it.
    Broken,
}

impl Acknowledgement {
    pub(super) fn acknowledge(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    pub(super) fn is_given(&self) -> bool {
        self.reply.is_some()
    }

    /// Notes that its database was lost while its topic did not hold it.
    pub(super) fn mark_absent(&mut self, loss: DatabaseLoss) {
        self.absent = Some(loss);
    }

    /// Returns what became of it, given whether it `holds` in the end.
    pub(super) fn fate(&self, holds: bool) -> Fate {
        let Some(Reply { sent_at, replied_at }) = self.reply else { return Fate::Unacknowledged };
        match self.absent {
            _ if holds => Fate::Kept,
            Some(loss) if replied_at <= loss.stopped_at => Fate::Lost,
            Some(loss) if sent_at < loss.stopped_at && replied_at < loss.replaced_at => {
                Fate::LostUnderWay
            }
            _ => Fate::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Acknowledged by a try between two times in seconds, and absent from the topic when the
    /// database was stopped at 10 s and replaced at 14 s.
    fn acknowledged(sent: u64, replied: u64) -> Acknowledgement {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut acknowledgement = Acknowledgement::default();
        acknowledgement.acknowledge(Reply { sent_at: at(sent), replied_at: at(replied) });
        acknowledgement.mark_absent(DatabaseLoss { stopped_at: at(10), replaced_at: at(14) });
        acknowledgement
    }

    #[test]
    fn what_was_acknowledged_before_the_database_went_is_lost_with_it() {
        assert_eq!(acknowledged(1, 9).fate(false), Fate::Lost);
        assert_eq!(acknowledged(9, 10).fate(false), Fate::Lost);
    }

    #[test]
    fn a_reply_that_was_under_way_when_the_database_stopped_is_counted_apart() {
        assert_eq!(acknowledged(9, 12).fate(false), Fate::LostUnderWay);
    }

    #[test]
    fn a_reply_of_the_new_database_is_no_loss_with_the_old_one() {
        assert_eq!(acknowledged(9, 15).fate(false), Fate::Broken);
        assert_eq!(acknowledged(15, 16).fate(false), Fate::Broken);
    }

    #[test]
    fn a_try_that_was_sent_when_nothing_could_commit_is_no_loss() {
        assert_eq!(acknowledged(11, 12).fate(false), Fate::Broken);
    }

    #[test]
    fn what_was_in_its_topic_when_the_database_was_lost_may_not_be_missing() {
        let mut acknowledgement = Acknowledgement::default();
        let now = Instant::now();
        acknowledgement.acknowledge(Reply { sent_at: now, replied_at: now });
        assert_eq!(
            (acknowledgement.fate(false), acknowledgement.fate(true)),
            (Fate::Broken, Fate::Kept)
        );
        assert_eq!(Acknowledgement::default().fate(false), Fate::Unacknowledged);
    }
}
