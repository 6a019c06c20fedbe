//! Lines: so many of a product.

use apache_avro::AvroSchema;
use serde::{Deserialize, Serialize};

use crate::{Money, Sku};

/// So many of a product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct Line {
    /// The product.
    pub sku: Sku,
    /// How many.
    pub quantity: i64,
}

/// So many of a product at a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema, utoipa::ToSchema)]
#[avro(namespace = "shop")]
pub struct PricedLine {
    /// The product.
    #[schema(value_type = String, example = "COFFEE")]
    pub sku: Sku,
    /// How many.
    pub quantity: i64,
    /// What one of them costs.
    pub unit_price: Money,
}

/// A product of which there was not enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, AvroSchema)]
#[avro(namespace = "shop")]
pub struct Shortage {
    /// The product.
    pub sku: Sku,
    /// How many were wanted.
    pub wanted: i64,
    /// How many there were.
    pub available: i64,
}

impl From<&PricedLine> for Line {
    fn from(line: &PricedLine) -> Self {
        Self { sku: line.sku.clone(), quantity: line.quantity }
    }
}
