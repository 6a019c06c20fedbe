//! [`Rows`]: the rows of one table of a service's state that a batch has loaded.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// An ordered map that knows which keys were loaded and which rows changed, and that can revert the
/// changes of the message in progress.
///
/// In production it holds the rows of one batch. Touching a key that
/// [`Service::read_set`](super::Service::read_set) did not declare is a programming error: it
/// panics with [`Undeclared`], which stops the whole batch, because "no such row" would be a wrong
/// answer. In tests, replay and the model checker the map is [complete](WorkingSet::complete): a
/// key that is not in it has no row.
#[derive(Debug, Clone)]
pub struct Rows<K, V> {
    slots: BTreeMap<K, Slot<V>>,
    needed: BTreeSet<K>,
    complete: bool,
    /// The former value and `changed` flag of each row that the message in progress has touched.
    undo_log: Vec<(K, Option<V>, bool)>,
}

#[derive(Debug, Clone)]
struct Slot<V> {
    value: Option<V>,
    /// Whether the database has the row.
    stored: bool,
    /// Whether the batch has changed the row.
    changed: bool,
}

/// The payload of the panic if a key is touched that was not declared.
#[derive(Debug, Clone)]
pub struct Undeclared {
    /// The Rust type of the rows.
    pub rows: &'static str,
    /// The key that was touched, as `Debug` prints it.
    pub key: String,
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self {
            slots: BTreeMap::new(),
            needed: BTreeSet::new(),
            complete: false,
            undo_log: Vec::new(),
        }
    }
}

impl<K: Ord + Clone + Debug, V: Clone> Rows<K, V> {
    /// Complete rows: a key that is not among them has no row.
    #[must_use]
    pub fn complete() -> Self {
        Self { complete: true, ..Self::default() }
    }

    /// Declares that the message will touch `key`.
    pub fn need<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Ord + ToOwned<Owned = K> + ?Sized,
    {
        if !self.complete && !self.slots.contains_key(key) && !self.needed.contains(key) {
            self.needed.insert(key.to_owned());
        }
    }

    /// The row, if it exists and is loaded already. For `read_set`, when keys of a later table come
    /// from rows of an earlier one.
    pub fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.slots.get(key).and_then(|slot| slot.value.as_ref())
    }

    /// The row, or `None` if there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] if the key was not declared.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + Debug + ?Sized,
    {
        match self.slots.get(key) {
            Some(slot) => slot.value.as_ref(),
            None if self.complete => None,
            None => undeclared::<V, Q>(key),
        }
    }

    /// The row to change, created from its default if there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] if the key was not declared.
    pub fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.entry_or(key, V::default)
    }

    /// The row to change, created by `absent` if there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] if the key was not declared.
    pub fn entry_or(&mut self, key: K, absent: impl FnOnce() -> V) -> &mut V {
        if !self.complete && !self.slots.contains_key(&key) {
            undeclared::<V, K>(&key);
        }
        let slot = self.slots.entry(key.clone()).or_insert(Slot {
            value: None,
            stored: false,
            changed: false,
        });
        self.undo_log.push((key, slot.value.clone(), slot.changed));
        slot.changed = true;
        slot.value.get_or_insert_with(absent)
    }

    /// Inserts a row, or replaces it.
    ///
    /// # Panics
    /// With [`Undeclared`] if the key was not declared.
    pub fn put(&mut self, key: K, value: V) {
        let row = self.entry_or(key, || value.clone());
        *row = value;
    }

    /// All rows, in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// Takes the keys that are declared and not loaded yet, in order.
    ///
    /// For the storage of rows, like [`Rows::load`] and [`Rows::changes`].
    #[doc(hidden)]
    #[must_use]
    pub fn take_needed(&mut self) -> Vec<K> {
        std::mem::take(&mut self.needed).into_iter().collect()
    }

    /// Loads the row that the database has for a key, or the fact that it has none.
    #[doc(hidden)]
    pub fn load(&mut self, key: K, value: Option<V>) {
        let stored = value.is_some();
        self.slots.insert(key, Slot { value, stored, changed: false });
    }

    /// The changed rows: those to insert, and those to update.
    #[doc(hidden)]
    #[must_use]
    pub fn changes(&self) -> Changes<'_, K, V> {
        let mut changes = Changes { new: Vec::new(), known: Vec::new() };
        for (key, slot) in self.slots.iter().filter(|(_, slot)| slot.changed) {
            if let Some(value) = &slot.value {
                if slot.stored {
                    changes.known.push((key, value));
                } else {
                    changes.new.push((key, value));
                }
            }
        }
        changes
    }
}

