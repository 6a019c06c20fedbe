//! Access control of the deployment: each service reaches only its own resources, and a stranger
//! reaches nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use container_tests::Deployment;
use devstack::docker::CommandOutput;
use orderctl::system::Service;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;

/// Folder of Kafka's commands in its container.
const KAFKA: &str = "/opt/kafka/bin";
/// Properties of a client that trusts the deployment's authority, with `\n` for `printf %b`.
const TRUST: &str = "ssl.truststore.type=PEM\\n\
    ssl.truststore.location=/etc/kafka/secrets/ca.pem\\n";
/// Time limit for a client on this machine to be refused.
const REFUSED_WITHIN: Duration = Duration::from_secs(5);

/// Runs a command of Kafka's in its container, with client properties in `$file`.
async fn kafka(deployment: &Deployment, properties: &str, command: &str) -> Result<CommandOutput> {
    // Short time limits, because a client that the broker does not let in keeps waiting otherwise.
    let script = format!(
        "umask 077; file=$(mktemp); printf '%b' '{properties}default.api.timeout.ms=8000\\n\
         request.timeout.ms=4000\\nmax.block.ms=8000\\n' >$file; \
         {command}; code=$?; rm $file; exit $code"
    );
    deployment.compose().run(&["exec", "-T", "kafka", "bash", "-c", &script]).await
}

async fn psql(
    deployment: &Deployment,
    role: &str,
    password: &str,
    database: &str,
    sql: &str,
) -> Result<CommandOutput> {
    let target = format!("host=127.0.0.1 user={role} dbname={database}");
    let password = format!("PGPASSWORD={password}");
    deployment
        .compose()
        .run(&[
            "exec",
            "-T",
            "-e",
            &password,
            "postgres",
            "psql",
            "--no-password",
            &target,
            "-c",
            sql,
        ])
        .await
}

/// The topics that a client on this machine sees, through the listener for this machine.
async fn topics(deployment: &Deployment, properties: Vec<(String, String)>) -> Result<Vec<String>> {
    let mut kafka = deployment.view().sources().kafka.clone();
    kafka.properties = properties;
    let client: BaseConsumer = kafka.consumer().create()?;
    let seen = tokio::task::spawn_blocking(move || {
        let metadata = client.fetch_metadata(None, REFUSED_WITHIN)?;
        let names: Vec<String> =
            metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
        KafkaResult::Ok(names)
    });
    Ok(seen.await??)
}

