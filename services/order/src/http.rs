//! The order service over HTTP.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use contracts::{OrderId, RequestHash, Sku};
use reel::http::{
    Body, Caller, IdempotencyKey, KeyReused, NoAnswer, OpenApiRouter, Path, Prefer, Problem, Query,
    TraceParent,
};
use reel::runtime::HttpContext;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::routes;

use crate::access::{SHOP, customer_of};
use crate::completion::CompletionWaiters;
use crate::domain::{Order, OrderCommand, OrderRejection, OrderService, PlaceOrder, RequestedLine};
use crate::event_stream::{self, EventStreams, StreamCursor, StreamEvent};
use crate::list::{Cursor, ListRequest};
use crate::prices::{PriceList, Product};
use crate::store;
use crate::timeline;
use crate::views::{OrderPage, OrderView, SagaView};

const MAX_LINES: usize = 100;
const MAX_QUANTITY: i64 = 1_000_000;

/// The state that handlers share.
#[derive(Clone)]
struct AppState {
    context: HttpContext<OrderService>,
    completions: CompletionWaiters,
    streams: EventStreams,
    prices: Arc<PriceList>,
    settle_within: Duration,
}

/// `POST /orders`
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PlaceRequest {
    /// The customer who pays; by default the subject of the token.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "ann")]
    customer: Option<String>,
    #[schema(min_items = 1, max_items = 100)]
    #[serde(deserialize_with = "reel::http::objects")]
    lines: Vec<LineRequest>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LineRequest {
    /// A product of the price list.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "COFFEE")]
    sku: String,
    #[schema(minimum = 1, maximum = 1_000_000, example = 2)]
    quantity: i64,
}

pub(crate) fn router(
    context: HttpContext<OrderService>,
    prices: PriceList,
    settle_within: Duration,
) -> OpenApiRouter {
    let completions = CompletionWaiters::start(context.database.clone());
    let streams = EventStreams::start(context.database.clone());
    OpenApiRouter::new()
        .routes(routes!(place, list))
        .routes(routes!(show))
        .routes(routes!(events))
        .routes(routes!(cancel))
        .routes(routes!(products))
        .with_state(AppState {
            context,
            completions,
            streams,
            prices: Arc::new(prices),
            settle_within,
        })
}

/// Place an order
#[utoipa::path(
    post,
    path = "/orders",
    params(
        IdempotencyKey,
        (
            "Prefer" = Option<String>,
            Header,
            description = "`wait=5`: respond once the order is confirmed or cancelled, or after \
                           this many seconds (RFC 7240).",
            example = "wait=5",
        ),
    ),
    request_body = PlaceRequest,
    responses(
        (
            status = 201,
            description = "The order was placed, now or by an earlier request with this key.",
            body = OrderView,
            headers(("Location" = String, description = "The path of the order.")),
        ),
        (
            status = 403,
            description = "The token does not act for this customer.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        KeyReused,
    ),
)]
async fn place(
    State(state): State<AppState>,
    TraceParent(traceparent): TraceParent,
    caller: Caller,
    prefer: Prefer,
    IdempotencyKey(key): IdempotencyKey,
    Body(request): Body<PlaceRequest>,
) -> Result<Response, Problem> {
    let command = request.command(&caller, &key, &state.prices, state.settle_within)?;
    let order_id = command.order_id;
    let Json(mut view) = state.ask(OrderCommand::PlaceOrder(command), traceparent).await?;
    let mut headers = HeaderMap::new();

    // If too many requests wait already, the preference is ignored and not confirmed by a header.
    if let Some((wait, _permit)) = prefer.wait.zip(state.context.waiting()) {
        view = OrderView::new(order_id, state.wait_for(order_id, wait).await?);
        headers.insert(
            "preference-applied",
            HeaderValue::try_from(format!("wait={}", wait.as_secs()))
                .map_err(|_| Problem::internal())?,
        );
    }

    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, format!("/orders/{order_id}"))],
        headers,
        Json(view),
    )
        .into_response())
}

