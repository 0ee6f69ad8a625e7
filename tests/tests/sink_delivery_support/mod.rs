//! What the tests of the sink's delivery share: a topic to fill, a sink to kill, an index to count.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_tests::peers::{self, Server};
use elkfk_tests::process::Process;
use elkfk_wire::source_id::{Generation, HEADER, SourceId};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

/// Without progress for this long, something is stuck.
const PATIENCE: Duration = Duration::from_secs(120);
/// For one answer, after which it is asked again.
const ANSWER_PATIENCE: Duration = Duration::from_secs(20);
/// After this without a heartbeat the group throws a sink out; without a poll, after the long one. Short where one
/// is killed and the other waits for its partitions; long where a stall of the machine must not
/// look like a death.
pub(crate) const SESSION_SHORT: Duration = Duration::from_secs(6);
pub(crate) const SESSION_LONG: Duration = Duration::from_secs(20);

/// A real Kafka with its ZooKeeper.
pub(crate) struct Kafka {
    _zookeeper: Server,
    _kafka: Server,
    pub(crate) bootstrap: String,
}

impl Kafka {
    pub(crate) fn start(dir: &Path) -> Self {
        let zookeeper = peers::zookeeper(&dir.join("zookeeper"), "").unwrap();
        let overrides = ["offsets.topic.num.partitions=1", "group.initial.rebalance.delay.ms=0"];
        let kafka =
            peers::kafka(&dir.join("kafka"), &zookeeper.addr.to_string(), &overrides).unwrap();
        let bootstrap = kafka.addr.to_string();
        Self { _zookeeper: zookeeper, _kafka: kafka, bootstrap }
    }

    pub(crate) async fn create_topic(&self, topic: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create().unwrap();
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        admin.create_topics([&new], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    }

    /// Produces `count` events with the numbers from `first` on over all partitions, as elkfk's
    /// shipper does: with source ids. `change` may alter an event.
    pub(crate) fn produce(
        &self,
        topic: &str,
        partitions: i32,
        first: u64,
        count: u64,
        mut change: impl FnMut(u64, &mut Value),
    ) {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("enable.idempotence", "true")
            .set("queue.buffering.max.messages", "2000000")
            .create()
            .unwrap();
        let generation = Generation::new(1_772_323_200_000, first);
        for n in first..first + count {
            let mut event = json!({
                "@timestamp": "2026-03-01T12:00:00.000Z",
                "@metadata": {"beat": "filebeat"},
                "message": format!("event {n}"),
                "n": n,
            });
            change(n, &mut event);
            let value = event.to_string();
            let id = SourceId { generation, position: n }.to_bytes();
            let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&id[..]) });
            let record: BaseRecord<'_, [u8], str> = BaseRecord::to(topic)
                .partition((n % partitions as u64) as i32)
                .headers(headers)
                .payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    /// All records of a topic: headers as text, and the value.
    pub(crate) fn read_all(&self, topic: &str) -> Vec<(BTreeMap<String, String>, String)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "reads-all")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let (low, high) = consumer.fetch_watermarks(topic, 0, PATIENCE).unwrap();
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_offset(topic, 0, rdkafka::Offset::Offset(low)).unwrap();
        consumer.assign(&list).unwrap();
        let mut records = Vec::new();
        while (records.len() as i64) < high - low {
            let message = consumer.poll(PATIENCE).expect("the records are there").unwrap();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let headers = message
                .headers()
                .into_iter()
                .flat_map(|headers| headers.iter())
                .map(|header| (header.key.to_owned(), text(header.value.unwrap_or_default())))
                .collect();
            records.push((headers, text(message.payload().unwrap_or_default())));
        }
        records
    }

    /// Committed offset of the group and end of the topic, each summed over the partitions.
    pub(crate) fn positions(&self, group: &str, topic: &str, partitions: i32) -> (i64, i64) {
        // A busy broker answers late or names another coordinator for a moment.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_positions(group, topic, partitions) {
                Ok(positions) => return positions,
                Err(error) => assert!(Instant::now() < deadline, "positions of {group}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn try_positions(
        &self,
        group: &str,
        topic: &str,
        partitions: i32,
    ) -> Result<(i64, i64), KafkaError> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group)
            .create()?;
        let mut list = rdkafka::TopicPartitionList::new();
        list.add_partition_range(topic, 0, partitions - 1);
        let committed = consumer.committed_offsets(list, ANSWER_PATIENCE)?;
        let committed =
            committed.elements().iter().map(|e| e.offset().to_raw().unwrap_or(0).max(0)).sum();
        let mut end = 0;
        for partition in 0..partitions {
            end += consumer.fetch_watermarks(topic, partition, ANSWER_PATIENCE)?.1;
        }
        Ok((committed, end))
    }
}

