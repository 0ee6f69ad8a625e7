//! The engine on a simulated disk, Kafka and registry, under random rotations, outages and kills.
//!
//! All chance comes from one seed, printed on failure; run one again with `ELKFK_SIM_SEED=n`, others with
//! `ELKFK_SIM_RUNS=n`, from `ELKFK_SIM_FIRST=n` on. Faults
//! first, then calm, in which every line must have arrived: once per id, one id per line.

mod rotations;
mod scenarios;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use elkfk_wire::source_id::SourceId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng};

use super::{Ack, Engine, Next, Now, Record, Refusal, Sender, Ticket};
use crate::config::Config;
use crate::disk::{Disk, Kind};
use crate::identity::{FileId, Stat};
use crate::registry::{self, Journal};

const DIRECTORY: &str = "/log";
const MIDNIGHT_MS: u64 = 1_772_323_200_000;
const BANNER: &str = "program started";

#[derive(Debug, Default)]
struct Volume {
    names: BTreeMap<String, u64>,
    inodes: BTreeMap<u64, Inode>,
    births: u64,
    clock_ns: u64,
    /// What inotify would tell: names written to, and whether entries came or went.
    written: BTreeSet<String>,
    has_moved: bool,
    /// Looks into each file.
    reads: BTreeMap<u64, u32>,
    /// A file that is truncated after so many more looks at the disk: in the middle of a turn.
    fuse: Option<(u32, u64)>,
}

#[derive(Debug, Default)]
struct Inode {
    data: Vec<u8>,
    birth_ns: u64,
    modified_ns: u64,
    links: u64,
    handles: u64,
}

/// One directory. Inode numbers are used again as soon as they are free.
#[derive(Debug, Clone, Default)]
struct VirtualDisk(Arc<Mutex<Volume>>);

#[derive(Debug)]
struct Handle {
    disk: VirtualDisk,
    inode: u64,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut volume = self.disk.lock();
        if let Some(inode) = volume.inodes.get_mut(&self.inode) {
            inode.handles -= 1;
        }
        volume.sweep();
    }
}

impl Volume {
    fn sweep(&mut self) {
        self.inodes.retain(|_, inode| inode.links > 0 || inode.handles > 0);
    }

    fn create(&mut self, name: &str, data: Vec<u8>) -> u64 {
        self.has_moved = true;
        self.written.insert(name.into());
        let number = (1..).find(|n| !self.inodes.contains_key(n)).expect("inodes never run out");
        self.births += 1;
        let inode =
            Inode { data, birth_ns: self.births, modified_ns: self.clock_ns, links: 1, handles: 0 };
        self.inodes.insert(number, inode);
        self.unlink(name);
        self.names.insert(name.into(), number);
        number
    }

    fn unlink(&mut self, name: &str) {
        if let Some(number) = self.names.remove(name) {
            self.has_moved = true;
            self.inodes.get_mut(&number).expect("a name has its inode").links -= 1;
            self.sweep();
        }
    }

    fn rename(&mut self, from: &str, to: &str) {
        if let Some(number) = self.names.remove(from) {
            self.unlink(to);
            self.names.insert(to.into(), number);
            self.has_moved = true;
        }
    }

    fn append(&mut self, number: u64, bytes: &[u8]) {
        let clock = self.clock_ns;
        let inode = self.inodes.get_mut(&number).expect("a writer holds its file");
        inode.data.extend_from_slice(bytes);
        inode.modified_ns = clock;
        self.tell_of(number);
    }

    fn truncate(&mut self, number: u64) {
        self.fuse = None;
        let clock = self.clock_ns;
        let inode = self.inodes.get_mut(&number).expect("a writer holds its file");
        inode.data.clear();
        inode.modified_ns = clock;
        self.tell_of(number);
    }

    fn tell_of(&mut self, number: u64) {
        let names = self.names.iter().filter(|(_, other)| **other == number);
        self.written.extend(names.map(|(name, _)| name.clone()));
    }

    /// Time passes between any two looks at the disk.
    fn burn(&mut self) {
        if let Some((looks, inode)) = self.fuse {
            self.fuse = Some((looks.saturating_sub(1), inode));
            if looks == 0 {
                self.truncate(inode);
            }
        }
    }