/// A key of stored [`Rows`]: the value of the table's key column.
pub trait RowKey: Ord + Clone + Debug + Send + Sync + 'static {
    /// The Rust type of the key column.
    type Column;
    /// The value of the key column.
    fn column(&self) -> Self::Column;
    /// The bytes whose hash locks the key while it has no row.
    fn bytes(&self) -> Vec<u8>;
}

impl RowKey for String {
    type Column = Self;

    fn column(&self) -> Self {
        self.clone()
    }

    fn bytes(&self) -> Vec<u8> {
        self.clone().into_bytes()
    }
}

/// The rows that a batch has changed.
#[derive(Debug, PartialEq)]
pub struct Changes<'a, K, V> {
    /// Rows to insert: the database does not have them.
    pub new: Vec<(&'a K, &'a V)>,
    /// Rows to update: the database has them.
    pub known: Vec<(&'a K, &'a V)>,
}

fn undeclared<V, Q: Debug + ?Sized>(key: &Q) -> ! {
    std::panic::panic_any(Undeclared { rows: std::any::type_name::<V>(), key: format!("{key:?}") })
}

/// A table in which each message of a batch takes effect as a whole or not at all.
pub trait Savepoint {
    /// Keeps the changes of the message.
    fn release(&mut self);
    /// Reverts the changes of the message.
    fn rollback(&mut self);
}

impl<K: Ord + Clone, V> Savepoint for Rows<K, V> {
    fn release(&mut self) {
        self.undo_log.clear();
    }

    fn rollback(&mut self) {
        while let Some((key, value, changed)) = self.undo_log.pop() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.value = value;
                slot.changed = changed;
            }
        }
    }
}

/// The state of a service: a struct of [`Rows`]. Implemented by
/// [`working_set!`](crate::working_set).
pub trait WorkingSet: Default + Send + 'static {
    /// An empty, complete state: for tests, replay and the model checker.
    fn complete() -> Self;
    /// Calls `visit` with every table.
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Savepoint));
}

/// Makes a struct of [`Rows`] a [`WorkingSet`].
#[macro_export]
macro_rules! working_set {
    ($state:ty { $($table:ident),+ $(,)? }) => {
        impl $crate::private::WorkingSet for $state {
            fn complete() -> Self {
                Self { $($table: $crate::private::Rows::complete()),+ }
            }
            fn each(&mut self, visit: &mut dyn FnMut(&mut dyn $crate::private::Savepoint)) {
                $(visit(&mut self.$table);)+
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_undone_message_leaves_rows_as_they_were() {
        let mut rows: Rows<String, i64> = Rows::complete();
        *rows.entry("a".into()) += 1;
        rows.release();
        *rows.entry("a".into()) += 1;
        *rows.entry("b".into()) += 1;
        *rows.entry("a".into()) += 1;
        rows.rollback();
        assert_eq!(rows.iter().collect::<Vec<_>>(), [(&"a".to_string(), &1)]);
    }

    #[test]
    fn an_undone_first_change_writes_nothing() {
        let mut rows: Rows<String, i64> = Rows::default();
        rows.need("a");
        assert_eq!(rows.take_needed(), ["a"]);
        rows.load("a".into(), Some(7));
        *rows.entry("a".into()) += 1;
        rows.rollback();
        assert_eq!(rows.changes(), Changes { new: vec![], known: vec![] });
    }

    #[test]
    fn a_new_row_is_inserted_and_a_known_one_updated() {
        let mut rows: Rows<String, i64> = Rows::default();
        rows.load("known".into(), Some(1));
        rows.load("new".into(), None);
        rows.put("known".into(), 2);
        rows.put("new".into(), 3);
        assert_eq!(
            rows.changes(),
            Changes {
                new: vec![(&"new".to_string(), &3)],
                known: vec![(&"known".to_string(), &2)]
            }
        );
    }

    #[test]
    fn touching_an_undeclared_key_panics_with_its_name() {
        let rows: Rows<String, i64> = Rows::default();
        let panic = std::panic::catch_unwind(|| rows.get("a").copied()).expect_err("must panic");
        let undeclared = panic.downcast_ref::<Undeclared>().expect("payload");
        assert_eq!((undeclared.rows, undeclared.key.as_str()), ("i64", "\"a\""));
    }
}
