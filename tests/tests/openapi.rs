//! Each route and each status of the documents at `/openapi.json` is real: all of them are met here, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use orderctl::system::Service;
use reqwest::{Method, StatusCode};
use saga_tests::{LIMIT, Shop, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NOBODY: &str = "018f3f5e-7b1a-7c3d-8e2f-0123456789ab";

/// A service, a method, the template of a path, a status.
type Met = (Service, String, String, u16);

/// Asks, and notes which status of which route it met.
struct Asker<'a> {
    shop: &'a Shop,
    http: reqwest::Client,
    met: BTreeSet<Met>,
}

/// A request to be sent. What is not said is as it should be.
struct Ask<'a> {
    service: Service,
    method: Method,
    template: &'a str,
    path: String,
    token: Option<String>,
    key: Option<&'a str>,
    content_type: &'a str,
    body: Option<Vec<u8>>,
    last_event: Option<&'a str>,
}

fn get<'a>(service: Service, template: &'a str, value: &str) -> Ask<'a> {
    let path = match (template.find('{'), template.find('}')) {
        (Some(from), Some(to)) => format!("{}{value}{}", &template[..from], &template[to + 1..]),
        _ => template.to_owned(),
    };
    let (key, content_type) = (Some("a key"), "application/json");
    Ask { service, method: Method::GET, template, path, token: None, key, content_type, body: None, last_event: None }
}

fn post<'a>(service: Service, template: &'a str, value: &str, body: Option<Value>) -> Ask<'a> {
    Ask { method: Method::POST, body: body.map(|body| body.to_string().into_bytes()), ..get(service, template, value) }
}

impl Asker<'_> {
    async fn meet(&mut self, status: u16, ask: Ask<'_>) -> Result<()> {
        let url = self.shop.replica(&format!("{}-1", ask.service)).url();
        let token = ask.token.unwrap_or_else(|| self.shop.token());
        let mut request = self.http.request(ask.method.clone(), format!("{url}{}", ask.path)).timeout(LIMIT);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(key) = ask.key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(last) = ask.last_event {
            request = request.header("Last-Event-ID", last);
        }
        if let Some(body) = ask.body {
            request = request.header("Content-Type", ask.content_type).body(body);
        }
        let response = request.send().await?;
        let said = response.status().as_u16();
        ensure!(said == status, "{} {}: {said} and not {status}: {}", ask.method, ask.path, response.text().await?);
        self.note(ask.service, &ask.method, ask.template, status);
        Ok(())
    }

    fn note(&mut self, service: Service, method: &Method, template: &str, status: u16) {
        self.met.insert((service, method.as_str().to_lowercase(), template.to_owned(), status));
    }
}

/// What the documents of all services say.
async fn documented(shop: &Shop) -> Result<BTreeSet<Met>> {
    let mut all = BTreeSet::new();
    for service in Service::ALL {
        let url = format!("{}/openapi.json", shop.replica(&format!("{service}-1")).url());
        let document: Value = reqwest::get(url).await?.error_for_status()?.json().await?;
        ensure!(document["openapi"] == "3.1.0" && document["info"]["title"] == format!("The {service} service"), "{document}");
        for (path, methods) in document["paths"].as_object().context("paths")? {
            for (method, operation) in methods.as_object().context("methods")? {
                for status in operation["responses"].as_object().context("responses")?.keys() {
                    all.insert((service, method.clone(), path.clone(), status.parse()?));
                }
            }
        }
    }
    Ok(all)
}

/// Sends the head of a request and never its body; the status of the answer.
async fn silent(url: &str, path: &str, token: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\nidempotency-key: k\r\n\
         content-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[9..]).parse()?)
}

