//! The autoscaler on real boxes: what it says and does about a backlog, on our broker and on a real Kafka,
//! with short times, and each record indexed once through it all.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_autoscaler::ladder::{Action, Alarm, Decision, Rule, Verdict};
use elkfk_autoscaler::shell::{DECISIONS_TOPIC, Decisions};
use elkfk_autoscaler::{Event, Mode, Parameters, Settings};
use elkfk_broker_client::{Client, NewTopic};
use elkfk_tests::boxes::Boxes;
use elkfk_tests::line::TestDir;
use elkfk_tests::peers::{self, Peer};
use elkfk_tests::process::{Process, elkfk};
use elkfk_wire::source_id::{Generation, HEADER, SourceId};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use the rest")]
mod sink_delivery_support;

use sink_delivery_support::Index;

const TOPIC: &str = "orders";
const GROUP: &str = "scaled";
const INDEX: &str = "orders";
const PARTITIONS: i32 = 2;
/// Records a second that are written, and the bytes of each.
const RATE: u64 = 450;
const RECORD_BYTES: usize = 300;
/// What a partition gives in half a second: some 140 records a second, so that two of them do not keep up
/// and four do.
const SLOW_FETCH_BYTES: usize = 30_000;
const PATIENCE: Duration = Duration::from_secs(90);

/// The ladder's times by a fifteenth or less.
fn quick(mode: Mode) -> Parameters {
    Parameters {
        mode,
        interval_s: 1.0,
        window_s: 4.0,
        hot_s: 1.0,
        hold_s: 1.0,
        probe_s: 8.0,
        consumer_cooldown_s: 8.0,
        partitions_after_consumers_s: 4.0,
        partition_cooldown_s: 8.0,
        no_gain_pause_s: 0.0,
        drain_target_s: 1.0,
        calm_s: 300.0,
        partitions_max: 4,
        consumers_max: 8,
        ..Parameters::default()
    }
}

/// A broker of ours on a coordinator of ours.
struct Ours {
    boxes: Boxes,
    dir: TestDir,
}

impl Ours {
    async fn start() -> Self {
        let dir = TestDir::new();
        let boxes = Boxes::start(&dir.path(), &[]).await;
        Self { boxes, dir }
    }

    fn bootstrap(&self) -> String {
        self.boxes.bootstrap()
    }

    fn zookeeper(&self) -> String {
        self.boxes.zookeeper()
    }

    async fn stop(self) {
        self.boxes.stop().await;
    }
}

/// A topic that is written and read, by a sink of ours into a store of ours.
struct Line {
    bootstrap: String,
    zookeeper: String,
    client: Client,
    store: Option<elkfk_store::Running>,
    sink: elkfk_sink::Running,
    index: Index,
    source: Source,
}

impl Line {
    async fn start(dir: &Path, bootstrap: String, zookeeper: String, fetch_bytes: usize) -> Self {
        let client = Client::new(elkfk_broker_client::Config::to(&bootstrap));
        create(&client, PARTITIONS).await;
        let store = elkfk_store::start(elkfk_store::Config {
            listen: ([127, 0, 0, 1], 0).into(),
            data_dir: dir.join("store"),
            ..Default::default()
        });
        let store = store.await.unwrap();
        let elasticsearch = store.local_addr().to_string();
        let pipeline = dir.join("pipeline.conf");
        // A broker that waits in vain for so many bytes answers twice a second with what there may be.
        let text = format!(
            r#"input {{ kafka {{
                 bootstrap_servers => "{bootstrap}" topics => ["{TOPIC}"] group_id => "{GROUP}" codec => json
                 max_partition_fetch_bytes => {fetch_bytes} fetch_min_bytes => 50000000
                 fetch_max_wait_ms => 500 metadata_max_age_ms => 1000 heartbeat_interval_ms => 500 }} }}
               output {{ elasticsearch {{ hosts => ["{elasticsearch}"] index => "{INDEX}" }} }}"#
        );
        std::fs::write(&pipeline, text).unwrap();
        let sink = elkfk_sink::start(elkfk_sink::Config {
            files: vec![pipeline],
            workers: 1,
            workers_max: 1,
            consumers_max: 8,
            api: Some(([127, 0, 0, 1], 0).into()),
            ..Default::default()
        });
        let sink = sink.await.unwrap();
        let source = Source::start(&bootstrap);
        let index = Index::new(elasticsearch);
        Self { bootstrap, zookeeper, client, store: Some(store), sink, index, source }
    }

    fn config(&self, parameters: Parameters) -> elkfk_autoscaler::Config {
        elkfk_autoscaler::Config {
            bootstrap_servers: self.bootstrap.clone(),
            zookeeper: Some(self.zookeeper.clone()),
            sinks: vec![format!("http://{}", self.sink.api_addr().unwrap())],
            settings: Settings::all(parameters),
            ..Default::default()
        }
    }

    async fn partitions(&self) -> usize {
        let cluster = self.client.metadata(Some(&[TOPIC])).await.unwrap();
        cluster.topic(TOPIC).unwrap().partitions.len()
    }

    async fn members(&self) -> usize {
        self.client.describe_group(GROUP).await.unwrap().members.len()
    }

    async fn stop(self) -> u64 {
        let count = self.source.stop();
        self.sink.stop().await;
        if let Some(store) = self.store {
            store.stop().await;
        }
        count
    }
}