/// List orders, the newest first
#[utoipa::path(
    get,
    path = "/orders",
    params(
        (
            "customer" = Option<String>,
            Query,
            pattern = "^[A-Za-z0-9._-]{1,64}$",
            description = "Only orders of this customer.",
        ),
        (
            "status" = Option<String>,
            Query,
            pattern = "^(open|confirmed|cancelled)$",
            description = "Only open, only confirmed or only cancelled orders.",
        ),
        (
            "limit" = Option<u32>,
            Query,
            minimum = 1,
            maximum = 100,
            description = "Largest number of orders; by default 20.",
        ),
        ("cursor" = Option<String>, Query, description = "The `next` of the previous page."),
    ),
    responses(
        (status = 200, description = "A page of orders.", body = OrderPage),
        (
            status = 403,
            description = "The token does not act for this customer.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        NoAnswer,
    ),
)]
async fn list(
    State(state): State<AppState>,
    caller: Caller,
    Query(request): Query<ListRequest>,
) -> Result<Json<OrderPage>, Problem> {
    let query = request.query(&caller)?;
    let mut orders = store::list(&state.context.database, &query).await?;

    // The query asks for one order more than the limit: it is there if there is another page.
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let more = orders.len() > limit;
    orders.truncate(limit);
    let last = orders
        .last()
        .filter(|_| more)
        .map(|(order_id, order)| Cursor { placed_at: order.placed_at, order_id: *order_id });

    let orders =
        orders.into_iter().map(|(order_id, order)| OrderView::new(order_id, order)).collect();

    Ok(Json(OrderPage { orders, next: last.map(|cursor| cursor.to_string()) }))
}

/// Cancel an order
#[utoipa::path(
    post,
    path = "/orders/{order_id}/cancel",
    params(("order_id" = Uuid, Path, description = "The order.")),
    responses(
        (status = 200, description = "The order was cancelled, now or before.", body = OrderView),
        (
            status = 404,
            description = "There is no such order, or it is another customer's.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 409,
            description = "The order is confirmed.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
async fn cancel(
    State(state): State<AppState>,
    TraceParent(traceparent): TraceParent,
    caller: Caller,
    Path(order_id): Path<String>,
) -> Result<Json<OrderView>, Problem> {
    let order_id = parse_order_id(&order_id)?;
    if !caller.has(SHOP) {
        state.order_of(&caller, order_id).await?;
    }
    state.ask(OrderCommand::CancelOrder { order_id }, traceparent).await
}

/// Show an order and what happened to it
#[utoipa::path(
    get,
    path = "/orders/{order_id}",
    params(("order_id" = Uuid, Path, description = "The order.")),
    responses(
        (status = 200, description = "The order.", body = SagaView),
        (
            status = 404,
            description = "There is no such order, or it is another customer's.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        NoAnswer,
    ),
)]
async fn show(
    State(state): State<AppState>,
    caller: Caller,
    Path(order_id): Path<String>,
) -> Result<Json<SagaView>, Problem> {
    let order_id = parse_order_id(&order_id)?;
    let order = state.order_of(&caller, order_id).await?;
    let timeline = timeline::of(&state.context.database, order_id).await?;
    Ok(Json(SagaView::new(order_id, order, timeline)))
}

/// Stream what happens to an order, as server-sent events
#[utoipa::path(
    get,
    path = "/orders/{order_id}/events",
    params(
        ("order_id" = Uuid, Path, description = "The order."),
        (
            "Last-Event-ID" = Option<String>,
            Header,
            pattern = "^[0-9]{1,9}\\.[0-9]{1,9}\\.[0-9]{1,9}$",
            description = "The id of the last event received: the stream resumes behind it.",
            example = "1.0.0",
        ),
    ),
    responses(
        (
            status = 200,
            description = "What has happened, and then what happens, until nothing more can.",
            body = StreamEvent,
            content_type = "text/event-stream",
        ),
        (status = 204, description = "Nothing more can happen."),
        (
            status = 404,
            description = "There is no such order, or it is another customer's.",
            body = Problem,
            content_type = "application/problem+json",
        ),
        (
            status = 503,
            description = "The database is unreachable, or too many requests wait already.",
            body = Problem,
            content_type = "application/problem+json",
        ),
    ),
)]
async fn events(
    State(state): State<AppState>,
    caller: Caller,
    Path(order_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let order_id = parse_order_id(&order_id)?;
    let cursor = StreamCursor::from_headers(&headers)?;
    state.order_of(&caller, order_id).await?;
    let timeline = timeline::of(&state.context.database, order_id).await?;

    let permit = state.context.waiting().ok_or_else(|| {
        Problem::unavailable("this replica has no room for another stream; try another replica")
    })?;
    let context = state.context.clone();
    let end = async move {
        tokio::select! {
            () = context.stopping() => {}
            () = caller.expired() => {}
        }
    };

    Ok(event_stream::response(&state.streams, order_id, &timeline, cursor, permit, end))
}

/// List the products for sale
#[utoipa::path(
    get,
    path = "/products",
    responses((status = 200, description = "All products.", body = [Product]))
)]
async fn products(State(state): State<AppState>) -> Json<Vec<Product>> {
    Json(state.prices.products().cloned().collect())
}

