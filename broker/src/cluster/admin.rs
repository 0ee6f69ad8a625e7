//! What clients may change: topics, their partitions and their configuration.
//!
//! Rules and complaints are Kafka's. As in Kafka any broker writes topic and configuration znodes;
//! leaders, and the end of deleted topics, are the controller's affair.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use elkfk_coordinator_client::{self as zookeeper, CreateMode};
use elkfk_wire::kafka::{ErrorCode, Uuid};
use tracing::{info, warn};

use super::image::{Image, NO_LEADER, OFFSETS_TOPIC, Topic, is_internal};
use super::{ADMIN_WAIT_MAX, Cluster, znodes};
use crate::config::{TopicConfigError, validate_topic_config};

const NAME_BYTES_MAX: usize = 249;
/// Partitions of one topic: an assignment of more would not fit a znode.
const PARTITIONS_MAX: i32 = 10_000;

/// A refusal as it goes to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {}", message.as_deref().unwrap_or_default())]
pub(crate) struct AdminError {
    pub(crate) code: ErrorCode,
    pub(crate) message: Option<String>,
}

impl AdminError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Some(message.into()) }
    }
}

impl From<ErrorCode> for AdminError {
    fn from(code: ErrorCode) -> Self {
        Self { code, message: None }
    }
}

impl From<zookeeper::Error> for AdminError {
    fn from(error: zookeeper::Error) -> Self {
        warn!(%error, "request to ZooKeeper failed");
        Self::new(ErrorCode::REQUEST_TIMED_OUT, format!("ZooKeeper: {error}"))
    }
}

impl From<TopicConfigError> for AdminError {
    fn from(error: TopicConfigError) -> Self {
        Self::new(ErrorCode::INVALID_CONFIG, error.to_string())
    }
}

/// Where the replicas of a topic shall live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Replicas {
    /// So many partitions and replicas, spread over the brokers; `None` is the broker's default.
    Spread { partitions: Option<i32>, factor: Option<i16> },
    /// Brokers by partition number.
    Assigned(BTreeMap<i32, Vec<i32>>),
}

#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub(crate) name: String,
    pub(crate) replicas: Replicas,
    pub(crate) config: BTreeMap<String, String>,
}

/// What was, or would be, created.
#[derive(Debug, Clone)]
pub(crate) struct Created {
    pub(crate) id: Uuid,
    pub(crate) replicas: Vec<Vec<i32>>,
}

/// # Errors
/// `INVALID_TOPIC_EXCEPTION` with Kafka's reason.
pub(crate) fn check_name(name: &str) -> Result<(), AdminError> {
    let wrong = |why: String| {
        Err(AdminError::new(
            ErrorCode::INVALID_TOPIC_EXCEPTION,
            format!("Topic name is invalid: {why}"),
        ))
    };
    if name.is_empty() {
        return wrong("the empty string is not allowed".into());
    }
    if name == "." || name == ".." {
        return wrong(format!("'{name}' is not allowed"));
    }
    if name.len() > NAME_BYTES_MAX {
        return wrong(format!(
            "the length of '{name}' is longer than the max allowed length {NAME_BYTES_MAX}"
        ));
    }
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
        return wrong(format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// Kafka's names of metrics take `.` for `_`: two such topics would be one there.
fn check_collisions(image: &Image, name: &str) -> Result<(), AdminError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let plain = name.replace('.', "_");
    let colliding: Vec<&str> = image
        .topics
        .keys()
        .filter(|other| *other != name && other.replace('.', "_") == plain)
        .map(String::as_str)
        .collect();
    if colliding.is_empty() {
        return Ok(());
    }
    Err(AdminError::new(
        ErrorCode::INVALID_TOPIC_EXCEPTION,
        format!("Topic '{name}' collides with existing topics: {}", colliding.join(", ")),
    ))
}

/// Replicas of partitions `from..to`: leaders go round, followers shift against them, as Kafka does
/// where no broker has a rack.
fn spread(brokers: &[i32], from: i32, to: i32, factor: usize, start: usize) -> Vec<Vec<i32>> {
    let count = brokers.len();
    let mut assignments = Vec::new();
    for partition in from..to {
        let number = usize::try_from(partition).unwrap_or_default();
        let first = (start + number) % count;
        let shift = start + number / count;
        let followers =
            (0..factor - 1).map(|j| (first + 1 + (shift + j) % (count - 1).max(1)) % count);
        assignments.push(std::iter::once(first).chain(followers).map(|at| brokers[at]).collect());
    }
    assignments
}

fn check_assignment<'a>(
    assignments: impl Iterator<Item = &'a Vec<i32>> + Clone,
) -> Result<(), AdminError> {
    let wrong = |why: String| Err(AdminError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why));
    for replicas in assignments.clone() {
        if replicas.is_empty() {
            return wrong(
                "Cannot have replication factor of 0 for partition replica assignment.".into(),
            );
        }
        let distinct: BTreeSet<i32> = replicas.iter().copied().collect();
        if distinct.len() != replicas.len() {
            return wrong(format!(
                "Duplicate replicas not allowed in partition assignment: {replicas:?}."
            ));
        }
        if replicas.iter().any(|broker| *broker < 0) {
            return wrong(format!("Broker ids cannot be negative: {replicas:?}."));
        }
    }
    let factors: BTreeSet<usize> = assignments.map(Vec::len).collect();
    match factors.len() {
        0 | 1 => Ok(()),
        _ => wrong("All partitions should have the same number of replicas.".into()),
    }
}

