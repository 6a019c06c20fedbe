//! What binds a Rust type to its topic, its name and its schemas.

use serde::{Serialize, de::DeserializeOwned};

use super::Codec;

/// The Rust type of one event. Implemented by [`events!`](crate::events).
pub trait Contract: Serialize + DeserializeOwned {
    /// The topic that carries it, without a deployment's prefix.
    const TOPIC: &'static str;
    /// The name of its type: `ce_type`.
    const NAME: &'static str;
    /// All versions of its schema.
    fn codec() -> &'static Codec;
}

/// Declares the closed set of events that a service publishes on its topic: an enum with one variant for each type, its
/// name and its schema files, oldest version first. Each type must be [`Keyed`](crate::model::Keyed).
///
/// ```ignore
/// reel::events! {
///     /// What the inventory service publishes.
///     pub enum InventoryEvent on "inventory" {
///         InventoryUpdated: ["../../../schemas/inventory/InventoryUpdated.v1.avsc"],
///     }
/// }
/// ```
#[macro_export]
macro_rules! events {
    ($(#[$meta:meta])* $vis:vis enum $set:ident on $topic:literal { $($event:ident: [$($schema:literal),+ $(,)?]),+ $(,)? }) => {
        $(
            impl $crate::wire::Contract for $event {
                const TOPIC: &'static str = $topic;
                const NAME: &'static str = stringify!($event);
                fn codec() -> &'static $crate::wire::Codec {
                    static CODEC: std::sync::LazyLock<$crate::wire::Codec> =
                        std::sync::LazyLock::new(|| $crate::wire::Codec::new(stringify!($event), &[$(include_str!($schema)),+]));
                    &CODEC
                }
            }
        )+
        $crate::inputs! { $(#[$meta])* $vis enum $set { $($event),+ } }
        impl $crate::model::Event for $set {
            const TOPIC: &'static str = $topic;
            fn encode(&self) -> Result<Vec<u8>, $crate::wire::EncodeError> {
                match self { $(Self::$event(event) => <$event as $crate::wire::Contract>::codec().encode(event)),+ }
            }
        }
    };
}

/// Declares the closed set of events that a service reacts to: an enum with one variant for each type.
///
/// ```ignore
/// reel::inputs! {
///     /// What the inventory service reacts to.
///     pub enum InventoryInput { PaymentCompleted, OrderCancelled }
/// }
/// ```
#[macro_export]
macro_rules! inputs {
    ($(#[$meta:meta])* $vis:vis enum $set:ident { $($event:ident),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis enum $set { $(#[doc = concat!("See [`", stringify!($event), "`].")] $event($event)),+ }

        $(
            impl From<$event> for $set {
                fn from(event: $event) -> Self { Self::$event(event) }
            }
        )+
        impl $crate::model::Keyed for $set {
            fn key(&self) -> $crate::model::Key {
                match self { $(Self::$event(event) => $crate::model::Keyed::key(event)),+ }
            }
        }
        impl $crate::model::Message for $set {
            fn types() -> &'static [$crate::model::MessageType] {
                const TYPES: &[$crate::model::MessageType] = &[$($crate::model::MessageType {
                    topic: <$event as $crate::wire::Contract>::TOPIC,
                    name: <$event as $crate::wire::Contract>::NAME,
                    codec: <$event as $crate::wire::Contract>::codec,
                }),+];
                TYPES
            }
            fn name(&self) -> &'static str {
                match self { $(Self::$event(_) => <$event as $crate::wire::Contract>::NAME),+ }
            }
            fn decode(name: &str, payload: &[u8]) -> Result<Self, $crate::wire::DecodeError> {
                $(
                    if name == <$event as $crate::wire::Contract>::NAME {
                        return <$event as $crate::wire::Contract>::codec().decode(payload).map(Self::$event);
                    }
                )+
                Err($crate::wire::DecodeError::UnknownType(name.to_owned()))
            }
        }
    };
}
