//! The report of a fault run: a table of figures, and what is wrong.

use std::fmt::Write;

/// The figures of a run, and what is wrong with it.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Report {
    pub(super) fn row(&mut self, what: &'static str, value: impl Into<String>) {
        self.rows.push((what, value.into()));
    }

    pub(super) fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    pub(super) fn require(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
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
        let _ = writeln!(
            text,
            "{:<40}{}",
            "verdict",
            if self.holds() { "everything held" } else { "NOT EVERYTHING HELD" }
        );
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
    fn what_is_wrong_is_listed_below_the_verdict() {
        let mut report = Report::default();
        report.row("seed", "7");
        report.require(true, || "no".to_owned());
        assert!(
            report.holds() && report.table().ends_with("everything held\n"),
            "{}",
            report.table()
        );
        report.require(false, || "an order is gone".to_owned());
        assert!(
            !report.holds()
                && report.table().ends_with("NOT EVERYTHING HELD\n  an order is gone\n"),
            "{}",
            report.table()
        );
    }
}
