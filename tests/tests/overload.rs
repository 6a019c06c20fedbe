//! Overload: more commands than a service takes, and slow clients.

use std::time::Duration;

use anyhow::{Result, ensure};
use devstack::Port;
use futures_util::future::try_join_all;
use orderctl::system::{Service, SystemOptions};
use reqwest::StatusCode;
use saga_tests::{Shop, eventually};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Starts one replica of each service.
async fn alone(change: impl FnOnce(&mut SystemOptions)) -> Result<Shop> {
    let mut shop = Shop::prepared(change).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    Ok(shop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_beyond_the_limit_get_503_and_nothing_of_them_is_stored() -> Result<()> {
    const ORDERS: u64 = 200;
    let shop = alone(|options| options.env.push(("COMMAND_LIMIT".into(), "4".into()))).await?;
    let order = shop.replica("order-1");
    let keys: Vec<String> = (0..ORDERS).map(|nth| format!("load-{nth}")).collect();
    let answers = try_join_all(keys.iter().map(|key| shop.ask_once(order, key))).await?;

    let mut taken = 0;
    for answer in answers {
        if answer.status() == StatusCode::CREATED {
            taken += 1;
            continue;
        }

        ensure!(
            answer.status() == StatusCode::SERVICE_UNAVAILABLE
                && answer.headers().contains_key("retry-after"),
            "{answer:?}"
        );
        let problem: Value = answer.json().await?;
        ensure!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("queue of commands is full")),
            "{problem}"
        );
    }

    ensure!((1..ORDERS).contains(&taken), "{taken} of {ORDERS} were taken");
    let stored = u64::try_from(shop.count(Service::ORDER, "select count(*) from orders").await?)?;
    ensure!(stored == taken, "{taken} were taken, {stored} are stored");

    for key in &keys {
        shop.client.place("ann", &[("COFFEE", 1)], key).await?.order_id()?;
    }
    ensure!(
        shop.ends_well().await?.confirmed == ORDERS,
        "after a retry with the same keys, every order is there once"
    );

    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_send_half_a_request_or_read_nothing_hold_no_transaction_and_delay_nobody()
-> Result<()> {
    let shop = alone(|_| {}).await?;
    let (address, token) =
        (shop.replica("order-1").url().trim_start_matches("http://").to_owned(), shop.token());

    // Clients stop within a header or within a body, or read none of their answers.
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: half\r\ncontent-type: application/json\r\n\
         content-length: 1000\r\n\r\n{{"
    );
    let list = format!(
        "GET /orders?limit=100 HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .repeat(200);
    let mut held = Vec::new();
    for sent in ["POST /orders HTTP/1.1\r\nhost", &head, &list] {
        for _ in 0..20 {
            let mut client = TcpStream::connect(&address).await?;
            client.write_all(sent.as_bytes()).await?;
            held.push(client);
        }
    }

    shop.order("among-them", 20).await?;
    ensure!(shop.ends_well().await?.confirmed == 20);
    let idle = "select count(*) from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend'
            and state like 'idle in transaction%'
            and xact_start < clock_timestamp() - interval '1 second'";
    ensure!(shop.count(Service::ORDER, idle).await? == 0, "no transaction waits for a client");
    ensure!(held.len() == 60);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_disconnects_while_waiting_frees_its_place() -> Result<()> {
    let mut shop =
        Shop::prepared(|options| options.env.push(("WAITING_LIMIT".into(), "1".into()))).await?;
    let mut order = shop.system.start(Service::ORDER, "order-1").await?;
    order.wait_ready().await?;
    shop.replicas.push(order);

    // The order stays open, because no other service runs.
    let open = shop.client.place("ann", &[("COFFEE", 1)], "open").await?.order_id()?;
    let (url, token) = (shop.replica("order-1").url().to_owned(), shop.token());
    let stream = || {
        reqwest::Client::new().get(format!("{url}/orders/{open}/events")).bearer_auth(&token).send()
    };

    let first = stream().await?.error_for_status()?;
    ensure!(
        stream().await?.status() == StatusCode::SERVICE_UNAVAILABLE,
        "the first stream has the only place"
    );
    drop(first);
    eventually("the stream's place to be free again", async || {
        Ok(stream().await?.status() == StatusCode::OK)
    })
    .await?;

    let body = r#"{"customer": "ann", "lines": [{"sku": "COFFEE", "quantity": 1}]}"#;
    let head = format!(
        "POST /orders HTTP/1.1\r\nhost: here\r\nauthorization: Bearer {token}\r\n\
         idempotency-key: waits\r\nprefer: wait=60\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );

    // If the place of the previous stream is not free yet, the service ignores the preference and
    // answers at once.
    let mut waits = TcpStream::connect(url.trim_start_matches("http://")).await?;
    waits.write_all(head.as_bytes()).await?;
    while tokio::time::timeout(Duration::from_secs(1), waits.read(&mut [0; 1024])).await.is_ok() {
        waits = TcpStream::connect(url.trim_start_matches("http://")).await?;
        waits.write_all(head.as_bytes()).await?;
    }

    ensure!(
        stream().await?.status() == StatusCode::SERVICE_UNAVAILABLE,
        "the waiting client has the only place"
    );
    drop(waits);
    eventually("the waiting client's place to be free again", async || {
        Ok(stream().await?.status() == StatusCode::OK)
    })
    .await?;

    Ok(())
}

/// Connections that say nothing, or half a head, take every place that a replica has for clients,
/// and those in which it answers health checks besides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_connections_do_not_keep_the_health_address_from_answering() -> Result<()> {
    let mut shop = Shop::prepared(|_| {}).await?;
    let port = Port::reserve(None)?;
    let address = format!("127.0.0.1:{}", port.number());
    let environment = [("HEALTH_ADDRESS", address.as_str()), ("HTTP_CONNECTIONS", "8")];
    let mut order = shop.system.start_with(Service::ORDER, "order-1", &environment).await?;
    order.wait_ready().await?;
    shop.replicas.push(order);

    let host = shop.replica("order-1").url().trim_start_matches("http://").to_owned();
    let half = format!("GET /orders HTTP/1.1\r\nhost: here\r\nx: {}", "x".repeat(10_000));
    let hostile = (0..200).map(async |nth| {
        let mut stream = TcpStream::connect(&host).await?;
        if nth % 2 == 0 {
            stream.write_all(half.as_bytes()).await?;
        }
        anyhow::Ok(stream)
    });
    let held = try_join_all(hostile).await?;

    for path in ["live", "ready"] {
        let answer = reqwest::get(format!("http://{address}/health/{path}")).await?;
        ensure!(answer.status() == StatusCode::OK, "{path}: {answer:?}");
    }
    let elsewhere = reqwest::get(format!("http://{address}/products")).await?;
    ensure!(elsewhere.status() == StatusCode::NOT_FOUND, "it answers nothing else: {elsewhere:?}");
    drop(held);
    Ok(())
}
