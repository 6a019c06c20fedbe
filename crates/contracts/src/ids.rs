//! Ids: newtypes that are strings in Avro, in JSON and in the keys of records.
//!
//! The serializer of `apache_avro` is not human-readable, so it would write a plain [`Uuid`] as 16
//! bytes. Ours are text everywhere.

use std::fmt::{self, Display};
use std::str::FromStr;

use apache_avro::Schema;
use apache_avro::schema::derive::AvroSchemaComponent;
use apache_avro::schema::{Name, Namespace};
use reel_core::model::{Key, RowKey};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not a valid value. The message says what a valid one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub(crate) &'static str);

/// Implements, on top of [`FromStr`] and [`Display`], what a value needs that is a string on the
/// wire.
macro_rules! travels_as_text {
    ($name:ident, $schema:expr) => {
        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }

        impl AvroSchemaComponent for $name {
            fn get_schema_in_ctxt(
                _: &mut std::collections::HashMap<Name, Schema>,
                _: &Namespace,
            ) -> Schema {
                $schema
            }
        }
    };
}
pub(crate) use travels_as_text;

macro_rules! uuid_id {
    ($(#[$meta:meta])* $name:ident, $invalid:literal, $namespace:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// Derives the id of what a request creates: the same owner and `Idempotency-Key` give
            /// the same id (UUIDv5).
            #[must_use]
            pub fn of_request(owner: &impl Display, idempotency_key: &str) -> Self {
                // No owner contains a slash, so different pairs give different texts.
                let name = format!("{owner}/{idempotency_key}");
                Self(Uuid::new_v5(&Uuid::from_u128($namespace), name.as_bytes()))
            }

            /// The id as a plain uuid.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        /// Writes the uuid as 36 lower-case characters.
        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Display::fmt(self.0.as_hyphenated(), f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Uuid::try_parse(text).map(Self).map_err(|_| Invalid($invalid))
            }
        }

        impl RowKey for $name {
            type Column = Uuid;

            fn column(&self) -> Uuid {
                self.0
            }

            fn bytes(&self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl From<$name> for Key {
            fn from(id: $name) -> Self {
                Self::new(id)
            }
        }

        travels_as_text!($name, Schema::Uuid);
    };
}

macro_rules! name_id {
    ($(#[$meta:meta])* $name:ident, $invalid:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// A new id, as somebody enters it. The rule is stricter than that of parsing, which
            /// also reads what is in topics already: an address with `.` or `..` in the place of a
            /// name leads elsewhere.
            ///
            /// # Errors
            /// If it is none, with the rule.
            pub fn entered(text: &str) -> Result<Self, Invalid> {
                match text {
                    "." | ".." => Err(Invalid(concat!($invalid, ", and not . or .."))),
                    _ => text.parse(),
                }
            }
        }

        impl Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                if is_name(text) { Ok(Self(text.to_owned())) } else { Err(Invalid($invalid)) }
            }
        }

        impl RowKey for $name {
            type Column = String;

            fn column(&self) -> String {
                self.0.clone()
            }

            fn bytes(&self) -> Vec<u8> {
                self.0.as_bytes().to_vec()
            }
        }

        impl From<&$name> for Key {
            fn from(id: &$name) -> Self {
                Self::new(id)
            }
        }

        travels_as_text!($name, Schema::String);
    };
}

uuid_id!(
    /// The id of an order, and of its saga: the key of every event in it.
    OrderId, "an order id is a uuid", 0x6f72_6465_722e_4f72_a665_7249_6400_0001
);
uuid_id!(
    /// The id of a deposit into an account.
    DepositId, "a deposit id is a uuid", 0x7061_796d_656e_4465_b06f_7369_7400_0002
);
uuid_id!(
    /// The id of a receipt of goods.
    ReceiptId, "a receipt id is a uuid", 0x696e_7665_6e74_4265_8365_6970_7400_0003
);
name_id!(
    /// The name of a customer, who has at most one account.
    CustomerId, "a customer is 1 to 64 letters, digits, dots, dashes or underscores"
);
name_id!(
    /// The stock-keeping unit of a product.
    Sku, "a sku is 1 to 64 letters, digits, dots, dashes or underscores"
);

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_1_to_64_plain_characters() {
        for good in ["a", "A.b_c-9", &"x".repeat(64)] {
            assert_eq!(good.parse::<Sku>().map(String::from).as_deref(), Ok(good));
        }
        for bad in ["", " ", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(bad.parse::<CustomerId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_new_name_leads_nowhere_else_in_an_address() {
        for name in [".", ".."] {
            let refused = CustomerId::entered(name).expect_err(name);
            assert!(refused.to_string().contains("not . or .."), "{refused}");
            assert!(name.parse::<CustomerId>().is_ok(), "one in a topic can be read");
        }
        assert!(Sku::entered("a.b").is_ok());
    }

    #[test]
    fn one_owner_and_key_give_one_id_and_others_give_others() {
        let id = |owner: &str, key| OrderId::of_request(&owner, key);
        assert_eq!(id("anna", "1"), id("anna", "1"));
        assert_ne!(id("anna", "1"), id("anna", "2"));
        assert_ne!(id("anna", "1"), id("bert", "1"));
        assert_ne!(id("anna", "1").uuid(), DepositId::of_request(&"anna", "1").uuid());
    }

    #[test]
    fn a_key_is_36_lower_case_characters() {
        let id: OrderId = "67E55044-10B1-426F-9247-BB680E5FE0C8".parse().expect("a uuid");
        assert_eq!(Key::from(id).as_str(), "67e55044-10b1-426f-9247-bb680e5fe0c8");
    }
}
