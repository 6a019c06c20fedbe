//! Leases: who should work on a lane, on the database's clock. Correctness never rests on them: every write of a lane's
//! positions or cursor carries the token of its taking and the server run under which it was taken.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::{Acquire, PgConnection};
use uuid::Uuid;

use super::share::Lease;
use crate::database::{Run, current_run};
use crate::model::{Partition, Partitions};
use crate::outbox::lanes_freed;

/// The right to write a lane's positions and cursor, as long as token and run are those in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) partition: Partition,
    pub(crate) token: Uuid,
    pub(crate) run: Run,
}

/// What a replica sees of the lanes and of its peers.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) run: Run,
    pub(crate) leases: Vec<Lease>,
    pub(crate) live: Vec<String>,
    /// Whether every lane was opened for this run.
    pub(crate) all_open: bool,
    /// Which of the grants held still hold.
    pub(crate) held: Vec<Uuid>,
}

/// This process, as the lease tables know it.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) instance: String,
    pub(crate) incarnation: Uuid,
    pub(crate) lease: Duration,
}

/// Leases cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LeaseError {
    #[error("another process runs as instance {0}, and started later: give each replica an instance id of its own")]
    Superseded(String),
    #[error("the database was made for {was} partitions, and the topics have {now}: a deployment's count of partitions cannot change")]
    PartitionsChanged { was: i64, now: i32 },
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
}

impl Grant {
    /// A new token for a lane, under the run that the server is in. It counts once it was taken.
    pub(crate) fn new(partition: Partition, run: &Run) -> Self {
        Self { partition, token: Uuid::new_v4(), run: run.clone() }
    }
}

impl Identity {
    fn interval(&self) -> PgInterval {
        PgInterval { months: 0, days: 0, microseconds: i64::try_from(self.lease.as_micros()).unwrap_or(i64::MAX) }
    }

    /// Makes the rows of lanes that are not there yet, and compares the count of partitions with the one remembered.
    pub(crate) async fn prepare(
        connection: &mut PgConnection,
        reader: &str,
        inputs: &[Arc<str>],
        partitions: Partitions,
    ) -> Result<(), LeaseError> {
        let mut transaction = connection.begin().await?;
        let was: i64 = sqlx::query_scalar("select count(*) from reel.heads").fetch_one(&mut *transaction).await?;
        if was != 0 && was != i64::from(partitions.count()) {
            return Err(LeaseError::PartitionsChanged { was, now: partitions.count() });
        }
        let inputs: Vec<&str> = inputs.iter().map(AsRef::as_ref).collect();
        for statement in [
            "insert into reel.lanes (partition) select generate_series(0, $1 - 1) on conflict do nothing",
            "insert into reel.heads (partition, next_seq) select generate_series(0, $1 - 1), 0 on conflict do nothing",
            "insert into reel.cursors (partition, seq, \"offset\", generation) select generate_series(0, $1 - 1), 0, 0, -1 on conflict do nothing",
        ] {
            sqlx::query(statement).bind(partitions.count()).execute(&mut *transaction).await?;
        }
        sqlx::query(
            "insert into reel.positions (reader, topic, partition, next_offset, next_seq, generation)
             select $1, topic, partition, 0, 0, -1 from unnest($2::text[]) as topic, generate_series(0, $3 - 1) as partition
             on conflict do nothing",
        )
        .bind(reader)
        .bind(inputs)
        .bind(partitions.count())
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Renews this replica's and its lanes' leases, and looks at the others.
    pub(crate) async fn renew(&self, connection: &mut PgConnection, tokens: &[Uuid]) -> Result<View, LeaseError> {
        let run = current_run(connection).await?;
        let incarnation: Uuid = sqlx::query_scalar(
            "insert into reel.replicas as r (instance_id, incarnation, lease_until) values ($1, $2, clock_timestamp() + $3)
             on conflict (instance_id) do update
             set incarnation = case when r.incarnation > excluded.incarnation and r.lease_until > clock_timestamp()
                     then r.incarnation else excluded.incarnation end,
                 lease_until = case when r.incarnation > excluded.incarnation and r.lease_until > clock_timestamp()
                     then r.lease_until else excluded.lease_until end
             returning incarnation",
        )
        .bind(&self.instance)
        .bind(self.incarnation)
        .bind(self.interval())
        .fetch_one(&mut *connection)
        .await?;
        if incarnation != self.incarnation {
            return Err(LeaseError::Superseded(self.instance.clone()));
        }
        let held: Vec<Uuid> = sqlx::query_scalar(
            "update reel.lanes set lease_until = clock_timestamp() + $2 where token = any($1) and run = reel.run() returning token",
        )
        .bind(tokens)
        .bind(self.interval())
        .fetch_all(&mut *connection)
        .await?;
        let leases: Vec<(i32, Option<String>)> = sqlx::query_as(
            "select partition, case when lease_until > clock_timestamp() and run = (select reel.run()) then owner end
             from reel.lanes order by partition",
        )
        .fetch_all(&mut *connection)
        .await?;
        let live: Vec<String> =
            sqlx::query_scalar("select instance_id from reel.replicas where lease_until > clock_timestamp() order by 1")
                .fetch_all(&mut *connection)
                .await?;
        let all_open: bool =
            sqlx::query_scalar("select coalesce(bool_and(opened_run is not distinct from (select reel.run())), false) from reel.heads")
                .fetch_one(&mut *connection)
                .await?;
        let leases = leases.into_iter().map(|(partition, owner)| Lease { partition: Partition(partition), owner }).collect();
        Ok(View { run, leases, live, all_open, held })
    }

    /// Takes a lane whose lease is free: sets a new token on its lease, cursor and positions in one transaction, which
    /// waits for a step in flight. False where somebody else was faster.
    pub(crate) async fn take(&self, connection: &mut PgConnection, reader: &str, grant: &Grant) -> sqlx::Result<bool> {
        let Grant { partition, token, run } = grant;
        let mut transaction = connection.begin().await?;
        let taken = sqlx::query(
            "update reel.lanes set token = $2, run = $3, owner = $4, lease_until = clock_timestamp() + $5
             where partition = $1 and reel.run() = $3
               and (owner is null or owner = $4 or lease_until < clock_timestamp() or run is distinct from $3)",
        )
        .bind(partition.0)
        .bind(token)
        .bind(run.as_str())
        .bind(&self.instance)
        .bind(self.interval())
        .execute(&mut *transaction)
        .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("update reel.cursors set token = $2, run = $3 where partition = $1")
            .bind(partition.0)
            .bind(token)
            .bind(run.as_str())
            .execute(&mut *transaction)
            .await?;
        sqlx::query("update reel.positions set token = $3, run = $4 where reader = $1 and partition = $2")
            .bind(reader)
            .bind(partition.0)
            .bind(token)
            .bind(run.as_str())
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Gives lanes back, so that others need not wait for the lease.
    pub(crate) async fn release(connection: &mut PgConnection, tokens: &[Uuid]) -> sqlx::Result<()> {
        sqlx::query("update reel.lanes set owner = null, lease_until = null where token = any($1)")
            .bind(tokens)
            .execute(&mut *connection)
            .await?;
        lanes_freed(connection).await
    }

    /// Leaves the circle of replicas.
    pub(crate) async fn leave(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query("delete from reel.replicas where instance_id = $1 and incarnation = $2")
            .bind(&self.instance)
            .bind(self.incarnation)
            .execute(&mut *connection)
            .await?;
        lanes_freed(connection).await
    }
}
