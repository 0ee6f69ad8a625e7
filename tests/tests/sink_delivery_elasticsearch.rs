//! The sink between a real Kafka and a real Elasticsearch: every record is indexed once, whatever is
//! killed, overloaded or refused.

mod sink_delivery_support;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use elkfk_tests::peers::{self, Peer};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use sink_delivery_support::{Index, Kafka, SESSION_LONG, SESSION_SHORT, Sink, pipeline};

const PARTITIONS: i32 = 3;

/// One test at a time: each runs a ZooKeeper, a Kafka and an Elasticsearch, and two of each on two
/// processors make each other late.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

struct Scene<'a> {
    dir: &'a Path,
    kafka: &'a Kafka,
    index: &'a Index,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_record_is_indexed_once() {
    let test = "every_record_is_indexed_once";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper, Peer::Elasticsearch]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path());
    let elastic_dir = dir.path().join("elasticsearch");
    let mut elastic = peers::elasticsearch(&elastic_dir, &[]).unwrap();
    let index = Index::new(elastic.addr.to_string());
    let scene = Scene { dir: dir.path(), kafka: &kafka, index: &index };
    through_kills_of_the_sink(&scene).await;
    by_two_sinks_one_of_which_dies(&scene).await;
    but_for_those_that_never_can_be(&scene).await;
    though_one_index_refuses_writes(&scene).await;

    // Last, since the server does not come back as the same process.
    let name = "outage";
    let sink = before_elasticsearch_stops(&scene, name).await;
    let said_before = sink.process.output().len();
    let outage = Instant::now();
    // On a busy machine it takes longer, and is killed: an outage just as well.
    let _ = elastic.process.stop(Duration::from_secs(60));
    let sink = while_elasticsearch_is_away(&scene, name, sink);
    let port = elastic.addr.port();
    elastic = peers::elasticsearch_at(&elastic_dir, port, &[]).unwrap();
    // Longer than its session: had it stopped polling, the group would have thrown it out.
    std::thread::sleep((SESSION_LONG + Duration::from_secs(5)).saturating_sub(outage.elapsed()));
    after_elasticsearch_came_back(&scene, name, sink, said_before);
    drop(elastic);
}

