//! The verification of a run: what must hold when all is over, by what clients noted.

use std::time::Duration;

use anyhow::{Context, Result};
use contracts::OrderId;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::acknowledgements::Fate;
use super::notes::{Note, Request};
use super::published::Published;
use super::report::Report;
use super::tally::Tally;
use super::{QUIET_WITHIN, Run};
use crate::audit::{Figures, Findings, Kind};
use crate::system::Service;

/// Memory that a process may take at most.
const MAX_MIB: u64 = 256;
const CONCURRENCY: usize = 16;
/// Time for which a request is tried again after the run.
const RESEND_WITHIN: Duration = Duration::from_secs(30);
/// Limit on the time of the audit. It waits for servers, one of which may be down if the run did
/// not settle.
const AUDIT_WITHIN: Duration = Duration::from_secs(120);
/// Fields of an order that never change.
const CONTENT: [&str; 6] = ["order_id", "customer", "lines", "total", "placed_at", "settle_by"];

/// Numbers of acknowledgements of one kind, by what became of them.
#[derive(Default)]
struct Fates {
    kept: usize,
    lost: usize,
    lost_under_way: usize,
}

impl Run {
    /// Prints the report, whether or not the run has settled, and returns whether everything held.
    pub(super) async fn verify(&self, minutes: u32, seed: u64, played: Result<()>) -> Result<bool> {
        let mut report = Report::default();
        report.row("seed", seed.to_string());
        let injected = self.injected.lock().await.clone();
        let tally = Tally { injected: &injected, minutes };
        for (what, value) in tally.rows() {
            report.row(what, value);
        }

        let verified = match played {
            Ok(()) => self.verify_settled(&mut report).await,
            Err(error) => Err(error.context("the run did not settle")),
        };
        if let Err(error) = verified {
            report.wrong(format!("{error:#}"));
        }
        let deaths = self.stage.deaths.lock().await.clone();
        for wrong in self.notes.wrong_answers().into_iter().chain(deaths) {
            report.wrong(wrong);
        }
        let audit = self.audit(&mut report).await;
        for shortfall in tally.shortfalls() {
            report.wrong(shortfall);
        }

        println!("\n{}\n{audit}", report.table());
        Ok(report.holds())
    }

    /// Verifies everything that clients were promised, now that the system is quiet.
    async fn verify_settled(&self, report: &mut Report) -> Result<()> {
        let before = Published::when_quiet(&self.stage.system, &Service::SAGA).await?;
        self.send_again(&before, report).await?;
        self.stage.system.until_quiet(QUIET_WITHIN).await?;
        let after = Published::when_quiet(&self.stage.system, &Service::SAGA).await?;
        self.verify_acknowledgements(&before, &after, report).await?;
        self.verify_processes(report).await
    }

    /// Audits the system, and returns the result for people; empty if it cannot be audited.
    async fn audit(&self, report: &mut Report) -> String {
        match timeout(AUDIT_WITHIN, self.stage.system.sources().audit()).await {
            Ok(Ok(audit)) => {
                let Figures { orders, confirmed, ok, .. } = &audit.figures;
                report.row("orders confirmed", format!("{confirmed} of {orders}"));
                report.require(confirmed * 2 >= *orders, || {
                    "less than half of the orders are confirmed".to_owned()
                });
                report.row("audit", if *ok { "ok" } else { "NOT OK" });
                report.require(*ok, || format!("the audit is not ok: {}", not_ok(&audit.findings)));
                audit.to_string()
            }
            Ok(Err(error)) => {
                report.wrong(format!("there is no audit: {error:#}"));
                String::new()
            }
            Err(_) => {
                report.wrong(format!("the audit has not ended in {AUDIT_WITHIN:?}"));
                String::new()
            }
        }
    }

    /// Sends what got no reply again. It is there once or not at all before, and once afterwards.
    async fn send_again(&self, before: &Published, report: &mut Report) -> Result<()> {
        let without: Vec<(Uuid, Note)> =
            self.notes.all().into_iter().filter(|(_, note)| !note.made.is_given()).collect();
        let there = without.iter().filter(|(id, _)| before.made.contains_key(id)).count();
        report.row(
            "requests without a reply",
            format!(
                "{}, of them {there} there once and {} not",
                without.len(),
                without.len() - there
            ),
        );

        let sent = stream::iter(&without)
            .map(|(_, note)| self.load.send(&note.request, &note.key, RESEND_WITHIN));
        let unanswered = sent
            .buffer_unordered(CONCURRENCY)
            .filter(|reply| std::future::ready(reply.is_none()))
            .count()
            .await;
        report.require(unanswered == 0, || {
            format!("{unanswered} requests were not acknowledged when they were sent again")
        });

        Ok(())
    }

