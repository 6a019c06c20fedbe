//! How reservations, stock and receipts are stored in Postgres.

use contracts::inventory::InventoryFailure;
use contracts::{Line, OrderId, ReceiptId, Sku};
use reel::rows::{ArrayParams, Row, Stored, StoredRows, Table};
use reel::runtime::ConnectionPool;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use uuid::Uuid;

use crate::domain::{Inventory, Receipt, Reservation, Stock};

impl Stored for Inventory {
    fn tables(&mut self) -> Vec<&mut dyn StoredRows> {
        vec![&mut self.reservations, &mut self.stock, &mut self.receipts]
    }
}

impl Row<OrderId> for Reservation {
    const TABLE: Table = Table {
        name: "reservations",
        key: ("order_id", "uuid"),
        columns: &[("status", "text"), ("lines", "jsonb"), ("reason", "text")],
        shared: false,
    };

    fn write(rows: &[(&OrderId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, reservation)| reservation.name()));
        columns.push(rows.iter().map(|(_, reservation)| match reservation {
            Self::Taken { lines } | Self::Restored { lines } => Json(lines.as_slice()),
            Self::Failed { .. } => Json(&[][..]),
        }));
        columns.push(rows.iter().map(|(_, reservation)| match reservation {
            Self::Failed { reason } => Some(reason.as_str()),
            Self::Taken { .. } | Self::Restored { .. } => None,
        }));
    }

    fn read(row: &PgRow) -> sqlx::Result<(OrderId, Self)> {
        let lines = || Ok::<_, sqlx::Error>(row.try_get::<Json<Vec<Line>>, _>("lines")?.0);
        let reservation = match row.try_get::<Option<&str>, _>("reason")? {
            Some(reason) => Self::Failed { reason: InventoryFailure::from_symbol(reason) },
            None if row.try_get::<&str, _>("status")? == "restored" => {
                Self::Restored { lines: lines()? }
            }
            None => Self::Taken { lines: lines()? },
        };
        Ok((row.try_get::<Uuid, _>("order_id")?.into(), reservation))
    }
}

impl Row<Sku> for Stock {
    const TABLE: Table = Table {
        name: "stock",
        key: ("sku", "text"),
        columns: &[("received", "bigint"), ("on_hand", "bigint"), ("taken", "bigint")],
        shared: true,
    };

    fn write(rows: &[(&Sku, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, stock)| stock.received));
        columns.push(rows.iter().map(|(_, stock)| stock.on_hand));
        columns.push(rows.iter().map(|(_, stock)| stock.taken));
    }

    fn read(row: &PgRow) -> sqlx::Result<(Sku, Self)> {
        let stock = Self {
            received: row.try_get("received")?,
            on_hand: row.try_get("on_hand")?,
            taken: row.try_get("taken")?,
        };
        Ok((sku(row)?, stock))
    }
}

impl Row<ReceiptId> for Receipt {
    const TABLE: Table = Table {
        name: "receipts",
        key: ("receipt_id", "uuid"),
        columns: &[("sku", "text"), ("quantity", "bigint"), ("request_hash", "text")],
        shared: false,
    };

    fn write(rows: &[(&ReceiptId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, receipt)| receipt.sku.as_str()));
        columns.push(rows.iter().map(|(_, receipt)| receipt.quantity));
        columns.push(rows.iter().map(|(_, receipt)| receipt.request_hash.as_str()));
    }

    fn read(row: &PgRow) -> sqlx::Result<(ReceiptId, Self)> {
        let request_hash = row.try_get::<&str, _>("request_hash")?.parse().map_err(corrupt)?;
        let receipt = Self { sku: sku(row)?, quantity: row.try_get("quantity")?, request_hash };
        Ok((row.try_get::<Uuid, _>("receipt_id")?.into(), receipt))
    }
}

/// The stock of a product.
pub(crate) async fn find_stock(
    database: &ConnectionPool,
    sku: &Sku,
) -> sqlx::Result<Option<Stock>> {
    const FIND: &str = "select sku, received, on_hand, taken from stock where sku = $1";
    let row = sqlx::query(FIND).bind(sku.as_str()).fetch_optional(database).await?;
    row.map(|row| Ok(Stock::read(&row)?.1)).transpose()
}

fn sku(row: &PgRow) -> sqlx::Result<Sku> {
    row.try_get::<&str, _>("sku")?.parse().map_err(corrupt)
}

fn corrupt(error: contracts::Invalid) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
