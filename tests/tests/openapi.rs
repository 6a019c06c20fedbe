//! The documents at `/openapi.json`: every documented status of every route occurs here, and no
//! other.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use orderctl::system::Service;
use reqwest::{Method, StatusCode};
use saga_tests::{LIMIT, Shop, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

const NOBODY: &str = "018f3f5e-7b1a-7c3d-8e2f-0123456789ab";

/// A service, a method, the template of a path, and a status.
type Outcome = (Service, String, String, u16);

/// A client that records the outcomes it has seen.
struct Coverage<'a> {
    shop: &'a Shop,
    http: reqwest::Client,
    seen: BTreeSet<Outcome>,
}

/// A request to send. It is valid unless a test changes a field.
struct Request<'a> {
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

fn get<'a>(service: Service, template: &'a str, value: &str) -> Request<'a> {
    let path = match (template.find('{'), template.find('}')) {
        (Some(from), Some(to)) => format!("{}{value}{}", &template[..from], &template[to + 1..]),
        _ => template.to_owned(),
    };
    let (key, content_type) = (Some("a key"), "application/json");
    Request {
        service,
        method: Method::GET,
        template,
        path,
        token: None,
        key,
        content_type,
        body: None,
        last_event: None,
    }
}

fn post<'a>(service: Service, template: &'a str, value: &str, body: Option<Value>) -> Request<'a> {
    Request {
        method: Method::POST,
        body: body.map(|body| body.to_string().into_bytes()),
        ..get(service, template, value)
    }
}

impl Coverage<'_> {
    /// Sends a request, checks the status of the answer and records it.
    async fn expect(&mut self, status: u16, request: Request<'_>) -> Result<()> {
        let url = self.shop.replica(&format!("{}-1", request.service)).url();
        let token = request.token.unwrap_or_else(|| self.shop.token());
        let mut builder = self
            .http
            .request(request.method.clone(), format!("{url}{}", request.path))
            .timeout(LIMIT);
        if !token.is_empty() {
            builder = builder.bearer_auth(token);
        }
        if let Some(key) = request.key {
            builder = builder.header("Idempotency-Key", key);
        }
        if let Some(last) = request.last_event {
            builder = builder.header("Last-Event-ID", last);
        }
        if let Some(body) = request.body {
            builder = builder.header("Content-Type", request.content_type).body(body);
        }

        let response = builder.send().await?;
        let answered = response.status().as_u16();
        ensure!(
            answered == status,
            "{} {}: got {answered}, expected {status}: {}",
            request.method,
            request.path,
            response.text().await?
        );
        self.record(request.service, &request.method, request.template, status);
        Ok(())
    }

    fn record(&mut self, service: Service, method: &Method, template: &str, status: u16) {
        self.seen.insert((service, method.as_str().to_lowercase(), template.to_owned(), status));
    }
}

