//! Three real Kafka brokers on an ensemble whose servers are killed, paused and cut off, while records are produced
//! with acks=all and topics are made and deleted. Then every acknowledged record must be there, every topic as it was
//! asked for, and the brokers must still be the processes that were started.
//!
//! `ELKFK_CHAOS_SECONDS` (90; the proof is 900) is how long faults go on, `ELKFK_SEED` chooses them. The same runs on
//! a real ZooKeeper 3.5.7 under `ELKFK_CHAOS_ZOOKEEPER=1`, to compare. Servers stand in network namespaces, which
//! needs root.

mod ensemble_support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_coordinator_client::{Client, Config};
use elkfk_tests::ensemble::{Ensemble, Kind};
use elkfk_tests::peers::{self, Peer, Server};
use ensemble_support::chaos::{self, ALL_FAULTS};
use ensemble_support::records::{self, Producer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaErrorCode;

const BROKERS: usize = 3;
/// Of the brokers; faults last up to half as long again, so that sessions expire.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
/// How soon all must be in order once the faults are over.
const PATIENCE: Duration = Duration::from_secs(120);
const STEADY: &str = "steady";

#[test]
fn kafka_lives_on_ours_through_kills_pauses_and_cuts() {
    let test = "kafka_lives_on_ours_through_kills_pauses_and_cuts";
    if ensemble_support::have(test, Kind::Elkfk, &[Peer::Kafka]) {
        live(test, Kind::Elkfk).unwrap();
    }
}

#[test]
fn kafka_lives_on_zookeeper_through_kills_pauses_and_cuts() {
    let test = "kafka_lives_on_zookeeper_through_kills_pauses_and_cuts";
    // Not ours to prove: only to compare.
    let is_asked = std::env::var("ELKFK_CHAOS_ZOOKEEPER").as_deref() == Ok("1");
    if is_asked && ensemble_support::have(test, Kind::ZooKeeper, &[Peer::Kafka]) {
        live(test, Kind::ZooKeeper).unwrap();
    }
}

fn live(test: &str, kind: Kind) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let result = live_in(dir.path(), test, kind);
    if result.is_err() {
        // With the logs of all of them.
        eprintln!("{test}: what they left is kept in {}", dir.keep().display());
    }
    result
}

fn live_in(dir: &Path, test: &str, kind: Kind) -> Result<()> {
    let seed = ensemble_support::seed(test);
    let Some(mut ensemble) = Ensemble::start_apart(test, kind, dir, 3, "")? else {
        return Ok(());
    };
    let brokers = start_brokers(dir, &ensemble.connect_string())?;
    let bootstrap: Vec<_> = brokers.iter().map(|broker| broker.addr.to_string()).collect();
    let bootstrap = bootstrap.join(",");
    let topics = Topics::new(&bootstrap)?;
    topics.create(STEADY, 6)?;
    // The first answer may come before every broker knows of it.
    wait("the first topic has its leaders", || topics.is_whole(STEADY, 6))?;

    let is_over = AtomicBool::new(false);
    let time = ensemble_support::chaos_time(90);
    let (chaos, load) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&bootstrap, &topics, seed, &is_over));
        let mut random = StdRng::seed_from_u64(seed);
        let longest = SESSION_TIMEOUT * 3 / 2;
        let chaos = chaos::run(&mut ensemble, &mut random, &ALL_FAULTS, time, longest);
        is_over.store(true, Ordering::Relaxed);
        (chaos, load.join().expect("the load does not panic"))
    });
    let faults = chaos.with_context(|| alive(&brokers))?;
    let mut load = load.with_context(|| alive(&brokers))?;

    // Calm. Everything must be in order by itself.
    let expected = load.kept.clone();
    wait("every broker is registered, no topic waits for its deletion", || {
        znodes_are_in_order(&ensemble.connect_string(), &expected, &load.unknown)
    })
    .with_context(|| alive(&brokers))?;
    for (topic, partitions) in &load.kept {
        wait(&format!("{topic} has its leaders and its replicas"), || {
            topics.is_whole(topic, *partitions)
        })
        .with_context(|| alive(&brokers))?;
    }
    let names: Vec<String> = load.kept.iter().map(|(topic, _)| topic.clone()).collect();
    let before = load.producer.acked_count();
    for topic in &names {
        load.producer.send(topic, 20, 100)?;
    }
    load.producer.flush()?;
    ensure!(
        load.producer.acked_count() == before + 20 * names.len(),
        "records are refused after the faults: {} acknowledged of {}",
        load.producer.acked_count() - before,
        20 * names.len()
    );
    for broker in &brokers {
        ensure!(broker.process.resident_bytes() > 0, "a broker has ended:\n{}", alive(&brokers));
    }
    let checked = records::check(&bootstrap, &names, &load.producer.acked())?;
    ensure!(checked > 1000, "only {checked} records were produced");
    eprintln!(
        "{test}: seed {seed}, {} faults in {} s; {checked} acknowledged records read back, {} given up, longest \
         time without an acknowledgement {:.1} s; {} topics made, {} of them deleted",
        faults.len(),
        time.as_secs(),
        load.producer.failed(),
        load.producer.longest_gap().as_secs_f64(),
        load.made,
        load.made + 1 - load.kept.len(),
    );
    Ok(())
}