async fn create(client: &Client, partitions: i32) {
    let topic = NewTopic {
        name: TOPIC.into(),
        partitions: Some(partitions),
        replication_factor: Some(1),
        ..NewTopic::default()
    };
    assert_eq!(client.create_topic(&topic, false).await.unwrap(), Ok(()));
}

/// Writes numbered events in turn to every partition there is, as elkfk's shipper does: with source ids.
struct Source {
    thread: JoinHandle<u64>,
    stop: Arc<AtomicBool>,
    rate: Arc<AtomicU64>,
}

impl Source {
    fn start(bootstrap: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let rate = Arc::new(AtomicU64::new(RATE));
        let (stopped, at_rate, bootstrap) = (stop.clone(), rate.clone(), bootstrap.to_owned());
        let thread = std::thread::spawn(move || write(&bootstrap, &stopped, &at_rate));
        Self { thread, stop, rate }
    }

    fn pause(&self) {
        self.rate.store(0, Relaxed);
    }

    /// How many there are.
    fn stop(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn write(bootstrap: &str, stop: &AtomicBool, rate: &AtomicU64) -> u64 {
    let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "20")
        .set("topic.metadata.refresh.interval.ms", "500")
        .create()
        .unwrap();
    let generation = Generation::new(1_772_323_200_000, 0);
    let partitions = || {
        let metadata = producer.client().fetch_metadata(Some(TOPIC), Duration::from_secs(10));
        metadata.map_or(0, |metadata| metadata.topics()[0].partitions().len() as u64)
    };
    let (mut n, mut count, mut looked) = (0, partitions().max(1), Instant::now());
    let (mut due, mut woken) = (0.0_f64, Instant::now());
    while !stop.load(Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
        if looked.elapsed() > Duration::from_secs(1) {
            (count, looked) = (partitions().max(count), Instant::now());
        }
        // A busy machine wakes this thread late: what it missed comes then, up to a second's worth.
        let per_s = rate.load(Relaxed);
        let waited = std::mem::replace(&mut woken, Instant::now()).elapsed();
        due = (due + waited.as_secs_f64() * per_s as f64).min(per_s as f64);
        while due >= 1.0 {
            due -= 1.0;
            let message = format!("{:.<RECORD_BYTES$}", format!("event {n} "));
            let event = json!({
                "@timestamp": "2026-03-01T12:00:00.000Z", "@metadata": {"beat": "filebeat"},
                "message": message, "n": n,
            });
            let value = event.to_string();
            let id = SourceId { generation, position: n }.to_bytes();
            let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&id[..]) });
            let record: BaseRecord<'_, [u8], str> = BaseRecord::to(TOPIC)
                .partition((n % count) as i32)
                .headers(headers)
                .payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            n += 1;
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    n
}

/// Every event of the topic, once there is one.
async fn events(bootstrap: &str) -> Vec<Event> {
    let client = Client::new(elkfk_broker_client::Config::to(bootstrap));
    let decisions = Decisions::new(client, DECISIONS_TOPIC);
    if !decisions.exists().await.unwrap() {
        return vec![];
    }
    let (mut all, mut offset) = (Vec::new(), decisions.offset_since(0).await.unwrap());
    loop {
        let page = decisions.read(offset, Duration::ZERO).await.unwrap();
        assert_eq!(page.foreign, 0);
        let is_last = page.is_last();
        offset = page.next_offset;
        all.extend(page.events);
        if is_last {
            return all;
        }
    }
}

