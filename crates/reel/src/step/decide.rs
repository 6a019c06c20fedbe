//! Handles a batch in memory: calls the pure functions, message by message. No I/O here.
//!
//! Each message takes effect whole or not at all, so one that fails leaves the working set as it
//! was for the next. In the nested results of this file, the outer error is a programming error of
//! the service, mostly an undeclared key, and stops the batch; the inner one concerns only its
//! message.

use std::collections::HashSet;
use std::convert::Infallible;

use uuid::Uuid;

use super::work::WorkItem;
use crate::admission::{CommandError, QueuedCommand};
use crate::log::{MAX_KEY_BYTES, Record};
use crate::model::{Deadlines, Event, Keyed, Message, Partitions, Service, Timestamp};
use crate::rows::{Panicked, attempt};
use crate::tables::dead_letters::{DeadLetter, Source};
use crate::tables::deadlines::{Changes, Due};
use crate::tables::outbox::PendingEvent;
use crate::wire::{Causality, Parked, RecordRef};

/// Longest reason that a `reel.parked` carries, in characters: the event must fit into the topic.
const MAX_REASON: usize = 1_000;
/// Allowance for the headers of a record, in bytes, without the key.
const HEADER_BYTES: usize = 1_024;
/// Length of a `traceparent` (W3C Trace Context, version 00).
const TRACEPARENT: usize = 55;

/// What the messages of a batch are decided with, besides the working set.
pub(super) struct BatchContext<'a> {
    pub(super) partitions: Partitions,
    /// The database's time.
    pub(super) now: Timestamp,
    /// The keys that are parked: as the database has them, and those that this batch parks.
    pub(super) parked: HashSet<String>,
    /// The deadlines that are still due, read under the locks.
    pub(super) still_due: HashSet<(String, String)>,
    /// If an earlier run found that the one message of this batch cannot be stored: the reason.
    pub(super) poison: Option<&'a str>,
    /// The largest event that the topic takes.
    pub(super) max_event_bytes: usize,
}

/// The answers to commands, by their place in the batch. They are sent after the commit.
pub(super) type Answers<S> =
    Vec<(usize, Result<<S as Service>::Answer, CommandError<<S as Service>::Rejection>>)>;

/// What a batch leads to: what is written, and what is answered.
pub(super) struct BatchOutcome<S: Service> {
    pub(super) pending: Vec<PendingEvent>,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) parked: Vec<(String, Parked)>,
    pub(super) deadlines: Changes,
    pub(super) answers: Answers<S>,
}

/// An event to append, and what it does to the deadlines of its key; `None` if nothing happens.
type Decision<S> = Option<(PendingEvent, Deadlines<S>)>;

/// Why a message could not lead to an event.
enum Refusal<R> {
    Rejected(R),
    TooLarge(usize),
    Unfit(String),
}

/// Handles one message after the other on the working set, each on the state that the one before it
/// has left.
///
/// # Errors
/// If a pure function touched a key that `read_set` had not declared; the error names it.
pub(super) fn decide<S: Service>(
    state: &mut S::State,
    batch: &[WorkItem<S>],
    mut context: BatchContext<'_>,
) -> Result<BatchOutcome<S>, String> {
    let mut outcome = BatchOutcome {
        pending: Vec::new(),
        dead_letters: Vec::new(),
        parked: Vec::new(),
        deadlines: Changes::default(),
        answers: Vec::new(),
    };
    for (place, item) in batch.iter().enumerate() {
        match item {
            WorkItem::Input { record, key, decoded, .. } => {
                outcome.input(state, record, key, decoded, &mut context)?;
            }
            WorkItem::Malformed { record, reason, .. } => {
                outcome.dead_letters.push(foreign_record(record, reason));
            }
            WorkItem::Skip { .. } => {}
            WorkItem::Command(queued) => {
                let answer = outcome.command(state, queued, &context)?;
                outcome.answers.push((place, answer));
            }
            WorkItem::Deadline { due, command } => {
                outcome.deadline(state, due, command, &context)?;
            }
        }
    }

    Ok(outcome)
}

