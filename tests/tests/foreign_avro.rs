//! Compatibility of the records with another Avro implementation: Python's fastavro reads one of
//! each type.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io::Write};

use contracts::samples;
use orderctl::system::Service;
use serde_json::{Value, json};

/// A program that reads `[{name, schema, payload}]` and writes `[value]`. It compares the payload's
/// fingerprint with the one that fastavro computes.
const READER: &str = r#"
import datetime, io, json, sys, uuid
import fastavro, fastavro.schema

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)

def plain(value):
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, dict):
        return {name: plain(member) for name, member in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value

def read(record):
    payload = bytes.fromhex(record["payload"])
    canonical = fastavro.schema.to_parsing_canonical_form(record["schema"])
    fingerprint = bytes.fromhex(fastavro.schema.fingerprint(canonical, "CRC-64-AVRO"))
    assert payload[:2] == b"\xc3\x01", record["name"]
    assert payload[2:10] == fingerprint, (record["name"], payload[2:10].hex(), fingerprint.hex())
    datum = io.BytesIO(payload[10:])
    value = fastavro.schemaless_reader(datum, fastavro.parse_schema(record["schema"]))
    assert datum.read() == b"", record["name"]
    return plain(value)

json.dump([read(record) for record in json.load(sys.stdin)], sys.stdout)
"#;

#[test]
fn one_record_of_each_type_is_decoded_by_a_foreign_avro_implementation() {
    let samples = samples::all();
    let records: Vec<Value> = samples
        .iter()
        .map(|sample| {
            let payload: String = sample.payload.iter().map(|byte| format!("{byte:02x}")).collect();
            json!({"name": sample.name, "schema": newest_schema(sample.name), "payload": payload})
        })
        .collect();

    let mut reader = Command::new(python())
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python");
    reader
        .stdin
        .take()
        .expect("a pipe")
        .write_all(Value::from(records).to_string().as_bytes())
        .expect("the reader takes its input");
    let output = checked("fastavro", reader.wait_with_output());
    let values: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");

    assert_eq!(values.len(), samples.len());
    for (value, sample) in values.iter().zip(&samples) {
        assert_eq!(*value, sample.json, "{}", sample.name);
    }
}

/// The newest version of a schema, read from its file.
fn newest_schema(name: &str) -> Value {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let folders = Service::all().map(|service| schemas.join(service.name())).collect::<Vec<_>>();
    let versions = (1..).map(|version| {
        folders
            .iter()
            .map(|folder| folder.join(format!("{name}.v{version}.avsc")))
            .find(|file| file.exists())
    });
    let newest =
        versions.map_while(|file| file).last().unwrap_or_else(|| panic!("no schema of {name}"));
    serde_json::from_str(&fs::read_to_string(newest).expect("a readable file")).expect("JSON")
}

/// A Python with fastavro, in a venv under the target folder that is created when first needed.
fn python() -> PathBuf {
    const FASTAVRO: &str = "fastavro==1.13.1";
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fastavro");
    let python = venv.join("bin/python");
    let has_fastavro =
        Command::new(&python).args(["-c", "import fastavro"]).stderr(Stdio::null()).status();
    if !has_fastavro.is_ok_and(|status| status.success()) {
        checked(
            "python3 -m venv",
            Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output(),
        );
        checked(
            "pip install",
            Command::new(&python).args(["-m", "pip", "install", "--quiet", FASTAVRO]).output(),
        );
    }
    python
}

fn checked(what: &str, output: std::io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        output.status.success(),
        "{what}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
