//! Running a service: its parts are made, start, and stop in order.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use rdkafka::error::KafkaError;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::program::{bad_property, bad_url};
use super::settings::RunSettings;
use super::{App, BadSetting, Commands, Edge, Gate, health};
use crate::database::{Commits, Sessions};
use crate::failpoints;
use crate::http::{self, Access, ConnectionLimits, Problem, TimeLimits};
use crate::kafka::{Intake, ReadError, Reader, TopicError};
use crate::lanes::{Keeper, KeeperStopped};
use crate::model::{Partitions, Service};
use crate::outbox::{Publisher, Relay, Wakeup};
use crate::projection::Projector;
use crate::replica::{Replica, inputs_of, topic_of};
use crate::step::{StepInbox, StepLimits, StepLoop, StepStopped};

/// How long HTTP requests may take to end once the process stops.
const HTTP_AT_MOST: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Why a service does not run (any more).
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting is wrong.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// The database does not answer.
    #[error("the database does not answer")]
    Database(#[from] sqlx::Error),
    /// The tables cannot be made.
    #[error("the database cannot be migrated")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// Kafka refuses.
    #[error("kafka refuses")]
    Kafka(#[from] KafkaError),
    /// The topic cannot be made.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// HTTP cannot be served.
    #[error("HTTP cannot be served")]
    Http(#[from] std::io::Error),
    /// The topics do not fit together.
    #[error("{topic} has {found} partitions and {own} has {expected}: all topics of a deployment have the same count")]
    Partitions {
        /// An input.
        topic: String,
        /// Its count.
        found: i32,
        /// The own topic.
        own: String,
        /// Its count.
        expected: i32,
    },
    /// Leases cannot go on.
    #[error("{0}")]
    Lanes(String),
    /// A programming error.
    #[error("{0}")]
    Step(String),
}

/// Runs a service until it is told to stop by SIGTERM or Ctrl-C, or cannot go on.
///
/// # Errors
/// See [`ServeError`].
pub async fn serve<A: App>(settings: &RunSettings, of_service: &A::Settings) -> Result<(), ServeError> {
    let name = <A::Service as Service>::NAME;
    let sessions = Sessions::new(&settings.database.url()?, name, settings.lease).map_err(|error| bad_url(&error))?;
    let kafka = settings.kafka.kafka(name)?;
    let pool = sessions.pool(settings.connections);
    let gate = Arc::new(Gate::new(settings.backlog_limit));
    let (commands, command_inbox) = Commands::<A::Service>::new(settings.command_limit, settings.command_timeout, gate.clone());
    let (intake, records) = Intake::start(&kafka.consumer()).map_err(|error| bad_property(&error))?;
    let publisher = Publisher::new(&kafka, name, topic_of::<A::Service>(&kafka)).map_err(|error| bad_property(&error))?;
    let access = settings.access.access()?;
    if matches!(access, Access::Open) {
        tracing::warn!("AUTH=off: anybody who reaches this address may do anything");
    }
    let stop = CancellationToken::new();
    let database = sessions.pool(settings.query_connections);
    let edge = Edge { commands, database, stop: stop.clone(), waiting: Arc::new(Semaphore::new(settings.waiting_limit)) };
    let (router, api) = A::router(edge, of_service)?.split_for_parts();
    let document = Json(http::complete(api, name));
    let health = health::router(gate.clone());
    let router = router
        .route_layer(from_fn_with_state(access, http::authenticate))
        .route("/openapi.json", get(async || document))
        .merge(health.clone())
        .layer(from_fn_with_state(TimeLimits::default(), http::in_time))
        .layer(DefaultBodyLimit::max(http::LARGEST_BODY))
        .fallback(async || Problem::not_found("there is no such path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed());

    let listener = TcpListener::bind(settings.http.http_address).await?;
    tracing::info!(address = %listener.local_addr()?, instance = settings.instance_id, "{name} serves HTTP");
    let http = tokio::spawn(http::serve(listener, router, health, ConnectionLimits::of(settings.http_connections), stop.clone()));
    tokio::spawn(stop_at_signal(stop.clone(), gate.clone()));

    if settings.migrate {
        migrate_when_it_answers::<A>(&sessions, &stop).await?;
    }
    failpoints::reached(failpoints::START_MIGRATED);
    let reader = Reader::new(kafka.clone());
    let Some(partitions) = partitions::<A::Service>(&reader, &sessions, &gate, &stop).await? else { return Ok(()) };
    let replica = Arc::new(Replica::<A::Service> {
        instance: settings.instance_id.clone(),
        partitions,
        topic: topic_of::<A::Service>(&kafka),
        inputs: inputs_of::<A::Service>(&kafka),
        reader,
        publisher,
        sessions: sessions.clone(),
        pool: pool.clone(),
        service: PhantomData,
    });
    let (notices, notice_inbox) = mpsc::unbounded_channel();
    let (orders, order_inbox) = mpsc::unbounded_channel();
    let relay = Relay::start(replica.clone(), &sessions, pool, gate.clone(), notices.clone());
    let mut projectors = JoinSet::new();
    for projection in A::projections() {
        let projector = Projector::new(projection, replica.reader.clone(), partitions, sessions.clone(), gate.clone())
            .map_err(|error| bad_property(&error))?;
        projectors.spawn(projector.run());
    }
    let wakeup = Wakeup::start(sessions);
    let limits = StepLimits {
        batch: usize::try_from(settings.batch).unwrap_or(usize::MAX),
        event_bytes: settings.max_event_bytes,
        commits: if settings.async_commit { Commits::Asynchronous } else { Commits::Durable },
    };
    let step = StepLoop::new(replica.clone(), gate.clone(), relay.clone(), wakeup, intake, notices.clone(), limits);
    let mut step = tokio::spawn(step.run(StepInbox { orders: order_inbox, records, commands: command_inbox }));
    let keeper = Keeper::new(replica, settings.lease, gate.clone(), orders, relay, notices);
    let lanes_stop = CancellationToken::new();
    let mut keeper = tokio::spawn(keeper.run(notice_inbox, lanes_stop.clone()));

    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = &mut keeper => lanes_ended(ended),
        ended = &mut step => step_ended(ended),
    };
    gate.stop();
    stop.cancel();
    if tokio::time::timeout(HTTP_AT_MOST, http).await.is_err() {
        tracing::warn!("some HTTP requests did not end in time");
    }
    ended?;
    drop(projectors); // which ends them
    lanes_stop.cancel();
    lanes_ended(keeper.await)?;
    tracing::info!("{name} has stopped");
    Ok(())
}

fn lanes_ended(ended: Result<Result<(), KeeperStopped>, tokio::task::JoinError>) -> Result<(), ServeError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => Err(ServeError::Lanes(stopped.to_string())),
        Err(panicked) => Err(ServeError::Lanes(panicked.to_string())),
    }
}

fn step_ended(ended: Result<Result<(), StepStopped>, tokio::task::JoinError>) -> Result<(), ServeError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(stopped)) => Err(ServeError::Step(stopped.to_string())),
        Err(panicked) => Err(ServeError::Step(panicked.to_string())),
    }
}