impl<S: Service> BatchOutcome<S> {
    /// Reacts to an input, or parks it: because its key is parked, it cannot be stored or decoded,
    /// or `react` finds it impossible.
    fn input(
        &mut self,
        state: &mut S::State,
        record: &Record,
        key: &str,
        decoded: &Result<S::Input, String>,
        context: &mut BatchContext<'_>,
    ) -> Result<(), String> {
        // Always there: only a record with an epoch and a sequence is ever applied.
        let Some(source) = record.record_ref() else { return Ok(()) };
        let causality = causality(record);

        let reason = if context.parked.contains(key) {
            "waits behind an earlier message of its key".to_owned()
        } else if let Some(poison) = context.poison {
            poison.to_owned()
        } else {
            let reacted = match decoded {
                Ok(input) => react::<S>(state, context, key, causality.clone(), input)?,
                Err(reason) => Err(reason.clone()),
            };
            match reacted {
                Ok(decision) => return self.keep(decision),
                Err(reason) => reason,
            }
        };

        // Later messages of the key in this batch wait behind it too.
        self.park(record, source, key, &reason, causality)?;
        context.parked.insert(key.to_owned());
        Ok(())
    }

    /// Parks a message: a dead letter for the operator, and an event in the own log, so that a
    /// rebuild parks it too (law 8).
    fn park(
        &mut self,
        record: &Record,
        source: RecordRef,
        key: &str,
        reason: &str,
        causality: Causality,
    ) -> Result<(), String> {
        let reason: String = reason.chars().take(MAX_REASON).collect();
        let RecordRef { topic, partition, epoch, sequence, offset } = source.clone();
        let event_type = record.event_type();
        tracing::error!(
            event.code = "message.parked", %topic, partition, offset, event.type = event_type, key,
            reason, "a message is parked"
        );

        let parked = Parked {
            topic,
            partition,
            generation: epoch,
            number: sequence,
            offset,
            message_type: event_type.to_owned(),
            reason: reason.clone(),
        };
        self.pending.push(PendingEvent {
            partition: record.partition,
            event_id: Uuid::now_v7(),
            key: key.to_owned(),
            event_type: Parked::NAME,
            payload: Parked::codec().encode(&parked).map_err(|error| error.to_string())?,
            causality,
        });
        self.dead_letters.push(DeadLetter {
            partition: record.partition,
            source: Source::Input(source),
            key: Some(key.to_owned()),
            name: event_type.to_owned(),
            reason,
        });
        self.parked.push((key.to_owned(), parked));
        Ok(())
    }

    /// Decides a command. The inner error is what the client gets.
    fn command(
        &mut self,
        state: &mut S::State,
        queued: &QueuedCommand<S>,
        context: &BatchContext<'_>,
    ) -> Result<Result<S::Answer, CommandError<S::Rejection>>, String> {
        if let Some(poison) = context.poison {
            tracing::error!(
                event.code = "command.failed",
                reason = poison,
                "a command cannot be stored"
            );
            return Ok(Err(CommandError::Failed(poison.to_owned())));
        }

        let traceparent = queued.traceparent.clone();
        let causality = Causality { traceparent, ..Causality::default() };
        let decided = decide_one::<S, _>(state, context, None, causality, |state| {
            S::decide(state, &queued.command, context.now).map_err(Refusal::Rejected)
        });
        match decided {
            // Answered from the state after it, so that a retry gets the same answer (law 7).
            Ok(Ok(decision)) => {
                self.keep(decision)?;
                answer::<S>(state, &queued.command)
            }
            Ok(Err(Refusal::Rejected(rejection))) => Ok(Err(CommandError::Rejected(rejection))),
            Ok(Err(Refusal::TooLarge(bytes))) => {
                let limit = context.max_event_bytes;
                Ok(Err(CommandError::TooLarge { bytes, limit }))
            }
            Ok(Err(Refusal::Unfit(reason))) | Err(Panicked::Message(reason)) => {
                tracing::error!(event.code = "command.failed", reason, "a command failed");
                Ok(Err(CommandError::Failed(reason)))
            }
            Err(Panicked::Undeclared(key)) => Err(key),
        }
    }