    /// Verifies that what was acknowledged is there, that it is there once, and that nothing else
    /// is.
    async fn verify_acknowledgements(
        &self,
        before: &Published,
        after: &Published,
        report: &mut Report,
    ) -> Result<()> {
        let notes = self.notes.all();
        for (id, count) in &after.made {
            report.require(*count == 1, || format!("{id} was made {count} times"));
            report.require(notes.contains_key(id), || {
                format!("{id} is there, and nobody asked for it")
            });
        }

        report.require(before.made.keys().all(|id| after.made.contains_key(id)), || {
            "a topic lost what it held".to_owned()
        });

        let [mut made, mut cancels, mut confirmed] =
            [Fates::default(), Fates::default(), Fates::default()];
        for (id, note) in &notes {
            let is_there = after.made.contains_key(id);
            let (request, key) = (&note.request, &note.key);
            made.count(note.made.fate(is_there), report, || {
                format!("{id} was acknowledged and is gone: {request:?} under {key}")
            });
            if is_there {
                let fate = note.cancelled.fate(after.cancelled.contains_key(id));
                cancels.count(fate, report, || {
                    format!("the cancel of {id} was acknowledged and is gone")
                });
                let fate = note.confirmed.fate(after.confirmed.contains_key(id));
                confirmed.count(fate, report, || {
                    format!("{id} was too late to cancel, since confirmed, and is not confirmed")
                });
            }
        }

        report.row("requests acknowledged and there", made.kept.to_string());
        report.row("cancels acknowledged and there", cancels.kept.to_string());
        report.row("cancels too late, and confirmed", confirmed.kept.to_string());
        let lost = |fates: &Fates| fates.lost + fates.lost_under_way;
        let under_way: usize =
            [&made, &cancels, &confirmed].iter().map(|fates| fates.lost_under_way).sum();
        let (requests, cancels, confirmed) = (lost(&made), lost(&cancels), lost(&confirmed));
        let words = format!(
            "{requests} requests, {cancels} cancels, {confirmed} confirmed; \
             acknowledged while it was stopped: {under_way}"
        );
        report.row("lost_with_the_database", words);

        let orders = notes.iter().filter(|(id, note)| {
            matches!(note.request, Request::Order { .. }) && after.made.contains_key(id)
        });
        let verified = stream::iter(orders)
            .map(|(id, note)| self.verify_order(*id, note))
            .buffer_unordered(CONCURRENCY);
        for wrong in verified.try_collect::<Vec<_>>().await?.into_iter().flatten() {
            report.wrong(wrong);
        }

        Ok(())
    }

    /// Verifies that an order's content is what was acknowledged, and that its status agrees with
    /// what clients were answered. Returns what is wrong with it.
    async fn verify_order(&self, id: Uuid, note: &Note) -> Result<Option<String>> {
        let order = self.stage.system.client().order(OrderId::from(id)).await?;
        let shown = order
            .success()
            .with_context(|| format!("order {id} is in its topic and cannot be shown"))?;
        let Some(acknowledged) = &note.body else { return Ok(None) };
        let differs = CONTENT.iter().find(|field| shown[**field] != acknowledged[**field]);
        if let Some(field) = differs {
            return Ok(Some(format!(
                "order {id} was acknowledged as {acknowledged} and is {shown}: {field} differs"
            )));
        }

        let status = &shown["status"];
        let broken = |fate: Fate| fate == Fate::Broken;
        if broken(note.cancelled.fate(*status == "cancelled")) {
            return Ok(Some(format!("order {id}: its cancel was acknowledged and it is {status}")));
        }

        Ok(broken(note.confirmed.fate(*status == "confirmed")).then(|| {
            format!("order {id}: its client was told that it is confirmed, and it is {status}")
        }))
    }

    /// Verifies that every replica is ready, has stopped no lane, and took little memory.
    async fn verify_processes(&self, report: &mut Report) -> Result<()> {
        for member in self.stage.members() {
            let url = member.replica.lock().await.url().to_owned();
            let health: Value = reqwest::get(format!("{url}/health/ready")).await?.json().await?;
            let stopped =
                health["lanes"]["stopped"].as_object().is_none_or(|stopped| !stopped.is_empty());
            report.require(!stopped && health["ready"] == true, || {
                format!("{}: {health}", member.name)
            });
        }

        let memory = self.memory.lock().await;
        let most = memory.values().max().copied().unwrap_or(0) / 1024;
        let each: Vec<String> =
            memory.iter().map(|(name, kilobytes)| format!("{name} {}", kilobytes / 1024)).collect();
        report.row("most memory of a process (MiB)", format!("{most} ({})", each.join(", ")));
        report
            .require(most < MAX_MIB, || format!("a process took {most} MiB, more than {MAX_MIB}"));

        Ok(())
    }
}

impl Fates {
    fn count(&mut self, fate: Fate, report: &mut Report, otherwise: impl FnOnce() -> String) {
        match fate {
            Fate::Unacknowledged => {}
            Fate::Kept => self.kept += 1,
            Fate::Lost => self.lost += 1,
            Fate::LostUnderWay => self.lost_under_way += 1,
            Fate::Broken => report.wrong(otherwise()),
        }
    }
}

/// Writes what an audit found wrong in one line.
fn not_ok(findings: &Findings) -> String {
    let counts = Kind::WRONG.map(|kind| (kind, findings.total(kind)));
    let found: Vec<String> = counts
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    found.join(", ")
}
