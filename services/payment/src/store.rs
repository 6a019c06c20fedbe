//! How payments, accounts and deposits are stored in Postgres.

use contracts::payments::PaymentFailure;
use contracts::{CustomerId, DepositId, Money, OrderId};
use reel::rows::{ArrayParams, Row, Stored, StoredRows, Table};
use reel::runtime::ConnectionPool;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use uuid::Uuid;

use crate::domain::{Account, Deposit, Payment, Payments, Status};

impl Stored for Payments {
    fn tables(&mut self) -> Vec<&mut dyn StoredRows> {
        vec![&mut self.payments, &mut self.accounts, &mut self.deposits]
    }
}

impl Row<OrderId> for Payment {
    const TABLE: Table = Table {
        name: "payments",
        key: ("order_id", "uuid"),
        columns: &[
            ("customer", "text"),
            ("amount", "bigint"),
            ("currency", "text"),
            ("status", "text"),
            ("reason", "text"),
        ],
        shared: false,
    };

    fn write(rows: &[(&OrderId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, payment)| payment.customer.as_str()));
        columns.push(rows.iter().map(|(_, payment)| payment.amount.amount));
        columns.push(rows.iter().map(|(_, payment)| payment.amount.currency.to_string()));
        columns.push(rows.iter().map(|(_, payment)| payment.status.name()));
        columns.push(rows.iter().map(|(_, payment)| match payment.status {
            Status::Failed(reason) => Some(reason.as_str()),
            Status::Completed | Status::Refunded => None,
        }));
    }

    fn read(row: &PgRow) -> sqlx::Result<(OrderId, Self)> {
        let status = match row.try_get::<Option<&str>, _>("reason")? {
            Some(reason) => Status::Failed(PaymentFailure::from_symbol(reason)),
            None if row.try_get::<&str, _>("status")? == Status::Refunded.name() => {
                Status::Refunded
            }
            None => Status::Completed,
        };
        let payment = Self { customer: customer(row)?, amount: money(row)?, status };
        Ok((row.try_get::<Uuid, _>("order_id")?.into(), payment))
    }
}

impl Row<CustomerId> for Account {
    const TABLE: Table = Table {
        name: "accounts",
        key: ("customer", "text"),
        columns: &[("currency", "text"), ("deposited", "bigint"), ("balance", "bigint")],
        shared: true,
    };

    fn write(rows: &[(&CustomerId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, account)| account.currency.to_string()));
        columns.push(rows.iter().map(|(_, account)| account.deposited));
        columns.push(rows.iter().map(|(_, account)| account.balance));
    }

    fn read(row: &PgRow) -> sqlx::Result<(CustomerId, Self)> {
        let currency = row.try_get::<&str, _>("currency")?.parse().map_err(corrupt)?;
        Ok((
            customer(row)?,
            Self {
                currency,
                deposited: row.try_get("deposited")?,
                balance: row.try_get("balance")?,
            },
        ))
    }
}

impl Row<DepositId> for Deposit {
    const TABLE: Table = Table {
        name: "deposits",
        key: ("deposit_id", "uuid"),
        columns: &[
            ("customer", "text"),
            ("amount", "bigint"),
            ("currency", "text"),
            ("request_hash", "text"),
        ],
        shared: false,
    };

    fn write(rows: &[(&DepositId, &Self)], columns: &mut ArrayParams) {
        columns.push(rows.iter().map(|(_, deposit)| deposit.customer.as_str()));
        columns.push(rows.iter().map(|(_, deposit)| deposit.amount.amount));
        columns.push(rows.iter().map(|(_, deposit)| deposit.amount.currency.to_string()));
        columns.push(rows.iter().map(|(_, deposit)| deposit.request_hash.as_str()));
    }

    fn read(row: &PgRow) -> sqlx::Result<(DepositId, Self)> {
        let request_hash = row.try_get::<&str, _>("request_hash")?.parse().map_err(corrupt)?;
        let deposit = Self { customer: customer(row)?, amount: money(row)?, request_hash };
        Ok((row.try_get::<Uuid, _>("deposit_id")?.into(), deposit))
    }
}

/// The account of a customer.
pub(crate) async fn find_account(
    database: &ConnectionPool,
    customer: &CustomerId,
) -> sqlx::Result<Option<Account>> {
    const FIND: &str =
        "select customer, currency, deposited, balance from accounts where customer = $1";
    let row = sqlx::query(FIND).bind(customer.as_str()).fetch_optional(database).await?;
    row.map(|row| Ok(Account::read(&row)?.1)).transpose()
}

fn customer(row: &PgRow) -> sqlx::Result<CustomerId> {
    row.try_get::<&str, _>("customer")?.parse().map_err(corrupt)
}

fn money(row: &PgRow) -> sqlx::Result<Money> {
    Ok(Money::new(
        row.try_get("amount")?,
        row.try_get::<&str, _>("currency")?.parse().map_err(corrupt)?,
    ))
}

fn corrupt(error: contracts::Invalid) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}