    fn stat(&self, number: u64) -> Option<Stat> {
        let inode = self.inodes.get(&number)?;
        Some(Stat {
            id: FileId { device: 1, inode: number, birth_ns: inode.birth_ns },
            size: inode.data.len() as u64,
            modified_ns: inode.modified_ns,
            links: inode.links,
            is_file: true,
        })
    }
}

impl VirtualDisk {
    fn lock(&self) -> MutexGuard<'_, Volume> {
        self.0.lock().expect("no thread panics with it")
    }

    fn number(&self, path: &Path) -> io::Result<u64> {
        let name = path.strip_prefix(DIRECTORY).map_err(|_| io::ErrorKind::NotFound)?;
        let name = name.to_str().ok_or(io::ErrorKind::NotFound)?;
        Ok(*self.lock().names.get(name).ok_or(io::ErrorKind::NotFound)?)
    }
}

impl Disk for VirtualDisk {
    type File = Handle;

    fn list(&self, directory: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        if directory != Path::new(DIRECTORY) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(self.lock().names.keys().map(|name| (name.into(), Kind::File)).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let number = self.number(path)?;
        self.lock().stat(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<Handle> {
        let inode = self.number(path)?;
        self.lock().inodes.get_mut(&inode).expect("a name has its inode").handles += 1;
        Ok(Handle { disk: self.clone(), inode })
    }

    fn stat_open(&self, file: &Handle) -> io::Result<Stat> {
        self.lock().burn();
        Ok(self.lock().stat(file.inode).expect("an open file stays"))
    }

    fn read_at(&self, file: &Handle, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut volume = self.lock();
        volume.burn();
        *volume.reads.entry(file.inode).or_default() += 1;
        let data = &volume.inodes[&file.inode].data;
        let from = data.get(at as usize..).unwrap_or_default();
        let length = from.len().min(into.len());
        into[..length].copy_from_slice(&from[..length]);
        Ok(length)
    }

    fn next_data(&self, _: &Handle, at: u64) -> io::Result<Option<u64>> {
        Ok(Some(at))
    }
}

/// Records on their way, and those that arrived. Shared, for it outlives the engine.
#[derive(Debug, Default)]
struct Cluster {
    /// Partition, id, day and line.
    arrived: Vec<(i32, SourceId, String, String)>,
    is_up: bool,
    /// As a broker tells, where that is not three.
    partitions: Option<i32>,
    /// Longer records are refused.
    message_bytes: Option<usize>,
}

#[derive(Debug)]
struct VirtualKafka {
    cluster: Arc<Mutex<Cluster>>,
    /// Per partition, in order.
    queues: [VecDeque<(Ticket, SourceId, Vec<u8>)>; 3],
    acks: Vec<Ack>,
}

impl Sender for VirtualKafka {
    fn partitions(&mut self, _: &str) -> Option<i32> {
        let cluster = self.cluster.lock().expect("no thread panics with it");
        cluster.is_up.then_some(cluster.partitions.unwrap_or(3))
    }

    fn send(&mut self, record: Record<'_>) -> Result<(), String> {
        let partition = record.partition as usize;
        self.queues[partition].push_back((record.ticket, record.source, record.value.to_vec()));
        Ok(())
    }

    fn take_acks(&mut self, acks: &mut Vec<Ack>) {
        acks.append(&mut self.acks);
    }
}

impl VirtualKafka {
    /// Lets some records arrive, in order per partition, acknowledged or not.
    fn pump(&mut self, rng: &mut StdRng, is_acknowledged: bool) {
        let mut cluster = self.cluster.lock().expect("no thread panics with it");
        if !cluster.is_up {
            return;
        }
        for (partition, queue) in self.queues.iter_mut().enumerate() {
            let count = rng.random_range(0..=queue.len());
            for (ticket, id, value) in queue.drain(..count) {
                let (bytes, partition) = (value.len(), partition as i32);
                if cluster.message_bytes.is_some_and(|most| bytes > most) {
                    let result = Err(Refusal::TooLarge("too large".into()));
                    self.acks.push(Ack { ticket, bytes, partition, at_ms: 0, result });
                    continue;
                }
                let event: serde_json::Value = serde_json::from_slice(&value).expect("an event");
                let line = event["message"].as_str().expect("a message").to_string();
                let time = event["@timestamp"].as_str().expect("a time");
                cluster.arrived.push((partition, id, time[..10].to_string(), line));
                if is_acknowledged {
                    let result = Ok(());
                    self.acks.push(Ack { ticket, bytes, partition, at_ms: 0, result });
                }
            }
        }
    }

    /// Refuses everything that waits in one partition.
    fn refuse(&mut self, partition: usize) {
        for (ticket, _, value) in self.queues[partition].drain(..) {
            let (bytes, result) = (value.len(), Err(Refusal::Other("refused".into())));
            let partition = partition as i32;
            self.acks.push(Ack { ticket, bytes, partition, at_ms: 0, result });
        }
    }

    fn is_idle(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty) && self.acks.is_empty()
    }
}

#[derive(Debug, Clone, Default)]
struct VirtualJournal(Arc<Mutex<Pages>>);

#[derive(Debug, Default)]
struct Pages {
    bytes: Vec<u8>,
    durable: usize,
    is_full: bool,
}

impl Journal for VirtualJournal {
    fn append(&mut self, bytes: &[u8]) {
        self.0.lock().expect("no panic").bytes.extend_from_slice(bytes);
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut pages = self.0.lock().expect("no panic");
        if pages.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        pages.durable = pages.bytes.len();
        Ok(())
    }

    fn replace(&mut self, bytes: &[u8]) {
        let mut pages = self.0.lock().expect("no panic");
        pages.bytes = bytes.to_vec();
        pages.durable = bytes.len();
    }

    fn len(&self) -> u64 {
        self.0.lock().expect("no panic").bytes.len() as u64
    }
}

thread_local! {
    static RANDOM: Cell<u64> = const { Cell::new(0) };
}

type VirtualEngine = Engine<VirtualDisk, VirtualKafka, VirtualJournal>;

struct Sim {
    rng: StdRng,
    disk: VirtualDisk,
    cluster: Arc<Mutex<Cluster>>,
    journal: VirtualJournal,
    config: Config,
    engine: Option<VirtualEngine>,
    origin: Instant,
    /// Midnight is near.
    started_ms: u64,
    elapsed: Duration,
    /// The program that logs: its file, and the line it has not finished.
    writer: u64,
    unfinished: Option<String>,
    lines: Vec<String>,
    log: Vec<String>,
    has_banner: bool,
    was_refused: bool,
}

impl Sim {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = VirtualDisk::default();
        let glob = if rng.random_bool(0.5) { "/log/app.log" } else { "/log/app.log*" };
        let mut config = Config::watch([glob], "none", "none");
        config.partial_timeout = Duration::from_secs(2);
        config.inputs[0].close.inactive = Duration::from_secs(30);
        if rng.random_bool(0.3) {
            config.in_flight_bytes = 1 << 20;
        }
        let writer = disk.lock().create("app.log", Vec::new());
        disk.lock().inodes.get_mut(&writer).expect("created").handles += 1;
        RANDOM.set(seed << 20);
        let started_ms = MIDNIGHT_MS - rng.random_range(0..120_000);
        Self {
            has_banner: rng.random_bool(0.3),
            rng,
            disk,
            cluster: Arc::new(Mutex::new(Cluster { is_up: true, ..Cluster::default() })),
            journal: VirtualJournal::default(),
            config,
            engine: None,
            origin: Instant::now(),
            started_ms,
            elapsed: Duration::ZERO,
            writer,
            unfinished: None,
            lines: Vec::new(),
            log: vec![format!("seed {seed}, {glob}")],
            was_refused: false,
        }
    }

    fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        tracing::debug!(what, "simulated");
        self.log.push(format!("{:?} {what}", self.elapsed));
    }

