//! Postgres as compose/ secures it, set up by the same scripts: TLS only, and each service has a
//! role that reaches nothing else. The server runs on this machine, because not every Postgres
//! image supports TLS.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use devstack::PostgresServer;
use orderctl::system::Service;
use saga_tests::{Shop, eventually};
use sqlx::{Connection, Executor, PgConnection};
use tempfile::TempDir;
use tokio::process::Command;

/// A server that the scripts of compose/ have set up, and the files that they created.
struct Closed {
    server: PostgresServer,
    folder: TempDir,
}

#[tokio::test]
async fn services_work_over_tls_with_roles_that_reach_nothing_else() -> Result<()> {
    let closed = Closed::start().await?;

    let mut shop = Shop::prepared(|_| {}).await?;
    for service in Service::all() {
        let owner = closed.url(&format!("{service}-owner"), service)?;
        shop.system.run_with(service, "migrate", &[("DATABASE_URL", &owner)]).await?;
        let url = closed.url(service.name(), service)?;
        let mut replica = shop
            .system
            .start_with(service, &format!("{service}-1"), &[("DATABASE_URL", &url)])
            .await?;
        replica.wait_ready().await?;
        shop.replicas.push(replica);
    }

    shop.fill().await?;
    let order = shop.order("over TLS", 1).await?[0];
    eventually("the order to be confirmed", || async {
        Ok(shop.client.order(order).await?.json["status"] == "confirmed")
    })
    .await?;

    let payment = closed.url("payment", Service::PAYMENT)?;
    let mut own = PgConnection::connect(&payment).await?;
    let encrypted: bool =
        sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            .fetch_one(&mut own)
            .await?;
    ensure!(encrypted, "the connection is not encrypted");
    let plain: i64 = sqlx::query_scalar(
        "select count(*) from pg_stat_ssl join pg_stat_activity using (pid)
         where not ssl and datname <> 'postgres'",
    )
    .fetch_one(&mut own)
    .await?;
    ensure!(plain == 0, "{plain} connections of services are not encrypted");

    let refusal = own.execute("create table mine ()").await.map(drop);
    refused("a table of payment's role", "permission denied", refusal)?;
    own.close().await?;

    for (what, reason, url) in [
        ("order's database", "no pg_hba.conf entry", payment.replace("/payment?", "/order?")),
        ("no TLS", "no encryption", payment.replace("verify-full", "disable")),
        (
            "a wrong password",
            "password authentication failed",
            payment.replace("payment:", "payment:0"),
        ),
        (
            "a server that the authority does not know",
            "certificate",
            payment.replace("payment/ca.pem", "stranger/payment/ca.pem"),
        ),
    ] {
        refused(what, reason, PgConnection::connect(&url).await.map(drop))?;
    }

    Ok(())
}

impl Closed {
    async fn start() -> Result<Self> {
        let mut server = PostgresServer::temporary().await?;
        let folder = tempfile::tempdir()?;
        let path = folder.path();

        // The server may run as another user, who must be able to read its files.
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
        let server_user = fs::metadata(server.log().with_file_name("data"))?.uid().to_string();
        let this_user = fs::metadata(path)?.uid().to_string();
        let users = [
            ("KAFKA_USER", &this_user),
            ("POSTGRES_USER", &server_user),
            ("SERVICE_USER", &this_user),
        ];

        // A second, foreign authority: a client that trusts only it must refuse the server.
        let stranger = path.join("stranger");
        fs::create_dir(&stranger)?;
        for folder in [path, &stranger] {
            run(Command::new(setup("secrets")).env("SECRETS", folder).envs(users)).await?;
        }

        // The test's own access, which the deployment does not have.
        let rules = path.join("postgres/pg_hba.conf");
        fs::write(&rules, fs::read_to_string(&rules)? + "host all postgres 127.0.0.1/32 trust\n")?;
        let mut admin = PgConnection::connect(server.url()).await?;
        for (setting, file) in [
            ("ssl_cert_file", "cert.pem"),
            ("ssl_key_file", "key.pem"),
            ("hba_file", "pg_hba.conf"),
        ] {
            let file = path.join("postgres").join(file);
            admin
                .execute(sqlx::AssertSqlSafe(format!(
                    "alter system set {setting} = '{}'",
                    file.display()
                )))
                .await?;
        }

        admin.execute("alter system set ssl = on").await?;
        admin.close().await?;
        server.stop().await?;
        server.restart().await?;

        let passwords = path.join("postgres/passwords.sql");
        let port = server.port().to_string();
        run(Command::new(setup("databases.sh"))
            .env("PASSWORDS", passwords)
            .envs([("PGHOST", "127.0.0.1"), ("PGPORT", &port)]))
        .await?;

        Ok(Self { server, folder })
    }

    /// The database URL in a principal's volume, adapted to this machine.
    fn url(&self, principal: &str, service: Service) -> Result<String> {
        let volume = self.folder.path().join(principal);
        let url = fs::read_to_string(volume.join("database-url"))?;
        let here = format!("@127.0.0.1:{}/{service}?", self.server.port());
        let url = url
            .replace(&format!("@postgres/{service}?"), &here)
            .replace("/run/reel", &volume.display().to_string());
        Ok(url.trim_end().to_owned())
    }
}

fn setup(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/setup").join(script)
}

async fn run(command: &mut Command) -> Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn refused(what: &str, reason: &str, result: sqlx::Result<()>) -> Result<()> {
    let Err(error) = result else { bail!("{what} should have been refused") };
    ensure!(
        error.to_string().contains(reason),
        "{what} was refused for another reason than {reason:?}: {error}"
    );
    Ok(())
}
