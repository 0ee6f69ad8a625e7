//! The shipper against a real Kafka, through every rotation, kill and outage: no line lost, and after
//! the index has dropped equal ids, none doubled.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use elkfk_shipper::{Config, Running};
use elkfk_tests::free_port;
use elkfk_tests::peers::{self, Peer, Server};
use elkfk_tests::process::Process;
use elkfk_wire::source_id::{Generation, HEADER, SourceId};
use flate2::write::GzEncoder;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

/// Without a record more for this long, something is lost.
const PATIENCE: Duration = Duration::from_secs(90);
/// How often the directory is listed here.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// The variable that makes [`child`] a shipper instead of a test.
const CHILD: &str = "ELKFK_TEST_SHIPPER";

/// A real Kafka, and a directory for the files of one scenario after the other.
struct Bench {
    dir: tempfile::TempDir,
    zookeeper: Server,
    kafka: Option<Server>,
    port: u16,
}

impl Bench {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        // Sessions end by the tick, and none may be shorter than two.
        let extra = "tickTime=500\n4lw.commands.whitelist=srvr,dump";
        let zookeeper = peers::zookeeper(&dir.path().join("zookeeper"), extra)?;
        let mut bench = Self { dir, zookeeper, kafka: None, port: free_port() };
        bench.start_kafka()?;
        Ok(bench)
    }

    fn start_kafka(&mut self) -> Result<()> {
        let dir = self.dir.path().join("kafka");
        // A killed broker's session keeps its znode for as long.
        let overrides = ["num.partitions=3", "zookeeper.session.timeout.ms=2000"];
        let zookeeper = self.zookeeper.addr.to_string();
        self.kafka = Some(peers::kafka_at(&dir, self.port, &zookeeper, &overrides)?);
        Ok(())
    }

    fn kill_kafka(&mut self) {
        if let Some(kafka) = &mut self.kafka {
            kafka.process.kill();
        }
        self.kafka = None;
    }

    async fn forget_kafka(&self) -> Result<()> {
        let zookeeper = self.zookeeper.addr;
        tokio::task::spawn_blocking(move || peers::wait_until_broker_is_forgotten(zookeeper))
            .await?
    }

    /// That Kafka holds the records of `topic` as zstd batches of an idempotent producer.
    fn check_batches(&self, topic: &str) -> Result<()> {
        let logs = (0..3).flat_map(|partition| {
            let name = format!("{topic}-{partition}/00000000000000000000.log");
            files_below(&self.dir.path().join("kafka"))
                .into_iter()
                .filter(move |path| path.ends_with(&name))
        });
        let mut batches = 0;
        for log in logs {
            let bytes = fs::read(&log)?;
            let mut rest = &bytes[..];
            // Base offset, length, leader epoch, magic, CRC, attributes, …, producer id.
            while rest.len() >= 61 {
                let length = u32::from_be_bytes(rest[8..12].try_into()?) as usize + 12;
                if rest[16] != 2 || length > rest.len() {
                    break;
                }
                ensure!(rest[22] & 7 == 4, "{}: not zstd", log.display());
                ensure!(rest[43..51] != [0xff; 8], "{}: not idempotent", log.display());
                batches += 1;
                rest = &rest[length..];
            }
        }
        ensure!(batches > 0, "no batch of {topic} was found");
        Ok(())
    }

    fn scenario(&self, name: &'static str) -> Scenario {
        let dir = self.dir.path().join(name);
        fs::create_dir_all(dir.join("log")).expect("create a directory");
        Scenario {
            name,
            dir,
            bootstrap: format!("127.0.0.1:{}", self.port),
            written: Vec::new(),
            seen: HashSet::new(),
        }
    }
}

/// One row of the table: a topic, a directory of logs, and what was written there.
struct Scenario {
    name: &'static str,
    dir: PathBuf,
    bootstrap: String,
    written: Vec<String>,
    /// Files that the shipper was seen to know.
    seen: HashSet<Generation>,
}

impl Scenario {
    fn config(&self, glob: &str) -> Config {
        let glob = self.dir.join("log").join(glob).display().to_string();
        let mut config = Config::watch([glob], &self.bootstrap, self.dir.join("registry"));
        let text = format!(
            "filebeat.inputs:\n- type: filestream\n  id: watch\n  paths: [/x]\n  prospector.scanner.check_interval: {}s\noutput.kafka:\n  hosts: [x]\n  topic: {}\nelkfk.partial_timeout: 1s\n",
            CHECK_INTERVAL.as_secs(),
            self.name
        );
        let read = Config::parse("f", &text, false, &|_| None).expect("a file of ours");
        config.output.topic = read.output.topic;
        config.partial_timeout = read.partial_timeout;
        config.inputs[0].check_interval = read.inputs[0].check_interval;
        config
    }

