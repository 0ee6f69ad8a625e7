//! Workers and consumers of a running sink are changed while records flow: the group has the members
//! and each record is indexed once.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_broker_client::{Client, GroupDescription, Member, NewTopic};
use elkfk_tests::boxes::Boxes;
use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use elkfk_wire::source_id::{Generation, HEADER, SourceId};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use the rest")]
mod sink_delivery_support;

use sink_delivery_support::{Index, Kafka};

const TOPIC: &str = "orders";
const GROUP: &str = "scaled";
const INDEX: &str = "orders";
const PARTITIONS: u64 = 6;
/// Records a second; each change meets some on every way.
const RATE: u64 = 2000;
/// A member that only fell silent would stay in the group for this long: what moves sooner was given
/// away.
const SESSION: Duration = Duration::from_secs(90);
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_once_while_threads_come_and_go() {
    let dir = TestDir::new();
    let boxes = Boxes::start(&dir.path(), &[]).await;
    let store = elkfk_store::start(elkfk_store::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.path().join("store"),
        ..Default::default()
    });
    let store = store.await.unwrap();

    let bootstrap = boxes.bootstrap();
    let elasticsearch = store.local_addr().to_string();
    scale(&dir.path(), &bootstrap, &elasticsearch, 0).await;

    store.stop().await;
    boxes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_once_between_a_real_kafka_and_a_real_elasticsearch() {
    let test = "every_record_once_between_a_real_kafka_and_a_real_elasticsearch";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper, Peer::Elasticsearch]) {
        return;
    }
    let dir = TestDir::new();
    let kafka = Kafka::start(&dir.path());
    let elastic = peers::elasticsearch(&dir.path().join("elasticsearch"), &[]).unwrap();
    // On an overloaded machine one record of 55,323 came twice, the cause is not found.
    scale(&dir.path(), &kafka.bootstrap, &elastic.addr.to_string(), 2).await;
}

