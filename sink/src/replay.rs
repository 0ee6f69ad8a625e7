//! `elkfk replay`: sends dead letters again to the topic they came from.
//!
//! To be run after the cause was repaired. Each goes to its partition with its headers, less those
//! about its death, so its `_id` is what it was and a document that had arrived is not doubled.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::output::dead_letter::{HEADER_PREFIX, OFFSET, OMITTED, PARTITION, TOPIC, dead_topic};

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
    /// Letters whose record was too large to be kept, and is no longer in its topic.
    pub without_value: u64,
    /// Letters that can never be sent, such as for a topic that is gone; they stay where they are.
    pub unsendable: u64,
    /// Why the first of them could not be.
    pub unsendable_reason: Option<String>,
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
    let consumer: BaseConsumer = client(config, &config.group).create().map_err(read)?;
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
            .set("message.timeout.ms", KAFKA_PATIENCE.as_millis().to_string())
            .create()
            .map_err(|source| ReplayError::Send { topic: config.topic.clone(), source })?
    };
    let mut source = Source { config, consumer: None };
    while !ends.is_empty() {
        // As many as are there, up to a limit; sent together, then committed together.
        let (mut letters, mut next, mut bytes) = (Vec::new(), BTreeMap::new(), 0);
        while !ends.is_empty() && letters.len() < BATCH_LETTERS_MAX && bytes < BATCH_BYTES_MAX {
            let message = match consumer.poll(KAFKA_PATIENCE) {
                None => return Err(ReplayError::Ended(format!("no answer from {topic}"))),
                Some(message) => message.map_err(read)?,
            };
            match Letter::read(&message, &mut source)? {
                Read::Foreign => report.foreign += 1,
                Read::WithoutValue => report.without_value += 1,
                Read::Letter(letter) => {
                    bytes += letter.bytes();
                    letters.push(letter);
                }
            }
            let after = message.offset() + 1;
            next.insert(message.partition(), after);
            if ends.get(&message.partition()).is_some_and(|end| after >= *end) {
                ends.remove(&message.partition());
            }
        }
        runtime.block_on(send_all(&producer, &letters, &mut report))?;
        // An interrupted replay repeats these at most; and their ids are known.
        let mut positions = TopicPartitionList::new();
        let commit = |source| ReplayError::Commit { topic: topic.clone(), source };
        for (partition, offset) in next {
            positions
                .add_partition_offset(&topic, partition, Offset::Offset(offset))
                .map_err(commit)?;
        }
        consumer.commit(&positions, CommitMode::Sync).map_err(commit)?;
    }
    Ok(report)
}

/// Letters under way together.
const BATCH_LETTERS_MAX: usize = 500;
/// Their size, beyond which no more is added.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// A letter on its way back.
struct Letter {
    topic: String,
    partition: Option<i32>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
    timestamp_ms: Option<i64>,
}

enum Read {
    Letter(Letter),
    /// The record was too large for a letter and is no longer in its topic.
    WithoutValue,
    Foreign,
}

impl Letter {
    fn read(message: &BorrowedMessage<'_>, source: &mut Source<'_>) -> Result<Read, ReplayError> {
        let mut headers = OwnedHeaders::new();
        let (mut topic, mut partition, mut offset, mut is_omitted) = (None, None, None, false);
        for header in message.headers().into_iter().flat_map(|headers| headers.iter()) {
            let text = header.value.and_then(|value| std::str::from_utf8(value).ok());
            match header.key {
                TOPIC => topic = text.map(str::to_owned),
                PARTITION => partition = text.and_then(|text| text.parse::<i32>().ok()),
                OFFSET => offset = text.and_then(|text| text.parse::<i64>().ok()),
                OMITTED => is_omitted = true,
                name if name.starts_with(HEADER_PREFIX) => {}
                key => headers = headers.insert(Header { key, value: header.value }),
            }
        }
        let Some(topic) = topic else { return Ok(Read::Foreign) };
        let value = match (is_omitted, partition, offset) {
            (false, ..) => message.payload().map(<[u8]>::to_vec),
            (true, Some(partition), Some(offset)) => {
                match source.value(&topic, partition, offset)? {
                    Some(value) => Some(value),
                    None => return Ok(Read::WithoutValue),
                }
            }
            (true, ..) => return Ok(Read::WithoutValue),
        };
        Ok(Read::Letter(Self {
            topic,
            partition,
            key: message.key().map(<[u8]>::to_vec),
            value,
            headers,
            timestamp_ms: message.timestamp().to_millis(),
        }))
    }

    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, Vec::len) + self.key.as_ref().map_or(0, Vec::len)
    }
}

