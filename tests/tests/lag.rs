//! `elkfk lag`: equal to Kafka's own tool while nothing moves, within what moved while it does, and
//! right where commits and records have come apart; on our broker and on a real Kafka.

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use elkfk_broker_client::{Client, ConfigOp, NewTopic, Resource, TopicPartition};
use elkfk_tests::lag::Figures;
use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::elkfk;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

/// The broker under test, and what keeps it alive.
struct Cluster {
    bootstrap: String,
    _parts: (peers::Server, Option<peers::Server>, Option<elkfk_broker::Running>),
    _dir: TestDir,
}

async fn ours() -> Cluster {
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let data = dir.path().join("data").display().to_string();
    let config = elkfk_broker::Config::from_pairs([
        ("broker.id", "1"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", &data),
        ("zookeeper.connect", &zookeeper.addr.to_string()),
        ("offsets.topic.num.partitions", "3"),
    ]);
    let broker = elkfk_broker::start(config.unwrap()).await.unwrap();
    let bootstrap = broker.local_addr().to_string();
    Cluster { bootstrap, _parts: (zookeeper, None, Some(broker)), _dir: dir }
}

fn kafka() -> Cluster {
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zk"), "").unwrap();
    let kafka = peers::kafka(&dir.path().join("kafka"), &zookeeper.addr.to_string(), &[]).unwrap();
    let bootstrap = kafka.addr.to_string();
    Cluster { bootstrap, _parts: (zookeeper, Some(kafka), None), _dir: dir }
}

fn client(cluster: &Cluster) -> Client {
    Client::new(elkfk_broker_client::Config::to(&cluster.bootstrap))
}

async fn create(cluster: &Cluster, topic: &str, partitions: i32) {
    let topic = NewTopic {
        name: topic.into(),
        partitions: Some(partitions),
        replication_factor: Some(1),
        ..NewTopic::default()
    };
    assert_eq!(client(cluster).create_topic(&topic, false).await.unwrap(), Ok(()));
}

fn producer(cluster: &Cluster, more: &[(&str, &str)]) -> ThreadedProducer<DefaultProducerContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.bootstrap).set("acks", "all");
    for (name, value) in more {
        config.set(*name, *value);
    }
    config.create().unwrap()
}

fn produce(cluster: &Cluster, topic: &str, partition: i32, count: usize) {
    let producer = producer(cluster, &[]);
    for n in 0..count {
        let payload = n.to_string();
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(30)).unwrap();
}

fn commit(cluster: &Cluster, group: &str, topic: &str, offsets: &[(i32, i64)]) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &cluster.bootstrap)
        .set("group.id", group)
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

/// What `elkfk lag --json` says of one group, `Null` where there is none.
fn lag(cluster: &Cluster, group: &str) -> Value {
    let output = Command::new(elkfk())
        .args(["lag", "--json", "--bootstrap-server", &cluster.bootstrap])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let snapshot: Value = serde_json::from_slice(&output.stdout).unwrap();
    let groups = snapshot["groups"].as_array().unwrap();
    groups.iter().find(|one| one["group"] == group).cloned().unwrap_or_default()
}

fn topic<'a>(group: &'a Value, topic: &str) -> &'a Value {
    let topics = group["topics"].as_array();
    topics.and_then(|all| all.iter().find(|one| one["topic"] == topic)).unwrap_or(&Value::Null)
}

fn figures(group: &Value) -> Figures {
    elkfk_tests::lag::ours(group["topics"].as_array().unwrap())
}

/// The same from Kafka's own tool.
fn theirs(cluster: &Cluster, group: &str) -> Figures {
    elkfk_tests::lag::kafkas(&cluster.bootstrap, group).unwrap()
}

