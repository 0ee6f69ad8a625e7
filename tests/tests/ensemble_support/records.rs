//! Records produced with acks=all, each acknowledgement written down, and all of them read back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

/// A record that was acknowledged: which, and where it is said to be.
#[derive(Debug, Clone)]
pub(crate) struct Acked {
    topic: String,
    partition: i32,
    offset: i64,
    id: u64,
}

#[derive(Debug, Default)]
struct Book {
    acked: Vec<Acked>,
    /// Given up by the client: may be there or not.
    failed: usize,
    last: Option<Instant>,
    longest_gap: Duration,
}

#[derive(Debug, Clone, Default)]
struct Accountant(Arc<Mutex<Book>>);

impl ClientContext for Accountant {}

impl ProducerContext for Accountant {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, id: Box<u64>) {
        let mut book = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => {
                let now = Instant::now();
                if let Some(last) = book.last.replace(now) {
                    book.longest_gap = book.longest_gap.max(now - last);
                }
                book.acked.push(Acked {
                    topic: message.topic().to_owned(),
                    partition: message.partition(),
                    offset: message.offset(),
                    id: *id,
                });
            }
            Err(_) => book.failed += 1,
        }
    }
}

/// A producer whose every acknowledgement counts.
pub(crate) struct Producer {
    producer: ThreadedProducer<Accountant>,
    book: Accountant,
    next: u64,
}

impl Producer {
    pub(crate) fn new(bootstrap: &str) -> Result<Self> {
        let book = Accountant::default();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "5")
            .set("topic.metadata.refresh.interval.ms", "2000")
            // Longer than any fault: what is given up proves nothing.
            .set("message.timeout.ms", "180000");
        Ok(Self { producer: config.create_with_context(book.clone())?, book, next: 0 })
    }

    /// Sends `count` records of `bytes` bytes; waits while the client's queue is full.
    pub(crate) fn send(&mut self, topic: &str, count: usize, bytes: usize) -> Result<()> {
        for _ in 0..count {
            let id = self.next;
            self.next += 1;
            let mut value = id.to_be_bytes().to_vec();
            value.resize(bytes.max(8), b'.');
            let key = id.to_string();
            let mut record =
                BaseRecord::with_opaque_to(topic, Box::new(id)).key(&key).payload(&value);
            while let Err((error, back)) = self.producer.send(record) {
                let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                ensure!(error == full, "produce to {topic}: {error}");
                record = back;
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Waits until every record is acknowledged or given up.
    pub(crate) fn flush(&self) -> Result<()> {
        self.producer.flush(Duration::from_secs(200)).context("flush the producer")
    }

    fn book(&self) -> std::sync::MutexGuard<'_, Book> {
        self.book.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn acked(&self) -> Vec<Acked> {
        self.book().acked.clone()
    }

    pub(crate) fn acked_count(&self) -> usize {
        self.book().acked.len()
    }

    pub(crate) fn failed(&self) -> usize {
        self.book().failed
    }

    /// The longest time between two acknowledgements.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.book().longest_gap
    }
}

/// A client that has just been told of a topic may not know its partitions for a moment.
fn watermarks(consumer: &BaseConsumer, topic: &str, partition: i32) -> Result<(i64, i64)> {
    let begun = Instant::now();
    loop {
        match consumer.fetch_watermarks(topic, partition, Duration::from_secs(30)) {
            Ok(marks) => return Ok(marks),
            Err(error) if begun.elapsed() > Duration::from_secs(60) => {
                return Err(error).with_context(|| format!("where {topic}-{partition} ends"));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// Reads all of `topics` and fails unless every acknowledged record of them is there, once and where it was said to be.
pub(crate) fn check(bootstrap: &str, topics: &[String], acked: &[Acked]) -> Result<usize> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "nobody")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "error")
        .set("isolation.level", "read_committed")
        .create()?;
    let mut read: HashMap<(String, i32, i64), u64> = HashMap::new();
    let mut ids: HashMap<u64, usize> = HashMap::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30))?;
        let partitions = metadata.topics()[0].partitions().len() as i32;
        ensure!(partitions > 0, "{topic} has no partitions");
        for partition in 0..partitions {
            let (low, high) = watermarks(&consumer, topic, partition)?;
            if low == high {
                continue;
            }
            let mut one = TopicPartitionList::new();
            one.add_partition_offset(topic, partition, Offset::Offset(low))?;
            consumer.assign(&one)?;
            let mut at = low;
            while at < high {
                let message = consumer
                    .poll(Duration::from_secs(30))
                    .with_context(|| format!("{topic}-{partition} ends at {at}, not {high}"))??;
                at = message.offset() + 1;
                let id = message.payload().and_then(|value| value.first_chunk::<8>());
                let id = u64::from_be_bytes(*id.context("a record of ours")?);
                *ids.entry(id).or_default() += 1;
                read.insert((topic.clone(), partition, message.offset()), id);
            }
        }
    }
    let is_of_them = |acked: &&Acked| topics.contains(&acked.topic);
    let expected: Vec<&Acked> = acked.iter().filter(is_of_them).collect();
    let lost: Vec<_> = expected
        .iter()
        .filter(|acked| {
            let place = (acked.topic.clone(), acked.partition, acked.offset);
            read.get(&place) != Some(&acked.id)
        })
        .collect();
    ensure!(
        lost.is_empty(),
        "{} of {} acknowledged records are not where they were said to be, the first: {:?}",
        lost.len(),
        expected.len(),
        lost[0]
    );
    let doubled = ids.values().filter(|count| **count > 1).count();
    ensure!(doubled == 0, "{doubled} records are there more than once");
    Ok(expected.len())
}
