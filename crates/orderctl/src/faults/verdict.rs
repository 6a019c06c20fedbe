//! What must hold when all is over, against what clients noted.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use anyhow::{Context, Result};
use contracts::OrderId;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use uuid::Uuid;

use super::notes::{Note, Request};
use super::published::Published;
use super::{QUIET_WITHIN, Run};
use crate::system::Service;

/// The most that a process may take.
const MOST_MIB: u64 = 256;
const AT_ONCE: usize = 16;
const SOON: Duration = Duration::from_secs(30);
/// What an order is, whatever becomes of it.
const CONTENT: [&str; 6] = ["order_id", "customer", "lines", "total", "placed_at", "settle_by"];

/// What was found.
#[derive(Default)]
struct Verdict {
    rows: Vec<(&'static str, String)>,
    wrong: Vec<String>,
}

impl Run {
    /// Prints the table; whether all of it held.
    pub(super) async fn judge(&self, seed: u64) -> Result<bool> {
        let mut verdict = Verdict::default();
        verdict.row("seed", seed.to_string());
        self.count_faults(&mut verdict).await;
        let before = Published::when_quiet(&self.stage.system, &Service::ALL).await?;
        self.send_again(&before, &mut verdict).await?;
        self.stage.system.until_quiet(QUIET_WITHIN).await?;
        let after = Published::when_quiet(&self.stage.system, &Service::ALL).await?;
        self.judge_promises(&before, &after, &mut verdict).await?;
        let audit = self.stage.system.places().audit().await?;
        let figures = &audit.figures;
        verdict.row("orders confirmed", format!("{} of {}", figures.confirmed, figures.orders));
        verdict.must(figures.confirmed * 2 >= figures.orders, || "less than half of the orders are confirmed".to_owned());
        verdict.row("audit", if figures.ok { "ok" } else { "NOT OK" });
        verdict.must(figures.ok, || "the audit is not ok".to_owned());
        self.judge_processes(&mut verdict).await?;
        println!("\n{}\n{audit}", verdict.table());
        Ok(verdict.wrong.is_empty())
    }

    async fn count_faults(&self, verdict: &mut Verdict) {
        let struck = self.struck.lock().await;
        let mut kinds: BTreeMap<&'static str, usize> = BTreeMap::new();
        for fault in struck.iter() {
            *kinds.entry(fault.kind).or_default() += 1;
        }
        for (kind, count) in kinds {
            verdict.row(kind, count.to_string());
        }
        let at_work = struck.iter().filter(|fault| fault.had_work).count();
        verdict.row("faults, and those with work in hand", format!("{}, {at_work}", struck.len()));
        verdict.must(at_work * 10 >= struck.len() * 8, || "less than 8 of 10 faults met a target with work in hand".to_owned());
    }

    /// What got no reply is there once or not at all; sent again, it is there once.
    async fn send_again(&self, before: &Published, verdict: &mut Verdict) -> Result<()> {
        let without: Vec<(Uuid, Note)> = self.notes.all().into_iter().filter(|(_, note)| note.reply.is_none()).collect();
        let there = without.iter().filter(|(id, _)| before.made.contains_key(id)).count();
        verdict.row("requests without a reply", format!("{}, of them {there} there once and {} not", without.len(), without.len() - there));
        let sent = stream::iter(&without).map(|(_, note)| self.crowd.send(&note.request, &note.key, SOON));
        let unanswered = sent.buffer_unordered(AT_ONCE).filter(|reply| std::future::ready(reply.is_none())).count().await;
        verdict.must(unanswered == 0, || format!("{unanswered} requests were not acknowledged when they were sent again"));
        Ok(())
    }

    async fn judge_promises(&self, before: &Published, after: &Published, verdict: &mut Verdict) -> Result<()> {
        let notes = self.notes.all();
        for wrong in self.notes.all_wrong() {
            verdict.wrong.push(wrong);
        }
        for (id, count) in &after.made {
            verdict.must(*count == 1, || format!("{id} was made {count} times"));
            verdict.must(notes.contains_key(id), || format!("{id} is there, and nobody asked for it"));
        }
        verdict.must(before.made.keys().all(|id| after.made.contains_key(id)), || "a topic lost what it held".to_owned());
        let (mut kept, mut lost, mut cancels, mut cancels_lost) = (0, 0, 0, 0);
        for (id, note) in &notes {
            match (after.made.contains_key(id), note.may_be_lost()) {
                (true, _) => kept += 1,
                (false, true) => lost += 1,
                (false, false) => verdict.wrong.push(format!("{id} was acknowledged and is gone: {:?} under {}", note.request, note.key)),
            }
            if note.cancelled.is_some() && after.made.contains_key(id) {
                match (after.cancelled.contains_key(id), note.cancel_may_be_lost()) {
                    (true, _) => cancels += 1,
                    (false, true) => cancels_lost += 1,
                    (false, false) => verdict.wrong.push(format!("the cancel of {id} was acknowledged and is gone")),
                }
            }
        }
        verdict.row("requests acknowledged and there", kept.to_string());
        verdict.row("cancels acknowledged and there", cancels.to_string());
        verdict.row("lost_with_the_database", format!("{lost} requests, {cancels_lost} cancels"));
        let orders = notes.iter().filter(|(id, note)| matches!(note.request, Request::Order { .. }) && after.made.contains_key(id));
        let judged = stream::iter(orders).map(|(id, note)| self.judge_order(*id, note)).buffer_unordered(AT_ONCE);
        verdict.wrong.extend(judged.try_collect::<Vec<_>>().await?.into_iter().flatten());
        Ok(())
    }

    /// Its content is what was acknowledged. Says what is wrong with it.
    async fn judge_order(&self, id: Uuid, note: &Note) -> Result<Option<String>> {
        let order = self.stage.system.client().order(OrderId::from(id)).await?;
        let shown = order.success().with_context(|| format!("order {id} is in its topic and cannot be shown"))?;
        let Some(reply) = &note.reply else { return Ok(None) };
        let differs = CONTENT.iter().find(|field| shown[**field] != reply.said[**field]);
        if let Some(field) = differs {
            return Ok(Some(format!("order {id} was acknowledged as {} and is {shown}: {field} differs", reply.said)));
        }
        let cancelled = note.cancelled.is_some() && !note.cancel_may_be_lost();
        let is_cancelled = shown["status"] == "cancelled";
        Ok((cancelled && !is_cancelled).then(|| format!("order {id}: its cancel was acknowledged and it is {}", shown["status"])))
    }

    async fn judge_processes(&self, verdict: &mut Verdict) -> Result<()> {
        verdict.wrong.extend(self.stage.deaths.lock().await.iter().cloned());
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

impl Verdict {
    fn row(&mut self, what: &'static str, value: impl Into<String>) {
        self.rows.push((what, value.into()));
    }

    fn must(&mut self, holds: bool, otherwise: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(otherwise());
        }
    }

    fn table(&self) -> String {
        let mut text = String::new();
        for (what, value) in &self.rows {
            let _ = writeln!(text, "{what:<40}{value}");
        }
        let _ = writeln!(text, "{:<40}{}", "verdict", if self.wrong.is_empty() { "everything held" } else { "NOT EVERYTHING HELD" });
        for wrong in &self.wrong {
            let _ = writeln!(text, "  {wrong}");
        }
        text
    }
}
