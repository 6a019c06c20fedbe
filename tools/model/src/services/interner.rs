//! Small ids for large values, and memoized results of pure functions.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, RwLock};

/// Values by id. Two values are the same if `Debug` prints them alike.
#[derive(Debug)]
pub(super) struct Interner<T>(RwLock<Interned<T>>);

#[derive(Debug)]
struct Interned<T> {
    ids: HashMap<String, u16>,
    values: Vec<Arc<T>>,
}

impl<T: Debug> Interner<T> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Interned { ids: HashMap::new(), values: Vec::new() }))
    }

    pub(super) fn intern(&self, value: T) -> u16 {
        let text = format!("{value:?}");
        let mut interned = self.0.write().expect("no holder of the lock panics");
        if let Some(id) = interned.ids.get(&text) {
            return *id;
        }

        let id = u16::try_from(interned.values.len()).expect("fewer than 65536 values");
        interned.values.push(Arc::new(value));
        interned.ids.insert(text, id);
        id
    }

    pub(super) fn value(&self, id: u16) -> Arc<T> {
        self.0.read().expect("no holder of the lock panics").values[usize::from(id)].clone()
    }
}

/// Results of a pure function.
#[derive(Debug)]
pub(super) struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    pub(super) fn get_or_compute(&self, key: K, compute: impl FnOnce() -> V) -> V {
        if let Some(known) = self.0.read().expect("no holder of the lock panics").get(&key) {
            return known.clone();
        }
        let value = compute();
        self.0.write().expect("no holder of the lock panics").insert(key, value.clone());
        value
    }
}
