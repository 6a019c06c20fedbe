//! The HTTP API as clients and strangers use it: invalid requests, tokens, scopes, event streams.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contracts::OrderId;
use orderctl::system::Service;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, RequestBuilder};
use saga_tests::{LIMIT, Shop, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An HTTP client of one replica, which sends a token.
struct Api {
    client: reqwest::Client,
    url: String,
}

impl Api {
    fn of(shop: &Shop, replica: &str) -> Self {
        Self::with(shop, replica, &shop.token())
    }

    /// Creates a client that sends this token.
    fn with(shop: &Shop, replica: &str, token: &str) -> Self {
        let token = (
            AUTHORIZATION,
            HeaderValue::try_from(format!("Bearer {token}")).expect("a token is a valid header"),
        );
        let client = reqwest::Client::builder()
            .default_headers([token].into_iter().collect())
            .build()
            .expect("a client can be built");
        Self { client, url: shop.replica(replica).url().to_owned() }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client
            .request(Method::POST, format!("{}{path}", self.url))
            .header("Idempotency-Key", "a key")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self
            .client
            .get(format!("{}{path}", self.url))
            .send()
            .await?
            .error_for_status()?
            .json()
            .await?)
    }
}

/// Checks that a request is refused with this status, and with a problem that names the field.
async fn refused(
    what: &str,
    request: RequestBuilder,
    status: u16,
    field: Option<&str>,
) -> Result<()> {
    let response = request.send().await.with_context(|| what.to_owned())?;
    let answered = response.status().as_u16();
    let content_type = response.headers().get("content-type").cloned();
    let text = response.text().await?;

    ensure!(answered == status, "{what}: {answered} {text}");
    ensure!(
        content_type.as_ref().is_some_and(|found| found == "application/problem+json"),
        "{what}: {content_type:?} {text}"
    );
    let problem: Value = serde_json::from_str(&text)?;
    ensure!(problem["field"].as_str() == field, "{what}: {text}");
    ensure!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{what}: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalid_order_is_refused_naming_the_field_and_nothing_is_stored() -> Result<()> {
    let prices = tempfile::NamedTempFile::new()?;
    let high_price = i64::MAX / 3;
    let price = |sku: &str, amount: i64| {
        let unit_price = json!({"amount": amount, "currency": "EUR"});
        json!({"sku": sku, "name": sku, "unit_price": unit_price})
    };
    serde_json::to_writer(&prices, &json!([price("COFFEE", 500), price("PALACE", high_price)]))?;
    let mut shop = Shop::prepared(|options| {
        options.env.push(("ORDER_PRICES".into(), prices.path().display().to_string()));
    })
    .await?;
    shop.replicas = shop.system.start_all(1).await?;
    let api = Api::of(&shop, "order-1");
    let order = |customer: Value, lines: Value| {
        api.post("/orders").json(&json!({"customer": customer, "lines": lines}))
    };
    let line = |sku: Value, quantity: Value| json!([{"sku": sku, "quantity": quantity}]);

    // Values that the order does not accept.
    refused(
        "unknown product",
        order(json!("ann"), line(json!("NONE"), json!(1))),
        400,
        Some("lines[0].sku"),
    )
    .await?;
    for quantity in [json!(0), json!(-1), json!(1_000_001), json!(i64::MAX)] {
        refused(
            "quantity",
            order(json!("ann"), line(json!("COFFEE"), quantity)),
            400,
            Some("lines[0].quantity"),
        )
        .await?;
    }

    refused(
        "a total that overflows",
        order(json!("ann"), line(json!("PALACE"), json!(4))),
        400,
        Some("lines"),
    )
    .await?;
    let twice = json!([{"sku": "PALACE", "quantity": 2}, {"sku": "PALACE", "quantity": 2}]);
    refused("a total that overflows in two lines", order(json!("ann"), twice), 400, Some("lines"))
        .await?;
    let many = vec![json!({"sku": "COFFEE", "quantity": 1}); 1_000];
    refused("1,000 lines", order(json!("ann"), json!(many)), 400, Some("lines")).await?;
    refused("no lines", order(json!("ann"), json!([])), 400, Some("lines")).await?;
    refused(
        "a customer of a wrong type",
        order(json!(7), line(json!("COFFEE"), json!(1))),
        400,
        Some("customer"),
    )
    .await?;
    refused(
        "a quantity of a wrong type",
        order(json!("ann"), line(json!("COFFEE"), json!("1"))),
        400,
        Some("lines[0].quantity"),
    )
    .await?;
    refused(
        "a quantity that is not an i64",
        order(json!("ann"), line(json!("COFFEE"), json!(1e30))),
        400,
        Some("lines[0].quantity"),
    )
    .await?;
    let discount =
        json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1)), "discount": 100});
    refused("an unknown field", api.post("/orders").json(&discount), 400, Some("discount")).await?;
    refused(
        "a missing field",
        api.post("/orders").json(&json!({"customer": "ann"})),
        400,
        Some("lines"),
    )
    .await?;

    // Arrays in the place of objects, which serde would read field by position.
    let by_position = json!(["ann", [{"sku": "COFFEE", "quantity": 1}]]);
    refused("an array", api.post("/orders").json(&by_position), 400, Some("body")).await?;
    let line_by_position = order(json!("ann"), json!([["COFFEE", 1]]));
    refused("a line that is an array", line_by_position, 400, Some("lines[0]")).await?;

    // Bodies that are not JSON.
    let text = json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1))}).to_string();
    refused("no content type", api.post("/orders").body(text.clone()), 415, Some("Content-Type"))
        .await?;
    refused(
        "another content type",
        api.post("/orders").header("Content-Type", "text/xml").body(text.clone()),
        415,
        Some("Content-Type"),
    )
    .await?;
    let raw =
        |body: Vec<u8>| api.post("/orders").header("Content-Type", "application/json").body(body);
    refused("not JSON", raw(b"{".to_vec()), 400, Some("body")).await?;
    refused("two values", raw(format!("{text}{text}").into_bytes()), 400, Some("body")).await?;
    refused(
        "not UTF-8",
        raw(b"{\"customer\": \"\xff\xfe\", \"lines\": []}".to_vec()),
        400,
        Some("customer"),
    )
    .await?;

    // Idempotency keys.
    let good = || json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1))});
    let keyed = |key: &str| {
        api.client.post(format!("{}/orders", api.url)).header("Idempotency-Key", key).json(&good())
    };
    refused("a key of 10 kB", keyed(&"k".repeat(10_000)), 400, Some("Idempotency-Key")).await?;
    refused("an empty key", keyed(""), 400, Some("Idempotency-Key")).await?;
    refused(
        "no key",
        api.client.post(format!("{}/orders", api.url)).json(&good()),
        400,
        Some("Idempotency-Key"),
    )
    .await?;

    // Paths, queries and methods.
    let get = |path: &str| api.client.get(format!("{}{path}", api.url));
    refused("an id that is not a UUID", get("/orders/1"), 400, Some("order_id")).await?;
    refused("an id that is not UTF-8", get("/orders/%ff"), 400, Some("path")).await?;
    refused(
        "cancelling an id that is not a UUID",
        api.post("/orders/1/cancel"),
        400,
        Some("order_id"),
    )
    .await?;
    refused("an unknown field in a query", get("/orders?colour=red"), 400, Some("query")).await?;
    refused("an unknown path", get("/order"), 404, None).await?;
    refused("an unknown method", api.client.delete(format!("{}/orders", api.url)), 405, None)
        .await?;

    ensure!(
        announce(&api.url, &shop.token(), 5_000_000).await?.starts_with("HTTP/1.1 413 "),
        "5 MB are too much, and are refused before the body arrives"
    );
    ensure!(
        shop.count(Service::ORDER, "select count(*) from orders").await? == 0,
        "nothing is stored"
    );
    let lanes = shop.lanes(Service::ORDER).await?;
    ensure!(!lanes.is_empty(), "the lanes must be known");
    ensure!(lanes.iter().all(|lane| lane.next_sequence == 0), "no event is stored");
    Ok(())
}

