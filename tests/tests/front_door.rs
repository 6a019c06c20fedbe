//! What strangers may send over HTTP, and what they get.

use anyhow::{Context as _, Result, ensure};
use orderctl::system::Service;
use reqwest::{Method, RequestBuilder};
use saga_tests::Shop;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks a service, and gives the status and the body.
struct Door {
    client: reqwest::Client,
    url: String,
}

impl Door {
    fn of(shop: &Shop, replica: &str) -> Self {
        Self { client: reqwest::Client::new(), url: shop.replica(replica).url().to_owned() }
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.client.request(Method::POST, format!("{}{path}", self.url)).header("Idempotency-Key", "a key")
    }

    async fn get(&self, path: &str) -> Result<Value> {
        Ok(self.client.get(format!("{}{path}", self.url)).send().await?.error_for_status()?.json().await?)
    }
}

/// The request is refused with this status by a problem that names the field.
async fn refused(what: &str, request: RequestBuilder, status: u16, field: Option<&str>) -> Result<()> {
    let response = request.send().await.with_context(|| what.to_owned())?;
    let said = response.status().as_u16();
    let kind = response.headers().get("content-type").cloned();
    let text = response.text().await?;
    ensure!(said == status, "{what}: {said} {text}");
    ensure!(kind.as_ref().is_some_and(|kind| kind == "application/problem+json"), "{what}: {kind:?} {text}");
    let problem: Value = serde_json::from_str(&text)?;
    ensure!(problem["field"].as_str() == field, "{what}: {text}");
    ensure!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{what}: {text}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_wrong_is_refused_with_its_field_and_nothing_is_stored() -> Result<()> {
    let prices = tempfile::NamedTempFile::new()?;
    let dear = i64::MAX / 3;
    let price = |sku: &str, amount: i64| json!({"sku": sku, "name": sku, "unit_price": {"amount": amount, "currency": "EUR"}});
    serde_json::to_writer(&prices, &json!([price("COFFEE", 500), price("PALACE", dear)]))?;
    let mut shop = Shop::prepared(|options| options.env.push(("ORDER_PRICES".into(), prices.path().display().to_string()))).await?;
    shop.replicas = shop.system.start_all(1).await?;
    let door = Door::of(&shop, "order-1");
    let order = |customer: Value, lines: Value| door.post("/orders").json(&json!({"customer": customer, "lines": lines}));
    let line = |sku: Value, quantity: Value| json!([{"sku": sku, "quantity": quantity}]);

    refused("unknown product", order(json!("ann"), line(json!("NONE"), json!(1))), 400, Some("lines[0].sku")).await?;
    for quantity in [json!(0), json!(-1), json!(1_000_001), json!(i64::MAX)] {
        refused("quantity", order(json!("ann"), line(json!("COFFEE"), quantity)), 400, Some("lines[0].quantity")).await?;
    }
    refused("a total that overflows", order(json!("ann"), line(json!("PALACE"), json!(4))), 400, Some("lines")).await?;
    let twice = json!([{"sku": "PALACE", "quantity": 2}, {"sku": "PALACE", "quantity": 2}]);
    refused("a total that overflows in two lines", order(json!("ann"), twice), 400, Some("lines")).await?;
    let many = vec![json!({"sku": "COFFEE", "quantity": 1}); 10_000];
    refused("10,000 lines", order(json!("ann"), json!(many)), 400, Some("lines")).await?;
    refused("no lines", order(json!("ann"), json!([])), 400, Some("lines")).await?;
    refused("a customer of a wrong type", order(json!(7), line(json!("COFFEE"), json!(1))), 400, Some("customer")).await?;
    refused("a quantity of a wrong type", order(json!("ann"), line(json!("COFFEE"), json!("1"))), 400, Some("lines[0].quantity")).await?;
    refused("a quantity that is no i64", order(json!("ann"), line(json!("COFFEE"), json!(1e30))), 400, Some("lines[0].quantity")).await?;
    let discount = json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1)), "discount": 100});
    refused("an unknown field", door.post("/orders").json(&discount), 400, Some("discount")).await?;
    refused("a missing field", door.post("/orders").json(&json!({"customer": "ann"})), 400, Some("body")).await?;

    let text = json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1))}).to_string();
    refused("no content type", door.post("/orders").body(text.clone()), 415, None).await?;
    refused("another content type", door.post("/orders").header("Content-Type", "text/xml").body(text.clone()), 415, None).await?;
    let raw = |body: Vec<u8>| door.post("/orders").header("Content-Type", "application/json").body(body);
    refused("not JSON", raw(b"{".to_vec()), 400, Some("body")).await?;
    refused("more than one", raw(format!("{text}{text}").into_bytes()), 400, Some("body")).await?;
    refused("not UTF-8", raw(b"{\"customer\": \"\xff\xfe\", \"lines\": []}".to_vec()), 400, Some("customer")).await?;

    let good = || json!({"customer": "ann", "lines": line(json!("COFFEE"), json!(1))});
    let keyed = |key: &str| door.client.post(format!("{}/orders", door.url)).header("Idempotency-Key", key).json(&good());
    refused("a key of 10 kB", keyed(&"k".repeat(10_000)), 400, Some("Idempotency-Key")).await?;
    refused("an empty key", keyed(""), 400, Some("Idempotency-Key")).await?;
    refused("no key", door.client.post(format!("{}/orders", door.url)).json(&good()), 400, Some("Idempotency-Key")).await?;

    let get = |path: &str| door.client.get(format!("{}{path}", door.url));
    refused("an id that is no UUID", get("/orders/1"), 400, Some("order_id")).await?;
    refused("an id that is not UTF-8", get("/orders/%ff"), 400, Some("path")).await?;
    refused("to cancel what is no UUID", door.post("/orders/1/cancel"), 400, Some("order_id")).await?;
    refused("an unknown field of a query", get("/orders?colour=red"), 400, Some("query")).await?;
    refused("a path that is none", get("/order"), 404, None).await?;
    refused("a method that is none", door.client.delete(format!("{}/orders", door.url)), 405, None).await?;

    ensure!(announce(&door.url, 5_000_000).await?.starts_with("HTTP/1.1 413 "), "5 MB are too much, and nobody waits for them");
    ensure!(shop.count(Service::Order, "select count(*) from orders").await? == 0, "nothing is stored");
    ensure!(
        shop.count(Service::Order, "select count(*) from reel.outbox where type like '%OrderCreated'").await? == 0,
        "nothing is published"
    );
    Ok(())
}

