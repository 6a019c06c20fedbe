//! `reel.decided`: the sequence that numbers the steps, and so orders all decisions of a service.

use sqlx::PgConnection;

/// Raises the sequence to `step`, so that later decisions come behind those that were replayed.
pub(crate) async fn raise(connection: &mut PgConnection, step: i64) -> sqlx::Result<()> {
    // Lanes are replayed at the same time: without the lock one of them could take it back.
    let lock = "select pg_advisory_xact_lock(hashtext('reel.decided'))";
    sqlx::query(lock).execute(&mut *connection).await?;

    let raise = "select setval('reel.decided',
        greatest($1, (select last_value from reel.decided)))";
    sqlx::query(raise).bind(step).execute(connection).await?;
    Ok(())
}
