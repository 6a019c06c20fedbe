//! The price list: the order service has its own, so that no client can set prices.

use std::collections::BTreeMap;
use std::path::Path;

use contracts::{Currency, Money, Sku};
use serde::{Deserialize, Serialize};

/// The products for sale, by sku.
#[derive(Debug, Clone)]
pub struct PriceList(BTreeMap<Sku, Product>);

/// A product for sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its stock-keeping unit.
    #[schema(value_type = String, example = "COFFEE")]
    pub sku: Sku,
    /// Its name, for people.
    pub name: String,
    /// The price of one.
    pub unit_price: Money,
}

/// Why a price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PriceListError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// The file is not a price list.
    #[error("is not a list of {{sku, name, unit_price: {{amount, currency}}}}: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A price is zero or less.
    #[error("has a price of zero or less for {0}")]
    NotPositive(Sku),
    /// A product is listed twice.
    #[error("lists {0} twice")]
    Duplicate(Sku),
    /// A product's price is in a currency that does not exist.
    #[error("{0} costs {1}, which is no code of ISO 4217")]
    NoCurrency(Sku, Currency),
}

impl PriceList {
    /// The price list that is compiled in.
    ///
    /// # Panics
    /// Never: a test parses it.
    #[must_use]
    pub fn compiled_in() -> Self {
        Self::parse(include_str!("../prices.json"))
            .expect("the price list that is compiled in is valid")
    }

    /// Reads a price list from a JSON file.
    ///
    /// # Errors
    /// If the file is unreadable or not a price list: see [`PriceListError`].
    pub fn read(file: &Path) -> Result<Self, PriceListError> {
        Self::parse(&std::fs::read_to_string(file)?)
    }

    fn parse(json: &str) -> Result<Self, PriceListError> {
        let mut list = BTreeMap::new();
        for product in serde_json::from_str::<Vec<Product>>(json)? {
            if product.unit_price.amount <= 0 {
                return Err(PriceListError::NotPositive(product.sku));
            }
            let currency = product.unit_price.currency;
            if Currency::entered(currency.as_str()).is_err() {
                return Err(PriceListError::NoCurrency(product.sku, currency));
            }
            if let Some(before) = list.insert(product.sku.clone(), product) {
                return Err(PriceListError::Duplicate(before.sku));
            }
        }
        Ok(Self(list))
    }

    /// The price of one, if the product is for sale.
    #[must_use]
    pub fn unit_price(&self, sku: &Sku) -> Option<Money> {
        self.0.get(sku).map(|product| product.unit_price)
    }

    /// All products, in the order of their skus.
    pub fn products(&self) -> impl Iterator<Item = &Product> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiled_in_is_valid() {
        assert!(PriceList::compiled_in().products().count() >= 10);
    }

    #[test]
    fn a_list_with_a_price_of_nothing_or_a_product_twice_is_refused() {
        let product = |cents| {
            format!(
                r#"{{"sku": "A", "name": "a",
                     "unit_price": {{"amount": {cents}, "currency": "EUR"}}}}"#
            )
        };
        assert!(matches!(
            PriceList::parse(&format!("[{}]", product(0))),
            Err(PriceListError::NotPositive(_))
        ));
        assert!(matches!(
            PriceList::parse(&format!("[{}, {}]", product(1), product(2))),
            Err(PriceListError::Duplicate(_))
        ));
        assert!(matches!(PriceList::parse("{}"), Err(PriceListError::Malformed(_))));
    }
}
