//! Runs a service: creates its parts, starts them, and stops them in order.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use axum::{Json, Router};
use rdkafka::error::KafkaError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use super::health::{self, Health};
use super::program::{bad_property, bad_url, look_and_migrate};
use super::settings::RunSettings;
use super::token_keys;
use super::topics::{PartitionsInUse, Waiting};
use super::wiring::{self, ReplicaParts, Running};
use super::{App, ConfigError, HttpContext};
use crate::admission::{Admission, Commands};
use crate::database::{Database, what_is_wrong};
use crate::failpoints;
use crate::kafka::{InputConsumer, RangeReader, TopicError};
use crate::lanes::REPLAYS;
use crate::model::Service;
use crate::relay::Publisher;
use crate::replica::{Replica, inputs_of, topic_of};
use crate::status;
use reel_http::{self as http, Access, ConnectionLimits, FairShare, Problem, TimeLimits};

/// Most connections at a time to the address that answers health checks only.
const HEALTH_CONNECTIONS: usize = 64;
/// Longest time for HTTP requests to end once the process stops.
const HTTP_WITHIN: Duration = Duration::from_secs(5);
/// Longest time that the handover of all lanes may take when the process stops.
const LANES_WITHIN: Duration = Duration::from_secs(8);
/// Pause before the next attempt to reach a server.
const RETRY: Duration = Duration::from_millis(500);

/// Why a service did not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// The database is unreachable, or refuses.
    #[error("{}", what_is_wrong(.0))]
    Database(#[from] sqlx::Error),
    /// A migration of the database failed.
    #[error("the database cannot be migrated")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// A request to Kafka failed.
    #[error("kafka refuses")]
    Kafka(#[from] KafkaError),
    /// The topic cannot be created.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// HTTP cannot be served.
    #[error("HTTP cannot be served")]
    Http(#[from] std::io::Error),
    /// The topics of the deployment have different numbers of partitions.
    #[error(
        "{topic} has {found} partitions and {own} has {expected}: all topics of a new deployment \
         have the same count"
    )]
    Partitions {
        /// The topic of an input.
        topic: String,
        /// Its number of partitions.
        found: i32,
        /// The service's own topic.
        own: String,
        /// Its number of partitions.
        expected: i32,
    },
    /// A topic has fewer partitions than the database has lanes.
    #[error(
        "{topic} has {found} partitions, and the database was made for {expected}: a deployment's \
         count of partitions cannot change"
    )]
    FewerPartitions {
        /// The topic.
        topic: String,
        /// Its number of partitions.
        found: i32,
        /// The number of lanes in the database.
        expected: i32,
    },
    /// The service's own topic is no journal.
    #[error(
        "topic {topic} forgets what it was given ({settings}), and nothing could be rebuilt from \
         it: set it to cleanup.policy=delete,retention.ms=-1,retention.bytes=-1 with kafka-configs"
    )]
    Forgets {
        /// The topic.
        topic: String,
        /// The settings by which it forgets, as `name=value`, comma-separated.
        settings: String,
    },
    /// The supervisor of the lanes stopped.
    #[error("{0}")]
    Lanes(String),
    /// The step stopped on a programming error.
    #[error("{0}")]
    Step(String),
    /// A part that must run as long as the process has ended, or panicked.
    #[error("{0}")]
    Part(String),
}

