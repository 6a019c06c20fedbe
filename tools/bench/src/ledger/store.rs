//! How notes are stored in Postgres.

use contracts::OrderId;
use reel::rows::{ArrayParams, Row, Stored, StoredRows, Table};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use super::domain::{Ledger, Note};

impl Stored for Ledger {
    fn tables(&mut self) -> Vec<&mut dyn StoredRows> {
        vec![&mut self.notes]
    }
}

impl Row<OrderId> for Note {
    const TABLE: Table = Table {
        name: "notes",
        key: ("order_id", "uuid"),
        columns: &[("length", "bigint")],
        shared: false,
    };

    fn write(rows: &[(&OrderId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, note)| note.length));
    }

    fn read(row: &PgRow) -> sqlx::Result<(OrderId, Self)> {
        Ok((row.try_get::<Uuid, _>("order_id")?.into(), Self { length: row.try_get("length")? }))
    }
}
