//! Reads rows into structs.

/// Implements `sqlx::FromRow` for a struct by naming the column of each field. This is what sqlx's
/// derive does; that one compiles a second Postgres driver with TLS, for the compiler to run.
///
/// ```
/// struct Account {
///     customer: String,
///     cents: i64,
/// }
///
/// reel::from_row!(Account { customer: "customer", cents: "balance" });
/// ```
#[macro_export]
macro_rules! from_row {
    ($row:ident { $($field:ident: $column:literal),+ $(,)? }) => {
        impl<'r> ::sqlx::FromRow<'r, ::sqlx::postgres::PgRow> for $row {
            fn from_row(row: &'r ::sqlx::postgres::PgRow) -> ::sqlx::Result<Self> {
                Ok(Self { $($field: ::sqlx::Row::try_get(row, $column)?),+ })
            }
        }
    };
}
