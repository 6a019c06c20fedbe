//! Whole sagas across processes.

use std::time::Duration;

use anyhow::Result;
use orderctl::system::Service;
use saga_tests::{Shop, eventually};
use serde_json::Value;

#[tokio::test]
async fn an_order_ends_in_every_possible_way() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    shop.client.deposit("poor", 1, "first").await?.created()?;
    let good = shop.order("good", 1).await?[0];
    let poor = shop.client.place("poor", &[("COFFEE", 1)], "k").await?.order_id()?;
    let unknown = shop.client.place("nobody", &[("COFFEE", 1)], "k").await?.order_id()?;
    let short = shop.client.place("ann", &[("GRINDER", 1)], "k").await?.order_id()?;
    shop.ends_well().await?;
    for (order, reason) in
        [(poor, "payment_failed"), (unknown, "payment_failed"), (short, "out_of_stock")]
    {
        let order = shop.client.order(order).await?.success()?;
        assert_eq!(
            (&order["status"], &order["reason"]),
            (&"cancelled".into(), &reason.into()),
            "{order}"
        );
    }

    assert_eq!(shop.status(good).await?, "confirmed");
    assert_eq!(shop.client.cancel(good).await?.status, 409, "too late");
    assert_eq!(shop.client.cancel(poor).await?.status, 200, "already cancelled");
    Ok(())
}

#[tokio::test]
async fn a_cancelled_and_an_expired_order_are_refunded_once() -> Result<()> {
    // Inventory starts late, so that both orders are cancelled after their money was taken.
    let mut shop =
        Shop::prepared(|options| options.settle_within = Duration::from_secs(15)).await?;
    for service in [Service::ORDER, Service::PAYMENT] {
        shop.replicas.push(shop.system.start(service, &format!("{service}-1")).await?);
    }
    for replica in &mut shop.replicas {
        replica.wait_ready().await?;
    }

    shop.client.deposit("ann", 10_000, "first").await?.created()?;
    let orders = shop.order("late", 2).await?;
    eventually("the money to be taken", || async {
        Ok(shop.count(Service::PAYMENT, "select count(*) from payments").await? == 2)
    })
    .await?;

    assert_eq!(shop.client.cancel(orders[0]).await?.status, 200);
    eventually("the other order to expire", || async {
        Ok(shop.status(orders[1]).await? == "cancelled")
    })
    .await?;

    let mut inventory = shop.system.start(Service::INVENTORY, "inventory-1").await?;
    inventory.wait_ready().await?;
    let figures = shop.ends_well().await?;
    assert_eq!(figures.cancelled, [("customer".to_owned(), 1), ("expired".to_owned(), 1)].into());
    assert_eq!(shop.count(Service::PAYMENT, "select balance from accounts").await?, 10_000);
    Ok(())
}

#[tokio::test]
async fn the_same_idempotency_key_at_two_replicas_at_once_gives_one_order() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let http = reqwest::Client::new();
    let urls: Vec<String> = shop
        .replicas
        .iter()
        .filter(|replica| replica.service() == Service::ORDER)
        .map(|replica| replica.url().to_owned())
        .collect();
    for round in 0..10 {
        let place = |url: &str, quantity: i64| {
            let lines = serde_json::json!([{"sku": "COFFEE", "quantity": quantity}]);
            let body = serde_json::json!({"customer": "ann", "lines": lines});
            http.post(format!("{url}/orders"))
                .bearer_auth(shop.token())
                .header("Idempotency-Key", format!("k{round}"))
                .header("content-type", "application/json")
                .body(body.to_string())
                .send()
        };

        let (one, two) = tokio::join!(place(&urls[0], 1), place(&urls[1], 1));
        let (one, two) = (one?, two?);
        assert_eq!((one.status().as_u16(), two.status().as_u16()), (201, 201));
        assert_eq!(one.headers()["location"], two.headers()["location"]);
        let (mut one, mut two): (Value, Value) = (one.json().await?, two.json().await?);

        // The second request may find that the order has ended.
        assert!(
            [&mut one, &mut two].into_iter().all(|order| order["status"].take() != "cancelled")
        );
        assert_eq!(one, two);

        let other = place(&urls[1], 2).await?;
        assert_eq!(other.status().as_u16(), 422);
        assert!(other.text().await?.contains("/problems/idempotency-key-reused"));
    }

    assert_eq!(shop.ends_well().await?.orders, 10);
    Ok(())
}