fn parse_order_id(text: &str) -> Result<OrderId, Problem> {
    text.parse()
        .map_err(|error: contracts::Invalid| Problem::invalid("order_id", error.to_string()))
}

impl AppState {
    async fn ask(
        &self,
        command: OrderCommand,
        traceparent: Option<String>,
    ) -> Result<Json<OrderView>, Problem> {
        let order_id = command.order_id();
        let order =
            self.context.commands.ask(command, traceparent).await?.ok_or_else(Problem::internal)?;
        Ok(Json(OrderView::new(order_id, order)))
    }

    /// Waits until the order is confirmed or cancelled, but no longer than `wait`, and returns it.
    async fn wait_for(&self, order_id: OrderId, wait: Duration) -> Result<Order, Problem> {
        let completed = tokio::select! {
            completed = self.completions.wait(order_id, wait) => completed,
            () = self.context.stopping() => None,
        };
        match completed {
            Some(order) => Ok(order),
            None => {
                store::find(&self.context.database, order_id).await?.ok_or_else(Problem::internal)
            }
        }
    }

    /// The order, if the caller may see it. For others it does not exist: 404, not 403.
    async fn order_of(&self, caller: &Caller, order_id: OrderId) -> Result<Order, Problem> {
        let order = store::find(&self.context.database, order_id).await?;
        Ok(order
            .filter(|order| caller.acts_for(order.customer.as_str(), SHOP))
            .ok_or(OrderRejection::NotFound)?)
    }
}

impl PlaceRequest {
    fn command(
        &self,
        caller: &Caller,
        key: &str,
        prices: &PriceList,
        settle_within: Duration,
    ) -> Result<PlaceOrder, Problem> {
        let customer = customer_of(self.customer.as_deref(), caller)?;
        let customer = customer.ok_or_else(|| {
            Problem::invalid(
                "customer",
                "name the customer: the request has no token that names one",
            )
        })?;
        if !(1..=MAX_LINES).contains(&self.lines.len()) {
            return Err(Problem::invalid(
                "lines",
                format!("an order has 1 to {MAX_LINES} lines, not {}", self.lines.len()),
            ));
        }

        let lines = self
            .lines
            .iter()
            .enumerate()
            .map(|(nth, line)| line.requested(nth, prices))
            .collect::<Result<_, _>>()?;

        // The hash covers the customer even if only the token named it.
        let order_id = OrderId::of_request(&customer, key);
        let request = Self { customer: Some(customer.to_string()), lines: self.lines.clone() };
        Ok(PlaceOrder {
            order_id,
            customer,
            lines,
            settle_within,
            request_hash: RequestHash::of(&request),
        })
    }
}

