//! What clients asked for and what they were told: the only witness that no fault can reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contracts::{CustomerId, DepositId, OrderId, ReceiptId, Sku};
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::published::Published;
use crate::system::Service;

/// What a client asks for.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Order { customer: String, lines: Vec<(&'static str, i64)> },
    Deposit { customer: String, cents: i64 },
    Receipt { sku: &'static str, quantity: i64 },
}

/// One request, under one `Idempotency-Key`.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) request: Request,
    pub(super) key: String,
    /// The acknowledgement.
    pub(super) reply: Option<Reply>,
    /// When the cancel that was acknowledged had been sent.
    pub(super) cancelled: Option<Instant>,
    /// When it was last absent from its topic while its database was thrown away.
    lost: Option<Instant>,
    /// The same of its cancel.
    cancel_lost: Option<Instant>,
    /// It was told that this one may be lost.
    counted: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Reply {
    /// When the try that was answered had been sent.
    pub(super) sent_at: Instant,
    /// What was answered.
    pub(super) said: Value,
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

impl Note {
    /// It was answered, or under way, when its database was thrown away, and did not stand in the topic. One that was under way may
    /// have been committed by a replica that was paused, or cut off, before it could pass the answer on.
    pub(super) fn may_be_lost(&self) -> bool {
        self.reply.as_ref().is_some_and(|reply| self.lost.is_some_and(|lost| reply.sent_at < lost))
    }

    /// The same of its cancel.
    pub(super) fn cancel_may_be_lost(&self) -> bool {
        self.cancelled.is_some_and(|sent_at| self.cancel_lost.is_some_and(|lost| sent_at < lost))
    }
}

impl Notes {
    /// A request is about to be sent.
    pub(super) fn asked(&self, id: Uuid, request: &Request, key: &str) {
        let (request, key) = (request.clone(), key.to_owned());
        let note = Note { request, key, reply: None, cancelled: None, lost: None, cancel_lost: None, counted: false };
        self.book().insert(id, note);
    }

    pub(super) fn acknowledged(&self, id: Uuid, sent_at: Instant, said: Value) {
        self.change(id, |note| note.reply = Some(Reply { sent_at, said }));
    }

    pub(super) fn cancel_acknowledged(&self, id: Uuid, sent_at: Instant) {
        self.change(id, |note| note.cancelled = Some(sent_at));
    }

    pub(super) fn wrong(&self, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Databases of these services are thrown away now, and their topics hold this. What is asked from now on is safe. Says how
    /// many requests were acknowledged and are not published.
    pub(super) fn thrown_away(&self, services: &[Service], published: &Published) -> usize {
        let now = Instant::now();
        let mut unpublished = 0;
        for (id, note) in self.book().iter_mut().filter(|(_, note)| services.contains(&note.request.service())) {
            if !published.made.contains_key(id) {
                note.lost = Some(now);
                // Nothing that was lost before is lost again.
                unpublished += usize::from(note.reply.is_some() && !std::mem::replace(&mut note.counted, true));
            }
            if !published.cancelled.contains_key(id) {
                note.cancel_lost = Some(now);
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