/// While nothing moves: what the tool says; and what it cannot say.
async fn quiet(cluster: &Cluster) {
    create(cluster, "logs", 3).await;
    create(cluster, "gone", 1).await;
    for (partition, count) in [(0, 100), (1, 40)] {
        produce(cluster, "logs", partition, count);
    }
    produce(cluster, "gone", 0, 10);
    commit(cluster, "sink", "logs", &[(0, 20), (1, 40), (2, 0)]);
    commit(cluster, "sink", "gone", &[(0, 4)]);
    let group = lag(cluster, "sink");
    assert_eq!(figures(&group), theirs(cluster, "sink"));
    assert_eq!((&group["lag"], &group["state"]), (&86.into(), &"stopped".into()));

    // Beyond the end, as after an unclean election: the tool then says -5, there is nothing to read.
    commit(cluster, "ahead", "logs", &[(1, 45)]);
    assert_eq!(topic(&lag(cluster, "ahead"), "logs")["lag"], 0);

    // Records that are gone are not behind the group; they are lost to it.
    let place = TopicPartition::new("logs", 0);
    client(cluster).delete_records(&[(place, 50)].into()).await.unwrap();
    let group = lag(cluster, "sink");
    let logs = topic(&group, "logs");
    assert_eq!((&logs["lag"], &logs["lost"]), (&50.into(), &30.into()));
    retention(cluster).await;

    // A topic that is gone takes its offsets along, at once or as an unknown that says why.
    client(cluster).delete_topics(&["gone"]).await.unwrap();
    let begun = Instant::now();
    loop {
        let group = lag(cluster, "sink");
        let gone = topic(&group, "gone");
        if gone.is_null() {
            break;
        }
        let partition = &gone["partitions"][0];
        let is_told = partition["state"] == "unknown" && partition["why"].is_string();
        assert!(is_told || begun.elapsed() < Duration::from_secs(30), "{gone}");
        if is_told {
            break;
        }
    }
    assert_eq!(topic(&lag(cluster, "sink"), "logs")["lag"], 50, "the other topic is as it was");
}

