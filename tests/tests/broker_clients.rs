//! Our broker on our coordinator, seen by librdkafka and by hostile peers; kills and restarts.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use elkfk_tests::line::TestDir;
use elkfk_tests::process::Process;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode;

const LONG: Duration = Duration::from_secs(60);

/// A coordinator and a broker in this process.
struct Pair {
    coordinator: elkfk_coordinator::Running,
    broker: elkfk_broker::Running,
}

impl Pair {
    async fn start(dir: &Path, extra: &[(&str, &str)]) -> Self {
        let mut config = elkfk_coordinator::Config::embedded(dir.join("coordinator"));
        config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let coordinator = elkfk_coordinator::start(config).await.unwrap();
        let broker = start_broker(dir, coordinator.local_addr(), extra).await.unwrap();
        Self { coordinator, broker }
    }

    fn bootstrap(&self) -> String {
        self.broker.local_addr().to_string()
    }

    async fn stop(self) {
        self.broker.stop().await;
        self.coordinator.stop().await;
    }
}

async fn start_broker(
    dir: &Path,
    coordinator: SocketAddr,
    extra: &[(&str, &str)],
) -> Result<elkfk_broker::Running, elkfk_broker::StartError> {
    let (data, zookeeper) = (dir.join("broker").display().to_string(), coordinator.to_string());
    let pairs = [
        ("broker.id", "7"),
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("log.dirs", data.as_str()),
        ("zookeeper.connect", zookeeper.as_str()),
        ("group.initial.rebalance.delay.ms", "0"),
        ("offsets.topic.num.partitions", "4"),
    ];
    let pairs = pairs.into_iter().chain(extra.iter().copied());
    elkfk_broker::start(elkfk_broker::Config::from_pairs(pairs).unwrap()).await
}

fn client(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("log_level", "3");
    config
}

async fn create(bootstrap: &str, topic: &str, partitions: i32) {
    let admin: AdminClient<_> = client(bootstrap).create().unwrap();
    let topic = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for result in admin.create_topics([&topic], &AdminOptions::new()).await.unwrap() {
        result.unwrap();
    }
}

/// Everything in `topic`, as values; waits until `count` are there.
fn consume(bootstrap: &str, topic: &str, group: &str, count: usize) -> Vec<String> {
    let consumer: BaseConsumer = client(bootstrap)
        .set("group.id", group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let (mut values, deadline) = (Vec::new(), Instant::now() + LONG);
    while values.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} records came", values.len());
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                values.push(
                    String::from_utf8(message.payload().unwrap_or_default().to_vec()).unwrap(),
                );
            }
            Some(Err(KafkaError::MessageConsumption(
                RDKafkaErrorCode::UnknownTopicOrPartition,
            )))
            | None => {}
            Some(Err(error)) => panic!("{error}"),
        }
    }
    consumer.commit_consumer_state(rdkafka::consumer::CommitMode::Sync).unwrap();
    values
}

