//! Which rows another transaction has locked, found without waiting for any of them.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlx::{Connection as _, PgConnection};

use super::Stored;
use crate::model::{Service, Trigger};

/// A row: the place of its table among those of the state, and its key as bytes.
pub(crate) type RowId = (usize, Vec<u8>);

/// The rows that a message needs. None if `read_set` panics, which its batch will find out.
pub(crate) fn needed<S: Service<State: Stored>>(trigger: Trigger<'_, S>) -> HashSet<RowId> {
    let Some(mut state) = declared([trigger]) else { return HashSet::new() };
    let tables = state.tables().into_iter().enumerate();
    tables.flat_map(|(nth, table)| table.needed().into_iter().map(move |key| (nth, key))).collect()
}

/// The rows that these messages need and another transaction has locked, in a transaction that ends
/// with this call: a moment later others may be locked.
pub(crate) async fn locked<'a, S: Service<State: Stored>>(
    connection: &mut PgConnection,
    triggers: impl IntoIterator<Item = Trigger<'a, S>>,
) -> sqlx::Result<HashSet<RowId>> {
    let Some(mut state) = declared(triggers) else { return Ok(HashSet::new()) };
    let mut transaction = connection.begin().await?;
    let mut locked = HashSet::new();
    for (nth, table) in state.tables().into_iter().enumerate() {
        let keys = table.locked(&mut transaction).await?;
        locked.extend(keys.into_iter().map(|key| (nth, key)));
    }
    transaction.rollback().await?;
    Ok(locked)
}

/// A state in which the rows of messages are declared and not loaded.
fn declared<'a, S: Service<State: Stored>>(
    triggers: impl IntoIterator<Item = Trigger<'a, S>>,
) -> Option<S::State> {
    let mut state = S::State::default();
    let declare = || triggers.into_iter().for_each(|trigger| S::read_set(trigger, &mut state));
    catch_unwind(AssertUnwindSafe(declare)).ok()?;
    Some(state)
}
