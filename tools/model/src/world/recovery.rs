//! Recovery (`docs/laws.md`): reads the own topic from the cursor up to the own `reel.opened`, and
//! replays what the database lacks.

use super::{Broken, Database, Phase, Position, Row, Rules, World};
use crate::plant::Plant;

impl Rules {
    /// Whether a first chunk would replay anything, so that it is worth a transition of its own.
    pub(super) fn chunk_changes(
        &self,
        world: &World,
        site: usize,
        lane: usize,
        process: usize,
    ) -> bool {
        let here = &world.sites[site];
        self.unread(world, site, lane, process)
            .first()
            .is_some_and(|(row, _)| row.sequence >= here.db.lanes[lane].head)
    }

    /// Commits one chunk of a single event, or with `last` all that is left, which opens the lane
    /// for this database epoch.
    pub(super) fn open(
        &self,
        world: &mut World,
        site: usize,
        lane: usize,
        process: usize,
        last: bool,
    ) {
        let mut unread = self.unread(world, site, lane, process);
        if !last {
            unread.truncate(1);
        }
        let reached = unread.last().map(|(_, position)| *position);
        for (row, _) in unread {
            self.restore(world, site, lane, row);
            if world.broken.is_some() {
                return;
            }
        }

        // The head must have reached the cursor: if not, the topic lacks events that it once had.
        let here = world.site(site);
        let epoch = here.lanes[lane].processes[process].epoch;
        let inside = &mut here.db.lanes[lane];
        inside.cursor = reached.unwrap_or(inside.cursor);
        if inside.cursor.next > inside.head {
            world.broken = Some(Broken::Hole);
            return;
        }

        if last {
            let marker = u8::try_from(epoch).expect("it has landed");
            inside.cursor = Position { offset: marker + 1, next: inside.cursor.next, epoch };
            inside.opened_epoch = here.database_epoch;
            let next = inside.cursor.next;
            let p = &mut here.lanes[lane].processes[process];
            (p.phase, p.next_send, p.next_acked, p.last_offset) =
                (Phase::Active, next, next, marker);
        }
    }

    /// The events of the own topic from the cursor up to the own `reel.opened`, by the consumer's
    /// rule, each with the reader's position after it.
    fn unread(
        &self,
        world: &World,
        site: usize,
        lane: usize,
        process: usize,
    ) -> Vec<(Row, Position)> {
        let here = &world.sites[site];
        let outside = &here.lanes[lane];
        let end = usize::try_from(outside.processes[process].epoch).expect("its marker has landed");
        let (topic, mut position) = (&outside.topic[..end], here.db.lanes[lane].cursor);
        std::iter::from_fn(|| self.read(&mut position, topic).map(|row| (row, position))).collect()
    }

    /// Replays one event of the topic, unless the database has it, and restores the position that
    /// its cause proves.
    fn restore(&self, world: &mut World, site: usize, lane: usize, row: Row) {
        let Database { lanes, .. } = &world.sites[site].db;
        let known = lanes[lane].rows.iter().find(|known| known.sequence == row.sequence);
        match known {
            Some(known) if *known != row => world.broken = Some(Broken::Fork),
            Some(_) => {}
            None if row.sequence > lanes[lane].head => world.broken = Some(Broken::Hole),
            None => {
                if !self.planted(Plant::NothingFolded) {
                    self.fold(world, site, lane, row.fact);
                }
                let inside = &mut world.site(site).db.lanes[lane];
                inside.rows.push(row);
                inside.head = row.sequence + 1;

                if let Some(cause) =
                    row.cause.filter(|_| !self.planted(Plant::PositionsNotRestored))
                {
                    let position = &mut inside.positions[usize::from(cause.input)];
                    if position.next <= cause.sequence {
                        *position = Position {
                            offset: cause.offset + 1,
                            next: cause.sequence + 1,
                            epoch: cause.epoch,
                        };
                    }
                }
            }
        }
    }
}