/// The outcomes that the documents of all services list.
async fn documented(shop: &Shop) -> Result<BTreeSet<Outcome>> {
    let mut all = BTreeSet::new();
    for service in Service::all() {
        let url = format!("{}/openapi.json", shop.replica(&format!("{service}-1")).url());
        let document: Value = reqwest::get(url).await?.error_for_status()?.json().await?;
        ensure!(
            document["openapi"] == "3.1.0"
                && document["info"]["title"] == format!("The {service} service"),
            "{document}"
        );
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

/// Sends the head of a request and never its body. Returns the status of the answer.
async fn send_without_body(url: &str, path: &str, token: &str) -> Result<u16> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await??;
    Ok(String::from_utf8_lossy(&answer[9..]).parse()?)
}

/// A command with a body of each service.
const WITH_BODY: [(&str, Service); 3] = [
    ("/orders", Service::ORDER),
    ("/accounts/ann/deposits", Service::PAYMENT),
    ("/stock/COFFEE/receipts", Service::INVENTORY),
];

/// A route and the pending answer to a request without a body.
type Unfinished = (Service, &'static str, JoinHandle<Result<u16>>);

/// Begins a request that reads a body, and returns once it is read.
async fn begin(url: &str, path: &str, token: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(url.trim_start_matches("http://")).await?;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: k\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\
         expect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = [0; 12];
    tokio::time::timeout(LIMIT, stream.read_exact(&mut answer)).await??;
    ensure!(answer == *b"HTTP/1.1 100", "{}", String::from_utf8_lossy(&answer));
    Ok(stream)
}

/// Starts a request to each route that reads a body, and never sends the body.
fn unfinished_requests(shop: &Shop) -> Vec<Unfinished> {
    let routes = [
        (Service::ORDER, "/orders", "/orders"),
        (Service::PAYMENT, "/accounts/{customer}/deposits", "/accounts/ann/deposits"),
        (Service::INVENTORY, "/stock/{sku}/receipts", "/stock/COFFEE/receipts"),
    ];
    let start = |(service, template, path): (Service, &'static str, &'static str)| {
        let (url, token) = (shop.replica(&format!("{service}-1")).url().to_owned(), shop.token());
        (
            service,
            template,
            tokio::spawn(async move { send_without_body(&url, path, &token).await }),
        )
    };
    routes.map(start).into()
}

/// Has a caller with a request in progress, at replicas that handle one of each caller at a time,
/// send another one to every route.
async fn every_route_knows_when_a_caller_sends_too_much(coverage: &mut Coverage<'_>) -> Result<()> {
    let (shop, http) = (coverage.shop, coverage.http.clone());
    let token = shop.token();
    let routes = documented(shop).await?;
    for service in Service::SAGA {
        let limit = [("CALLER_LIMIT", "1")];
        let mut replica = shop.system.start_with(service, &format!("{service}-2"), &limit).await?;
        replica.wait_ready().await?;
        let url = replica.url().to_owned();
        let (path, _) = WITH_BODY.iter().find(|(_, of)| *of == service).context("a command")?;
        let in_progress = begin(&url, path, &token).await?;

        for (of, method, template, status) in &routes {
            if *of != service || *status != 429 {
                continue;
            }
            let path = template.replace("{order_id}", NOBODY).replace(['{', '}'], "");
            let method: Method = method.to_uppercase().parse()?;
            let request = http.request(method.clone(), format!("{url}{path}")).bearer_auth(&token);
            let answer = request.timeout(LIMIT).send().await?;
            ensure!(
                answer.status() == StatusCode::TOO_MANY_REQUESTS,
                "{method} {path}: {answer:?}"
            );
            ensure!(answer.headers().contains_key("retry-after"), "{answer:?}");
            coverage.record(service, &method, template, 429);
        }
        drop(in_progress);
        replica.stop().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_status_of_every_route_occurs_and_no_other_does() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;

    let unfinished = unfinished_requests(&shop);
    let mut coverage = Coverage {
        shop: &shop,
        http: reqwest::Client::builder().no_proxy().build()?,
        seen: BTreeSet::new(),
    };
    let token =
        |customer: &str| shop.system.tokens().token(customer, "", Duration::from_mins(5)).map(Some);
    let order = |quantity: i64| {
        let lines = json!([{"sku": "COFFEE", "quantity": quantity}]);
        json!({"customer": "ann", "lines": lines})
    };
    let (deposit, receipt) = (json!({"amount": 5, "currency": "EUR"}), json!({"quantity": 5}));

    let placed = shop.order("settled", 1).await?[0].to_string();
    let path = format!("/orders/{placed}");
    eventually("the order to be confirmed, and its timeline to know it", || async {
        let order = shop.client.get(Service::ORDER, &path).await?.json;
        Ok(order["status"] == "confirmed"
            && order["timeline"].as_array().is_some_and(|timeline| timeline.len() == 4))
    })
    .await?;

    // The customer has no account, so the order is cancelled, at the latest by the request below.
    let cancelled =
        shop.client.place("nobody", &[("COFFEE", 1)], "cancelled").await?.order_id()?.to_string();

    // Commands that carry a body.
    let [place, deposits, receipts] = [
        (Service::ORDER, "/orders"),
        (Service::PAYMENT, "/accounts/{customer}/deposits"),
        (Service::INVENTORY, "/stock/{sku}/receipts"),
    ];
    for (service, template, value, body, wrong) in [
        (place.0, place.1, "", order(1), order(0)),
        (deposits.0, deposits.1, "ann", deposit.clone(), json!({"amount": 0, "currency": "EUR"})),
        (receipts.0, receipts.1, "COFFEE", receipt.clone(), json!({"quantity": 0})),
    ] {
        let request = || post(service, template, value, Some(body.clone()));
        coverage.expect(201, request()).await?;
        coverage
            .expect(
                400,
                Request { key: Some("wrong"), ..post(service, template, value, Some(wrong)) },
            )
            .await?;
        coverage.expect(401, Request { token: Some(String::new()), ..request() }).await?;
        coverage.expect(403, Request { token: token("bob")?, ..request() }).await?;
        coverage.expect(413, Request { body: Some(vec![b' '; 2_000_000]), ..request() }).await?;
        coverage.expect(415, Request { content_type: "text/plain", ..request() }).await?;
    }

    coverage.expect(422, post(Service::ORDER, "/orders", "", Some(order(2)))).await?;
    coverage
        .expect(
            422,
            post(deposits.0, deposits.1, "ann", Some(json!({"amount": 6, "currency": "EUR"}))),
        )
        .await?;
    coverage
        .expect(422, post(receipts.0, receipts.1, "COFFEE", Some(json!({"quantity": 6}))))
        .await?;
    let dollars = json!({"amount": 5, "currency": "USD"});
    coverage
        .expect(
            409,
            Request { key: Some("another"), ..post(deposits.0, deposits.1, "ann", Some(dollars)) },
        )
        .await?;
    shop.client.receive("MUG", 1, "first").await?.created()?;
    sqlx::raw_sql(
        "update stock set on_hand = 9223372036854775807, received = 9223372036854775807
         where sku = 'MUG'",
    )
    .execute(shop.system.pool(Service::INVENTORY))
    .await?;
    coverage
        .expect(
            409,
            Request {
                key: Some("another"),
                ..post(receipts.0, receipts.1, "MUG", Some(receipt.clone()))
            },
        )
        .await?;

    // Cancelling and reading.
    let (one, cancel, events) =
        ("/orders/{order_id}", "/orders/{order_id}/cancel", "/orders/{order_id}/events");
    coverage.expect(200, post(Service::ORDER, cancel, &cancelled, None)).await?;
    coverage.expect(409, post(Service::ORDER, cancel, &placed, None)).await?;
    coverage.expect(200, get(Service::ORDER, events, &placed)).await?;
    coverage
        .expect(204, Request { last_event: Some("2.1.1"), ..get(Service::ORDER, events, &placed) })
        .await?;
    for (template, value) in [(one, placed.as_str()), ("/orders", ""), ("/products", "")] {
        coverage.expect(200, get(Service::ORDER, template, value)).await?;
        coverage
            .expect(
                401,
                Request { token: Some(String::new()), ..get(Service::ORDER, template, value) },
            )
            .await?;
    }

    coverage
        .expect(
            400,
            Request { path: "/orders?limit=0".into(), ..get(Service::ORDER, "/orders", "") },
        )
        .await?;
    coverage
        .expect(
            403,
            Request {
                path: "/orders?customer=ann".into(),
                token: token("bob")?,
                ..get(Service::ORDER, "/orders", "")
            },
        )
        .await?;
    for request in [
        get(Service::ORDER, one, ""),
        get(Service::ORDER, events, ""),
        post(Service::ORDER, cancel, "", None),
    ] {
        let of = |value: &str| Request {
            method: request.method.clone(),
            ..get(Service::ORDER, request.template, value)
        };
        coverage.expect(400, of("x")).await?;
        coverage.expect(401, Request { token: Some(String::new()), ..of(NOBODY) }).await?;
        coverage.expect(404, of(NOBODY)).await?;
    }

    for (service, template, value, missing) in [
        (Service::PAYMENT, "/accounts/{customer}", "ann", "nobody"),
        (Service::INVENTORY, "/stock/{sku}", "COFFEE", "NONE"),
    ] {
        coverage.expect(200, get(service, template, value)).await?;
        coverage.expect(400, get(service, template, "a%20b")).await?;
        coverage
            .expect(401, Request { token: Some(String::new()), ..get(service, template, value) })
            .await?;
        coverage.expect(404, get(service, template, missing)).await?;
    }

    coverage
        .expect(
            403,
            Request {
                token: token("bob")?,
                ..get(Service::PAYMENT, "/accounts/{customer}", "ann")
            },
        )
        .await?;

    every_route_knows_when_a_caller_sends_too_much(&mut coverage).await?;

    // 500: constraints keep some values from being stored. An order whose payment cannot be stored
    // stays open.
    for (service, constraint) in [
        (Service::PAYMENT, "alter table payments add check (false) not valid"),
        (
            Service::ORDER,
            "alter table orders
                add check (status <> 'cancelled' and customer <> 'cursed') not valid",
        ),
        (Service::PAYMENT, "alter table deposits add check (amount <> 13) not valid"),
        (Service::INVENTORY, "alter table receipts add check (quantity <> 13) not valid"),
    ] {
        sqlx::raw_sql(constraint).execute(shop.system.pool(service)).await?;
    }
    let open = shop.order("open", 1).await?[0].to_string();
    let cursed = json!({"customer": "cursed", "lines": [{"sku": "COFFEE", "quantity": 1}]});
    coverage.expect(500, post(Service::ORDER, "/orders", "", Some(cursed))).await?;
    coverage.expect(500, post(Service::ORDER, cancel, &open, None)).await?;
    let thirteen = json!({"amount": 13, "currency": "EUR"});
    coverage
        .expect(
            500,
            Request { key: Some("failed"), ..post(deposits.0, deposits.1, "ann", Some(thirteen)) },
        )
        .await?;
    coverage
        .expect(
            500,
            Request {
                key: Some("failed"),
                ..post(receipts.0, receipts.1, "COFFEE", Some(json!({"quantity": 13})))
            },
        )
        .await?;

    // 503: the tables are gone.
    for service in Service::all() {
        sqlx::raw_sql("drop schema reel cascade; drop schema public cascade")
            .execute(shop.system.pool(service))
            .await?;
    }
    for service in Service::all() {
        eventually("the service not to be ready", || async {
            let health = shop.health(shop.replica(&format!("{service}-1"))).await?;
            Ok(health["ready"] == false)
        })
        .await?;
    }

    coverage.expect(503, post(Service::ORDER, "/orders", "", Some(order(1)))).await?;
    coverage.expect(503, post(Service::ORDER, cancel, NOBODY, None)).await?;
    coverage.expect(503, post(deposits.0, deposits.1, "ann", Some(deposit))).await?;
    coverage.expect(503, post(receipts.0, receipts.1, "COFFEE", Some(receipt))).await?;
    for (service, template, value) in [
        (Service::ORDER, one, NOBODY),
        (Service::ORDER, events, NOBODY),
        (Service::ORDER, "/orders", ""),
        (Service::PAYMENT, "/accounts/{customer}", "ann"),
        (Service::INVENTORY, "/stock/{sku}", "COFFEE"),
    ] {
        coverage.expect(503, get(service, template, value)).await?;
    }

    // 408: the service has given up waiting for the bodies.
    for (service, template, answer) in unfinished {
        ensure!(answer.await?? == StatusCode::REQUEST_TIMEOUT.as_u16(), "{template}");
        coverage.record(service, &Method::POST, template, 408);
    }

    let documented = documented(&shop).await?;
    let unseen: Vec<_> = documented.difference(&coverage.seen).collect();
    let undocumented: Vec<_> = coverage.seen.difference(&documented).collect();
    ensure!(
        unseen.is_empty() && undocumented.is_empty(),
        "documented and never seen: {unseen:#?}; seen and not documented: {undocumented:#?}"
    );

    Ok(())
}
