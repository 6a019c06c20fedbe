//! The requests of the clients and their answers: the only record that no fault can reach.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use contracts::{CustomerId, DepositId, OrderId, ReceiptId, Sku};
use serde_json::Value;
use uuid::Uuid;

use super::acknowledgements::{Acknowledgement, DatabaseLoss, Reply};
use super::published::Published;
use crate::system::Service;

/// A client's request.
#[derive(Debug, Clone)]
pub(super) enum Request {
    Order { customer: String, lines: Vec<(&'static str, i64)> },
    Deposit { customer: String, cents: i64 },
    Receipt { sku: &'static str, quantity: i64 },
}

/// One request, under one `Idempotency-Key`, and its answers.
#[derive(Debug, Clone)]
pub(super) struct Note {
    pub(super) request: Request,
    pub(super) key: String,
    /// The body of the acknowledgement.
    pub(super) body: Option<Value>,
    /// Whether it was acknowledged.
    pub(super) made: Acknowledgement,
    /// Whether its cancel was acknowledged.
    pub(super) cancelled: Acknowledgement,
    /// Whether its cancel was refused because it was confirmed.
    pub(super) confirmed: Acknowledgement,
    /// Whether it was counted as acknowledged and not published when a database was lost.
    counted: bool,
}

/// All requests.
#[derive(Debug, Default)]
pub(super) struct Notes {
    by_id: Mutex<BTreeMap<Uuid, Note>>,
    /// Answers that no client should get.
    wrong_answers: Mutex<Vec<String>>,
    in_flight: AtomicUsize,
}

impl Request {
    pub(super) fn service(&self) -> Service {
        match self {
            Self::Order { .. } => Service::ORDER,
            Self::Deposit { .. } => Service::PAYMENT,
            Self::Receipt { .. } => Service::INVENTORY,
        }
    }

    /// Returns the id that the service gives to what is requested.
    pub(super) fn id(&self, key: &str) -> Uuid {
        let customer =
            |name: &str| name.parse::<CustomerId>().expect("the load's customers have valid names");
        match self {
            Self::Order { customer: name, .. } => OrderId::of_request(&customer(name), key).uuid(),
            Self::Deposit { customer: name, .. } => {
                DepositId::of_request(&customer(name), key).uuid()
            }
            Self::Receipt { sku, .. } => ReceiptId::of_request(
                &sku.parse::<Sku>().expect("the load's products are valid"),
                key,
            )
            .uuid(),
        }
    }
}

impl Notes {
    /// Notes a request that is about to be sent.
    pub(super) fn sending(&self, id: Uuid, request: &Request, key: &str) {
        let (request, key, none) = (request.clone(), key.to_owned(), Acknowledgement::default());
        let note = Note {
            request,
            key,
            body: None,
            made: none,
            cancelled: none,
            confirmed: none,
            counted: false,
        };
        self.by_id().insert(id, note);
    }

    pub(super) fn acknowledged(&self, id: Uuid, reply: Reply, body: Value) {
        self.change(id, |note| {
            note.made.acknowledge(reply);
            note.body = Some(body);
        });
    }

    pub(super) fn cancel_acknowledged(&self, id: Uuid, reply: Reply) {
        self.change(id, |note| note.cancelled.acknowledge(reply));
    }

    /// Notes that a cancel was refused because the order is confirmed.
    pub(super) fn confirmation_acknowledged(&self, id: Uuid, reply: Reply) {
        self.change(id, |note| note.confirmed.acknowledge(reply));
    }

    pub(super) fn add_wrong_answer(&self, what: String) {
        self.wrong_answers.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Notes what is lost with the databases of these services, whose topics hold `published`.
    /// Returns how many requests were acknowledged and are not published.
    pub(super) fn databases_lost(
        &self,
        services: &[Service],
        published: &Published,
        loss: DatabaseLoss,
    ) -> usize {
        let mut unpublished = 0;
        for (id, note) in
            self.by_id().iter_mut().filter(|(_, note)| services.contains(&note.request.service()))
        {
            if !published.made.contains_key(id) {
                note.made.mark_absent(loss);
                // What an earlier loss took is not counted again.
                unpublished += usize::from(
                    note.made.is_given() && !std::mem::replace(&mut note.counted, true),
                );
            }

            if !published.cancelled.contains_key(id) {
                note.cancelled.mark_absent(loss);
            }
            if !published.confirmed.contains_key(id) {
                note.confirmed.mark_absent(loss);
            }
        }

        unpublished
    }

    pub(super) fn all(&self) -> BTreeMap<Uuid, Note> {
        self.by_id().clone()
    }

    pub(super) fn wrong_answers(&self) -> Vec<String> {
        self.wrong_answers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of requests that wait for an answer.
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
        if let Some(note) = self.by_id().get_mut(&id) {
            change(note);
        }
    }

    fn by_id(&self) -> MutexGuard<'_, BTreeMap<Uuid, Note>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