impl Cluster {
    fn assign(&self, image: &Image, replicas: &Replicas) -> Result<Vec<Vec<i32>>, AdminError> {
        match replicas {
            Replicas::Spread { partitions, factor } => {
                let partitions = partitions.unwrap_or(self.config.num_partitions);
                let factor = factor.unwrap_or(self.config.default_replication_factor);
                if partitions <= 0 {
                    let why = "Number of partitions must be larger than 0.";
                    return Err(AdminError::new(ErrorCode::INVALID_PARTITIONS, why));
                }
                if partitions > PARTITIONS_MAX {
                    let why = format!("Number of partitions must be at most {PARTITIONS_MAX}.");
                    return Err(AdminError::new(ErrorCode::INVALID_PARTITIONS, why));
                }
                let factor = self.check_factor(image, factor)?;
                let brokers: Vec<i32> = image.brokers.keys().copied().collect();
                Ok(spread(&brokers, 0, partitions, factor, rand::random_range(0..brokers.len())))
            }
            Replicas::Assigned(assigned) => {
                let expected = 0..i32::try_from(assigned.len()).unwrap_or(i32::MAX);
                if assigned.is_empty() || !assigned.keys().copied().eq(expected) {
                    let why = "partitions should be a consecutive 0-based integer sequence";
                    return Err(AdminError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why));
                }
                check_assignment(assigned.values())?;
                Ok(assigned.values().cloned().collect())
            }
        }
    }

    fn check_factor(&self, image: &Image, factor: i16) -> Result<usize, AdminError> {
        let wrong = |why: String| Err(AdminError::new(ErrorCode::INVALID_REPLICATION_FACTOR, why));
        match usize::try_from(factor) {
            Ok(0) | Err(_) => wrong("Replication factor must be larger than 0.".into()),
            Ok(factor) if factor > image.brokers.len() => wrong(format!(
                "Replication factor: {factor} larger than available brokers: {}.",
                image.brokers.len()
            )),
            Ok(factor) => Ok(factor),
        }
    }

    /// Creates a topic, or only says whether that could be done.
    ///
    /// Returns once the topic is written; [`Cluster::await_leaders`] waits until it can be used.
    pub(crate) async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<Created, AdminError> {
        let image = self.image();
        check_name(&topic.name)?;
        if image.topics.contains_key(&topic.name) {
            return Err(already_exists(&topic.name));
        }
        check_collisions(&image, &topic.name)?;
        validate_topic_config(&topic.config)?;
        let replicas = self.assign(&image, &topic.replicas)?;
        let id = Uuid(*uuid::Uuid::new_v4().as_bytes());
        if validate_only {
            return Ok(Created { id, replicas });
        }
        let write = self.write_topic(&topic.name, id, &replicas, &topic.config);
        tokio::time::timeout(ADMIN_WAIT_MAX, write).await.map_err(|_| timed_out())??;
        info!(topic = topic.name, partitions = replicas.len(), "topic created");
        Ok(Created { id, replicas })
    }

    async fn write_topic(
        &self,
        name: &str,
        id: Uuid,
        replicas: &[Vec<i32>],
        config: &BTreeMap<String, String>,
    ) -> Result<(), AdminError> {
        let client = self.client();
        if client.exists(&znodes::topic(name)).await?.is_some() {
            return Err(already_exists(name));
        }
        // The configuration first, so that nobody sees the topic without it.
        self.write_config(name, config).await?;
        let json = znodes::encode_topic(id, replicas);
        match client.create(&znodes::topic(name), json.as_bytes(), CreateMode::Persistent).await {
            Err(error) if error.is_node_exists() => Err(already_exists(name)),
            result => Ok(result.map(drop)?),
        }
    }

    async fn write_config(
        &self,
        name: &str,
        config: &BTreeMap<String, String>,
    ) -> Result<(), AdminError> {
        let (client, path) = (self.client(), znodes::topic_config(name));
        let json = znodes::encode_config(config);
        match client.set(&path, json.as_bytes(), None).await {
            Err(error) if error.is_no_node() => {
                match client.create(&path, json.as_bytes(), CreateMode::Persistent).await {
                    // Two who create the topic at once: whose it is, its own znode decides.
                    Err(error) if error.is_node_exists() => {
                        Ok(client.set(&path, json.as_bytes(), None).await.map(drop)?)
                    }
                    result => Ok(result.map(drop)?),
                }
            }
            result => Ok(result.map(drop)?),
        }
    }

    /// Waits until every partition of `topic` has a leader; false if that takes longer than `wait`.
    pub(crate) async fn await_leaders(
        &self,
        topic: &str,
        partitions: usize,
        wait: Duration,
    ) -> bool {
        let mut images = self.watch_image();
        let is_led = |image: &std::sync::Arc<Image>| {
            image.topics.get(topic).is_some_and(|topic| {
                topic.partitions.len() >= partitions
                    && topic.partitions.iter().all(|partition| partition.leader != NO_LEADER)
            })
        };
        tokio::time::timeout(wait, images.wait_for(is_led)).await.is_ok_and(|image| image.is_ok())
    }

    /// Marks a topic for deletion and waits until it is gone, at most `wait`.
    pub(crate) async fn delete_topic(&self, name: &str, wait: Duration) -> Result<(), AdminError> {
        if !self.config.delete_topics {
            let why = "Topic deletion is disabled.";
            return Err(AdminError::new(ErrorCode::TOPIC_DELETION_DISABLED, why));
        }
        let Some(id) = self.image().topics.get(name).map(|topic| topic.id) else {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.into());
        };
        let client = self.client();
        let path = znodes::delete_topic(name);
        let mark = client.create(&path, b"", CreateMode::Persistent);
        match tokio::time::timeout(ADMIN_WAIT_MAX, mark).await.map_err(|_| timed_out())? {
            Err(error) if !error.is_node_exists() => return Err(error.into()),
            _ => {}
        }
        let mut images = self.watch_image();
        let is_gone = |image: &std::sync::Arc<Image>| {
            image.topics.get(name).is_none_or(|topic| topic.id != id)
        };
        match tokio::time::timeout(wait, images.wait_for(is_gone)).await {
            Ok(_) => Ok(()),
            Err(_) => Err(ErrorCode::REQUEST_TIMED_OUT.into()),
        }
    }

    /// Adds partitions up to `count`; `assigned` are the replicas of the new ones.
    pub(crate) async fn create_partitions(
        &self,
        name: &str,
        count: i32,
        assigned: Option<Vec<Vec<i32>>>,
        validate_only: bool,
    ) -> Result<(), AdminError> {
        let image = self.image();
        let Some(topic) = image.topics.get(name) else {
            let why = format!("The topic '{name}' does not exist.");
            return Err(AdminError::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, why));
        };
        let current = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
        let invalid = |why: String| Err(AdminError::new(ErrorCode::INVALID_PARTITIONS, why));
        if count < current {
            return invalid(format!(
                "Topic currently has {current} partitions, which is higher than the requested {count}."
            ));
        }
        if count == current {
            return invalid(format!("Topic already has {current} partitions."));
        }
        if count > PARTITIONS_MAX {
            return invalid(format!("Number of partitions must be at most {PARTITIONS_MAX}."));
        }
        let added = match assigned {
            Some(assigned) => {
                self.check_added(&image, count - current, &assigned)?;
                assigned
            }
            None => self.spread_added(&image, topic, current, count)?,
        };
        if validate_only {
            return Ok(());
        }
        let mut replicas: Vec<Vec<i32>> =
            topic.partitions.iter().map(|partition| partition.replicas.clone()).collect();
        replicas.extend(added);
        let client = self.client();
        let path = znodes::topic(name);
        let write = async {
            let (_, stat) = client.get(&path).await?;
            let json = znodes::encode_topic(topic.id, &replicas);
            client.set(&path, json.as_bytes(), Some(stat.version)).await
        };
        tokio::time::timeout(ADMIN_WAIT_MAX, write).await.map_err(|_| timed_out())??;
        info!(topic = name, partitions = count, "partitions added");
        Ok(())
    }

    fn check_added(
        &self,
        image: &Image,
        wanted: i32,
        assigned: &[Vec<i32>],
    ) -> Result<(), AdminError> {
        let wrong = |why: String| Err(AdminError::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, why));
        if usize::try_from(wanted).ok() != Some(assigned.len()) {
            return wrong(format!(
                "Increasing the number of partitions by {wanted} but {} assignments provided.",
                assigned.len()
            ));
        }
        check_assignment(assigned.iter())?;
        match assigned.iter().flatten().find(|broker| !image.brokers.contains_key(broker)) {
            Some(broker) => wrong(format!("Unknown broker(s) in replica assignment: {broker}.")),
            None => Ok(()),
        }
    }

    fn spread_added(
        &self,
        image: &Image,
        topic: &Topic,
        current: i32,
        count: i32,
    ) -> Result<Vec<Vec<i32>>, AdminError> {
        let first = topic.partitions.first().map_or(&[][..], |partition| &partition.replicas);
        let factor = self.check_factor(image, i16::try_from(first.len()).unwrap_or(i16::MAX))?;
        let brokers: Vec<i32> = image.brokers.keys().copied().collect();
        let start = brokers.iter().position(|broker| Some(broker) == first.first()).unwrap_or(0);
        Ok(spread(&brokers, current, count, factor, start))
    }

    /// Replaces the topic's own settings.
    pub(crate) async fn set_topic_config(
        &self,
        name: &str,
        config: &BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<(), AdminError> {
        if !self.image().topics.contains_key(name) {
            return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.into());
        }
        validate_topic_config(config)?;
        if validate_only {
            return Ok(());
        }
        let write = async {
            self.write_config(name, config).await?;
            let json = znodes::encode_config_change(&format!("topics/{name}"));
            let path = format!("{}/config_change_", znodes::CONFIG_CHANGES);
            self.client().create(&path, json.as_bytes(), CreateMode::PersistentSequential).await?;
            Ok::<(), AdminError>(())
        };
        tokio::time::timeout(ADMIN_WAIT_MAX, write).await.map_err(|_| timed_out())??;
        // Who asks next should see it.
        let mut images = self.watch_image();
        let has_it = |image: &std::sync::Arc<Image>| {
            image.topics.get(name).is_none_or(|topic| topic.config == *config)
        };
        let _ = tokio::time::timeout(Duration::from_secs(5), images.wait_for(has_it)).await;
        Ok(())
    }

    /// Creates a topic because a client asked for it, where the configuration lets that happen.
    ///
    /// # Errors
    /// With the code that a client is to be told meanwhile.
    pub(crate) async fn auto_create(&self, name: &str) -> Result<(), AdminError> {
        let image = self.image();
        check_name(name)?;
        let topic = if is_internal(name) {
            self.internal_topic(&image, name)
        } else {
            let config = &self.config;
            let is_wanted =
                config.auto_create_patterns.iter().any(|pattern| matches(pattern, name));
            if !config.auto_create_topics || !is_wanted {
                return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.into());
            }
            if image.topics.len() >= config.auto_create_topics_max {
                warn!(
                    topic = name,
                    topics = image.topics.len(),
                    "not auto-created: elkfk.auto.create.topics.max is reached"
                );
                return Err(ErrorCode::POLICY_VIOLATION.into());
            }
            let replicas = Replicas::Spread { partitions: None, factor: None };
            NewTopic { name: name.to_owned(), replicas, config: BTreeMap::new() }
        };
        match self.create_topic(&topic, false).await {
            Ok(_) => Ok(()),
            Err(error) if error.code == ErrorCode::TOPIC_ALREADY_EXISTS => Ok(()),
            Err(error) => {
                warn!(topic = name, %error, "topic could not be auto-created");
                Err(error)
            }
        }
    }

    fn internal_topic(&self, image: &Image, name: &str) -> NewTopic {
        let factor = match self.config.given("offsets.topic.replication.factor") {
            Some(_) => self.config.offsets_replication_factor,
            // Kafka's default of 3 would leave a cluster of one or two without groups.
            None => {
                let live = i16::try_from(image.brokers.len()).unwrap_or(i16::MAX);
                self.config.offsets_replication_factor.min(live)
            }
        };
        let partitions = match name {
            OFFSETS_TOPIC => self.config.offsets_partitions,
            _ => self.config.number("transaction.state.log.num.partitions") as i32,
        };
        let config = [
            ("compression.type", "producer".to_owned()),
            ("cleanup.policy", "compact".to_owned()),
            ("segment.bytes", self.config.offsets_segment_bytes.to_string()),
        ];
        NewTopic {
            name: name.to_owned(),
            replicas: Replicas::Spread { partitions: Some(partitions), factor: Some(factor) },
            config: config.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        }
    }
}

