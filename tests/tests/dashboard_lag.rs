//! The lag page's figures against offsets that are known, and against what Kafka's own tool says at the same
//! quiet moment: on our broker and on a real Kafka.

use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use elkfk_broker_client::{Client, NewTopic};
use elkfk_tests::lag::Figures;
use elkfk_tests::line::{Index, TestDir, Up};
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

const TOPIC: &str = "orders";
const GROUP: &str = "billing";
/// Records of each partition, and how far the group has read; the last one it has never read.
const ENDS: [i64; 4] = [120, 30, 7, 5];
const COMMITTED: [Option<i64>; 4] = [Some(20), Some(30), Some(0), None];
/// The age of every record.
const AGE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_true_on_our_broker() {
    if !peers::have("lag_is_true_on_our_broker", &[Peer::Kafka]) {
        return;
    }
    let dir = TestDir::new();
    let watch = dir.path().join("none/*.log").display().to_string();
    let up = Up::start(&dir.path(), &["--watch", &watch]).unwrap();
    compare(&up.bootstrap, &up.dashboard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_true_on_a_real_kafka() {
    if !peers::have("lag_is_true_on_a_real_kafka", &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[]).unwrap();
    let listen = format!("127.0.0.1:{}", elkfk_tests::free_port());
    let mut command = Command::new(elkfk());
    command.args(["dashboard", "--listen", &listen, "--elasticsearch", "http://127.0.0.1:1"]);
    command.args(["--bootstrap-server", &kafka.addr.to_string()]);
    let log = dir.path().join("dashboard.log");
    let page = Process::start("elkfk dashboard", &mut command, &log).unwrap();
    compare(&kafka.addr.to_string(), &format!("http://{listen}")).await;
    drop(page);
}

async fn compare(bootstrap: &str, page: &str) {
    let page = Index::new(page);
    // Not librdkafka's: it asks a broker that has just started once, and then waits for minutes.
    let client = Client::new(elkfk_broker_client::Config::to(bootstrap));
    let topic = NewTopic {
        name: TOPIC.into(),
        partitions: Some(ENDS.len() as i32),
        replication_factor: Some(1),
        ..NewTopic::default()
    };
    assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
    let written_ms = now_ms() - AGE.as_millis() as i64;
    produce(bootstrap, written_ms).await;

    // A group that has committed and gone.
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", GROUP)
        .set("client.id", "till")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut offsets = TopicPartitionList::new();
    for (partition, committed) in (0..).zip(COMMITTED) {
        if let Some(committed) = committed {
            offsets.add_partition_offset(TOPIC, partition, Offset::Offset(committed)).unwrap();
        }
    }
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    let is_measured = |topic: &Value| {
        let seconds = |p: usize| topic["partitions"][p]["lag_seconds"].is_number();
        topic["lag"] == 107 && seconds(0) && seconds(2)
    };
    let topic = wait(&page, is_measured);
    let figures: Vec<_> = partitions(&topic)
        .iter()
        .map(|p| (p["committed"].as_i64(), p["end"].as_i64(), p["lag"].as_i64()))
        .collect();
    // Partitions without a commit are not the group's while it has no members.
    assert_eq!(
        figures,
        [
            (Some(20), Some(120), Some(100)),
            (Some(30), Some(30), Some(0)),
            (Some(0), Some(7), Some(7))
        ]
    );
    let states: Vec<_> = partitions(&topic).iter().map(|p| p["state"].clone()).collect();
    assert_eq!(states, ["stopped", "ok", "stopped"]);
    assert_eq!(ours(&topic), theirs(bootstrap));
    for partition in [0, 2] {
        let seconds = partitions(&topic)[partition]["lag_seconds"].as_f64().unwrap();
        let age = (now_ms() - written_ms) as f64 / 1000.0;
        assert!((AGE.as_secs_f64()..=age).contains(&seconds), "{seconds} s of {age} s");
    }
    assert_eq!(partitions(&topic)[1]["lag_seconds"], 0.0);

    // A member is given all partitions, and reads none of them.
    consumer.subscribe(&[TOPIC]).unwrap();
    let member = wait_polling(&page, &consumer, |topic| {
        partitions(topic).len() == ENDS.len()
            && partitions(topic).iter().all(|p| p["member"].is_string())
    });
    assert_eq!(partitions(&member)[3]["state"], "uncommitted");
    assert_eq!(partitions(&member)[3]["lag"], Value::Null);
    assert!(partitions(&member)[0]["member"].as_str().unwrap().starts_with("till @ "));
    assert_eq!(ours(&member), theirs(bootstrap));

    // It reads on, to the end of every partition.
    let mut ends = TopicPartitionList::new();
    for (partition, end) in (0..).zip(ENDS) {
        ends.add_partition_offset(TOPIC, partition, Offset::Offset(end)).unwrap();
    }
    consumer.commit(&ends, CommitMode::Sync).unwrap();
    let done = wait_polling(&page, &consumer, |topic| {
        topic["lag"] == 0 && partitions(topic).iter().all(|p| p["lag"] == 0)
    });
    assert_eq!(done["lag_seconds"], 0.0);
    assert!(partitions(&done).iter().all(|p| p["state"] == "ok"), "{done}");
    assert_eq!(ours(&done), theirs(bootstrap));
    let history = page.get(&format!("/api/v1/lag/history?group={GROUP}&topic={TOPIC}")).unwrap();
    let lags: Vec<_> =
        history["points"].as_array().unwrap().iter().filter_map(|p| p[1].as_f64()).collect();
    assert!(lags.contains(&107.0) && lags.last() == Some(&0.0), "{lags:?}");
}

async fn produce(bootstrap: &str, written_ms: i64) {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("acks", "all")
        .create()
        .unwrap();
    let mut sent = Vec::new();
    for (partition, end) in (0..).zip(ENDS) {
        for n in 0..end {
            let payload = format!("order {n}");
            let record = FutureRecord::<(), _>::to(TOPIC)
                .partition(partition)
                .timestamp(written_ms)
                .payload(&payload);
            sent.push(producer.send_result(record).map_err(|(error, _)| error).unwrap());
        }
    }
    for each in sent {
        each.await.unwrap().unwrap();
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

fn partitions(topic: &Value) -> Vec<Value> {
    topic["partitions"].as_array().cloned().unwrap_or_default()
}

/// The topic as the page has it, once `is_wanted`.
fn wait(page: &Index, is_wanted: impl Fn(&Value) -> bool) -> Value {
    wait_doing(page, || std::thread::sleep(Duration::from_millis(100)), is_wanted)
}

/// The same while `consumer` is kept a member.
fn wait_polling(
    page: &Index,
    consumer: &BaseConsumer,
    is_wanted: impl Fn(&Value) -> bool,
) -> Value {
    let poll = || {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            // Given its partitions: from here on it only stays.
            let held = consumer.assignment().unwrap();
            consumer.pause(&held).unwrap();
        }
    };
    wait_doing(page, poll, is_wanted)
}

fn wait_doing(page: &Index, between: impl Fn(), is_wanted: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let lag = page.get("/api/v1/lag").unwrap_or_default();
        let group = lag["groups"].as_array().and_then(|groups| {
            groups.iter().find(|group| group["group"] == GROUP && group["why"].is_null())
        });
        let topic = group.map_or(&Value::Null, |group| &group["topics"][0]);
        if is_wanted(topic) {
            return topic.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "after 60 s: {lag}");
        between();
    }
}

fn ours(topic: &Value) -> Figures {
    elkfk_tests::lag::ours([topic])
}

/// The same from Kafka's own tool.
fn theirs(bootstrap: &str) -> Figures {
    elkfk_tests::lag::kafkas(bootstrap, GROUP).unwrap()
}