/// How near unread records are to being deleted: by age, by size, or not at all.
async fn retention(cluster: &Cluster) {
    let partition = || topic(&lag(cluster, "sink"), "logs")["partitions"][0].clone();
    let used = |p: &Value| p["retention_used"].as_f64();
    // Some seconds of the seven days that Kafka keeps records by default: the whole partition is unread, and
    // none of it is near to being lost.
    let p = partition();
    let age = p["lag_seconds"].as_f64().unwrap() / (7.0 * 86_400.0);
    assert!(used(&p).is_some_and(|used| (used - age).abs() < 1e-9 && used < 0.01), "{p}");
    assert_eq!(p["retention"]["ms"], 7 * 86_400_000);

    let client = client(cluster);
    let set = async |name: &str, value: &str| {
        let ops = [ConfigOp::Set(name.into(), value.into())];
        let set = client.alter_configs(&Resource::topic("logs"), &ops).await.unwrap();
        assert_eq!(set, Ok(()), "{name}={value}");
    };
    // A broker takes a setting over a moment after it was given.
    let until = |is_wanted: &dyn Fn(&Value) -> bool| {
        let begun = Instant::now();
        loop {
            let p = partition();
            if is_wanted(&p) {
                return p;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{p}");
        }
    };
    set("retention.ms", "3600000").await;
    let p = until(&|p| p["retention"]["ms"] == 3_600_000);
    let age = p["lag_seconds"].as_f64().unwrap() / 3_600.0;
    assert!(used(&p).is_some_and(|used| (used - age).abs() < 1e-9), "{p}");

    // By size: all that is left is unread, and takes what the broker says.
    set("retention.bytes", "10000").await;
    let p = until(&|p| p["retention"]["size_bytes"].is_number());
    let size = p["retention"]["size_bytes"].as_f64().unwrap();
    assert!(size > 400.0, "{p}");
    assert!(used(&p).is_some_and(|used| (used - size / 1e4).abs() < 1e-9), "{p}");

    // What is never deleted is not near to it, however old.
    set("cleanup.policy", "compact").await;
    let p = until(&|p| p["retention"]["ms"].is_null());
    assert_eq!((used(&p), &p["lag"]), (Some(0.0), &50.into()));
    set("cleanup.policy", "delete").await;
}

/// While records are written and read: between the least and the most that was true meanwhile.
async fn moving(cluster: &Cluster) {
    create(cluster, "load", 1).await;
    let (written, read, is_done) = (AtomicI64::new(0), AtomicI64::new(0), AtomicBool::new(false));
    // What may be on its way is counted before it is sent, what is certain after the answer.
    let (sending, committing) = (AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let producer = producer(cluster, &[("linger.ms", "0")]);
            while !is_done.load(Ordering::SeqCst) {
                for _ in 0..20 {
                    sending.fetch_add(1, Ordering::SeqCst);
                    let record = BaseRecord::<(), str>::to("load").partition(0).payload("x");
                    producer.send(record).map_err(|(error, _)| error).unwrap();
                }
                producer.flush(Duration::from_secs(30)).unwrap();
                written.store(sending.load(Ordering::SeqCst), Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        scope.spawn(|| {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", &cluster.bootstrap)
                .set("group.id", "reader")
                .set("enable.auto.commit", "false")
                .create()
                .unwrap();
            while !is_done.load(Ordering::SeqCst) {
                // Two thirds of what is there: the backlog grows.
                let to = written.load(Ordering::SeqCst) * 2 / 3;
                let mut list = TopicPartitionList::new();
                list.add_partition_offset("load", 0, Offset::Offset(to)).unwrap();
                committing.store(to, Ordering::SeqCst);
                consumer.commit(&list, CommitMode::Sync).unwrap();
                read.store(to, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let begun = Instant::now();
        while read.load(Ordering::SeqCst) < 500 {
            assert!(begun.elapsed() < Duration::from_secs(30), "records flow");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut wrong = Vec::new();
        let mut rates = Vec::new();
        for _ in 0..5 {
            let least = written.load(Ordering::SeqCst);
            let read_before = read.load(Ordering::SeqCst);
            let (begun, first) = (Instant::now(), least);
            let group = lag(cluster, "reader");
            let elapsed = begun.elapsed().as_secs_f64();
            let most = sending.load(Ordering::SeqCst);
            let read_after = committing.load(Ordering::SeqCst);
            let p = &topic(&group, "load")["partitions"][0];
            let (committed, end) = (p["committed"].as_i64().unwrap(), p["end"].as_i64().unwrap());
            let is_right = (read_before..=read_after).contains(&committed)
                && (least..=most).contains(&end)
                && p["lag"] == end - committed;
            if !is_right {
                wrong.push(format!("{p} with {read_before}..{read_after}, {least}..{most}"));
            }
            rates.push((p["in_rate"].as_f64().unwrap(), (most - first) as f64 / elapsed));
        }
        is_done.store(true, Ordering::SeqCst);
        assert!(wrong.is_empty(), "{wrong:#?}");
        // The rate of one second against that of the whole run of the command; loose, the machine is shared.
        for (said, was) in &rates {
            assert!((was / 3.0..was * 3.0).contains(said), "{rates:?}");
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_true_on_our_broker() {
    let test = "figures_are_true_on_our_broker";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let cluster = ours().await;
    quiet(&cluster).await;
    moving(&cluster).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_true_on_a_real_kafka_with_its_transactions() {
    let test = "figures_are_true_on_a_real_kafka_with_its_transactions";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let cluster = kafka();
    quiet(&cluster).await;
    moving(&cluster).await;

    // The mark at the end of a transaction has an offset too: who committed after the last record is one
    // behind by every count there is, ours and theirs.
    create(&cluster, "paid", 1).await;
    let producer = producer(&cluster, &[("transactional.id", "till")]);
    producer.init_transactions(Duration::from_secs(60)).unwrap();
    producer.begin_transaction().unwrap();
    for _ in 0..3 {
        let record = BaseRecord::<(), str>::to("paid").partition(0).payload("x");
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.commit_transaction(Duration::from_secs(30)).unwrap();
    commit(&cluster, "books", "paid", &[(0, 3)]);
    assert_eq!(figures(&lag(&cluster, "books")), theirs(&cluster, "books"));
    assert_eq!(topic(&lag(&cluster, "books"), "paid")["lag"], 1);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let output = Command::new(elkfk())
        .args(["lag", "--bootstrap-server", &format!("127.0.0.1:{}", elkfk_tests::free_port())])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.starts_with("error: 127.0.0.1:") && told.contains("refused"), "{told}");
    let output = Command::new(elkfk()).args(["lag", "--watch", "1e30"]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(told.contains("a number of seconds from 0.1 to 86400"), "{told}");
    let output = Command::new(elkfk()).arg("top").output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("top needs a terminal; `elkfk lag --watch`"), "{told}");
}
