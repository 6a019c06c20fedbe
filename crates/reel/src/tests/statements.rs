//! Statements that matter for speed use their index.

use sqlx::{AssertSqlSafe, Row};

use super::till::{Account, Fixture};
use crate::database::Writes;
use crate::outbox::{ADVANCE_CURSOR, BACKLOG, NUMBER, READ};
use crate::step::{ADVANCE, Record};

/// The generic plan of a statement in a session of ours, though the tables here are empty.
async fn plan(fixture: &Fixture, sql: &str) -> String {
    let mut connection = fixture.connection().await;
    let count = (1..=20).filter(|n| sql.contains(&format!("${n}"))).max().unwrap_or(0);
    let nulls = if count == 0 { String::new() } else { format!("({})", vec!["null"; count].join(", ")) };
    let prepare = format!("set plan_cache_mode = force_generic_plan; prepare asked as {sql}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.expect("prepare");
    let explain = sqlx::raw_sql(AssertSqlSafe(format!("explain execute asked{nulls}")));
    let rows = explain.fetch_all(&mut connection).await.expect("explain");
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn what_is_due_is_found_without_looking_at_what_is_not() {
    let fixture = Fixture::closed("due").await;
    let plan = plan(&fixture, crate::deadlines::DUE).await;
    let condition = plan.lines().find(|line| line.contains("Index Cond")).unwrap_or_default();
    assert!(condition.contains("due_at <="), "the time is no condition of the index:\n{plan}");
}

#[tokio::test]
async fn all_that_a_step_writes_is_found_by_key_in_one_statement() {
    let fixture = Fixture::closed("writes").await;
    let mut writes = Writes::default();
    for statement in [Account::TABLE.insert(), Account::TABLE.update()] {
        let columns = writes.add(&statement);
        columns.push([String::new()]);
        columns.push([0_i64]);
    }
    let plan = plan(&fixture, &writes.then(NUMBER, |_| ()).0).await;
    for scan in ["Index Scan using accounts_pkey", "heads_pkey"] {
        assert!(plan.contains(scan), "{scan} is missing:\n{plan}");
    }
    // Whether all lanes are open is seen from all heads, of which there are as many as partitions.
    assert!(!plan.contains("Seq Scan on accounts") && !plan.contains("Merge Join"), "{plan}");
}

#[tokio::test]
async fn statements_that_matter_use_their_index() {
    let fixture = Fixture::closed("plans").await;
    for (statement, index) in [
        (READ, "outbox_pkey"),
        (crate::deadlines::DUE, "deadlines_due"),
        (ADVANCE, "positions_pkey"),
        (ADVANCE_CURSOR, "cursors_pkey"),
        (BACKLOG, "outbox_pkey"),
        (&Writes::default().then(NUMBER, |_| ()).0, "heads_pkey"),
        (&Account::TABLE.select_for_update(), "accounts_pkey"),
        (&Account::TABLE.update(), "accounts_pkey"),
    ] {
        let plan = plan(&fixture, statement).await;
        assert!(plan.contains(index), "{index} is not used:\n{plan}\n{statement}");
    }
}