    /// Decides the command of a deadline. One that fails becomes a dead letter that parks no key.
    fn deadline(
        &mut self,
        state: &mut S::State,
        due: &Due,
        command: &Result<S::Command, String>,
        context: &BatchContext<'_>,
    ) -> Result<(), String> {
        // An earlier message of this batch, or a transaction that committed before we locked the
        // rows, may have cleared or moved it.
        let still_due = context.still_due.contains(&(due.key.clone(), due.name.clone()));
        if self.deadlines.touches(due) || !still_due {
            return Ok(());
        }

        let fired = match (context.poison, command) {
            (Some(reason), _) => Err(reason.to_owned()),
            (None, Err(reason)) => Err(reason.clone()),
            (None, Ok(command)) => fire::<S>(state, context, due, command)?,
        };
        match fired {
            Ok(decision) => self.keep(decision)?,
            Err(reason) => {
                tracing::error!(
                    event.code = "deadline.failed",
                    key = due.key,
                    deadline = due.name,
                    reason,
                    "a deadline waits for the operator"
                );
                self.dead_letters.push(DeadLetter::of_deadline(due, reason));
            }
        }

        self.deadlines.fired(due);
        Ok(())
    }

    /// Keeps the event of a decision, and what it does to deadlines.
    fn keep(&mut self, decision: Decision<S>) -> Result<(), String> {
        let Some((event, deadlines)) = decision else { return Ok(()) };
        let changed = self.deadlines.apply(event.partition, &event.key, deadlines);
        changed.map_err(|error| error.to_string())?;
        self.pending.push(event);
        Ok(())
    }
}

/// Reacts to an input, in the manner of one that has expired if its saga's deadline has passed. The
/// inner error is why it is parked, the outer one an undeclared key.
fn react<S: Service>(
    state: &mut S::State,
    context: &BatchContext<'_>,
    key: &str,
    causality: Causality,
    input: &S::Input,
) -> Result<Result<Decision<S>, String>, String> {
    let has_expired = causality.expires_at.is_some_and(|expires_at| context.now >= expires_at);
    let react = if has_expired { S::react_expired } else { S::react };
    let decided = decide_one::<S, Infallible>(state, context, Some(key), causality, |state| {
        react(state, input, context.now).map_err(|impossible| Refusal::Unfit(impossible.0))
    });
    match decided {
        Ok(Ok(decision)) => Ok(Ok(decision)),
        Ok(Err(Refusal::Rejected(never))) => match never {},
        Ok(Err(Refusal::TooLarge(bytes))) => Ok(Err(too_large(bytes, context))),
        Ok(Err(Refusal::Unfit(reason))) => Ok(Err(reason)),
        Err(Panicked::Message(text)) => Ok(Err(format!("react panicked: {text}"))),
        Err(Panicked::Undeclared(key)) => Err(key),
    }
}

/// Decides the command of a deadline. The inner error is why it waits for the operator.
fn fire<S: Service>(
    state: &mut S::State,
    context: &BatchContext<'_>,
    due: &Due,
    command: &S::Command,
) -> Result<Result<Decision<S>, String>, String> {
    let (key, causality) = (Some(due.key.as_str()), Causality::default());
    let decided = decide_one::<S, _>(state, context, key, causality, |state| {
        S::decide(state, command, context.now).map_err(Refusal::Rejected)
    });
    match decided {
        Ok(Ok(decision)) => Ok(Ok(decision)),
        Ok(Err(Refusal::Rejected(rejection))) => {
            Ok(Err(format!("its command was refused: {rejection}")))
        }
        Ok(Err(Refusal::TooLarge(bytes))) => Ok(Err(too_large(bytes, context))),
        Ok(Err(Refusal::Unfit(reason))) => Ok(Err(reason)),
        Err(Panicked::Message(text)) => Ok(Err(format!("decide panicked: {text}"))),
        Err(Panicked::Undeclared(key)) => Err(key),
    }
}

