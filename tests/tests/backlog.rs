//! A backlog on real boxes, for five reasons: what the ladder did about it, what it left, and each line of
//! the files indexed once through it all. On our broker and on a real Kafka.
//!
//! Real are the files, the shipper, the topic, the sink, the store, the page; short are the ladder's times.
//! What a consumer can read is limited where it is in earnest, on its connection to the broker, so that more
//! consumers read more.
//!
//! `ELKFK_BACKLOG=all`, as `tests/soak` has it, also runs what takes minutes: scale-in after a minute of calm, and on
//! a real Kafka all five. Without it those two run there that ask most of a broker, and the whole takes less than three
//! minutes on two cores. `ELKFK_SCREENSHOTS=DIR` takes a picture of the lag page and of
//! the overview of each (with Chromium and playwright-core, as the tests of the page have them).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_autoscaler::ladder::{Action, Alarm, Rule, Verdict};
use elkfk_autoscaler::{Mode, Parameters};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

mod backlog_support;
#[expect(dead_code, reason = "other tests use the rest")]
mod sink_delivery_support;

use backlog_support::broker::Broker;
use backlog_support::files::Shape;
use backlog_support::scene::{Scene, Setting};
use backlog_support::told::{actions, decisions, has_said, in_words, is_calm, verdicts};

/// Lines a second that are written.
const RATE: u64 = 200;
/// Bytes a second that a consumer's narrow line carries: some 75 records.
const NARROW: u64 = 75_000;

/// The ladder's times by a tenth or less.
fn quick() -> Parameters {
    Parameters {
        mode: Mode::Auto,
        interval_s: 1.0,
        window_s: 6.0,
        hot_s: 2.0,
        hold_s: 2.0,
        probe_s: 7.0,
        consumer_cooldown_s: 10.0,
        partitions_after_consumers_s: 10.0,
        // Longer than the shipper takes to see new partitions, so that they are judged when they are in use.
        partition_cooldown_s: 60.0,
        no_gain_pause_s: 8.0,
        drain_target_s: 30.0,
        calm_s: 300.0,
        partitions_max: 4,
        consumers_max: 8,
        ..Parameters::default()
    }
}

fn setting(name: &'static str) -> Setting {
    Setting {
        name,
        partitions: 2,
        shape: Shape::Even,
        lines_per_s: RATE,
        parameters: quick(),
        watched_group: None,
    }
}

/// More arrives than two consumers of two partitions can read, and less than four of four.
async fn overload(broker: Broker) {
    let scene = Scene::start(setting("overload"), broker).await;
    scene.width.narrow_to(NARROW);
    let has_expanded = |events: &[_]| {
        actions(events).iter().any(|action| matches!(action, Action::Partitions { .. }))
            && is_calm(events)
    };
    scene.told.until("an expansion, and calm after it", has_expanded).await;
    scene.picture_overview();
    assert_eq!((scene.partitions().await, scene.members().await), (4, 4));
    scene.picture_lag();
    let events = scene.finish().await;
    let expected = [
        Action::Consumers { from: 1, to: 2 },
        Action::Partitions { from: 2, to: 4, consumers_from: 2, consumers_to: 4 },
    ];
    assert_eq!(actions(&events), expected, "{}", in_words(&events));
    // Each was judged. What a machine under other load reads in a moment may be too little for a gain.
    let is_judged =
        |verdict: &Verdict| matches!(verdict, Verdict::Gained | Verdict::Drained | Verdict::NoGain);
    let verdicts = verdicts(&events);
    assert!(verdicts.len() == 2 && verdicts.iter().all(is_judged), "{}", in_words(&events));
}

/// The sink's line becomes narrow under a load that it held before, and wide again.
async fn sink_slowed(broker: Broker, has_time: bool) {
    let mut parameters = Parameters { hot_s: 10.0, ..quick() };
    if has_time {
        // The least there may be: the busiest minute of it is what must fit.
        parameters.calm_s = 60.0;
    }
    let scene =
        Scene::start(Setting { partitions: 4, parameters, ..setting("slowed") }, broker).await;
    scene.indexed(3 * RATE).await;
    assert_eq!(actions(&scene.told.events().await), [], "before it was slowed");
    scene.width.narrow_to(NARROW);
    let up = [Action::Consumers { from: 1, to: 2 }, Action::Consumers { from: 2, to: 4 }];
    let is_judged = |events: &[_]| actions(events) == up && verdicts(events).len() == up.len();
    scene.told.until("two steps of consumers, and their effects", is_judged).await;
    scene.picture_overview();
    scene.width.widen();
    scene.told.until("calm", is_calm).await;
    assert_eq!((scene.partitions().await, scene.members().await), (4, 4), "right after it");
    let mut expected = up.to_vec();
    if has_time {
        // With little to do, two consumers would do even on the narrow line.
        scene.files.set_rate(RATE / 4);
        expected.push(Action::Consumers { from: 4, to: 2 });
        scene.told.until("scale-in after calm", |events| actions(events) == expected).await;
        let begun = Instant::now();
        while scene.members().await != 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "the consumers do not go");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    scene.picture_lag();
    let events = scene.finish().await;
    assert_eq!(actions(&events), expected, "{}", in_words(&events));
}

