//! The price list: the order service's own, so that no client says what a thing costs.

use std::collections::BTreeMap;
use std::path::Path;

use contracts::{Money, Sku};
use serde::{Deserialize, Serialize};

/// What is sold, by product.
#[derive(Debug, Clone)]
pub struct PriceList(BTreeMap<Sku, Product>);

/// One thing that is sold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// The product.
    #[schema(value_type = String, example = "COFFEE")]
    pub sku: Sku,
    /// What people call it.
    pub name: String,
    /// What one costs.
    pub unit_price: Money,
}

/// Why a price list cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadPriceList {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is not what a price list looks like.
    #[error("is not a list of {{sku, name, unit_price: {{amount, currency}}}}: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A price is zero or less.
    #[error("{0} has a price that is not above zero")]
    NotPositive(Sku),
    /// A product stands in it twice.
    #[error("{0} stands in it twice")]
    Twice(Sku),
}

impl PriceList {
    /// The list that is compiled in.
    ///
    /// # Panics
    /// Never: a test reads it.
    #[must_use]
    pub fn compiled_in() -> Self {
        Self::parse(include_str!("../prices.json")).expect("the price list that is compiled in is a good one")
    }

    /// The list in a JSON file.
    ///
    /// # Errors
    /// See [`BadPriceList`].
    pub fn read(file: &Path) -> Result<Self, BadPriceList> {
        Self::parse(&std::fs::read_to_string(file)?)
    }

    fn parse(json: &str) -> Result<Self, BadPriceList> {
        let mut list = BTreeMap::new();
        for product in serde_json::from_str::<Vec<Product>>(json)? {
            if product.unit_price.amount <= 0 {
                return Err(BadPriceList::NotPositive(product.sku));
            }
            if let Some(before) = list.insert(product.sku.clone(), product) {
                return Err(BadPriceList::Twice(before.sku));
            }
        }
        Ok(Self(list))
    }

    /// What one costs, if it is sold.
    #[must_use]
    pub fn unit_price(&self, sku: &Sku) -> Option<Money> {
        self.0.get(sku).map(|product| product.unit_price)
    }

    /// Everything that is sold, by product.
    pub fn products(&self) -> impl Iterator<Item = &Product> {
        self.0.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_compiled_in_is_a_good_one() {
        assert!(PriceList::compiled_in().products().count() >= 10);
    }

    #[test]
    fn a_list_with_a_price_of_nothing_or_a_product_twice_is_refused() {
        let product = |cents| format!(r#"{{"sku": "A", "name": "a", "unit_price": {{"amount": {cents}, "currency": "EUR"}}}}"#);
        assert!(matches!(PriceList::parse(&format!("[{}]", product(0))), Err(BadPriceList::NotPositive(_))));
        assert!(matches!(PriceList::parse(&format!("[{}, {}]", product(1), product(2))), Err(BadPriceList::Twice(_))));
        assert!(matches!(PriceList::parse("{}"), Err(BadPriceList::Malformed(_))));
    }
}