/// Sends the head of a request with a body of this size, but none of the body. Returns the start of
/// the answer.
async fn announce(url: &str, token: &str, bytes: usize) -> Result<String> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_deposits_and_receipts_are_refused_naming_the_field_and_nothing_is_stored()
-> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    let (till, warehouse) = (Api::of(&shop, "payment-1"), Api::of(&shop, "inventory-1"));

    let deposit = |customer: &str, body: Value| {
        till.post(&format!("/accounts/{customer}/deposits")).json(&body)
    };
    for amount in [json!(0), json!(-1), json!("1"), json!(1.5)] {
        refused(
            "amount",
            deposit("ann", json!({"amount": amount, "currency": "EUR"})),
            400,
            Some("amount"),
        )
        .await?;
    }

    refused(
        "currency",
        deposit("ann", json!({"amount": 1, "currency": "euro"})),
        400,
        Some("currency"),
    )
    .await?;
    refused(
        "customer",
        deposit("an%20na", json!({"amount": 1, "currency": "EUR"})),
        400,
        Some("customer"),
    )
    .await?;
    refused(
        "a path that is not UTF-8",
        deposit("%ff", json!({"amount": 1, "currency": "EUR"})),
        400,
        Some("path"),
    )
    .await?;

    let receipt =
        |sku: &str, body: Value| warehouse.post(&format!("/stock/{sku}/receipts")).json(&body);
    for quantity in [json!(0), json!(-1), json!(1_000_001), json!("1"), json!(null)] {
        refused(
            "quantity",
            receipt("COFFEE", json!({"quantity": quantity})),
            400,
            Some("quantity"),
        )
        .await?;
    }

    refused("sku", receipt("C%2FF", json!({"quantity": 1})), 400, Some("sku")).await?;
    refused(
        "unknown field",
        receipt("COFFEE", json!({"quantity": 1, "colour": "red"})),
        400,
        Some("colour"),
    )
    .await?;

    ensure!(
        shop.count(Service::PAYMENT, "select count(*) from accounts").await? == 0,
        "no money is stored"
    );
    ensure!(
        shop.count(Service::INVENTORY, "select count(*) from stock").await? == 0,
        "no stock is stored"
    );

    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_prefers_to_wait_is_answered_when_the_order_ends_or_the_wait_is_over()
-> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    let api = Api::of(&shop, "order-1");
    let ask = |key: &str, wait: &str| {
        let order = json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]});
        api.client
            .post(format!("{}/orders", api.url))
            .header("Idempotency-Key", key)
            .header("Prefer", wait)
            .json(&order)
    };

    let ended = ask("one", "wait=30").send().await?.error_for_status()?;
    ensure!(ended.headers().get("preference-applied").is_some_and(|applied| applied == "wait=30"));
    ensure!(ended.json::<Value>().await?["status"] == "confirmed");

    for name in ["payment-1", "payment-2"] {
        let mut payment = shop.take(name);
        payment.kill().await?;
    }

    let open = ask("two", "wait=1").send().await?.error_for_status()?;
    ensure!(open.status().as_u16() == 201);
    let order: Value = open.json().await?;
    ensure!(order["status"] == "open", "payment is dead, so the order cannot end: {order}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_listed_in_pages_newest_first() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let placed = shop.order("page", 5).await?;
    shop.client.deposit("bob", 1_000, "first").await?.created()?;
    let of_bob = shop.client.place("bob", &[("COFFEE", 1)], "page").await?.order_id()?;
    shop.ends_well().await?;

    // Page through one customer's orders.
    let api = Api::of(&shop, "order-2");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = api.get(&format!("/orders?customer=ann&limit=2{cursor}")).await?;
        let orders = page["orders"].as_array().context("orders")?;
        ensure!(orders.len() <= 2, "{page}");
        seen.extend(
            orders.iter().filter_map(|order| order["order_id"].as_str().map(str::to_owned)),
        );
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }

    let newest_first: Vec<_> = placed.iter().rev().map(ToString::to_string).collect();
    ensure!(seen == newest_first, "{seen:?}, {newest_first:?}");

    // Filter by status and by customer.
    let count = |page: Value| page["orders"].as_array().map_or(0, Vec::len);
    ensure!(
        api.get("/orders").await?["orders"][0]["order_id"] == of_bob.to_string(),
        "all customers' orders, newest first"
    );
    ensure!(count(api.get("/orders?status=open").await?) == 0);
    ensure!(
        count(api.get("/orders?status=cancelled&customer=ann").await?)
            + count(api.get("/orders?status=confirmed&customer=ann").await?)
            == 5
    );

    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_valid_token_are_refused_everywhere() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    let foreign = orderctl::system::Tokens::of_file(
        tempfile_with("a secret that this shop does not use")?.path(),
    )?;
    let foreign = foreign.token("ann", "shop till warehouse", Duration::from_mins(5))?;
    let id = "018f3f5e-7b1a-7c3d-8e2f-0123456789ab";
    for (replica, method, path) in [
        ("order-1", Method::POST, "/orders".to_owned()),
        ("order-1", Method::GET, "/orders".to_owned()),
        ("order-1", Method::GET, format!("/orders/{id}")),
        ("order-1", Method::POST, format!("/orders/{id}/cancel")),
        ("order-1", Method::GET, "/products".to_owned()),
        ("payment-1", Method::GET, "/accounts/ann".to_owned()),
        ("payment-1", Method::POST, "/accounts/ann/deposits".to_owned()),
        ("inventory-1", Method::GET, "/stock/COFFEE".to_owned()),
        ("inventory-1", Method::POST, "/stock/COFFEE/receipts".to_owned()),
    ] {
        let request = || {
            reqwest::Client::new()
                .request(method.clone(), format!("{}{path}", shop.replica(replica).url()))
        };
        let challenge = |error: &str| {
            if error.is_empty() { "Bearer".to_owned() } else { format!("Bearer error=\"{error}\"") }
        };
        for (what, request, error) in [
            ("no token", request(), ""),
            ("another scheme", request().basic_auth("ann", Some("secret")), ""),
            ("a malformed token", request().bearer_auth("a.b.c"), "invalid_token"),
            ("a token signed with another key", request().bearer_auth(&foreign), "invalid_token"),
        ] {
            let what = format!("{what} at {path}");
            let sent = request.try_clone().context("the request has no body")?.send().await?;
            ensure!(
                sent.headers()
                    .get("www-authenticate")
                    .is_some_and(|found| *found == challenge(error)),
                "{what}: {sent:?}"
            );
            refused(&what, request, 401, None).await?;
        }
    }

    ensure!(
        reqwest::get(format!("{}/health/ready", shop.replica("order-1").url()))
            .await?
            .status()
            .as_u16()
            == 200,
        "health needs no token"
    );

    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_authentication_everyone_is_served_and_the_log_warns() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let mut open = shop.system.start_with(Service::ORDER, "order-1", &[("AUTH", "off")]).await?;
    open.wait_ready().await?;
    let request = json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]});
    let placed = reqwest::Client::new()
        .post(format!("{}/orders", open.url()))
        .header("Idempotency-Key", "a key")
        .json(&request);
    ensure!(placed.send().await?.status().as_u16() == 201, "no token is needed");
    ensure!(
        open.log_text().contains("AUTH=off: anybody who reaches this address may do anything"),
        "{}",
        open.log_text()
    );
    Ok(())
}

