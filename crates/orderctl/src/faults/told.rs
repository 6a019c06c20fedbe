//! What a client was told, and whether that went with its database. Pure.
//!
//! A database that is thrown away cannot bring back what was acknowledged and not yet published. Postgres is stopped first, and
//! is replaced only when every try that was sent before has its reply or was given up (`Client::TRY`). So there are two cases:
//!
//! - The reply was there before Postgres stopped: that is the loss that the design admits.
//! - The try was sent before, and its reply came while Postgres was stopped: nothing commits then, so it was committed before, and
//!   only the reply was late, from a replica that was paused or busy. It is the same loss, and is counted apart.
//!
//! A reply that came from the new database is never excused.

use tokio::time::Instant;

/// One thing that a client may have been told of its request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    reply: Option<Reply>,
    /// The last time that its database was thrown away and its topic did not hold it.
    absent: Option<Thrown>,
}

/// The try that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply {
    pub(super) sent_at: Instant,
    pub(super) replied_at: Instant,
}

/// A database that was thrown away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Thrown {
    /// From now on nothing was committed to it.
    pub(super) stopped_at: Instant,
    /// From now on there may be another one.
    pub(super) replaced_at: Instant,
}

/// What became of what was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Nobody was told.
    Untold,
    /// It is so.
    Kept,
    /// It went with its database, and the client knew before.
    Lost,
    /// It went with its database, and the client was told while there was none.
    LostUnderWay,
    /// It was promised, and it is not so.
    Broken,
}

impl Told {
    pub(super) fn tell(&mut self, reply: Reply) {
        self.reply = Some(reply);
    }

    pub(super) fn is_told(&self) -> bool {
        self.reply.is_some()
    }

    /// Its database was thrown away, and its topic does not hold it.
    pub(super) fn is_absent(&mut self, thrown: Thrown) {
        self.absent = Some(thrown);
    }

    /// What became of it, if it `holds` in the end or does not.
    pub(super) fn fate(&self, holds: bool) -> Fate {
        let Some(Reply { sent_at, replied_at }) = self.reply else { return Fate::Untold };
        match self.absent {
            _ if holds => Fate::Kept,
            Some(thrown) if replied_at <= thrown.stopped_at => Fate::Lost,
            Some(thrown) if sent_at < thrown.stopped_at && replied_at < thrown.replaced_at => Fate::LostUnderWay,
            _ => Fate::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Told by a try from one second to another, and absent when the database was stopped at 10 s and replaced at 14 s.
    fn told(sent: u64, replied: u64) -> Told {
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut told = Told::default();
        told.tell(Reply { sent_at: at(sent), replied_at: at(replied) });
        told.is_absent(Thrown { stopped_at: at(10), replaced_at: at(14) });
        told
    }

    #[test]
    fn what_was_acknowledged_before_the_database_went_is_lost_with_it() {
        assert_eq!(told(1, 9).fate(false), Fate::Lost);
        assert_eq!(told(9, 10).fate(false), Fate::Lost);
    }

    #[test]
    fn a_reply_that_was_under_way_when_the_database_stopped_is_counted_apart() {
        assert_eq!(told(9, 12).fate(false), Fate::LostUnderWay);
    }

    #[test]
    fn a_reply_of_the_new_database_is_no_loss_with_the_old_one() {
        assert_eq!(told(9, 15).fate(false), Fate::Broken);
        assert_eq!(told(15, 16).fate(false), Fate::Broken);
    }

    #[test]
    fn a_try_that_was_sent_when_nothing_could_commit_is_no_loss() {
        assert_eq!(told(11, 12).fate(false), Fate::Broken);
    }

    #[test]
    fn what_stood_in_its_topic_when_the_database_went_may_not_be_missing() {
        let mut told = Told::default();
        let now = Instant::now();
        told.tell(Reply { sent_at: now, replied_at: now });
        assert_eq!((told.fate(false), told.fate(true)), (Fate::Broken, Fate::Kept));
        assert_eq!(Told::default().fate(false), Fate::Untold);
    }
}
