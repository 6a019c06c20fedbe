//! Lines of an order: a quantity of a product.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{Money, Sku};

/// A quantity of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct Line {
    pub sku: Sku,
    pub quantity: i64,
}

/// A quantity of a product at a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema, utoipa::ToSchema)]
#[avro(namespace = "shop")]
pub struct PricedLine {
    /// The product.
    #[schema(value_type = String, example = "COFFEE")]
    pub sku: Sku,
    pub quantity: i64,
    /// The price of one.
    pub unit_price: Money,
}

/// A product of which there was too little.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct Shortage {
    pub sku: Sku,
    /// The quantity that the order wanted.
    pub wanted: i64,
    /// The quantity on hand.
    pub available: i64,
}

impl From<&PricedLine> for Line {
    fn from(line: &PricedLine) -> Self {
        Self { sku: line.sku.clone(), quantity: line.quantity }
    }
}
