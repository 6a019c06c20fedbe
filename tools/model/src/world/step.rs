//! The step: commands, deadlines and inputs, each in one transaction.

use super::{Action, Broken, Cause, Pending, Phase, Record, Row, Rules, World};
use crate::plant::Plant;
use crate::services::{Command, DeadlineChange, Fact, Reaction};

impl Rules {
    /// Whether a site may give events their sequences.
    fn may_assign_sequences(&self, world: &World, site: usize) -> bool {
        world.sites[site].open() || self.planted(Plant::DecidesBeforeAllLanesAreOpen)
    }

    /// Whether a live replica holds the lane under its token and database epoch, and has opened it.
    fn owned(&self, world: &World, site: usize, lane: usize) -> bool {
        let here = &world.sites[site];
        let inside = &here.db.lanes[lane];
        let works = |phase| matches!(phase, Phase::Active | Phase::Jumped);
        let mine = |token| token == inside.token || self.planted(Plant::TokenNotChecked);
        !self.laned[site]
            || here.lanes[lane].processes.iter().any(|p| {
                works(p.phase) && mine(p.token) && p.token.database_epoch == here.database_epoch
            })
    }

    /// Commands of clients and deadlines.
    pub(super) fn command_actions(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
        let here = &world.sites[site];
        if !self.may_assign_sequences(world, site) {
            return;
        }
        for lane in 0..self.lanes {
            for command in self.services.commands(site).iter().copied() {
                let possible = match command {
                    Command::Begin => true,
                    Command::Cancel => self.cancels,
                    Command::Expire => {
                        self.cancels
                            && here.db.lanes[lane].deadline
                            && self.owned(world, site, lane)
                    }
                };
                let event = matches!(
                    self.services.decide(site, here.db.state, lane, command),
                    Reaction::Event(_)
                );
                if possible && event && here.lanes[lane].pending.is_none() {
                    actions.push(Action::Ask { site, lane, command });
                    if command == Command::Begin
                        && world.left.twice > 0
                        && here.lanes[lane].loaded.is_none()
                    {
                        actions.push(Action::Load { site, lane });
                    }
                }
            }

            if here.lanes[lane].loaded.is_some() {
                actions.push(Action::Insert { site, lane });
            }
        }
    }

    /// Actions of the step loops.
    pub(super) fn step_actions(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
        let here = &world.sites[site];
        for lane in 0..self.lanes {
            if here.lanes[lane].pending.is_some() {
                actions.push(Action::Finish { site, lane });
                if world.left.crashes > 0 {
                    actions.push(Action::Drop { site, lane });
                }
                continue;
            }

            for input in 0..self.sites[site].inputs.len() {
                let found = self.next(world, site, lane, input);
                let waits = |row: Row| {
                    !self.may_assign_sequences(world, site)
                        && matches!(self.reacts(world, site, row.fact), Reaction::Event(_))
                };
                if found.is_some_and(|row| !waits(row)) && self.owned(world, site, lane) {
                    actions.push(Action::Step { site, lane, input });
                }
            }

            if world.left.aborts > 0 && self.planted(Plant::NumberFromSequence) {
                actions.push(Action::Abort { site, lane });
            }
            if !self.laned[site] && world.left.resends > 0 {
                actions.extend((0..here.db.lanes[lane].rows.len()).map(|from| Action::Resend {
                    site,
                    lane,
                    from,
                }));
            }
        }
    }

    pub(super) fn ask(&self, world: &mut World, site: usize, lane: usize, command: Command) {
        if let Reaction::Event(fact) =
            self.services.decide(site, world.sites[site].db.state, lane, command)
        {
            self.commit(world, site, lane, fact, None);
        }
    }

    pub(super) fn load(&self, world: &mut World, site: usize, lane: usize) {
        world.left.twice -= 1;
        if let Reaction::Event(fact) =
            self.services.decide(site, world.sites[site].db.state, lane, Command::Begin)
        {
            world.site(site).lanes[lane].loaded = Some(fact);
        }
    }

    /// Decides the command again, because its plain insert failed on the row of the first replica.
    pub(super) fn insert(&self, world: &mut World, site: usize, lane: usize) {
        let Some(fact) = world.site(site).lanes[lane].loaded.take() else { return };
        if self.planted(Plant::AbsentRowUpserted) {
            self.commit(world, site, lane, fact, None);
        } else if self.may_assign_sequences(world, site) {
            self.ask(world, site, lane, Command::Begin);
        }
    }

