//! Replicas of a laned site: taking, relaying, dying, and a database that goes back in time.

use super::{Action, Phase, Process, Record, Rules, Token, World};
use crate::plant::Plant;

impl Rules {
    /// What the replicas of a laned site may do.
    pub(super) fn relays(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
        let here = &world.sites[site];
        for lane in 0..self.lanes {
            let (inside, outside) = (&here.db.lanes[lane], &here.lanes[lane]);
            for (process, p) in outside.processes.iter().enumerate() {
                let mine = p.token == inside.token;
                let token = mine || self.planted(Plant::TokenNotChecked);
                let current = p.token.run == here.run;
                if !p.in_flight.is_empty() {
                    actions.push(Action::Land { site, lane, process });
                }
                match p.phase {
                    Phase::Idle | Phase::Taken => {}
                    Phase::Jumped if mine && current => actions.push(Action::Reopen { site, lane, process }),
                    // A token belongs to the run under which it was taken: who does not check it checks neither.
                    Phase::Marked if mine && current || self.planted(Plant::TokenNotChecked) => {
                        actions.push(Action::Open { site, lane, process });
                        if self.piece_changes(world, site, lane, process) {
                            actions.push(Action::Piece { site, lane, process });
                        }
                    }
                    Phase::Active if current && token => {
                        let acked = if self.planted(Plant::CursorBeforeAcks) { p.next_send } else { p.next_acked };
                        if acked > inside.cursor.next {
                            actions.push(Action::Cursor { site, lane, process });
                        }
                    }
                    Phase::Jumped | Phase::Marked | Phase::Active => actions.push(Action::Fence { site, lane, process }),
                }
                let row = inside.rows.get(usize::from(p.next_send));
                if p.phase == Phase::Active && row.is_some() && p.in_flight.len() < self.in_flight {
                    actions.push(Action::Send { site, lane, process });
                }
            }
            // Where nobody alive holds the lane under this run, somebody takes it: no fault.
            let held = outside.processes.iter().any(|p| p.phase != Phase::Idle && p.token == inside.token && p.token.run == here.run);
            for process in 0..outside.processes.len() {
                let resting = outside.processes[process].phase == Phase::Idle;
                let works = matches!(outside.processes[process].phase, Phase::Idle | Phase::Active);
                if !held && resting || held && works && world.left.takes > 0 {
                    actions.push(Action::Take { site, lane, process, free: !held });
                }
            }
            if !outside.orphans.is_empty() {
                actions.push(Action::OrphanLands { site, lane });
                actions.push(Action::OrphanLost { site, lane });
            }
        }
    }

    /// What may go wrong with a laned site.
    pub(super) fn lane_faults(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
        let here = &world.sites[site];
        if world.left.rewinds > 0 {
            match &here.backup {
                None => actions.push(Action::Backup { site }),
                Some(backup) if **backup != here.db => actions.push(Action::Rewind { site }),
                Some(_) => {}
            }
        }
        if world.left.crashes > 0 {
            for lane in 0..self.lanes {
                let alive =
                    here.lanes[lane].processes.iter().enumerate().filter(|(_, p)| p.phase != Phase::Idle || !p.in_flight.is_empty());
                actions.extend(alive.map(|(process, _)| Action::Crash { site, lane, process }));
            }
        }
    }

    /// Takes the lane, whoever has it: correctness does not rest on the lease.
    #[expect(clippy::unused_self, reason = "one of the things that happen by the rules")]
    pub(super) fn take(&self, world: &mut World, site: usize, lane: usize, process: usize, free: bool) {
        if !free {
            world.left.takes -= 1;
        }
        let here = world.site(site);
        let newest = here.lanes[lane].processes.iter().map(|p| p.token.taking).max().unwrap_or(0).max(here.db.lanes[lane].token.taking);
        let token = Token { taking: newest + 1, run: here.run };
        here.db.lanes[lane].token = token;
        let p = &mut here.lanes[lane].processes[process];
        let in_flight = std::mem::take(&mut p.in_flight);
        *p = Process { phase: Phase::Taken, token, ..Process::resting(in_flight) };
        p.in_flight.push(Record { generation: -1, row: None });
    }

    /// The first record in flight lands. The owner checks that its acked offsets follow each other.
    pub(super) fn land(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let outside = &mut world.site(site).lanes[lane];
        let offset = u8::try_from(outside.topic.len()).expect("a short topic");
        let generation = i8::try_from(offset).expect("a short topic");
        let p = &mut outside.processes[process];
        let record = p.in_flight.remove(0);
        match record.row {
            None => {
                p.generation = generation;
                if p.phase == Phase::Taken {
                    p.phase = Phase::Marked;
                }
            }
            Some(row) if p.phase == Phase::Active && record.generation == p.generation => {
                if offset == p.last_offset + 1 || self.planted(Plant::JumpNotChecked) {
                    p.last_offset = offset;
                    p.next_acked = row.number + 1;
                } else {
                    p.phase = Phase::Jumped;
                }
            }
            Some(_) => {}
        }
        self.append(world, site, lane, record);
    }

    /// A replica that is not the owner any more forgets the lane; what it has sent still lands.
    #[expect(clippy::unused_self, reason = "one of the things that happen by the rules")]
    pub(super) fn fence(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let p = &mut world.site(site).lanes[lane].processes[process];
        *p = Process::resting(std::mem::take(&mut p.in_flight));
    }

    pub(super) fn reopen(world: &mut World, site: usize, lane: usize, process: usize) {
        let p = &mut world.site(site).lanes[lane].processes[process];
        p.phase = Phase::Taken;
        p.in_flight.push(Record { generation: -1, row: None });
    }

    pub(super) fn send(world: &mut World, site: usize, lane: usize, process: usize) {
        let here = world.site(site);
        let p = &mut here.lanes[lane].processes[process];
        let row = here.db.lanes[lane].rows[usize::from(p.next_send)];
        p.next_send += 1;
        p.in_flight.push(Record { generation: p.generation, row: Some(row) });
    }

    /// Under token and run, which the fence checks.
    pub(super) fn cursor(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let here = world.site(site);
        let p = &here.lanes[lane].processes[process];
        let cursor = &mut here.db.lanes[lane].cursor;
        cursor.next = if self.planted(Plant::CursorBeforeAcks) { p.next_send } else { p.next_acked };
        cursor.offset = p.last_offset + 1;
        cursor.generation = p.generation;
    }

    pub(super) fn crash(world: &mut World, site: usize, lane: usize, process: usize) {
        world.left.crashes -= 1;
        let outside = &mut world.site(site).lanes[lane];
        let dead = std::mem::replace(&mut outside.processes[process], Process::resting(vec![]));
        outside.orphans.extend(dead.in_flight);
    }

    pub(super) fn rewind(world: &mut World, site: usize) {
        world.left.rewinds -= 1;
        let here = world.site(site);
        if let Some(backup) = here.backup.take() {
            here.db = *backup;
            here.run += 1;
        }
    }
}