async fn stop_at_signal(stop: CancellationToken, gate: Arc<Gate>) {
    if let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no more requests, lanes are handed over");
        gate.stop();
        stop.cancel();
    }
}

async fn migrate_when_it_answers<A: App>(sessions: &Sessions, stop: &CancellationToken) -> Result<(), ServeError> {
    while !stop.is_cancelled() {
        match sessions.connect().await {
            Ok(mut connection) => return Ok(A::migrations().run(&mut connection).await?),
            Err(error) => tracing::warn!(error = %error, "the database does not answer yet"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// Waits until all topics are there, and compares their counts of partitions. `None` where the process is to stop.
async fn partitions<S: Service>(
    reader: &Reader,
    sessions: &Sessions,
    gate: &Gate,
    stop: &CancellationToken,
) -> Result<Option<Partitions>, ServeError> {
    let own = topic_of::<S>(reader.kafka());
    let mut topics = vec![own.clone()];
    topics.extend(inputs_of::<S>(reader.kafka()));
    let mut counts: Vec<(Arc<str>, i32)> = Vec::new();
    let mut said = String::new();
    for topic in topics {
        loop {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let waits = match reader.partition_count(&topic).await {
                Ok(Some(count)) => {
                    counts.push((topic.clone(), count));
                    break;
                }
                Ok(None) => absent(sessions, &topic, topic == own).await,
                Err(error @ ReadError::Kafka(_)) => {
                    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                    format!("waiting for kafka: {error}: {cause}")
                }
                Err(error) => format!("waiting for kafka: {error}"),
            };
            if said != waits {
                tracing::warn!("{waits}");
                gate.set(Some(waits.clone()));
                said = waits;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            }
        }
    }
    let expected = counts.first().map_or(0, |(_, count)| *count);
    if let Some((topic, found)) = counts.iter().find(|(_, count)| *count != expected) {
        return Err(ServeError::Partitions { topic: topic.to_string(), found: *found, own: own.to_string(), expected });
    }
    Ok(Partitions::new(expected))
}

/// What it means that a topic is not there. Where records of it were read or, if it is the own one, written, it is not one that does
/// not exist yet. A database that does not answer knows of none.
async fn absent(sessions: &Sessions, topic: &str, own: bool) -> String {
    let known = "select exists (select from reel.positions where topic = $1 and generation >= 0)
             or $2 and exists (select from reel.cursors where generation >= 0)";
    let asked = async {
        let mut connection = sessions.connect().await?;
        sqlx::query_scalar::<_, bool>(known).bind(topic).bind(own).fetch_one(&mut connection).await
    };
    if asked.await.unwrap_or(false) {
        format!("THE TOPIC {topic} IS GONE, and was read or written before: nothing runs until it is back as it was")
    } else {
        format!("waiting for topic {topic}, which does not exist yet: its service makes it by `topics`")
    }
}
