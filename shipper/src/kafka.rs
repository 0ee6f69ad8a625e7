//! The way to Kafka: librdkafka, idempotent, every in-sync replica acknowledging.
//!
//! Three threads serve one producer: the reader's hands records over, one polls for the answers, one
//! asks for metadata. Nothing here is lost or given up: what cannot be sent is waited for, and what was
//! refused is reported, to be read again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use elkfk_wire::source_id::HEADER;
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig,
};
use rdkafka::types::RDKafkaErrorCode;
use tracing::{debug, info, warn};

use crate::config::OutputConfig;
use crate::engine::{Ack, Record, Refusal, Sender, Ticket};
use crate::metrics;

const BATCH_BYTES: usize = 1_000_000;
/// A topic that takes less than this takes single events only.
const BATCH_BYTES_MIN: usize = 4096;
const POLL: Duration = Duration::from_millis(100);
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the number of partitions is asked for: new ones are used within seconds.
const METADATA_INTERVAL: Duration = Duration::from_secs(5);
const METADATA_RETRY_MIN: Duration = Duration::from_millis(100);
const METADATA_RETRY_MAX: Duration = Duration::from_secs(5);

/// What the threads share.
#[derive(Debug)]
struct Shared {
    acks: Mutex<Vec<Ack>>,
    /// Number of partitions per topic; none for a topic that was asked for and is not known yet.
    topics: Mutex<HashMap<String, Option<i32>>>,
    /// Waits for acknowledgements while it has no credit left.
    reader: Thread,
    is_reader_waiting: AtomicBool,
    /// The broker refused for good; a new producer is needed.
    is_fatal: AtomicBool,
    /// What a batch may hold, and that the broker refused one.
    batch_bytes: AtomicUsize,
    is_batch_too_large: AtomicBool,
    stop: AtomicBool,
    last_error: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    fn lock<'a, T>(&self, mutex: &'a Mutex<T>) -> std::sync::MutexGuard<'a, T> {
        // What a panicking thread left is still a list of answers.
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Context(Arc<Shared>);

impl ClientContext for Context {
    fn log(&self, _: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(RDKafkaErrorCode::Fatal) = error.rdkafka_error_code() {
            self.0.is_fatal.store(true, Ordering::SeqCst);
            self.0.reader.unpark();
        }
        let mut last = self.0.lock(&self.0.last_error);
        let is_news = last.as_ref().is_none_or(|(at, _)| at.elapsed() > Duration::from_secs(30));
        if is_news {
            warn!(reason, "kafka");
            *last = Some((Instant::now(), reason.into()));
        }
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let (message, result) = match result {
            Ok(message) => (message, Ok(())),
            Err((error, message)) => {
                let is_too_large =
                    error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge);
                let batch = self.0.batch_bytes.load(Ordering::SeqCst);
                let refusal = match error.to_string() {
                    // One of many in a batch: the batch was too large, it was not.
                    text if is_too_large && message.payload_len() < batch / 2 => {
                        self.0.is_batch_too_large.store(true, Ordering::SeqCst);
                        Refusal::Other(text)
                    }
                    text if is_too_large => Refusal::TooLarge(text),
                    text => Refusal::Other(text),
                };
                (message, Err(refusal))
            }
        };
        let ack = Ack {
            ticket: Ticket(ticket),
            bytes: message.payload_len(),
            partition: message.partition(),
            at_ms: elkfk_base::now_ms() as u64,
            result,
        };
        self.0.lock(&self.0.acks).push(ack);
        if self.0.is_reader_waiting.swap(false, Ordering::SeqCst) {
            self.0.reader.unpark();
        }
    }
}

/// A producer and its threads.
#[derive(Debug)]
pub(crate) struct KafkaSender {
    config: ClientConfig,
    headers: Vec<(String, Vec<u8>)>,
    producer: Arc<ProducerSlot>,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    fixed_topics: HashMap<String, i32>,
}

/// The producer in use; replaced after a fatal error.
struct ProducerSlot(Mutex<Arc<BaseProducer<Context>>>);

impl std::fmt::Debug for ProducerSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProducerSlot")
    }
}

