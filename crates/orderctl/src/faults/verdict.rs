//! What must hold when all is over, against what clients noted.

use std::time::Duration;

use anyhow::{Context, Result};
use contracts::OrderId;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::notes::{Note, Request};
use super::published::Published;
use super::table::Verdict;
use super::tally::Tally;
use super::told::Fate;
use super::{QUIET_WITHIN, Run};
use crate::audit::{Figures, Findings, Kind};
use crate::system::Service;

/// The most that a process may take.
const MOST_MIB: u64 = 256;
const AT_ONCE: usize = 16;
const SOON: Duration = Duration::from_secs(30);
/// How long the audit may take: it waits for servers, of which one may be down if the run did not settle.
const AUDIT_WITHIN: Duration = Duration::from_secs(120);
/// What an order is, whatever becomes of it.
const CONTENT: [&str; 6] = ["order_id", "customer", "lines", "total", "placed_at", "settle_by"];

/// What became of the promises of one kind.
#[derive(Default)]
struct Kept {
    kept: usize,
    lost: usize,
    lost_under_way: usize,
}

impl Run {
    /// Prints the table, whether the run has settled or not; whether all of it held.
    pub(super) async fn judge(&self, minutes: u32, seed: u64, played: Result<()>) -> Result<bool> {
        let mut verdict = Verdict::default();
        verdict.row("seed", seed.to_string());
        let struck = self.struck.lock().await.clone();
        let tally = Tally { struck: &struck, minutes };
        for (what, value) in tally.rows() {
            verdict.row(what, value);
        }
        let judged = match played {
            Ok(()) => self.judge_settled(&mut verdict).await,
            Err(error) => Err(error.context("the run did not settle")),
        };
        if let Err(error) = judged {
            verdict.wrong(format!("{error:#}"));
        }
        let deaths = self.stage.deaths.lock().await.clone();
        for wrong in self.notes.all_wrong().into_iter().chain(deaths) {
            verdict.wrong(wrong);
        }
        let audit = self.audit(&mut verdict).await;
        for lack in tally.lacks() {
            verdict.wrong(lack);
        }
        println!("\n{}\n{audit}", verdict.table());
        Ok(verdict.holds())
    }

    /// All is quiet: every promise can be judged.
    async fn judge_settled(&self, verdict: &mut Verdict) -> Result<()> {
        let before = Published::when_quiet(&self.stage.system, &Service::ALL).await?;
        self.send_again(&before, verdict).await?;
        self.stage.system.until_quiet(QUIET_WITHIN).await?;
        let after = Published::when_quiet(&self.stage.system, &Service::ALL).await?;
        self.judge_promises(&before, &after, verdict).await?;
        self.judge_processes(verdict).await
    }

    /// The audit for people, as far as it can be made.
    async fn audit(&self, verdict: &mut Verdict) -> String {
        match timeout(AUDIT_WITHIN, self.stage.system.places().audit()).await {
            Ok(Ok(audit)) => {
                let Figures { orders, confirmed, ok, .. } = &audit.figures;
                verdict.row("orders confirmed", format!("{confirmed} of {orders}"));
                verdict.must(confirmed * 2 >= *orders, || "less than half of the orders are confirmed".to_owned());
                verdict.row("audit", if *ok { "ok" } else { "NOT OK" });
                verdict.must(*ok, || format!("the audit is not ok: {}", not_ok(&audit.findings)));
                audit.to_string()
            }
            Ok(Err(error)) => {
                verdict.wrong(format!("there is no audit: {error:#}"));
                String::new()
            }
            Err(_) => {
                verdict.wrong(format!("the audit has not ended in {AUDIT_WITHIN:?}"));
                String::new()
            }
        }
    }

    /// What got no reply is there once or not at all; sent again, it is there once.
    async fn send_again(&self, before: &Published, verdict: &mut Verdict) -> Result<()> {
        let without: Vec<(Uuid, Note)> = self.notes.all().into_iter().filter(|(_, note)| !note.made.is_told()).collect();
        let there = without.iter().filter(|(id, _)| before.made.contains_key(id)).count();
        verdict.row("requests without a reply", format!("{}, of them {there} there once and {} not", without.len(), without.len() - there));
        let sent = stream::iter(&without).map(|(_, note)| self.crowd.send(&note.request, &note.key, SOON));
        let unanswered = sent.buffer_unordered(AT_ONCE).filter(|reply| std::future::ready(reply.is_none())).count().await;
        verdict.must(unanswered == 0, || format!("{unanswered} requests were not acknowledged when they were sent again"));
        Ok(())
    }

