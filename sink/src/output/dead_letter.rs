//! Records that can never be delivered go to the topic `<topic>.dead`.
//!
//! The record as it was, with headers that say why and whence; `elkfk replay` sends them again. A
//! dead letter is acknowledged by all in-sync replicas before the record counts as done. While it
//! cannot be written, its partition stops.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::delivery::budget::Budget;
use crate::delivery::chunk::{Batch, ORIGIN_HEADER};
use crate::metrics::Meters;

/// What every header of ours about a dead letter begins with.
pub const HEADER_PREFIX: &str = "elkfk.dead.";
pub const REASON: &str = "elkfk.dead.reason";
pub const INDEX: &str = "elkfk.dead.index";
pub const FIELD: &str = "elkfk.dead.field";
pub const TOPIC: &str = "elkfk.dead.topic";
pub const PARTITION: &str = "elkfk.dead.partition";
pub const OFFSET: &str = "elkfk.dead.offset";
/// Set where the record did not fit with its headers: its value is to be had from its first place.
pub const OMITTED: &str = "elkfk.dead.value_omitted";

/// Dead letters under way at once; each holds on to its batch, which the budget counts.
const UNDER_WAY_MAX: usize = 100;
/// What a letter that waits for its turn costs beside its batch: a task and two texts.
const LETTER_OVERHEAD_BYTES: usize = 1 << 10;
const ADMIN_PATIENCE: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_LONGEST: Duration = Duration::from_secs(30);

/// One record and why it is dead.
#[derive(Debug)]
pub struct Letter {
    pub batch: Arc<Batch>,
    pub record: u32,
    pub reason: String,
    pub index: Option<String>,
    pub field: Option<String>,
}

/// Writes the dead letters of one input. Clones share the producer.
#[derive(Clone)]
pub struct DeadLetters {
    shared: Arc<Shared>,
}

struct Shared {
    bootstrap_servers: String,
    /// `None` until it is needed, and again after an error for which it can never go on.
    producer: tokio::sync::Mutex<Option<FutureProducer>>,
    /// Topics known to exist.
    topics: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    permits: Semaphore,
    held: Arc<Budget>,
    meters: Arc<Meters>,
    stop: CancellationToken,
    runtime: tokio::runtime::Handle,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters")
            .field("bootstrap_servers", &self.shared.bootstrap_servers)
            .finish_non_exhaustive()
    }
}

/// The topic that holds the dead letters of `topic`.
pub fn dead_topic(topic: &str) -> String {
    format!("{topic}.dead")
}

impl DeadLetters {
    /// To be called within a tokio runtime, which runs the deliveries.
    /// What waits is counted by `held`.
    pub fn new(
        bootstrap_servers: String,
        held: Arc<Budget>,
        meters: Arc<Meters>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                bootstrap_servers,
                producer: tokio::sync::Mutex::default(),
                topics: Mutex::default(),
                permits: Semaphore::new(UNDER_WAY_MAX),
                held,
                meters,
                stop,
                runtime: tokio::runtime::Handle::current(),
            }),
        }
    }

    /// Sends a letter, as often as it takes; then its record is acknowledged.
    pub fn send(&self, letter: Letter) {
        let shared = self.shared.clone();
        let texts = [Some(&letter.reason), letter.index.as_ref(), letter.field.as_ref()];
        let bytes: usize = texts.into_iter().flatten().map(String::len).sum();
        let credit = shared.held.take(LETTER_OVERHEAD_BYTES + bytes);
        shared.runtime.clone().spawn(async move {
            let _credit = credit;
            let stop = shared.stop.clone();
            tokio::select! {
                () = shared.deliver(letter) => {}
                // Not acknowledged, so it comes again after the next start.
                () = stop.cancelled() => {}
            }
        });
    }
}

