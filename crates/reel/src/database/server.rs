//! What a database must be like, whoever created it.

use sqlx::PgConnection;

/// A database that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServerError {
    /// Keys and reasons are any text: what its encoding lacks could not be stored.
    #[error(
        "it is encoded in {0}, and events hold any text: create one with `create database … \
         encoding 'UTF8' template template0`"
    )]
    Encoding(String),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

const LOOK: &str = "
select pg_encoding_to_char(encoding), datcollversion,
    pg_database_collation_actual_version(oid)
from pg_database where datname = current_database()";

/// Looks at the database before it is used. Returns what an operator should know.
///
/// # Errors
/// If it cannot be used.
pub(crate) async fn look_at_server(
    connection: &mut PgConnection,
) -> Result<Option<String>, ServerError> {
    let (encoding, made_with, has_now): (String, Option<String>, Option<String>) =
        sqlx::query_as(LOOK).fetch_one(connection).await?;
    if encoding != "UTF8" {
        return Err(ServerError::Encoding(encoding));
    }
    let warning = made_with.zip(has_now).filter(|(made_with, has_now)| made_with != has_now);
    Ok(warning.map(|(made_with, has_now)| {
        format!(
            "the database sorts text by version {made_with} of its collation, and the server has \
             {has_now}: indexes on text may miss rows; run `reindex database` and `alter database \
             … refresh collation version`"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::Fixture;

    #[tokio::test]
    async fn a_collation_that_changed_is_told() {
        let fixture = Fixture::closed("collation").await;
        let mut connection = fixture.connection().await;
        assert_eq!(look_at_server(&mut connection).await.expect("usable"), None);
        let older = "update pg_database set datcollversion = '0.1'
            where datname = current_database()
              and pg_database_collation_actual_version(oid) is not null";
        let has_versions = sqlx::query(older).execute(&mut connection).await.expect("updated");
        let told = look_at_server(&mut connection).await.expect("usable");
        assert_eq!(told.is_some(), has_versions.rows_affected() > 0, "{told:?}");
    }
}
