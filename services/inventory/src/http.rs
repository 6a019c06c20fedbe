//! The inventory service over HTTP.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use contracts::{ReceiptId, RequestHash, Sku};
use reel::http::{Body, IdempotencyKey, Path, Problem, TraceParent};
use reel::runtime::Edge;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::domain::{InventoryCommand, InventoryRejection, InventoryService};
use crate::store;

const MOST_OF_A_RECEIPT: i64 = 1_000_000;

/// `POST /stock/{sku}/receipts`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiptRequest {
    quantity: i64,
}

/// A receipt as clients see it.
#[derive(Debug, Serialize)]
struct ReceiptView {
    receipt_id: ReceiptId,
    sku: Sku,
    quantity: i64,
}

/// The stock of a product as clients see it.
#[derive(Debug, Serialize)]
struct StockView {
    sku: Sku,
    received: i64,
    on_hand: i64,
    taken: i64,
}

pub(crate) fn router(edge: Edge<InventoryService>) -> Router {
    Router::new().route("/stock/{sku}", get(show)).route("/stock/{sku}/receipts", post(receive)).with_state(edge)
}

async fn receive(
    State(edge): State<Edge<InventoryService>>,
    TraceParent(traceparent): TraceParent,
    Path(sku): Path<String>,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<ReceiptRequest>,
) -> Result<(StatusCode, Json<ReceiptView>), Problem> {
    let command = request.command(&sku, &key)?;
    let InventoryCommand::ReceiveStock { receipt_id, .. } = command;
    let receipt = edge.commands.ask(command, traceparent).await?.ok_or_else(Problem::internal)?;
    Ok((StatusCode::CREATED, Json(ReceiptView { receipt_id, sku: receipt.sku, quantity: receipt.quantity })))
}

async fn show(State(edge): State<Edge<InventoryService>>, Path(sku): Path<String>) -> Result<Json<StockView>, Problem> {
    let sku = parse_sku(&sku)?;
    let stock = store::find_stock(&edge.database, &sku).await?;
    let stock = stock.ok_or_else(|| Problem::not_found(format!("there is no stock of {sku}, and never was")))?;
    Ok(Json(StockView { sku, received: stock.received, on_hand: stock.on_hand, taken: stock.taken }))
}

fn parse_sku(text: &str) -> Result<Sku, Problem> {
    text.parse().map_err(|error: contracts::Invalid| Problem::invalid("sku", error.to_string()))
}

impl ReceiptRequest {
    fn command(&self, sku: &str, key: &str) -> Result<InventoryCommand, Problem> {
        let sku = parse_sku(sku)?;
        if self.quantity > MOST_OF_A_RECEIPT {
            return Err(Problem::invalid("quantity", format!("a quantity is 1 to {MOST_OF_A_RECEIPT}, not {}", self.quantity)));
        }
        let receipt_id = ReceiptId::of_request(&sku, key);
        Ok(InventoryCommand::ReceiveStock { receipt_id, sku, quantity: self.quantity, request_hash: RequestHash::of(self) })
    }
}

impl From<InventoryRejection> for Problem {
    fn from(rejection: InventoryRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            InventoryRejection::KeyReused => Self::key_reused(),
            InventoryRejection::NotPositive => Self::invalid("quantity", detail),
            InventoryRejection::TooMany => {
                Self::new(StatusCode::CONFLICT, "too-many", "There would be too many", detail).with("field", json!("quantity"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(sku: &str, quantity: i64, field: &str) {
        let problem = ReceiptRequest { quantity }.command(sku, "key").expect_err("it is wrong");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert!(format!("{problem:?}").contains(&format!("\"field\": String(\"{field}\")")), "{problem:?}");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        refused("M/G", 1, "sku");
        refused("MUG", 1_000_001, "quantity");
    }

    #[test]
    fn a_retry_finds_the_same_receipt() {
        let id = |quantity| {
            let command = ReceiptRequest { quantity }.command("MUG", "key").expect("it is right");
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