/// kill -9 at random moments while records arrive; at the end each number is there once, and the
/// group has committed to the end.
async fn through_kills_of_the_sink(scene: &Scene<'_>) {
    let (topic, count) = ("kills", 60_000);
    let seed = std::env::var("ELKFK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7);
    println!("ELKFK_SEED={seed}");
    let mut chance = SmallRng::seed_from_u64(seed);
    scene.kafka.create_topic(topic, PARTITIONS).await;
    // Compressed, as to any node that is not on this machine.
    let pipeline =
        scene.pipeline_of(topic, "kills-%{+YYYY.MM.dd}", SESSION_SHORT, "http_compression => true");
    let part = count / 6;
    for round in 0..6 {
        let mut sink = Sink::start(&pipeline);
        scene.kafka.produce(topic, PARTITIONS, round * part, part, |_, _| {});
        std::thread::sleep(Duration::from_millis(chance.random_range(0..3000)));
        sink.process.kill();
    }
    let mut sink = Sink::start(&pipeline);
    scene.index.wait_for("kills-2026.03.01", count);
    assert_eq!(scene.index.numbers("kills-2026.03.01"), (0..count).collect::<Vec<_>>());
    sink.process.stop(Duration::from_secs(30)).unwrap();
    assert_eq!(
        scene.kafka.positions("kills-group", topic, PARTITIONS),
        (count as i64, count as i64)
    );
    // Installed by the sink: without it strings would be text with a keyword beneath.
    let mapping = scene.index.call("GET", "/kills-2026.03.01/_mapping", None).1;
    assert_eq!(mapping["kills-2026.03.01"]["mappings"]["properties"]["message"]["type"], "text");
    assert!(mapping.to_string().contains("strings"), "{mapping}");
}

/// The other takes over its partitions and nothing is missing.
async fn by_two_sinks_one_of_which_dies(scene: &Scene<'_>) {
    let (topic, count) = ("two", 40_000);
    scene.kafka.create_topic(topic, PARTITIONS).await;
    let first = scene.pipeline_of(topic, "two", SESSION_SHORT, "");
    let (bootstrap, addr) = (&scene.kafka.bootstrap, &scene.index.addr);
    let second = pipeline(scene.dir, "two-b", bootstrap, topic, addr, "two", SESSION_SHORT, "");
    let (mut first, mut second) = (Sink::start(&first), Sink::start(&second));
    let has_partitions = |sink: &mut Sink| {
        sink.process
            .wait_until(Duration::from_secs(60), |sink| {
                sink.output().contains("partitions assigned")
            })
            .unwrap();
    };
    has_partitions(&mut first);
    scene.kafka.produce(topic, PARTITIONS, 0, count / 2, |_, _| {});
    has_partitions(&mut second);
    scene.kafka.produce(topic, PARTITIONS, count / 2, count / 2, |_, _| {});
    first.process.kill();
    scene.index.wait_for("two", count);
    assert_eq!(scene.index.numbers("two"), (0..count).collect::<Vec<_>>());
    // Sent again, as by a shipper that lost its registry: their ids are known.
    scene.kafka.produce(topic, PARTITIONS, 0, 1000, |_, _| {});
    let end = count as i64 + 1000;
    second
        .process
        .wait_until(Duration::from_secs(60), |_| {
            scene.kafka.positions("two-group", topic, PARTITIONS) == (end, end)
        })
        .unwrap();
    assert_eq!(scene.index.count("two"), count);
    second.process.stop(Duration::from_secs(30)).unwrap();
}

/// Mapping conflicts are salvaged; an index that has no valid name and a document beyond repair go
/// to the dead-letter topic, and come back by a replay once the cause is gone.
async fn but_for_those_that_never_can_be(scene: &Scene<'_>) {
    let (topic, count) = ("bad", 900);
    scene.kafka.create_topic(topic, PARTITIONS).await;
    let mappings = json!({"mappings": {"properties": {"host": {"type": "object"}, "strict": {"type": "object", "dynamic": "strict"}}}});
    assert_eq!(scene.index.call("PUT", "/bad-x", Some(mappings)).0, 200);
    scene.kafka.produce(topic, PARTITIONS, 0, count, |n, event| {
        event["kind"] = "x".into();
        match n {
            100..110 => event["host"] = "a text where an object is mapped".into(),
            200..210 => event["kind"] = json!(null),
            300..310 => event["strict"] = json!({ "new": n }),
            _ => {}
        }
    });
    let pipeline = scene.pipeline(topic, "bad-%{[kind]}");
    let mut sink = Sink::start(&pipeline);
    scene.index.wait_for("bad-x", count - 20);
    let salvaged = json!({"size": 20, "query": {"bool": {"filter": [{"term": {"tags": "_mapping_conflict"}}]}}});
    let (_, answer) = scene.index.call("POST", "/bad-x/_search", Some(salvaged));
    assert_eq!(answer["hits"]["total"]["value"], 10, "{answer}");
    let source = &answer["hits"]["hits"][0]["_source"];
    assert_eq!(source["unmapped"]["host"], "a text where an object is mapped");
    sink.process
        .wait_until(Duration::from_secs(60), |_| {
            scene.kafka.positions("bad-group", topic, PARTITIONS) == (900, 900)
        })
        .unwrap();
    sink.process.stop(Duration::from_secs(30)).unwrap();

    let dead = scene.kafka.read_all("bad.dead");
    assert_eq!(dead.len(), 20);
    for (headers, value) in &dead {
        let event: serde_json::Value = serde_json::from_str(value).unwrap();
        let n = event["n"].as_i64().unwrap();
        assert_eq!(headers["elkfk.dead.topic"], topic);
        assert_eq!(headers["elkfk.dead.partition"], (n % 3).to_string());
        assert_eq!(headers["elkfk.dead.offset"], (n / 3).to_string());
        let (index, reason) = match n {
            200..210 => ("bad-%{[kind]}", "holds a field that the event does not have"),
            _ => ("bad-x", "strict_dynamic_mapping_exception"),
        };
        assert_eq!(headers["elkfk.dead.index"], index);
        assert!(headers["elkfk.dead.reason"].contains(reason), "{headers:?}");
        assert!(headers.contains_key("elkfk.source"));
    }

    // Repaired: new fields are allowed now. The others die a second time.
    let mappings = json!({"properties": {"strict": {"type": "object", "dynamic": true}}});
    assert_eq!(scene.index.call("PUT", "/bad-x/_mapping", Some(mappings)).0, 200);
    let config = elkfk_sink::ReplayConfig {
        bootstrap_servers: scene.kafka.bootstrap.clone(),
        topic: topic.into(),
        ..Default::default()
    };
    let report = elkfk_sink::replay(config.clone()).await.unwrap();
    assert_eq!(report.sent, [(topic.to_owned(), 20)].into());
    assert_eq!(elkfk_sink::replay(config).await.unwrap().sent, [].into(), "each is sent once");
    let mut sink = Sink::start(&pipeline);
    scene.index.wait_for("bad-x", count - 10);
    let expected: Vec<u64> = (0..count).filter(|n| !(200..210).contains(n)).collect();
    assert_eq!(scene.index.numbers("bad-x"), expected);
    sink.process
        .wait_until(Duration::from_secs(60), |_| {
            scene.kafka.positions("bad-group", topic, PARTITIONS) == (920, 920)
        })
        .unwrap();
    sink.process.stop(Duration::from_secs(30)).unwrap();
    assert_eq!(scene.kafka.read_all("bad.dead").len(), 30);
}

/// Its events wait, those of another index do not.
async fn though_one_index_refuses_writes(scene: &Scene<'_>) {
    let (topic, count) = ("lanes", 3000);
    scene.kafka.create_topic(topic, PARTITIONS).await;
    assert_eq!(scene.index.call("PUT", "/lanes-0", None).0, 200);
    let block = |is_blocked: bool| {
        let settings = json!({"index.blocks.write": is_blocked});
        assert_eq!(scene.index.call("PUT", "/lanes-0/_settings", Some(settings)).0, 200);
    };
    block(true);
    scene.kafka.produce(topic, PARTITIONS, 0, count, |n, event| event["kind"] = (n % 2).into());
    let mut sink = Sink::start(&scene.pipeline(topic, "lanes-%{[kind]}"));
    scene.index.wait_for("lanes-1", count / 2);
    assert_eq!(scene.index.count("lanes-0"), 0);
    // Its first answer may come after all of the other's.
    sink.process
        .wait_until(Duration::from_secs(60), |sink| sink.output().contains("index refuses writes"))
        .unwrap();
    block(false);
    scene.index.wait_for("lanes-*", count);
    assert_eq!(scene.index.numbers("lanes-*"), (0..count).collect::<Vec<_>>());
    sink.process.stop(Duration::from_secs(30)).unwrap();
    let end = count as i64;
    assert_eq!(scene.kafka.positions("lanes-group", topic, PARTITIONS), (end, end));
}

async fn before_elasticsearch_stops(scene: &Scene<'_>, name: &str) -> Sink {
    scene.kafka.create_topic(name, PARTITIONS).await;
    let sink = Sink::start(&scene.pipeline(name, name));
    scene.kafka.produce(name, PARTITIONS, 0, 10_000, |_, _| {});
    scene.index.wait_for(name, 10_000);
    sink
}

/// Records arrive, more than the sink holds in memory; it waits, a member of its group.
fn while_elasticsearch_is_away(scene: &Scene<'_>, name: &str, mut sink: Sink) -> Sink {
    let padding = "x".repeat(1000);
    scene.kafka.produce(name, PARTITIONS, 10_000, 90_000, |_, event| {
        event["padding"] = padding.clone().into();
    });
    sink.process
        .wait_until(Duration::from_secs(60), |sink| sink.output().contains("is_paused=true"))
        .unwrap();
    sink
}

fn after_elasticsearch_came_back(
    scene: &Scene<'_>,
    name: &str,
    mut sink: Sink,
    said_before: usize,
) {
    scene.index.wait_for(name, 100_000);
    assert_eq!(scene.index.numbers(name), (0..100_000).collect::<Vec<_>>());
    assert!(sink.process.resident_bytes() < 400 << 20, "{} bytes", sink.process.resident_bytes());
    let log = sink.process.output();
    let log = &log[said_before..];
    // Once, and not with every try, nor ever after it came back.
    let away: Vec<_> = log.match_indices("elasticsearch is away").collect();
    let back = log.find("elasticsearch is back").expect("its return is told");
    assert_eq!(away.iter().filter(|(at, _)| *at < back).count(), 1, "{log}");
    assert!(!log.contains("partitions assigned"), "no rebalance: {log}");
    sink.process.stop(Duration::from_secs(30)).unwrap();
    assert_eq!(scene.kafka.positions("outage-group", name, PARTITIONS), (100_000, 100_000));
}

impl Scene<'_> {
    fn pipeline(&self, topic: &str, index: &str) -> std::path::PathBuf {
        self.pipeline_of(topic, index, SESSION_LONG, "")
    }

    fn pipeline_of(
        &self,
        topic: &str,
        index: &str,
        session: Duration,
        more: &str,
    ) -> std::path::PathBuf {
        let (bootstrap, addr) = (&self.kafka.bootstrap, &self.index.addr);
        pipeline(self.dir, topic, bootstrap, topic, addr, index, session, more)
    }
}

