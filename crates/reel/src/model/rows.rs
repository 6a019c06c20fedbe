//! [`Rows`]: one table of a service's state, as far as a batch has loaded it.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

/// An ordered map that knows which keys were loaded, which rows changed, and can undo the message being handled.
///
/// In production it holds the rows of one batch. Touching a key that was not declared by
/// [`Service::needs`](super::Service::needs) is a programming error: it panics with [`Undeclared`], which stops the whole
/// batch, because an empty answer would be a wrong one. In tests, replay and the model checker it is
/// [complete](WorkingSet::complete): what is not there is absent.
#[derive(Debug, Clone)]
pub struct Rows<K, V> {
    slots: BTreeMap<K, Slot<V>>,
    needed: BTreeSet<K>,
    complete: bool,
    undo: Vec<(K, Option<V>, bool)>,
}

#[derive(Debug, Clone)]
struct Slot<V> {
    value: Option<V>,
    stored: bool,
    changed: bool,
}

/// The payload of the panic that a touched but undeclared key raises.
#[derive(Debug, Clone)]
pub struct Undeclared {
    /// The Rust type of the rows.
    pub rows: &'static str,
    /// The key that was touched, as `Debug` prints it.
    pub key: String,
}

impl<K, V> Default for Rows<K, V> {
    fn default() -> Self {
        Self { slots: BTreeMap::new(), needed: BTreeSet::new(), complete: false, undo: Vec::new() }
    }
}

impl<K: Ord + Clone + Debug, V: Clone> Rows<K, V> {
    /// Rows that are all there are: an absent key is absent.
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

    /// The row, if it is there and was loaded already: for the keys of a later table that come from rows of an earlier one.
    pub fn peek<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + ?Sized,
    {
        self.slots.get(key).and_then(|slot| slot.value.as_ref())
    }

    /// The row, or `None` where there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] where the key was not declared.
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

    /// The row for changing it, made from its default where there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] where the key was not declared.
    pub fn entry(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        self.entry_or(key, V::default)
    }

    /// The row for changing it, made by `absent` where there is none.
    ///
    /// # Panics
    /// With [`Undeclared`] where the key was not declared.
    pub fn entry_or(&mut self, key: K, absent: impl FnOnce() -> V) -> &mut V {
        if !self.complete && !self.slots.contains_key(&key) {
            undeclared::<V, K>(&key);
        }
        let slot = self.slots.entry(key.clone()).or_insert(Slot { value: None, stored: false, changed: false });
        self.undo.push((key, slot.value.clone(), slot.changed));
        slot.changed = true;
        slot.value.get_or_insert_with(absent)
    }

    /// Puts a row, new or in the place of the one before.
    ///
    /// # Panics
    /// With [`Undeclared`] where the key was not declared.
    pub fn put(&mut self, key: K, value: V) {
        let row = self.entry_or(key, || value.clone());
        *row = value;
    }

    /// Every row that is there, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.slots.iter().filter_map(|(key, slot)| Some((key, slot.value.as_ref()?)))
    }

    /// The keys that were declared and not loaded yet, in order. They count as loaded from now on.
    pub(crate) fn take_needed(&mut self) -> Vec<K> {
        std::mem::take(&mut self.needed).into_iter().collect()
    }

    /// What the database holds under a key.
    pub(crate) fn load(&mut self, key: K, value: Option<V>) {
        let stored = value.is_some();
        self.slots.insert(key, Slot { value, stored, changed: false });
    }

    /// The rows to write: those that are new to the database, and those that it has.
    pub(crate) fn changes(&self) -> Changes<'_, K, V> {
        let mut changes = Changes { new: Vec::new(), known: Vec::new() };
        for (key, slot) in self.slots.iter().filter(|(_, slot)| slot.changed) {
            if let Some(value) = &slot.value {
                if slot.stored { changes.known.push((key, value)) } else { changes.new.push((key, value)) }
            }
        }
        changes
    }
}

/// The rows that a batch has changed.
#[derive(Debug, PartialEq)]
pub(crate) struct Changes<'a, K, V> {
    /// Those that the database lacks.
    pub(crate) new: Vec<(&'a K, &'a V)>,
    /// Those that it has.
    pub(crate) known: Vec<(&'a K, &'a V)>,
}

fn undeclared<V, Q: Debug + ?Sized>(key: &Q) -> ! {
    std::panic::panic_any(Undeclared { rows: std::any::type_name::<V>(), key: format!("{key:?}") })
}

/// What the step asks of each table to handle one message after the other.
pub trait Undo {
    /// Keeps what the message has changed.
    fn keep(&mut self);
    /// Takes back what the message has changed.
    fn undo(&mut self);
}

impl<K: Ord + Clone, V> Undo for Rows<K, V> {
    fn keep(&mut self) {
        self.undo.clear();
    }

    fn undo(&mut self) {
        while let Some((key, value, changed)) = self.undo.pop() {
            if let Some(slot) = self.slots.get_mut(&key) {
                slot.value = value;
                slot.changed = changed;
            }
        }
    }
}

/// The state of a service: a struct of [`Rows`]. Implemented by [`working_set!`](crate::working_set).
pub trait WorkingSet: Default + Send + 'static {
    /// A state in which nothing is missing: for tests, replay and the model checker.
    fn complete() -> Self;
    /// Calls `visit` with every table.
    fn each(&mut self, visit: &mut dyn FnMut(&mut dyn Undo));
}

/// Makes a struct of [`Rows`] a [`WorkingSet`].
#[macro_export]
macro_rules! working_set {
    ($state:ty { $($table:ident),+ $(,)? }) => {
        impl $crate::model::WorkingSet for $state {
            fn complete() -> Self {
                Self { $($table: $crate::model::Rows::complete()),+ }
            }
            fn each(&mut self, visit: &mut dyn FnMut(&mut dyn $crate::model::Undo)) {
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
        rows.keep();
        *rows.entry("a".into()) += 1;
        *rows.entry("b".into()) += 1;
        *rows.entry("a".into()) += 1;
        rows.undo();
        assert_eq!(rows.iter().collect::<Vec<_>>(), [(&"a".to_string(), &1)]);
    }

    #[test]
    fn an_undone_first_change_writes_nothing() {
        let mut rows: Rows<String, i64> = Rows::default();
        rows.need("a");
        assert_eq!(rows.take_needed(), ["a"]);
        rows.load("a".into(), Some(7));
        *rows.entry("a".into()) += 1;
        rows.undo();
        assert_eq!(rows.changes(), Changes { new: vec![], known: vec![] });
    }

    #[test]
    fn a_new_row_is_inserted_and_a_known_one_updated() {
        let mut rows: Rows<String, i64> = Rows::default();
        rows.load("known".into(), Some(1));
        rows.load("new".into(), None);
        rows.put("known".into(), 2);
        rows.put("new".into(), 3);
        assert_eq!(rows.changes(), Changes { new: vec![(&"new".to_string(), &3)], known: vec![(&"known".to_string(), &2)] });
    }

    #[test]
    fn touching_an_undeclared_key_panics_with_its_name() {
        let rows: Rows<String, i64> = Rows::default();
        let panic = std::panic::catch_unwind(|| rows.get("a").copied()).expect_err("must panic");
        let undeclared = panic.downcast_ref::<Undeclared>().expect("payload");
        assert_eq!((undeclared.rows, undeclared.key.as_str()), ("i64", "\"a\""));
    }
}
