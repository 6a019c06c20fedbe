//! Folding the own topic into the database, piece by piece. Each piece moves state, positions, deadlines, head, cursor
//! and the `decided` sequence together, under token and run.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{OpeningError, Position};
use crate::database::Writes;
use crate::dead_letters::{self, DeadLetter, Place};
use crate::deadlines::Changes;
use crate::kafka::Record;
use crate::lanes::Grant;
use crate::model::{Ask, Message, Service};
use crate::replica::Replica;
use crate::step::{Stored, Unloaded, attempt, load, save};
use crate::wire::{Envelope, Parked, Released};

/// An event of the own log.
enum Own<E> {
    Service(E),
    Parked(Parked),
    Released(Released),
}

/// Commits one piece: `records` were accepted one after the other, and the cursor stands behind the last of them. The last
/// piece opens the lane for this run.
pub(super) async fn piece<S: Service<State: Stored>>(
    replica: &Replica<S>,
    connection: &mut PgConnection,
    grant: &Grant,
    records: &[Record],
    cursor: &Position,
    last: bool,
) -> Result<(), OpeningError> {
    let partition = grant.partition;
    let mut transaction = connection.begin().await?;
    // The head first: it is only raised, since commands of the same run may be numbering.
    let head: i64 = sqlx::query_scalar("select next_seq from reel.heads where partition = $1 for update")
        .bind(partition.0)
        .fetch_one(&mut *transaction)
        .await?;
    let (known, lacking) = records.split_at(records.partition_point(|record| number(record) < head));
    no_fork(&mut transaction, partition.0, known).await?;
    if let Some(first) = lacking.first().filter(|first| number(first) > head) {
        let found = number(first);
        return Err(OpeningError::Stopped(format!("the own topic goes on at number {found}, but the database ends before {head}")));
    }
    if cursor.next_seq > head && lacking.is_empty() {
        let cursor = cursor.next_seq;
        return Err(OpeningError::Stopped(format!("the cursor stands at number {cursor}, but the database ends before {head}")));
    }
    if !lacking.is_empty() {
        tracing::info!(%partition, events = lacking.len(), from = head, "folding what the database lacks");
        restore(replica, &mut transaction, grant, lacking).await?;
    }
    let opened = sqlx::query(
        "update reel.heads set next_seq = greatest(next_seq, $2), opened_run = case when $3 then $4 else opened_run end
         where partition = $1 and (select reel.run()) = $4",
    )
    .bind(partition.0)
    .bind(cursor.next_seq)
    .bind(last)
    .bind(grant.run.as_str())
    .execute(&mut *transaction)
    .await?;
    let moved = sqlx::query(
        "update reel.cursors set seq = $4, \"offset\" = $5, generation = $6, opened_id = $7
         where partition = $1 and token = $2 and run = $3 and run = (select reel.run())",
    )
    .bind(partition.0)
    .bind(grant.token)
    .bind(grant.run.as_str())
    .bind(cursor.next_seq)
    .bind(cursor.next_offset)
    .bind(cursor.generation)
    .bind(cursor.opened_id)
    .execute(&mut *transaction)
    .await?;
    if opened.rows_affected() == 0 || moved.rows_affected() == 0 {
        return Err(OpeningError::Lost);
    }
    transaction.commit().await?;
    Ok(())
}

/// Where topic and database both have a number, they must have the same event under it.
async fn no_fork(connection: &mut PgConnection, partition: i32, known: &[Record]) -> Result<(), OpeningError> {
    if known.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = known.iter().filter_map(|record| record.envelope.as_ref().ok()).map(|envelope| envelope.id).collect();
    let seqs: Vec<i64> = known.iter().map(number).collect();
    let forked: Option<i64> = sqlx::query_scalar(
        "select o.seq from unnest($2::bigint[], $3::uuid[]) as read(seq, event_id)
         join reel.outbox as o on o.partition = $1 and o.seq = read.seq where o.event_id <> read.event_id order by o.seq limit 1",
    )
    .bind(partition)
    .bind(seqs)
    .bind(ids)
    .fetch_optional(connection)
    .await?;
    match forked {
        Some(seq) => Err(OpeningError::Stopped(format!(
            "fork: number {seq} of partition {partition} is one event in the topic and another in the database; two primaries have written"
        ))),
        None => Ok(()),
    }
}