/// The index stops and comes back; lines go on arriving.
async fn elasticsearch_stopped(broker: Broker) {
    // A busy machine is behind by a second or two without a reason.
    let parameters = Parameters { hot_s: 5.0, ..quick() };
    let stopped = Setting { parameters, ..setting("stopped") };
    let mut scene = Scene::start(stopped, broker).await;
    scene.indexed(3 * RATE).await;
    scene.stop_store().await;
    let is_blocked = |events: &[_]| has_said(events, Rule::SinkBlocked);
    scene.told.until("sink-blocked", is_blocked).await;
    // Long enough for every cooldown and hold to have passed.
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.picture_overview();
    let events = scene.told.events().await;
    let last = decisions(&events).last().unwrap();
    assert_eq!((last.rule, &last.alarms[..]), (Rule::SinkBlocked, &[Alarm::Sink][..]));
    scene.start_store().await;
    let events = scene.told.until("calm once the index is back", is_calm).await;
    assert_eq!(actions(&events), [], "{}", in_words(&events));
    assert_eq!((scene.partitions().await, scene.members().await), (2, 1));
    scene.picture_lag();
    scene.finish().await;
}

/// Where the other program stops in partition 0.
const POISON: i64 = 200;

/// A group that is not elkfk's reads the topic too, and cannot get past one record.
async fn poisoned_partition(broker: Broker) {
    let group = "poisoned-audit";
    let watched =
        Setting { partitions: 3, watched_group: Some(group.to_owned()), ..setting("poisoned") };
    let scene = Scene::start(watched, broker).await;
    let audit = Audit::start(&scene.broker.at().bootstrap(), "poisoned", group);
    scene.told.until("stalled", |events| has_said(events, Rule::Stalled)).await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.picture_overview();
    let events = scene.told.events().await;
    let last = decisions(&events).last().unwrap();
    let stalled = Alarm::Stalled { partitions: vec![0], count: 1 };
    assert_eq!((last.rule, &last.alarms[..]), (Rule::Stalled, &[stalled][..]));
    // It is left out of what is counted, and what else there is flows.
    assert_eq!(last.inputs.stalled, 1);
    assert!(last.inputs.counted_lag_records < last.inputs.lag_records, "{:?}", last.inputs);
    audit.fix();
    let events = scene.told.until("calm once the record is passed", is_calm).await;
    assert_eq!(actions(&events), [], "{}", in_words(&events));
    assert_eq!(scene.partitions().await, 3);
    scene.picture_lag();
    scene.files.set_rate(0);
    let written = audit.finish();
    scene.finish().await;
    assert!(written.values().all(|times| *times == 1), "read twice: {written:?}");
    assert_eq!(
        written.keys().copied().collect::<Vec<_>>(),
        (0..written.len() as u64).collect::<Vec<_>>()
    );
}

/// One file carries nine of ten lines, and a file keeps its partition.
async fn hot_file(broker: Broker) {
    let hot = Setting { shape: Shape::OneHot, ..setting("hotfile") };
    let scene = Scene::start(hot, broker).await;
    scene.width.narrow_to(NARROW);
    // The second consumer is taken for useless, for it is; after the pause it is said why.
    let is_refused = |events: &[_]| {
        let last = decisions(events).last();
        last.is_some_and(|last| last.rule == Rule::RefusedHotFile) && !verdicts(events).is_empty()
    };
    scene.told.until("refused-hot-file", is_refused).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    scene.picture_overview();
    let events = scene.told.events().await;
    let last = decisions(&events).last().unwrap();
    assert_eq!(last.rule, Rule::RefusedHotFile, "{}", in_words(&events));
    assert!(
        matches!(&last.alarms[..], [Alarm::HotFile { path }] if path.ends_with("/0-0.log")),
        "{:?}",
        last.alarms
    );
    assert!(last.why.contains("/0-0.log, and a file keeps its partition"), "{}", last.why);
    scene.width.widen();
    scene.told.until("calm once the line is wide", is_calm).await;
    assert_eq!(scene.partitions().await, 2);
    scene.picture_lag();
    let events = scene.finish().await;
    assert_eq!(actions(&events), [Action::Consumers { from: 1, to: 2 }], "{}", in_words(&events));
}