fn start_brokers(dir: &Path, zookeeper: &str) -> Result<Vec<Server>> {
    let mut brokers = Vec::new();
    for id in 1..=BROKERS {
        let overrides = [
            format!("broker.id={id}"),
            format!("zookeeper.session.timeout.ms={}", SESSION_TIMEOUT.as_millis()),
            "default.replication.factor=3".into(),
            "min.insync.replicas=2".into(),
            "auto.create.topics.enable=false".into(),
            "offsets.topic.replication.factor=3".into(),
            "log.cleaner.enable=false".into(),
        ];
        let overrides: Vec<&str> = overrides.iter().map(String::as_str).collect();
        let at = dir.join(format!("broker{id}"));
        brokers.push(peers::kafka_starting(&at, elkfk_tests::free_port(), zookeeper, &overrides)?);
    }
    for broker in &mut brokers {
        broker.process.wait_until(Duration::from_secs(180), |process| {
            process.output().contains("started (kafka.server.KafkaServer)")
        })?;
    }
    Ok(brokers)
}

/// What each broker says of itself at the end, for a failure.
fn alive(brokers: &[Server]) -> String {
    let mut text = String::new();
    for broker in brokers {
        let output = broker.process.output();
        let errors: Vec<&str> = output
            .lines()
            .filter(|line| line.contains(" ERROR ") || line.contains(" FATAL "))
            .collect();
        let last: Vec<&str> = output.lines().rev().take(12).collect();
        let errors = &errors[errors.len().saturating_sub(12)..];
        text += &format!(
            "broker {} {}\nits last errors:\n{}\nits last lines:\n{}\n",
            broker.addr,
            if broker.process.resident_bytes() > 0 { "runs" } else { "HAS ENDED" },
            errors.join("\n"),
            last.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    text
}

fn wait(what: &str, mut claim: impl FnMut() -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    loop {
        let Err(error) = claim() else { return Ok(()) };
        if begun.elapsed() > PATIENCE {
            return Err(error.context(format!("after {PATIENCE:?}, not true: {what}")));
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

fn znodes_are_in_order(
    zookeeper: &str,
    kept: &[(String, i32)],
    unknown: &BTreeSet<String>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = Config::parse(zookeeper)?.with_session_timeout(SESSION_TIMEOUT);
        let client = Client::connect(config).await?;
        let children = async |path: &str| {
            client.sync(path).await?;
            let (names, _) = client.children(path).await?;
            Ok::<_, anyhow::Error>(names.into_iter().collect::<BTreeSet<_>>())
        };
        let brokers = children("/brokers/ids").await?;
        let ids: BTreeSet<String> = (1..=BROKERS).map(|id| id.to_string()).collect();
        ensure!(brokers == ids, "registered: {brokers:?}");
        let deleting = children("/admin/delete_topics").await?;
        ensure!(deleting.is_empty(), "still to be deleted: {deleting:?}");
        let mut topics = children("/brokers/topics").await?;
        topics.retain(|topic| !unknown.contains(topic));
        let kept: BTreeSet<String> = kept.iter().map(|(topic, _)| topic.clone()).collect();
        ensure!(topics == kept, "topics are {topics:?}, not {kept:?}");
        client.close().await;
        Ok(())
    })
}

/// Makes, deletes and looks at topics, as a tool would: tries again while the brokers are busy with themselves.
struct Topics {
    admin: AdminClient<DefaultClientContext>,
    runtime: tokio::runtime::Runtime,
}

impl Topics {
    fn new(bootstrap: &str) -> Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let admin = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        Ok(Self { admin, runtime: runtime.worker_threads(1).enable_all().build()? })
    }

    fn options() -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(Duration::from_secs(15)))
            .operation_timeout(Some(Duration::from_secs(10)))
    }

    /// The client remembers a controller and asks it even when it says that it is none.
    fn find_controller(&self) -> Result<()> {
        self.admin.inner().fetch_metadata(None, Duration::from_secs(10))?;
        Ok(())
    }

    fn create(&self, name: &str, partitions: i32) -> Result<()> {
        let new = NewTopic::new(name, partitions, TopicReplication::Fixed(3));
        wait(&format!("{name} can be made"), || {
            self.find_controller()?;
            let made = self.runtime.block_on(self.admin.create_topics([&new], &Self::options()))?;
            match made.into_iter().next().context("an answer")? {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
                Err((_, code)) => anyhow::bail!("{code}"),
            }
        })
    }

    /// Deletes a topic that was made. False where it cannot be told whether it was: a try without an answer, and
    /// then none that knows the topic.
    fn delete(&self, name: &str) -> Result<bool> {
        let (mut is_told, mut is_tried) = (true, false);
        wait(&format!("{name} can be deleted"), || {
            self.find_controller()?;
            let gone = self.runtime.block_on(self.admin.delete_topics(&[name], &Self::options()));
            let code = match gone.map(|gone| gone.into_iter().next()) {
                Ok(Some(Ok(_))) => return Ok(()),
                Ok(Some(Err((_, code)))) => code,
                other => {
                    is_tried = true;
                    anyhow::bail!("no answer: {:?}", other.err())
                }
            };
            // A broker answers so too while it has not yet heard of a new topic.
            if code == RDKafkaErrorCode::UnknownTopicOrPartition && is_tried {
                is_told = false;
                return Ok(());
            }
            is_tried |= code != RDKafkaErrorCode::UnknownTopicOrPartition
                && code != RDKafkaErrorCode::NotController;
            anyhow::bail!("{code}")
        })?;
        Ok(is_told)
    }

    /// Every partition has a leader and three replicas in sync.
    fn is_whole(&self, name: &str, partitions: i32) -> Result<()> {
        let client = self.admin.inner();
        let metadata = client.fetch_metadata(Some(name), Duration::from_secs(10))?;
        let topic = metadata.topics().first().context("the topic's metadata")?;
        ensure!(topic.partitions().len() as i32 == partitions, "{:?}", topic.error());
        for partition in topic.partitions() {
            ensure!(
                partition.leader() > 0 && partition.isr().len() == BROKERS,
                "{name}-{}: leader {}, in sync {:?}, {:?}",
                partition.id(),
                partition.leader(),
                partition.isr(),
                partition.error()
            );
        }
        Ok(())
    }
}

