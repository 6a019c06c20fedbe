//! Structs that are read from JSON objects only. What serde derives also takes an array, field by
//! position, so `["anna", 5]` would pass for `{"customer": "anna", "quantity": 5}`.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// A struct that was read from a JSON object.
pub(crate) struct Object<T>(pub(crate) T);

/// Reads a list of structs from a list of JSON objects. For a field of a body, which is itself read
/// from an object only: `#[serde(deserialize_with = "reel::http::objects")]`.
///
/// # Errors
/// If it is anything else, or an object is not a `T`.
pub fn objects<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let objects = Vec::<Object<T>>::deserialize(deserializer)?;
    Ok(objects.into_iter().map(|Object(object)| object).collect())
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Line {
        sku: String,
    }

    #[derive(Debug, Deserialize)]
    struct Order {
        customer: String,
        #[serde(deserialize_with = "objects")]
        lines: Vec<Line>,
    }

    fn read(json: &str) -> Result<Order, String> {
        let read = serde_json::from_str::<Object<Order>>(json);
        read.map(|Object(order)| order).map_err(|error| error.to_string())
    }

    #[test]
    fn a_struct_is_read_from_an_object() {
        let order = read(r#"{"customer": "ann", "lines": [{"sku": "MUG"}]}"#).expect("read");
        assert_eq!((order.customer.as_str(), order.lines[0].sku.as_str()), ("ann", "MUG"));
    }

    #[test]
    fn an_array_in_its_place_is_refused_at_any_depth() {
        for json in [r#"["ann", [{"sku": "MUG"}]]"#, r#"{"customer": "ann", "lines": [["MUG"]]}"#] {
            let refused = read(json).expect_err("refused");
            assert!(refused.contains("invalid type: sequence, expected an object"), "{refused}");
        }
    }

    #[test]
    fn what_serde_refuses_is_still_refused() {
        for (json, why) in [
            (r#"{"customer": "ann", "customer": "bob", "lines": []}"#, "duplicate field"),
            (r#"{"customer": "ann", "lines": [{"sku": "MUG", "price": 1}]}"#, "unknown field"),
            (r#"{"customer": "ann"}"#, "missing field"),
        ] {
            let refused = read(json).expect_err("refused");
            assert!(refused.contains(why), "{refused}");
        }
    }
}
