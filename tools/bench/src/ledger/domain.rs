//! The decisions of the ledger: pure, as in every service.

use contracts::OrderId;
use reel::model::{Deadlines, Impossible, Key, Keyed, Rows, Service, Timestamp, Trigger};
use serde::{Deserialize, Serialize};

/// Length of a note's text, chosen so that its payload has [`PAYLOAD_BYTES`].
const TEXT_LETTERS: usize = 207;
/// Size of all payloads of the benchmarks.
#[cfg(test)]
const PAYLOAD_BYTES: usize = 256;

/// Topic of the service that the ledger reacts to.
pub const REQUESTS: &str = "requests";

/// A note was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// The order that it is about.
    pub order_id: OrderId,
    /// The text.
    pub text: String,
}

/// Another service asks for a note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requested {
    /// The order that it is about.
    pub order_id: OrderId,
    /// The text of the note.
    pub text: String,
}

impl Noted {
    /// A new note with an incompressible payload of 256 bytes.
    #[must_use]
    pub fn random() -> Self {
        Self { order_id: uuid::Uuid::now_v7().into(), text: text() }
    }
}

impl Requested {
    /// A new request with an incompressible payload of 256 bytes.
    #[must_use]
    pub fn random() -> Self {
        Self { order_id: uuid::Uuid::now_v7().into(), text: text() }
    }
}

fn text() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(TEXT_LETTERS).collect()
}

impl Keyed for Noted {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

impl Keyed for Requested {
    fn key(&self) -> Key {
        self.order_id.into()
    }
}

reel::events! {
    /// The events of the ledger.
    pub enum LedgerEvent on "notes" { Noted: ["../../schemas/Noted.v1.avsc"] }
}

mod foreign {
    use super::Requested;

    reel::events! {
        /// The events of the other service.
        pub enum RequestEvent on "requests" { Requested: ["../../schemas/Requested.v1.avsc"] }
    }
}
pub use foreign::RequestEvent;

reel::inputs! {
    /// The events that the ledger reacts to.
    pub enum LedgerInput { Requested }
}

/// The pure functions of the ledger.
#[derive(Debug)]
pub struct LedgerService;

/// The state of the ledger.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The notes, by order.
    pub notes: Rows<OrderId, Note>,
}

/// A note in the state of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// Length of its text.
    pub length: i64,
}

/// The rejections of the ledger: it has none.
#[derive(Debug, thiserror::Error)]
pub enum Never {}

reel::working_set!(Ledger { notes });

impl Service for LedgerService {
    const NAME: &'static str = "ledger";
    type State = Ledger;
    type Command = Noted;
    type Answer = ();
    type Rejection = Never;
    type Input = LedgerInput;
    type Event = LedgerEvent;

    fn read_set(trigger: Trigger<'_, Self>, state: &mut Ledger) {
        state.notes.need(&match trigger {
            Trigger::Command(note) | Trigger::Event(LedgerEvent::Noted(note)) => note.order_id,
            Trigger::Input(LedgerInput::Requested(request)) => request.order_id,
        });
    }

    fn decide(state: &Ledger, note: &Noted, _: Timestamp) -> Result<Option<LedgerEvent>, Never> {
        Ok(state.notes.get(&note.order_id).is_none().then(|| note.clone().into()))
    }

    fn react(
        state: &Ledger,
        LedgerInput::Requested(request): &LedgerInput,
        _: Timestamp,
    ) -> Result<Option<LedgerEvent>, Impossible> {
        let Requested { order_id, text } = request.clone();
        Ok(state.notes.get(&order_id).is_none().then(|| Noted { order_id, text }.into()))
    }

    fn evolve(state: &mut Ledger, LedgerEvent::Noted(note): &LedgerEvent) {
        state.notes.put(
            note.order_id,
            Note { length: i64::try_from(note.text.len()).unwrap_or(i64::MAX) },
        );
    }

    fn answer(_: &Ledger, _: &Noted) {}

    fn deadlines(_: &LedgerEvent) -> Deadlines<Self> {
        Deadlines::none()
    }
}

#[cfg(test)]
mod tests {
    use reel::model::Event;
    use reel::testing::given;

    use super::*;

    #[test]
    fn a_payload_has_256_bytes() {
        assert_eq!(
            LedgerEvent::from(Noted::random()).encode().expect("it fits its schema").len(),
            PAYLOAD_BYTES
        );
        assert_eq!(
            RequestEvent::from(Requested::random()).encode().expect("it fits its schema").len(),
            PAYLOAD_BYTES
        );
    }

    #[test]
    fn each_request_is_noted_once() {
        let request = Requested::random();
        let noted = Noted { order_id: request.order_id, text: request.text.clone() };
        given::<LedgerService>([]).when(request).then(noted).again().then_nothing();
    }
}
