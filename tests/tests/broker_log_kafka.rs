//! Log directories that change hands between our broker and a real Kafka 3.4.1.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use elkfk_broker::log::{LogConfig, LogManager, SystemDisk, TopicConfig, meta_properties};
use elkfk_broker::partition::{AppendOptions, BrokerId, Isolation, Partition};
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch, Offset, batches};

const NOW_MS: i64 = 1_760_000_000_000;

fn small_segments() -> TopicConfig {
    TopicConfig {
        segment_bytes_max: 16 * 1024,
        index_interval_bytes: 1024,
        // The records are of a fixed time, and must not expire.
        retention: None,
        ..TopicConfig::default()
    }
}

fn open(directory: &Path, broker_id: i32, topics: &[&str]) -> Arc<LogManager> {
    let topics = topics.iter().map(|topic| ((*topic).to_owned(), small_segments())).collect();
    LogManager::open(LogConfig {
        directories: vec![directory.into()],
        broker_id,
        topics,
        reserve_bytes: 0,
        ..LogConfig::default()
    })
    .unwrap()
}

/// Appends `value N` for N in `range` in small batches, in turn with every compression, and waits
/// until all of it is durable.
async fn append(partition: &Arc<Partition>, range: std::ops::Range<i64>, producer_id: i64) {
    let mut next = range.start;
    let mut sequence = 0;
    let mut codecs = Compression::ALL.iter().cycle();
    while next < range.end {
        let count = (range.end - next).min(1 + next % 9);
        let mut builder = BatchBuilder::new(*codecs.next().unwrap());
        if producer_id >= 0 {
            builder = builder.producer(producer_id, 0, sequence);
        }
        for number in next..next + count {
            let (key, value) = (format!("key {number}"), format!("value {number}"));
            builder.push(
                NOW_MS + number,
                Some(key.as_bytes()),
                Some(value.as_bytes()),
                &[("trace", Some(b"abc")), ("empty", None)],
            );
        }
        let appended =
            partition.append(builder.build().unwrap(), AppendOptions::default()).unwrap();
        assert_eq!(appended.base_offset, Offset(next));
        next += count;
        sequence += count as i32;
    }
    partition.durable(Offset(range.end)).await.unwrap();
}

/// All readable values by offset.
fn read(partition: &Partition) -> BTreeMap<i64, String> {
    let mut found = BTreeMap::new();
    let mut from = partition.positions().log_start;
    loop {
        let read = partition.read(from, 64 * 1024, true, Isolation::Uncommitted).unwrap();
        if read.bytes.is_empty() {
            return found;
        }
        for batch in batches(&read.bytes) {
            let batch = batch.unwrap();
            batch.check().unwrap();
            let records = batch.records(1 << 20).unwrap();
            for record in &records {
                let record = record.unwrap();
                let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
                assert_eq!(found.insert(record.offset.0, value), None);
            }
            from = batch.next_offset();
        }
    }
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|it| it == extension))
        .collect();
    files.sort();
    files
}

