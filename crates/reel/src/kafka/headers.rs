//! Conversion between librdkafka's records and the pure types of `log` and `wire`.

use std::collections::HashMap;
use std::sync::Arc;

use rdkafka::Message as _;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};

use crate::log::Record;
use crate::model::Partition;
use crate::wire::{Envelope, Malformed};

/// Most headers of an event.
const HEADERS: usize = 15;

/// The headers of a record that the service `source` sends under the key `subject`.
#[must_use]
pub fn headers(envelope: &Envelope, source: &str, subject: &str) -> OwnedHeaders {
    let mut headers = OwnedHeaders::new_with_capacity(HEADERS);
    envelope.write_headers(source, subject, |key, value| {
        headers = std::mem::take(&mut headers).insert(Header { key, value: Some(value) });
    });
    headers
}

/// The attributes in the headers of a record.
///
/// # Errors
/// If a header that every event has is missing, or a header cannot be read.
pub fn envelope(headers: Option<&impl Headers>) -> Result<Envelope, Malformed> {
    let headers = headers.into_iter().flat_map(Headers::iter);
    Envelope::from_headers(headers.map(|header| (header.key, header.value)))
}

/// Converts borrowed records to owned ones, which share the names of their topics.
#[derive(Debug, Default)]
pub(super) struct Records {
    topics: HashMap<String, Arc<str>>,
}

impl Records {
    pub(super) fn own(&mut self, message: &BorrowedMessage<'_>) -> Record {
        Record {
            topic: self.topic(message.topic()),
            partition: Partition(message.partition()),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().map(<[u8]>::to_vec),
            envelope: envelope(message.headers()),
        }
    }

    fn topic(&mut self, name: &str) -> Arc<str> {
        if let Some(topic) = self.topics.get(name) {
            return topic.clone();
        }
        self.topics.entry(name.to_owned()).or_insert_with(|| name.into()).clone()
    }
}
