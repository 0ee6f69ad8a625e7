//! `elkfk replay`: sends dead letters again to the topic they came from.
//!
//! To be run after the cause was repaired. Each goes to its partition with its headers, less those
//! about its death, so its `_id` is what it was and a document that had arrived is not doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::output::dead_letter::{HEADER_PREFIX, OMITTED, PARTITION, TOPIC, dead_topic};

/// Which dead letters to send again.
#[derive(Debug, Clone)]
pub struct ReplayConfig {
    pub bootstrap_servers: String,
    /// The topic that was consumed; its dead letters are in `<topic>.dead`.
    pub topic: String,
    /// Remembers how far letters were replayed, so that each is sent once.
    pub group: String,
    /// All letters still in the topic, those replayed before too.
    pub from_beginning: bool,
}

impl Default for ReplayConfig {
    fn default() -> Self {
        Self {
            bootstrap_servers: "127.0.0.1:9092".into(),
            topic: "logs".into(),
            group: "elkfk-replay".into(),
            from_beginning: false,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// Letters sent, by their source topic.
    pub sent: BTreeMap<String, u64>,
    /// Letters whose record was too large to be kept; it is in the source topic, if it still is.
    pub without_value: u64,
    /// Records that are no dead letters.
    pub foreign: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    #[error("topic {0} does not exist: there are no dead letters")]
    NoTopic(String),
    #[error("read dead letters of {topic}")]
    Read { topic: String, source: KafkaError },
    #[error("send to {topic}")]
    Send { topic: String, source: KafkaError },
    #[error("commit the position in {topic}")]
    Commit { topic: String, source: KafkaError },
    #[error("replay ended early: {0}")]
    Ended(String),
}

const KAFKA_PATIENCE: Duration = Duration::from_secs(30);

/// Sends the letters that are there now; later ones are for the next run.
pub async fn replay(config: ReplayConfig) -> Result<ReplayReport, ReplayError> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || run(&config, &runtime))
        .await
        .map_err(|error| ReplayError::Ended(error.to_string()))?
}

fn run(
    config: &ReplayConfig,
    runtime: &tokio::runtime::Handle,
) -> Result<ReplayReport, ReplayError> {
    let topic = dead_topic(&config.topic);
    let read = |source| ReplayError::Read { topic: topic.clone(), source };
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", &config.group)
        .set("client.id", "elkfk-replay")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .map_err(read)?;
    let metadata = consumer.fetch_metadata(Some(&topic), KAFKA_PATIENCE).map_err(read)?;
    let partitions: Vec<i32> = metadata
        .topics()
        .iter()
        .filter(|held| held.name() == topic && held.error().is_none())
        .flat_map(|held| held.partitions().iter().map(|partition| partition.id()))
        .collect();
    if partitions.is_empty() {
        return Err(ReplayError::NoTopic(topic));
    }
    let mut positions = TopicPartitionList::new();
    for partition in &partitions {
        positions.add_partition(&topic, *partition);
    }
    if !config.from_beginning {
        positions = consumer.committed_offsets(positions, KAFKA_PATIENCE).map_err(read)?;
    }
    // Up to what is there now: `ends` is what remains to be read.
    let (mut ends, mut assignment) = (BTreeMap::new(), TopicPartitionList::new());
    for position in positions.elements() {
        let partition = position.partition();
        let (low, high) =
            consumer.fetch_watermarks(&topic, partition, KAFKA_PATIENCE).map_err(read)?;
        let from = match position.offset() {
            Offset::Offset(offset) => offset.max(low),
            _ => low,
        };
        if from < high {
            ends.insert(partition, high);
            assignment
                .add_partition_offset(&topic, partition, Offset::Offset(from))
                .map_err(read)?;
        }
    }
    let mut report = ReplayReport::default();
    if ends.is_empty() {
        return Ok(report);
    }
    consumer.assign(&assignment).map_err(read)?;
    let producer: FutureProducer = {
        let _entered = runtime.enter();
        ClientConfig::new()
            .set("bootstrap.servers", &config.bootstrap_servers)
            .set("client.id", "elkfk-replay")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.max.bytes", "100000000")
            .create()
            .map_err(|source| ReplayError::Send { topic: config.topic.clone(), source })?
    };
    while !ends.is_empty() {
        let message = match consumer.poll(KAFKA_PATIENCE) {
            None => return Err(ReplayError::Ended(format!("no answer from {topic}"))),
            Some(message) => message.map_err(read)?,
        };
        let mut headers = OwnedHeaders::new();
        let (mut source_topic, mut source_partition, mut is_omitted) = (None, None, false);
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
            match header.key {
                TOPIC => source_topic = text.map(str::to_owned),
                PARTITION => source_partition = text.and_then(|text| text.parse::<i32>().ok()),
                OMITTED => is_omitted = true,
                name if name.starts_with(HEADER_PREFIX) => {}
                key => headers = headers.insert(Header { key, value: header.value }),
            }
        }
        match source_topic {
            None => report.foreign += 1,
            Some(_) if is_omitted => report.without_value += 1,
            Some(source_topic) => {
                let mut record: FutureRecord<'_, [u8], [u8]> =
                    FutureRecord::to(&source_topic).headers(headers);
                record.key = message.key();
                record.payload = message.payload();
                record.partition = source_partition;
                record.timestamp = message.timestamp().to_millis();
                let sent = runtime.block_on(producer.send(record, KAFKA_PATIENCE));
                if let Err((source, _)) = sent {
                    return Err(ReplayError::Send { topic: source_topic, source });
                }
                *report.sent.entry(source_topic).or_default() += 1;
            }
        }
        let (partition, next) = (message.partition(), message.offset() + 1);
        // Once a letter, so that an interrupted replay repeats one at most; and its id is known.
        let mut position = TopicPartitionList::new();
        let commit = |source| ReplayError::Commit { topic: topic.clone(), source };
        position.add_partition_offset(&topic, partition, Offset::Offset(next)).map_err(commit)?;
        consumer.commit(&position, CommitMode::Sync).map_err(commit)?;
        if ends.get(&partition).is_some_and(|end| next >= *end) {
            ends.remove(&partition);
        }
    }
    Ok(report)
}
