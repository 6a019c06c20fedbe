//! Opening (DESIGN section 3): read the own topic from the cursor up to the own `reel.opened`, and fold what the database lacks.

use super::{Broken, Database, Phase, Reading, Row, Rules, World};
use crate::plant::Plant;

impl Rules {
    /// Whether a first piece of the fold would be a commit of its own.
    pub(super) fn piece_changes(&self, world: &World, site: usize, lane: usize, process: usize) -> bool {
        let here = &world.sites[site];
        self.unread(world, site, lane, process).first().is_some_and(|(row, _)| row.number >= here.db.lanes[lane].head)
    }

    /// Commits the first piece only, or all of it; the last piece opens the lane for this run.
    pub(super) fn open(&self, world: &mut World, site: usize, lane: usize, process: usize, last: bool) {
        let mut unread = self.unread(world, site, lane, process);
        if !last {
            unread.truncate(1);
        }
        let behind = unread.last().map(|(_, reading)| *reading);
        for (row, _) in unread {
            self.restore(world, site, lane, row);
            if world.broken.is_some() {
                return;
            }
        }
        let here = world.site(site);
        let generation = here.lanes[lane].processes[process].generation;
        let inside = &mut here.db.lanes[lane];
        inside.cursor = behind.unwrap_or(inside.cursor);
        if inside.cursor.next > inside.head {
            world.broken = Some(Broken::Hole);
            return;
        }
        if last {
            let marker = u8::try_from(generation).expect("it has landed");
            inside.cursor = Reading { offset: marker + 1, next: inside.cursor.next, generation };
            inside.opened_run = here.run;
            let next = inside.cursor.next;
            let p = &mut here.lanes[lane].processes[process];
            (p.phase, p.next_send, p.next_acked, p.last_offset) = (Phase::Active, next, next, marker);
        }
    }

    /// What the own topic holds from the cursor on, by the consumer's rule, and where the reader stands after each.
    fn unread(&self, world: &World, site: usize, lane: usize, process: usize) -> Vec<(Row, Reading)> {
        let here = &world.sites[site];
        let outside = &here.lanes[lane];
        let end = usize::try_from(outside.processes[process].generation).expect("its marker has landed");
        let (topic, mut reading) = (&outside.topic[..end], here.db.lanes[lane].cursor);
        std::iter::from_fn(|| self.read(&mut reading, topic).map(|row| (row, reading))).collect()
    }

    /// One event of the topic: known, or folded with the position that its cause proves.
    fn restore(&self, world: &mut World, site: usize, lane: usize, row: Row) {
        let Database { lanes, .. } = &world.sites[site].db;
        let known = lanes[lane].rows.iter().find(|known| known.number == row.number);
        match known {
            Some(known) if *known != row => world.broken = Some(Broken::Fork),
            Some(_) => {}
            None if row.number > lanes[lane].head => world.broken = Some(Broken::Hole),
            None => {
                if !self.planted(Plant::NothingFolded) {
                    self.fold(world, site, lane, row.fact);
                }
                let inside = &mut world.site(site).db.lanes[lane];
                inside.rows.push(row);
                inside.head = row.number + 1;
                if let Some(cause) = row.cause.filter(|_| !self.planted(Plant::PositionsNotRestored)) {
                    let position = &mut inside.positions[usize::from(cause.input)];
                    if position.next <= cause.number {
                        *position = Reading { offset: cause.offset + 1, next: cause.number + 1, generation: cause.generation };
                    }
                }
            }
        }
    }
}