    async fn judge_promises(&self, before: &Published, after: &Published, verdict: &mut Verdict) -> Result<()> {
        let notes = self.notes.all();
        for (id, count) in &after.made {
            verdict.must(*count == 1, || format!("{id} was made {count} times"));
            verdict.must(notes.contains_key(id), || format!("{id} is there, and nobody asked for it"));
        }
        verdict.must(before.made.keys().all(|id| after.made.contains_key(id)), || "a topic lost what it held".to_owned());
        let [mut made, mut cancels, mut confirmed] = [Kept::default(), Kept::default(), Kept::default()];
        for (id, note) in &notes {
            let is_there = after.made.contains_key(id);
            let (request, key) = (&note.request, &note.key);
            made.count(note.made.fate(is_there), verdict, || format!("{id} was acknowledged and is gone: {request:?} under {key}"));
            if is_there {
                let fate = note.cancelled.fate(after.cancelled.contains_key(id));
                cancels.count(fate, verdict, || format!("the cancel of {id} was acknowledged and is gone"));
                let fate = note.confirmed.fate(after.confirmed.contains_key(id));
                confirmed.count(fate, verdict, || format!("{id} was too late to cancel, since confirmed, and is not confirmed"));
            }
        }
        verdict.row("requests acknowledged and there", made.kept.to_string());
        verdict.row("cancels acknowledged and there", cancels.kept.to_string());
        verdict.row("cancels too late, and confirmed", confirmed.kept.to_string());
        let lost = |kept: &Kept| kept.lost + kept.lost_under_way;
        let under_way: usize = [&made, &cancels, &confirmed].iter().map(|kept| kept.lost_under_way).sum();
        let (requests, cancels, confirmed) = (lost(&made), lost(&cancels), lost(&confirmed));
        let words = format!("{requests} requests, {cancels} cancels, {confirmed} confirmed; told while it was stopped: {under_way}");
        verdict.row("lost_with_the_database", words);
        let orders = notes.iter().filter(|(id, note)| matches!(note.request, Request::Order { .. }) && after.made.contains_key(id));
        let judged = stream::iter(orders).map(|(id, note)| self.judge_order(*id, note)).buffer_unordered(AT_ONCE);
        for wrong in judged.try_collect::<Vec<_>>().await?.into_iter().flatten() {
            verdict.wrong(wrong);
        }
        Ok(())
    }

    /// Its content is what was acknowledged, and its status what clients were told. Says what is wrong with it.
    async fn judge_order(&self, id: Uuid, note: &Note) -> Result<Option<String>> {
        let order = self.stage.system.client().order(OrderId::from(id)).await?;
        let shown = order.success().with_context(|| format!("order {id} is in its topic and cannot be shown"))?;
        let Some(said) = &note.said else { return Ok(None) };
        let differs = CONTENT.iter().find(|field| shown[**field] != said[**field]);
        if let Some(field) = differs {
            return Ok(Some(format!("order {id} was acknowledged as {said} and is {shown}: {field} differs")));
        }
        let status = &shown["status"];
        let broken = |fate: Fate| fate == Fate::Broken;
        if broken(note.cancelled.fate(*status == "cancelled")) {
            return Ok(Some(format!("order {id}: its cancel was acknowledged and it is {status}")));
        }
        Ok(broken(note.confirmed.fate(*status == "confirmed")).then(|| format!("order {id}: it was told to be confirmed and is {status}")))
    }

    async fn judge_processes(&self, verdict: &mut Verdict) -> Result<()> {
        for member in self.stage.members() {
            let url = member.replica.lock().await.url().to_owned();
            let health: Value = reqwest::get(format!("{url}/health/ready")).await?.json().await?;
            let stopped = health["lanes"]["stopped"].as_object().is_none_or(|stopped| !stopped.is_empty());
            verdict.must(!stopped && health["ready"] == true, || format!("{}: {health}", member.name));
        }
        let memory = self.memory.lock().await;
        let most = memory.values().max().copied().unwrap_or(0) / 1024;
        let each: Vec<String> = memory.iter().map(|(name, kilobytes)| format!("{name} {}", kilobytes / 1024)).collect();
        verdict.row("most memory of a process (MiB)", format!("{most} ({})", each.join(", ")));
        verdict.must(most < MOST_MIB, || format!("a process took {most} MiB, more than {MOST_MIB}"));
        Ok(())
    }
}

impl Kept {
    fn count(&mut self, fate: Fate, verdict: &mut Verdict, otherwise: impl FnOnce() -> String) {
        match fate {
            Fate::Untold => {}
            Fate::Kept => self.kept += 1,
            Fate::Lost => self.lost += 1,
            Fate::LostUnderWay => self.lost_under_way += 1,
            Fate::Broken => verdict.wrong(otherwise()),
        }
    }
}

/// What an audit found wrong, in one line.
fn not_ok(findings: &Findings) -> String {
    let counts = Kind::WRONG.map(|kind| (kind, findings.total(kind)));
    let found: Vec<String> = counts.iter().filter(|(_, count)| *count > 0).map(|(kind, count)| format!("{kind} {count}")).collect();
    found.join(", ")
}
