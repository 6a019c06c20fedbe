//! The inventory service over HTTP.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use contracts::{ReceiptId, RequestHash, Sku};
use reel::http::{
    Body, Caller, IdempotencyKey, KeyReused, NoAnswer, OpenApiRouter, Path, Problem, TraceParent,
};
use reel::runtime::HttpContext;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::domain::{InventoryCommand, InventoryRejection, InventoryService};
use crate::store;

const MAX_QUANTITY: i64 = 1_000_000;

/// The scope of tokens that may receive goods.
const WAREHOUSE: &str = "warehouse";

/// `POST /stock/{sku}/receipts`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReceiptRequest {
    #[schema(minimum = 1, maximum = 1_000_000, example = 10)]
    quantity: i64,
}

/// A receipt as clients see it.
#[derive(Debug, Serialize, ToSchema)]
struct ReceiptView {
    #[schema(value_type = Uuid)]
    receipt_id: ReceiptId,
    #[schema(value_type = String, example = "COFFEE")]
    sku: Sku,
    quantity: i64,
}

/// The stock of a product as clients see it.
#[derive(Debug, Serialize, ToSchema)]
struct StockView {
    #[schema(value_type = String, example = "COFFEE")]
    sku: Sku,
    /// Sum of all receipts.
    received: i64,
    /// Quantity available to new orders.
    on_hand: i64,
    /// Quantity held by orders.
    taken: i64,
}

pub(crate) fn router(context: HttpContext<InventoryService>) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(show)).routes(routes!(receive)).with_state(context)
}

/// Receive goods
#[utoipa::path(
    post,
    path = "/stock/{sku}/receipts",
    params(
        (
            "sku" = String,
            Path,
            pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "The product.",
        ),
        IdempotencyKey,
    ),
    request_body = ReceiptRequest,
    responses(
        (
            status = 201,
            description = "The goods were received, now or by an earlier request with this key.",
            body = ReceiptView,
        ),
        (
            status = 403,
            description = "The token lacks the scope `warehouse`.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 409,
            description = "There would be more of the product than can be counted.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        KeyReused,
    ),
)]
async fn receive(
    State(context): State<HttpContext<InventoryService>>,
    TraceParent(traceparent): TraceParent,
    caller: Caller,
    Path(sku): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<ReceiptRequest>,
) -> Result<(StatusCode, Json<ReceiptView>), Problem> {
    caller.must_have(WAREHOUSE)?;
    let command = request.command(&sku, &key)?;
    let InventoryCommand::ReceiveStock { receipt_id, .. } = command;
    let receipt =
        context.commands.ask(command, traceparent).await?.ok_or_else(Problem::internal)?;
    Ok((
        StatusCode::CREATED,
        Json(ReceiptView { receipt_id, sku: receipt.sku, quantity: receipt.quantity }),
    ))
}

/// Show the stock of a product
#[utoipa::path(
    get,
    path = "/stock/{sku}",
    params((
        "sku" = String,
        Path,
        pattern = "^[A-Za-z0-9._-]{1,64}$",
        description = "The product.",
    )),
    responses(
        (status = 200, description = "The stock.", body = StockView),
        (
            status = 404,
            description = "The product was never in stock.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        NoAnswer,
    ),
)]
async fn show(
    State(context): State<HttpContext<InventoryService>>,
    Path(sku): Path<String>,
) -> Result<Json<StockView>, Problem> {
    let sku = parse_sku(&sku)?;
    let stock = store::find_stock(&context.database, &sku).await?;
    let stock = stock
        .ok_or_else(|| Problem::not_found(format!("there is no stock of {sku}, and never was")))?;
    Ok(Json(StockView {
        sku,
        received: stock.received,
        on_hand: stock.on_hand,
        taken: stock.taken,
    }))
}

fn parse_sku(text: &str) -> Result<Sku, Problem> {
    Sku::entered(text).map_err(|error| Problem::invalid("sku", error.to_string()))
}

impl ReceiptRequest {
    fn command(&self, sku: &str, key: &str) -> Result<InventoryCommand, Problem> {
        let sku = parse_sku(sku)?;
        if self.quantity > MAX_QUANTITY {
            return Err(Problem::invalid(
                "quantity",
                format!("a quantity is 1 to {MAX_QUANTITY}, not {}", self.quantity),
            ));
        }
        let receipt_id = ReceiptId::of_request(&sku, key);
        Ok(InventoryCommand::ReceiveStock {
            receipt_id,
            sku,
            quantity: self.quantity,
            request_hash: RequestHash::of(self),
        })
    }
}

impl From<InventoryRejection> for Problem {
    fn from(rejection: InventoryRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            InventoryRejection::KeyReused => Self::key_reused(),
            InventoryRejection::NotPositive => Self::invalid("quantity", detail),
            InventoryRejection::TooMany => {
                Self::new(StatusCode::CONFLICT, "too-many", "There would be too many", detail)
                    .with("field", json!("quantity"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(sku: &str, quantity: i64, field: &str) {
        let problem =
            ReceiptRequest { quantity }.command(sku, "key").expect_err("an invalid request");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert!(
            format!("{problem:?}").contains(&format!("\"field\": String(\"{field}\")")),
            "{problem:?}"
        );
    }

    #[test]
    fn a_problem_names_the_field_that_is_wrong() {
        refused("M/G", 1, "sku");
        refused("MUG", 1_000_001, "quantity");
    }

    #[test]
    fn a_retry_finds_the_same_receipt() {
        let id = |quantity| {
            let command =
                ReceiptRequest { quantity }.command("MUG", "key").expect("a valid request");
            let InventoryCommand::ReceiveStock { receipt_id, request_hash, .. } = command;
            (receipt_id, request_hash)
        };
        assert_eq!(id(1), id(1));
        assert_eq!(id(1).0, id(2).0);
        assert_ne!(id(1).1, id(2).1);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let status = |rejection: InventoryRejection| Problem::from(rejection).status().as_u16();
        assert_eq!(status(InventoryRejection::KeyReused), 422);
        assert_eq!(status(InventoryRejection::NotPositive), 400);
        assert_eq!(status(InventoryRejection::TooMany), 409);
    }
}
