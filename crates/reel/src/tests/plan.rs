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

/// Panics if the plan of a statement does not use an index.
pub(crate) async fn uses_index(sql: &str, index: &str) {
    let fixture = Fixture::closed("plan").await;
    let plan = plan(&fixture, sql).await;
    assert!(plan.contains(index), "{index} is not used:\n{plan}\n{sql}");
}
