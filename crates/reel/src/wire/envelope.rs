//! What a record says of itself: CloudEvents 1.0 attributes in the binary mode of the Kafka protocol binding, as headers
//! `ce_<attribute>`.

use std::fmt::{self, Display};
use std::str::FromStr;

use rdkafka::message::{Header, Headers, OwnedHeaders};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::model::Timestamp;

/// The attributes of a record that a consumer acts on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_type`.
    pub name: String,
    /// `ce_time`, where there is one: when the event was recorded.
    pub recorded_at: Option<Timestamp>,
    /// `ce_sequence`: the number in the topic-partition. Only `reel.opened` has none.
    pub number: Option<i64>,
    /// `ce_generation`: the offset of the `reel.opened` under which it was sent.
    pub generation: Option<i64>,
    /// `ce_decided`: the place of the decision among all of its service.
    pub decided: Option<Decided>,
    /// What it comes from.
    pub traced: Traced,
}

/// Where an event comes from: what the outbox keeps beside an event, to be sent as headers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Traced {
    /// `ce_causationid`: the event before.
    #[serde(rename = "causationid", default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<Uuid>,
    /// `ce_cause`: where the event before lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// `traceparent`, as W3C Trace Context has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// The place of a record: `topic/partition/generation/number/offset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cause {
    /// Its topic, as the broker knows it.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its generation.
    pub generation: i64,
    /// Its number in the topic-partition.
    pub number: i64,
    /// Its offset.
    pub offset: i64,
}

/// The place of a decision among all decisions of a service: `step/place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Decided {
    /// The number of the step.
    pub step: i64,
    /// The place in the step's batch.
    pub place: i32,
}

/// A record whose headers are not those of an event of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A header is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header cannot be read.
    #[error("header {name} cannot be read: {text:?}")]
    Unreadable {
        /// The header.
        name: &'static str,
        /// What it holds.
        text: String,
    },
}

/// What is written beside the attributes of [`Envelope`]: the same for all events of a service.
const SPECVERSION: &str = "1.0";
const CONTENT_TYPE: &str = "application/avro";

impl Envelope {
    /// The headers of a record, with `source` the service that sends it and `subject` its key.
    #[must_use]
    pub fn headers(&self, source: &str, subject: &str) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(15);
        let mut text = |key: &str, value: &str| {
            headers = std::mem::take(&mut headers).insert(Header { key, value: Some(value) });
        };
        text("ce_specversion", SPECVERSION);
        text("ce_id", self.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        text("ce_source", source);
        text("ce_type", &self.name);
        text("ce_subject", subject);
        text("content-type", CONTENT_TYPE);
        text("ce_correlationid", subject);
        if let Some(time) = self.recorded_at {
            text("ce_time", &time.to_string());
        }
        if let Some(number) = self.number {
            text("ce_sequence", &number.to_string());
        }
        if let Some(generation) = self.generation {
            text("ce_generation", &generation.to_string());
        }
        if let Some(decided) = self.decided {
            text("ce_decided", &decided.to_string());
        }
        if let Some(causation) = self.traced.causation {
            text("ce_causationid", causation.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        }
        if let Some(cause) = &self.traced.cause {
            text("ce_cause", &cause.to_string());
        }
        if let Some(traceparent) = &self.traced.traceparent {
            text("traceparent", traceparent);
        }
        headers
    }

    /// Reads the headers of a record.
    ///
    /// # Errors
    /// Where one that every event has is missing, or one cannot be read.
    pub fn read(headers: Option<&impl Headers>) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        let (mut id, mut name) = (None, None);
        for header in headers.into_iter().flat_map(Headers::iter) {
            match header.key {
                "ce_id" => id = Some(parse("ce_id", header.value)?),
                "ce_type" => name = Some(parse::<String>("ce_type", header.value)?),
                "ce_time" => envelope.recorded_at = Some(Timestamp::from(parse::<chrono::DateTime<chrono::Utc>>("ce_time", header.value)?)),
                "ce_sequence" => envelope.number = Some(parse("ce_sequence", header.value)?),
                "ce_generation" => envelope.generation = Some(parse("ce_generation", header.value)?),
                "ce_decided" => envelope.decided = Some(parse("ce_decided", header.value)?),
                "ce_causationid" => envelope.traced.causation = Some(parse("ce_causationid", header.value)?),
                "ce_cause" => envelope.traced.cause = Some(parse("ce_cause", header.value)?),
                "traceparent" => envelope.traced.traceparent = Some(parse("traceparent", header.value)?),
                _ => {}
            }
        }
        envelope.id = id.ok_or(Malformed::Missing("ce_id"))?;
        envelope.name = name.ok_or(Malformed::Missing("ce_type"))?;
        Ok(envelope)
    }
}

fn parse<T: FromStr>(name: &'static str, value: Option<&[u8]>) -> Result<T, Malformed> {
    let bytes = value.unwrap_or_default();
    str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Malformed::Unreadable { name, text: String::from_utf8_lossy(bytes).into_owned() })
}

impl Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, generation, number, offset } = self;
        write!(f, "{topic}/{partition}/{generation}/{number}/{offset}")
    }
}

impl FromStr for Cause {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let unreadable = || Malformed::Unreadable { name: "ce_cause", text: text.to_owned() };
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or_else(unreadable);
        let cause = Self {
            topic: part()?.to_owned(),
            partition: part()?.parse().map_err(|_| unreadable())?,
            generation: part()?.parse().map_err(|_| unreadable())?,
            number: part()?.parse().map_err(|_| unreadable())?,
            offset: part()?.parse().map_err(|_| unreadable())?,
        };
        if parts.next().is_some() { Err(unreadable()) } else { Ok(cause) }
    }
}

impl TryFrom<String> for Cause {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Cause> for String {
    fn from(cause: Cause) -> Self {
        cause.to_string()
    }
}

impl Display for Decided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.step, self.place)
    }
}

impl FromStr for Decided {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let unreadable = || Malformed::Unreadable { name: "ce_decided", text: text.to_owned() };
        let (step, place) = text.split_once('/').ok_or_else(unreadable)?;
        Ok(Self { step: step.parse().map_err(|_| unreadable())?, place: place.parse().map_err(|_| unreadable())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Envelope {
        Envelope {
            id: Uuid::from_u128(7),
            name: "PaymentCompleted".into(),
            recorded_at: Some(Timestamp::from_micros(1_700_000_000_123_456)),
            number: Some(3),
            generation: Some(0),
            decided: Some(Decided { step: 9, place: 2 }),
            traced: Traced {
                causation: Some(Uuid::from_u128(6)),
                cause: Some("orders/7/0/41/43".parse().expect("cause")),
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            },
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Envelope::read(Some(&full().headers("payment", "k"))), Ok(full()));
    }

    #[test]
    fn a_record_without_an_id_is_malformed() {
        assert_eq!(Envelope::read(None::<&OwnedHeaders>), Err(Malformed::Missing("ce_id")));
    }

    #[test]
    fn a_number_that_is_none_is_malformed() {
        let headers = OwnedHeaders::new().insert(Header { key: "ce_sequence", value: Some("three") });
        assert_eq!(Envelope::read(Some(&headers)), Err(Malformed::Unreadable { name: "ce_sequence", text: "three".into() }));
    }
}
