//! What the layers promise each other, read from the source files.

use std::path::{Path, PathBuf};

const SERVICES: [&str; 3] = ["order", "payment", "inventory"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file of a kind under a folder, with its text.
fn files(folder: &Path, extension: &str) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
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
        let tokens: Vec<&str> = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_').collect();
        tokens.iter().any(|token| words.contains(token))
    });
    lines.next().map(|(nth, line)| format!("line {}: {}", nth + 1, line.trim()))
}

#[test]
fn a_domain_does_no_io_and_reads_no_clock_no_random_number_and_no_configuration() {
    const IO: [&str; 8] = ["sqlx", "rdkafka", "tokio", "axum", "reqwest", "fs", "net", "thread"];
    const CLOCK: [&str; 4] = ["chrono", "Utc", "Instant", "SystemTime"];
    const CHANCE: [&str; 7] = ["fastrand", "rand", "new_v4", "new_v7", "now_v7", "HashMap", "HashSet"];
    const CONFIGURATION: [&str; 5] = ["env", "clap", "OnceLock", "LazyLock", "thread_local"];
    let words = [IO.as_slice(), &CLOCK, &CHANCE, &CONFIGURATION].concat();
    for service in SERVICES {
        let files = sources(&root().join("services").join(service).join("src/domain"));
        assert!(files.len() >= 3, "the domain of {service}");
        for (path, text) in files {
            assert_eq!(first_mention(&text, &words), None, "{}", path.display());
        }
    }
}

#[test]
fn a_domain_uses_only_the_model_of_the_toolkit() {
    const CARRIERS: [&str; 6] = ["wire", "step", "runtime", "http", "store", "config"];
    for service in SERVICES {
        for (path, text) in sources(&root().join("services").join(service).join("src/domain")) {
            let uses: String = text.lines().filter(|line| line.trim_start().starts_with("use ")).collect::<Vec<_>>().join("\n");
            assert_eq!(first_mention(&uses, &CARRIERS), None, "{}", path.display());
        }
    }
}

#[test]
fn a_forbidden_word_is_found_in_code_and_not_in_a_comment() {
    assert_eq!(
        first_mention("//! no tokio here\nuse std::time::Instant;", &["tokio", "Instant"]).as_deref(),
        Some("line 2: use std::time::Instant;")
    );
    assert_eq!(first_mention("let instant = 1;", &["Instant"]), None);
}

#[test]
fn the_toolkit_holds_no_word_of_the_shop() {
    const SHOP: [&str; 6] = ["contracts", "order", "payment", "OrderId", "PaymentCompleted", "Sku"];
    for (path, text) in sources(&root().join("crates/reel/src")) {
        let uses: String = text.lines().filter(|line| line.trim_start().starts_with("use ")).collect::<Vec<_>>().join("\n");
        assert_eq!(first_mention(&uses, &SHOP), None, "{}", path.display());
    }
}

#[test]
fn the_toolkits_migrations_are_the_same_files_for_each_service() {
    let read = |service: &str| {
        let of_toolkit = files(&root().join("migrations").join(service), "sql").into_iter();
        let of_toolkit = of_toolkit.filter_map(|(path, text)| Some((path.file_name()?.to_str()?.to_owned(), text)));
        of_toolkit.filter(|(name, _)| name.ends_with("_reel.sql")).collect::<Vec<_>>()
    };
    let first = read(SERVICES[0]);
    assert!(!first.is_empty());
    for service in SERVICES {
        assert!(read(service) == first, "migrations/{service}/*_reel.sql differ from those of {}", SERVICES[0]);
    }
}