impl ProducerSlot {
    fn get(&self) -> Arc<BaseProducer<Context>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl KafkaSender {
    /// Connects in the background. `reader` is unparked when there is credit again.
    pub(crate) fn start(output: &OutputConfig, reader: Thread) -> KafkaResult<Self> {
        let config = client_config(output);
        let shared = Arc::new(Shared {
            acks: Mutex::default(),
            topics: Mutex::default(),
            reader,
            is_reader_waiting: AtomicBool::new(false),
            is_fatal: AtomicBool::new(false),
            batch_bytes: AtomicUsize::new(BATCH_BYTES),
            is_batch_too_large: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            last_error: Mutex::default(),
        });
        let producer = BaseProducer::from_config_and_context(&config, Context(shared.clone()))?;
        let producer = Arc::new(ProducerSlot(Mutex::new(Arc::new(producer))));
        let poller = {
            let (producer, shared) = (producer.clone(), shared.clone());
            spawn("shipper-acks", move || {
                while !shared.stop.load(Ordering::SeqCst) {
                    producer.get().poll(POLL);
                }
            })
        };
        let asker = {
            let (producer, shared) = (producer.clone(), shared.clone());
            let hosts = output.hosts.join(",");
            spawn("shipper-metadata", move || ask_for_metadata(&producer, &shared, &hosts))
        };
        Ok(Self {
            config,
            headers: output.headers.clone(),
            producer,
            shared,
            threads: vec![poller, asker],
            fixed_topics: HashMap::new(),
        })
    }

    /// From now on the next acknowledgement wakes the reader.
    pub(crate) fn wait_for_credit(&self) {
        self.shared.is_reader_waiting.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_acks(&self) -> bool {
        !self.shared.lock(&self.shared.acks).is_empty()
    }

    /// Ends the threads. What is still in flight is given up.
    pub(crate) fn stop(mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // The metadata thread may be asleep, or waiting for an answer that its timeout bounds.
        self.threads.iter().for_each(|thread| thread.thread().unpark());
        let producer = self.producer.get();
        producer.purge(PurgeConfig::default().queue().inflight());
        producer.poll(Duration::ZERO);
        // The metadata thread ends by itself: a cluster that does not answer must not delay the stop.
        if let Some(poller) = self.threads.drain(..).next() {
            let _ = poller.join();
        }
    }

    /// A producer that failed for good is replaced; everything in flight comes back as refused.
    fn replace_if_fatal(&mut self) {
        let is_fatal = self.shared.is_fatal.swap(false, Ordering::SeqCst);
        let batch_bytes = self.shared.batch_bytes.load(Ordering::SeqCst);
        let is_too_large =
            self.shared.is_batch_too_large.load(Ordering::SeqCst) && batch_bytes > BATCH_BYTES_MIN;
        if !is_fatal && !is_too_large {
            return;
        }
        let old = self.producer.get();
        if is_fatal {
            let reason = old.client().fatal_error().map(|(_, reason)| reason).unwrap_or_default();
            warn!(
                reason,
                "the producer failed for good; a new one sends what was not acknowledged"
            );
        }
        old.purge(PurgeConfig::default().queue().inflight());
        while old.in_flight_count() > 0 {
            old.poll(Duration::from_millis(10));
        }
        if is_too_large {
            let batch_bytes = (batch_bytes / 2).max(BATCH_BYTES_MIN);
            warn!(batch_bytes, "the broker refused a batch for its size; smaller ones follow");
            self.config.set("batch.size", batch_bytes.to_string());
            self.shared.batch_bytes.store(batch_bytes, Ordering::SeqCst);
            // All answers about the larger ones are in by now.
            self.shared.is_batch_too_large.store(false, Ordering::SeqCst);
        }
        match BaseProducer::from_config_and_context(&self.config, Context(self.shared.clone())) {
            Ok(new) => {
                *self.producer.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
            }
            Err(error) => {
                warn!(%error, "no new producer could be made; it will be tried again");
                self.shared.is_fatal.store(true, Ordering::SeqCst);
            }
        }
    }
}

impl Sender for KafkaSender {
    fn partitions(&mut self, topic: &str) -> Option<i32> {
        if let Some(count) = self.fixed_topics.get(topic) {
            return Some(*count);
        }
        let mut topics = self.shared.lock(&self.shared.topics);
        match topics.get(topic) {
            Some(Some(count)) => {
                let count = *count;
                drop(topics);
                self.fixed_topics.insert(topic.into(), count);
                Some(count)
            }
            Some(None) => None,
            None => {
                topics.insert(topic.into(), None);
                drop(topics);
                self.threads.iter().for_each(|thread| thread.thread().unpark());
                None
            }
        }
    }

    fn send(&mut self, record: Record<'_>) -> Result<(), String> {
        let source = record.source.to_bytes();
        let mut headers = OwnedHeaders::new_with_capacity(1 + self.headers.len())
            .insert(Header { key: HEADER, value: Some(&source[..]) });
        for (key, value) in &self.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut message =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, record.ticket.0)
                .partition(record.partition)
                .payload(record.value)
                .headers(headers)
                .timestamp(record.time_ms);
        message.key = record.key;
        self.producer.get().send(message).map_err(|(error, _)| error.to_string())
    }

    fn take_acks(&mut self, acks: &mut Vec<Ack>) {
        self.replace_if_fatal();
        let mut taken = self.shared.lock(&self.shared.acks);
        if acks.is_empty() {
            std::mem::swap(acks, &mut taken);
        } else {
            acks.append(&mut taken);
        }
        drop(taken);
        if !acks.is_empty() {
            // Counts may have changed; they are looked up again, at most once per batch of answers.
            self.fixed_topics.clear();
        }
    }
}

fn ask_for_metadata(producer: &ProducerSlot, shared: &Shared, hosts: &str) {
    let mut pause = METADATA_RETRY_MIN;
    let mut is_up: Option<bool> = None;
    let mut asked: HashMap<String, Instant> = HashMap::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let due: Vec<String> = shared
            .lock(&shared.topics)
            .iter()
            .filter(|(topic, count)| {
                count.is_none()
                    || asked.get(*topic).is_none_or(|at| at.elapsed() >= METADATA_INTERVAL)
            })
            .map(|(topic, _)| topic.clone())
            .collect();
        let mut failure = None;
        for topic in due {
            let answer = producer.get().client().fetch_metadata(Some(&topic), METADATA_TIMEOUT);
            let count = answer.map(|metadata| {
                let found = metadata.topics().iter().find(|found| found.name() == topic);
                found
                    .filter(|found| found.error().is_none())
                    .map(|found| found.partitions().len() as i32)
            });
            match count {
                Ok(count) => {
                    if is_up != Some(true) {
                        info!(hosts, "kafka answers");
                        is_up = Some(true);
                        metrics::KAFKA_UP.set(1);
                    }
                    let count = count.filter(|count| *count > 0);
                    // A topic that is being created has no partitions yet: asked for again soon.
                    if count.is_some() {
                        asked.insert(topic.clone(), Instant::now());
                        pause = METADATA_RETRY_MIN;
                    }
                    let mut topics = shared.lock(&shared.topics);
                    let known = topics.entry(topic).or_default();
                    if count.is_some() && *known != count {
                        *known = count;
                        shared.reader.unpark();
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        if let Some(error) = failure {
            if is_up != Some(false) {
                warn!(hosts, %error, "kafka does not answer; files wait, nothing is lost");
                is_up = Some(false);
                metrics::KAFKA_UP.set(0);
            }
            // So that a fleet of shippers does not come back in one moment.
            let jitter = rand::random_range(0.5..1.0);
            std::thread::park_timeout(pause.mul_f64(jitter));
            pause = (pause * 2).min(METADATA_RETRY_MAX);
            continue;
        }
        let is_complete = shared.lock(&shared.topics).values().all(Option::is_some);
        let wait = if is_complete { METADATA_INTERVAL } else { METADATA_RETRY_MIN };
        std::thread::park_timeout(wait);
    }
}

fn client_config(output: &OutputConfig) -> ClientConfig {
    let milliseconds = |duration: Duration| duration.as_millis().to_string();
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", output.hosts.join(","))
        .set("client.id", &output.client_id)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // An event is never given up: the file waits with it.
        .set("message.timeout.ms", "0")
        .set("request.timeout.ms", milliseconds(output.broker_timeout))
        .set("socket.timeout.ms", milliseconds(output.request_timeout.max(output.broker_timeout)))
        .set("socket.keepalive.enable", output.keep_alive.to_string())
        .set("socket.nagle.disable", "true")
        .set("compression.type", output.compression.name())
        .set("linger.ms", (output.linger.as_secs_f64() * 1000.0).to_string())
        .set("batch.size", BATCH_BYTES.to_string())
        .set("batch.num.messages", "10000")
        .set("message.max.bytes", (output.max_message_bytes + 4096).to_string())
        .set("reconnect.backoff.ms", milliseconds(output.backoff_init))
        .set("reconnect.backoff.max.ms", milliseconds(output.backoff_max))
        .set("retry.backoff.ms", "100")
        // The engine bounds what is in flight, in bytes; these only must not be in its way.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2097151")
        .set("topic.metadata.refresh.interval.ms", "30000");
    if let Some(level) = output.compression_level {
        config.set("compression.level", level.to_string());
    }
    if let Some(username) = &output.username {
        config
            .set("security.protocol", "SASL_PLAINTEXT")
            .set("sasl.mechanism", "PLAIN")
            .set("sasl.username", username)
            .set("sasl.password", output.password.as_deref().unwrap_or_default());
    }
    config
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    std::thread::Builder::new().name(name.into()).spawn(work).expect("a thread can be started")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_acknowledged_by_fewer_than_all_nor_sent_twice() {
        let config = client_config(&OutputConfig::default());
        let get = |key| config.get(key);
        assert_eq!(get("enable.idempotence"), Some("true"));
        assert_eq!(get("acks"), Some("all"));
        assert_eq!(get("message.timeout.ms"), Some("0"));
        assert_eq!(get("compression.type"), Some("zstd"));
    }
}