impl Shared {
    async fn deliver(&self, letter: Letter) {
        let Ok(_permit) = self.permits.acquire().await else { return };
        let (batch, mut wait, mut is_stuck) = (&letter.batch, RETRY_FIRST, false);
        let topic = dead_topic(&batch.partition.topic);
        let set_stuck = |is_stuck| {
            batch
                .acks
                .lock()
                .expect("no holder of this lock panics")
                .set_stuck(batch.epoch, is_stuck);
        };
        loop {
            match self.try_once(&topic, &letter).await {
                Ok(()) => break,
                Err(error) => {
                    if !is_stuck {
                        is_stuck = true;
                        set_stuck(true);
                        error!(topic, partition = batch.partition.partition, %error, "dead letter not written; its partition stops until it is");
                        self.meters.set_error(format!("dead letter to {topic}: {error}"));
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(RETRY_LONGEST);
                }
            }
        }
        if is_stuck {
            set_stuck(false);
            info!(
                topic,
                partition = batch.partition.partition,
                "dead letter written; its partition goes on"
            );
        }
        self.meters.on_dead(&topic, &letter.reason);
        batch.acknowledge([letter.record]);
    }

    async fn try_once(&self, topic: &str, letter: &Letter) -> Result<(), KafkaError> {
        let producer = {
            let mut held = self.producer.lock().await;
            match &*held {
                Some(producer) => producer.clone(),
                None => held.insert(self.config().create()?).clone(),
            }
        };
        self.ensure_topic(topic, ADMIN_PATIENCE).await?;
        let result = match self.produce(&producer, topic, letter, true).await {
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                self.produce(&producer, topic, letter, false).await
            }
            result => result,
        };
        if let Some((code, reason)) = producer.client().fatal_error() {
            warn!(%code, reason, "producer of dead letters failed for good; made anew");
            self.producer.lock().await.take();
        }
        result
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", "elkfk-sink-dead-letters")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", "zstd")
            .set("message.max.bytes", "100000000")
            .set("message.timeout.ms", "30000")
            .set("linger.ms", "5");
        config
    }

    async fn produce(
        &self,
        producer: &FutureProducer,
        topic: &str,
        letter: &Letter,
        with_value: bool,
    ) -> Result<(), KafkaError> {
        let record = letter.batch.get(letter.record as usize);
        let mut headers = OwnedHeaders::new();
        for (key, value) in record.headers() {
            // One that is no place was written by somebody else.
            if key == ORIGIN_HEADER && !record.has_origin() {
                continue;
            }
            headers = headers.insert(Header { key, value });
        }
        let source = &letter.batch.partition;
        let (partition, offset) = (source.partition.to_string(), record.offset().to_string());
        // A record that was replayed and died again keeps the place where it first stood.
        if !record.has_origin() {
            let mut origin = Vec::new();
            record.write_place(&mut origin);
            headers = headers.insert(Header { key: ORIGIN_HEADER, value: Some(&origin) });
        }
        let about = [
            (REASON, Some(letter.reason.as_str())),
            (INDEX, letter.index.as_deref()),
            (FIELD, letter.field.as_deref()),
            (TOPIC, Some(&*source.topic)),
            (PARTITION, Some(&partition)),
            (OFFSET, Some(&offset)),
            (OMITTED, (!with_value).then_some("true")),
        ];
        for (key, value) in about {
            if let Some(value) = value {
                headers = headers.insert(Header { key, value: Some(value) });
            }
        }
        let mut dead: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
        dead.key = record.key();
        dead.payload = record.value().filter(|_| with_value);
        dead.timestamp = record.timestamp_ms();
        producer.send(dead, Duration::from_secs(30)).await.map(drop).map_err(|(error, _)| error)
    }

    /// Creates the topic where it is missing: a broker may not do so by itself.
    async fn ensure_topic(&self, topic: &str, patience: Duration) -> Result<(), KafkaError> {
        let cell = {
            let mut topics = self.topics.lock().expect("no holder of this lock panics");
            topics.entry(topic.to_owned()).or_default().clone()
        };
        cell.get_or_try_init(|| async {
            let admin: AdminClient<DefaultClientContext> =
                ClientConfig::new().set("bootstrap.servers", &self.bootstrap_servers).create()?;
            // The broker's own replication factor.
            let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
            let options = AdminOptions::new().request_timeout(Some(patience));
            // Not reached is not answered: the next try asks again.
            let created = admin.create_topics([&new], &options).await?;
            match created.as_slice() {
                [Ok(_)] => Ok(()),
                [Err((_, code))] if is_settled(*code) => {
                    if *code != RDKafkaErrorCode::TopicAlreadyExists {
                        warn!(topic, %code, "topic for dead letters not created; left to the broker");
                    }
                    Ok(())
                }
                [Err((_, code)), ..] => Err(KafkaError::AdminOp(*code)),
                [] | [Ok(_), ..] => Ok(()),
            }
        })
        .await
        .copied()
    }
}

/// Whether asking again for the topic would bring the same answer: it is there, or we may not.
fn is_settled(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAlreadyExists
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidReplicationFactor
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn topic_that_could_not_be_created_is_asked_for_again() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        // Nobody answers there.
        drop(listener);
        let letters = DeadLetters::new(
            addr.to_string(),
            Budget::new(1),
            Arc::default(),
            CancellationToken::new(),
        );
        let asked = tokio::time::timeout(
            Duration::from_secs(30),
            letters.shared.ensure_topic("logs.dead", Duration::from_millis(200)),
        );
        asked.await.expect("an answer in time").unwrap_err();
        let topics = letters.shared.topics.lock().unwrap();
        assert!(!topics["logs.dead"].initialized(), "the next letter asks again");
    }

    #[test]
    fn busy_broker_is_no_answer() {
        assert!(is_settled(RDKafkaErrorCode::TopicAlreadyExists));
        assert!(!is_settled(RDKafkaErrorCode::RequestTimedOut));
        assert!(!is_settled(RDKafkaErrorCode::NotController));
    }
}
