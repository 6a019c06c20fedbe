//! Events on the wire: Avro payloads and CloudEvents headers (docs/wire.md).

mod codec;
mod envelope;
mod toolkit;

pub use codec::{Codec, DecodeError, EncodeError};
pub use envelope::{Causality, DecisionOrder, Envelope, Malformed, RecordRef};
pub use toolkit::{Opened, Parked, Released};