/// Sends all and waits for all. One that can never be sent is counted and passed over; it stays
/// among the dead letters.
async fn send_all(
    producer: &FutureProducer,
    letters: &[Letter],
    report: &mut ReplayReport,
) -> Result<(), ReplayError> {
    let (mut sending, mut first_error) = (Vec::with_capacity(letters.len()), None);
    for letter in letters {
        let mut record: FutureRecord<'_, [u8], [u8]> =
            FutureRecord::to(&letter.topic).headers(letter.headers.clone());
        record.key = letter.key.as_deref();
        record.payload = letter.value.as_deref();
        record.partition = letter.partition;
        record.timestamp = letter.timestamp_ms;
        // The queue holds far more than one batch, so that this waits for nothing.
        match producer.send_result(record) {
            Ok(delivery) => sending.push((letter, delivery)),
            Err((error, _)) => report.on_unsent(letter, error, &mut first_error),
        }
    }
    for (letter, delivery) in sending {
        match delivery.await {
            Ok(Ok(_)) => *report.sent.entry(letter.topic.clone()).or_default() += 1,
            Ok(Err((error, _))) => report.on_unsent(letter, error, &mut first_error),
            // The producer is ours and still there.
            Err(_) => return Err(ReplayError::Ended("the producer ended".into())),
        }
    }
    match first_error {
        Some((topic, source)) => Err(ReplayError::Send { topic, source }),
        None => Ok(()),
    }
}

impl ReplayReport {
    fn on_unsent(
        &mut self,
        letter: &Letter,
        error: KafkaError,
        first_error: &mut Option<(String, KafkaError)>,
    ) {
        if error.rdkafka_error_code().is_some_and(is_for_ever) {
            self.unsendable += 1;
            self.unsendable_reason.get_or_insert_with(|| format!("{}: {error}", letter.topic));
        } else {
            first_error.get_or_insert_with(|| (letter.topic.clone(), error));
        }
    }
}

/// Whether this record would be refused at every try, so that waiting for it would block the others.
fn is_for_ever(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
    )
}

/// Reads records that were too large for a letter where they first stood.
struct Source<'a> {
    config: &'a ReplayConfig,
    consumer: Option<BaseConsumer>,
}

impl Source<'_> {
    /// The value of one record; `None` where it is there no longer.
    fn value(
        &mut self,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> Result<Option<Vec<u8>>, ReplayError> {
        let read = |source| ReplayError::Read { topic: topic.into(), source };
        if self.consumer.is_none() {
            let consumer = client(self.config, &format!("{}-source", self.config.group));
            self.consumer = Some(consumer.create().map_err(read)?);
        }
        let consumer = self.consumer.as_ref().expect("made if it was missing");
        match consumer.fetch_watermarks(topic, partition, KAFKA_PATIENCE) {
            Ok((low, high)) if (low..high).contains(&offset) => {}
            Ok(_) => return Ok(None),
            Err(error) if error.rdkafka_error_code().is_some_and(is_for_ever) => return Ok(None),
            Err(error) => return Err(read(error)),
        }
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, partition, Offset::Offset(offset)).map_err(read)?;
        consumer.assign(&place).map_err(read)?;
        match consumer.poll(KAFKA_PATIENCE) {
            None => Err(ReplayError::Ended(format!("no answer from {topic}"))),
            Some(Err(error)) => Err(read(error)),
            // Compaction may have taken it.
            Some(Ok(message)) if message.offset() != offset => Ok(None),
            Some(Ok(message)) => Ok(message.payload().map(<[u8]>::to_vec)),
        }
    }
}

