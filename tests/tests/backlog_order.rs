//! A topic gets more partitions while files are written to: each file stays in the partition it has, its
//! lines in their order there, and every line is indexed once.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_tests::boxes::Boxes;
use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use elkfk_wire::source_id::{HEADER, SourceId};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[expect(dead_code, reason = "other tests use the rest")]
mod sink_delivery_support;

use sink_delivery_support::{Index, Kafka};

const TOPIC: &str = "order";
const INDEX: &str = "order";
/// Partitions in each round; in each, as many files begin, and all that began before go on.
const ROUNDS: [usize; 4] = [1, 2, 4, 7];
const FILES_EACH: usize = 3;
/// The round in which the shipper is killed.
const KILLED_IN: usize = 2;
/// Writes before new files begin: the shipper, which asks every 5 s, has heard of the new partitions then.
const UNTIL_ASKED: usize = 32;
/// Writes in the rest of a round.
const WITH_NEW_FILES: usize = 12;
const BETWEEN_WRITES: Duration = Duration::from_millis(200);
const LINES_EACH_WRITE: usize = 10;
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_keep_their_order_while_partitions_are_added() {
    let dir = TestDir::new();
    let boxes = Boxes::start(&dir.path(), &[]).await;
    let bootstrap = boxes.bootstrap();
    check(&dir.path(), &bootstrap).await;
    boxes.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_keep_their_order_while_partitions_are_added_to_a_real_kafka() {
    let test = "files_keep_their_order_while_partitions_are_added_to_a_real_kafka";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let dir = TestDir::new();
    let kafka = Kafka::start(&dir.path());
    check(&dir.path(), &kafka.bootstrap).await;
}

async fn check(dir: &Path, bootstrap: &str) {
    let store = elkfk_store::start(elkfk_store::Config {
        listen: ([127, 0, 0, 1], 0).into(),
        data_dir: dir.join("store"),
        ..Default::default()
    });
    let store = store.await.unwrap();
    let index = Index::new(store.local_addr().to_string());
    topics(bootstrap, &["--create", "--topic", TOPIC, "--partitions", "1"]);
    let mut sink = start_sink(dir, bootstrap, &index.addr);
    let mut shipper = start_shipper(dir, bootstrap);

    // The lines that each file has.
    let mut lengths: Vec<usize> = Vec::new();
    for (round, partitions) in ROUNDS.into_iter().enumerate() {
        if round > 0 {
            // In the middle of the files: they are written to before, meanwhile and after.
            append_to_all(dir, &mut lengths);
            let wanted = partitions.to_string();
            topics(bootstrap, &["--alter", "--topic", TOPIC, "--partitions", &wanted]);
            append_to_all(dir, &mut lengths);
        }
        if round == KILLED_IN {
            // What a file's partition is outlives the shipper. A new one knows at once how many there are.
            shipper.kill();
            shipper = start_shipper(dir, bootstrap);
        } else if round > 0 {
            append_for_a_while(dir, &mut lengths, UNTIL_ASKED);
        }
        lengths.resize((round + 1) * FILES_EACH, 0);
        append_for_a_while(dir, &mut lengths, WITH_NEW_FILES);
    }
    wait_for(&index, lines_of(&lengths));
    let written = lines_of(&lengths);
    verify(&read_all(bootstrap, written), written);
    assert_eq!(index.count(INDEX), written);
    assert!(shipper.stop(Duration::from_secs(10)).unwrap().success(), "{}", shipper.output());
    assert!(sink.stop(Duration::from_secs(10)).unwrap().success(), "{}", sink.output());
    store.stop().await;
}

fn wait_for(index: &Index, count: u64) {
    let begun = Instant::now();
    loop {
        let now = index.count(INDEX);
        assert!(now <= count, "{now} of {count} lines are indexed");
        if now == count {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{now} of {count} lines are indexed");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Kafka's own command, as ours.
fn topics(bootstrap: &str, args: &[&str]) {
    let mut command = Command::new(elkfk());
    command.args(["kafka-topics.sh", "--bootstrap-server", bootstrap]).args(args);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stdout));
}

fn lines_of(lengths: &[usize]) -> u64 {
    lengths.iter().sum::<usize>() as u64
}

fn append_for_a_while(dir: &Path, lengths: &mut [usize], writes: usize) {
    for _ in 0..writes {
        append_to_all(dir, lengths);
        std::thread::sleep(BETWEEN_WRITES);
    }
}

fn append_to_all(dir: &Path, lengths: &mut [usize]) {
    std::fs::create_dir_all(dir.join("logs")).unwrap();
    for (file, length) in lengths.iter_mut().enumerate() {
        let mut text = String::new();
        for line in *length..*length + LINES_EACH_WRITE {
            writeln!(text, "{file} {line}").unwrap();
        }
        *length += LINES_EACH_WRITE;
        let path = dir.join("logs").join(format!("{file}.log"));
        let mut open = OpenOptions::new().create(true).append(true).open(path).unwrap();
        open.write_all(text.as_bytes()).unwrap();
    }
}

fn start_shipper(dir: &Path, bootstrap: &str) -> Process {
    let config = dir.join("filebeat.yml");
    let text = format!(
        "filebeat.inputs:\n- type: filestream\n  id: order\n  paths: ['{0}/logs/*.log']\n  prospector.scanner.check_interval: 1s\npath.data: {0}/shipper\noutput.kafka:\n  hosts: ['{bootstrap}']\n  topic: {TOPIC}\n",
        dir.display()
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(elkfk());
    command.args(["shipper", "-c"]).arg(&config);
    Process::start("elkfk shipper", &mut command, &dir.join("shipper.log")).unwrap()
}

fn start_sink(dir: &Path, bootstrap: &str, elasticsearch: &str) -> Process {
    let config = dir.join("pipeline.conf");
    let text = format!(
        r#"input {{ kafka {{ bootstrap_servers => "{bootstrap}" topics => ["{TOPIC}"] codec => json
             group_id => "order" metadata_max_age_ms => 1000 }} }}
           output {{ elasticsearch {{ hosts => ["{elasticsearch}"] index => "{INDEX}" }} }}"#
    );
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(elkfk());
    command.args(["sink", "--api.enabled", "false", "-f"]).arg(&config);
    Process::start("elkfk sink", &mut command, &dir.join("sink.log")).unwrap()
}