/// Checks that a command failed for this reason.
fn refused(what: &str, output: &CommandOutput, reason: &str) -> Result<()> {
    ensure!(
        output.code != 0 && output.text().contains(reason),
        "{what} should have been refused ({reason}), but exited with {}: {}",
        output.code,
        output.text()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_credentials_reach_nothing_of_order_and_strangers_reach_nothing() -> Result<()> {
    let name = "payment_credentials_reach_nothing_of_order_and_strangers_reach_nothing";
    Deployment::test(name, &[], access_is_restricted).await
}

async fn access_is_restricted(deployment: &Deployment) -> Result<()> {
    let users = deployment
        .compose()
        .run(&["exec", "-T", "kafka", "cat", "/etc/kafka/secrets/users"])
        .await?
        .success()?;
    let password = |user: &str| {
        users
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{user} ")))
            .unwrap_or_default()
            .to_owned()
    };
    let login = |user: &str, password: &str| {
        format!(
            "security.protocol=SASL_SSL\\n{TRUST}sasl.mechanism=SCRAM-SHA-512\\n\
             sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required \
             username=\"{user}\" password=\"{password}\";\\n"
        )
    };
    let produce = |topic: &str| {
        format!(
            "echo x | {KAFKA}/kafka-console-producer.sh --bootstrap-server kafka:9092 \
             --command-config $file --topic {topic}"
        )
    };
    let offsets = |topic: &str| {
        format!(
            "{KAFKA}/kafka-get-offsets.sh --bootstrap-server kafka:9092 \
             --command-config $file --topic {topic}"
        )
    };
    let list = offsets("orders");

    // Kafka: payment may write into its own topic and into no other. Reading offsets succeeds, so
    // its credentials are valid.
    let payment = login("payment", &password("payment"));
    let ends = async |topic: &str| kafka(deployment, &payment, &offsets(topic)).await?.success();
    let before = (ends("orders").await?, ends("payments").await?);
    kafka(deployment, &payment, &produce("orders")).await?;
    kafka(deployment, &login("order-owner", &password("order-owner")), &produce("orders")).await?;
    kafka(deployment, &payment, &produce("payments")).await?;
    ensure!(ends("orders").await? == before.0, "a user other than order wrote into orders");
    ensure!(
        ends("payments").await? != before.1,
        "payment cannot write into its own topic, so this test proves nothing"
    );
    refused(
        "a wrong password",
        &kafka(deployment, &login("payment", "guess"), &list).await?,
        "Authentication failed",
    )?;
    strangers_reach_no_broker(deployment).await?;
    strangers_get_nothing_over_http(deployment).await?;

    // Postgres: payment's role reaches its own database, and cannot change the tables.
    let secret = password("payment");
    psql(deployment, "payment", &secret, "payment", "select count(*) from payments")
        .await?
        .success()?;
    refused(
        "payment in order's database",
        &psql(deployment, "payment", &secret, "order", "select 1").await?,
        "no pg_hba.conf entry",
    )?;
    refused(
        "payment in no database of its own",
        &psql(deployment, "payment", &secret, "postgres", "select 1").await?,
        "no pg_hba.conf entry",
    )?;
    refused(
        "payment creating a table",
        &psql(deployment, "payment", &secret, "payment", "create table mine ()").await?,
        "permission denied",
    )?;
    refused(
        "a client without a password",
        &psql(deployment, "payment", "", "payment", "select 1").await?,
        "no password supplied",
    )?;
    refused(
        "a wrong password",
        &psql(deployment, "payment", "guess", "payment", "select 1").await?,
        "password authentication failed",
    )?;
    refused(
        "the superuser over the network",
        &psql(deployment, "postgres", &secret, "postgres", "select 1").await?,
        "no pg_hba.conf entry",
    )?;

    Ok(())
}

/// Checks clients without a password, and without a certificate on the listener that requires one.
/// Those that use TLS trust the authority.
async fn strangers_reach_no_broker(deployment: &Deployment) -> Result<()> {
    let plain = "security.protocol=PLAINTEXT\\n";
    let tls = format!("security.protocol=SSL\\n{TRUST}");
    let tls = tls.as_str();
    for (what, properties, listener) in
        [("plain", plain, 9092), ("TLS", tls, 9092), ("TLS", tls, 9095)]
    {
        let command = format!(
            "{KAFKA}/kafka-get-offsets.sh --bootstrap-server kafka:{listener} \
             --command-config $file --topic orders"
        );
        let output = kafka(deployment, properties, &command).await?;
        ensure!(
            output.code != 0 && !output.text().contains("orders:"),
            "a stranger with {what} read at {listener}: {}",
            output.text()
        );
    }

    let known = deployment.view().sources().kafka.properties.clone();
    ensure!(
        topics(deployment, known.clone()).await?.iter().any(|topic| topic == "orders"),
        "the auditor sees nothing from this machine"
    );
    let tls: Vec<(String, String)> =
        known.into_iter().filter(|(name, _)| name == "ssl.ca.location").collect();
    let tls = [tls, vec![("security.protocol".to_owned(), "SSL".to_owned())]].concat();
    for (what, properties) in [("plain", vec![]), ("TLS", tls)] {
        let seen = topics(deployment, properties).await;
        ensure!(seen.is_err(), "a stranger on this machine with {what} sees {seen:?}");
    }

    Ok(())
}

async fn strangers_get_nothing_over_http(deployment: &Deployment) -> Result<()> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    for (service, path) in [
        (Service::ORDER, "/orders"),
        (Service::PAYMENT, "/accounts/ann"),
        (Service::INVENTORY, "/stock/COFFEE"),
    ] {
        let status =
            http.get(format!("{}{path}", deployment.url(service, 1))).send().await?.status();
        ensure!(
            status == reqwest::StatusCode::UNAUTHORIZED,
            "{service} answers a stranger {status}"
        );
    }
    Ok(())
}
