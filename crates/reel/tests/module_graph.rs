//! The dependency order of modules: each uses only those before it, so there are no cycles.
//!
//! `cargo test -p reel --test module_graph -- --nocapture` prints the graph.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The modules of `reel-core`, each of which may use those before it.
const CORE: [&str; 5] = ["time", "wire", "model", "log", "testing"];

/// The modules of `reel`, each of which may use those before it and all of `reel-core`.
const ENGINE: [&str; 19] = [
    "failpoints",
    "pauses",
    "from_row",
    "database",
    "kafka",
    "lane",
    "tables",
    "inspect",
    "rows",
    "status",
    "admission",
    "notify",
    "relay",
    "replica",
    "step",
    "lanes",
    "projection",
    "migrations",
    "runtime",
];

/// Names that `reel` re-exports at its root and whose modules are in other crates.
const ELSEWHERE: [&str; 6] = ["http", "log", "model", "testing", "time", "wire"];

type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn no_module_uses_one_that_comes_after_it() {
    for (name, order, elsewhere) in
        [("reel-core", &CORE[..], &[][..]), ("reel", &ENGINE[..], &ELSEWHERE[..])]
    {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name).join("src");
        let graph = graph(&source);
        println!("{name}");
        for module in order.iter().rev() {
            let uses = graph.get(*module).cloned().unwrap_or_default();
            println!("  {module} -> {}", Vec::from_iter(uses).join(" "));
        }

        let found: BTreeSet<&str> = graph.keys().map(String::as_str).collect();
        let listed: BTreeSet<&str> = order.iter().copied().collect();
        assert_eq!(found, listed, "every module of {name} has a place in the order");
        for (module, uses) in &graph {
            for used in uses.iter().filter(|used| !elsewhere.contains(&used.as_str())) {
                assert!(
                    place(order, used) < place(order, module),
                    "{name}: {module} uses {used}, which comes after it"
                );
            }
        }
    }
}

#[test]
fn uses_are_found_in_code_however_they_are_written() {
    let code =
        "use crate::a::B;\nuse crate::{c, d::{E, f}};\n// crate::not\nlet x = crate::g::h();";
    assert_eq!(Vec::from_iter(uses(code)), ["a", "c", "d", "g"]);
}

fn place(order: &[&str], module: &str) -> usize {
    let place = order.iter().position(|other| *other == module);
    place.unwrap_or_else(|| panic!("{module} is not in the order of modules"))
}

/// The modules at the root of a crate, and which of the others each uses.
fn graph(source: &Path) -> Graph {
    let mut graph = Graph::new();
    for (module, code) in modules(source) {
        let mut uses = uses(&code);
        uses.remove(&module);
        graph.entry(module).or_default().extend(uses);
    }
    graph
}

/// The code of every file, with its module at the root. Leaves out `lib.rs` and tests.
fn modules(source: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![source.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().expect("a readable folder");
        for path in entries.map(|entry| entry.expect("an entry").path()) {
            let relative = path.strip_prefix(source).expect("a path inside the source folder");
            let first = relative.iter().next().and_then(|name| name.to_str()).expect("a name");
            let module = first.trim_end_matches(".rs");
            if ["lib", "tests"].contains(&module) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                let code = std::fs::read_to_string(&path).expect("a readable file");
                // Unit tests may use any fixture, also of a later module.
                let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
                found.push((module.to_owned(), code.to_owned()));
            }
        }
    }

    found
}

/// The modules named after `crate::` in code.
fn uses(code: &str) -> BTreeSet<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    // A macro's expansion counts as a use of the module that calls the macro.
    let code = lines.collect::<Vec<_>>().join("\n").replace("$crate::", "");
    let mut used = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(group) => used.extend(names_in(group)),
            None => used.extend([word(rest)]),
        }
    }
    used.retain(|name| name.starts_with(|first: char| first.is_ascii_lowercase()));
    used
}

/// The first word of each item of a group, up to its closing brace.
fn names_in(group: &str) -> Vec<String> {
    let (mut depth, mut names, mut item) = (0_usize, Vec::new(), String::new());
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
            _ if depth == 0 => item.push(letter),
            _ => {}
        }
    }
    names.push(word(item.trim()));
    names.into_iter().filter(|name| !name.is_empty()).collect()
}

fn word(text: &str) -> String {
    text.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect()
}