/// A consumer as anyone may write one: what it cannot process it tries again, and commits what it has done.
struct Audit {
    is_fixed: Arc<AtomicBool>,
    is_done: Arc<AtomicBool>,
    thread: JoinHandle<BTreeMap<u64, u32>>,
}

impl Audit {
    fn start(bootstrap: &str, topic: &'static str, group: &str) -> Self {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", group)
            .set("client.id", "audit")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        consumer.subscribe(&[topic]).unwrap();
        let (is_fixed, is_done) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (fixed, done) = (is_fixed.clone(), is_done.clone());
        let thread = std::thread::spawn(move || audit(&consumer, topic, &fixed, &done));
        Self { is_fixed, is_done, thread }
    }

    /// Its programmer has found what was wrong.
    fn fix(&self) {
        self.is_fixed.store(true, Relaxed);
    }

    /// How often it processed each line, once no more come.
    fn finish(self) -> BTreeMap<u64, u32> {
        self.is_done.store(true, Relaxed);
        self.thread.join().unwrap()
    }
}

fn audit(
    consumer: &BaseConsumer,
    topic: &str,
    is_fixed: &AtomicBool,
    is_done: &AtomicBool,
) -> BTreeMap<u64, u32> {
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut lines: BTreeMap<u64, u32> = BTreeMap::new();
    let mut poisoned = TopicPartitionList::new();
    poisoned.add_partition(topic, 0);
    let (mut again_at, mut committed, mut last_news) = (None, Instant::now(), Instant::now());
    loop {
        if again_at.is_some_and(|at| Instant::now() >= at) {
            again_at = None;
            consumer.resume(&poisoned).unwrap();
        }
        if committed.elapsed() > Duration::from_millis(200) && !next.is_empty() {
            committed = Instant::now();
            let mut offsets = TopicPartitionList::new();
            for (partition, offset) in &next {
                offsets.add_partition_offset(topic, *partition, Offset::Offset(*offset)).unwrap();
            }
            consumer.commit(&offsets, CommitMode::Async).unwrap();
        }
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
            if is_done.load(Relaxed) && last_news.elapsed() > Duration::from_secs(3) {
                return lines;
            }
            continue;
        };
        last_news = Instant::now();
        let (partition, offset) = (message.partition(), message.offset());
        let is_bad = partition == 0 && offset == POISON && !is_fixed.load(Relaxed);
        if is_bad || next.get(&partition).is_some_and(|next| *next != offset) {
            // It and all behind it come again, in a while.
            consumer.pause(&poisoned).unwrap();
            consumer.seek(topic, 0, Offset::Offset(next[&0]), Duration::from_secs(5)).unwrap();
            again_at = Some(Instant::now() + Duration::from_millis(500));
            continue;
        }
        next.insert(partition, offset + 1);
        let event: Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
        let number = event["message"].as_str().unwrap().split(' ').nth(1).unwrap();
        *lines.entry(number.parse().unwrap()).or_default() += 1;
    }
}

/// Whether there is time for what takes minutes.
fn has_time() -> bool {
    std::env::var("ELKFK_BACKLOG").as_deref() == Ok("all")
}

mod on_our_broker {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn overload() {
        super::overload(Broker::ours().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn sink_slowed() {
        super::sink_slowed(Broker::ours().await, has_time()).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn elasticsearch_stopped() {
        super::elasticsearch_stopped(Broker::ours().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn poisoned_partition() {
        super::poisoned_partition(Broker::ours().await).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn hot_file() {
        super::hot_file(Broker::ours().await).await;
    }
}

mod on_a_real_kafka {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn overload() {
        if let Some(kafka) = Broker::kafka("on_a_real_kafka::overload") {
            super::overload(kafka).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn sink_slowed() {
        if has_time()
            && let Some(kafka) = Broker::kafka("on_a_real_kafka::sink_slowed")
        {
            super::sink_slowed(kafka, true).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn elasticsearch_stopped() {
        if let Some(kafka) = Broker::kafka("on_a_real_kafka::elasticsearch_stopped") {
            super::elasticsearch_stopped(kafka).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn poisoned_partition() {
        if has_time()
            && let Some(kafka) = Broker::kafka("on_a_real_kafka::poisoned_partition")
        {
            super::poisoned_partition(kafka).await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn hot_file() {
        if has_time()
            && let Some(kafka) = Broker::kafka("on_a_real_kafka::hot_file")
        {
            super::hot_file(kafka).await;
        }
    }
}