fn dump(paths: &[PathBuf], options: &[&str]) -> String {
    let list = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(",");
    let mut args = vec!["--files", &list];
    args.extend(options);
    let output = peers::kafka_tool("kafka-dump-log", &args, "").unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

#[tokio::test]
async fn kafka_dump_log_reads_our_segments() {
    if !peers::have("kafka_dump_log_reads_our_segments", &[Peer::Kafka]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let manager = open(directory.path(), 0, &["logs"]);
    let partition = manager.create("logs", Some([5; 16]), 0, small_segments()).unwrap();
    partition.become_leader(BrokerId(0), LeaderEpoch(0), &[]).unwrap();
    append(&partition, 0..1500, 77).await;
    partition.become_leader(BrokerId(0), LeaderEpoch(1), &[]).unwrap();
    append(&partition, 1500..2000, -1).await;
    manager.shutdown();

    let place = directory.path().join("logs-0");
    let logs = files(&place, "log");
    assert!(logs.len() > 3, "{logs:?}");
    let text = dump(&logs, &["--deep-iteration", "--print-data-log"]);
    for number in 0..2000 {
        let expected = format!("payload: value {number}\n");
        let line = text.lines().find(|line| format!("{line}\n").ends_with(&expected));
        let line = line.unwrap_or_else(|| panic!("value {number} is not dumped"));
        assert!(line.contains(&format!("offset: {number} ")), "{line}");
        assert!(line.contains(&format!("CreateTime: {} ", NOW_MS + number)), "{line}");
        assert!(line.contains(&format!("key: key {number} ")), "{line}");
        assert!(line.contains("headerKeys: [trace,empty]"), "{line}");
    }
    assert!(!text.contains("isvalid: false"), "{text}");
    let mut rest = files(&place, "index");
    rest.extend(files(&place, "timeindex"));
    rest.extend(files(&place, "snapshot"));
    let text = dump(&rest, &[]);
    // What the tool says when an index does not fit its log.
    for complaint in
        ["mismatch", "Mismatch", "not found", "out of order", "Out of order", "corrupt"]
    {
        assert!(!text.contains(complaint), "{text}");
    }
    assert!(text.contains("producerId: 77"), "{text}");
}

#[tokio::test]
async fn kafka_dump_log_reads_what_our_cleaner_left() {
    if !peers::have("kafka_dump_log_reads_what_our_cleaner_left", &[Peer::Kafka]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let manager = open(directory.path(), 0, &[]);
    let config = TopicConfig { is_compacted: true, is_deleted: false, ..small_segments() };
    let partition = manager.create("__consumer_offsets", None, 0, config).unwrap();
    partition.become_leader(BrokerId(0), LeaderEpoch(0), &[]).unwrap();
    for number in 0..3000i64 {
        let mut builder = BatchBuilder::new(Compression::ALL[number as usize % 5]);
        for key in [number % 50, (number * 3) % 50] {
            let (key, value) = (format!("key {key}"), format!("value {number}"));
            builder.push(NOW_MS + number, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        partition.append(builder.build().unwrap(), AppendOptions::default()).unwrap();
    }
    partition.durable(Offset(6000)).await.unwrap();
    let before = partition.bytes();
    manager.clean();
    assert!(partition.bytes() < before / 3, "{before} → {}", partition.bytes());
    let expected = read(&partition);
    manager.shutdown();

    let place = directory.path().join("__consumer_offsets-0");
    let text = dump(&files(&place, "log"), &["--deep-iteration", "--print-data-log"]);
    assert!(!text.contains("isvalid: false"), "{text}");
    let dumped: BTreeMap<i64, String> = text
        .lines()
        .filter_map(|line| {
            let offset = line.split("offset: ").nth(1)?.split(' ').next()?.parse().ok()?;
            Some((offset, line.split("payload: ").nth(1)?.to_owned()))
        })
        .collect();
    assert_eq!(dumped, expected);
    let mut indexes = files(&place, "index");
    indexes.extend(files(&place, "timeindex"));
    let text = dump(&indexes, &[]);
    for complaint in ["mismatch", "Mismatch", "not found", "out of order", "Out of order"] {
        assert!(!text.contains(complaint), "{text}");
    }
}

/// The last lines of a tool's answer that are records, as `offset → value`.
fn consume(bootstrap: &str, topic: &str, count: usize) -> BTreeMap<i64, String> {
    let count = count.to_string();
    let output = peers::kafka_tool(
        "kafka-console-consumer",
        &[
            "--bootstrap-server",
            bootstrap,
            "--topic",
            topic,
            "--from-beginning",
            "--max-messages",
            &count,
            "--timeout-ms",
            "60000",
            "--property",
            "print.offset=true",
        ],
        "",
    )
    .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines()
        .map(|line| {
            let (offset, value) = line.split_once('\t').unwrap();
            let offset = offset.trim_start_matches("Offset:").parse().unwrap();
            (offset, value.to_owned())
        })
        .collect()
}

fn produce(bootstrap: &str, topic: &str, codec: &str, values: &[String]) {
    let output = peers::kafka_tool(
        "kafka-console-producer",
        &["--bootstrap-server", bootstrap, "--topic", topic, "--compression-codec", codec],
        &(values.join("\n") + "\n"),
    )
    .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_log_directory_changes_hands_both_ways() {
    let name = "a_log_directory_changes_hands_both_ways";
    if !peers::have(name, &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let zookeeper =
        peers::zookeeper(&root.path().join("zk"), "4lw.commands.whitelist=srvr,dump").unwrap();
    let place = root.path().join("kafka");
    let start = || {
        peers::wait_until_broker_is_forgotten(zookeeper.addr).unwrap();
        let overrides = [
            "zookeeper.session.timeout.ms=4000",
            "log.segment.bytes=16384",
            "log.index.interval.bytes=1024",
            "log.retention.hours=-1",
        ];
        peers::kafka(&place, &zookeeper.addr.to_string(), &overrides).unwrap()
    };
    let data = place.join("data");

    // Kafka writes, with every compression of its client; then it is stopped in order.
    let mut kafka = start();
    let bootstrap = kafka.addr.to_string();
    let created = peers::kafka_tool(
        "kafka-topics",
        &["--bootstrap-server", &bootstrap, "--create", "--topic", "logs", "--partitions", "1"],
        "",
    )
    .unwrap();
    assert!(created.status.success());
    let mut expected = BTreeMap::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let values: Vec<_> = (0..300).map(|number| format!("kafka {codec} {number}")).collect();
        produce(&bootstrap, "logs", codec, &values);
        for value in values {
            expected.insert(expected.len() as i64, value);
        }
    }
    stop(&mut kafka);

    // Ours reads all of it and goes on.
    let meta = meta_properties(&SystemDisk, &data).unwrap().unwrap();
    assert_eq!(meta.broker_id, 0);
    let manager = open(&data, 0, &["logs"]);
    assert_eq!(manager.offline(), BTreeMap::new());
    let partition = manager.partition("logs", 0).unwrap();
    assert!(partition.topic_id().is_some());
    let epoch = partition.epoch_of(Offset(0)).unwrap();
    partition.become_leader(BrokerId(0), LeaderEpoch(epoch.0 + 1), &[]).unwrap();
    assert_eq!(read(&partition), expected);
    let from = expected.len() as i64;
    append(&partition, from..from + 1000, 4001).await;
    expected.extend((from..from + 1000).map(|number| (number, format!("value {number}"))));
    assert_eq!(read(&partition), expected);
    manager.shutdown();
    drop(partition);
    drop(manager);

    // Kafka takes it back, serves all of it, goes on, and is killed.
    let mut kafka = start();
    check_untroubled(&kafka);
    let bootstrap = kafka.addr.to_string();
    assert_eq!(consume(&bootstrap, "logs", expected.len()), expected);
    let values: Vec<_> = (0..200).map(|number| format!("again {number}")).collect();
    produce(&bootstrap, "logs", "lz4", &values);
    for value in values {
        expected.insert(expected.len() as i64, value);
    }
    kafka.process.kill();

    // Ours recovers from that, and is left without an orderly stop too.
    let manager = open(&data, 0, &["logs"]);
    assert_eq!(manager.offline(), BTreeMap::new());
    let partition = manager.partition("logs", 0).unwrap();
    let epoch = partition.epoch_of(Offset(partition.log_end().0 - 1)).unwrap();
    partition.become_leader(BrokerId(0), LeaderEpoch(epoch.0 + 1), &[]).unwrap();
    assert_eq!(read(&partition), expected);
    let from = expected.len() as i64;
    append(&partition, from..from + 500, 4002).await;
    expected.extend((from..from + 500).map(|number| (number, format!("value {number}"))));
    let crashed = root.path().join("crashed");
    copy_tree(&data, &crashed);
    manager.shutdown();

    // Kafka recovers what our crash left.
    std::fs::remove_dir_all(&data).unwrap();
    std::fs::rename(&crashed, &data).unwrap();
    let mut kafka = start();
    check_untroubled(&kafka);
    assert_eq!(consume(&kafka.addr.to_string(), "logs", expected.len()), expected);
    stop(&mut kafka);
}

/// A real broker 0 in `place`, on a ZooKeeper.
fn start_kafka(place: &Path, zookeeper: SocketAddr, port: u16) -> peers::Server {
    peers::wait_until_broker_is_forgotten(zookeeper).unwrap();
    let overrides = [
        "zookeeper.session.timeout.ms=4000",
        "log.segment.bytes=16384",
        "log.index.interval.bytes=1024",
        "log.retention.hours=-1",
        "offsets.topic.num.partitions=3",
    ];
    peers::kafka_at(place, port, &zookeeper.to_string(), &overrides).unwrap()
}

/// `elkfk broker` with the same properties, in a process of its own.
fn start_elkfk(place: &Path, zookeeper: &str, port: u16) -> Process {
    let properties = place.join("elkfk.properties");
    let text = format!(
        "broker.id=0\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs={}\n\
         zookeeper.connect={zookeeper}\nzookeeper.session.timeout.ms=4000\n\
         log.segment.bytes=16384\nlog.index.interval.bytes=1024\nlog.retention.hours=-1\n\
         offsets.topic.num.partitions=3\ngroup.initial.rebalance.delay.ms=0\n",
        place.join("data").display()
    );
    std::fs::write(&properties, text).unwrap();
    let mut command = std::process::Command::new(elkfk());
    command.arg("broker").arg(&properties);
    let log = place.join("elkfk.log");
    let said = std::fs::read_to_string(&log).unwrap_or_default().matches("broker started").count();
    let mut process = Process::start("elkfk broker", &mut command, &log).unwrap();
    let is_ready = |process: &Process| process.output().matches("broker started").count() > said;
    process.wait_until(Duration::from_secs(60), is_ready).unwrap();
    process
}

/// Reads on as a member of `group` until `count` records came; commits where it stopped.
fn consume_in_group(bootstrap: &str, group: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = [
        ["--bootstrap-server", bootstrap],
        ["--topic", "logs"],
        ["--group", group],
        ["--max-messages", &count],
        ["--timeout-ms", "60000"],
        ["--consumer-property", "auto.offset.reset=earliest"],
    ]
    .concat();
    let output = peers::kafka_tool("kafka-console-consumer", &args, "").unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Not the logs alone: whole brokers take turns, with one ZooKeeper, one number and one directory,
/// and a group of consumers goes on where it was.
#[tokio::test]
async fn elkfk_and_kafka_take_turns_as_the_same_broker() {
    let name = "elkfk_and_kafka_take_turns_as_the_same_broker";
    if !peers::have(name, &[Peer::ZooKeeper, Peer::Kafka]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let zookeeper =
        peers::zookeeper(&root.path().join("zk"), "4lw.commands.whitelist=srvr,dump").unwrap();
    let zookeeper_addr = zookeeper.addr.to_string();
    let place = root.path().join("kafka");
    let port = elkfk_tests::free_port();
    let bootstrap = format!("127.0.0.1:{port}");
    let mut written = 0;
    let mut read = Vec::new();
    // Kafka, ours, Kafka, ours killed, Kafka, ours.
    for turn in 0..6 {
        let (mut kafka, mut ours) = match turn % 2 {
            0 => (Some(start_kafka(&place, zookeeper.addr, port)), None),
            _ => (None, Some(start_elkfk(&place, &zookeeper_addr, port))),
        };
        if turn == 0 {
            let create = ["--bootstrap-server", &bootstrap, "--create", "--topic", "logs"];
            let output = peers::kafka_tool("kafka-topics", &create, "").unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let codec = ["zstd", "lz4", "none", "gzip", "snappy", "zstd"][turn];
        let values: Vec<_> = (0..300).map(|n| format!("turn {turn} {}", written + n)).collect();
        produce(&bootstrap, "logs", codec, &values);
        written += 300;
        // Half of it stays for the next broker: the committed offset lies in the midst of a batch.
        read.extend(consume_in_group(&bootstrap, "readers", 250));
        if let Some(kafka) = &mut kafka {
            check_untroubled(kafka);
            stop(kafka);
        }
        if let Some(ours) = &mut ours {
            if turn == 3 {
                ours.kill();
            } else {
                ours.stop(Duration::from_secs(30)).unwrap();
            }
            let said = ours.output();
            let complaints: Vec<_> = said.lines().filter(|line| line.contains("ERROR")).collect();
            assert_eq!(complaints, Vec::<&str>::new());
        }
    }
    let mut last = start_kafka(&place, zookeeper.addr, port);
    read.extend(consume_in_group(&bootstrap, "readers", written - read.len()));
    let numbers: Vec<usize> =
        read.iter().map(|value| value.rsplit(' ').next().unwrap().parse().unwrap()).collect();
    assert_eq!(numbers, (0..written).collect::<Vec<_>>(), "each record once, in order");
    assert_eq!(consume(&bootstrap, "logs", written).len(), written);
    stop(&mut last);
}

/// Kafka's log says nothing bad about the logs it has opened.
fn check_untroubled(kafka: &peers::Server) {
    let said = kafka.process.output();
    let complaints: Vec<_> = said
        .lines()
        .filter(|line| line.contains("ERROR") || line.contains("WARN"))
        .filter(|line| ["log.", "Log", "Index", "Corrupt"].iter().any(|it| line.contains(it)))
        .collect();
    assert_eq!(complaints, Vec::<&str>::new());
}

fn stop(kafka: &mut peers::Server) {
    kafka.process.signal(rustix::process::Signal::TERM).unwrap();
    kafka.process.wait(Duration::from_secs(60)).unwrap();
}

/// The files as a process finds them that starts after a kill.
fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
