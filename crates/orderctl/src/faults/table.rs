//! What was found, as a table, and what of it is wrong.

use std::fmt::Write;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    rows: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Verdict {
    pub(super) fn row(&mut self, what: &'static str, value: impl Into<String>) {
        self.rows.push((what, value.into()));
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub(super) fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong(otherwise());
        }
    }

    pub(super) fn holds(&self) -> bool {
        self.wrong.is_empty()
    }

    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        for (what, value) in &self.rows {
            let _ = writeln!(text, "{what:<40}{value}");
        }
        let _ = writeln!(text, "{:<40}{}", "verdict", if self.holds() { "everything held" } else { "NOT EVERYTHING HELD" });
        for wrong in &self.wrong {
            let _ = writeln!(text, "  {wrong}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_stands_below_the_verdict() {
        let mut verdict = Verdict::default();
        verdict.row("seed", "7");
        verdict.must(true, || "no".to_owned());
        assert!(verdict.holds() && verdict.table().ends_with("everything held\n"), "{}", verdict.table());
        verdict.must(false, || "an order is gone".to_owned());
        assert!(!verdict.holds() && verdict.table().ends_with("NOT EVERYTHING HELD\n  an order is gone\n"), "{}", verdict.table());
    }
}
