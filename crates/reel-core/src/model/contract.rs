//! The binding of a Rust type to its topic, its name and its schemas.

use serde::{Serialize, de::DeserializeOwned};

use crate::wire::Codec;

/// The Rust type of one event. Implemented by [`events!`](crate::events).
pub trait Contract: Serialize + DeserializeOwned {
    /// The topic of the event, without a deployment's prefix.
    const TOPIC: &'static str;
    /// The name of the event type: `ce_type`.
    const NAME: &'static str;
    /// All versions of the event's schema.
    fn codec() -> &'static Codec;
}

/// Declares the closed set of events that a service publishes on its topic: an enum with one
/// variant for each type, its name and its schema files, oldest version first. Each type must be
/// [`Keyed`](crate::model::Keyed).
///
/// ```ignore
/// reel_core::events! {
///     /// What the inventory service publishes.
///     pub enum InventoryEvent on "inventory" {
///         InventoryUpdated: ["../../../schemas/inventory/InventoryUpdated.v1.avsc"],
///     }
/// }
/// ```
#[macro_export]
macro_rules! events {
    (
        $(#[$meta:meta])*
        $vis:vis enum $set:ident on $topic:literal {
            $($event:ident: [$($schema:literal),+ $(,)?]),+ $(,)?
        }
    ) => {
        $(
            impl $crate::private::Contract for $event {
                const TOPIC: &'static str = $topic;
                const NAME: &'static str = stringify!($event);
                fn codec() -> &'static $crate::private::Codec {
                    static CODEC: std::sync::LazyLock<$crate::private::Codec> =
                        std::sync::LazyLock::new(|| {
                            let versions = &[$(include_str!($schema)),+];
                            $crate::private::Codec::new(stringify!($event), versions)
                        });
                    &CODEC
                }
            }
        )+
        $crate::inputs! { $(#[$meta])* $vis enum $set { $($event),+ } }
        impl $crate::private::Event for $set {
            const TOPIC: &'static str = $topic;
            fn encode(&self) -> Result<Vec<u8>, $crate::private::EncodeError> {
                match self {
                    $(
                        Self::$event(event) => {
                            <$event as $crate::private::Contract>::codec().encode(event)
                        }
                    ),+
                }
            }
        }
    };
}

/// Declares the closed set of events that a service reacts to: an enum with one variant for each
/// type.
///
/// ```ignore
/// reel_core::inputs! {
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
        impl $crate::private::Keyed for $set {
            fn key(&self) -> $crate::private::Key {
                match self { $(Self::$event(event) => $crate::private::Keyed::key(event)),+ }
            }
        }
        impl $crate::private::Message for $set {
            fn types() -> &'static [$crate::private::MessageType] {
                const TYPES: &[$crate::private::MessageType] = &[$($crate::private::MessageType {
                    topic: <$event as $crate::private::Contract>::TOPIC,
                    name: <$event as $crate::private::Contract>::NAME,
                    codec: <$event as $crate::private::Contract>::codec,
                }),+];
                TYPES
            }
            fn name(&self) -> &'static str {
                match self { $(Self::$event(_) => <$event as $crate::private::Contract>::NAME),+ }
            }
            fn decode(name: &str, payload: &[u8]) -> Result<Self, $crate::private::DecodeError> {
                $(
                    if name == <$event as $crate::private::Contract>::NAME {
                        let codec = <$event as $crate::private::Contract>::codec();
                        return codec.decode(payload).map(Self::$event);
                    }
                )+
                Err($crate::private::DecodeError::UnknownType(name.to_owned()))
            }
        }
    };
}
