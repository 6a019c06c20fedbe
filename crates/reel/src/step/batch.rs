//! What waits to be handled, and what handling it in memory comes to. No I/O here.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::{Panicked, attempt};
use crate::dead_letters::{DeadLetter, Place};
use crate::deadlines::{Changes, Due};
use crate::kafka::{LONGEST_KEY, Record};
use crate::lanes::Position;
use crate::model::{Ask, Deadlines, Event, Keyed, Message, Partition, Partitions, Service, Timestamp};
use crate::outbox::Draft;
use crate::runtime::{Asked, Refused};
use crate::wire::{Parked, Traced};

/// The longest reason that a `reel.parked` carries, in characters.
const LONGEST_REASON: usize = 1_000;
/// What the headers of a record take at most, without the key.
const HEADER_BYTES: usize = 1_024;
/// The length of a `traceparent` (W3C Trace Context, version 00).
const TRACEPARENT: usize = 55;

/// One thing to handle. Inputs carry the position behind them, so a batch can be cut anywhere.
pub(super) enum Work<S: Service> {
    /// An input that the service handles, decoded as far as it can be.
    Input {
        record: Record,
        key: String,
        decoded: Result<S::Input, String>,
        after: Position,
    },
    /// A record that is no event of ours.
    Malformed {
        record: Record,
        reason: String,
        after: Position,
    },
    /// Records that the service passes over.
    Pass {
        topic: Arc<str>,
        partition: Partition,
        after: Position,
    },
    Command(Asked<S>),
    Deadline {
        due: Due,
        command: Result<S::Command, String>,
    },
}

/// What a batch is handled with.
pub(super) struct Handling<'a> {
    pub(super) partitions: Partitions,
    pub(super) now: Timestamp,
    /// The keys that are parked, as the database has them.
    pub(super) parked: HashSet<String>,
    /// The deadlines that are still due, seen under the locks.
    pub(super) still_due: HashSet<(String, String)>,
    /// Why the one message of this batch cannot be stored, where that was found.
    pub(super) poisoned: Option<&'a str>,
    /// What the topic takes, in bytes.
    pub(super) max_event_bytes: usize,
}

/// The answers to commands, by their place in the batch.
pub(super) type Answers<S> = Vec<(usize, Result<<S as Service>::Answer, Refused<<S as Service>::Rejection>>)>;

/// What is to be written.
pub(super) struct Handled<S: Service> {
    pub(super) drafts: Vec<Draft>,
    pub(super) letters: Vec<DeadLetter>,
    pub(super) parked: Vec<(String, Parked)>,
    pub(super) deadlines: Changes,
    pub(super) answers: Answers<S>,
}

/// Why a message came to no event.
enum Refusal<R> {
    Rejected(R),
    TooLarge(usize),
    Unfit(String),
}

impl<S: Service> Work<S> {
    /// The lane whose order this keeps, if it keeps one.
    pub(super) fn lane(&self) -> Option<Partition> {
        match self {
            Self::Input { record, .. } | Self::Malformed { record, .. } => Some(record.partition),
            Self::Pass { partition, .. } => Some(*partition),
            Self::Command(_) | Self::Deadline { .. } => None,
        }
    }

    /// Which position it moves, and where to.
    pub(super) fn moves(&self) -> Option<(Partition, Arc<str>, Position)> {
        match self {
            Self::Input { record, after, .. } | Self::Malformed { record, after, .. } => {
                Some((record.partition, record.topic.clone(), *after))
            }
            Self::Pass { topic, partition, after } => Some((*partition, topic.clone(), *after)),
            Self::Command(_) | Self::Deadline { .. } => None,
        }
    }

    /// Whether anything but a position is to be written.
    pub(super) fn is_effective(&self) -> bool {
        !matches!(self, Self::Pass { .. })
    }

    /// What must be loaded for it.
    pub(super) fn ask(&self) -> Option<Ask<'_, S>> {
        match self {
            Self::Input { decoded: Ok(input), .. } => Some(Ask::Input(input)),
            Self::Command(asked) => Some(Ask::Command(&asked.command)),
            Self::Deadline { command: Ok(command), .. } => Some(Ask::Command(command)),
            _ => None,
        }
    }
}

/// Handles one message after the other on the working set.
///
/// # Errors
/// The key that was touched and not declared, which stops the batch.
pub(super) fn handle<S: Service>(state: &mut S::State, batch: &[Work<S>], mut with: Handling<'_>) -> Result<Handled<S>, String> {
    let mut handled =
        Handled { drafts: Vec::new(), letters: Vec::new(), parked: Vec::new(), deadlines: Changes::default(), answers: Vec::new() };
    for (place, work) in batch.iter().enumerate() {
        match work {
            Work::Input { record, key, decoded, .. } => handled.input(state, record, key, decoded, &mut with)?,
            Work::Malformed { record, reason, .. } => handled.letters.push(malformed(record, reason)),
            Work::Pass { .. } => {}
            Work::Command(asked) => handled.command(state, place, asked, &with)?,
            Work::Deadline { due, command } => handled.deadline(state, due, command, &with)?,
        }
    }
    Ok(handled)
}

