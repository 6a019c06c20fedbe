//! Our records are plain Avro to others: Python's fastavro reads one of each type.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io::Write};

use contracts::samples;
use serde_json::{Value, json};

/// Reads `[{name, schema, payload}]` and writes `[value]`. The fingerprint is fastavro's own.
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

    let mut reader = Command::new(python()).args(["-c", READER]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
    reader.stdin.take().expect("a pipe").write_all(Value::from(records).to_string().as_bytes()).expect("it reads");
    let output = done("fastavro", reader.wait_with_output());
    let values: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");

    assert_eq!(values.len(), samples.len());
    for (value, sample) in values.iter().zip(&samples) {
        assert_eq!(*value, sample.json, "{}", sample.name);
    }
}

/// The newest version of a schema, from its file.
fn newest_schema(name: &str) -> Value {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let folders = ["order", "payment", "inventory"].map(|service| schemas.join(service));
    let versions =
        (1..).map(|version| folders.iter().map(|folder| folder.join(format!("{name}.v{version}.avsc"))).find(|file| file.exists()));
    let newest = versions.map_while(|file| file).last().unwrap_or_else(|| panic!("no schema of {name}"));
    serde_json::from_str(&fs::read_to_string(newest).expect("a readable file")).expect("JSON")
}

/// A Python that has fastavro: a venv under the target folder, made by whoever needs it first.
fn python() -> PathBuf {
    const FASTAVRO: &str = "fastavro==1.13.1";
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fastavro");
    let python = venv.join("bin/python");
    let has_it = Command::new(&python).args(["-c", "import fastavro"]).stderr(Stdio::null()).status();
    if !has_it.is_ok_and(|status| status.success()) {
        done("python3 -m venv", Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv).output());
        done("pip install", Command::new(&python).args(["-m", "pip", "install", "--quiet", FASTAVRO]).output());
    }
    python
}

fn done(what: &str, output: std::io::Result<Output>) -> Output {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(output.status.success(), "{what}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output
}