/// Folds events that the database lacks: state, deadlines, parked messages, and the positions that their causes prove.
async fn restore<S: Service<State: Stored>>(
    replica: &Replica<S>,
    connection: &mut PgConnection,
    grant: &Grant,
    records: &[Record],
) -> Result<(), OpeningError> {
    let mut events = Vec::with_capacity(records.len());
    for record in records {
        let unreadable =
            |reason: String| OpeningError::Stopped(format!("own event at offset {} cannot be folded: {reason}", record.offset));
        let envelope = record.envelope.as_ref().map_err(|malformed| unreadable(malformed.to_string()))?;
        let key = record.sound_key(replica.partitions).ok_or_else(|| unreadable("its key does not belong here".into()))?;
        let payload = record.payload.as_deref().unwrap_or_default();
        let own = match envelope.name.as_str() {
            Parked::NAME => Parked::codec().decode(payload).map(Own::Parked),
            Released::NAME => Released::codec().decode(payload).map(Own::Released),
            name => <S::Event as Message>::decode(name, payload).map(Own::Service),
        };
        events.push((envelope, key, own.map_err(|error| unreadable(error.to_string()))?));
    }
    let asks: Vec<Ask<'_, S>> =
        events.iter().filter_map(|(_, _, own)| if let Own::Service(event) = own { Some(Ask::Event(event)) } else { None }).collect();
    let mut state = load::<S>(connection, &asks).await.map_err(|unloaded| match unloaded {
        Unloaded::Database(error) => OpeningError::Database(error),
        Unloaded::Panicked(reason) => OpeningError::Stopped(format!("an own event cannot be folded: {reason}")),
    })?;
    let mut deadlines = Changes::default();
    for (_, key, own) in &events {
        match own {
            Own::Service(event) => {
                attempt(&mut state, |state| {
                    S::evolve(state, event);
                    Ok::<_, std::convert::Infallible>(())
                })
                .map_err(|panicked| OpeningError::Stopped(format!("folding an own event panicked: {panicked:?}")))
                .map(|_| ())?;
                deadlines
                    .apply(grant.partition, key, S::deadlines(event))
                    .map_err(|error| OpeningError::Stopped(format!("a deadline's command is no JSON: {error}")))?;
            }
            Own::Parked(parked) => {
                dead_letters::keep(connection, &[letter(grant, key, parked)]).await?;
                dead_letters::park(connection, &[((*key).to_owned(), parked.clone())]).await?;
            }
            Own::Released(released) => {
                dead_letters::release(connection, (&released.topic, released.partition, released.generation, released.number)).await?;
            }
        }
    }
    let mut writes = Writes::default();
    save(&mut state, &mut writes);
    deadlines.write(&mut writes);
    writes.run(connection).await?;
    restore_positions::<S>(connection, grant, events.iter().map(|(envelope, ..)| *envelope)).await?;
    let steps = events.iter().filter_map(|(envelope, ..)| envelope.decided).map(|decided| decided.step);
    if let Some(step) = steps.max() {
        // Lanes fold at once: without the lock one of them could take the sequence back.
        sqlx::query("select pg_advisory_xact_lock(hashtext('reel.decided'))").execute(&mut *connection).await?;
        sqlx::query("select setval('reel.decided', greatest($1, (select last_value from reel.decided)))")
            .bind(step)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// The highest cause of each input wins; it names the input that was consumed last for certain.
async fn restore_positions<'a, S: Service>(
    connection: &mut PgConnection,
    grant: &Grant,
    envelopes: impl Iterator<Item = &'a Envelope>,
) -> Result<(), OpeningError> {
    let mut highest = std::collections::BTreeMap::new();
    for cause in envelopes.filter_map(|envelope| envelope.traced.cause.as_ref()) {
        if cause.partition == grant.partition.0 {
            let known = highest.entry(cause.topic.as_str()).or_insert(cause);
            if known.number < cause.number {
                *known = cause;
            }
        }
    }
    for (topic, cause) in highest {
        sqlx::query(
            "update reel.positions set next_offset = $6 + 1, next_seq = $7 + 1, generation = $8,
                 opened_id = case when generation = $8 then opened_id end
             where reader = $1 and topic = $2 and partition = $3 and token = $4 and run = $5 and next_seq <= $7",
        )
        .bind(S::NAME)
        .bind(topic)
        .bind(grant.partition.0)
        .bind(grant.token)
        .bind(grant.run.as_str())
        .bind(cause.offset)
        .bind(cause.number)
        .bind(cause.generation)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

fn letter(grant: &Grant, key: &str, parked: &Parked) -> DeadLetter {
    DeadLetter {
        partition: grant.partition,
        place: Place::Numbered(parked.cause()),
        key: Some(key.to_owned()),
        name: parked.message_type.clone(),
        reason: parked.reason.clone(),
    }
}

fn number(record: &Record) -> i64 {
    record.envelope.as_ref().ok().and_then(|envelope| envelope.number).unwrap_or(i64::MIN)
}