/// A record as the topic holds it.
struct Line {
    id: SourceId,
    partition: i32,
    file: usize,
    number: usize,
}

/// Partition by partition, in the order of each, until `count` lines were met.
fn read_all(bootstrap: &str, count: u64) -> Vec<Line> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "verify")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    let (mut lines, mut left) = (Vec::new(), 0);
    for partition in 0..ROUNDS[ROUNDS.len() - 1] as i32 {
        let (start, end) = consumer.fetch_watermarks(TOPIC, partition, PATIENCE).unwrap();
        list.add_partition_offset(TOPIC, partition, Offset::Beginning).unwrap();
        left += end - start;
    }
    assert!(left as u64 >= count, "{left} records of {count} lines");
    consumer.assign(&list).unwrap();
    for _ in 0..left {
        let message = consumer.poll(PATIENCE).expect("the records are there").unwrap();
        let mut headers = message.headers().unwrap().iter();
        let id = headers.find(|header| header.key == HEADER).unwrap();
        let event: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let text = event["message"].as_str().unwrap();
        let (file, number) = text.split_once(' ').unwrap();
        lines.push(Line {
            id: SourceId::from_bytes(id.value.unwrap()).unwrap(),
            partition: message.partition(),
            file: file.parse().unwrap(),
            number: number.parse().unwrap(),
        });
    }
    lines
}

fn verify(lines: &[Line], count: u64) {
    let mut partitions: BTreeMap<usize, i32> = BTreeMap::new();
    let mut next: BTreeMap<usize, usize> = BTreeMap::new();
    let mut met = HashSet::new();
    for line in lines {
        let kept = *partitions.entry(line.file).or_insert(line.partition);
        assert_eq!(line.partition, kept, "file {} moved at line {}", line.file, line.number);
        // What was sent again after the kill stands behind what was sent before, under the same id.
        let next = next.entry(line.file).or_default();
        if met.insert(line.id) {
            assert_eq!(line.number, *next, "file {}: out of order", line.file);
            *next += 1;
        } else {
            assert!(line.number < *next, "file {}: line {} again", line.file, line.number);
        }
    }
    assert_eq!(met.len() as u64, count);
    println!("{} records of {count} lines, file → partition: {partitions:?}", lines.len());
    // Files that began later are in partitions that were not there before.
    for (round, before) in ROUNDS.iter().enumerate().take(ROUNDS.len() - 1) {
        let later = partitions.iter().filter(|(file, _)| **file / FILES_EACH == round + 1);
        let new: BTreeSet<i32> =
            later.map(|(_, partition)| *partition).filter(|at| *at >= *before as i32).collect();
        assert!(!new.is_empty(), "round {}: no new partition was used: {partitions:?}", round + 1);
    }
}
