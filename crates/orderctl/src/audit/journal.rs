//! A topic-partition as a consumer reads it (law 3): what is accepted, and what is wrong with the rest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use reel::kafka::Record;
use reel::lanes::{Position, Verdict};
use uuid::Uuid;

use super::{Findings, Kind, Lane};

/// The records that a consumer applies, in order.
pub(super) fn accepted<'a>(topic: &str, lane: &'a Lane, findings: &mut Findings) -> Vec<&'a Record> {
    let place = format!("{topic}/{}", lane.partition);
    let outbox: HashMap<i64, Uuid> = lane.outbox.iter().map(|row| (row.seq, row.event_id)).collect();
    let mut position = Position::START;
    let mut accepted = Vec::new();
    let mut current: BTreeMap<i64, BTreeSet<Uuid>> = BTreeMap::new();
    for record in &lane.records {
        let verdict = position.read(record);
        match &verdict {
            Verdict::Apply => accepted.push(record),
            Verdict::Duplicate => findings.add(Kind::Duplicate, at(&place, record)),
            Verdict::Stale => findings.add(Kind::Stale, at(&place, record)),
            Verdict::Malformed(reason) => findings.add(Kind::Foreign, format!("{}: {reason}", at(&place, record))),
            Verdict::Opened | Verdict::Gap { .. } => {}
        }
        if !matches!(verdict, Verdict::Stale)
            && let Ok(envelope) = &record.envelope
            && let Some(number) = envelope.number
        {
            current.entry(number).or_default().insert(envelope.id);
        }
    }
    tell_gaps(&place, lane, position.next_seq, &current, findings);
    for (number, mut ids) in current {
        ids.extend(outbox.get(&number));
        if ids.len() > 1 {
            let ids: Vec<String> = ids.iter().map(Uuid::to_string).collect();
            findings.add(Kind::Fork, format!("{place} number {number} stands for events {}", ids.join(" and ")));
        }
    }
    accepted
}

/// Numbers are missing where the database has given more of them, or the topic holds later ones.
fn tell_gaps(place: &str, lane: &Lane, next_seq: i64, current: &BTreeMap<i64, BTreeSet<Uuid>>, findings: &mut Findings) {
    let after_last = current.last_key_value().map_or(0, |(number, _)| number + 1);
    let (head, head_after) = (lane.next_seq, lane.next_seq_after);
    let missing = head.max(after_last) - next_seq;
    if let Ok(weight @ 1..) = u64::try_from(missing) {
        let what = format!("{place} is applied up to number {next_seq}, and numbers go up to {}: {missing} missing", head.max(after_last));
        findings.weigh(Kind::Gap, weight, what);
    }
    if head_after < next_seq {
        findings.add(Kind::FoldMismatch, format!("{place} holds {next_seq} events, and the head of the database says {head_after}"));
    }
}

fn at(place: &str, record: &Record) -> String {
    format!("{place} offset {}", record.offset)
}