/// Runs a service until SIGTERM or Ctrl-C, or until it cannot continue.
///
/// # Errors
/// If the service cannot start or continue: see [`ServeError`].
pub async fn serve<A: App>(
    settings: &RunSettings,
    of_service: &A::Settings,
) -> Result<(), ServeError> {
    let name = <A::Service as Service>::NAME;
    let database = Database::new(&settings.database.url()?, name, settings.lease);
    let database = database.map_err(|error| bad_url(&error))?;
    if database.may_be_clear_text() {
        tracing::warn!(
            event.code = "database.clear_text",
            "sessions with the database are in clear text if it has no TLS: add \
             ?sslmode=verify-full to DATABASE_URL, or ?sslmode=disable if that is meant"
        );
    }
    let kafka = settings.kafka.kafka(name)?;
    let stop = CancellationToken::new();

    // First everything that fails on a wrong setting: the process then exits before it has done
    // anything.
    let (authors, status) = status::channels();
    let (backlog, backlog_limit) = (status.backlog.clone(), settings.backlog_limit);
    let admission = Admission::new(backlog, backlog_limit, stop.clone());
    let (limit, within) = (settings.command_limit, settings.command_timeout);
    let (commands, command_inbox) = Commands::<A::Service>::new(limit, within, admission.clone());
    let consumer = InputConsumer::start(&kafka.consumer());
    let (consumer, records) = consumer.map_err(|error| bad_property(&error))?;
    let publisher = Publisher::new(&kafka, name, topic_of::<A::Service>(&kafka));
    let publisher = Arc::new(publisher.map_err(|error| bad_property(&error))?);

    let context = HttpContext {
        commands,
        database: database.pool_of_queries(settings.query_connections),
        stop: stop.clone(),
        waiting: Arc::new(Semaphore::new(settings.waiting_limit)),
    };
    let health = Health { admission: admission.clone(), status: status.clone() };
    let http = serve_http::<A>(settings, of_service, context, health, &stop).await?;
    tokio::spawn(stop_at_signal(stop.clone()));

    if settings.migrate {
        migrate_when_it_answers::<A>(&database, &stop).await?;
    }
    failpoints::reached(failpoints::START_MIGRATED);

    let reader = RangeReader::new(kafka.clone());
    let waiting =
        Waiting { reader: &reader, database: &database, admission: &admission, stop: &stop };
    let Some(topics) = waiting.for_topics::<A::Service>().await? else { return Ok(()) };
    let PartitionsInUse { partitions, warnings } = topics;
    authors.warnings.send_replace(warnings);
    let replica = Arc::new(Replica::<A::Service> {
        instance: settings.instance_id.clone(),
        partitions,
        topic: topic_of::<A::Service>(&kafka),
        inputs: inputs_of::<A::Service>(&kafka),
        reader,
        publisher,
        pool: database.pool(settings.connections),
        replays: Semaphore::new(REPLAYS),
        database,
        service: PhantomData,
    });
    let parts =
        ReplicaParts { admission, authors, status, consumer, records, commands: command_inbox };
    let running = wiring::start(replica, settings, parts, A::projections());
    let running = running.map_err(|error| bad_property(&error))?;

    run_until_stopped(running, http, &stop).await?;
    tracing::info!(event.code = "service.stopped", "{name} has stopped");
    Ok(())
}

/// Serves HTTP: the service's routes, which need a token, and health and the OpenAPI document,
/// which need none.
async fn serve_http<A: App>(
    settings: &RunSettings,
    of_service: &A::Settings,
    context: HttpContext<A::Service>,
    health: Health,
    stop: &CancellationToken,
) -> Result<JoinSet<()>, ServeError> {
    let name = <A::Service as Service>::NAME;
    let access = settings.access.access()?;
    if let (Access::Tokens(verifier), Some(file)) = (&access, &settings.access.token_key_file) {
        tokio::spawn(token_keys::follow(file.clone(), verifier.clone(), stop.clone()));
    }
    if matches!(access, Access::Open) {
        tracing::warn!(
            event.code = "http.open",
            "AUTH=off: anybody who reaches this address may do anything"
        );
    }

    let (router, api) = A::router(context, of_service)?.split_for_parts();
    let document = Json(http::complete(api, name));
    let health: Router = health::router(health);
    let router = router
        .route_layer(from_fn_with_state(FairShare::new(settings.caller_limit), http::share_fairly))
        .route_layer(from_fn_with_state(access, http::authenticate))
        .route("/openapi.json", get(async || document))
        .merge(health.clone())
        .layer(from_fn_with_state(TimeLimits::default(), http::in_time))
        .layer(DefaultBodyLimit::max(http::LARGEST_BODY))
        .fallback(async || Problem::not_found("there is no such path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed());

    let listener = TcpListener::bind(settings.http.http_address).await?;
    let (address, instance) = (listener.local_addr()?, &settings.instance_id);
    tracing::info!(event.code = "http.serving", %address, instance, "{name} serves HTTP");
    let keep_alive = settings.http_keep_alive;
    let limits = ConnectionLimits::of(settings.http_connections, keep_alive);
    let mut servers = JoinSet::new();
    servers.spawn(http::serve(listener, router, health.clone(), limits, stop.clone()));
    if let Some(address) = settings.http.health_address {
        let listener = TcpListener::bind(address).await?;
        let limits = ConnectionLimits::of(HEALTH_CONNECTIONS, keep_alive);
        servers.spawn(http::serve(listener, health.clone(), health, limits, stop.clone()));
    }
    Ok(servers)
}

/// Waits until the process is asked to stop or a part ends, and then stops the parts in order.
async fn run_until_stopped(
    running: Running,
    mut http: JoinSet<()>,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    let Running { mut step, mut supervisor, stop_lanes, mut background, mut projectors } = running;
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        ended = &mut supervisor => part_ended(ended, ServeError::Lanes),
        ended = &mut step => part_ended(ended, ServeError::Step),
        Some(ended) = http.join_next() => Err(ended_early(ended.map(|()| "HTTP server"))),
        Some(ended) = background.join_next() => Err(ended_early(ended)),
        Some(ended) = projectors.join_next() => Err(ended_early(ended)),
    };

    // HTTP stops first, while the step still runs: accepted commands are committed and answered.
    stop.cancel();
    if tokio::time::timeout(HTTP_WITHIN, all_ended(&mut http)).await.is_err() {
        tracing::warn!(event.code = "http.slow_stop", "some HTTP requests did not end in time");
    }
    ended?;

    // Then the supervisor hands over the lanes and ends, and with it the step and the relay.
    drop(projectors);
    stop_lanes.cancel();
    match tokio::time::timeout(LANES_WITHIN, supervisor).await {
        Ok(ended) => part_ended(ended, ServeError::Lanes),
        Err(_) => {
            tracing::warn!(
                event.code = "lanes.slow_stop",
                "not all lanes could be handed over in time; their leases run out by themselves"
            );
            Ok(())
        }
    }
}

async fn all_ended(servers: &mut JoinSet<()>) {
    while servers.join_next().await.is_some() {}
}

/// A part has ended that must run as long as the process: the process ends and says so, because
/// without the part it would do half its work unseen.
fn ended_early(ended: Result<&'static str, JoinError>) -> ServeError {
    ServeError::Part(match ended {
        Ok(part) => format!("the {part} has ended"),
        Err(panicked) => panicked.to_string(),
    })
}

fn part_ended<E: std::error::Error>(
    ended: Result<Result<(), E>, JoinError>,
    as_error: fn(String) -> ServeError,
) -> Result<(), ServeError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => Err(as_error(stopped.to_string())),
        Err(panicked) => Err(as_error(panicked.to_string())),
    }
}

