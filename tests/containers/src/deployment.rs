//! One deployment of the compose file.

use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use devstack::wait;
use orderctl::audit::Figures;
use orderctl::system::{Client, PerService, Service};
use serde_json::Value;
use testcontainers::compose::DockerCompose;
use tokio::process::Command;
use tokio::sync::MutexGuard;

use crate::docker::{self, Said};
use crate::{LIMIT, engine};

const REPLICAS: usize = 2;

/// Removes what belongs to a project when whoever started it is gone: its standard input is a pipe that ends with us.
const GUARD: &str =
    "read -r end_of_owner; exec docker compose --project-name \"$1\" --file \"$2\" --profile tools down --volumes --timeout 1";

/// Containers, a network and volumes that nobody else has. They go with this value, and with this process, however that ends.
pub struct Deployment {
    project: String,
    file: PathBuf,
    environment: HashMap<String, String>,
    ports: PerService<Vec<u16>>,
    /// Removes the containers; so does the guard, of a process that could not.
    compose: Option<DockerCompose>,
    guard: Child,
    _turn: MutexGuard<'static, ()>,
}

/// One deployment at a time: each is ten processes.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Deployment {
    /// Starts everything and waits until it is healthy. Nothing where there is no Docker engine: the test named is skipped.
    ///
    /// # Errors
    /// Where something does not start, or there is no engine and `REQUIRE_DOCKER=1`.
    pub async fn up(test: &str) -> Result<Option<Self>> {
        if !engine(test).await? {
            return Ok(None);
        }
        let turn = TURN.lock().await;
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../compose/compose.yaml").canonicalize()?;
        let project = format!("reel-{}", devstack::topics::unique_prefix().trim_end_matches('-'));
        let ports = free_ports(2 + REPLICAS * Service::ALL.len())?;
        let mut rest = ports.iter().copied();
        let mut environment = HashMap::new();
        let mut named = PerService::<Vec<u16>>::default();
        for name in ["KAFKA_PORT", "POSTGRES_PORT"] {
            environment.insert(name.to_owned(), rest.next().unwrap_or_default().to_string());
        }
        for service in Service::ALL {
            for nth in 1..=REPLICAS {
                let port = rest.next().unwrap_or_default();
                environment.insert(format!("{}_{nth}_PORT", service.name().to_uppercase()), port.to_string());
                named[service].push(port);
            }
        }
        let guard = std::process::Command::new("/bin/sh")
            .args(["-c", GUARD, "reel-guard", &project])
            .arg(&file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0) // Ctrl-C is for its owner
            .spawn()
            .context("cannot start /bin/sh")?;
        // It would wait for a minute at most, and count jobs that have ended as not healthy.
        let compose = DockerCompose::with_local_client(&[&file]).with_project_name(&project).with_wait(false);
        let compose = Some(compose.with_env_vars(environment.clone()));
        let mut deployment = Self { project, file, environment, ports: named, compose, guard, _turn: turn };
        if let Err(error) = deployment.start().await {
            deployment.show_logs().await;
            return Err(error).context("the deployment does not start (images are built by `make images`)");
        }
        Ok(Some(deployment))
    }

    async fn start(&mut self) -> Result<()> {
        if let Some(compose) = &mut self.compose {
            compose.up().await?;
        }
        for service in Service::ALL {
            for nth in 1..=REPLICAS {
                self.until_health(service, nth, "the replica gets ready", |health| health["ready"] == true).await?;
            }
        }
        Ok(())
    }

    /// A client of all replicas.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::of(&PerService::new(|service| self.ports[service].iter().map(|port| url(*port)).collect())).within(LIMIT)
    }

    /// `order-1` becomes the name of its container.
    #[must_use]
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// The name of the network that all containers are in.
    #[must_use]
    pub fn network(&self) -> String {
        format!("{}_default", self.project)
    }

    /// Runs `docker compose` on this deployment.
    ///
    /// # Errors
    /// Where it cannot be run at all.
    pub async fn compose(&self, args: &[&str]) -> Result<Said> {
        let mut command = Command::new("docker");
        command.args(["compose", "--project-name", &self.project, "--file"]).arg(&self.file);
        docker::run(command.args(args).envs(&self.environment)).await
    }

    /// What `/health/ready` of a replica says; null where it does not answer.
    pub async fn health(&self, service: Service, nth: usize) -> Value {
        let url = format!("{}/health/ready", url(self.ports[service][nth - 1]));
        let ask = async {
            let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(2)).no_proxy().build()?;
            http.get(url).send().await?.bytes().await
        };
        ask.await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or(Value::Null)
    }

    /// Waits until a replica's health is as it should be.
    ///
    /// # Errors
    /// Where it does not get so in time.
    pub async fn until_health(&self, service: Service, nth: usize, what: &str, is: impl Fn(&Value) -> bool) -> Result<()> {
        wait::until(LIMIT, what, || async {
            let health = self.health(service, nth).await;
            Ok(is(&health).then_some(()))
        })
        .await
    }

    /// Waits until every saga has ended, and the audit of the deployment finds nothing wrong. Returns its figures.
    ///
    /// # Errors
    /// What the audit finds after the limit.
    pub async fn ends_well(&self) -> Result<Figures> {
        let last = Mutex::new(String::new());
        let ended = wait::until(LIMIT, "every saga ends and the audit is clean", || {
            let asked = self.compose(&["run", "--rm", "--no-deps", "-T", "orderctl", "audit", "--json"]);
            let last = &last;
            async move {
                let said = asked.await?;
                *last.lock().unwrap_or_else(PoisonError::into_inner) = said.text();
                let figures: Option<Figures> = serde_json::from_str(&said.out).ok();
                Ok(figures.filter(|figures| figures.ok && figures.open == 0 && figures.undoing == 0))
            }
        })
        .await;
        ended.with_context(|| format!("the audit said last: {}", last.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Prints how the logs end, for whoever looks at a test that failed.
    pub async fn show_logs(&self) {
        if let Ok(said) = self.compose(&["logs", "--tail", "15"]).await {
            eprintln!("{}", said.text());
        }
    }

    /// Stops and removes everything.
    ///
    /// # Errors
    /// Where Docker refuses.
    pub async fn down(mut self) -> Result<()> {
        if let Some(compose) = self.compose.take() {
            compose.down().await?;
        }
        ensure!(self.compose(&["ps", "--all", "--quiet"]).await?.success()?.is_empty(), "containers are left");
        Ok(())
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // The guard removes what is left, and we wait for it, so that a test run does not end before.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// Fixed ports, and not ones that Docker chooses: those change when a container is started again.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<Result<_, _>>()?;
    listeners.iter().map(|listener| Ok(listener.local_addr()?.port())).collect()
}
