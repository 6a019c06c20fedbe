//! Rules between the layers, checked in the source files.

use std::path::{Path, PathBuf};

use orderctl::system::Service;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files with an extension under a folder, with their texts.
fn files(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let entries =
        std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut found = Vec::new();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            let text = std::fs::read_to_string(&path).expect("a readable file");
            found.push((path, text));
        }
    }
    found.sort();
    found
}

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    files(folder, "rs")
}

/// The first line that is code and names one of the words.
fn first_mention(text: &str, words: &[&str]) -> Option<String> {
    let code = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let mut lines = code.filter(|(_, line)| {
        let tokens: Vec<&str> =
            line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
        tokens.iter().any(|token| words.contains(token))
    });
    lines.next().map(|(nth, line)| format!("line {}: {}", nth + 1, line.trim()))
}

#[test]
fn a_domain_does_no_io_and_reads_no_clock_no_random_number_and_no_configuration() {
    const IO: [&str; 8] = ["sqlx", "rdkafka", "tokio", "axum", "reqwest", "fs", "net", "thread"];
    const CLOCK: [&str; 4] = ["chrono", "Utc", "Instant", "SystemTime"];
    const CHANCE: [&str; 7] =
        ["fastrand", "rand", "new_v4", "new_v7", "now_v7", "HashMap", "HashSet"];
    const CONFIGURATION: [&str; 5] = ["env", "clap", "OnceLock", "LazyLock", "thread_local"];
    let words = [IO.as_slice(), &CLOCK, &CHANCE, &CONFIGURATION].concat();
    for service in Service::all().map(Service::name) {
        let files = sources(&root().join("services").join(service).join("src/domain"));
        assert!(files.len() >= 3, "{service} has {} files in its domain", files.len());
        for (path, text) in files {
            assert_eq!(first_mention(&text, &words), None, "{}", path.display());
        }
    }
}

#[test]
fn a_domain_uses_only_the_model_of_the_toolkit() {
    const CARRIERS: [&str; 8] =
        ["wire", "rows", "kafka", "database", "runtime", "http", "store", "config"];
    for service in Service::all().map(Service::name) {
        for (path, text) in sources(&root().join("services").join(service).join("src/domain")) {
            let uses: String = text
                .lines()
                .filter(|line| line.trim_start().starts_with("use "))
                .collect::<Vec<_>>()
                .join("\n");
            assert_eq!(first_mention(&uses, &CARRIERS), None, "{}", path.display());
        }
    }
}

#[test]
fn a_forbidden_word_is_found_in_code_and_not_in_a_comment() {
    assert_eq!(
        first_mention("//! no tokio here\nuse std::time::Instant;", &["tokio", "Instant"])
            .as_deref(),
        Some("line 2: use std::time::Instant;")
    );
    assert_eq!(first_mention("let instant = 1;", &["Instant"]), None);
}

#[test]
fn the_toolkit_imports_nothing_of_the_shop() {
    const SHOP: [&str; 6] = ["contracts", "order", "payment", "OrderId", "PaymentCompleted", "Sku"];
    for toolkit in ["reel-core", "reel", "reel-http"] {
        for (path, text) in sources(&root().join("crates").join(toolkit).join("src")) {
            let uses = text.lines().filter(|line| line.trim_start().starts_with("use "));
            let uses = uses.collect::<Vec<_>>().join("\n");
            assert_eq!(first_mention(&uses, &SHOP), None, "{}", path.display());
        }
    }
}

#[test]
fn every_migration_is_embedded() {
    let folders = Service::all().map(Service::name).map(|name| {
        let app = root().join("services").join(name).join("src/app.rs");
        (root().join("migrations").join(name), app)
    });
    let toolkit =
        (root().join("crates/reel/migrations"), root().join("crates/reel/src/migrations.rs"));
    for (folder, embeds) in folders.chain([toolkit]) {
        let text = std::fs::read_to_string(&embeds).expect("a readable file");
        let migrations = files(&folder, "sql");
        assert!(!migrations.is_empty(), "{}", folder.display());
        for (path, _) in migrations {
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            assert!(text.contains(&name), "{} does not embed {name}", embeds.display());
        }
    }
}

/// The warnings and errors that a source file logs: the arguments of each macro call.
fn logged(text: &str) -> Vec<&str> {
    let calls = ["tracing::warn!(", "tracing::error!("]
        .into_iter()
        .flat_map(|call| text.match_indices(call));
    calls.map(|(start, _)| text[start..].split(");").next().unwrap_or_default()).collect()
}

#[test]
fn every_warning_and_error_has_a_code_that_the_operators_page_explains() {
    let page = root().join("docs/operations.md");
    let page = std::fs::read_to_string(page).expect("a readable file");
    for folder in ["crates", "services"] {
        for (path, text) in sources(&root().join(folder)) {
            for call in logged(&text) {
                let code =
                    call.split_once("event.code = \"").and_then(|(_, rest)| rest.split_once('"'));
                let Some((code, _)) = code else {
                    panic!("{}: no event.code in {call}", path.display())
                };
                assert!(page.contains(&format!("`{code}`")), "docs/operations.md lacks {code}");
            }
        }
    }
}
