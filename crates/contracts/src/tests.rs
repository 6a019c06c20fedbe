//! The Rust types, the schema files and the bytes on the wire agree.

use std::collections::BTreeSet;
use std::path::Path;

use apache_avro::schema_compatibility::SchemaCompatibility;
use apache_avro::{AvroSchema, Schema};
use reel_core::model::{Contract, Event, Message};
use reel_core::wire::Codec;
use serde_json::Value;

use crate::inventory::{
    InventoryEvent, InventoryFailed, InventoryFailure, InventoryRestored, InventoryUpdated,
    StockReceived,
};
use crate::orders::{OrderCancelled, OrderConfirmed, OrderCreated, OrderEvent};
use crate::payments::{
    AccountCredited, PaymentCompleted, PaymentEvent, PaymentFailed, PaymentFailure, PaymentRefunded,
};
use crate::{Currency, Money, OrderId, samples};

/// The folder of each service's schemas, and its codecs.
fn folders() -> [(&'static str, Vec<(&'static str, &'static Codec)>); 3] {
    fn codecs<M: Message>() -> Vec<(&'static str, &'static Codec)> {
        M::types().iter().map(|known| (known.name, (known.codec)())).collect()
    }
    [
        ("order", codecs::<OrderEvent>()),
        ("payment", codecs::<PaymentEvent>()),
        ("inventory", codecs::<InventoryEvent>()),
    ]
}

/// A schema without its docs and defaults, which the Rust types do not have.
fn shape(schema: &Schema) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.retain(|name, _| name != "doc" && name != "default");
                members.values_mut().for_each(strip);
            }
            Value::Array(items) => items.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut json = serde_json::to_value(schema).expect("a schema is JSON");
    strip(&mut json);
    json
}

#[test]
fn the_rust_types_equal_the_newest_version_of_their_schemas() {
    fn check<T: AvroSchema + Contract>() {
        let newest = T::codec().schemas().last().expect("a version");
        assert_eq!(T::get_schema().canonical_form(), newest.canonical_form(), "{}", T::NAME);
        assert_eq!(shape(&T::get_schema()), shape(newest), "logical types of {}", T::NAME);
    }
    check::<OrderCreated>();
    check::<OrderConfirmed>();
    check::<OrderCancelled>();
    check::<PaymentCompleted>();
    check::<PaymentFailed>();
    check::<PaymentRefunded>();
    check::<AccountCredited>();
    check::<InventoryUpdated>();
    check::<InventoryFailed>();
    check::<InventoryRestored>();
    check::<StockReceived>();
}

#[test]
fn each_version_of_a_schema_can_read_and_be_read_by_all_before_it() {
    for (name, codec) in folders().into_iter().flat_map(|(_, codecs)| codecs) {
        let versions: Vec<&Schema> = codec.schemas().collect();
        for (nth, later) in versions.iter().enumerate() {
            for earlier in &versions[..nth] {
                for (reader, writer) in [(*later, *earlier), (*earlier, *later)] {
                    let read = SchemaCompatibility::can_read(&known_to(reader, writer), reader);
                    assert!(read.is_ok(), "version {} of {name}: {read:?}", nth + 1);
                }
            }
        }
    }
}

/// The writer's schema without the symbols for which the reader has a default. The checker of
/// `apache_avro` does not know of defaults of enums, its decoder does.
fn known_to(reader: &Schema, writer: &Schema) -> Schema {
    fn enums(value: &Value, found: &mut Vec<Value>) {
        if value["type"] == "enum" {
            found.push(value.clone());
        }
        match value {
            Value::Object(members) => members.values().for_each(|member| enums(member, found)),
            Value::Array(items) => items.iter().for_each(|item| enums(item, found)),
            _ => {}
        }
    }

    fn retain(value: &mut Value, readers: &[Value]) {
        let reader = readers.iter().find(|reader| {
            value["type"] == "enum"
                && reader["name"] == value["name"]
                && reader["default"] != Value::Null
        });
        if let Some(known) = reader.and_then(|reader| reader["symbols"].as_array()) {
            let symbols = value["symbols"].as_array_mut().expect("symbols");
            symbols.retain(|symbol| known.contains(symbol));
        }
        match value {
            Value::Object(members) => {
                members.values_mut().for_each(|member| retain(member, readers));
            }
            Value::Array(items) => items.iter_mut().for_each(|item| retain(item, readers)),
            _ => {}
        }
    }

    let json = |schema: &Schema| serde_json::to_value(schema).expect("a schema is JSON");
    let mut readers = Vec::new();
    enums(&json(reader), &mut readers);
    let mut written = json(writer);
    retain(&mut written, &readers);
    Schema::parse(&written).expect("a schema")
}

