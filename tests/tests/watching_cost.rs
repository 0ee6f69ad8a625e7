//! What it costs to watch a cluster: the page's process beside 2,000 partitions and 100 groups that move.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_broker_client::{Client, Config, NewTopic, TopicPartition};
use elkfk_tests::boxes::Boxes;
use elkfk_tests::line::{Index, TestDir};
use elkfk_tests::process::{Process, elkfk};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

const GROUPS: usize = 100;
const PARTITIONS: i32 = 20;
/// More than the groups get to while they are watched: all are behind.
const RECORDS: usize = 100;
const WATCHED: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_partitions_cost_three_hundredths_of_a_core() {
    let dir = TestDir::new();
    let boxes = Boxes::start(&dir.path(), &[("offsets.topic.num.partitions", "4")]).await;
    let bootstrap = boxes.bootstrap();
    let client = Client::new(Config::to(&bootstrap));
    for n in 0..GROUPS {
        let topic = NewTopic {
            name: format!("topic-{n}"),
            partitions: Some(PARTITIONS),
            replication_factor: Some(1),
            ..NewTopic::default()
        };
        assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
        commit(&client, n, 0).await;
    }
    produce(&bootstrap);

    let listen = format!("127.0.0.1:{}", elkfk_tests::free_port());
    let mut command = Command::new(elkfk());
    command.args(["dashboard", "--listen", &listen, "--bootstrap-server", &bootstrap]);
    command.args(["--elasticsearch", "http://127.0.0.1:1"]);
    let page =
        Process::start("elkfk dashboard", &mut command, &dir.path().join("page.log")).unwrap();
    let index = Index::new(&format!("http://{listen}"));
    let groups = || {
        let lag = index.get("/api/v1/lag").unwrap_or_default();
        lag["groups"].as_array().map_or(0, Vec::len)
    };
    let begun = Instant::now();
    while groups() < GROUPS {
        assert!(begun.elapsed() < Duration::from_secs(60), "{} groups", groups());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (cpu, begun) = (page.cpu(), Instant::now());
    let mut offset = 0;
    while begun.elapsed() < WATCHED {
        offset += 1;
        for n in (0..GROUPS).step_by(10) {
            commit(&client, n, offset).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let share = (page.cpu() - cpu).as_secs_f64() / begun.elapsed().as_secs_f64();
    let peak = page.peak_bytes() as f64 / 1e6;
    println!("watching cost {:.1} % of a core and {peak:.0} MB at the most", share * 100.0);
    assert!(share < 0.03, "{:.1} % of a core", share * 100.0);
    assert!(peak < 60.0, "{peak:.0} MB");
    drop(page);
    boxes.stop().await;
}

fn produce(bootstrap: &str) {
    let producer: ThreadedProducer<DefaultProducerContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    for n in 0..GROUPS {
        for partition in 0..PARTITIONS {
            for _ in 0..RECORDS {
                let name = format!("topic-{n}");
                let record = BaseRecord::<(), str>::to(&name).partition(partition).payload("x");
                producer.send(record).map_err(|(error, _)| error).unwrap();
            }
        }
        // librdkafka's queue holds 100,000.
        producer.flush(Duration::from_secs(60)).unwrap();
    }
}

async fn commit(client: &Client, n: usize, offset: i64) {
    let place = |partition| TopicPartition::new(format!("topic-{n}"), partition);
    let offsets: BTreeMap<_, _> = (0..PARTITIONS).map(|p| (place(p), offset)).collect();
    let answers = client.commit_offsets(&format!("group-{n}"), &offsets).await.unwrap();
    assert!(answers.values().all(Result::is_ok), "{answers:?}");
}
