//! What clients asked for and what they were told: the only witness that no fault can reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contracts::{CustomerId, DepositId, OrderId, ReceiptId, Sku};
use serde_json::Value;
use uuid::Uuid;

use super::published::Published;
use super::told::{Reply, Thrown, Told};
use crate::system::Service;

/// What a client asks for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Order { customer: String, lines: Vec<(&'static str, i64)> },
    Deposit { customer: String, cents: i64 },
    Receipt { sku: &'static str, quantity: i64 },
}

/// One request, under one `Idempotency-Key`, and what was told of it.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) request: Request,
    pub(super) key: String,
    /// What the acknowledgement said.
    pub(super) said: Option<Value>,
    /// That it was made.
    pub(super) made: Told,
    /// That its cancel was.
    pub(super) cancelled: Told,
    /// That it was confirmed, and so was too late to be cancelled.
    pub(super) confirmed: Told,
    /// It was told that this one may be lost.
    counted: bool,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Notes {
    book: Mutex<BTreeMap<Uuid, Note>>,
    /// Answers that no client should get.
    wrong: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
}

impl Request {
    pub(super) fn service(&self) -> Service {
        match self {
            Self::Order { .. } => Service::Order,
            Self::Deposit { .. } => Service::Payment,
            Self::Receipt { .. } => Service::Inventory,
        }
    }

    /// The id that the service gives to what this asks for.
    pub(super) fn id(&self, key: &str) -> Uuid {
        let customer = |name: &str| name.parse::<CustomerId>().expect("the crowd's customers have valid names");
        match self {
            Self::Order { customer: name, .. } => OrderId::of_request(&customer(name), key).uuid(),
            Self::Deposit { customer: name, .. } => DepositId::of_request(&customer(name), key).uuid(),
            Self::Receipt { sku, .. } => ReceiptId::of_request(&sku.parse::<Sku>().expect("the crowd's products are valid"), key).uuid(),
        }
    }
}

impl Notes {
    /// A request is about to be sent.
    pub(super) fn asked(&self, id: Uuid, request: &Request, key: &str) {
        let (request, key, told) = (request.clone(), key.to_owned(), Told::default());
        let note = Note { request, key, said: None, made: told, cancelled: told, confirmed: told, counted: false };
        self.book().insert(id, note);
    }

    pub(super) fn acknowledged(&self, id: Uuid, reply: Reply, said: Value) {
        self.change(id, |note| {
            note.made.tell(reply);
            note.said = Some(said);
        });
    }

    pub(super) fn cancel_acknowledged(&self, id: Uuid, reply: Reply) {
        self.change(id, |note| note.cancelled.tell(reply));
    }

    /// A cancel was refused, since the order is confirmed.
    pub(super) fn told_confirmed(&self, id: Uuid, reply: Reply) {
        self.change(id, |note| note.confirmed.tell(reply));
    }

    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Databases of these services were stopped, are thrown away now, and their topics hold this. Says how many requests were
    /// acknowledged and are not published.
    pub(super) fn thrown_away(&self, services: &[Service], published: &Published, thrown: Thrown) -> usize {
        let mut unpublished = 0;
        for (id, note) in self.book().iter_mut().filter(|(_, note)| services.contains(&note.request.service())) {
            if !published.made.contains_key(id) {
                note.made.is_absent(thrown);
                // Nothing that was lost before is lost again.
                unpublished += usize::from(note.made.is_told() && !std::mem::replace(&mut note.counted, true));
            }
            if !published.cancelled.contains_key(id) {
                note.cancelled.is_absent(thrown);
            }
            if !published.confirmed.contains_key(id) {
                note.confirmed.is_absent(thrown);
            }
        }
        unpublished
    }

    pub(super) fn all(&self) -> BTreeMap<Uuid, Note> {
        self.book().clone()
    }

    pub(super) fn all_wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many requests wait for an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    fn change(&self, id: Uuid, change: impl FnOnce(&mut Note)) {
        if let Some(note) = self.book().get_mut(&id) {
            change(note);
        }
    }

    fn book(&self) -> MutexGuard<'_, BTreeMap<Uuid, Note>> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
