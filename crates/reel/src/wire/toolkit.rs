//! The toolkit's own events, which travel in the topic of each service beside its own.

use std::sync::LazyLock;

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use super::{Cause, Codec};

/// The unnumbered record that opens a lane. Its offset is the lane's generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "opened", namespace = "reel")]
pub struct Opened {
    /// The instance that opened the lane.
    pub instance: String,
}

/// A message that is parked, or waits behind a parked one of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "parked", namespace = "reel")]
pub struct Parked {
    /// The input's topic.
    pub topic: String,
    /// The input's partition.
    pub partition: i32,
    /// The input's generation.
    pub generation: i64,
    /// The message's number in its topic-partition.
    pub number: i64,
    /// The message's offset, under which its bytes are read again.
    pub offset: i64,
    /// The message's type.
    pub message_type: String,
    /// Why it is parked, for people.
    pub reason: String,
}

/// A message that was parked and has been handled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(name = "released", namespace = "reel")]
pub struct Released {
    /// The input's topic.
    pub topic: String,
    /// The input's partition.
    pub partition: i32,
    /// The input's generation.
    pub generation: i64,
    /// The message's number in its topic-partition.
    pub number: i64,
}

macro_rules! toolkit_event {
    ($event:ident, $name:literal, $schema:literal) => {
        impl $event {
            /// The name of the type: `ce_type`.
            pub const NAME: &'static str = $name;

            /// All versions of the schema.
            pub fn codec() -> &'static Codec {
                static CODEC: LazyLock<Codec> = LazyLock::new(|| Codec::new($name, &[include_str!($schema)]));
                &CODEC
            }
        }
    };
}

toolkit_event!(Opened, "reel.opened", "../../../../schemas/reel/opened.v1.avsc");
toolkit_event!(Parked, "reel.parked", "../../../../schemas/reel/parked.v1.avsc");
toolkit_event!(Released, "reel.released", "../../../../schemas/reel/released.v1.avsc");

impl Parked {
    /// Where the message lies.
    #[must_use]
    pub fn cause(&self) -> Cause {
        Cause {
            topic: self.topic.clone(),
            partition: self.partition,
            generation: self.generation,
            number: self.number,
            offset: self.offset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rust_types_equal_their_schemas() {
        for (derived, codec) in
            [(Opened::get_schema(), Opened::codec()), (Parked::get_schema(), Parked::codec()), (Released::get_schema(), Released::codec())]
        {
            let newest = codec.schemas().last().expect("a version");
            assert_eq!(derived.canonical_form(), newest.canonical_form());
        }
    }
}