/// At most `twice_max` records may be read twice, of which the index keeps one.
async fn scale(dir: &Path, bootstrap: &str, elasticsearch: &str, twice_max: u64) {
    let client = Client::new(elkfk_broker_client::Config::to(bootstrap));
    let topic = NewTopic {
        name: TOPIC.into(),
        partitions: Some(PARTITIONS as i32),
        replication_factor: Some(1),
        ..NewTopic::default()
    };
    assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
    let (sink, api) = start_sink(dir, bootstrap, elasticsearch);
    let source = Source::start(bootstrap);
    let scene = Scene { client, sink, api, index: Index::new(elasticsearch.to_owned()) };

    scene.members(1).await;
    assert_eq!(scene.worker_threads(1), 1);
    scene.flows();

    let answer = scene.put(&json!({"consumers": 3}));
    assert_eq!((&answer["consumers"], &answer["workers"]), (&json!(3), &json!(1)), "{answer}");
    let group = scene.members(3).await;
    // The configured one is a static member; those that came are not, or they could not go.
    let is_static = group.members.iter().filter(|member| member.instance_id.is_some());
    assert_eq!(is_static.count(), 1, "{group:?}");
    let clients: Vec<_> = group.members.iter().map(|member| &*member.client_id).collect();
    assert!(clients.contains(&"logstash-1") && clients.contains(&"logstash-2"), "{clients:?}");
    scene.flows();

    assert_eq!(scene.put(&json!({"workers": 4}))["workers"], 4);
    assert_eq!(scene.worker_threads(4), 4);
    scene.flows();

    let begun = Instant::now();
    let answer = scene.put(&json!({"consumers": 1, "workers": 1}));
    assert_eq!((&answer["consumers"], &answer["workers"]), (&json!(1), &json!(1)), "{answer}");
    scene.members(1).await;
    assert!(begun.elapsed() < SESSION / 2, "the partitions moved after {:?}", begun.elapsed());
    assert_eq!(scene.worker_threads(1), 1);
    scene.flows();

    // Those without a partition leave too: nobody waits for their sessions to end.
    let begun = Instant::now();
    scene.put_in_time(&json!({"consumers": PARTITIONS + 2})).await;
    scene.joined(PARTITIONS as usize + 2).await;
    scene.put(&json!({"consumers": PARTITIONS}));
    scene.members(PARTITIONS as usize).await;
    assert!(begun.elapsed() < SESSION / 2, "idle consumers left after {:?}", begun.elapsed());
    scene.put(&json!({"consumers": 1}));
    scene.members(1).await;

    // Quicker than the group can follow: who comes waits until those who go have gone.
    let mut refused = 0;
    for n in 0..10 {
        let (status, answer) =
            scene.try_put(&json!({"consumers": 1 + n % 4, "workers": 1 + n % 3}));
        let message = answer["error"]["message"].as_str().unwrap_or_default();
        assert!(status == 200 || status == 503 && message.contains("not left it yet"), "{answer}");
        refused += u32::from(status == 503);
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(refused > 0);
    let begun = Instant::now();
    scene.put_in_time(&json!({"consumers": 2, "workers": 2})).await;
    scene.members(2).await;
    assert!(begun.elapsed() < SESSION / 2, "the group settled after {:?}", begun.elapsed());
    scene.flows();
    scene.put(&json!({"consumers": 1}));
    scene.members(1).await;

    let count = source.stop();
    println!("{count} records");
    scene.index.wait_for(INDEX, count);
    assert_eq!(scene.index.numbers(INDEX), (0..count).collect::<Vec<_>>());
    scene.committed(count).await;
    let told = scene.told();
    for name in ["dead_letters", "lost", "skipped", "dropped", "bulks_in_flight"] {
        assert_eq!(told[name], 0, "{name}: {told}");
    }
    // Each consumer that went had what it read acknowledged and committed: nobody read it again.
    let number = |name: &str| told[name].as_u64().unwrap();
    assert_eq!(number("delivered"), count + number("already_there"), "{told}");
    assert!(number("already_there") <= twice_max, "{told}");
    assert_eq!(told["group"], json!([GROUP]));
    assert_eq!(told["topics"], json!([TOPIC]));

    let Scene { client, mut sink, index, .. } = scene;
    assert!(sink.stop(Duration::from_secs(10)).unwrap().success());
    assert!(!sink.output().contains(" ERROR "), "{}", sink.output());
    assert_eq!(index.count(INDEX), count);
    // The static member stays until its session ends; the others have left for good.
    assert!(client.describe_group(GROUP).await.unwrap().members.len() <= 1);
}

/// The real binary, and where its API listens.
fn start_sink(dir: &Path, bootstrap: &str, elasticsearch: &str) -> (Process, Index) {
    let file = dir.join("pipeline.conf");
    let session_ms = SESSION.as_millis();
    let text = format!(
        r#"input {{ kafka {{ bootstrap_servers => "{bootstrap}" topics => ["{TOPIC}"] codec => json
             group_id => "{GROUP}" group_instance_id => "first" session_timeout_ms => {session_ms}
             heartbeat_interval_ms => 1000 }} }}
           filter {{ mutate {{ add_field => {{ "seen" => "yes" }} }} }}
           output {{ elasticsearch {{ hosts => ["{elasticsearch}"] index => "{INDEX}" }} }}"#
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new(elkfk());
    command.args(["sink", "-w", "1", "--api.http.port", "0", "-f"]).arg(&file);
    let mut sink = Process::start("elkfk sink", &mut command, &dir.join("sink.log")).unwrap();
    let said = |sink: &Process| {
        let said = sink.output();
        let (_, after) = said.split_once("api http://")?;
        after.split_once('\n').map(|(api, _)| api.to_owned())
    };
    sink.wait_until(PATIENCE, |sink| said(sink).is_some()).unwrap();
    let api = said(&sink).unwrap();
    (sink, Index::new(api))
}

struct Scene {
    client: Client,
    sink: Process,
    /// Its client serves for the sink's API too.
    api: Index,
    index: Index,
}

impl Scene {
    fn put(&self, wish: &Value) -> Value {
        let (status, answer) = self.try_put(wish);
        assert_eq!(status, 200, "{wish}: {answer}");
        answer
    }