/// Sends the head of a request whose body has so many bytes, and nothing of the body; how the answer begins.
async fn announce(url: &str, bytes: usize) -> Result<String> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: here\r\nidempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: {bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_and_stock_that_are_wrong_are_refused_with_their_field_and_nothing_is_stored() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    let (till, warehouse) = (Door::of(&shop, "payment-1"), Door::of(&shop, "inventory-1"));
    let deposit = |customer: &str, body: Value| till.post(&format!("/accounts/{customer}/deposits")).json(&body);
    for amount in [json!(0), json!(-1), json!("1"), json!(1.5)] {
        refused("amount", deposit("ann", json!({"amount": amount, "currency": "EUR"})), 400, Some("amount")).await?;
    }
    refused("currency", deposit("ann", json!({"amount": 1, "currency": "euro"})), 400, Some("currency")).await?;
    refused("customer", deposit("an%20na", json!({"amount": 1, "currency": "EUR"})), 400, Some("customer")).await?;
    refused("a path that is not UTF-8", deposit("%ff", json!({"amount": 1, "currency": "EUR"})), 400, Some("path")).await?;

    let receipt = |sku: &str, body: Value| warehouse.post(&format!("/stock/{sku}/receipts")).json(&body);
    for quantity in [json!(0), json!(-1), json!(1_000_001), json!("1"), json!(null)] {
        refused("quantity", receipt("COFFEE", json!({"quantity": quantity})), 400, Some("quantity")).await?;
    }
    refused("sku", receipt("C%2FF", json!({"quantity": 1})), 400, Some("sku")).await?;
    refused("unknown field", receipt("COFFEE", json!({"quantity": 1, "colour": "red"})), 400, Some("colour")).await?;

    ensure!(shop.count(Service::Payment, "select count(*) from accounts").await? == 0, "no money is stored");
    ensure!(shop.count(Service::Inventory, "select count(*) from stock").await? == 0, "no stock is stored");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_prefers_to_wait_is_answered_when_the_order_has_ended_or_with_what_is_known() -> Result<()> {
    let mut shop = Shop::open(|_| {}).await?;
    let door = Door::of(&shop, "order-1");
    let ask = |key: &str, wait: &str| {
        let order = json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]});
        door.client.post(format!("{}/orders", door.url)).header("Idempotency-Key", key).header("Prefer", wait).json(&order)
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
    ensure!(order["status"] == "open", "nobody takes the money: {order}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_listed_by_pages_the_newest_first() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let placed = shop.order("page", 5).await?;
    shop.client.deposit("bob", 1_000, "first").await?.created()?;
    let of_bob = shop.client.place("bob", &[("COFFEE", 1)], "page").await?.order_id()?;
    shop.ends_well().await?;

    let door = Door::of(&shop, "order-2");
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = door.get(&format!("/orders?customer=ann&limit=2{cursor}")).await?;
        let orders = page["orders"].as_array().context("orders")?;
        ensure!(orders.len() <= 2, "{page}");
        seen.extend(orders.iter().filter_map(|order| order["order_id"].as_str().map(str::to_owned)));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let newest_first: Vec<_> = placed.iter().rev().map(ToString::to_string).collect();
    ensure!(seen == newest_first, "{seen:?}, {newest_first:?}");

    let ids = |page: Value| page["orders"].as_array().map_or(0, Vec::len);
    ensure!(door.get("/orders").await?["orders"][0]["order_id"] == of_bob.to_string(), "everybody's, the newest first");
    ensure!(ids(door.get("/orders?status=open").await?) == 0);
    ensure!(
        ids(door.get("/orders?status=cancelled&customer=ann").await?) + ids(door.get("/orders?status=confirmed&customer=ann").await?) == 5
    );
    Ok(())
}