    fn now(&self) -> Now {
        Now {
            instant: self.origin + self.elapsed,
            unix_ms: self.started_ms + self.elapsed.as_millis() as u64,
        }
    }

    fn pass(&mut self, time: Duration) {
        self.elapsed += time;
        self.disk.lock().clock_ns = self.now().unix_ms * 1_000_000;
    }

    fn start(&mut self) {
        if self.engine.is_some() {
            return;
        }
        let mut pages = self.journal.0.lock().expect("no panic");
        let contents = registry::read(&pages.bytes);
        pages.bytes.truncate(contents.good_bytes as usize);
        pages.durable = pages.bytes.len();
        drop(pages);
        let mut known: Vec<_> = contents
            .states
            .values()
            .map(|state| {
                let inode = state.file.map(|id| id.inode);
                let last = state.generation.0[11];
                format!("{last}: {} {inode:?} {}/{}", state.path, state.head.bytes, state.position)
            })
            .collect();
        known.sort();
        let kafka = VirtualKafka {
            cluster: self.cluster.clone(),
            queues: Default::default(),
            acks: Vec::new(),
        };
        let random = || {
            RANDOM.set(RANDOM.get() + 1);
            RANDOM.get()
        };
        let engine = Engine::new(
            &self.config,
            self.disk.clone(),
            kafka,
            self.journal.clone(),
            contents,
            self.now(),
            random,
        );
        self.engine = Some(engine);
        self.note(format!("start with {known:?}"));
    }

