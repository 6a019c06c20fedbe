//! Shows how far the demo has come: a bar on a terminal, a line now and then elsewhere.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::{Instant, sleep};

use crate::system::{Progress, View};

const LOOK: Duration = Duration::from_millis(250);
const SAY: Duration = Duration::from_secs(3);

/// Shows on stderr how far the demo has come.
pub(super) struct Follow {
    bar: ProgressBar,
    orders: u64,
    on_terminal: bool,
}

impl Follow {
    pub(super) fn new(orders: u64) -> Self {
        let on_terminal = io::stderr().is_terminal();
        let target = if on_terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template("{elapsed:>4} {wide_bar} {pos}/{len} orders ended, {msg}");
        let bar = ProgressBar::with_draw_target(Some(orders), target).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, orders, on_terminal }
    }

    /// Says something that happened.
    pub(super) fn tell(&self, what: &str) {
        if self.on_terminal {
            self.bar.println(format!("demo: {what}"));
        } else {
            super::say(what);
        }
    }

    /// Looks at the databases again and again; ends only if they do not answer.
    pub(super) async fn show(&self, view: &View) -> anyhow::Error {
        let mut said_at = Instant::now();
        loop {
            let progress = match view.progress().await {
                Ok(progress) => progress,
                Err(error) => return error,
            };
            let Progress { open, confirmed, cancelled, undoing, .. } = progress;
            let ended = u64::try_from(confirmed + cancelled - undoing).unwrap_or(0);
            let rest = format!("{open} open, {undoing} undoing");
            self.bar.set_position(ended);
            self.bar.set_message(rest.clone());
            if !self.on_terminal && said_at.elapsed() >= SAY {
                super::say(&format!("{ended}/{} orders ended, {rest}", self.orders));
                said_at = Instant::now();
            }
            sleep(LOOK).await;
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
