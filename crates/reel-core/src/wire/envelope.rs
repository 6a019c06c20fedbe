//! The attributes of a record: CloudEvents 1.0 in the binary mode of the Kafka protocol binding, in
//! headers `ce_<attribute>`.

use std::fmt::{self, Display};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// The attributes of a record that a consumer acts on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Envelope {
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_type`.
    pub event_type: String,
    /// `ce_time`, if there is one: when the event was recorded.
    pub recorded_at: Option<Timestamp>,
    /// `ce_sequence`: the sequence in the topic-partition. Only `reel.opened` has none.
    pub sequence: Option<i64>,
    /// `ce_generation`: the log epoch, which is the offset of the `reel.opened` before the record.
    pub epoch: Option<i64>,
    /// `ce_decided`: the place of the decision among all decisions of its service.
    pub decided: Option<DecisionOrder>,
    /// What caused the event.
    pub causality: Causality,
}

/// What caused an event: stored in the outbox with the event, and sent as headers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Causality {
    /// `ce_causationid`: the id of the event that caused this one.
    #[serde(rename = "causationid", default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<Uuid>,
    /// `ce_cause`: where that event is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<RecordRef>,
    /// `traceparent`, in the format of W3C Trace Context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// `ce_expirytime`: the earliest deadline of the saga that was set and not cleared when the
    /// event was recorded. What is done for the saga after it will be undone.
    #[serde(rename = "expirytime", default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Where a record is: `topic/partition/epoch/sequence/offset`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordRef {
    /// Its topic, as the broker knows it.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its log epoch: the offset of the `reel.opened` before it.
    pub epoch: i64,
    /// Its sequence in the topic-partition.
    pub sequence: i64,
    /// Its offset.
    pub offset: i64,
}

/// The place of a decision among all decisions of a service: `step/place`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionOrder {
    /// The number of the step.
    pub step: i64,
    /// The place of its event among the events of the step.
    pub place: i32,
}

/// Why the headers of a record are not those of an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A header is missing.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header cannot be read.
    #[error("header {name} cannot be read: {text:?}")]
    Unreadable {
        /// The header's name.
        name: &'static str,
        /// Its value.
        text: String,
    },
}

/// The value of `ce_specversion`, the same in every record.
const SPECVERSION: &str = "1.0";
/// The value of `content-type`, the same in every record.
const CONTENT_TYPE: &str = "application/avro";

impl Envelope {
    /// Writes the headers of a record: calls `header` with each name and value. `source` is the
    /// service that sends the record, `subject` the record's key.
    pub fn write_headers(&self, source: &str, subject: &str, mut header: impl FnMut(&str, &str)) {
        let mut buffer = Uuid::encode_buffer();
        header("ce_specversion", SPECVERSION);
        header("ce_id", self.id.hyphenated().encode_lower(&mut buffer));
        header("ce_source", source);
        header("ce_type", &self.event_type);
        header("ce_subject", subject);
        header("content-type", CONTENT_TYPE);
        header("ce_correlationid", subject);

        if let Some(time) = self.recorded_at {
            header("ce_time", &time.to_string());
        }
        if let Some(sequence) = self.sequence {
            header("ce_sequence", &sequence.to_string());
        }
        if let Some(epoch) = self.epoch {
            header("ce_generation", &epoch.to_string());
        }
        if let Some(decided) = self.decided {
            header("ce_decided", &decided.to_string());
        }

        let Causality { causation, cause, traceparent, expires_at } = &self.causality;
        if let Some(causation) = causation {
            header("ce_causationid", causation.hyphenated().encode_lower(&mut buffer));
        }
        if let Some(cause) = cause {
            header("ce_cause", &cause.to_string());
        }
        if let Some(traceparent) = traceparent {
            header("traceparent", traceparent);
        }
        if let Some(time) = expires_at {
            header("ce_expirytime", &time.to_string());
        }
    }

    /// Parses the headers of a record: names and values. Unknown ones are ignored.
    ///
    /// # Errors
    /// If a header that every event has is missing, or a header cannot be read.
    pub fn from_headers<'a>(
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, Malformed> {
        let mut envelope = Self::default();
        let (mut id, mut event_type) = (None, None);
        for (name, value) in headers {
            match name {
                "ce_id" => id = Some(parse("ce_id", value)?),
                "ce_type" => event_type = Some(parse::<String>("ce_type", value)?),
                "ce_time" => envelope.recorded_at = Some(parse_time("ce_time", value)?),
                "ce_sequence" => envelope.sequence = Some(parse("ce_sequence", value)?),
                "ce_generation" => envelope.epoch = Some(parse("ce_generation", value)?),
                "ce_decided" => envelope.decided = Some(parse("ce_decided", value)?),
                "ce_causationid" => {
                    envelope.causality.causation = Some(parse("ce_causationid", value)?);
                }
                "ce_cause" => envelope.causality.cause = Some(parse("ce_cause", value)?),
                "traceparent" => {
                    envelope.causality.traceparent = Some(parse("traceparent", value)?);
                }
                "ce_expirytime" => {
                    envelope.causality.expires_at = Some(parse_time("ce_expirytime", value)?);
                }
                _ => {}
            }
        }

        envelope.id = id.ok_or(Malformed::Missing("ce_id"))?;
        envelope.event_type = event_type.ok_or(Malformed::Missing("ce_type"))?;
        Ok(envelope)
    }
}

fn parse<T: FromStr>(name: &'static str, value: Option<&[u8]>) -> Result<T, Malformed> {
    let bytes = value.unwrap_or_default();
    let unreadable =
        || Malformed::Unreadable { name, text: String::from_utf8_lossy(bytes).into_owned() };
    str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or_else(unreadable)
}

fn parse_time(name: &'static str, value: Option<&[u8]>) -> Result<Timestamp, Malformed> {
    parse::<chrono::DateTime<chrono::Utc>>(name, value).map(Timestamp::from)
}

impl Display for RecordRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, partition, epoch, sequence, offset } = self;
        write!(f, "{topic}/{partition}/{epoch}/{sequence}/{offset}")
    }
}

impl FromStr for RecordRef {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let unreadable = || Malformed::Unreadable { name: "ce_cause", text: text.to_owned() };
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or_else(unreadable);
        let parsed = Self {
            topic: part()?.to_owned(),
            partition: part()?.parse().map_err(|_| unreadable())?,
            epoch: part()?.parse().map_err(|_| unreadable())?,
            sequence: part()?.parse().map_err(|_| unreadable())?,
            offset: part()?.parse().map_err(|_| unreadable())?,
        };
        if parts.next().is_some() { Err(unreadable()) } else { Ok(parsed) }
    }
}

impl TryFrom<String> for RecordRef {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<RecordRef> for String {
    fn from(record: RecordRef) -> Self {
        record.to_string()
    }
}

impl Display for DecisionOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.step, self.place)
    }
}

impl FromStr for DecisionOrder {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let unreadable = || Malformed::Unreadable { name: "ce_decided", text: text.to_owned() };
        let (step, place) = text.split_once('/').ok_or_else(unreadable)?;
        let (step, place) = (step.parse(), place.parse());
        Ok(Self { step: step.map_err(|_| unreadable())?, place: place.map_err(|_| unreadable())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Envelope {
        Envelope {
            id: Uuid::from_u128(7),
            event_type: "PaymentCompleted".into(),
            recorded_at: Some(Timestamp::from_micros(1_700_000_000_123_456)),
            sequence: Some(3),
            epoch: Some(0),
            decided: Some(DecisionOrder { step: 9, place: 2 }),
            causality: Causality {
                causation: Some(Uuid::from_u128(6)),
                cause: Some("orders/7/0/41/43".parse().expect("a record's place")),
                traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
                expires_at: Some(Timestamp::from_micros(1_700_000_900_123_456)),
            },
        }
    }

    fn parsed(headers: &[(String, String)]) -> Result<Envelope, Malformed> {
        let pairs = headers.iter();
        Envelope::from_headers(pairs.map(|(name, value)| (name.as_str(), Some(value.as_bytes()))))
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut headers = Vec::new();
        full().write_headers("payment", "k", |name, value| {
            headers.push((name.to_owned(), value.to_owned()));
        });
        assert_eq!(parsed(&headers), Ok(full()));
    }

    #[test]
    fn a_record_without_an_id_is_malformed() {
        assert_eq!(parsed(&[]), Err(Malformed::Missing("ce_id")));
    }

    #[test]
    fn a_sequence_that_is_not_a_number_is_malformed() {
        let headers = [("ce_sequence".to_owned(), "three".to_owned())];
        let expected = Malformed::Unreadable { name: "ce_sequence", text: "three".into() };
        assert_eq!(parsed(&headers), Err(expected));
    }
}