impl<S: Service> Handled<S> {
    fn input(
        &mut self,
        state: &mut S::State,
        record: &Record,
        key: &str,
        decoded: &Result<S::Input, String>,
        with: &mut Handling<'_>,
    ) -> Result<(), String> {
        let Some(cause) = record.cause() else { return Ok(()) };
        let traced = traced_from(record);
        let reason = if with.parked.contains(key) {
            "waits behind an earlier message of its key".to_owned()
        } else if let Some(poison) = with.poisoned {
            poison.to_owned()
        } else {
            match decoded {
                Err(reason) => reason.clone(),
                Ok(input) => {
                    let decided = decide::<S, _>(state, with, key, traced.clone(), |state| {
                        S::react(state, input, with.now).map_err(|impossible| Refusal::<std::convert::Infallible>::Unfit(impossible.0))
                    });
                    match decided {
                        Ok(Ok(decided)) => return self.keep(decided),
                        Ok(Err(refusal)) => refusal.reason(with.max_event_bytes),
                        Err(Panicked::Message(text)) => format!("react panicked: {text}"),
                        Err(Panicked::Undeclared(key)) => return Err(key),
                    }
                }
            }
        };
        let reason: String = reason.chars().take(LONGEST_REASON).collect();
        let name = record.envelope.as_ref().map(|envelope| envelope.name.clone()).unwrap_or_default();
        tracing::error!(
            topic = %cause.topic, partition = cause.partition, offset = cause.offset, event.type = name, key, reason, "a message is parked"
        );
        let parked = Parked {
            topic: cause.topic.clone(),
            partition: cause.partition,
            generation: cause.generation,
            number: cause.number,
            offset: cause.offset,
            message_type: name.clone(),
            reason: reason.clone(),
        };
        let payload = Parked::codec().encode(&parked).map_err(|error| error.to_string())?;
        self.drafts.push(Draft {
            partition: record.partition,
            event_id: Uuid::now_v7(),
            key: key.to_owned(),
            name: Parked::NAME,
            payload,
            traced,
        });
        let place = Place::Numbered(cause);
        self.letters.push(DeadLetter { partition: record.partition, place, key: Some(key.to_owned()), name, reason });
        self.parked.push((key.to_owned(), parked));
        with.parked.insert(key.to_owned());
        Ok(())
    }

    fn command(&mut self, state: &mut S::State, place: usize, asked: &Asked<S>, with: &Handling<'_>) -> Result<(), String> {
        if let Some(poison) = with.poisoned {
            tracing::error!(reason = poison, "a command cannot be stored");
            self.answers.push((place, Err(Refused::Failed(poison.to_owned()))));
            return Ok(());
        }
        let traced = Traced { traceparent: asked.traceparent.clone(), ..Traced::default() };
        let decided =
            decide::<S, _>(state, with, "", traced, |state| S::decide(state, &asked.command, with.now).map_err(Refusal::Rejected));
        let answer = match decided {
            Ok(Ok(decided)) => {
                self.keep(decided)?;
                match attempt(state, |state| Ok::<_, std::convert::Infallible>(S::answer(state, &asked.command))) {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(never)) => match never {},
                    Err(Panicked::Undeclared(key)) => return Err(key),
                    Err(Panicked::Message(text)) => Err(Refused::Failed(text)),
                }
            }
            Ok(Err(Refusal::Rejected(rejection))) => Err(Refused::Rejected(rejection)),
            Ok(Err(Refusal::TooLarge(bytes))) => Err(Refused::TooLarge { bytes, limit: with.max_event_bytes }),
            Ok(Err(Refusal::Unfit(reason))) | Err(Panicked::Message(reason)) => {
                tracing::error!(reason, "a command failed");
                Err(Refused::Failed(reason))
            }
            Err(Panicked::Undeclared(key)) => return Err(key),
        };
        self.answers.push((place, answer));
        Ok(())
    }

    fn deadline(
        &mut self,
        state: &mut S::State,
        due: &Due,
        command: &Result<S::Command, String>,
        with: &Handling<'_>,
    ) -> Result<(), String> {
        if self.deadlines.touches(due) || !with.still_due.contains(&(due.key.clone(), due.name.clone())) {
            return Ok(());
        }
        let failed = match (with.poisoned, command) {
            (Some(reason), _) => Some(reason.to_owned()),
            (None, Err(reason)) => Some(reason.clone()),
            (None, Ok(command)) => {
                let decided = decide::<S, _>(state, with, &due.key, Traced::default(), |state| {
                    S::decide(state, command, with.now).map_err(Refusal::Rejected)
                });
                match decided {
                    Ok(Ok(decided)) => {
                        self.keep(decided)?;
                        None
                    }
                    Ok(Err(Refusal::Rejected(rejection))) => Some(format!("its command was refused: {rejection}")),
                    Ok(Err(refusal)) => Some(refusal.reason(with.max_event_bytes)),
                    Err(Panicked::Message(text)) => Some(format!("decide panicked: {text}")),
                    Err(Panicked::Undeclared(key)) => return Err(key),
                }
            }
        };
        if let Some(reason) = failed {
            tracing::error!(key = due.key, deadline = due.name, reason, "a deadline waits for the operator");
            self.letters.push(DeadLetter::of_deadline(due, reason));
        }
        self.deadlines.fired(due);
        Ok(())
    }

    fn keep(&mut self, decided: Decided<S>) -> Result<(), String> {
        if let Some((draft, deadlines)) = decided {
            self.deadlines.apply(draft.partition, &draft.key, deadlines).map_err(|error| error.to_string())?;
            self.drafts.push(draft);
        }
        Ok(())
    }
}

