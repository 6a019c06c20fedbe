//! The program as a whole, with so little work that its figures mean nothing.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_small_run_measures_relay_and_step_and_writes_them_down() {
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("bench.json");
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["--only", "relay,step", "--rounds", "1", "--rows", "1000", "--json"])
        .arg(&json)
        .output()
        .expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");

    let report: Value =
        serde_json::from_slice(&std::fs::read(json).expect("it was written")).expect("JSON");
    for part in ["relay", "step"] {
        let figure = &report["parts"][part][0];
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{report}");
        assert!(figure["yardstick"]["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0), "{report}");
    }

    assert!(report["machine"]["cores"].is_u64(), "{report}");
}
