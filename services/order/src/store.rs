//! How orders are stored in Postgres.

use contracts::orders::CancelReason;
use contracts::{Money, OrderId};
use reel::model::Timestamp;
use reel::rows::{ArrayParams, Row, Stored, StoredRows, Table};
use reel::runtime::ConnectionPool;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder, Row as _};
use uuid::Uuid;

use crate::domain::{Order, Orders, Status};
use crate::list::{Cursor, OrderQuery};

impl Stored for Orders {
    fn tables(&mut self) -> Vec<&mut dyn StoredRows> {
        vec![&mut self.orders]
    }
}

impl Row<OrderId> for Order {
    const TABLE: Table = Table {
        name: "orders",
        key: ("order_id", "uuid"),
        columns: &[
            ("customer", "text"),
            ("lines", "jsonb"),
            ("total", "bigint"),
            ("currency", "text"),
            ("placed_at", "timestamptz"),
            ("settle_by", "timestamptz"),
            ("request_hash", "text"),
            ("status", "text"),
            ("reason", "text"),
            ("detail", "text"),
        ],
        shared: false,
    };

    fn write(rows: &[(&OrderId, &Self)], columns: &mut ArrayParams) {
        let orders = || rows.iter().map(|(_, order)| *order);
        columns.push(orders().map(|order| order.customer.as_str()));
        columns.push(orders().map(|order| Json(&order.lines)));
        columns.push(orders().map(|order| order.total.amount));
        columns.push(orders().map(|order| order.total.currency.to_string()));
        columns.push(orders().map(|order| utc(order.placed_at)));
        columns.push(orders().map(|order| utc(order.settle_by)));
        columns.push(orders().map(|order| order.request_hash.as_str()));
        columns.push(orders().map(|order| order.status.name()));
        columns.push(orders().map(|order| match &order.status {
            Status::Cancelled { reason, .. } => Some(reason.as_str()),
            Status::Open | Status::Confirmed => None,
        }));
        columns.push(orders().map(|order| match &order.status {
            Status::Cancelled { detail, .. } => detail.clone(),
            Status::Open | Status::Confirmed => None,
        }));
    }

    fn read(row: &PgRow) -> sqlx::Result<(OrderId, Self)> {
        let text = |column| row.try_get::<&str, _>(column);
        let order = Self {
            customer: text("customer")?.parse().map_err(corrupt)?,
            lines: row.try_get::<Json<_>, _>("lines")?.0,
            total: Money::new(row.try_get("total")?, text("currency")?.parse().map_err(corrupt)?),
            placed_at: Timestamp::from(row.try_get::<DateTime<Utc>, _>("placed_at")?),
            settle_by: Timestamp::from(row.try_get::<DateTime<Utc>, _>("settle_by")?),
            request_hash: text("request_hash")?.parse().map_err(corrupt)?,
            status: match row.try_get::<Option<&str>, _>("reason")? {
                Some(reason) => Status::Cancelled {
                    reason: CancelReason::from_symbol(reason),
                    detail: row.try_get("detail")?,
                },
                None if text("status")? == Status::Confirmed.name() => Status::Confirmed,
                None => Status::Open,
            },
        };
        Ok((row.try_get::<Uuid, _>("order_id")?.into(), order))
    }
}

const SELECT: &str = "select order_id, customer, lines, total, currency, placed_at, settle_by,
        request_hash, status, reason, detail
    from orders where ";

/// The order with this id.
pub(crate) async fn find(
    database: &ConnectionPool,
    order_id: OrderId,
) -> sqlx::Result<Option<Order>> {
    let mut find = QueryBuilder::<Postgres>::new(SELECT);
    find.push("order_id = ").push_bind(order_id.uuid());
    let row = find.build().fetch_optional(database).await?;
    row.map(|row| Ok(Order::read(&row)?.1)).transpose()
}

/// Those of these orders that are no longer open.
pub(crate) async fn completed(
    database: &ConnectionPool,
    orders: impl Iterator<Item = OrderId>,
) -> sqlx::Result<Vec<(OrderId, Order)>> {
    let orders: Vec<Uuid> = orders.map(OrderId::uuid).collect();
    let mut completed = QueryBuilder::<Postgres>::new(SELECT);
    completed.push("status <> 'open' and order_id = any(").push_bind(orders).push(")");
    completed.build().fetch_all(database).await?.iter().map(Order::read).collect()
}

/// A page of orders, newest first, and one order more if there is another page.
pub(crate) async fn list(
    database: &ConnectionPool,
    query: &OrderQuery,
) -> sqlx::Result<Vec<(OrderId, Order)>> {
    listing(SELECT, query).build().fetch_all(database).await?.iter().map(Order::read).collect()
}

fn listing(select: &str, query: &OrderQuery) -> QueryBuilder<Postgres> {
    let mut list = QueryBuilder::<Postgres>::new(select);
    list.push("true");
    if let Some(customer) = &query.customer {
        list.push(" and customer = ").push_bind(customer.as_str());
    }
    if let Some(status) = query.status {
        // Inline, not as a parameter: the planner uses the partial indexes of open and of cancelled
        // orders only if it sees the status. It comes from a fixed list.
        list.push(" and status = '").push(status).push("'");
    }

    if let Some(Cursor { placed_at, order_id }) = query.after {
        list.push(" and (placed_at, order_id) < (")
            .push_bind(utc(placed_at))
            .push(", ")
            .push_bind(order_id.uuid())
            .push(")");
    }

    list.push(" order by placed_at desc, order_id desc limit ")
        .push_bind(i64::from(query.limit) + 1);
    list
}

pub(crate) fn utc(time: Timestamp) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.micros()).unwrap_or_default()
}

fn corrupt(error: contracts::Invalid) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use devstack::{Stack, TestDatabase};
    use reel::inspect::Database;

    use super::*;
    use crate::app::App;

    #[tokio::test]
    async fn every_list_is_read_in_its_order_from_an_index() {
        let stack = Stack::shared().await.expect("stack");
        let database = TestDatabase::create(stack.postgres(), "lists").await.expect("database");
        let sessions = Database::new(database.url(), "lists", Duration::from_secs(5)).expect("url");
        let mut connection = sessions.connect().await.expect("connection");
        reel::runtime::migrate::<App>(&mut connection).await.expect("tables");
        let pool = sessions.pool(1);

        let last =
            Cursor { placed_at: Timestamp::from_micros(1), order_id: OrderId::from(Uuid::nil()) };
        let ann = || Some("ann".parse().expect("a customer"));

        for (customer, status, index) in [
            (None, None, "orders_by_time"),
            (None, Some("open"), "orders_open"),
            (None, Some("cancelled"), "orders_cancelled"),
            (ann(), None, "orders_of_customer"),
            (ann(), Some("confirmed"), "orders_of_customer"),
        ] {
            for after in [None, Some(last)] {
                let query = OrderQuery { customer: customer.clone(), status, limit: 20, after };
                let rows = listing(&format!("explain {SELECT}"), &query)
                    .build()
                    .fetch_all(&pool)
                    .await
                    .expect("a plan");
                let plan =
                    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n");
                assert!(
                    plan.contains(&format!("Index Scan using {index}")) && !plan.contains("Sort"),
                    "{query:?}:\n{plan}"
                );
            }
        }
    }
}