/// The sink as a process of its own, so that it can be killed.
pub(crate) struct Sink {
    pub(crate) process: Process,
}

impl Sink {
    pub(crate) fn start(pipeline: &Path) -> Self {
        let mut command = Command::new(elkfk_tests::process::elkfk());
        command.args(["sink", "-f"]).arg(pipeline).env("ELKFK_LOG", "info,elkfk_sink=debug");
        let log = pipeline.with_extension("log");
        Self { process: Process::start("sink", &mut command, &log).unwrap() }
    }
}

/// Writes a pipeline from `topic` to the index `index` at `elasticsearch`; `more` are options of
/// its output.
#[expect(clippy::too_many_arguments, reason = "each is a blank of the text")]
pub(crate) fn pipeline(
    dir: &Path,
    name: &str,
    bootstrap: &str,
    topic: &str,
    elasticsearch: &str,
    index: &str,
    session: Duration,
    more: &str,
) -> PathBuf {
    let session_ms = session.as_millis();
    // Giving partitions away may take longer than a short session.
    let poll_ms = SESSION_LONG.as_millis();
    let path = dir.join(format!("{name}.conf"));
    let text = format!(
        r#"input {{ kafka {{
             bootstrap_servers => "{bootstrap}" topics => ["{topic}"] group_id => "{topic}-group"
             codec => json session_timeout_ms => {session_ms}
             max_poll_interval_ms => {poll_ms} heartbeat_interval_ms => 1000 }} }}
           output {{ elasticsearch {{ hosts => ["{elasticsearch}"] index => "{index}" {more} }} }}"#
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A client of Elasticsearch.
pub(crate) struct Index {
    agent: ureq::Agent,
    pub(crate) addr: String,
}

impl Index {
    pub(crate) fn new(addr: String) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build();
        Self { agent: config.into(), addr }
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addr))
            .header("content-type", "application/json")
            .body(body.map(|body| body.to_string()).unwrap_or_default())
            .unwrap();
        match self.agent.run(request) {
            Ok(mut response) => {
                let status = response.status().as_u16();
                (status, response.body_mut().read_json().unwrap_or(Value::Null))
            }
            Err(_) => (0, Value::Null),
        }
    }

    /// One bulk request of many small documents; whether it is taken does not matter.
    pub(crate) fn press(&self, index: &str) {
        let body = "{\"index\":{}}\n{\"noise\":\"to be counted by nobody\"}\n".repeat(1000);
        let request = ureq::http::Request::builder()
            .method("POST")
            .uri(format!("http://{}/{index}/_bulk", self.addr))
            .header("content-type", "application/x-ndjson")
            .body(body)
            .unwrap();
        let _ = self.agent.run(request);
    }

    pub(crate) fn count(&self, index: &str) -> u64 {
        self.call("POST", &format!("/{index}/_refresh"), None);
        self.call("GET", &format!("/{index}/_count"), None).1["count"].as_u64().unwrap_or(0)
    }

    /// Waits until the index holds `count` documents; it must never hold more.
    pub(crate) fn wait_for(&self, index: &str, count: u64) {
        let (mut last, mut since) = (0, Instant::now());
        loop {
            let now = self.count(index);
            assert!(now <= count, "{index} holds {now} of {count} documents");
            if now == count {
                return;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{index} stays at {now} of {count} documents");
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// The value of `n` of every document, sorted.
    pub(crate) fn numbers(&self, index: &str) -> Vec<u64> {
        let (mut numbers, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut body =
                json!({"size": 10_000, "_source": false, "sort": [{"n": "asc"}, {"_doc": "asc"}]});
            if !after.is_null() {
                body["search_after"] = after.take();
            }
            let (status, answer) = self.call("POST", &format!("/{index}/_search"), Some(body));
            assert_eq!(status, 200, "{answer}");
            let hits = answer["hits"]["hits"].as_array().unwrap();
            numbers.extend(hits.iter().map(|hit| hit["sort"][0].as_u64().unwrap()));
            match hits.last() {
                Some(hit) => after = hit["sort"].clone(),
                None => return numbers,
            }
        }
    }
}