fn tempfile_with(text: &str) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), text)?;
    Ok(file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_customer_reaches_only_its_own_orders_and_account() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    shop.client.deposit("bob", 10_000, "first").await?.created()?;
    let of_bob = shop.client.place("bob", &[("COFFEE", 1)], "own").await?.order_id()?;
    let token = |scopes: &str| shop.system.tokens().token("ann", scopes, Duration::from_mins(5));

    // A customer's own order.
    let api = Api::with(&shop, "order-1", &token("")?);
    let lines = json!([{"sku": "COFFEE", "quantity": 1}]);

    let own = api.post("/orders").json(&json!({"lines": lines})).send().await?;
    ensure!(own.status().as_u16() == 201, "{own:?}");
    let own: Value = own.json().await?;
    ensure!(own["customer"] == "ann", "the customer is the token's subject: {own}");
    let again: Value = api
        .post("/orders")
        .json(&json!({"customer": "ann", "lines": lines}))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    ensure!(
        again["order_id"] == own["order_id"],
        "the request is the same with or without the customer"
    );
    refused(
        "an order for another customer",
        api.post("/orders").json(&json!({"customer": "bob", "lines": lines})),
        403,
        None,
    )
    .await?;

    // Another customer's orders.
    let theirs = |path: &str| api.client.get(format!("{}{path}", api.url));
    refused("another customer's order", theirs(&format!("/orders/{of_bob}")), 404, None).await?;
    refused(
        "cancelling another customer's order",
        api.client.post(format!("{}/orders/{of_bob}/cancel", api.url)),
        404,
        None,
    )
    .await?;
    refused("another customer's orders", theirs("/orders?customer=bob"), 403, None).await?;
    let page = api.get("/orders").await?;
    ensure!(
        page["orders"]
            .as_array()
            .is_some_and(|orders| orders.len() == 1 && orders[0]["customer"] == "ann"),
        "{page}"
    );

    // Scopes.
    let till = Api::with(&shop, "payment-1", &token("shop warehouse")?);
    let deposit = json!({"amount": 1, "currency": "EUR"});
    refused(
        "a deposit without the scope",
        till.post("/accounts/ann/deposits").json(&deposit),
        403,
        None,
    )
    .await?;
    refused(
        "another customer's account",
        till.client.get(format!("{}/accounts/bob", till.url)),
        403,
        None,
    )
    .await?;
    ensure!(till.get("/accounts/ann").await?["customer"] == "ann");
    let warehouse = Api::with(&shop, "inventory-1", &token("shop till")?);
    refused(
        "a receipt without the scope",
        warehouse.post("/stock/COFFEE/receipts").json(&json!({"quantity": 1})),
        403,
        None,
    )
    .await?;

    let cancelled = api
        .client
        .post(format!("{}/orders/{}/cancel", api.url, own["order_id"].as_str().unwrap_or_default()))
        .send()
        .await?;
    ensure!(
        [200, 409].contains(&cancelled.status().as_u16()),
        "cancelling its own order: {cancelled:?}"
    );
    let staff = Api::with(&shop, "order-1", &token("shop")?);
    ensure!(
        staff.get("/orders").await?["orders"].as_array().map(Vec::len) == Some(2),
        "the shop sees all customers' orders"
    );
    ensure!(staff.get(&format!("/orders/{of_bob}")).await?["customer"] == "bob");
    shop.ends_well().await?;
    Ok(())
}

