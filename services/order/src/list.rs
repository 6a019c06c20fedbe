//! `GET /orders`: orders by pages, the newest first.

use std::fmt;
use std::str::FromStr;

use contracts::{CustomerId, OrderId};
use reel::http::{Caller, Problem};
use reel::model::Timestamp;
use serde::Deserialize;

use crate::access::{SHOP, customer_of};

/// Largest page, in orders.
const MAX_LIMIT: u32 = 100;
/// Page size if the request does not say.
const DEFAULT_LIMIT: u32 = 20;
const STATUSES: [&str; 3] = ["open", "confirmed", "cancelled"];

/// The query parameters of `GET /orders`, not yet checked.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListRequest {
    customer: Option<String>,
    status: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// Which orders a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderQuery {
    pub(crate) customer: Option<CustomerId>,
    pub(crate) status: Option<&'static str>,
    pub(crate) limit: u32,
    /// Only orders behind this one.
    pub(crate) after: Option<Cursor>,
}

/// The last order of a page. As text: the time in microseconds, a dot, and the order's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) placed_at: Timestamp,
    pub(crate) order_id: OrderId,
}

impl ListRequest {
    /// Checks the parameters. Without a `customer`, a caller with the scope `shop` sees the orders
    /// of all customers, and others see their own.
    pub(crate) fn query(&self, caller: &Caller) -> Result<OrderQuery, Problem> {
        let all_customers = self.customer.is_none() && caller.has(SHOP);
        let customer =
            if all_customers { None } else { customer_of(self.customer.as_deref(), caller)? };

        let status = self.status.as_deref().map(|status| {
            let known = STATUSES.into_iter().find(|known| *known == status);
            known.ok_or_else(|| {
                Problem::invalid("status", format!("a status is one of {}", STATUSES.join(", ")))
            })
        });

        let limit = self.limit.as_deref().map_or(Some(DEFAULT_LIMIT), |limit| {
            limit.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit))
        });
        let limit = limit.ok_or_else(|| {
            Problem::invalid("limit", format!("a limit is a number from 1 to {MAX_LIMIT}"))
        })?;

        let after = self.cursor.as_deref().map(|cursor| {
            cursor.parse().map_err(|_| {
                Problem::invalid(
                    "cursor",
                    "send the value of `next` from the previous page, unchanged",
                )
            })
        });

        Ok(OrderQuery { customer, status: status.transpose()?, limit, after: after.transpose()? })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.placed_at.micros(), self.order_id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (micros, order_id) = text.split_once('.').ok_or(())?;
        let micros = micros.parse().ok().filter(|micros| (0..=LATEST).contains(micros)).ok_or(())?;
        Ok(Self {
            placed_at: Timestamp::from_micros(micros),
            order_id: order_id.parse().map_err(|_| ())?,
        })
    }
}

/// The end of the year 9999, in microseconds: within the range of both Postgres and chrono.
const LATEST: i64 = 253_402_300_799_999_999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_nothing_else_is_one() {
        let text = "1764000000123456.018f3f5e-7b1a-7c3d-8e2f-0123456789ab";
        assert_eq!(text.parse::<Cursor>().map(|cursor| cursor.to_string()).as_deref(), Ok(text));
        for bad in [
            "",
            ".",
            "1.",
            "1.2",
            "x.018f3f5e-7b1a-7c3d-8e2f-0123456789ab",
            "-1.018f3f5e-7b1a-7c3d-8e2f-0123456789ab",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad:?}");
        }
        assert!(
            "9223372036854775807.018f3f5e-7b1a-7c3d-8e2f-0123456789ab".parse::<Cursor>().is_err(),
            "later than any time that can be stored"
        );
    }

    #[test]
    fn what_is_wrong_with_a_query_is_named_with_its_field() {
        let some = |text: &str| Some(text.to_owned());
        let refused = |request: ListRequest| {
            format!("{:?}", request.query(&Caller::anybody()).expect_err("it is wrong"))
        };

        assert!(
            refused(ListRequest { customer: some("an na"), ..ListRequest::default() })
                .contains("customer")
        );
        assert!(
            refused(ListRequest { status: some("lost"), ..ListRequest::default() })
                .contains("open, confirmed, cancelled")
        );
        assert!(
            refused(ListRequest { cursor: some("2"), ..ListRequest::default() }).contains("cursor")
        );
        for limit in ["0", "101", "-1", "many", ""] {
            assert!(
                refused(ListRequest { limit: some(limit), ..ListRequest::default() })
                    .contains("from 1 to 100"),
                "{limit:?}"
            );
        }
    }
}
