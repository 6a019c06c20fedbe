//! `reel.server_run` and `reel.run()`: the database epoch.

use sqlx::PgConnection;

use crate::database::DatabaseEpoch;

/// Returns the epoch that the database is in. The first session to find the uuid missing creates
/// it.
pub(crate) async fn current(connection: &mut PgConnection) -> sqlx::Result<DatabaseEpoch> {
    loop {
        let epoch: Option<String> =
            sqlx::query_scalar("select reel.run()").fetch_one(&mut *connection).await?;
        if let Some(epoch) = epoch {
            return Ok(DatabaseEpoch::new(epoch));
        }

        let create = "insert into reel.server_run (id) values (gen_random_uuid())
            on conflict do nothing";
        sqlx::query(create).execute(&mut *connection).await?;
    }
}
