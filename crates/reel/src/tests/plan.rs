//! The plans of statements, for the tests beside each table's statements.

use sqlx::{AssertSqlSafe, Row};

use super::till::Fixture;

/// The generic plan of a statement, which does not depend on the tables being empty here.
pub(crate) async fn plan(fixture: &Fixture, sql: &str) -> String {
    let mut connection = fixture.connection().await;
    let count = (1..=20).filter(|n| sql.contains(&format!("${n}"))).max().unwrap_or(0);
    let nulls =
        if count == 0 { String::new() } else { format!("({})", vec!["null"; count].join(", ")) };

    let prepare = format!("set plan_cache_mode = force_generic_plan; prepare checked as {sql}");
    sqlx::raw_sql(AssertSqlSafe(prepare)).execute(&mut connection).await.expect("prepare");
    let explain = sqlx::raw_sql(AssertSqlSafe(format!("explain execute checked{nulls}")));
    let rows = explain.fetch_all(&mut connection).await.expect("explain");
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

/// Panics if the plan of a statement does not look up rows by an index: to scan all of the index is
/// no better than to scan the table.
pub(crate) async fn uses_index(sql: &str, index: &str) {
    let fixture = Fixture::closed("plan").await;
    let plan = plan(&fixture, sql).await;
    assert!(looks_up(&plan, index), "{index} is not used to look rows up:\n{plan}\n{sql}");
}

/// Whether a plan has a scan of an index with a condition.
fn looks_up(plan: &str, index: &str) -> bool {
    let lines: Vec<&str> = plan.lines().collect();
    let scans = lines.iter().enumerate().filter(|(_, line)| line.contains(index));
    scans.into_iter().any(|(nth, _)| {
        let of_scan = lines[nth + 1..].iter().take_while(|line| !line.contains("->"));
        of_scan.into_iter().any(|line| line.contains("Index Cond"))
    })
}

#[test]
fn a_scan_of_a_whole_index_looks_nothing_up() {
    let whole = "Index Scan using heads_pkey on heads\n  Filter: (next_seq > 1)";
    assert!(!looks_up(whole, "heads_pkey"));
    let one = "Nested Loop\n  ->  Index Scan using heads_pkey on heads\n  \
               Index Cond: (partition = 1)";
    assert!(looks_up(one, "heads_pkey"));
    assert!(!looks_up(one, "lanes_pkey"));
}