#[tokio::test(flavor = "multi_thread")]
async fn every_compression_comes_back_with_keys_and_headers() {
    let dir = TestDir::new();
    let pair = Pair::start(&dir.path(), &[]).await;
    let bootstrap = pair.bootstrap();
    create(&bootstrap, "all", 1).await;
    let mut wanted = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        for idempotent in ["false", "true"] {
            let producer: FutureProducer = client(&bootstrap)
                .set("compression.type", codec)
                .set("enable.idempotence", idempotent)
                .create()
                .unwrap();
            for number in 0..10 {
                let value = format!("{codec}-{idempotent}-{number} {}", "x".repeat(200));
                let headers = OwnedHeaders::new()
                    .insert(Header { key: "codec", value: Some(codec) })
                    .insert(Header { key: "null", value: None::<&str> });
                let record = FutureRecord::to("all").key(codec).payload(&value).headers(headers);
                let delivered =
                    producer.send(record, LONG).await.map_err(|(error, _)| error).unwrap();
                assert_eq!(delivered.offset, wanted.len() as i64);
                wanted.push((codec, value));
            }
        }
    }
    let pair = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = client(&bootstrap).set("group.id", "g").create().unwrap();
        let mut from = rdkafka::TopicPartitionList::new();
        from.add_partition_offset("all", 0, rdkafka::Offset::Beginning).unwrap();
        consumer.assign(&from).unwrap();
        for (offset, (codec, value)) in wanted.iter().enumerate() {
            let message = consumer.poll(LONG).unwrap().unwrap();
            assert_eq!((message.offset(), message.key()), (offset as i64, Some(codec.as_bytes())));
            assert_eq!(message.payload(), Some(value.as_bytes()));
            let headers = message.headers().unwrap();
            assert_eq!(headers.get(0).value, Some(codec.as_bytes()));
            assert_eq!(headers.get(1).value, None);
        }
        pair
    })
    .await
    .unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offsets_and_records_outlive_a_restart() {
    let dir = TestDir::new();
    let pair = Pair::start(&dir.path(), &[]).await;
    let bootstrap = pair.bootstrap();
    create(&bootstrap, "t", 3).await;
    let produce = |bootstrap: String, numbers: std::ops::Range<u32>| async move {
        let producer: FutureProducer = client(&bootstrap).create().unwrap();
        for number in numbers {
            let value = number.to_string();
            let record = FutureRecord::to("t").key(&value).payload(&value);
            producer.send(record, LONG).await.map_err(|(error, _)| error).unwrap();
        }
    };
    produce(bootstrap.clone(), 0..30).await;
    let first =
        tokio::task::spawn_blocking(move || consume(&bootstrap, "t", "g", 30)).await.unwrap();
    assert_eq!(first.len(), 30);
    let Pair { coordinator, broker } = pair;
    broker.stop().await;
    let broker = start_broker(&dir.path(), coordinator.local_addr(), &[]).await.unwrap();
    let bootstrap = broker.local_addr().to_string();
    produce(bootstrap.clone(), 30..40).await;
    let again =
        tokio::task::spawn_blocking(move || consume(&bootstrap, "t", "g", 10)).await.unwrap();
    let numbers: BTreeSet<u32> = again.iter().map(|value| value.parse().unwrap()).collect();
    assert_eq!(numbers, (30..40).collect(), "the group goes on where it was");
    Pair { coordinator, broker }.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_share_and_take_over_from_one_that_dies() {
    let dir = TestDir::new();
    let pair = Pair::start(&dir.path(), &[]).await;
    let bootstrap = pair.bootstrap();
    create(&bootstrap, "t", 3).await;
    let pair = tokio::task::spawn_blocking(move || {
        let member = || -> BaseConsumer {
            let consumer: BaseConsumer = client(&bootstrap)
                .set("group.id", "three")
                .set("session.timeout.ms", "6000")
                .set("heartbeat.interval.ms", "500")
                .set("partition.assignment.strategy", "cooperative-sticky")
                .create()
                .unwrap();
            consumer.subscribe(&["t"]).unwrap();
            consumer
        };
        let mut members = vec![member(), member(), member()];
        let shares = |members: &[BaseConsumer]| -> Vec<usize> {
            for member in members {
                let _ = member.poll(Duration::from_millis(50));
            }
            members.iter().map(|member| member.assignment().unwrap().count()).collect()
        };
        let await_shares = |members: &[BaseConsumer], wanted: &[usize]| {
            let deadline = Instant::now() + LONG;
            loop {
                let mut shares = shares(members);
                shares.sort_unstable();
                if shares == wanted {
                    break;
                }
                assert!(Instant::now() < deadline, "shares stay {shares:?}");
            }
        };
        await_shares(&members, &[1, 1, 1]);
        drop(members.pop());
        await_shares(&members, &[1, 2]);
        pair
    })
    .await
    .unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_does_no_harm() {
    let dir = TestDir::new();
    let pair = Pair::start(&dir.path(), &[]).await;
    let addr = pair.broker.local_addr();
    create(&addr.to_string(), "t", 1).await;
    let answer = tokio::task::spawn_blocking(move || {
        let talk = |bytes: &[u8]| {
            let mut stream = TcpStream::connect(addr).unwrap();
            stream.set_read_timeout(Some(LONG)).unwrap();
            // The broker may close before it has read all of it.
            let _ = stream.write_all(bytes);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            answer
        };
        for bytes in [
            &[0x7f, 0xff, 0xff, 0xff, 1, 2, 3][..],
            &[0xff; 64],
            &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3],
            // Announces 40 bytes of header that are none.
            &[[0, 0, 0, 40].as_slice(), &[0xaa; 40]].concat(),
            // Metadata version 1 with an array of two billion topics.
            &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(talk(bytes), b"", "{bytes:?}");
        }
        // Deterministic noise, in frames whose length is right.
        let mut state = 1u64;
        for _ in 0..300 {
            let mut noise = Vec::new();
            for _ in 0..(state % 90) + 8 {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                noise.push((state >> 56) as u8);
            }
            // A known API in a version it has, so that the bodies are reached.
            let key = [3u8, 1, 2, 8, 9, 10, 11, 12, 13, 14, 15, 18, 19, 20, 32, 44]
                [(state >> 33) as usize % 16];
            noise[..4].copy_from_slice(&[0, key, 0, 2 + ((state >> 40) % 3) as u8]);
            let mut frame = (noise.len() as u32).to_be_bytes().to_vec();
            frame.extend(noise);
            let mut stream = TcpStream::connect(addr).unwrap();
            let _ = stream.write_all(&frame);
        }
        talk(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    })
    .await
    .unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    let producer: FutureProducer = client(&addr.to_string()).create().unwrap();
    let record = FutureRecord::<str, str>::to("t").payload("still here");
    producer.send(record, LONG).await.map_err(|(error, _)| error).unwrap();
    pair.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_id_and_a_taken_port_are_named() {
    let dir = TestDir::new();
    let pair = Pair::start(&dir.path(), &[]).await;
    let other = dir.path().join("other");
    let coordinator = pair.coordinator.local_addr();
    let error = start_broker(&other, coordinator, &[]).await.expect_err("the id is taken");
    let text = error.to_string();
    assert!(text.starts_with("broker.id 7 is taken by a broker at 127.0.0.1:"), "{text}");
    let taken = format!("PLAINTEXT://{}", pair.broker.local_addr());
    let error = start_broker(&other, coordinator, &[("listeners", &taken)])
        .await
        .expect_err("so is the port");
    let expected = format!(
        "listen on {}: address in use; stop the program that holds it or give another with listeners=…",
        pair.broker.local_addr()
    );
    assert_eq!(error.to_string(), expected);
    pair.stop().await;
}

const CHILD_DIR: &str = "ELKFK_TEST_BROKER_DIR";
const CHILD_ZOOKEEPER: &str = "ELKFK_TEST_BROKER_ZOOKEEPER";
const CHILD_PORT: &str = "ELKFK_TEST_BROKER_PORT";

/// Not a test: the broker of `every_acknowledged_record_survives_kill_9`, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by another test"]
async fn child_broker() {
    let Ok(dir) = std::env::var(CHILD_DIR) else { return };
    let coordinator = std::env::var(CHILD_ZOOKEEPER).unwrap().parse().unwrap();
    let listeners = format!("PLAINTEXT://127.0.0.1:{}", std::env::var(CHILD_PORT).unwrap());
    let broker =
        start_broker(Path::new(&dir), coordinator, &[("listeners", &listeners)]).await.unwrap();
    println!("child broker serves");
    broker.failed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_record_survives_kill_9() {
    let dir = TestDir::new();
    let mut config = elkfk_coordinator::Config::embedded(dir.path().join("coordinator"));
    config.listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let coordinator = elkfk_coordinator::start(config).await.unwrap();
    let port = elkfk_tests::free_port();
    let bootstrap = format!("127.0.0.1:{port}");
    let spawn = |round: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child_broker", "--ignored", "--nocapture"]);
        command
            .env(CHILD_DIR, dir.path())
            .env(CHILD_ZOOKEEPER, coordinator.local_addr().to_string())
            .env(CHILD_PORT, port.to_string());
        let log = dir.path().join(format!("child-{round}.log"));
        let mut child = Process::start("child broker", &mut command, &log).unwrap();
        child.wait_until(LONG, |child| child.output().contains("child broker serves")).unwrap();
        child
    };
    let mut child = spawn(0);
    create(&bootstrap, "t", 3).await;
    let producer: FutureProducer = client(&bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("message.timeout.ms", "60000")
        .set("reconnect.backoff.max.ms", "300")
        .create()
        .unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (producer, acknowledged, stop) =
                (producer.clone(), acknowledged.clone(), stop.clone());
            tokio::spawn(async move {
                let mut values = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let value = format!("{writer}-{}", values.len());
                    let record = FutureRecord::to("t").key(&value).payload(&value);
                    producer.send(record, LONG).await.map_err(|(error, _)| error).unwrap();
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    values.push(value);
                }
                values
            })
        })
        .collect();
    for round in 1..=3 {
        // Some hundreds more before each kill, so that it falls into the middle of traffic.
        let wanted = acknowledged.load(Ordering::Relaxed) + 300;
        let deadline = Instant::now() + LONG;
        while acknowledged.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "nothing is acknowledged any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        drop(child);
        child = spawn(round);
    }
    stop.store(true, Ordering::Relaxed);
    let mut wanted = Vec::new();
    for writer in writers {
        wanted.extend(writer.await.unwrap());
    }
    let count = wanted.len();
    let mut found =
        tokio::task::spawn_blocking(move || consume(&bootstrap, "t", "g", count)).await.unwrap();
    wanted.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, wanted, "each record once");
    drop(child);
    coordinator.stop().await;
}
