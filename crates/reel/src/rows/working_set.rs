//! The working set of a batch: loads it, and calls pure functions on it without letting a panic
//! escape.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use sqlx::PgConnection;

use super::Stored;
use crate::database::WriteBatch;
use crate::model::{Service, Trigger, Undeclared, WorkingSet};

/// Why a pure function returned no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Panicked {
    /// It touched a key that `read_set` had not declared: the batch stops.
    Undeclared(String),
    /// It panicked: the message is undone.
    Message(String),
}

/// Why the working set could not be loaded.
#[derive(Debug)]
pub(crate) enum Unloaded {
    Database(sqlx::Error),
    /// `read_set` panicked.
    Panicked(String),
}

/// Loads and locks the rows that the messages read, table by table in the order that all steps
/// share, so that nobody deadlocks.
pub(crate) async fn load<'a, S>(
    connection: &mut PgConnection,
    triggers: &[Trigger<'a, S>],
) -> Result<S::State, Unloaded>
where
    S: Service<State: Stored>,
{
    let mut state = S::State::default();
    let tables = state.tables().len();
    for table in 0..tables {
        catch_unwind(AssertUnwindSafe(|| {
            triggers.iter().for_each(|trigger| S::read_set(*trigger, &mut state));
        }))
        .map_err(|panic| {
            Unloaded::Panicked(format!("read_set panicked: {}", panic_message(panic.as_ref())))
        })?;
        state.tables()[table].load(&mut *connection).await.map_err(Unloaded::Database)?;
    }

    Ok(state)
}

/// Adds the rows that changed to a batch of writes.
pub(crate) fn save<T: Stored>(state: &mut T, writes: &mut WriteBatch) {
    for table in state.tables() {
        table.save(writes);
    }
}

/// Handles one message: keeps what it changed, or undoes it if it panicked or was refused.
pub(crate) fn attempt<T: WorkingSet, R, E>(
    state: &mut T,
    message: impl FnOnce(&mut T) -> Result<R, E>,
) -> Result<Result<R, E>, Panicked> {
    match catch_unwind(AssertUnwindSafe(|| message(state))) {
        Ok(Ok(result)) => {
            state.each(&mut |rows| rows.release());
            Ok(Ok(result))
        }
        Ok(Err(error)) => {
            state.each(&mut |rows| rows.rollback());
            Ok(Err(error))
        }
        Err(panic) => {
            state.each(&mut |rows| rows.rollback());
            Err(Panicked::of(panic.as_ref()))
        }
    }
}

impl Panicked {
    fn of(panic: &(dyn Any + Send)) -> Self {
        if let Some(undeclared) = panic.downcast_ref::<Undeclared>() {
            return Self::Undeclared(format!("{} {}", undeclared.rows, undeclared.key));
        }
        Self::Message(panic_message(panic))
    }
}

/// The message of a panic.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without a message").to_owned()
}
