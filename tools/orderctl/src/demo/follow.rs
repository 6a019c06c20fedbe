//! The progress of the demo: a bar on a terminal, a line every few seconds elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::system::{Progress, View};

const POLL_INTERVAL: Duration = Duration::from_millis(250);
const LINE_INTERVAL: Duration = Duration::from_secs(3);

/// Writes the progress of the demo to stderr.
pub(super) struct Follow {
    bar: ProgressBar,
    orders: u64,
    on_terminal: bool,
}

impl Follow {
    pub(super) fn new(orders: u64) -> Self {
        let on_terminal = io::stderr().is_terminal();
        let target =
            if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style =
            ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} orders ended, {msg}");
        let bar = ProgressBar::with_draw_target(Some(orders), target)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, orders, on_terminal }
    }

    /// Writes that something happened.
    pub(super) fn note(&self, what: &str) {
        if self.on_terminal {
            self.bar.println(format!("demo: {what}"));
        } else {
            super::log(what);
        }
    }

    /// Polls the databases and shows the progress; returns only if a database cannot be read.
    pub(super) async fn show(&self, view: &View) -> anyhow::Error {
        let mut written_at = Instant::now();
        loop {
            let progress = match view.progress().await {
                Ok(progress) => progress,
                Err(error) => return error,
            };
            let Progress { open, confirmed, cancelled, compensating, .. } = progress;
            let ended = u64::try_from(confirmed + cancelled - compensating).unwrap_or(0);
            let rest = format!("{open} open, {compensating} compensating");
            self.bar.set_position(ended);
            self.bar.set_message(rest.clone());
            if !self.on_terminal && written_at.elapsed() >= LINE_INTERVAL {
                super::log(&format!("{ended}/{} orders ended, {rest}", self.orders));
                written_at = Instant::now();
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