    async fn start(&self, glob: &str) -> Running {
        elkfk_shipper::start(self.config(glob)).await.expect("start the shipper")
    }

    /// The same in a process of its own, for `kill -9`.
    fn start_process(&self, glob: &str) -> Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "child", "--nocapture"]);
        command.env(
            CHILD,
            format!("{}\n{}\n{}\n{glob}", self.name, self.dir.display(), self.bootstrap),
        );
        Process::start("shipper", &mut command, &self.dir.join("shipper.out"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join("log").join(name)
    }

    fn open(&self, name: &str) -> File {
        OpenOptions::new().create(true).append(true).open(self.path(name)).expect("open a log")
    }

    /// Writes `count` lines, unlike any others, in pieces of a hundred.
    fn write(&mut self, file: &mut File, count: usize) {
        for piece in 0..count.div_ceil(100) {
            let mut text = String::new();
            for _ in 0..(count - piece * 100).min(100) {
                let line = format!(
                    "{} line {} of a \"test\" that is long enough",
                    self.name,
                    self.written.len()
                );
                text.push_str(&line);
                text.push('\n');
                self.written.push(line);
            }
            file.write_all(text.as_bytes()).expect("write a log");
        }
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("rename a log");
    }

    /// Reads the topic until every line was met, and holds it against what was written.
    fn verify(&self) -> Result<()> {
        let records = self.read_all().with_context(|| self.name)?;
        let mut ids: HashMap<SourceId, &str> = HashMap::new();
        let mut lines: BTreeMap<&str, SourceId> = BTreeMap::new();
        let mut lasts: HashMap<([u8; 12], i32), u64> = HashMap::new();
        let mut doubled = 0;
        for (id, partition, line) in &records {
            if let Some(other) = ids.insert(*id, line) {
                ensure!(other == line, "{}: one id for {other:?} and {line:?}", self.name);
                continue;
            }
            if lines.insert(line, *id).is_some() {
                doubled += 1;
            }
            // What comes for the first time comes in the order of the file.
            let last = lasts.entry((id.generation.0, *partition)).or_default();
            ensure!(*last <= id.position, "{}: {line:?} comes too late", self.name);
            *last = id.position;
        }
        let lost: Vec<_> =
            self.written.iter().filter(|line| !lines.contains_key(line.as_str())).collect();
        let foreign = lines.len() + lost.len() - self.written.len();
        eprintln!(
            "{}: {} lines, {} records, lost {}, doubled {doubled}, foreign {foreign}",
            self.name,
            self.written.len(),
            records.len(),
            lost.len()
        );
        ensure!(
            lost.is_empty() && doubled == 0 && foreign == 0,
            "{}: lost {} (first {:?}), doubled {doubled}, foreign {foreign}",
            self.name,
            lost.len(),
            lost.first()
        );
        Ok(())
    }

    fn read_all(&self) -> Result<Vec<(SourceId, i32, String)>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", "verify")
            .set("enable.auto.commit", "false")
            .set("fetch.message.max.bytes", "20000000")
            .create()?;
        let mut list = TopicPartitionList::new();
        for partition in 0..3 {
            list.add_partition_offset(self.name, partition, Offset::Beginning)?;
        }
        consumer.assign(&list)?;
        let (mut records, mut seen) = (Vec::new(), HashSet::new());
        let mut last_news = Instant::now();
        // Longer than a scan takes to come round, for what should not be there.
        let mut grace = None;
        loop {
            if let Some(message) = consumer.poll(Duration::from_millis(50)) {
                let Ok(message) = message else { continue };
                let headers = message.headers().context("a record without headers")?;
                let header = headers.iter().find(|header| header.key == HEADER).context(HEADER)?;
                let id = header.value.and_then(SourceId::from_bytes).context("a source id")?;
                let event: serde_json::Value =
                    serde_json::from_slice(message.payload().context("a value")?)?;
                ensure!(
                    event["@metadata"]["_id"] == id.to_string(),
                    "the id stands in the event too"
                );
                let line = event["message"].as_str().context("message")?.to_string();
                if seen.insert(line.clone()) {
                    last_news = Instant::now();
                }
                records.push((id, message.partition(), line));
            }
            if seen.len() >= self.written.len() {
                grace.get_or_insert_with(Instant::now);
            }
            if grace.is_some_and(|since| since.elapsed() > CHECK_INTERVAL * 2)
                || last_news.elapsed() > PATIENCE
            {
                return Ok(records);
            }
        }
    }

    /// Waits until the shipper knows the file that has this name now: it begins a generation of its own.
    /// What `files` shows is a moment old, so the name alone may be that of the file before.
    async fn wait_until_seen(&mut self, shipper: &Running, name: &str) {
        let path = self.path(name);
        let started = Instant::now();
        loop {
            let files = shipper.files();
            let mut generations =
                files.iter().filter(|file| file.path == path).map(|file| file.generation);
            if generations.any(|generation| self.seen.insert(generation)) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{}: {name} was never seen", self.name);
            pause(20).await;
        }
    }

    /// Waits until the topic holds at least this many records.
    async fn wait_for_records(&self, count: usize) {
        let started = Instant::now();
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.bootstrap)
            .create()
            .expect("a consumer");
        loop {
            let ends = (0..3).filter_map(|partition| {
                consumer.fetch_watermarks(self.name, partition, Duration::from_secs(1)).ok()
            });
            if ends.map(|(_, end)| end as usize).sum::<usize>() >= count {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{}: {count} records never came", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| match entry.path() {
            path if path.is_dir() => files_below(&path),
            path => vec![path],
        })
        .collect()
}