#[tokio::test]
async fn a_write_transaction_held_open_elsewhere_does_not_delay_the_relay() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    let mut held = Vec::new();
    for service in Service::all() {
        let mut transaction = shop.system.pool(service).begin().await?;
        sqlx::query(
            "insert into reel.dead_letters (id, partition, reason)
             values (gen_random_uuid(), 0, 'never committed')",
        )
        .execute(&mut *transaction)
        .await?;
        held.push(transaction);
    }

    shop.order("during", 8).await?;
    shop.system.until_quiet(saga_tests::LIMIT).await?;

    for transaction in held {
        transaction.rollback().await?;
    }
    assert_eq!(shop.ends_well().await?.confirmed, 8);
    Ok(())
}

#[tokio::test]
async fn a_closed_service_answers_503_with_retry_after() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    let nothing = "drop schema reel cascade; drop schema public cascade; create schema public";
    sqlx::raw_sql(nothing).execute(shop.system.pool(Service::PAYMENT)).await?;
    let replica = shop.system.start(Service::PAYMENT, "payment-1").await?;
    eventually("the log to report that the database has no tables", || async {
        Ok(replica.log_text().contains("migrate"))
    })
    .await?;

    let answer = reqwest::Client::new()
        .post(format!("{}/accounts/ann/deposits", replica.url()))
        .bearer_auth(shop.token())
        .header("Idempotency-Key", "k")
        .header("content-type", "application/json")
        .body(r#"{"amount": 5, "currency": "EUR"}"#)
        .send()
        .await?;
    assert_eq!(answer.status().as_u16(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(
        reqwest::get(format!("{}/health/live", replica.url())).await?.status().as_u16(),
        200
    );
    assert_eq!(
        reqwest::get(format!("{}/health/ready", replica.url())).await?.status().as_u16(),
        503
    );

    let address = replica.url().trim_start_matches("http://");
    let health =
        shop.system.run_with(Service::PAYMENT, "health", &[("HTTP_ADDRESS", address)]).await;
    assert!(health.is_err_and(|error| {
        format!("{error:#}").contains("the database lacks tables of this release")
    }));

    shop.system.run(Service::PAYMENT, "migrate").await?;
    eventually("the health command to report that the service is ready", || async {
        Ok(shop
            .system
            .run_with(Service::PAYMENT, "health", &[("HTTP_ADDRESS", address)])
            .await
            .is_ok())
    })
    .await?;

    Ok(())
}

#[tokio::test]
async fn an_invalid_setting_is_reported_in_one_line_with_its_name_and_exit_code_2() -> Result<()> {
    let shop = Shop::prepared(|_| {}).await?;
    for (name, value) in [
        ("LEASE", "soon"),
        ("LEASE", "900ms"),
        ("BATCH", "0"),
        ("BATCH", "10001"),
        ("DATABASE_URL", "mysql://x"),
        ("ORDER_PRICES", "/nowhere.json"),
        ("RDKAFKA_NO_SUCH_THING", "1"),
        ("RDKAFKA_SASL_PASSWORD_FILE", "/nowhere"),
        ("DATABASE_URL_FILE", "/nowhere"), // DATABASE_URL is set as well
    ] {
        let mut replica =
            shop.system.start_with(Service::ORDER, "order-1", &[(name, value)]).await?;
        let status = replica.exited(saga_tests::LIMIT).await?.expect("the process exits");
        let log = replica.log_text();
        let message = log.lines().last().unwrap_or_default().to_owned();
        let named = message.contains(name)
            || message.contains(&name.to_lowercase().replace('_', "-"))
            || message.contains("RDKAFKA_");
        assert!(status.code() == Some(2) && named, "{name}: {status}, {message}");
        std::fs::remove_file(replica.log())?;
    }

    Ok(())
}