/// An event as it goes into the outbox, and what it does to the deadlines of its key.
type Decided<S> = Option<(Draft, Deadlines<S>)>;

/// Decides, folds the event and drafts it for the outbox; all of it is undone where one part fails. `key` is that of the
/// cause; a command has none.
fn decide<S: Service, R>(
    state: &mut S::State,
    with: &Handling<'_>,
    key: &str,
    traced: Traced,
    decision: impl FnOnce(&S::State) -> Result<Option<S::Event>, Refusal<R>>,
) -> Result<Result<Decided<S>, Refusal<R>>, Panicked> {
    attempt(state, |state| {
        let Some(event) = decision(state)? else { return Ok(None) };
        S::evolve(state, &event);
        let of_event = event.key().to_string();
        if !key.is_empty() && of_event != key {
            return Err(Refusal::Unfit(format!("the event {} has the key {of_event}, and what caused it {key}", event.name())));
        }
        if of_event.len() > LONGEST_KEY {
            return Err(Refusal::Unfit(format!("the key of {} has {} bytes, more than {LONGEST_KEY}", event.name(), of_event.len())));
        }
        let payload = event.encode().map_err(|error| Refusal::Unfit(error.to_string()))?;
        // The key travels three times: as the record's key, and as two headers.
        let bytes = payload.len() + 3 * of_event.len() + HEADER_BYTES;
        if bytes > with.max_event_bytes {
            return Err(Refusal::TooLarge(bytes));
        }
        let partition = with.partitions.of(of_event.as_bytes());
        let draft = Draft { partition, event_id: Uuid::now_v7(), key: of_event, name: event.name(), payload, traced };
        Ok(Some((draft, S::deadlines(&event))))
    })
}

impl<R> Refusal<R> {
    fn reason(self, limit: usize) -> String {
        match self {
            Self::Rejected(_) => "it was refused".into(),
            Self::TooLarge(bytes) => format!("its event of {bytes} bytes is larger than the {limit} bytes that the topic takes"),
            Self::Unfit(reason) => reason,
        }
    }
}

fn traced_from(record: &Record) -> Traced {
    let envelope = record.envelope.as_ref().ok();
    Traced {
        causation: envelope.map(|envelope| envelope.id),
        cause: record.cause(),
        traceparent: envelope
            .and_then(|envelope| envelope.traced.traceparent.clone())
            .filter(|text| text.len() == TRACEPARENT && text.is_ascii() && !text.contains('\0')),
    }
}

fn malformed(record: &Record, reason: &str) -> DeadLetter {
    tracing::error!(topic = %record.topic, partition = %record.partition, offset = record.offset, reason, "a record is no event of ours");
    DeadLetter {
        partition: record.partition,
        place: Place::Unnumbered(record.topic.to_string(), record.offset),
        key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
        name: record.envelope.as_ref().map(|envelope| envelope.name.clone()).unwrap_or_default(),
        reason: reason.to_owned(),
    }
}

/// Which types of which topics the service handles, by the broker's name of the topic.
pub(super) fn handled_types<S: Service>(topic_of: impl Fn(&str) -> String) -> HashMap<String, HashSet<&'static str>> {
    let mut handled: HashMap<String, HashSet<&'static str>> = HashMap::new();
    for known in S::Input::types() {
        handled.entry(topic_of(known.topic)).or_default().insert(known.name);
    }
    handled
}
