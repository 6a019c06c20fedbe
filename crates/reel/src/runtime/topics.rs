//! Waits for the topics of a service, and finds how many of their partitions are in use.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::program::bad_database;
use super::{ConfigError, ServeError};
use crate::admission::Admission;
use crate::database::{
    Database, Refusal, ServerError, answered, is_not_migrated, look_at_server, refusal,
};
use crate::kafka::{RangeReader, ReadError, Topics};
use crate::model::{Partitions, Service};
use crate::replica::{inputs_of, topic_of};
use crate::tables::{cursors, heads, positions};

/// Pause before the next attempt to reach a server.
const RETRY: Duration = Duration::from_millis(500);

/// What a service waits with at its start, before it has lanes.
pub(super) struct Waiting<'a> {
    pub(super) reader: &'a RangeReader,
    pub(super) database: &'a Database,
    pub(super) admission: &'a Admission,
    pub(super) stop: &'a CancellationToken,
}

/// The partitions of a deployment's topics into which keys are hashed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct PartitionsInUse {
    pub(super) partitions: Partitions,
    /// What an operator should know of the topics, though the service runs.
    pub(super) warnings: Vec<String>,
}

impl Waiting<'_> {
    /// Waits until all topics exist and the database answers. Returns `None` if the process is
    /// asked to stop.
    ///
    /// # Errors
    /// If the topics do not have the partitions that the database was made for.
    pub(super) async fn for_topics<S: Service>(
        &self,
    ) -> Result<Option<PartitionsInUse>, ServeError> {
        let config = self.reader.config();
        let own = topic_of::<S>(config);
        let mut topics = vec![own.clone()];
        topics.extend(inputs_of::<S>(config));

        let mut counts = Vec::new();
        for topic in topics {
            let is_own = topic == own;
            let Some(count) = self.until(async || self.count(&topic, is_own).await).await else {
                return Ok(None);
            };
            counts.push((topic, count));
        }
        let Some(database) = self.until(async || self.database().await).await else {
            return Ok(None);
        };
        let (lanes, collation) = database.map_err(ServeError::Setting)?;
        let mut in_use = in_use(&counts, lanes)?;
        for warning in &in_use.warnings {
            tracing::warn!(event.code = "topic.more_partitions", "{warning}");
        }
        if let Some(warning) = &collation {
            tracing::warn!(event.code = "database.collation_changed", "{warning}");
        }
        in_use.warnings.extend(collation);
        for (topic, _) in &counts {
            in_use.warnings.extend(self.look_at_settings(topic, *topic == own).await?);
        }
        Ok(Some(in_use))
    }

    /// Looks whether a topic forgets what it was given. Returns a warning if an input does, or if
    /// that cannot be known.
    ///
    /// # Errors
    /// If the own topic does: what it forgets, no rebuild can get back (law 10).
    async fn look_at_settings(&self, topic: &str, own: bool) -> Result<Option<String>, ServeError> {
        let admin = Topics::new(self.reader.config().clone())?;
        let warning = match admin.forgets(topic).await {
            Ok(forgets) if forgets.is_empty() => return Ok(None),
            Ok(forgets) if own => {
                let (topic, settings) = (topic.to_owned(), forgets.join(","));
                return Err(ServeError::Forgets { topic, settings });
            }
            Ok(forgets) => format!(
                "topic {topic} forgets what it was given ({}): a reader that is away for longer \
                 loses it",
                forgets.join(",")
            ),
            Err(error) => {
                format!("whether topic {topic} keeps everything is unknown: {error}")
            }
        };
        tracing::warn!(event.code = "topic.forgets", "{warning}");
        Ok(Some(warning))
    }

    /// Asks until there is an answer, and reports each reason why there is none once. Returns
    /// `None` if the process is asked to stop.
    async fn until<T>(&self, ask: impl AsyncFn() -> Result<T, String>) -> Option<T> {
        let mut reported = String::new();
        while !self.stop.is_cancelled() {
            match ask().await {
                Ok(answer) => return Some(answer),
                Err(reason) if reason != reported => {
                    tracing::warn!(event.code = "service.waiting", "{reason}");
                    self.admission.close_because(reason.clone());
                    reported = reason;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = self.stop.cancelled() => {}
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        None
    }

    /// The number of partitions of a topic, or what to wait for.
    async fn count(&self, topic: &str, own: bool) -> Result<i32, String> {
        match self.reader.partition_count(topic).await {
            Ok(Some(count)) => Ok(count),
            Ok(None) => Err(self.missing(topic, own).await),
            Err(error @ ReadError::Kafka(_)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                Err(format!("waiting for kafka: {error}: {}", cause.unwrap_or_default()))
            }
            Err(error) => Err(format!("waiting for kafka: {error}")),
        }
    }

    /// What a missing topic means. If the database knows that the topic was read or, for the own
    /// topic, written before, it was deleted; otherwise, or if the database is unreachable, it does
    /// not exist yet.
    async fn missing(&self, topic: &str, own: bool) -> String {
        let known = answered(async {
            let mut connection = self.database.connect().await?;
            let read = positions::any_read(&mut connection, topic).await?;
            Ok(read || (own && cursors::any_opened(&mut connection).await?))
        });
        if known.await.unwrap_or(false) {
            format!(
                "topic {topic} is gone, but was read or written before: nothing runs until it is \
                 back as it was"
            )
        } else {
            format!(
                "waiting for topic {topic}, which does not exist yet: its service creates it by \
                 `topics`"
            )
        }
    }

    /// The number of lanes that the database was made for, none if it has no rows or tables yet, and
    /// what an operator should know of it. The inner error is a database that cannot be used.
    async fn database(&self) -> Result<Result<(Option<i32>, Option<String>), ConfigError>, String> {
        let looked = answered(async {
            let mut connection = self.database.connect().await?;
            let warning = match look_at_server(&mut connection).await {
                Ok(warning) => warning,
                Err(ServerError::Database(error)) => return Err(error),
                Err(unusable) => return Ok(Err(bad_database(&unusable))),
            };
            let count = match heads::count(&mut connection).await {
                Err(error) if is_not_migrated(&error) => 0,
                counted => counted?,
            };
            Ok(Ok((i32::try_from(count).ok().filter(|count| *count > 0), warning)))
        });
        looked.await.map_err(|error| match refusal(&error) {
            Some(Refusal { what, mend }) => format!("{what}: {mend} ({error})"),
            None => format!("waiting for the database: {error}"),
        })
    }
}

/// The partitions in use, given how many each topic has, the own one first. Once the database has
/// lanes, their number counts: a topic that was given more partitions since has nothing of ours in
/// them, because a key would fall into another lane.
fn in_use(counts: &[(Arc<str>, i32)], lanes: Option<i32>) -> Result<PartitionsInUse, ServeError> {
    let (own, of_own) = counts.first().map_or(("", 0), |(own, count)| (own, *count));
    let expected = lanes.unwrap_or(of_own);
    let other = counts.iter().find(|(_, count)| match lanes {
        Some(lanes) => *count < lanes,
        None => *count != of_own,
    });
    if let Some((topic, found)) = other {
        let (topic, found) = (topic.to_string(), *found);
        return Err(match lanes {
            Some(expected) => ServeError::FewerPartitions { topic, found, expected },
            None => ServeError::Partitions { topic, found, own: own.to_owned(), expected },
        });
    }

    let ignored = counts.iter().filter(|(_, count)| *count > expected);
    let ignored = ignored.map(|(topic, count)| {
        format!(
            "topic {topic} has {count} partitions; the database was made for {expected}, so the \
             others are neither written nor read"
        )
    });
    // No topic has fewer than one.
    let partitions = Partitions::new(expected).ok_or_else(|| ServeError::FewerPartitions {
        topic: own.to_owned(),
        found: of_own,
        expected,
    })?;
    Ok(PartitionsInUse { partitions, warnings: ignored.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(counts: &[i32]) -> Vec<(Arc<str>, i32)> {
        let names = ["orders", "payments", "stock"].map(Arc::from);
        names.into_iter().zip(counts.iter().copied()).collect()
    }

    #[test]
    fn topics_of_a_new_deployment_have_the_same_count() {
        let used = in_use(&counts(&[12, 12, 12]), None).expect("equal");
        assert_eq!((used.partitions.count(), used.warnings.len()), (12, 0));
        let refused = in_use(&counts(&[12, 13, 12]), None).expect_err("another count");
        assert!(refused.to_string().contains("payments has 13 partitions"), "{refused}");
    }

    #[test]
    fn partitions_that_were_added_later_are_ignored_with_a_warning() {
        let used = in_use(&counts(&[13, 12, 24]), Some(12)).expect("enough");
        assert_eq!(used.partitions.count(), 12);
        let named = ["orders has 13", "stock has 24"];
        let says = |warning: &String, name: &str| warning.contains(name);
        assert!(used.warnings.iter().zip(named).all(|(w, name)| says(w, name)), "{used:?}");
        assert_eq!(used.warnings.len(), 2);
    }

    #[test]
    fn a_topic_with_fewer_partitions_than_lanes_is_refused() {
        let refused = in_use(&counts(&[12, 6, 12]), Some(12)).expect_err("too few");
        assert!(refused.to_string().contains("payments has 6 partitions"), "{refused}");
    }
}
