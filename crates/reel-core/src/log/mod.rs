//! The log of a topic-partition as its readers see it: records, and the consumer's rule (law 3).

mod input_cursor;
mod position;
mod record;

#[doc(hidden)]
pub use input_cursor::InputCursor;
pub use position::{Position, Verdict};
#[doc(hidden)]
pub use record::MAX_KEY_BYTES;
pub use record::Record;
