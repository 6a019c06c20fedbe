//! Gives small numbers to large values, and remembers what pure functions made of them.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, RwLock};

/// Values by number. Two values are the same if `Debug` prints them alike.
#[derive(Debug)]
pub(super) struct Interner<T>(RwLock<Interned<T>>);

#[derive(Debug)]
struct Interned<T> {
    numbers: HashMap<String, u16>,
    values: Vec<Arc<T>>,
}

impl<T: Debug> Interner<T> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Interned { numbers: HashMap::new(), values: Vec::new() }))
    }

    pub(super) fn number(&self, value: T) -> u16 {
        let text = format!("{value:?}");
        let mut interned = self.0.write().expect("no holder of the lock panics");
        if let Some(number) = interned.numbers.get(&text) {
            return *number;
        }
        let number = u16::try_from(interned.values.len()).expect("fewer than 65536 values");
        interned.values.push(Arc::new(value));
        interned.numbers.insert(text, number);
        number
    }

    pub(super) fn value(&self, number: u16) -> Arc<T> {
        self.0.read().expect("no holder of the lock panics").values[usize::from(number)].clone()
    }
}

/// What a pure function answered.
#[derive(Debug)]
pub(super) struct Memo<K, V>(RwLock<HashMap<K, V>>);

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    pub(super) fn new() -> Self {
        Self(RwLock::new(HashMap::new()))
    }

    pub(super) fn of(&self, key: K, answer: impl FnOnce() -> V) -> V {
        if let Some(known) = self.0.read().expect("no holder of the lock panics").get(&key) {
            return known.clone();
        }
        let value = answer();
        self.0.write().expect("no holder of the lock panics").insert(key, value.clone());
        value
    }
}