async fn stop_at_signal(stop: CancellationToken) {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    if let (Ok(mut terminate), Ok(mut interrupt)) = signals {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!(
            event.code = "service.stopping",
            "stopping: no more requests, lanes are handed over"
        );
        stop.cancel();
    }
}

async fn migrate_when_it_answers<A: App>(
    database: &Database,
    stop: &CancellationToken,
) -> Result<(), ServeError> {
    while !stop.is_cancelled() {
        match database.connect().await {
            Ok(mut connection) => {
                return look_and_migrate::<A>(&mut connection).await;
            }
            Err(error) => tracing::warn!(
                event.code = "database.unreachable", error = %error,
                "the database is not reachable yet"
            ),
        }
        tokio::time::sleep(RETRY).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    /// Parts that run on until they are told to stop.
    fn running() -> (Running, JoinSet<()>, CancellationToken) {
        let (stop, stop_lanes) = (CancellationToken::new(), CancellationToken::new());
        let (stopped, lanes_stopped) = (stop.clone(), stop_lanes.clone());
        let running = Running {
            step: tokio::spawn(pending()),
            supervisor: tokio::spawn(async move {
                lanes_stopped.cancelled().await;
                Ok(())
            }),
            stop_lanes,
            background: JoinSet::new(),
            projectors: JoinSet::new(),
        };
        let mut http = JoinSet::new();
        http.spawn(async move { stopped.cancelled().await });
        (running, http, stop)
    }

    #[tokio::test]
    async fn a_process_that_is_asked_to_stop_ends_without_an_error() {
        let (mut running, http, stop) = running();
        running.background.spawn(pending());
        stop.cancel();
        assert!(run_until_stopped(running, http, &stop).await.is_ok());
    }

    #[tokio::test]
    async fn a_part_that_ends_or_panics_ends_the_process() {
        let ended = async |change: fn(&mut Running, &mut JoinSet<()>)| {
            let (mut running, mut http, stop) = running();
            change(&mut running, &mut http);
            let ended = run_until_stopped(running, http, &stop).await;
            ended.err().map(|error| error.to_string()).unwrap_or_default()
        };

        let relay = ended(|running, _| drop(running.background.spawn(async { "relay" })));
        assert_eq!(relay.await, "the relay has ended");
        let relay = ended(|running, _| drop(running.background.spawn(async { panic!("a bug") })));
        assert!(relay.await.contains("a bug"));
        let projector = ended(|running, _| drop(running.projectors.spawn(async { "projector" })));
        assert_eq!(projector.await, "the projector has ended");
        let http = ended(|_, http| drop(http.spawn(async {})));
        assert_eq!(http.await, "the HTTP server has ended");
    }
}