/// Reads an order's stream to its end. Returns the ids and the data of its events.
async fn streamed(api: &Api, order: OrderId, last: Option<&str>) -> Result<Vec<(String, Value)>> {
    let mut request = api.client.get(format!("{}/orders/{order}/events", api.url)).timeout(LIMIT);
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    let response = request.send().await?.error_for_status()?;
    for (name, expected) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        let found: Vec<_> = response.headers().get_all(name).iter().collect();
        ensure!(found == [expected], "{name}: {found:?}");
    }

    let text = response.text().await?;
    ensure!(text.starts_with("retry:"), "when to connect again: {text}");
    let field = |event: &str, name: &str| {
        let value = event
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(|value| value.trim().to_owned());
        value.with_context(|| format!("{name} in {event:?}"))
    };
    let events = text.split("\n\n").filter(|event| event.contains("id:"));
    events
        .map(|event| Ok((field(event, "id")?, serde_json::from_str(&field(event, "data")?)?)))
        .collect()
}

/// The names of the events in an order's timeline.
fn names(timeline: &Value) -> Vec<&str> {
    timeline["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["event"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_shows_its_timeline_and_streams_its_events() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let api = Api::of(&shop, "order-1");
    let order = shop.order("streamed", 1).await?[0];

    // The stream ends with the order.
    let events = streamed(&api, order, None).await?;
    let ids: Vec<&str> = events.iter().map(|(id, _)| id.as_str()).collect();
    ensure!(ids.last() == Some(&"2.1.1") && ids.len() == 4, "{events:?}");
    let published: BTreeSet<_> = events
        .iter()
        .filter_map(|(_, data)| Some((data["by"].as_str()?, data["event"].as_str()?)))
        .collect();
    let expected = [
        ("inventory", "InventoryUpdated"),
        ("order", "OrderConfirmed"),
        ("order", "OrderCreated"),
        ("payment", "PaymentCompleted"),
    ];
    ensure!(published == BTreeSet::from(expected), "{events:?}");

    // Any replica resumes a stream after the last event that the client has seen. Streams differ in
    // the order in which they read events of several services.
    let rest = streamed(&Api::of(&shop, "order-2"), order, Some(ids[1])).await?;
    let data = |events: &[(String, Value)]| {
        events.iter().map(|(_, data)| data.to_string()).collect::<BTreeSet<_>>()
    };
    ensure!(
        data(&rest) == data(&events[2..]),
        "another replica resumes after the last event: {rest:?}"
    );
    ensure!(rest.last().is_some_and(|(id, _)| id == "2.1.1"), "{rest:?}");
    let over = api
        .client
        .get(format!("{}/orders/{order}/events", api.url))
        .header("Last-Event-ID", "2.1.1")
        .send()
        .await?;
    ensure!(over.status().as_u16() == 204, "204 stops a browser from reconnecting: {over:?}");
    refused(
        "an invalid last event id",
        api.client.get(format!("{}/orders/{order}/events", api.url)).header("Last-Event-ID", "x"),
        400,
        Some("Last-Event-ID"),
    )
    .await?;

    let shown = api.get(&format!("/orders/{order}")).await?;
    ensure!(
        names(&shown) == ["OrderCreated", "PaymentCompleted", "InventoryUpdated", "OrderConfirmed"],
        "{shown}"
    );
    ensure!(shown["undo"].is_null(), "{shown}");

    let theirs = Api::with(
        &shop,
        "order-1",
        &shop.system.tokens().token("bob", "", Duration::from_mins(5))?,
    );
    refused(
        "another customer's events",
        theirs.client.get(format!("{}/orders/{order}/events", theirs.url)),
        404,
        None,
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_order_shows_whether_its_compensation_is_complete() -> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    let mut stopped: Vec<_> = ["inventory-1", "inventory-2"].map(|name| shop.take(name)).into();
    for inventory in &mut stopped {
        inventory.kill().await?;
    }

    let order = shop.order("cancelled", 1).await?[0];
    let api = Api::of(&shop, "order-1");
    let path = format!("/orders/{order}");
    eventually("payment to have taken the money", || async {
        Ok(names(&api.get(&path).await?).contains(&"PaymentCompleted"))
    })
    .await?;

    shop.client.cancel(order).await?.success()?;
    let back = ["OrderCancelled", "PaymentRefunded"];
    eventually("the money to be back", || async {
        let shown = api.get(&path).await?;
        Ok(back.iter().all(|event| names(&shown).contains(event)))
    })
    .await?;
    let shown = api.get(&path).await?;
    ensure!(
        shown["undo"]["status"] == "undoing"
            && shown["undo"]["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0),
        "{shown}"
    );

    shop.replicas.push(shop.system.start(Service::INVENTORY, "inventory-1").await?);
    eventually("the order to be undone", || async {
        Ok(api.get(&path).await?["undo"]["status"] == "undone")
    })
    .await?;
    shop.ends_well().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timelines_are_complete_whichever_replica_dies() -> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    for (nth, name) in ["order-1", "order-2", "order-1"].into_iter().enumerate() {
        shop.order(&format!("whole-{nth}"), 20).await?;
        let mut order = shop.take(name);
        order.kill().await?;
        shop.order(&format!("half-{nth}"), 20).await?;
        let mut again = shop.system.start(Service::ORDER, name).await?;
        again.wait_ready().await?;
        shop.replicas.push(again);
    }

    shop.ends_well().await?;

    let events = shop.count(Service::ORDER, "select count(*) from orders").await? * 4;
    ensure!(events == 480);
    let entries = "select count(*) from timeline";
    eventually("every event to be in a timeline", || async {
        Ok(shop.count(Service::ORDER, entries).await? >= events)
    })
    .await?;
    ensure!(shop.count(Service::ORDER, entries).await? == events, "no event is there twice");

    // A projection without positions reads its topics again from the start, as soon as it reads the
    // next events.
    sqlx::raw_sql("delete from reel.positions where reader = 'timeline'")
        .execute(shop.system.pool(Service::ORDER))
        .await?;
    shop.order("again", 20).await?;
    let events = events + 80;
    eventually("everything to be read again", || async {
        let mut read = 0;
        for topic in Service::all() {
            let inputs = shop.inputs(Service::ORDER, "timeline", topic).await?;
            read += inputs.iter().filter(|input| input.next_sequence > 0).count();
        }
        Ok(read == 12)
    })
    .await?;
    eventually("the new events to be in a timeline too", || async {
        Ok(shop.count(Service::ORDER, entries).await? >= events)
    })
    .await?;
    ensure!(
        shop.count(Service::ORDER, entries).await? == events,
        "events that are read again are there once"
    );

    Ok(())
}