    /// Handles one message: position, effect and outbox row commit together.
    pub(super) fn step(&self, world: &mut World, site: usize, lane: usize, input: usize) {
        let from = self.sites[site].inputs[input];
        let mut position = world.sites[site].db.lanes[lane].positions[input];
        let Some(row) = self.read(&mut position, &world.sites[from].lanes[lane].topic) else {
            return;
        };

        let input_index = u8::try_from(input).expect("a few inputs");
        let cause = Cause {
            input: input_index,
            sequence: row.sequence,
            offset: position.offset - 1,
            epoch: position.epoch,
        };

        world.site(site).db.lanes[lane].positions[input] = position;
        if self.planted(Plant::PositionApart) {
            world.site(site).lanes[lane].pending = Some(Pending::Message(row.fact, cause));
        } else {
            self.effect(world, site, lane, row.fact, cause);
        }
    }

    pub(super) fn finish(&self, world: &mut World, site: usize, lane: usize) {
        match world.site(site).lanes[lane].pending.take() {
            Some(Pending::Message(fact, cause)) => self.effect(world, site, lane, fact, cause),
            Some(Pending::Event(fact, cause)) => self.publish(world, site, lane, fact, cause),
            None => {}
        }
    }

    /// Sends again from a sequence on, as a relay whose cursor was behind.
    pub(super) fn resend(&self, world: &mut World, site: usize, lane: usize, from: usize) {
        let rows: Vec<Row> = world.sites[site].db.lanes[lane].rows[from..].to_vec();
        for row in rows {
            self.append(world, site, lane, Record { epoch: 0, row: Some(row) });
        }
    }

    /// The event that a step would apply next on this input.
    #[must_use]
    pub fn next(&self, world: &World, site: usize, lane: usize, input: usize) -> Option<Row> {
        let mut position = world.sites[site].db.lanes[lane].positions[input];
        self.read(&mut position, &world.sites[self.sites[site].inputs[input]].lanes[lane].topic)
    }

    fn reacts(&self, world: &World, site: usize, fact: Fact) -> Reaction {
        self.services.react(site, world.sites[site].db.state, fact)
    }

    fn effect(&self, world: &mut World, site: usize, lane: usize, fact: Fact, cause: Cause) {
        match self.reacts(world, site, fact) {
            Reaction::Event(fact) => self.commit(world, site, lane, fact, Some(cause)),
            Reaction::Nothing => {}
            Reaction::Impossible(_) => world.broken = Some(Broken::Impossible),
        }
    }

    fn commit(
        &self,
        world: &mut World,
        site: usize,
        lane: usize,
        fact: Fact,
        cause: Option<Cause>,
    ) {
        self.fold(world, site, lane, fact);
        if self.planted(Plant::OutboxAfterCommit) {
            world.site(site).lanes[lane].pending = Some(Pending::Event(fact, cause));
        } else {
            self.publish(world, site, lane, fact, cause);
        }
    }

    /// Applies `evolve` and `deadlines` to the database.
    pub(super) fn fold(&self, world: &mut World, site: usize, lane: usize, fact: Fact) {
        let db = &mut world.site(site).db;
        db.state = self.services.evolve(site, db.state, fact);
        match self.services.deadline(site, fact) {
            DeadlineChange::Set => db.lanes[lane].deadline = true,
            DeadlineChange::Clear => db.lanes[lane].deadline = false,
            DeadlineChange::None => {}
        }
    }

    /// Writes the outbox row under the next sequence. The relay of a plain site sends it at once.
    fn publish(
        &self,
        world: &mut World,
        site: usize,
        lane: usize,
        fact: Fact,
        cause: Option<Cause>,
    ) {
        let here = world.site(site);
        let inside = &mut here.db.lanes[lane];
        let row = Row { sequence: inside.head, fact, cause, database_epoch: here.database_epoch };
        inside.head += 1;
        inside.rows.push(row);
        if !self.laned[site] {
            self.append(world, site, lane, Record { epoch: 0, row: Some(row) });
        }
    }
}