impl LineRequest {
    fn requested(&self, nth: usize, prices: &PriceList) -> Result<RequestedLine, Problem> {
        let invalid = |field: &str, detail: String| {
            Problem::invalid(&format!("lines[{nth}].{field}"), detail)
        };
        let sku = Sku::entered(&self.sku).map_err(|error| invalid("sku", error.to_string()))?;
        if !(1..=MAX_QUANTITY).contains(&self.quantity) {
            return Err(invalid(
                "quantity",
                format!("a quantity is 1 to {MAX_QUANTITY}, not {}", self.quantity),
            ));
        }
        Ok(RequestedLine { quantity: self.quantity, unit_price: prices.unit_price(&sku), sku })
    }
}

impl From<OrderRejection> for Problem {
    fn from(rejection: OrderRejection) -> Self {
        let detail = rejection.to_string();
        match rejection {
            OrderRejection::KeyReused => Self::key_reused(),
            OrderRejection::UnknownProduct { line, .. } => {
                Self::invalid(&format!("lines[{line}].sku"), detail)
            }
            OrderRejection::NoTotal => Self::invalid("lines", detail),
            OrderRejection::NotFound => Self::not_found(detail),
            OrderRejection::TooLate => {
                Self::new(StatusCode::CONFLICT, "too-late", "It is too late", detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn command(request: Value) -> Result<PlaceOrder, Problem> {
        let request: PlaceRequest = serde_json::from_value(request).expect("a request");
        request.command(
            &Caller::anybody(),
            "key",
            &PriceList::compiled_in(),
            Duration::from_secs(1),
        )
    }

    fn lines(lines: &Value) -> Value {
        json!({"customer": "anna", "lines": lines})
    }

    #[track_caller]
    fn refused(request: Value, field: &str) {
        let problem = command(request).expect_err("an invalid request");
        assert_eq!(problem.status(), StatusCode::BAD_REQUEST);
        assert!(
            format!("{problem:?}").contains(&format!("\"field\": String(\"{field}\")")),
            "{problem:?}"
        );
    }

    #[test]
    fn the_price_comes_from_the_price_list() {
        let place =
            command(lines(&json!([{"sku": "MUG", "quantity": 2}, {"sku": "NONE", "quantity": 1}])))
                .expect("a valid request");
        let prices: Vec<_> =
            place.lines.iter().map(|line| line.unit_price.map(|price| price.amount)).collect();
        assert_eq!(prices, [Some(990), None]);
    }

    #[test]
    fn a_problem_names_the_field_that_is_wrong() {
        refused(json!({"customer": "an na", "lines": [{"sku": "MUG", "quantity": 2}]}), "customer");
        refused(lines(&json!([])), "lines");
        refused(lines(&json!(vec![json!({"sku": "MUG", "quantity": 1}); 101])), "lines");
        refused(
            lines(&json!([{"sku": "MUG", "quantity": 1}, {"sku": "M/G", "quantity": 1}])),
            "lines[1].sku",
        );
        refused(lines(&json!([{"sku": "MUG", "quantity": 0}])), "lines[0].quantity");
        refused(lines(&json!([{"sku": "MUG", "quantity": 1_000_001}])), "lines[0].quantity");
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let priced =
            json!({"customer": "anna", "lines": [{"sku": "MUG", "quantity": 2, "unit_price": 1}]});
        assert!(serde_json::from_value::<PlaceRequest>(priced).is_err());
    }

    #[test]
    fn a_retry_finds_the_same_order_and_another_request_another_hash() {
        let place = |quantity| {
            command(lines(&json!([{"sku": "MUG", "quantity": quantity}]))).expect("a valid request")
        };
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