fn decisions(events: &[Event]) -> Vec<&Decision> {
    let mut decisions = Vec::new();
    for event in events {
        if let Event::Decision(decision) = event {
            decisions.push(&**decision);
        }
    }
    decisions
}

/// Waits until the events are as `is_wanted`.
async fn wait(bootstrap: &str, what: &str, is_wanted: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let begun = Instant::now();
    loop {
        let events = events(bootstrap).await;
        if is_wanted(&events) {
            return events;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}: {}", told(&events));
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

fn told(events: &[Event]) -> String {
    let line = |event: &Event| match event {
        Event::Decision(decision) => {
            format!("\n{} {:?} {}", decision.at_ms, decision.rule, decision.why)
        }
        Event::Effect(effect) => format!("\n{} {:?} {}", effect.at_ms, effect.verdict, effect.why),
    };
    events.iter().map(line).collect()
}

fn actions(events: &[Event]) -> Vec<(i64, Action)> {
    events.iter().filter_map(|event| Some((event.at_ms(), event.action()?))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn advice_is_written_and_nothing_changes() {
    let ours = Ours::start().await;
    let dir = ours.dir.path();
    let line = Line::start(&dir, ours.bootstrap(), ours.zookeeper(), SLOW_FETCH_BYTES).await;
    let record = dir.join("looked.jsonl");
    let mut config = line.config(quick(Mode::Advise));
    config.record = Some(record.clone());
    let running = elkfk_autoscaler::start(config).await.unwrap();
    let is_advised =
        |events: &[Event]| decisions(events).iter().any(|decision| decision.advised.is_some());
    let events = wait(&line.bootstrap, "advice", is_advised).await;
    assert!(actions(&events).is_empty(), "{}", told(&events));
    let decisions = decisions(&events);
    let advised = decisions.iter().find_map(|decision| decision.advised);
    assert_eq!(advised, Some(Action::Consumers { from: 1, to: 2 }), "{}", told(&events));
    assert_eq!((line.partitions().await, line.members().await), (2, 1));
    running.stop().await;
    let recorded = std::fs::read_to_string(&record).unwrap();
    let traces = elkfk_autoscaler::simulate::recorded("looked", &recorded).unwrap();
    assert_eq!((traces.len(), traces[0].partitions, traces[0].consumers), (1, 2, 1));
    line.stop().await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_then_partitions_on_our_broker() {
    let ours = Ours::start().await;
    let dir = ours.dir.path();
    let line = Line::start(&dir, ours.bootstrap(), ours.zookeeper(), SLOW_FETCH_BYTES).await;
    scale(line).await;
    ours.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn consumers_then_partitions_on_a_real_kafka() {
    let test = "consumers_then_partitions_on_a_real_kafka";
    if !peers::have(test, &[Peer::Kafka, Peer::ZooKeeper]) {
        return;
    }
    let dir = TestDir::new();
    let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), "").unwrap();
    let at = zookeeper.addr.to_string();
    let overrides = ["offsets.topic.num.partitions=1", "group.initial.rebalance.delay.ms=0"];
    let kafka = peers::kafka(&dir.path().join("kafka"), &at, &overrides).unwrap();
    let line = Line::start(&dir.path(), kafka.addr.to_string(), at, SLOW_FETCH_BYTES).await;
    scale(line).await;
}

/// A backlog grows; consumers rise, then partitions; the new ones are read from their beginning.
async fn scale(line: Line) {
    let begun = Instant::now();
    let parameters = quick(Mode::Auto);
    let running = elkfk_autoscaler::start(line.config(parameters.clone())).await.unwrap();
    let has_grown = |events: &[Event]| {
        actions(events).iter().any(|(_, action)| matches!(action, Action::Partitions { .. }))
    };
    wait(&line.bootstrap, "an expansion", has_grown).await;
    println!("expanded after {:?}", begun.elapsed());
    let all = Instant::now();
    while (line.partitions().await, line.members().await) != (4, 4) {
        assert!(all.elapsed() < PATIENCE, "{}", told(&events(&line.bootstrap).await));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let is_judged = |events: &[Event]| {
        let expansion =
            actions(events).into_iter().find(|(_, a)| matches!(a, Action::Partitions { .. }));
        events.iter().any(|event| match (event, expansion) {
            (Event::Effect(effect), Some((at_ms, _))) => effect.of_ms == at_ms,
            _ => false,
        })
    };
    let events = wait(&line.bootstrap, "the effect of the expansion", is_judged).await;
    line.source.pause();
    running.stop().await;
    println!("judged after {:?}: {}", begun.elapsed(), told(&events));

    let acted = actions(&events);
    assert_eq!(acted[0].1, Action::Consumers { from: 1, to: 2 }, "{}", told(&events));
    let expected = Action::Partitions { from: 2, to: 4, consumers_from: 2, consumers_to: 4 };
    assert_eq!(acted[1].1, expected, "{}", told(&events));
    assert_eq!(acted.len(), 2, "{}", told(&events));
    let between_s = (acted[1].0 - acted[0].0) as f64 / 1000.0;
    assert!(between_s >= parameters.partitions_after_consumers_s, "{between_s} s");
    // Each step has one effect, written after it.
    for (at_ms, _) in &acted {
        let effects = events.iter().filter(|event| match event {
            Event::Effect(effect) => effect.of_ms == *at_ms && effect.at_ms > *at_ms,
            Event::Decision(_) => false,
        });
        assert_eq!(effects.count(), 1, "{}", told(&events));
    }

    let verdict = events.iter().find_map(|event| match event {
        Event::Effect(effect) if effect.of_ms == acted[1].0 => Some(effect.verdict),
        _ => None,
    });
    // What it gained depends on the machine; that it was done does not.
    let is_done = verdict.is_some_and(|verdict| {
        !matches!(verdict, Verdict::NotCarriedOut | Verdict::Unseen | Verdict::Overtaken)
    });
    assert!(is_done, "{verdict:?}: {}", told(&events));

    let (source, index) = (line.source, line.index);
    let count = source.stop();
    println!("{count} records");
    index.wait_for(INDEX, count);
    assert_eq!(index.numbers(INDEX), (0..count).collect::<Vec<_>>());
    println!("all there after {:?}", begun.elapsed());
    line.sink.stop().await;
    if let Some(store) = line.store {
        store.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_added_while_elasticsearch_is_away() {
    let ours = Ours::start().await;
    let dir = ours.dir.path();
    let mut line = Line::start(&dir, ours.bootstrap(), ours.zookeeper(), 1 << 20).await;
    let begun = Instant::now();
    while line.index.count(INDEX) < 500 {
        assert!(begun.elapsed() < PATIENCE, "nothing is indexed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let parameters = Parameters { drain_target_s: 900.0, ..quick(Mode::Auto) };
    line.store.take().unwrap().stop().await;
    let running = elkfk_autoscaler::start(line.config(parameters)).await.unwrap();
    let is_blocked = |events: &[Event]| {
        let last = decisions(events).last().copied();
        last.is_some_and(|last| {
            last.rule == Rule::SinkBlocked && last.alarms.contains(&Alarm::Sink)
        })
    };
    wait(&line.bootstrap, "sink-blocked", is_blocked).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let events = events(&line.bootstrap).await;
    assert!(actions(&events).is_empty(), "{}", told(&events));
    assert!(is_blocked(&events), "{}", told(&events));
    assert_eq!((line.partitions().await, line.members().await), (2, 1));
    running.stop().await;
    line.stop().await;
    ours.stop().await;
}

/// Reads fifty records a second, as a program that is not elkfk's.
fn read_slowly(bootstrap: String, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &bootstrap)
            .set("group.id", GROUP)
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[TOPIC]).unwrap();
        let mut read = 0;
        while !stop.load(Relaxed) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                read += 1;
                std::thread::sleep(Duration::from_millis(20));
                if read % 10 == 0 {
                    consumer.commit_message(&message, CommitMode::Async).unwrap();
                }
            }
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_next_instance_goes_on_with_the_memory_of_the_last() {
    let ours = Ours::start().await;
    let dir = ours.dir.path();
    let (bootstrap, zookeeper) = (ours.bootstrap(), ours.zookeeper());
    let client = Client::new(elkfk_broker_client::Config::to(&bootstrap));
    create(&client, 1).await;
    let source = Source::start(&bootstrap);
    let stop = Arc::new(AtomicBool::new(false));
    let reader = read_slowly(bootstrap.clone(), stop.clone());

    // Nobody knows a sink to ask for consumers, so that an expansion is carried out by half and the cooldown
    // is all that keeps a next step away.
    let parameters =
        Parameters { consumer_cooldown_s: 600.0, partition_cooldown_s: 600.0, ..quick(Mode::Auto) };
    let file = dir.join("parameters.json");
    std::fs::write(&file, serde_json::to_string(&parameters).unwrap()).unwrap();
    let mut command = Command::new(elkfk());
    command.args(["autoscale", "run", "--bootstrap-server", &bootstrap, "--zookeeper", &zookeeper]);
    command.args(["--group", GROUP, "--topic", TOPIC, "--parameters"]).arg(&file);
    let log = dir.join("autoscaler.log");
    let mut first = Process::start("elkfk autoscale run", &mut command, &log).unwrap();
    let limit = Duration::from_secs(20);
    first.wait_until(limit, |process| process.output().contains("this instance decides")).unwrap();

    let config = |instance: &str| elkfk_autoscaler::Config {
        bootstrap_servers: bootstrap.clone(),
        zookeeper: Some(zookeeper.clone()),
        settings: Settings::all(parameters.clone()),
        groups: vec![GROUP.to_owned()],
        topics: vec![TOPIC.to_owned()],
        instance: instance.to_owned(),
        ..Default::default()
    };
    let second = elkfk_autoscaler::start(config("second")).await.unwrap();
    let has_acted = |events: &[Event]| !actions(events).is_empty();
    let before = wait(&bootstrap, "a step of the first", has_acted).await;
    let is_failed = |events: &[Event]| {
        events.iter().any(|event| {
            matches!(event, Event::Effect(effect) if effect.verdict == Verdict::NotCarriedOut)
        })
    };
    wait(&bootstrap, "what became of the step", is_failed).await;
    assert!(!second.is_deciding(), "one decides");
    first.kill();
    let killed = Instant::now();
    while !second.is_deciding() {
        assert!(killed.elapsed() < Duration::from_secs(40), "nobody took over");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the second decides {:?} after the first was killed", killed.elapsed());

    let (acted_ms, action) = actions(&before)[0];
    let expected = Action::Partitions { from: 1, to: 2, consumers_from: 1, consumers_to: 2 };
    assert_eq!(action, expected);
    let count = before.len();
    let is_cooling = |events: &[Event]| {
        decisions(events).iter().any(|decision| decision.rule == Rule::ConsumerCooldown)
            && events.len() > count
    };
    let events = wait(&bootstrap, "a decision of the second", is_cooling).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(actions(&events).len(), 1, "{}", told(&events));
    let last = decisions(&events).last().copied().unwrap();
    let since_s = last.inputs.since_partitions_s.expect("it knows of the expansion");
    assert_eq!((since_s * 1000.0).round() as i64, last.at_ms - acted_ms);

    check_commands(&bootstrap);

    // Stopped in order, it leaves at once.
    let third = elkfk_autoscaler::start(config("third")).await.unwrap();
    let left = Instant::now();
    second.stop().await;
    while !third.is_deciding() {
        assert!(left.elapsed() < Duration::from_secs(5), "the lock was not let go");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    third.stop().await;
    stop.store(true, Relaxed);
    reader.join().unwrap();
    source.stop();
    ours.stop().await;
}

/// What people are told of all this.
fn check_commands(bootstrap: &str) {
    let run = |args: &[&str]| {
        let mut command = Command::new(elkfk());
        command.arg("autoscale").args(args).args(["--bootstrap-server", bootstrap]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let status = run(&["status"]);
    let step = "1 partitions become 2 and 1 consumers 2";
    for part in [&format!("{TOPIC} in {GROUP}   mode auto"), step, "not-carried-out"] {
        assert!(status.contains(part), "{part} in {status}");
    }
    let explained = run(&["explain", TOPIC]);
    for part in ["✓ hot ", "✓ somebody reads", "→ consumers"] {
        assert!(explained.contains(part), "{part} in {explained}");
    }
    let log = run(&["log", "--acted", "--topic", TOPIC, "-n", "5"]);
    assert!(log.contains(step) && log.contains("effect: not-carried-out"), "{log}");
    let json = run(&["log", "--json"]);
    let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(events.iter().any(|event| event["action"]["do"] == "partitions"), "{json}");
    println!("{status}\n{explained}\n{log}");
}