#[test]
fn a_symbol_added_where_the_earlier_version_has_no_default_is_found_incompatible() {
    let schema = |json: Value| Schema::parse(&json).expect("a schema");
    let can_read = |reader: &Schema, writer: &Schema| {
        SchemaCompatibility::can_read(&known_to(reader, writer), reader).is_ok()
    };
    let later = serde_json::json!({"type": "enum", "name": "Why", "symbols": ["unknown", "late"]});
    let with = serde_json::json!({
        "type": "enum", "name": "Why", "symbols": ["unknown"], "default": "unknown"
    });
    let without = serde_json::json!({"type": "enum", "name": "Why", "symbols": ["unknown"]});
    assert!(can_read(&schema(with), &schema(later.clone())));
    assert!(!can_read(&schema(without), &schema(later)));
}

#[test]
fn an_earlier_version_reads_a_later_symbol_as_unknown() {
    fn by_version_1<M: Contract>(event: &impl Event) -> apache_avro::types::Value {
        let versions: Vec<&Schema> = M::codec().schemas().collect();
        let payload = event.encode().expect("it fits");
        // Behind the marker and the fingerprint of single-object encoding.
        let datum = &mut &payload[10..];
        apache_avro::from_avro_datum(versions[1], datum, Some(versions[0])).expect("it is read")
    }

    let order_id = OrderId::from(uuid::Uuid::from_u128(1));
    let unpaid = PaymentFailed {
        order_id,
        customer: "anna".parse().expect("a customer"),
        amount: Money::new(1, Currency::EUR),
        reason: PaymentFailure::TooLate,
    };
    let unpaid = by_version_1::<PaymentFailed>(&PaymentEvent::from(unpaid));
    let short = InventoryFailed { order_id, reason: InventoryFailure::TooLate, short: vec![] };
    let short = by_version_1::<InventoryFailed>(&InventoryEvent::from(short));
    for read in [unpaid, short] {
        assert!(format!("{read:?}").contains("Enum(0, \"unknown\")"), "{read:?}");
    }
}

#[test]
fn a_field_added_without_a_default_is_found_incompatible() {
    let codec = OrderConfirmed::codec();
    let earlier = codec.schemas().last().expect("a version");
    let mut json = serde_json::to_value(earlier).expect("a schema is JSON");
    json["fields"]
        .as_array_mut()
        .expect("fields")
        .push(serde_json::json!({"name": "added", "type": "string"}));
    let later = Schema::parse(&json).expect("a schema");
    assert!(SchemaCompatibility::mutual_read(earlier, &later).is_err());
}

#[test]
fn every_schema_file_is_in_a_codec_and_every_codec_has_its_files() {
    for (folder, codecs) in folders() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas").join(folder);
        let entries =
            std::fs::read_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut files: BTreeSet<String> = entries
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
            .collect();
        for (name, codec) in codecs {
            for (nth, schema) in codec.schemas().enumerate() {
                let file = format!("{name}.v{}.avsc", nth + 1);
                let text = std::fs::read_to_string(path.join(&file))
                    .unwrap_or_else(|error| panic!("{folder}/{file}: {error}"));
                assert_eq!(
                    Schema::parse_str(&text).expect("a schema").canonical_form(),
                    schema.canonical_form(),
                    "{folder}/{file}"
                );
                files.remove(&file);
            }
        }

        assert!(files.is_empty(), "in no codec: {files:?}");
    }
}

#[test]
fn what_is_encoded_is_decoded_again() {
    fn check<M: Message>(events: Vec<M>, encode: fn(&M) -> Vec<u8>) {
        assert_eq!(
            events.iter().map(Message::name).collect::<BTreeSet<_>>(),
            M::types().iter().map(|known| known.name).collect()
        );
        for event in events {
            let decoded = M::decode(event.name(), &encode(&event)).expect("what we encoded");
            assert_eq!(format!("{decoded:?}"), format!("{event:?}"));
        }
    }
    check(samples::orders(), |event| reel_core::model::Event::encode(event).expect("fits"));
    check(samples::payments(), |event| reel_core::model::Event::encode(event).expect("fits"));
    check(samples::inventory(), |event| reel_core::model::Event::encode(event).expect("fits"));
}

#[test]
fn a_text_that_is_no_uuid_or_sku_is_not_decoded() {
    let sample =
        samples::all().into_iter().find(|sample| sample.name == "StockReceived").expect("a sample");
    let spoiled = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = sample
            .payload
            .windows(from.len())
            .position(|window| window == from.as_bytes())
            .expect("it is there");
        let mut payload = sample.payload.clone();
        payload[at..at + to.len()].copy_from_slice(to.as_bytes());
        InventoryEvent::decode("StockReceived", &payload)
    };
    assert!(spoiled("00000000-0000", "not a uuid at").is_err());
    assert!(spoiled("MUG", "M/G").is_err());
}
