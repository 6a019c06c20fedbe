//! Messages as the model sees them: a type name, a key and a content.

use std::fmt::{self, Debug, Display};

use crate::wire::{Codec, DecodeError, EncodeError};

/// The key of an event: the id of its saga, or of the entity that it is about. It decides the order
/// and the lane (law 4).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A key from its text. A uuid is written as 36 lower-case characters, which is how [`Display`]
    /// writes it.
    pub fn new(text: impl Display) -> Self {
        Self(text.to_string())
    }

    /// The key's text, whose UTF-8 bytes are the key of the Kafka record.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A message with a key.
pub trait Keyed {
    /// The id of the saga, or of the entity if the event belongs to no saga.
    fn key(&self) -> Key;
}

/// One type in a set of messages.
#[derive(Debug, Clone, Copy)]
pub struct MessageType {
    /// The topic of the type, without a deployment's prefix.
    pub topic: &'static str,
    /// Its name: `ce_type`.
    pub name: &'static str,
    /// All versions of its schema.
    pub codec: fn() -> &'static Codec,
}

/// A closed set of event types: what a service publishes, or what it reacts to. Implemented by
/// [`events!`](crate::events) and [`inputs!`](crate::inputs).
pub trait Message: Keyed + Debug + Clone + Send + Sync + 'static {
    /// The types of the set.
    fn types() -> &'static [MessageType];

    /// The name of this message's type.
    fn name(&self) -> &'static str;

    /// Decodes a payload of the type `name`.
    ///
    /// # Errors
    /// If the type is not in the set or the payload does not fit it.
    fn decode(name: &str, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// The events that a service publishes, all on its own topic.
pub trait Event: Message {
    /// The topic of the service, without a deployment's prefix.
    const TOPIC: &'static str;

    /// Encodes the payload in the newest version of its schema.
    ///
    /// # Errors
    /// If the value does not fit its schema.
    fn encode(&self) -> Result<Vec<u8>, EncodeError>;
}
