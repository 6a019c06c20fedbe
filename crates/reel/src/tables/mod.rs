//! The toolkit's tables in the schema `reel`, a module each: the only SQL on them.
//!
//! Every statement that a lane's owner writes carries its fencing token and database epoch, and
//! changes nothing if either is no longer the database's.

pub(crate) mod cursors;
pub(crate) mod dead_letters;
pub(crate) mod deadlines;
pub(crate) mod decided;
pub(crate) mod epoch;
pub(crate) mod heads;
pub(crate) mod leases;
pub(crate) mod outbox;
pub(crate) mod positions;

use std::sync::Arc;

use sqlx::{Connection as _, PgConnection};

use crate::model::Partitions;

/// The rows of a service's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LaneRows {
    /// There is a row for each lane.
    Complete,
    /// The database was created for another number of partitions.
    OtherCount(i64),
}

/// Creates the rows of lanes that are missing, unless the database was created for another number
/// of partitions.
pub(crate) async fn create_lane_rows(
    connection: &mut PgConnection,
    reader: &str,
    inputs: &[Arc<str>],
    partitions: Partitions,
) -> sqlx::Result<LaneRows> {
    let mut transaction = connection.begin().await?;
    let count = heads::count(&mut transaction).await?;
    if count != 0 && count != i64::from(partitions.count()) {
        return Ok(LaneRows::OtherCount(count));
    }

    leases::create(&mut transaction, partitions).await?;
    heads::create(&mut transaction, partitions).await?;
    cursors::create(&mut transaction, partitions).await?;
    positions::create(&mut transaction, reader, inputs, partitions).await?;
    transaction.commit().await?;
    Ok(LaneRows::Complete)
}