struct Load {
    producer: Producer,
    /// Topics that must be there at the end, with their partitions.
    kept: Vec<(String, i32)>,
    /// Topics of which no answer told whether they were deleted.
    unknown: BTreeSet<String>,
    made: usize,
}

/// Produces without a pause, and makes a topic every few seconds, of which every other is deleted.
fn load(bootstrap: &str, topics: &Topics, seed: u64, is_over: &AtomicBool) -> Result<Load> {
    let mut producer = Producer::new(bootstrap)?;
    let mut random = StdRng::seed_from_u64(seed ^ 0x70_71);
    let mut kept = vec![(STEADY.to_owned(), 6)];
    let (mut made, mut unknown) = (0, BTreeSet::new());
    std::thread::scope(|scope| {
        let (names, churned) = std::sync::mpsc::channel::<String>();
        let churn = scope.spawn(move || {
            let (mut kept, mut unknown) = (Vec::new(), BTreeSet::new());
            let mut made = 0;
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(random.random_range(500..3000)));
                let name = format!("made{made}");
                let partitions = random.random_range(1..=3);
                topics.create(&name, partitions)?;
                made += 1;
                if made % 2 == 0 {
                    if !topics.delete(&name)? {
                        unknown.insert(name);
                    }
                } else {
                    kept.push((name.clone(), partitions));
                    let _ = names.send(name);
                }
            }
            Ok::<_, anyhow::Error>((kept, unknown, made))
        });
        while !is_over.load(Ordering::Relaxed) {
            producer.send(STEADY, 100, 200)?;
            while let Ok(name) = churned.try_recv() {
                producer.send(&name, 50, 200)?;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let (more, untold, count) = churn.join().expect("making topics does not panic")?;
        while let Ok(name) = churned.try_recv() {
            producer.send(&name, 50, 200)?;
        }
        kept.extend(more);
        (unknown, made) = (untold, count);
        Ok::<_, anyhow::Error>(())
    })?;
    producer.flush()?;
    Ok(Load { producer, kept, unknown, made })
}
