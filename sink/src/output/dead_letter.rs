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
use rdkafka::producer::{FutureProducer, FutureRecord};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

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
    producer: OnceCell<FutureProducer>,
    /// Topics known to exist.
    topics: Mutex<HashMap<String, Arc<OnceCell<()>>>>,
    permits: Semaphore,
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
    pub fn new(bootstrap_servers: String, meters: Arc<Meters>, stop: CancellationToken) -> Self {
        Self {
            shared: Arc::new(Shared {
                bootstrap_servers,
                producer: OnceCell::new(),
                topics: Mutex::default(),
                permits: Semaphore::new(UNDER_WAY_MAX),
                meters,
                stop,
                runtime: tokio::runtime::Handle::current(),
            }),
        }
    }

    /// Sends a letter, as often as it takes; then its record is acknowledged.
    pub fn send(&self, letter: Letter) {
        let shared = self.shared.clone();
        shared.runtime.clone().spawn(async move {
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
        let producer = self.producer.get_or_try_init(|| async { self.config().create() }).await?;
        self.ensure_topic(topic).await;
        match self.produce(producer, topic, letter, true).await {
            Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge)) => {
                self.produce(producer, topic, letter, false).await
            }
            result => result,
        }
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
            headers = headers.insert(Header { key, value });
        }
        let source = &letter.batch.partition;
        let (partition, offset) = (source.partition.to_string(), record.offset().to_string());
        // A record that was replayed and died again keeps the place where it first stood.
        if !record.headers().any(|(name, _)| name == ORIGIN_HEADER) {
            let origin = format!("{}+{partition}+{offset}", source.topic);
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
    async fn ensure_topic(&self, topic: &str) {
        let cell = {
            let mut topics = self.topics.lock().expect("no holder of this lock panics");
            topics.entry(topic.to_owned()).or_default().clone()
        };
        cell.get_or_init(|| async {
            let admin: Result<AdminClient<DefaultClientContext>, _> =
                ClientConfig::new().set("bootstrap.servers", &self.bootstrap_servers).create();
            let created = match admin {
                Ok(admin) => {
                    // The broker's own replication factor.
                    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
                    let options = AdminOptions::new().request_timeout(Some(Duration::from_secs(10)));
                    admin.create_topics([&new], &options).await
                }
                Err(error) => Err(error),
            };
            match created.as_deref() {
                Ok([Err((_, RDKafkaErrorCode::TopicAlreadyExists))]) | Ok([Ok(_)]) => {}
                other => warn!(topic, answer = ?other, "topic for dead letters not created; left to the broker"),
            }
        })
        .await;
    }
}