    fn try_put(&self, wish: &Value) -> (u16, Value) {
        self.api.call("PUT", "/_node/pipelines/main", Some(wish.clone()))
    }

    /// Asks until those who were to leave have left.
    async fn put_in_time(&self, wish: &Value) {
        let begun = Instant::now();
        while self.try_put(wish).0 != 200 {
            assert!(begun.elapsed() < PATIENCE, "{wish}: {}", self.told());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the group has so many members, with partitions or without.
    async fn joined(&self, wanted: usize) {
        let begun = Instant::now();
        loop {
            let group = self.client.describe_group(GROUP).await.unwrap();
            if group.state == "Stable" && group.members.len() == wanted {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "wanted {wanted} members: {group:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn told(&self) -> Value {
        let (status, stats) = self.api.call("GET", "/_node/stats", None);
        assert_eq!(status, 200, "{stats}");
        stats["elkfk"].clone()
    }

    /// Waits until the group has so many members, each with its share of the partitions.
    async fn members(&self, wanted: usize) -> GroupDescription {
        let begun = Instant::now();
        loop {
            let group = self.client.describe_group(GROUP).await.unwrap();
            let share = PARTITIONS as usize / wanted;
            let has_share =
                |member: &Member| member.assignment.values().map(Vec::len).sum::<usize>() == share;
            let is_shared = group.members.len() == wanted && group.members.iter().all(has_share);
            if group.state == "Stable" && is_shared {
                return group;
            }
            assert!(begun.elapsed() < PATIENCE, "wanted {wanted} members: {group:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits for a second's worth of records of every partition to be indexed.
    fn flows(&self) {
        let (begun, before) = (Instant::now(), self.told()["delivered"].as_u64().unwrap());
        while self.told()["delivered"].as_u64().unwrap() < before + RATE {
            assert!(begun.elapsed() < PATIENCE, "nothing flows: {}", self.told());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Threads of the process that filter, once there are `wanted`.
    fn worker_threads(&self, wanted: usize) -> usize {
        let begun = Instant::now();
        loop {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.sink.id())).unwrap();
            let names = tasks
                .flatten()
                .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
            let count = names.filter(|name| name.starts_with("sink-worker-")).count();
            if count == wanted || begun.elapsed() > PATIENCE {
                return count;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the group has committed all there is.
    async fn committed(&self, count: u64) {
        let begun = Instant::now();
        loop {
            let offsets = self.client.committed_offsets(GROUP).await.unwrap();
            let sum: i64 = offsets.values().map(|committed| committed.offset).sum();
            if sum == count as i64 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "committed {sum} of {count}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Records with the source ids of elkfk's shipper, some every few milliseconds, over all partitions.
struct Source {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Source {
    fn start(bootstrap: &str) -> Self {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("enable.idempotence", "true")
            .create()
            .unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (stop.clone(), sent.clone());
        let thread = std::thread::spawn(move || {
            let generation = Generation::new(1_772_323_200_000, 0);
            let begun = Instant::now();
            let mut n = 0;
            while !stopped.load(Relaxed) {
                let due = begun.elapsed().as_millis() as u64 * RATE / 1000;
                while n < due {
                    let event = json!({"@timestamp": "2026-03-01T12:00:00.000Z", "message": format!("event {n}"), "n": n});
                    let value = event.to_string();
                    let id = SourceId { generation, position: n }.to_bytes();
                    let headers =
                        OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&id[..]) });
                    let record: BaseRecord<'_, [u8], str> = BaseRecord::to(TOPIC)
                        .partition((n % PARTITIONS) as i32)
                        .headers(headers)
                        .payload(&value);
                    producer.send(record).map_err(|(error, _)| error).unwrap();
                    n += 1;
                }
                counted.store(n, Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
            producer.flush(Duration::from_secs(60)).unwrap();
        });
        Self { stop, sent, thread }
    }

    /// How many were sent in all.
    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap();
        self.sent.load(Relaxed)
    }
}