/// Answers a command from the state after it.
fn answer<S: Service>(
    state: &mut S::State,
    command: &S::Command,
) -> Result<Result<S::Answer, CommandError<S::Rejection>>, String> {
    match attempt(state, |state| Ok::<_, Infallible>(S::answer(state, command))) {
        Ok(Ok(answer)) => Ok(Ok(answer)),
        Ok(Err(never)) => match never {},
        Err(Panicked::Undeclared(key)) => Err(key),
        Err(Panicked::Message(text)) => Ok(Err(CommandError::Failed(text))),
    }
}

/// Decides one message and folds its event; if any part fails, all of it is undone. `cause_key` is
/// the key of the input or deadline that caused it; a command has none.
fn decide_one<S: Service, R>(
    state: &mut S::State,
    context: &BatchContext<'_>,
    cause_key: Option<&str>,
    causality: Causality,
    decision: impl FnOnce(&S::State) -> Result<Option<S::Event>, Refusal<R>>,
) -> Result<Result<Decision<S>, Refusal<R>>, Panicked> {
    attempt(state, |state| {
        let Some(event) = decision(state)? else { return Ok(None) };

        // Folded before it is checked: `attempt` reverts it if a check fails.
        S::evolve(state, &event);

        // The cause proves to recovery how far its input was consumed, but only in its own lane
        // (law 4).
        let (name, key) = (event.name(), event.key().to_string());
        if let Some(cause) = cause_key.filter(|cause| *cause != key) {
            let reason = format!("the event {name} has the key {key}, and what caused it {cause}");
            return Err(Refusal::Unfit(reason));
        }

        if key.len() > MAX_KEY_BYTES {
            let bytes = key.len();
            let reason = format!("the key of {name} has {bytes} bytes, more than {MAX_KEY_BYTES}");
            return Err(Refusal::Unfit(reason));
        }

        let payload = event.encode().map_err(|error| Refusal::Unfit(error.to_string()))?;

        // The key travels three times: as the record's key, and as two headers.
        let bytes = payload.len() + 3 * key.len() + HEADER_BYTES;
        if bytes > context.max_event_bytes {
            return Err(Refusal::TooLarge(bytes));
        }

        let deadlines = S::deadlines(&event);
        let expires_at = deadlines.earliest(causality.expires_at);
        let pending = PendingEvent {
            partition: context.partitions.of(key.as_bytes()),
            event_id: Uuid::now_v7(),
            key,
            event_type: name,
            payload,
            causality: Causality { expires_at, ..causality },
        };

        Ok(Some((pending, deadlines)))
    })
}

fn too_large(bytes: usize, context: &BatchContext<'_>) -> String {
    let limit = context.max_event_bytes;
    format!("its event of {bytes} bytes is larger than the {limit} bytes that the topic takes")
}

/// The causality of an event that this input causes. It expires when its cause does, unless it changes
/// a deadline. A `traceparent` from another service is copied
/// only if its size is the one that the headers allow for.
fn causality(record: &Record) -> Causality {
    let envelope = record.envelope.as_ref().ok();
    let traceparent = envelope.and_then(|envelope| envelope.causality.traceparent.clone());
    let is_valid =
        |text: &String| text.len() == TRACEPARENT && text.is_ascii() && !text.contains('\0');
    Causality {
        causation: envelope.map(|envelope| envelope.id),
        cause: record.record_ref(),
        traceparent: traceparent.filter(is_valid),
        expires_at: envelope.and_then(|envelope| envelope.causality.expires_at),
    }
}

/// The dead letter of a foreign record. It parks no key, and is no event (law 8).
fn foreign_record(record: &Record, reason: &str) -> DeadLetter {
    let Record { topic, partition, offset, .. } = record;
    tracing::error!(
        event.code = "record.foreign", %topic, %partition, offset, reason,
        "a record is not an event of ours"
    );
    DeadLetter {
        partition: record.partition,
        source: Source::Foreign(record.topic.to_string(), record.offset),
        key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
        name: record.event_type().to_owned(),
        reason: reason.to_owned(),
    }
}
