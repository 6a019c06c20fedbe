//! Orders whose deadlines pass before their turn comes: nothing is begun that would be undone.

use std::time::Duration;

use anyhow::Result;
use orderctl::system::Service;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use saga_tests::{Shop, eventually};

#[tokio::test]
async fn no_money_is_taken_for_an_order_whose_deadline_has_passed() -> Result<()> {
    let mut shop = Shop::prepared(|options| options.settle_within = Duration::from_secs(1)).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;
    shop.take("payment-1").kill().await?;

    let order = shop.order("late", 1).await?.remove(0);
    eventually("the deadline", || async { Ok(shop.status(order).await? == "cancelled") }).await?;
    shop.replicas.push(shop.system.start(Service::PAYMENT, "payment-1").await?);
    let figures = shop.ends_well().await?;

    assert_eq!((figures.orders, figures.confirmed), (1, 0));
    let refused = "select count(*) from payments where status = 'failed' and reason = 'too_late'";
    assert_eq!(shop.count(Service::PAYMENT, refused).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_event_expires_with_the_deadline_of_its_saga_until_that_is_cleared() -> Result<()> {
    let shop = Shop::open(|_| {}).await?;
    shop.order("soon", 1).await?;
    shop.ends_well().await?;

    let expiring = "select count(*) from reel.outbox where headers ? 'expirytime'
        and type in ('OrderCreated', 'PaymentCompleted', 'InventoryUpdated')";
    for service in Service::SAGA {
        assert_eq!(shop.count(service, expiring).await?, 1, "{service}");
    }
    let last = "select count(*) from reel.outbox
        where type = 'OrderConfirmed' and not headers ? 'expirytime'";
    assert_eq!(shop.count(Service::ORDER, last).await?, 1);
    Ok(())
}

#[tokio::test]
async fn orders_are_refused_while_more_are_open_than_can_end_in_time() -> Result<()> {
    let mut shop =
        Shop::prepared(|options| options.settle_within = Duration::from_secs(20)).await?;
    shop.replicas = shop.system.start_all(1).await?;
    shop.fill().await?;

    // Without payment no order ends.
    shop.take("payment-1").kill().await?;
    let (shop, order) = (&shop, shop.replica("order-1"));
    let mut placed = 0;
    let refused = loop {
        let asked = (0..50)
            .map(|nth| async move { shop.ask_once(order, &format!("flood-{placed}-{nth}")).await });
        let answers = futures_util::future::try_join_all(asked).await?;
        placed += 50;
        let refused = answers.into_iter().find(|answer| answer.status() != StatusCode::CREATED);
        if let Some(refused) = refused {
            break refused;
        }
        assert!(placed < 20_000, "an order a millisecond, and none ends");
    };

    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key(RETRY_AFTER));
    let problem = refused.text().await?;
    assert!(problem.contains("sagas are open, which need"), "{problem}");
    assert!(placed > 1_000, "{placed} are few");
    Ok(())
}