fn client(config: &ReplayConfig, group: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("group.id", group)
        .set("client.id", "elkfk-replay")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "earliest");
    client
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// A letter in `logs.dead`: value, and where it is said to come from.
    struct Dead<'a> {
        value: Option<&'a str>,
        from: (&'a str, &'a str, &'a str),
        is_omitted: bool,
    }

    async fn produce(producer: &FutureProducer, topic: &str, dead: &Dead<'_>) {
        let about = [(TOPIC, dead.from.0), (PARTITION, dead.from.1), (OFFSET, dead.from.2)];
        let mut headers = OwnedHeaders::new().insert(Header { key: "kept", value: Some("yes") });
        if topic.ends_with(".dead") {
            for (key, value) in about {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        if dead.is_omitted {
            headers = headers.insert(Header { key: OMITTED, value: Some("true") });
        }
        let mut record: FutureRecord<'_, str, str> =
            FutureRecord::to(topic).headers(headers).partition(0);
        record.payload = dead.value;
        producer.send(record, KAFKA_PATIENCE).await.unwrap();
    }

    /// Values with the headers they have, from the beginning of the topic's one partition.
    fn read_all(cluster: &str, topic: &str, count: usize) -> Vec<(String, Vec<String>)> {
        let consumer: BaseConsumer =
            client(&config(cluster), "reads-all").create().expect("a consumer");
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
        consumer.assign(&place).unwrap();
        let mut all = Vec::new();
        while all.len() < count {
            let message = consumer.poll(KAFKA_PATIENCE).expect("it is there").unwrap();
            let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
            let names = headers.map(|header| header.key.to_owned()).collect();
            let value = String::from_utf8_lossy(message.payload().unwrap_or_default());
            all.push((value.into_owned(), names));
        }
        all
    }

    fn config(cluster: &str) -> ReplayConfig {
        ReplayConfig { bootstrap_servers: cluster.into(), ..ReplayConfig::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn letters_go_back_whatever_stands_before_them() {
        let mock = MockCluster::new(1).unwrap();
        for topic in ["logs", "logs.dead"] {
            mock.create_topic(topic, 1, 1).unwrap();
        }
        let cluster = mock.bootstrap_servers();
        let producer: FutureProducer =
            ClientConfig::new().set("bootstrap.servers", &cluster).create().unwrap();
        let large = Dead { value: Some("large"), from: ("", "", ""), is_omitted: false };
        produce(&producer, "logs", &large).await;
        let from = ("logs", "0", "0");
        let letters = [
            // Its partition is no more.
            Dead { value: Some("lost"), from: ("logs", "99", "0"), is_omitted: false },
            Dead { value: None, from, is_omitted: true },
            Dead { value: None, from: ("logs", "0", "77"), is_omitted: true },
            Dead { value: Some("small"), from, is_omitted: false },
        ];
        for letter in &letters {
            produce(&producer, "logs.dead", letter).await;
        }

        let report = replay(config(&cluster)).await.unwrap();
        assert_eq!(report.sent, [("logs".to_owned(), 2)].into());
        assert_eq!((report.unsendable, report.without_value, report.foreign), (1, 1, 0));
        assert!(report.unsendable_reason.unwrap().starts_with("logs: "));
        let again = replay(config(&cluster)).await.unwrap();
        assert_eq!(again, ReplayReport::default(), "each is sent once");

        let kept = || vec!["kept".to_owned()];
        let expected =
            [("large".into(), kept()), ("large".into(), kept()), ("small".into(), kept())];
        let there = tokio::task::spawn_blocking(move || read_all(&cluster, "logs", 3));
        assert_eq!(there.await.unwrap(), expected);
    }
}
