//! A topic-partition as a consumer reads it (law 3): the records that it accepts, and what is wrong
//! with the others.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reel::kafka::Record;
use reel::log::{Position, Verdict};
use uuid::Uuid;

use super::{Findings, Kind, Lane};

/// Returns the records that a consumer applies, in order, and reports the others.
pub(super) fn accepted<'a>(
    topic: &str,
    lane: &'a Lane,
    findings: &mut Findings,
) -> Vec<&'a Record> {
    let place = format!("{topic}/{}", lane.partition);
    let outbox: HashMap<i64, Uuid> =
        lane.outbox.iter().map(|row| (row.sequence, row.event_id)).collect();
    let mut position = Position::START;
    let mut accepted = Vec::new();

    // The ids at each sequence, from all records but those of a former owner.
    let mut current: BTreeMap<i64, BTreeSet<Uuid>> = BTreeMap::new();

    for record in &lane.records {
        let verdict = position.read(record);
        match &verdict {
            Verdict::Apply => accepted.push(record),
            Verdict::Duplicate => findings.add(Kind::Duplicate, at(&place, record)),
            Verdict::Stale | Verdict::EpochMissed { .. } => {
                findings.add(Kind::Stale, at(&place, record));
            }
            Verdict::Malformed(reason) => {
                findings.add(Kind::Foreign, format!("{}: {reason}", at(&place, record)));
            }
            Verdict::Opened | Verdict::Gap { .. } => {}
        }

        if !matches!(verdict, Verdict::Stale)
            && let Ok(envelope) = &record.envelope
            && let Some(sequence) = envelope.sequence
        {
            current.entry(sequence).or_default().insert(envelope.id);
        }
    }

    report_gaps(&place, lane, position.next_sequence, &current, findings);
    for (sequence, mut ids) in current {
        ids.extend(outbox.get(&sequence));
        if ids.len() > 1 {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            findings.add(
                Kind::Fork,
                format!("{place} sequence {sequence} is given to events {}", ids.join(" and ")),
            );
        }
    }

    accepted
}

/// Reports the sequences that the topic lacks, although the database has assigned them or the topic
/// holds later ones.
fn report_gaps(
    place: &str,
    lane: &Lane,
    next_sequence: i64,
    current: &BTreeMap<i64, BTreeSet<Uuid>>,
    findings: &mut Findings,
) {
    let after_last = current.last_key_value().map_or(0, |(sequence, _)| sequence + 1);
    let (head, head_after) = (lane.next_sequence, lane.next_sequence_after);
    let missing = head.max(after_last) - next_sequence;
    if let Ok(weight @ 1..) = u64::try_from(missing) {
        let what = format!(
            "{place} is applied up to sequence {next_sequence}, and sequences go up to {}: \
             {missing} missing",
            head.max(after_last)
        );
        findings.weigh(Kind::Gap, weight, what);
    }

    if head_after < next_sequence {
        findings.add(
            Kind::FoldMismatch,
            format!(
                "{place} holds {next_sequence} events, \
                 and the head of the database says {head_after}"
            ),
        );
    }
}

fn at(place: &str, record: &Record) -> String {
    format!("{place} offset {}", record.offset)
}
