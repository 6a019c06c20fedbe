//! Events on the wire: Avro payloads, CloudEvents headers (DESIGN section 5).

mod codec;
mod contract;
mod envelope;
mod toolkit;

pub use codec::{Codec, DecodeError, EncodeError};
pub use contract::Contract;
pub use envelope::{Cause, Decided, Envelope, Malformed, Traced};
pub use toolkit::{Opened, Parked, Released};