/// One write thread, a queue of one and 2 MB for requests: most of what is sent is refused at first.
#[tokio::test(flavor = "multi_thread")]
async fn overloaded_elasticsearch_gets_every_record_once() {
    let test = "overloaded_elasticsearch_gets_every_record_once";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper, Peer::Elasticsearch]) {
        return;
    }
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let kafka = Kafka::start(dir.path());
    let settings = [
        "thread_pool.write.size=1",
        "thread_pool.write.queue_size=1",
        "indexing_pressure.memory.limit=2mb",
        "http.max_content_length=1mb",
    ];
    let elastic = peers::elasticsearch(&dir.path().join("elasticsearch"), &settings).unwrap();
    let index = Index::new(elastic.addr.to_string());
    let scene = Scene { dir: dir.path(), kafka: &kafka, index: &index };
    let (topic, count) = ("pressed", 60_000);
    kafka.create_topic(topic, PARTITIONS).await;
    let padding = "x".repeat(300);
    // Eight indices, so that lanes compete for the one thread.
    kafka.produce(topic, PARTITIONS, 0, count, |n, event| {
        event["padding"] = padding.clone().into();
        event["kind"] = (n % 8).into();
    });
    // Others press too until the sink has felt it: alone it may find its measure without a refusal.
    let is_pressed = AtomicBool::new(false);
    let mut sink = std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_pressed.load(Relaxed) {
                    index.press("noise");
                }
            });
        }
        let mut sink = Sink::start(&scene.pipeline(topic, "pressed-%{[kind]}"));
        let felt = sink.process.wait_until(Duration::from_secs(120), |sink| {
            sink.output().contains("elasticsearch is overloaded")
        });
        is_pressed.store(true, Relaxed);
        felt.unwrap();
        sink
    });
    index.wait_for("pressed-*", count);
    assert_eq!(index.numbers("pressed-*"), (0..count).collect::<Vec<_>>());
    sink.process.stop(Duration::from_secs(30)).unwrap();
    assert_eq!(kafka.positions("pressed-group", topic, PARTITIONS), (count as i64, count as i64));
}
