//! `reel.lanes` and `reel.replicas`: who should work on a lane, on the database's clock.
//! Correctness never rests on leases: every write of a lane's positions or cursor is fenced.

use std::time::Duration;

use sqlx::postgres::types::PgInterval;
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use super::{cursors, epoch, heads, positions};
use crate::database::DatabaseEpoch;
use crate::lane::Lease;
use crate::model::{Partition, Partitions};

/// This process as the lease tables know it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) instance: String,
    /// New at each start: it distinguishes two processes of one instance id.
    pub(crate) incarnation: Uuid,
    /// Duration of its leases.
    pub(crate) lease: Duration,
}

/// What a member sees of the lanes and of its peers.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) database_epoch: DatabaseEpoch,
    pub(crate) owners: Vec<LaneOwner>,
    /// The instances that live, in order, this one among them.
    pub(crate) live: Vec<LiveReplica>,
    /// Whether every lane was opened for this database epoch.
    pub(crate) all_open: bool,
    /// Which of the tokens asked for still hold.
    pub(crate) held: Vec<Uuid>,
}

/// A lane as the lease table shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LaneOwner {
    pub(crate) partition: Partition,
    /// The instance that owns it, if its lease runs and belongs to the database's epoch.
    pub(crate) owner: Option<String>,
}

/// A replica that lives, as the table of replicas shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveReplica {
    pub(crate) instance: String,
    /// For how long Kafka has not answered it; none if it does not say, as an older binary.
    pub(crate) kafka_silent_for: Option<Duration>,
}

/// What became of a renewal.
#[derive(Debug)]
pub(crate) enum Renewed {
    /// The leases run on.
    View(View),
    /// Another process with our instance id started later.
    Superseded,
}

/// Keeps the newer of two incarnations that live.
const RENEW_MEMBER: &str = "
insert into reel.replicas as r (instance_id, incarnation, lease_until, kafka_heard_at)
values ($1, $2, clock_timestamp() + $3, clock_timestamp() - $4)
on conflict (instance_id) do update
set incarnation = case
        when r.incarnation > excluded.incarnation and r.lease_until > clock_timestamp()
        then r.incarnation else excluded.incarnation end,
    lease_until = case
        when r.incarnation > excluded.incarnation and r.lease_until > clock_timestamp()
        then r.lease_until else excluded.lease_until end,
    kafka_heard_at = case
        when r.incarnation > excluded.incarnation and r.lease_until > clock_timestamp()
        then r.kafka_heard_at else excluded.kafka_heard_at end
returning incarnation";

/// Creates the rows that are missing.
pub(super) async fn create(
    connection: &mut PgConnection,
    partitions: Partitions,
) -> sqlx::Result<()> {
    let create = "insert into reel.lanes (partition)
        select generate_series(0, $1 - 1) on conflict do nothing";
    sqlx::query(create).bind(partitions.count()).execute(connection).await?;
    Ok(())
}

impl Member {
    /// Renews this member's lease and those of its lanes, says for how long Kafka has not answered
    /// it, and looks at the others.
    pub(crate) async fn renew(
        &self,
        connection: &mut PgConnection,
        tokens: &[Uuid],
        kafka_silent_for: Duration,
    ) -> sqlx::Result<Renewed> {
        let database_epoch = epoch::current(connection).await?;
        let incarnation: Uuid = sqlx::query_scalar(RENEW_MEMBER)
            .bind(&self.instance)
            .bind(self.incarnation)
            .bind(interval(self.lease))
            .bind(interval(kafka_silent_for))
            .fetch_one(&mut *connection)
            .await?;
        if incarnation != self.incarnation {
            return Ok(Renewed::Superseded);
        }

        let held = self.renew_lanes(connection, tokens).await?;
        let owners = owners(connection).await?;
        let live = live(connection).await?;
        let all_open = heads::all_open(connection).await?;
        Ok(Renewed::View(View { database_epoch, owners, live, all_open, held }))
    }

    /// Renews the leases of lanes; returns the tokens that still hold.
    async fn renew_lanes(
        &self,
        connection: &mut PgConnection,
        tokens: &[Uuid],
    ) -> sqlx::Result<Vec<Uuid>> {
        let renew = "update reel.lanes set lease_until = clock_timestamp() + $2
            where token = any($1) and run = reel.run() returning token";
        sqlx::query_scalar(renew)
            .bind(tokens)
            .bind(interval(self.lease))
            .fetch_all(connection)
            .await
    }

    /// Acquires a lane whose lease is free: sets a new token on its lease, cursor and positions in
    /// one transaction, which waits for a step in flight. Returns false if somebody else was
    /// faster.
    pub(crate) async fn acquire(
        &self,
        connection: &mut PgConnection,
        reader: &str,
        lease: &Lease,
    ) -> sqlx::Result<bool> {
        let mut transaction = connection.begin().await?;
        let acquired = sqlx::query(
            "update reel.lanes
             set token = $2, run = $3, owner = $4, lease_until = clock_timestamp() + $5
             where partition = $1 and reel.run() = $3
               and (owner is null or owner = $4
                   or lease_until < clock_timestamp() or run is distinct from $3)",
        )
        .bind(lease.partition.0)
        .bind(lease.token)
        .bind(lease.database_epoch.as_str())
        .bind(&self.instance)
        .bind(interval(self.lease))
        .execute(&mut *transaction)
        .await?;
        if acquired.rows_affected() == 0 {
            return Ok(false);
        }

        cursors::fence(&mut transaction, lease).await?;
        positions::fence(&mut transaction, reader, lease).await?;
        transaction.commit().await?;
        Ok(true)
    }

    /// Removes this member from the live ones.
    pub(crate) async fn leave(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        sqlx::query("delete from reel.replicas where instance_id = $1 and incarnation = $2")
            .bind(&self.instance)
            .bind(self.incarnation)
            .execute(connection)
            .await?;
        Ok(())
    }
}

fn interval(duration: Duration) -> PgInterval {
    let microseconds = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    PgInterval { months: 0, days: 0, microseconds }
}

/// Gives a lane back, so that others need not wait for its lease to run out.
pub(crate) async fn release(connection: &mut PgConnection, token: Uuid) -> sqlx::Result<()> {
    sqlx::query("update reel.lanes set owner = null, lease_until = null where token = $1")
        .bind(token)
        .execute(connection)
        .await?;
    Ok(())
}

async fn owners(connection: &mut PgConnection) -> sqlx::Result<Vec<LaneOwner>> {
    let owners: Vec<(i32, Option<String>)> = sqlx::query_as(
        "select partition,
             case when lease_until > clock_timestamp() and run = (select reel.run()) then owner end
         from reel.lanes order by partition",
    )
    .fetch_all(connection)
    .await?;
    let owners = owners.into_iter();
    Ok(owners.map(|(lane, owner)| LaneOwner { partition: Partition(lane), owner }).collect())
}

async fn live(connection: &mut PgConnection) -> sqlx::Result<Vec<LiveReplica>> {
    let live: Vec<(String, Option<f64>)> = sqlx::query_as(
        "select instance_id, extract(epoch from clock_timestamp() - kafka_heard_at)::float8
         from reel.replicas where lease_until > clock_timestamp() order by 1",
    )
    .fetch_all(connection)
    .await?;
    let replica = |(instance, seconds): (String, Option<f64>)| {
        // Negative if the clock went back.
        let silent_for = seconds.map(|s| Duration::try_from_secs_f64(s).unwrap_or_default());
        LiveReplica { instance, kafka_silent_for: silent_for }
    };
    Ok(live.into_iter().map(replica).collect())
}
