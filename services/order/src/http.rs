//! The order service over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use contracts::{CustomerId, Money, OrderId, PricedLine, RequestHash, Sku};
use reel::http::{Body, IdempotencyKey, Path, Prefer, Problem, Query, TraceParent};
use reel::runtime::Edge;
use serde::{Deserialize, Serialize};

use crate::domain::{Order, OrderCommand, OrderRejection, OrderService, PlaceOrder, Status, WantedLine};
use crate::endings::Endings;
use crate::list::{Cursor, ListRequest};
use crate::prices::{PriceList, Product};
use crate::store;

const MOST_LINES: usize = 100;
const MOST_OF_A_LINE: i64 = 1_000_000;

/// What handlers work with.
#[derive(Clone)]
struct Shop {
    edge: Edge<OrderService>,
    endings: Endings,
    prices: Arc<PriceList>,
    settle_within: Duration,
}

/// `POST /orders`
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlaceRequest {
    customer: String,
    lines: Vec<LineRequest>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineRequest {
    sku: String,
    quantity: i64,
}

/// An order as clients see it.
#[derive(Debug, Serialize)]
struct OrderView {
    order_id: OrderId,
    customer: CustomerId,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    total: Money,
    lines: Vec<PricedLine>,
    placed_at: String,
    settle_by: String,
}

/// A page of orders.
#[derive(Debug, Serialize)]
struct OrderPage {
    orders: Vec<OrderView>,
    /// The `cursor` of the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

pub(crate) fn router(edge: Edge<OrderService>, prices: PriceList, settle_within: Duration) -> Router {
    let endings = Endings::start(edge.database.clone());
    Router::new()
        .route("/orders", post(place).get(list))
        .route("/orders/{order_id}", get(show))
        .route("/orders/{order_id}/cancel", post(cancel))
        .route("/products", get(products))
        .with_state(Shop { edge, endings, prices: Arc::new(prices), settle_within })
}

async fn place(
    State(shop): State<Shop>,
    TraceParent(traceparent): TraceParent,
    prefer: Prefer,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<PlaceRequest>,
) -> Result<Response, Problem> {
    let command = request.command(&key, &shop.prices, shop.settle_within)?;
    let order_id = command.order_id;
    let Json(mut view) = shop.ask(OrderCommand::PlaceOrder(command), traceparent).await?;
    let mut headers = HeaderMap::new();
    if let Some(wait) = prefer.wait {
        if let Some(order) = shop.endings.of(order_id, wait).await {
            view = OrderView::new(order_id, order);
        }
        headers.insert("preference-applied", HeaderValue::try_from(format!("wait={}", wait.as_secs())).map_err(|_| Problem::internal())?);
    }
    Ok((StatusCode::CREATED, [(header::LOCATION, format!("/orders/{order_id}"))], headers, Json(view)).into_response())
}

async fn list(State(shop): State<Shop>, Query(request): Query<ListRequest>) -> Result<Json<OrderPage>, Problem> {
    let wanted = request.wanted()?;
    let mut orders = store::list(&shop.edge.database, &wanted).await?;
    let limit = usize::try_from(wanted.limit).unwrap_or(usize::MAX);
    let more = orders.len() > limit;
    orders.truncate(limit);
    let last = orders.last().filter(|_| more).map(|(order_id, order)| Cursor { placed_at: order.placed_at, order_id: *order_id });
    let orders = orders.into_iter().map(|(order_id, order)| OrderView::new(order_id, order)).collect();
    Ok(Json(OrderPage { orders, next: last.map(|cursor| cursor.to_string()) }))
}

async fn cancel(
    State(shop): State<Shop>,
    TraceParent(traceparent): TraceParent,
    Path(order_id): Path<String>,
) -> Result<Json<OrderView>, Problem> {
    shop.ask(OrderCommand::CancelOrder { order_id: parse_order_id(&order_id)? }, traceparent).await
}

async fn show(State(shop): State<Shop>, Path(order_id): Path<String>) -> Result<Json<OrderView>, Problem> {
    let order_id = parse_order_id(&order_id)?;
    let order = store::find(&shop.edge.database, order_id).await?.ok_or(OrderRejection::NotFound)?;
    Ok(Json(OrderView::new(order_id, order)))
}

async fn products(State(shop): State<Shop>) -> Json<Vec<Product>> {
    Json(shop.prices.products().cloned().collect())
}

fn parse_order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse().map_err(|error: contracts::Invalid| Problem::invalid("order_id", error.to_string()))
}

impl Shop {
    async fn ask(&self, command: OrderCommand, traceparent: Option<String>) -> Result<Json<OrderView>, Problem> {
        let order_id = command.order_id();
        let order = self.edge.commands.ask(command, traceparent).await?.ok_or_else(Problem::internal)?;
        Ok(Json(OrderView::new(order_id, order)))
    }
}

impl PlaceRequest {
    fn command(&self, key: &str, prices: &PriceList, settle_within: Duration) -> Result<PlaceOrder, Problem> {
        let customer: CustomerId =
            self.customer.parse().map_err(|error: contracts::Invalid| Problem::invalid("customer", error.to_string()))?;
        if !(1..=MOST_LINES).contains(&self.lines.len()) {
            return Err(Problem::invalid("lines", format!("an order has 1 to {MOST_LINES} lines, not {}", self.lines.len())));
        }
        let lines = self.lines.iter().enumerate().map(|(nth, line)| line.wanted(nth, prices)).collect::<Result<_, _>>()?;
        let order_id = OrderId::of_request(&customer, key);
        Ok(PlaceOrder { order_id, customer, lines, settle_within, request_hash: RequestHash::of(self) })
    }
}

impl LineRequest {
    fn wanted(&self, nth: usize, prices: &PriceList) -> Result<WantedLine, Problem> {
        let invalid = |field: &str, detail: String| Problem::invalid(&format!("lines[{nth}].{field}"), detail);
        let sku: Sku = self.sku.parse().map_err(|error: contracts::Invalid| invalid("sku", error.to_string()))?;
        if !(1..=MOST_OF_A_LINE).contains(&self.quantity) {
            return Err(invalid("quantity", format!("a quantity is 1 to {MOST_OF_A_LINE}, not {}", self.quantity)));
        }
        Ok(WantedLine { quantity: self.quantity, unit_price: prices.unit_price(&sku), sku })
    }
}

impl OrderView {
    fn new(order_id: OrderId, order: Order) -> Self {
        let status = order.status.name();
        let (reason, detail) = match order.status {
            Status::Cancelled { reason, detail } => (Some(reason.as_str()), detail),
            Status::Open | Status::Confirmed => (None, None),
        };
        let (placed_at, settle_by) = (order.placed_at.to_string(), order.settle_by.to_string());
        Self { order_id, customer: order.customer, status, reason, detail, total: order.total, lines: order.lines, placed_at, settle_by }
    }
}

impl From<OrderRejection> for Problem {
    fn from(rejection: OrderRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            OrderRejection::KeyReused => Self::key_reused(),
            OrderRejection::UnknownProduct { line, .. } => Self::invalid(&format!("lines[{line}].sku"), detail),
            OrderRejection::NoTotal => Self::invalid("lines", detail),
            OrderRejection::NotFound => Self::not_found(detail),
            OrderRejection::TooLate => Self::new(StatusCode::CONFLICT, "too-late", "It is too late", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn command(request: Value) -> Result<PlaceOrder, Problem> {
        let request: PlaceRequest = serde_json::from_value(request).expect("a request");
        request.command("key", &PriceList::compiled_in(), Duration::from_secs(1))
    }

    fn lines(lines: &Value) -> Value {
        json!({"customer": "anna", "lines": lines})
    }

    #[track_caller]
    fn refused(request: Value, field: &str) {
        let problem = command(request).expect_err("it is wrong");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert!(format!("{problem:?}").contains(&format!("\"field\": String(\"{field}\")")), "{problem:?}");
    }

    #[test]
    fn the_price_comes_from_the_price_list() {
        let place = command(lines(&json!([{"sku": "MUG", "quantity": 2}, {"sku": "NONE", "quantity": 1}]))).expect("it is right");
        let prices: Vec<_> = place.lines.iter().map(|line| line.unit_price.map(|price| price.amount)).collect();
        assert_eq!(prices, [Some(990), None]);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_field() {
        refused(json!({"customer": "an na", "lines": [{"sku": "MUG", "quantity": 2}]}), "customer");
        refused(lines(&json!([])), "lines");
        refused(lines(&json!(vec![json!({"sku": "MUG", "quantity": 1}); 101])), "lines");
        refused(lines(&json!([{"sku": "MUG", "quantity": 1}, {"sku": "M/G", "quantity": 1}])), "lines[1].sku");
        refused(lines(&json!([{"sku": "MUG", "quantity": 0}])), "lines[0].quantity");
        refused(lines(&json!([{"sku": "MUG", "quantity": 1_000_001}])), "lines[0].quantity");
    }

    #[test]
    fn a_field_that_is_not_known_is_refused() {
        let priced = json!({"customer": "anna", "lines": [{"sku": "MUG", "quantity": 2, "unit_price": 1}]});
        assert!(serde_json::from_value::<PlaceRequest>(priced).is_err());
    }

    #[test]
    fn a_retry_finds_the_same_order_and_another_request_another_hash() {
        let place = |quantity| command(lines(&json!([{"sku": "MUG", "quantity": quantity}]))).expect("it is right");
        assert_eq!(place(1).order_id, place(2).order_id);
        assert_eq!(place(1).request_hash, place(1).request_hash);
        assert_ne!(place(1).request_hash, place(2).request_hash);
    }

    #[test]
    fn every_refusal_has_its_status() {
        let sku = || "A".parse().expect("a sku");
        let status = |rejection: OrderRejection| Problem::from(rejection).status().as_u16();
        assert_eq!(status(OrderRejection::KeyReused), 422);
        assert_eq!(status(OrderRejection::UnknownProduct { line: 0, sku: sku() }), 400);
        assert_eq!(status(OrderRejection::NoTotal), 400);
        assert_eq!(status(OrderRejection::NotFound), 404);
        assert_eq!(status(OrderRejection::TooLate), 409);
    }
}
