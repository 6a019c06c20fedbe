//! The payment service over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use contracts::{Currency, CustomerId, DepositId, Money, RequestHash};
use reel::http::{
    Body, Caller, IdempotencyKey, KeyReused, NoAnswer, OpenApiRouter, Path, Problem, TraceParent,
};
use reel::runtime::HttpContext;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::domain::{PaymentCommand, PaymentRejection, PaymentService};
use crate::store;

/// The scope of tokens that may deposit money and see all accounts.
const TILL: &str = "till";

/// `POST /accounts/{customer}/deposits`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DepositRequest {
    /// The amount in minor units.
    #[schema(minimum = 1, example = 10000)]
    amount: i64,
    #[schema(pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: String,
}

/// A deposit as clients see it.
#[derive(Debug, Serialize, ToSchema)]
struct DepositView {
    #[schema(value_type = Uuid)]
    deposit_id: DepositId,
    #[schema(value_type = String, example = "ann")]
    customer: CustomerId,
    /// The amount in minor units.
    amount: i64,
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
}

/// An account as clients see it.
#[derive(Debug, Serialize, ToSchema)]
struct AccountView {
    #[schema(value_type = String, example = "ann")]
    customer: CustomerId,
    #[schema(value_type = String, example = "EUR")]
    currency: Currency,
    /// Sum of all deposits, in minor units.
    deposited: i64,
    /// What is left to spend, in minor units.
    balance: i64,
}

pub(crate) fn router(context: HttpContext<PaymentService>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(deposit)).with_state(context)
}

/// Pay money into an account
#[utoipa::path(
    post,
    path = "/accounts/{customer}/deposits",
    params(
        (
            "customer" = String,
            Path,
            pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "The owner of the account.",
        ),
        IdempotencyKey,
    ),
    request_body = DepositRequest,
    responses(
        (
            status = 201,
            description = "The money was paid in, now or by an earlier request with this key.",
            body = DepositView,
        ),
        (
            status = 403,
            description = "The token lacks the scope `till`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 409,
            description = "The account has another currency, or would hold too much.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        KeyReused,
    ),
)]
async fn deposit(
    State(context): State<HttpContext<PaymentService>>,
    TraceParent(traceparent): TraceParent,
    caller: Caller,
    Path(customer): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<DepositRequest>,
) -> Result<(StatusCode, Json<DepositView>), Problem> {
    caller.must_have(TILL)?;
    let command = request.command(&customer, &key)?;
    let PaymentCommand::Deposit { deposit_id, .. } = command;
    let deposit =
        context.commands.ask(command, traceparent).await?.ok_or_else(Problem::internal)?;
    let Money { amount, currency } = deposit.amount;
    Ok((
        StatusCode::CREATED,
        Json(DepositView { deposit_id, customer: deposit.customer, amount, currency }),
    ))
}

/// Show an account
#[utoipa::path(
    get,
    path = "/accounts/{customer}",
    params((
        "customer" = String,
        Path,
        pattern = "^[A-Za-z0-9._-]{1,64}$",
        description = "The owner of the account.",
    )),
    responses(
        (status = 200, description = "The account.", body = AccountView),
        (
            status = 403,
            description = "The account is another customer's and the token lacks the scope `till`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 404,
            description = "The customer has no account.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        NoAnswer,
    ),
)]
async fn show(
    State(context): State<HttpContext<PaymentService>>,
    caller: Caller,
    Path(customer): Path<String>,
) -> Result<Json<AccountView>, Problem> {
    let customer = parse_customer(&customer)?;
    caller.must_act_for(customer.as_str(), TILL)?;
    let account = store::find_account(&context.database, &customer).await?;
    let account =
        account.ok_or_else(|| Problem::not_found(format!("{customer} has no account")))?;
    Ok(Json(AccountView {
        customer,
        currency: account.currency,
        deposited: account.deposited,
        balance: account.balance,
    }))
}

fn parse_customer(text: &str) -> Result<CustomerId, Problem> {
    CustomerId::entered(text).map_err(|error| Problem::invalid("customer", error.to_string()))
}

impl DepositRequest {
    fn command(&self, customer: &str, key: &str) -> Result<PaymentCommand, Problem> {
        let customer = parse_customer(customer)?;
        let currency = Currency::entered(&self.currency)
            .map_err(|error| Problem::invalid("currency", error.to_string()))?;
        let deposit_id = DepositId::of_request(&customer, key);
        Ok(PaymentCommand::Deposit {
            deposit_id,
            customer,
            amount: Money::new(self.amount, currency),
            request_hash: RequestHash::of(self),
        })
    }
}

impl From<PaymentRejection> for Problem {
    fn from(rejection: PaymentRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            PaymentRejection::KeyReused => Self::key_reused(),
            PaymentRejection::NotPositive => Self::invalid("amount", detail),
            PaymentRejection::WrongCurrency(_) => {
                Self::new(StatusCode::CONFLICT, "wrong-currency", "The currency is another", detail)
                    .with("field", json!("currency"))
            }
            PaymentRejection::TooMuch => Self::new(
                StatusCode::CONFLICT,
                "too-much",
                "The account would hold too much",
                detail,
            )
            .with("field", json!("amount")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(customer: &str, currency: &str, field: &str) {
        let request = DepositRequest { amount: 1, currency: currency.into() };
        let problem = request.command(customer, "key").expect_err("an invalid request");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert!(
            format!("{problem:?}").contains(&format!("\"field\": String(\"{field}\")")),
            "{problem:?}"
        );
    }

    #[test]
    fn a_problem_names_the_field_that_is_wrong() {
        refused("an na", "EUR", "customer");
        refused("..", "EUR", "customer");
        refused("anna", "euro", "currency");
        refused("anna", "EUU", "currency");
    }

    #[test]
    fn a_retry_finds_the_same_deposit() {
        let id = |amount| {
            let command = DepositRequest { amount, currency: "EUR".into() }
                .command("anna", "key")
                .expect("a valid request");
            let PaymentCommand::Deposit { deposit_id, request_hash, .. } = command;
            (deposit_id, request_hash)
        };
        assert_eq!(id(1), id(1));
        assert_eq!(id(1).0, id(2).0);
        assert_ne!(id(1).1, id(2).1);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let status = |rejection: PaymentRejection| Problem::from(rejection).status().as_u16();
        assert_eq!(status(PaymentRejection::KeyReused), 422);
        assert_eq!(status(PaymentRejection::NotPositive), 400);
        assert_eq!(status(PaymentRejection::WrongCurrency(Currency::EUR)), 409);
        assert_eq!(status(PaymentRejection::TooMuch), 409);
    }
}