async fn pause(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Not a test of its own: the shipper of [`Scenario::start_process`].
#[test]
fn child() {
    let Ok(given) = std::env::var(CHILD) else { return };
    let mut lines = given.lines().map(str::to_string);
    let mut next = || lines.next().expect("four lines");
    let (name, dir, bootstrap, glob) = (next(), PathBuf::from(next()), next(), next());
    let name: &'static str = Box::leak(name.into_boxed_str());
    let scenario = Scenario { name, dir, bootstrap, written: Vec::new(), seen: HashSet::new() };
    elkfk_base::telemetry::init("info");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let shipper = scenario.start(&glob).await;
        eprintln!("{}", shipper.failed().await);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_line_reaches_kafka_whatever_happens() -> Result<()> {
    if std::env::var(CHILD).is_ok()
        || !peers::have(
            "every_line_reaches_kafka_whatever_happens",
            &[Peer::Kafka, Peer::ZooKeeper],
        )
    {
        return Ok(());
    }
    elkfk_base::telemetry::init("warn");
    let mut bench = Bench::start()?;
    renamed_five_times(bench.scenario("rename")).await?;
    bench.check_batches("rename")?;
    rotated_fast(bench.scenario("fast")).await?;
    copied_and_truncated(bench.scenario("copytruncate"), "app.log").await?;
    copied_and_truncated(bench.scenario("copytruncate-glob"), "app.log*").await?;
    compressed_after_rotation(bench.scenario("gzip")).await?;
    rotated_while_stopped(bench.scenario("stopped")).await?;
    killed_three_times(bench.scenario("sigkill")).await?;
    killed_with_much_waiting(bench.scenario("waiting")).await?;
    stopped_three_times(bench.scenario("sigterm")).await?;
    long_and_halved_lines(bench.scenario("lines")).await?;

    bench.kill_kafka();
    let unread = unread_files_deleted_while_kafka_is_away(bench.scenario("deleted")).await?;
    let restarted = restarted_while_kafka_is_away(bench.scenario("restarted")).await?;
    bench.forget_kafka().await?;
    bench.start_kafka()?;
    for (scenario, shipper) in [unread, restarted] {
        scenario.wait_for_records(scenario.written.len()).await;
        scenario.verify()?;
        shipper.stop().await;
    }
    kafka_killed_in_the_middle(&mut bench).await
}

async fn renamed_five_times(mut scenario: Scenario) -> Result<()> {
    let shipper = scenario.start("app.log").await;
    for rotation in 1..=5 {
        let mut file = scenario.open("app.log");
        for _ in 0..20 {
            scenario.write(&mut file, 200);
            pause(10).await;
        }
        scenario.wait_until_seen(&shipper, "app.log").await;
        scenario.rename("app.log", &format!("app.log.{rotation}"));
        // As programs do until they are told: it goes on in the old file for a while.
        scenario.write(&mut file, 100);
    }
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn rotated_fast(mut scenario: Scenario) -> Result<()> {
    let shipper = scenario.start("app.log").await;
    for rotation in 0..20 {
        let mut file = scenario.open("app.log");
        scenario.write(&mut file, 500);
        scenario.wait_until_seen(&shipper, "app.log").await;
        scenario.rename("app.log", &format!("app.log.{rotation}"));
        if rotation >= 2 {
            fs::remove_file(scenario.path(&format!("app.log.{}", rotation - 2)))?;
        }
    }
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn copied_and_truncated(mut scenario: Scenario, glob: &str) -> Result<()> {
    let shipper = scenario.start(glob).await;
    let mut file = scenario.open("app.log");
    for rotation in 1..=5 {
        let before = scenario.written.len();
        for _ in 0..10 {
            scenario.write(&mut file, 400);
            pause(5).await;
        }
        // Of a life that passes unseen, whose copy the paths leave out, nobody could know.
        if glob == "app.log" {
            scenario.wait_for_records(before + 1).await;
        }
        // In the same instant as the last write, harsher than logrotate.
        for old in (1..rotation).rev() {
            scenario.rename(&format!("app.log.{old}"), &format!("app.log.{}", old + 1));
        }
        fs::copy(scenario.path("app.log"), scenario.path("app.log.1"))?;
        file.set_len(0)?;
    }
    scenario.write(&mut file, 100);
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn compressed_after_rotation(mut scenario: Scenario) -> Result<()> {
    let shipper = scenario.start("app.log*").await;
    for rotation in 1..=3 {
        let mut file = scenario.open("app.log");
        scenario.write(&mut file, 5000);
        for old in (1..rotation).rev() {
            scenario.rename(&format!("app.log.{old}.gz"), &format!("app.log.{}.gz", old + 1));
        }
        scenario.rename("app.log", "app.log.1");
        pause(1000).await;
        gzip(&scenario.path("app.log.1"))?;
        pause(500).await;
    }
    // Found compressed when the shipper comes back.
    let mut file = scenario.open("app.log");
    scenario.write(&mut file, 3000);
    shipper.stop().await;
    scenario.write(&mut file, 2000);
    scenario.rename("app.log", "app.log.9");
    gzip(&scenario.path("app.log.9"))?;
    let shipper = scenario.start("app.log*").await;
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

fn gzip(path: &Path) -> Result<()> {
    let to = File::create(format!("{}.gz", path.display()))?;
    let mut encoder = GzEncoder::new(to, flate2::Compression::fast());
    encoder.write_all(&fs::read(path)?)?;
    encoder.finish()?;
    fs::remove_file(path)?;
    Ok(())
}

async fn rotated_while_stopped(mut scenario: Scenario) -> Result<()> {
    for name in ["renamed.log", "copied.log", "deleted.log"] {
        let mut file = scenario.open(name);
        scenario.write(&mut file, 1000);
    }
    let shipper = scenario.start("*.log").await;
    scenario.wait_for_records(3000).await;
    shipper.stop().await;
    let mut renamed = scenario.open("renamed.log");
    scenario.write(&mut renamed, 500);
    scenario.rename("renamed.log", "renamed.log.1");
    let mut copied = scenario.open("copied.log");
    scenario.write(&mut copied, 500);
    fs::copy(scenario.path("copied.log"), scenario.path("copied.log.1"))?;
    copied.set_len(0)?;
    fs::remove_file(scenario.path("deleted.log"))?;
    for name in ["renamed.log", "copied.log", "deleted.log"] {
        let mut file = scenario.open(name);
        scenario.write(&mut file, 2000);
    }
    let shipper = scenario.start("*.log").await;
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn killed_three_times(mut scenario: Scenario) -> Result<()> {
    let mut file = scenario.open("app.log");
    for kill in 0..3 {
        let mut shipper = scenario.start_process("app.log")?;
        for _ in 0..60 {
            scenario.write(&mut file, 200);
            pause(10).await;
        }
        if kill == 1 {
            scenario.rename("app.log", "app.log.1");
            file = scenario.open("app.log");
        }
        shipper.kill();
        scenario.write(&mut file, 1000);
    }
    let shipper = scenario.start("app.log").await;
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn killed_with_much_waiting(mut scenario: Scenario) -> Result<()> {
    let mut file = scenario.open("app.log");
    scenario.write(&mut file, 200_000);
    let mut shipper = scenario.start_process("app.log")?;
    scenario.wait_for_records(1000).await;
    shipper.kill();
    let shipper = scenario.start("app.log").await;
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn stopped_three_times(mut scenario: Scenario) -> Result<()> {
    let mut file = scenario.open("app.log");
    for _ in 0..3 {
        // On a busy machine acknowledgements may take longer than a user would wait for them.
        let patient = Config { shutdown_timeout: PATIENCE, ..scenario.config("app.log") };
        let shipper = elkfk_shipper::start(patient).await?;
        scenario.write(&mut file, 5000);
        pause(200).await;
        scenario.write(&mut file, 5000);
        shipper.stop().await;
    }
    let shipper = scenario.start("app.log").await;
    scenario.verify()?;
    shipper.stop().await;
    // What was acknowledged before a clean stop is not read again.
    let (records, lines) = (scenario.read_all()?.len(), scenario.written.len());
    ensure!(records == lines, "{records} records for {lines} lines after clean stops");
    Ok(())
}

async fn long_and_halved_lines(mut scenario: Scenario) -> Result<()> {
    let mut file = scenario.open("app.log");
    let shipper = scenario.start("app.log").await;
    for (length, letter) in [(100, "a"), (20_000, "b"), (900_000, "c"), (100, "d")] {
        let line = letter.repeat(length);
        writeln!(file, "{line}")?;
        scenario.written.push(line);
    }
    let halved = "the first half and the second".to_string();
    file.write_all(&halved.as_bytes()[..14])?;
    pause(3000).await;
    file.write_all(&halved.as_bytes()[14..])?;
    file.write_all(b"\r\nbytes \xff that are no text\n\n")?;
    scenario.written.extend([halved, "bytes \u{fffd} that are no text".into()]);
    // A line of 30 MB is cut, flagged and followed by the next.
    let piece = "x".repeat(1 << 20);
    for _ in 0..30 {
        file.write_all(piece.as_bytes())?;
    }
    file.write_all(b"\nafter the monster\n")?;
    scenario.written.push("after the monster".into());
    scenario.wait_for_records(scenario.written.len() + 1).await;
    let records = scenario.read_all()?;
    let cut =
        records.iter().find(|(_, _, line)| line.starts_with("xxx")).context("the cut line")?;
    let room = 1_000_000 - cut.2.len();
    ensure!((1..2000).contains(&room), "the cut line has {} bytes", cut.2.len());
    scenario.written.push(cut.2.clone());
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}

async fn unread_files_deleted_while_kafka_is_away(
    mut scenario: Scenario,
) -> Result<(Scenario, Running)> {
    let shipper = scenario.start("app.log").await;
    for _ in 0..4 {
        let mut file = scenario.open("app.log");
        scenario.write(&mut file, 5000);
        scenario.wait_until_seen(&shipper, "app.log").await;
        scenario.rename("app.log", "app.log.1");
    }
    fs::remove_file(scenario.path("app.log.1"))?;
    Ok((scenario, shipper))
}

async fn restarted_while_kafka_is_away(mut scenario: Scenario) -> Result<(Scenario, Running)> {
    let shipper = scenario.start("app.log").await;
    let mut file = scenario.open("app.log");
    scenario.write(&mut file, 40_000);
    scenario.wait_until_seen(&shipper, "app.log").await;
    let started = Instant::now();
    shipper.stop().await;
    ensure!(started.elapsed() < Duration::from_secs(7), "stopping takes {:?}", started.elapsed());
    let shipper = scenario.start("app.log").await;
    Ok((scenario, shipper))
}

async fn kafka_killed_in_the_middle(bench: &mut Bench) -> Result<()> {
    let mut scenario = bench.scenario("broker-kill");
    let shipper = scenario.start("app.log").await;
    let mut file = scenario.open("app.log");
    for round in 0..60 {
        scenario.write(&mut file, 500);
        pause(20).await;
        if round == 30 {
            scenario.wait_for_records(1000).await;
            bench.kill_kafka();
            scenario.write(&mut file, 5000);
            bench.forget_kafka().await?;
            bench.start_kafka()?;
        }
    }
    scenario.verify()?;
    shipper.stop().await;
    Ok(())
}
