//! What watching costs: two thousand partitions and a hundred groups, by the program as it is built.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_broker_client::{Client, NewTopic, TopicPartition};
use elkfk_tests::line::{Index, TestDir};
use elkfk_tests::process::{Process, elkfk};

const TOPICS: usize = 20;
const PARTITIONS: i32 = 100;
const GROUPS: usize = 100;
/// Of each group: a hundred groups on twenty partitions are two thousand.
const READ: i32 = 20;
const WATCHED: Duration = Duration::from_secs(20);

/// Shares of a core and bytes; a build without optimisation takes several times as much.
const CPU_MAX: f64 = if cfg!(debug_assertions) { 0.30 } else { 0.03 };
const BYTES_MAX: u64 = if cfg!(debug_assertions) { 120 << 20 } else { 60 << 20 };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_partitions_and_a_hundred_groups_are_cheap_to_watch() {
    let dir = TestDir::new();
    let mut config = elkfk_coordinator::Config::embedded(dir.path().join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = elkfk_coordinator::start(config).await.unwrap();
    let (data, zookeeper) =
        (dir.path().join("broker").display().to_string(), coordinator.local_addr().to_string());
    let pairs = [
        ("broker.id", "7"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", data.as_str()),
        ("zookeeper.connect", zookeeper.as_str()),
        ("offsets.topic.num.partitions", "4"),
    ];
    let config = elkfk_broker::Config::from_pairs(pairs).unwrap();
    let broker = elkfk_broker::start(config).await.unwrap();
    let bootstrap = broker.local_addr().to_string();

    let client = Client::new(elkfk_broker_client::Config::to(&bootstrap));
    for topic in 0..TOPICS {
        let topic = NewTopic {
            name: format!("topic-{topic}"),
            partitions: Some(PARTITIONS),
            replication_factor: Some(1),
            ..NewTopic::default()
        };
        assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
    }
    for group in 0..GROUPS {
        let topic = format!("topic-{}", group % TOPICS);
        let first = (group / TOPICS) as i32 * READ;
        let offsets: BTreeMap<_, _> =
            (first..first + READ).map(|p| (TopicPartition::new(topic.as_str(), p), 0)).collect();
        let results = client.commit_offsets(&format!("group-{group}"), &offsets).await.unwrap();
        assert!(results.values().all(Result::is_ok), "{results:?}");
    }

    let listen = format!("127.0.0.1:{}", elkfk_tests::free_port());
    let mut command = Command::new(elkfk());
    command.args(["dashboard", "--listen", &listen, "--bootstrap-server", &bootstrap]);
    command.args(["--elasticsearch", "http://127.0.0.1:1"]);
    command.args(["--data", &dir.path().join("data").display().to_string()]);
    let log = dir.path().join("dashboard.log");
    let mut process = Process::start("elkfk dashboard", &mut command, &log).unwrap();
    let page = Index::new(&format!("http://{listen}"));
    let begun = Instant::now();
    while page.get("/api/v1/groups").unwrap_or_default()["total"] != GROUPS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", process.output());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // Past the first looks, which find everything.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (cpu, begun) = (process.cpu(), Instant::now());
    tokio::time::sleep(WATCHED).await;
    let share = (process.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let bytes = process.resident_bytes();
    println!("{:.2} % of a core, {} MiB", share * 100.0, bytes >> 20);
    assert!(share < CPU_MAX, "{:.2} % of a core", share * 100.0);
    assert!(bytes < BYTES_MAX, "{} MiB", bytes >> 20);
    process.kill();
    broker.stop().await;
    coordinator.stop().await;
}