    /// Some turns, with records arriving in between.
    fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            let now = self.now();
            let Some(engine) = &mut self.engine else { return };
            // Events come when they come, and a file may be looked at before its directory.
            let mut volume = self.disk.lock();
            if self.rng.random_bool(0.7) {
                for name in std::mem::take(&mut volume.written) {
                    engine.wake_path(&Path::new(DIRECTORY).join(name));
                }
            }
            if volume.has_moved && self.rng.random_bool(0.5) {
                volume.has_moved = false;
                engine.rescan();
            }
            drop(volume);
            let next = engine.turn(now);
            engine.sender.pump(&mut self.rng, true);
            let step = match next {
                Next::Now => Duration::from_millis(1),
                Next::At(_) => Duration::from_millis(self.rng.random_range(5..50)),
            };
            self.pass(step);
        }
    }

    fn kill(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        self.note("kill");
        // What was sent may arrive without anybody being told.
        engine.sender.pump(&mut self.rng, false);
        drop(engine);
        let mut pages = self.journal.0.lock().expect("no panic");
        let length = self.rng.random_range(pages.durable..=pages.bytes.len());
        pages.bytes.truncate(length);
    }

    fn stop(&mut self) {
        let Some(mut engine) = self.engine.take() else { return };
        self.note("stop");
        engine.stop_reading();
        for _ in 0..50 {
            engine.turn(self.now());
            engine.sender.pump(&mut self.rng, true);
        }
        let _ = engine.save();
    }

    fn write(&mut self) {
        let count = self.rng.random_range(1..40);
        let mut text = String::new();
        for _ in 0..count {
            if let Some(rest) = self.unfinished.take() {
                text.push_str(&rest);
            } else {
                let padding = "x".repeat(self.rng.random_range(0..100));
                let line = format!("line {} {padding}", self.lines.len());
                text.push_str(&line);
                self.lines.push(line);
            }
            text.push('\n');
        }
        if self.rng.random_bool(0.3) {
            // Each half tells by itself which line it is of.
            let (first, second) = (
                format!("line {} begins", self.lines.len()),
                format!(" and line {} ends", self.lines.len()),
            );
            let (line, at) = (format!("{first}{second}"), first.len());
            text.push_str(&line[..at]);
            self.unfinished = Some(line[at..].to_string());
            self.lines.push(line);
        }
        self.note(format!("write {count} up to {} in {}", self.lines.len(), self.writer));
        self.disk.lock().append(self.writer, text.as_bytes());
    }

    fn finish_line(&mut self) {
        if let Some(rest) = self.unfinished.take() {
            self.disk.lock().append(self.writer, format!("{rest}\n").as_bytes());
        }
    }

    fn settle(&mut self) {
        self.journal.0.lock().expect("no panic").is_full = false;
        let mut calm = 0;
        for _ in 0..20_000 {
            self.run(1);
            self.pass(Duration::from_millis(50));
            let engine = self.engine.as_ref().expect("started");
            calm = if engine.sender.is_idle() { calm + 1 } else { 0 };
            // Long enough for what waits on quiet times.
            if calm > 800 {
                return;
            }
        }
        panic!("it never comes to rest\n{}", self.log.join("\n"));
    }

    fn act(&mut self) {
        match self.rng.random_range(0..100) {
            0..40 => self.write(),
            40..60 => {
                let turns = self.rng.random_range(1..8);
                self.run(turns);
            }
            60..68 if self.may_rotate() => self.rotate_by_rename(),
            68..76 if self.may_rotate() => self.rotate_by_copy(),
            76..79 => self.compress(),
            79..80 => self.truncate(),
            80..82 => self.delete(),
            82..83 => self.delete_while_written(),
            83..88 => self.kill(),
            88..90 => self.stop(),
            90..92 => {
                let time = Duration::from_millis(self.rng.random_range(0..1500));
                self.pass(time);
            }
            92..94 => {
                let mut cluster = self.cluster.lock().expect("no panic");
                cluster.is_up = !cluster.is_up;
            }
            94..96 => {
                let partition = self.rng.random_range(0..3);
                if let Some(engine) = &mut self.engine {
                    engine.sender.refuse(partition);
                    self.was_refused = true;
                    self.log.push(format!("refuse {partition}"));
                }
            }
            96..97 => {
                let is_full = self.rng.random_bool(0.5);
                self.journal.0.lock().expect("no panic").is_full = is_full;
            }
            _ => self.start(),
        }
    }

    fn check(&self) {
        let cluster = self.cluster.lock().expect("no panic");
        let mut lines: HashMap<&str, BTreeSet<SourceId>> = HashMap::new();
        let mut ids: HashMap<SourceId, &str> = HashMap::new();
        let mut days: HashMap<SourceId, &str> = HashMap::new();
        let mut lasts: HashMap<[u8; 12], u64> = HashMap::new();
        let fail = |what: String| -> ! { panic!("{what}\n{}", self.log.join("\n")) };
        for (_, id, day, line) in &cluster.arrived {
            // The index of another day would take it for new.
            let first = days.entry(*id).or_insert(day);
            if first != day {
                fail(format!("{line:?} of {first} came again on {day}"));
            }
            match ids.insert(*id, line) {
                Some(other) if other != line => fail(format!("{id}: {other:?} and {line:?}")),
                Some(_) => continue,
                None => {}
            }
            lines.entry(line).or_default().insert(*id);
            let last = lasts.entry(id.generation.0).or_default();
            if !self.was_refused && *last > id.position {
                fail(format!("{line:?} comes too late"));
            }
            *last = (*last).max(id.position);
        }
        let expected: BTreeSet<&str> = self.lines.iter().map(String::as_str).collect();
        for line in &self.lines {
            match lines.get(line.as_str()).map_or(0, BTreeSet::len) {
                0 => fail(format!("lost {line:?}")),
                1 => {}
                _ => fail(format!("doubled {line:?}: {:?}", lines[line.as_str()])),
            }
        }
        if let Some(line) = lines.keys().find(|line| **line != BANNER && !expected.contains(**line))
        {
            fail(format!("never written: {line:?}"));
        }
    }
}

fn number_of(name: &str) -> u32 {
    let rest = name.strip_prefix("app.log.").unwrap_or_default();
    rest.trim_end_matches(".gz").parse().unwrap_or(0)
}

fn simulate(seed: u64) {
    let mut sim = Sim::new(seed);
    sim.start();
    let actions = sim.rng.random_range(10..120);
    for _ in 0..actions {
        sim.act();
    }
    sim.start();
    sim.finish_line();
    sim.cluster.lock().expect("no panic").is_up = true;
    sim.settle();
    sim.check();
}

#[test]
fn every_line_arrives_under_one_id_whatever_happens() {
    if let Ok(seed) = std::env::var("ELKFK_SIM_SEED") {
        elkfk_base::telemetry::init("debug");
        simulate(seed.parse().expect("a seed is a number"));
        return;
    }
    let runs = std::env::var("ELKFK_SIM_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(60u64);
    let first = std::env::var("ELKFK_SIM_FIRST").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    for seed in first..first + runs {
        simulate(seed);
    }
}
