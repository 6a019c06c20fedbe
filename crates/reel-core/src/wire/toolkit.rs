//! The toolkit's own events, which it publishes in each service's topic beside the service's own.

use std::sync::LazyLock;

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use super::{Codec, RecordRef};

/// The record without a sequence that opens a lane. Its offset is the lane's epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "opened", namespace = "reel")]
pub struct Opened {
    /// The instance that opened the lane.
    pub instance: String,
}

/// A message was parked: it failed, or it waits behind a parked message of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "parked", namespace = "reel")]
pub struct Parked {
    /// The input's topic.
    pub topic: String,
    /// The input's partition.
    pub partition: i32,
    /// The input's epoch.
    pub generation: i64,
    /// The message's sequence in its topic-partition.
    pub number: i64,
    /// The message's offset, from which its bytes are read again.
    pub offset: i64,
    /// The name of the message's type.
    pub message_type: String,
    /// Why it is parked, for people.
    pub reason: String,
}

/// A parked message was handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "released", namespace = "reel")]
pub struct Released {
    /// The input's topic.
    pub topic: String,
    /// The input's partition.
    pub partition: i32,
    /// The input's epoch.
    pub generation: i64,
    /// The message's sequence in its topic-partition.
    pub number: i64,
}

macro_rules! toolkit_event {
    ($event:ident, $name:literal, $schema:literal) => {
        impl $event {
            /// The name of the type: `ce_type`.
            pub const NAME: &'static str = $name;

            /// All versions of the schema.
            pub fn codec() -> &'static Codec {
                static CODEC: LazyLock<Codec> =
                    LazyLock::new(|| Codec::new($name, &[include_str!($schema)]));
                &CODEC
            }
        }
    };
}

toolkit_event!(Opened, "reel.opened", "../../schemas/opened.v1.avsc");
toolkit_event!(Parked, "reel.parked", "../../schemas/parked.v1.avsc");
toolkit_event!(Released, "reel.released", "../../schemas/released.v1.avsc");

impl Parked {
    /// Where the message is.
    #[must_use]
    pub fn record_ref(&self) -> RecordRef {
        RecordRef {
            topic: self.topic.clone(),
            partition: self.partition,
            epoch: self.generation,
            sequence: self.number,
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rust_types_equal_their_schemas() {
        for (derived, codec) in [
            (Opened::get_schema(), Opened::codec()),
            (Parked::get_schema(), Parked::codec()),
            (Released::get_schema(), Released::codec()),
        ] {
            let newest = codec.schemas().last().expect("a version");
            assert_eq!(derived.canonical_form(), newest.canonical_form());
        }
    }
}
