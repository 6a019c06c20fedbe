//! The deadlines, which are the fold of what events set and clear.

use std::collections::BTreeMap;

use reel::model::{DeadlineChange, Partition, Service};

use super::{DeadlineRow, Findings, Kind};

/// The deadlines that the events leave, by key and name.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeMap<(String, String), DeadlineRow>);

impl Deadlines {
    pub(super) fn apply<S: Service>(
        &mut self,
        partition: Partition,
        key: &str,
        changes: reel::model::Deadlines<S>,
    ) -> serde_json::Result<()> {
        for change in changes {
            match change {
                DeadlineChange::Set { name, due_at, command } => {
                    let command = serde_json::to_value(&command)?;
                    let row = DeadlineRow {
                        partition: partition.0,
                        key: key.to_owned(),
                        name: name.to_owned(),
                        due_at,
                        command,
                    };
                    self.0.insert((key.to_owned(), name.to_owned()), row);
                }
                DeadlineChange::Clear { name } => {
                    self.0.remove(&(key.to_owned(), name.to_owned()));
                }
            }
        }
        Ok(())
    }

    pub(super) fn compare(
        mut self,
        service: &str,
        stored: &[DeadlineRow],
        findings: &mut Findings,
    ) {
        for row in stored {
            let what = match self.0.remove(&(row.key.clone(), row.name.clone())) {
                Some(expected) if expected == *row => continue,
                Some(expected) => format!("is {row:?} and should be {expected:?}"),
                None => "is there, although no event says so".to_owned(),
            };
            findings.add(
                Kind::FoldMismatch,
                format!("{service}: deadline {} of {} {what}", row.name, row.key),
            );
        }
        for (key, name) in self.0.into_keys() {
            findings
                .add(Kind::FoldMismatch, format!("{service}: deadline {name} of {key} is missing"));
        }
    }
}
