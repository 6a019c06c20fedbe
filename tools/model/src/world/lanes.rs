//! Replicas of a laned site: they acquire lanes, relay and die, and their database is rewound.

use super::{Action, Phase, Process, Record, Rules, Token, World};
use crate::plant::Plant;

impl Rules {
    /// Actions of the replicas of a laned site.
    pub(super) fn relay_actions(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
        let here = &world.sites[site];
        for lane in 0..self.lanes {
            let (inside, outside) = (&here.db.lanes[lane], &here.lanes[lane]);
            for (process, p) in outside.processes.iter().enumerate() {
                let mine = p.token == inside.token;
                let token = mine || self.planted(Plant::TokenNotChecked);
                let current = p.token.database_epoch == here.database_epoch;

                if !p.in_flight.is_empty() {
                    actions.push(Action::Land { site, lane, process });
                }

                match p.phase {
                    Phase::Idle | Phase::Acquired => {}
                    Phase::Jumped if mine && current => {
                        actions.push(Action::Reopen { site, lane, process });
                    }

                    // A token belongs to the database epoch of its acquisition, so the planted bug
                    // checks neither.
                    Phase::Marked if mine && current || self.planted(Plant::TokenNotChecked) => {
                        actions.push(Action::Open { site, lane, process });
                        if self.chunk_changes(world, site, lane, process) {
                            actions.push(Action::Chunk { site, lane, process });
                        }
                    }
                    Phase::Active if current && token => {
                        let acked = if self.planted(Plant::CursorBeforeAcks) {
                            p.next_send
                        } else {
                            p.next_acked
                        };
                        if acked > inside.cursor.next {
                            actions.push(Action::Cursor { site, lane, process });
                        }
                    }
                    Phase::Jumped | Phase::Marked | Phase::Active => {
                        actions.push(Action::Fence { site, lane, process });
                    }
                }

                let row = inside.rows.get(usize::from(p.next_send));
                if p.phase == Phase::Active && row.is_some() && p.in_flight.len() < self.in_flight {
                    actions.push(Action::Send { site, lane, process });
                }
            }

            // If no live replica holds the lane in this database epoch, an acquisition is no fault.
            let held = outside.processes.iter().any(|p| {
                p.phase != Phase::Idle
                    && p.token == inside.token
                    && p.token.database_epoch == here.database_epoch
            });
            for process in 0..outside.processes.len() {
                let idle = outside.processes[process].phase == Phase::Idle;
                let works = matches!(outside.processes[process].phase, Phase::Idle | Phase::Active);
                if !held && idle || held && works && world.left.acquisitions > 0 {
                    actions.push(Action::Acquire { site, lane, process, free: !held });
                }
            }

            if !outside.orphans.is_empty() {
                actions.push(Action::OrphanLands { site, lane });
                actions.push(Action::OrphanLost { site, lane });
            }
        }
    }

    /// Faults of a laned site.
    pub(super) fn fault_actions(&self, world: &World, site: usize, actions: &mut Vec<Action>) {
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
                let alive = here.lanes[lane]
                    .processes
                    .iter()
                    .enumerate()
                    .filter(|(_, p)| p.phase != Phase::Idle || !p.in_flight.is_empty());
                actions.extend(alive.map(|(process, _)| Action::Crash { site, lane, process }));
            }
        }
    }

    /// Acquires the lane, even from a live owner: correctness does not depend on the lease.
    #[expect(clippy::unused_self, reason = "called like the other actions")]
    pub(super) fn acquire(
        &self,
        world: &mut World,
        site: usize,
        lane: usize,
        process: usize,
        free: bool,
    ) {
        if !free {
            world.left.acquisitions -= 1;
        }
        let here = world.site(site);
        let newest = here.lanes[lane]
            .processes
            .iter()
            .map(|p| p.token.acquisition)
            .max()
            .unwrap_or(0)
            .max(here.db.lanes[lane].token.acquisition);
        let token = Token { acquisition: newest + 1, database_epoch: here.database_epoch };
        here.db.lanes[lane].token = token;

        // What the replica sent earlier stays in flight, before its `reel.opened`.
        let p = &mut here.lanes[lane].processes[process];
        let in_flight = std::mem::take(&mut p.in_flight);
        *p = Process { phase: Phase::Acquired, token, ..Process::resting(in_flight) };
        p.in_flight.push(Record { epoch: -1, row: None });
    }

    /// Appends the first record in flight. The owner checks that its acked offsets are consecutive.
    pub(super) fn land(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let outside = &mut world.site(site).lanes[lane];
        let offset = u8::try_from(outside.topic.len()).expect("a short topic");
        let epoch = i8::try_from(offset).expect("a short topic");
        let p = &mut outside.processes[process];
        let record = p.in_flight.remove(0);

        match record.row {
            None => {
                p.epoch = epoch;
                if p.phase == Phase::Acquired {
                    p.phase = Phase::Marked;
                }
            }
            Some(row) if p.phase == Phase::Active && record.epoch == p.epoch => {
                if offset == p.last_offset + 1 || self.planted(Plant::JumpNotChecked) {
                    p.last_offset = offset;
                    p.next_acked = row.sequence + 1;
                } else {
                    p.phase = Phase::Jumped;
                }
            }
            Some(_) => {}
        }

        self.append(world, site, lane, record);
    }

    /// Makes a former owner forget the lane; what it has sent still lands.
    #[expect(clippy::unused_self, reason = "called like the other actions")]
    pub(super) fn fence(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let p = &mut world.site(site).lanes[lane].processes[process];
        *p = Process::resting(std::mem::take(&mut p.in_flight));
    }

    pub(super) fn reopen(world: &mut World, site: usize, lane: usize, process: usize) {
        let p = &mut world.site(site).lanes[lane].processes[process];
        p.phase = Phase::Acquired;
        p.in_flight.push(Record { epoch: -1, row: None });
    }

    pub(super) fn send(world: &mut World, site: usize, lane: usize, process: usize) {
        let here = world.site(site);
        let p = &mut here.lanes[lane].processes[process];
        let row = here.db.lanes[lane].rows[usize::from(p.next_send)];
        p.next_send += 1;
        p.in_flight.push(Record { epoch: p.epoch, row: Some(row) });
    }

    /// Writes the cursor, under the token and the database epoch that the fence has checked.
    pub(super) fn cursor(&self, world: &mut World, site: usize, lane: usize, process: usize) {
        let here = world.site(site);
        let p = &here.lanes[lane].processes[process];
        let cursor = &mut here.db.lanes[lane].cursor;
        cursor.next =
            if self.planted(Plant::CursorBeforeAcks) { p.next_send } else { p.next_acked };
        cursor.offset = p.last_offset + 1;
        cursor.epoch = p.epoch;
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
            here.database_epoch += 1;
        }
    }
}