fn already_exists(name: &str) -> AdminError {
    AdminError::new(ErrorCode::TOPIC_ALREADY_EXISTS, format!("Topic '{name}' already exists."))
}

fn timed_out() -> AdminError {
    AdminError::new(ErrorCode::REQUEST_TIMED_OUT, "ZooKeeper did not answer in time")
}

/// `*` matches any run of characters.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => name.strip_prefix(head).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_in_kafkas_words() {
        let check = |name: &str, expected: &str| {
            assert_eq!(
                check_name(name).unwrap_err().message.unwrap(),
                format!("Topic name is invalid: {expected}")
            );
        };
        check("", "the empty string is not allowed");
        check("..", "'..' is not allowed");
        check(
            "bad name!",
            "'bad name!' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        );
        let long = "x".repeat(250);
        check(&long, &format!("the length of '{long}' is longer than the max allowed length 249"));
        check_name("a.b_c-9").unwrap();
    }

    #[test]
    fn dots_and_underscores_collide() {
        let mut image = Image::default();
        image.insert("with.dot", Topic::default());
        let error = check_collisions(&image, "with_dot").unwrap_err();
        assert_eq!(
            error.message.unwrap(),
            "Topic 'with_dot' collides with existing topics: with.dot"
        );
        check_collisions(&image, "withdot").unwrap();
    }

    #[test]
    fn leaders_go_round_and_no_broker_holds_a_partition_twice() {
        for (count, factor, start) in [(1, 1, 0), (3, 2, 1), (3, 3, 2), (5, 3, 4)] {
            let brokers: Vec<i32> = (10..10 + count).collect();
            let assigned = spread(&brokers, 0, 20, factor, start);
            assert_eq!(check_assignment(assigned.iter()), Ok(()), "{assigned:?}");
            for broker in &brokers {
                let led = assigned.iter().filter(|replicas| replicas[0] == *broker).count();
                let fair = 20 / brokers.len()..=20usize.div_ceil(brokers.len());
                assert!(fair.contains(&led), "broker {broker} leads {led} of 20");
            }
        }
    }

    #[test]
    fn patterns_match_runs() {
        for (pattern, name, expected) in [
            ("*", "x", true),
            ("logs-*", "logs-a", true),
            ("logs-*", "log", false),
            ("a*b*c", "axxbyc", true),
            ("a", "ab", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
