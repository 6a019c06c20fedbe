//! The databases, the topics and the replicas of the three services on a given Kafka and Postgres.
//!
//! ```no_run
//! # async fn example(stack: &devstack::Stack) -> anyhow::Result<()> {
//! use orderctl::system::{Service, System, SystemOptions};
//!
//! let prefix = devstack::topics::unique_prefix();
//! let options = SystemOptions::new(stack.kafka(), stack.postgres(), &prefix);
//! let system = System::create(options).await?;
//! // Waits until order-1, order-2, payment-1, ... are ready.
//! let mut replicas = system.start_all(2).await?;
//!
//! let client = system.client();
//! client.deposit("anna", 10_000, "a key").await?.created()?;
//! client.receive("MUG", 5, "a key").await?.created()?;
//! let order = client.place("anna", &[("MUG", 1)], "a key").await?.order_id()?;
//! system.until_quiet(std::time::Duration::from_secs(10)).await?;
//! assert_eq!(client.order(order).await?.json["status"], "confirmed");
//! replicas[0].kill().await?;
//! # Ok(()) }
//! ```
//!
//! Dropping the [`System`] removes its databases, its topics and the folder of its logs. If it is
//! [kept](System::keep) or `REEL_KEEP` is set, everything stays; if the thread panics, the logs
//! stay.

mod client;
mod databases;
#[cfg(feature = "docker")]
mod deployed;
mod guard;
mod launch;
mod memory;
mod options;
mod programs;
mod progress;
mod replica;
mod runs;
mod service;
mod tokens;
mod view;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use devstack::Port;
use futures_util::future::try_join_all;
use sqlx::PgPool;

pub use client::{Answer, Client};
#[cfg(feature = "docker")]
pub use deployed::Deployed;
pub use launch::Detached;
pub use memory::peak_memory_kib;
pub use options::SystemOptions;
pub use progress::Progress;
pub use replica::Replica;
pub use service::{PerService, Service};
pub use tokens::Tokens;
pub(crate) use tokens::key_in;
pub use view::View;

use crate::audit::Sources;
use client::Directory;
use guard::Guard;
use launch::Launch;
use programs::Programs;
use runs::Run;

const DROP_WITHIN: Duration = Duration::from_secs(15);

/// The order system on one Kafka and one Postgres.
pub struct System {
    options: SystemOptions,
    programs: Programs,
    guard: Arc<Guard>,
    directory: Directory,
    view: View,
    tokens: Tokens,
    run: Run,
    kept: AtomicBool,
}

impl System {
    /// Creates those databases, tables and topics that are missing.
    ///
    /// # Errors
    /// If the services are not built, or Kafka or Postgres cannot be used.
    pub async fn create(options: SystemOptions) -> Result<Self> {
        let programs = Programs::find()?;
        let run = Run::new(&options).await?;
        let directory = Directory::default();
        let tokens = Tokens::of_secret(&key_in(&run.folder))?;
        let view =
            View::new(Client::new(directory.clone(), tokens.staff()?), Sources::of(&options)?)?;
        let guard = Arc::new(Guard::start()?);
        let system = Self {
            options,
            programs,
            guard,
            directory,
            view,
            tokens,
            run,
            kept: AtomicBool::new(false),
        };
        try_join_all(Service::all().map(|service| system.prepare(service))).await?;
        Ok(system)
    }

    async fn prepare(&self, service: Service) -> Result<()> {
        let migrate = async {
            databases::create(&self.options.postgres_admin, &self.options.database(service))
                .await?;
            self.run(service, "migrate").await
        };
        tokio::try_join!(migrate, self.run(service, "topics"))?;
        Ok(())
    }

    /// Runs one of a service's commands for operators to its end: `migrate`, `topics`, `health`.
    ///
    /// # Errors
    /// If it fails, with its stderr.
    pub async fn run(&self, service: Service, command: &str) -> Result<()> {
        self.run_with(service, command, &[]).await
    }