fn silences(shop: &Shop) -> Vec<(Service, &'static str, tokio::task::JoinHandle<Result<u16>>)> {
    let routes = [
        (Service::Order, "/orders", "/orders"),
        (Service::Payment, "/accounts/{customer}/deposits", "/accounts/ann/deposits"),
        (Service::Inventory, "/stock/{sku}/receipts", "/stock/COFFEE/receipts"),
    ];
    let silent = |(service, template, path): (Service, &'static str, &'static str)| {
        let (url, token) = (shop.replica(&format!("{service}-1")).url().to_owned(), shop.token());
        (service, template, tokio::spawn(async move { silent(&url, path, &token).await }))
    };
    routes.map(silent).into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_status_of_every_route_is_real_and_no_other_is_met() -> Result<()> {
    use Service::{Inventory, Order, Payment};
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    let silences = silences(&shop);
    let mut asker = Asker { shop: &shop, http: reqwest::Client::builder().no_proxy().build()?, met: BTreeSet::new() };
    let token = |customer: &str| shop.system.tokens().token(customer, "", Duration::from_mins(5)).map(Some);
    let order = |quantity: i64| json!({"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": quantity}]});
    let (deposit, receipt) = (json!({"amount": 5, "currency": "EUR"}), json!({"quantity": 5}));

    let placed = shop.order("settled", 1).await?[0].to_string();
    let path = format!("/orders/{placed}");
    eventually("the order to be confirmed, and its timeline to know it", || async {
        let order = shop.client.get(Order, &path).await?.json;
        Ok(order["status"] == "confirmed" && order["timeline"].as_array().is_some_and(|timeline| timeline.len() == 4))
    })
    .await?;
    // Nobody has no account: it is cancelled by hand, if not for that.
    let cancelled = shop.client.place("nobody", &[("COFFEE", 1)], "cancelled").await?.order_id()?.to_string();

    let [place, deposits, receipts] =
        [(Order, "/orders"), (Payment, "/accounts/{customer}/deposits"), (Inventory, "/stock/{sku}/receipts")];
    for (service, template, value, body, wrong) in [
        (place.0, place.1, "", order(1), order(0)),
        (deposits.0, deposits.1, "ann", deposit.clone(), json!({"amount": 0, "currency": "EUR"})),
        (receipts.0, receipts.1, "COFFEE", receipt.clone(), json!({"quantity": 0})),
    ] {
        let ask = || post(service, template, value, Some(body.clone()));
        asker.meet(201, ask()).await?;
        asker.meet(400, Ask { key: Some("wrong"), ..post(service, template, value, Some(wrong)) }).await?;
        asker.meet(401, Ask { token: Some(String::new()), ..ask() }).await?;
        asker.meet(403, Ask { token: token("bob")?, ..ask() }).await?;
        asker.meet(413, Ask { body: Some(vec![b' '; 2_000_000]), ..ask() }).await?;
        asker.meet(415, Ask { content_type: "text/plain", ..ask() }).await?;
    }
    asker.meet(422, post(Order, "/orders", "", Some(order(2)))).await?;
    asker.meet(422, post(deposits.0, deposits.1, "ann", Some(json!({"amount": 6, "currency": "EUR"})))).await?;
    asker.meet(422, post(receipts.0, receipts.1, "COFFEE", Some(json!({"quantity": 6})))).await?;
    let dollars = json!({"amount": 5, "currency": "USD"});
    asker.meet(409, Ask { key: Some("another"), ..post(deposits.0, deposits.1, "ann", Some(dollars)) }).await?;
    shop.client.receive("MUG", 1, "first").await?.created()?;
    sqlx::raw_sql("update stock set on_hand = 9223372036854775807, received = 9223372036854775807 where sku = 'MUG'")
        .execute(shop.system.pool(Inventory))
        .await?;
    asker.meet(409, Ask { key: Some("another"), ..post(receipts.0, receipts.1, "MUG", Some(receipt.clone())) }).await?;

    let (one, cancel, events) = ("/orders/{order_id}", "/orders/{order_id}/cancel", "/orders/{order_id}/events");
    asker.meet(200, post(Order, cancel, &cancelled, None)).await?;
    asker.meet(409, post(Order, cancel, &placed, None)).await?;
    asker.meet(200, get(Order, events, &placed)).await?;
    asker.meet(204, Ask { last_event: Some("2.1.1"), ..get(Order, events, &placed) }).await?;
    for (template, value) in [(one, placed.as_str()), ("/orders", ""), ("/products", "")] {
        asker.meet(200, get(Order, template, value)).await?;
        asker.meet(401, Ask { token: Some(String::new()), ..get(Order, template, value) }).await?;
    }
    asker.meet(400, Ask { path: "/orders?limit=0".into(), ..get(Order, "/orders", "") }).await?;
    asker.meet(403, Ask { path: "/orders?customer=ann".into(), token: token("bob")?, ..get(Order, "/orders", "") }).await?;
    for ask in [get(Order, one, ""), get(Order, events, ""), post(Order, cancel, "", None)] {
        let of = |value: &str| Ask { method: ask.method.clone(), ..get(Order, ask.template, value) };
        asker.meet(400, of("x")).await?;
        asker.meet(401, Ask { token: Some(String::new()), ..of(NOBODY) }).await?;
        asker.meet(404, of(NOBODY)).await?;
    }
    for (service, template, value, none) in
        [(Payment, "/accounts/{customer}", "ann", "nobody"), (Inventory, "/stock/{sku}", "COFFEE", "NONE")]
    {
        asker.meet(200, get(service, template, value)).await?;
        asker.meet(400, get(service, template, "a%20b")).await?;
        asker.meet(401, Ask { token: Some(String::new()), ..get(service, template, value) }).await?;
        asker.meet(404, get(service, template, none)).await?;
    }
    asker.meet(403, Ask { token: token("bob")?, ..get(Payment, "/accounts/{customer}", "ann") }).await?;

    // What cannot be stored fails here. An order whose payment cannot be stored stays open.
    for (service, never) in [
        (Payment, "alter table payments add check (false) not valid"),
        (Order, "alter table orders add check (status <> 'cancelled' and customer <> 'cursed') not valid"),
        (Payment, "alter table deposits add check (amount <> 13) not valid"),
        (Inventory, "alter table receipts add check (quantity <> 13) not valid"),
    ] {
        sqlx::raw_sql(never).execute(shop.system.pool(service)).await?;
    }
    let open = shop.order("open", 1).await?[0].to_string();
    let cursed = json!({"customer": "cursed", "lines": [{"sku": "COFFEE", "quantity": 1}]});
    asker.meet(500, post(Order, "/orders", "", Some(cursed))).await?;
    asker.meet(500, post(Order, cancel, &open, None)).await?;
    let thirteen = json!({"amount": 13, "currency": "EUR"});
    asker.meet(500, Ask { key: Some("failed"), ..post(deposits.0, deposits.1, "ann", Some(thirteen)) }).await?;
    asker.meet(500, Ask { key: Some("failed"), ..post(receipts.0, receipts.1, "COFFEE", Some(json!({"quantity": 13}))) }).await?;

    for service in Service::ALL {
        sqlx::raw_sql("drop schema reel cascade; drop schema public cascade").execute(shop.system.pool(service)).await?;
    }
    let refuses = |service: Service| {
        let shop = &shop;
        async move { Ok(shop.health(shop.replica(&format!("{service}-1"))).await?["ready"] == false) }
    };
    for service in Service::ALL {
        eventually("it to take nothing any more", || refuses(service)).await?;
    }
    asker.meet(503, post(Order, "/orders", "", Some(order(1)))).await?;
    asker.meet(503, post(Order, cancel, NOBODY, None)).await?;
    asker.meet(503, post(deposits.0, deposits.1, "ann", Some(deposit))).await?;
    asker.meet(503, post(receipts.0, receipts.1, "COFFEE", Some(receipt))).await?;
    for (service, template, value) in [
        (Order, one, NOBODY),
        (Order, events, NOBODY),
        (Order, "/orders", ""),
        (Payment, "/accounts/{customer}", "ann"),
        (Inventory, "/stock/{sku}", "COFFEE"),
    ] {
        asker.meet(503, get(service, template, value)).await?;
    }
    for (service, template, silence) in silences {
        ensure!(silence.await?? == StatusCode::REQUEST_TIMEOUT.as_u16(), "{template}");
        asker.note(service, &Method::POST, template, 408);
    }

    let documented = documented(&shop).await?;
    let (unreal, unsaid): (Vec<_>, Vec<_>) = (documented.difference(&asker.met).collect(), asker.met.difference(&documented).collect());
    ensure!(unreal.is_empty() && unsaid.is_empty(), "in the documents and never met: {unreal:#?}; met and not in them: {unsaid:#?}");
    Ok(())
}
