//! Avro single-object encoding (Avro specification 1.12, "Single-object encoding"): `C3 01`, then
//! the CRC-64-AVRO fingerprint of the writer's schema, then the datum. Every version of a schema is
//! compiled in, so a reader knows the schemas of all writers.

use apache_avro::{Schema, from_avro_datum, from_value, to_avro_datum, to_value};
use serde::{Serialize, de::DeserializeOwned};

const MARKER: [u8; 2] = [0xc3, 0x01];
const HEADER_BYTES: usize = 10;
const CONFLUENT_MAGIC: u8 = 0;

/// All versions of one event's schema, oldest first.
#[derive(Debug)]
pub struct Codec {
    name: &'static str,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    header: [u8; HEADER_BYTES],
    schema: Schema,
}

/// A value does not fit the newest version of its schema.
#[derive(Debug, thiserror::Error)]
#[error("cannot encode {name}")]
pub struct EncodeError {
    name: &'static str,
    source: Box<apache_avro::Error>,
}

/// A payload cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The reader does not handle this type.
    #[error("unknown event type {0}")]
    UnknownType(String),
    /// The payload does not begin like Avro single-object encoding.
    #[error("payload of {0} is not Avro single-object encoding")]
    Framing(&'static str),
    /// The payload needs a schema registry.
    #[error("payload of {0} names schema {1} of a registry, and none is configured")]
    NoRegistry(&'static str, u32),
    /// The writer's schema is not compiled in.
    #[error("payload of {name} was written with unknown schema {fingerprint}")]
    UnknownSchema {
        /// The event type.
        name: &'static str,
        /// CRC-64-AVRO of the writer's schema, in hexadecimal.
        fingerprint: String,
    },
    /// The datum does not fit the schema it names.
    #[error("payload of {name} cannot be decoded")]
    Datum {
        /// The event type.
        name: &'static str,
        /// What does not fit.
        source: Box<apache_avro::Error>,
    },
    /// Bytes are left over after the datum.
    #[error("payload of {0} has {1} bytes too many")]
    Trailing(&'static str, usize),
}

impl Codec {
    /// A codec from the texts of the schema's versions, oldest first.
    ///
    /// # Panics
    /// If a text is not an Avro schema. The texts are compiled in, and a test parses each of them.
    #[must_use]
    pub fn new(name: &'static str, versions: &[&str]) -> Self {
        let versions = versions
            .iter()
            .map(|text| {
                let schema = Schema::parse_str(text).unwrap_or_else(|error| {
                    panic!("schema of {name} is compiled in and valid: {error}")
                });
                let mut header = [0; HEADER_BYTES];
                header[..2].copy_from_slice(&MARKER);
                header[2..].copy_from_slice(&fingerprint(&schema));
                Version { header, schema }
            })
            .collect();
        Self { name, versions }
    }

    /// The versions of the schema, oldest first.
    pub fn schemas(&self) -> impl Iterator<Item = &Schema> {
        self.versions.iter().map(|version| &version.schema)
    }

    /// Encodes a value in the newest version.
    ///
    /// # Errors
    /// If the value does not fit the schema.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>, EncodeError> {
        let fail = |source| EncodeError { name: self.name, source: Box::new(source) };
        let newest = self.newest();
        let datum = to_avro_datum(&newest.schema, to_value(value).map_err(fail)?).map_err(fail)?;
        Ok([newest.header.as_slice(), &datum].concat())
    }

    /// Decodes a payload that was written in any known version, by the rules of Avro's schema
    /// resolution. It never panics, whatever the bytes.
    ///
    /// # Errors
    /// If the payload cannot be decoded: see [`DecodeError`].
    pub fn decode<T: DeserializeOwned>(&self, payload: &[u8]) -> Result<T, DecodeError> {
        let Some((header, mut datum)) = payload.split_first_chunk::<HEADER_BYTES>() else {
            return Err(self.unreadable(payload));
        };
        if header[..2] != MARKER {
            return Err(self.unreadable(payload));
        }

        let writer =
            self.versions.iter().find(|version| version.header == *header).ok_or_else(|| {
                DecodeError::UnknownSchema {
                    name: self.name,
                    fingerprint: header[2..].iter().map(|byte| format!("{byte:02x}")).collect(),
                }
            })?;

        let fail = |source| DecodeError::Datum { name: self.name, source: Box::new(source) };

        // A payload of the newest version needs no schema resolution, which would copy all of it.
        let reader = Some(self.newest())
            .filter(|newest| !std::ptr::eq(*newest, writer))
            .map(|newest| &newest.schema);

        // Through `Value`: the direct deserializer may panic when reader and writer differ.
        let value = from_avro_datum(&writer.schema, &mut datum, reader).map_err(fail)?;
        if !datum.is_empty() {
            return Err(DecodeError::Trailing(self.name, datum.len()));
        }
        from_value(&value).map_err(fail)
    }

    fn newest(&self) -> &Version {
        self.versions.last().expect("a codec has at least one version")
    }

    fn unreadable(&self, payload: &[u8]) -> DecodeError {
        match payload {
            [CONFLUENT_MAGIC, a, b, c, d, ..] => {
                DecodeError::NoRegistry(self.name, u32::from_be_bytes([*a, *b, *c, *d]))
            }
            _ => DecodeError::Framing(self.name),
        }
    }
}

/// CRC-64-AVRO of the schema's Parsing Canonical Form, little-endian.
///
/// `apache_avro` 0.21 writes a primitive that has a logical type as `{"type":"long"}`, but the
/// specification's [PRIMITIVE] rule requires `"long"`. So its own fingerprint differs from that of
/// every other implementation.
fn fingerprint(schema: &Schema) -> [u8; HEADER_BYTES - 2] {
    const EMPTY: u64 = 0xc15d_213a_a4d7_a795;
    const PRIMITIVES: [&str; 8] =
        ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
    let canonical = PRIMITIVES.iter().fold(schema.canonical_form(), |form, name| {
        form.replace(&format!("{{\"type\":\"{name}\"}}"), &format!("\"{name}\""))
    });
    let shift = |hash: u64, _| (hash >> 1) ^ (if hash & 1 == 1 { EMPTY } else { 0 });
    canonical
        .bytes()
        .fold(EMPTY, |hash, byte| (0..8).fold(hash ^ u64::from(byte), shift))
        .to_le_bytes()
}