    /// Runs a command as [`Self::run`] does, with further environment variables.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn run_with(
        &self,
        service: Service,
        command: &str,
        extra: &[(&str, &str)],
    ) -> Result<()> {
        let extra = extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.programs
            .run(service, command, self.environment(service).into_iter().chain(extra).collect())
            .await
    }

    /// Starts a replica, without waiting until it is [ready](Replica::wait_ready). If a replica of
    /// the same name ran before, the log is appended to.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub async fn start(&self, service: Service, name: &str) -> Result<Replica> {
        self.start_with(service, name, &[]).await
    }

    /// Starts a replica as [`Self::start`] does, with environment variables of its own, which
    /// override all others.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(
        &self,
        service: Service,
        name: &str,
        extra: &[(&str, &str)],
    ) -> Result<Replica> {
        let mut environment = self.environment(service);
        environment
            .extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
        let launch = Launch {
            service,
            name,
            program: self.programs.path(service),
            environment,
            folder: self.folder(),
        };
        Replica::start(&launch, self.guard.clone(), self.directory.clone())
    }

    /// Starts a replica that outlives this process, at this port.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn start_detached(&self, service: Service, name: &str, port: &Port) -> Result<Detached> {
        let environment = self.environment(service);
        Launch {
            service,
            name,
            program: self.programs.path(service),
            environment,
            folder: self.folder(),
        }
        .detached(port)
    }

    /// Starts this many replicas of each service, named `order-1`, `order-2`, `payment-1`, ..., and
    /// waits until all are ready.
    ///
    /// # Errors
    /// If one of them does not become ready.
    pub async fn start_all(&self, of_each: usize) -> Result<Vec<Replica>> {
        let mut replicas = Vec::new();
        for service in Service::all() {
            for nth in 1..=of_each {
                replicas.push(self.start(service, &format!("{service}-{nth}")).await?);
            }
        }
        try_join_all(replicas.iter_mut().map(Replica::wait_ready)).await?;
        Ok(replicas)
    }

    /// Returns the system as it is seen from outside; databases are read as the admin.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Returns a client of all replicas that run, those that are started later included.
    #[must_use]
    pub fn client(&self) -> Client {
        self.view.client()
    }

    /// Returns [`View::progress`].
    ///
    /// # Errors
    /// If a database cannot be read.
    pub async fn progress(&self) -> Result<Progress> {
        self.view.progress().await
    }

    /// Waits as [`View::until_quiet`] does.
    ///
    /// # Errors
    /// If the system is not quiet within the limit; with what is left, and where the logs are.
    pub async fn until_quiet(&self, limit: Duration) -> Result<()> {
        self.view
            .until_quiet(limit)
            .await
            .with_context(|| format!("the logs are in {}", self.folder().display()))
    }

    /// Returns where the audit finds this system.
    #[must_use]
    pub fn sources(&self) -> Sources {
        self.view.sources().clone()
    }

    /// Returns the address of a service's database.
    #[must_use]
    pub fn database_url(&self, service: Service) -> String {
        self.options.database_url(service)
    }

    /// Returns a pool of connections to a service's database, as the admin.
    #[must_use]
    pub fn pool(&self, service: Service) -> &PgPool {
        self.view.pool(service)
    }

    /// Returns the number of partitions of every topic.
    #[must_use]
    pub fn partitions(&self) -> i32 {
        self.options.partitions
    }

    /// Returns the topic of a service, as the broker knows it.
    #[must_use]
    pub fn topic(&self, service: Service) -> String {
        self.options.topic(service)
    }

    /// Returns the folder of the replicas' logs.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.run.folder
    }

    /// Returns the environment variables that every replica of a service gets.
    #[must_use]
    pub fn environment(&self, service: Service) -> Vec<(String, String)> {
        let key = ("TOKEN_KEY_FILE".to_owned(), key_in(self.folder()).display().to_string());
        [key].into_iter().chain(self.options.environment(service)).collect()
    }

    /// Returns what signs tokens for its services.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Keeps databases, topics and logs when this value is dropped.
    pub fn keep(&self) {
        self.kept.store(true, Ordering::Relaxed);
        self.run.keep();
    }

    /// Drops the databases, even if clients are connected, and deletes the topics and the logs.
    /// Stop the replicas first.
    ///
    /// # Errors
    /// If a database or a topic cannot be removed.
    pub async fn drop_all(self) -> Result<()> {
        self.view.close().await;
        drop_everything(&self.options).await?;
        self.kept.store(true, Ordering::Relaxed); // nothing is left to drop
        fs::remove_dir_all(self.folder())
            .with_context(|| format!("cannot remove {}", self.folder().display()))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if self.kept.load(Ordering::Relaxed) {
            return;
        }
        let keep_all = std::env::var_os("REEL_KEEP").is_some();
        if keep_all || std::thread::panicking() {
            self.run.keep();
            eprintln!("orderctl: the logs are kept: {}", self.folder().display());
        }

        if keep_all {
            return;
        }

        let options = self.options.clone();

        // On a thread of its own, because the test's runtime may be shutting down and cannot block
        // on itself.
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                tokio::time::timeout(DROP_WITHIN, drop_everything(&options)).await?
            })
        });
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("orderctl: some of {} stays: {error:#}", self.options.prefix);
        } else if !std::thread::panicking() {
            let _ = fs::remove_dir_all(self.folder());
        }
    }
}

async fn drop_everything(options: &SystemOptions) -> Result<()> {
    let databases = Service::all().map(|service| async move {
        databases::drop(&options.postgres_admin, &options.database(service)).await
    });
    let topics = async {
        devstack::topics::delete_with_prefix(&options.kafka, &options.prefix).await.map(|_| ())
    };
    tokio::try_join!(try_join_all(databases), topics)?;
    Ok(())
}
