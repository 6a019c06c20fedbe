//! Money: whole minor units of one currency, never a float.

use std::fmt::{self, Display};
use std::str::FromStr;

use apache_avro::schema::derive::AvroSchemaComponent;
use apache_avro::schema::{Name, Namespace};
use apache_avro::{AvroSchema, Schema};
use serde::{Deserialize, Serialize};

use crate::Invalid;
use crate::ids::travels_as_text;

/// An amount in minor units (cents of a euro) of a currency.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AvroSchema, utoipa::ToSchema,
)]
#[avro(namespace = "shop")]
pub struct Money {
    /// The amount in minor units.
    #[schema(example = 1290)]
    pub amount: i64,
    /// The currency, by its ISO 4217 code.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
    pub currency: Currency,
}

impl Money {
    /// An amount in minor units.
    #[must_use]
    pub const fn new(amount: i64, currency: Currency) -> Self {
        Self { amount, currency }
    }

    /// The sum; `None` if it overflows or the currencies differ.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let amount = self.amount.checked_add(other.amount)?;
        (self.currency == other.currency).then_some(Self { amount, ..self })
    }

    /// The amount times `quantity`; `None` if it overflows.
    #[must_use]
    pub fn checked_times(self, quantity: i64) -> Option<Self> {
        Some(Self { amount: self.amount.checked_mul(quantity)?, ..self })
    }
}

/// A currency: its ISO 4217 code of three upper-case letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Currency([u8; 3]);

impl Currency {
    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// A new currency, as somebody enters it. The rule is stricter than that of parsing, which also
    /// reads what is in topics already: the code is in the list of ISO 4217.
    ///
    /// # Errors
    /// If it is none, with the rule.
    pub fn entered(code: &str) -> Result<Self, Invalid> {
        let currency = code.parse()?;
        match iso_currency::Currency::from_code(code) {
            Some(_) => Ok(currency),
            None => Err(Invalid("a currency is a code of ISO 4217, such as EUR")),
        }
    }

    /// The code.
    #[must_use]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("a currency is three ASCII letters")
    }
}

impl Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Currency {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let code = <[u8; 3]>::try_from(text.as_bytes())
            .ok()
            .filter(|code| code.iter().all(u8::is_ascii_uppercase));
        code.map(Self).ok_or(Invalid("a currency is three upper-case letters, as in ISO 4217"))
    }
}

travels_as_text!(Currency, Schema::String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_is_three_upper_case_letters() {
        assert_eq!("EUR".parse(), Ok(Currency::EUR));
        for bad in ["", "eur", "EURO", "€", "E1R"] {
            assert!(bad.parse::<Currency>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_new_currency_is_listed_and_one_in_a_topic_need_not_be() {
        for listed in ["EUR", "SEK", "JPY"] {
            assert!(Currency::entered(listed).is_ok(), "{listed}");
        }
        for bad in ["EUU", "eur", "AAA"] {
            assert!(Currency::entered(bad).is_err(), "{bad}");
        }
        assert!("EUU".parse::<Currency>().is_ok());
    }

    #[test]
    fn sums_that_overflow_or_mix_currencies_are_none() {
        let eur = |amount| Money::new(amount, Currency::EUR);
        assert_eq!(eur(1).checked_add(eur(2)), Some(eur(3)));
        assert_eq!(eur(i64::MAX).checked_add(eur(1)), None);
        assert_eq!(eur(1).checked_add(Money::new(1, Currency(*b"SEK"))), None);
        assert_eq!(eur(i64::MAX / 2).checked_times(3), None);
    }
}
