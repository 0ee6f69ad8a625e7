//! Decides, turn by turn, which file is read next and what its bytes become. It sees files, Kafka and
//! the registry only through [`Disk`], [`Sender`] and [`Journal`], so that the simulation runs the same
//! code as production; one thread owns it.

mod copies;
mod read;
mod scan;
#[cfg(test)]
mod sim;
mod source;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elkfk_wire::source_id::{Generation, SourceId};
use tracing::{info, warn};

use crate::config::{Config, InputConfig, PartitionChoice};
use crate::discovery::Pattern;
use crate::disk::Disk;
use crate::event::Template;
use crate::event::format::Format;
use crate::harvester::{LineSettings, Outputs};
use crate::identity::FileId;
use crate::metrics;
use crate::partitions::PartitionTable;
use crate::registry::{self, Contents, FileState, Journal};
use source::{Ignored, Shadow, Source};

/// What an event costs the producer beyond its value: its header, key and bookkeeping.
const EVENT_OVERHEAD_BYTES: u64 = 400;
/// Below, there is no room for an event around its message.
const MESSAGE_BYTES_MIN: usize = 2048;
/// Bytes read from a file at a time: small enough to stay in the cache while its lines are written out.
const BLOCK_BYTES: usize = 128 << 10;
/// Blocks read before acknowledgements and wakes are looked at again.
const BLOCKS_PER_TURN: usize = 8;
const TICK: Duration = Duration::from_millis(200);
/// How often positions go to the registry; it syncs them once a second.
const SAVE_INTERVAL: Duration = Duration::from_millis(250);
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a truncated or vanished file's copy is looked for.
const COPY_PATIENCE: Duration = Duration::from_secs(10 * 60);
/// How long a deleted file is remembered, so that its compressed form is recognised.
const TOMBSTONE_MS: u64 = 48 * 3600 * 1000;
/// A journal shorter than this is never compacted.
const COMPACT_BYTES: u64 = 1 << 20;
/// A scan may take at most this share of the time when events ask for one after the other.
const SCAN_SHARE: u32 = 10;

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    pub instant: Instant,
    pub unix_ms: u64,
}

/// The way to Kafka.
pub(crate) trait Sender {
    /// How many partitions `topic` has; none while that is unknown.
    fn partitions(&mut self, topic: &str) -> Option<i32>;
    /// Takes the record over, or refuses it at once.
    fn send(&mut self, record: Record<'_>) -> Result<(), String>;
    /// Moves what was answered since the last call into `acks`.
    fn take_acks(&mut self, acks: &mut Vec<Ack>);
}

#[derive(Debug)]
pub(crate) struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: &'a [u8],
    pub source: SourceId,
    pub time_ms: i64,
    /// Comes back with the acknowledgement.
    pub ticket: Ticket,
}

/// Which event of which source a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Ticket(pub usize);

const NUMBER_BITS: u32 = 40;

impl Ticket {
    fn new(slot: usize, number: u64) -> Self {
        Self(slot << NUMBER_BITS | number as usize)
    }

    fn slot(self) -> usize {
        self.0 >> NUMBER_BITS
    }

    fn number(self) -> u64 {
        (self.0 & ((1 << NUMBER_BITS) - 1)) as u64
    }
}

/// The answer to a record.
#[derive(Debug)]
pub(crate) struct Ack {
    pub ticket: Ticket,
    /// Length of its value.
    pub bytes: usize,
    pub partition: i32,
    /// When it came, which may be some time before it is taken.
    pub at_ms: u64,
    pub result: Result<(), Refusal>,
}

/// Why a record was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It will never be as it is: the broker's limit is lower than ours.
    TooLarge(String),
    Other(String),
}

/// When the next turn is due, if nothing wakes the engine before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Now,
    At(Instant),
}

/// One watched file, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    pub path: PathBuf,
    /// Id of the input.
    pub input: String,
    pub generation: Generation,
    /// Next byte to read, and up to which byte everything is acknowledged.
    pub position: u64,
    pub acked: u64,
    pub size: u64,
    /// Bytes not acknowledged yet.
    pub lag_bytes: u64,
    pub partition: Option<i32>,
    pub is_open: bool,
    pub last_error: Option<String>,
}

#[derive(Debug)]
struct InputState {
    config: InputConfig,
    patterns: Vec<Pattern>,
    lines: Arc<LineSettings>,
    template: Arc<Template>,
    topic: Format,
    /// The topic, where it is the same for all events.
    fixed_topic: Option<String>,
    key: Option<Format>,
    scan_due: Instant,
    is_scanned: bool,
}

#[derive(Debug)]
pub(crate) struct Engine<D: Disk, S, J> {
    disk: D,
    pub(crate) sender: S,
    pub(crate) journal: J,
    inputs: Vec<InputState>,
    sources: Vec<Option<Source<D::File>>>,
    /// Free places among them, with the number their next record has.
    free: Vec<(usize, u64)>,
    by_id: HashMap<(usize, FileId), usize>,
    by_path: HashMap<PathBuf, BTreeSet<usize>>,
    by_directory: HashMap<PathBuf, BTreeSet<usize>>,
    /// Heads of all generations; which of their lengths are in use, and how often.
    heads: HashMap<(usize, u16, u64), BTreeSet<usize>>,
    head_lengths: BTreeMap<u16, usize>,
    shadows: HashMap<(usize, FileId), Shadow>,
    ignored: HashMap<(usize, FileId), Ignored>,
    /// Sources with something to read, in turn.
    active: VecDeque<usize>,
    tables: HashMap<String, PartitionTable>,
    choice: PartitionChoice,
    round: u64,
    limits: Limits,
    in_flight_bytes: u64,
    in_flight_by_partition: HashMap<i32, u64>,
    open_files: usize,
    tick_due: Instant,
    save_due: Instant,
    minute_due: Instant,
    last_scan_ended: Instant,
    last_scan_took: Duration,
    wants_rescan: bool,
    /// Entries appended to the journal, and how many of them are durable.
    appended: u64,
    synced: u64,
    started_ms: u64,
    begun_ms: u64,
    is_stopping: bool,
    read_failures: RateLimit,
    outputs: Outputs,
    buffer: Vec<u8>,
    json: Vec<u8>,
    writer: crate::event::Writer,
    acks: Vec<Ack>,
    random: fn() -> u64,
    /// Directories in which changes matter, as the last scan of each input found them, and how often
    /// any was scanned.
    directories: Vec<BTreeSet<PathBuf>>,
    scans: u64,
    /// Entries of inputs that are not configured now. They stand in the journal and stay there.
    kept: Vec<FileState>,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    in_flight_bytes: u64,
    open_files: usize,
    message_bytes: usize,
    partial_timeout: Duration,
}

/// Lets one message of a kind through every so often.
#[derive(Debug, Default)]
struct RateLimit {
    last: Option<Instant>,
}

impl RateLimit {
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due =
            self.last.is_none_or(|last| now.duration_since(last) > Duration::from_secs(10));
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

impl<D, S, J> Engine<D, S, J>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send + Sync + 'static,
    S: Sender,
    J: Journal,
{
    /// Goes on where `contents` of the journal left off. `random` supplies 64 random bits.
    pub(crate) fn new(
        config: &Config,
        disk: D,
        sender: S,
        mut journal: J,
        contents: Contents,
        now: Now,
        random: fn() -> u64,
    ) -> Self {
        let is_new = contents.begun_ms == 0;
        let begun_ms = if is_new { now.unix_ms } else { contents.begun_ms };
        let agent = if contents.agent.is_empty() { agent_id(random) } else { contents.agent };
        if is_new {
            let mut bytes = Vec::new();
            registry::write_begun(begun_ms, &agent, &mut bytes);
            journal.append(&bytes);
        }
        let inputs = config.inputs.iter().map(|input| {
            let template = Template::new(config, input, &agent);
            let topic = config.output.topic.resolve(&template.fields);
            let patterns = input
                .paths
                .iter()
                .filter_map(|path| Pattern::parse(path, input.recursive_glob).ok())
                .flatten()
                .collect();
            InputState {
                patterns,
                lines: Arc::new(input.lines.clone()),
                fixed_topic: topic.fixed().map(str::to_string),
                topic,
                key: config.output.key.as_ref().map(|key| key.resolve(&template.fields)),
                template,
                config: input.clone(),
                scan_due: now.instant,
                is_scanned: false,
            }
        });
        let mut engine = Self {
            inputs: inputs.collect(),
            disk,
            sender,
            journal,
            sources: Vec::new(),
            free: Vec::new(),
            by_id: HashMap::new(),
            by_path: HashMap::new(),
            by_directory: HashMap::new(),
            heads: HashMap::new(),
            head_lengths: BTreeMap::new(),
            shadows: HashMap::new(),
            ignored: HashMap::new(),
            active: VecDeque::new(),
            tables: HashMap::new(),
            choice: config.output.partition.clone(),
            round: 0,
            limits: Limits {
                in_flight_bytes: config.in_flight_bytes.max(1 << 20),
                open_files: if config.open_files == 0 { usize::MAX } else { config.open_files },
                message_bytes: config.output.max_message_bytes,
                partial_timeout: config.partial_timeout,
            },
            in_flight_bytes: 0,
            in_flight_by_partition: HashMap::new(),
            open_files: 0,
            tick_due: now.instant,
            save_due: now.instant + SAVE_INTERVAL,
            minute_due: now.instant + Duration::from_secs(60),
            last_scan_ended: now.instant,
            last_scan_took: Duration::ZERO,
            wants_rescan: false,
            appended: u64::from(is_new),
            synced: 0,
            started_ms: now.unix_ms,
            begun_ms,
            is_stopping: false,
            read_failures: RateLimit::default(),
            outputs: Outputs::default(),
            buffer: vec![0; BLOCK_BYTES + crate::identity::GUARD_BYTES],
            json: Vec::new(),
            writer: crate::event::Writer::default(),
            acks: Vec::new(),
            random,
            directories: vec![BTreeSet::new(); config.inputs.len()],
            scans: 0,
            kept: Vec::new(),
        };
        let mut states: Vec<_> = contents.states.into_values().collect();
        // The order of a hash map would make two runs of one simulation differ.
        states.sort_by_key(|state| state.generation);
        for state in states {
            match engine.inputs.iter().position(|input| input.config.id == state.input) {
                Some(input) => engine.adopt(input, state, now),
                // Its input is not configured now; it may come back.
                None => engine.keep(state),
            }
        }
        engine
    }

    /// Does what is due and some reading.
    pub(crate) fn turn(&mut self, now: Now) -> Next {
        self.take_acks(now);
        if !self.is_stopping {
            self.scan_if_due(now);
        }
        if now.instant >= self.tick_due {
            self.tick(now);
            self.tick_due = now.instant + TICK;
        }
        if !self.is_stopping && self.read_some(now) {
            return Next::Now;
        }
        let scans = self.inputs.iter().map(|input| input.scan_due).min();
        let mut next = scans.map_or(self.tick_due, |scan| scan.min(self.tick_due));
        if self.wants_rescan {
            next = next.min(self.rescan_due());
        }
        if next <= now.instant { Next::Now } else { Next::At(next) }
    }

    /// A file may have grown.
    pub(crate) fn wake_path(&mut self, path: &Path) -> bool {
        let Some(slots) = self.by_path.get(path) else { return false };
        for slot in slots.clone() {
            self.activate(slot);
        }
        true
    }

    /// Directory entries came or went.
    pub(crate) fn rescan(&mut self) {
        self.wants_rescan = true;
    }

    /// Directories in which changes matter, as the last scans found them.
    pub(crate) fn directories(&self) -> BTreeSet<PathBuf> {
        self.directories.iter().flatten().cloned().collect()
    }

    /// Changes with every scan.
    pub(crate) fn scans(&self) -> u64 {
        self.scans
    }

    /// No more reading; acknowledgements are still taken.
    pub(crate) fn stop_reading(&mut self) {
        self.is_stopping = true;
    }

    pub(crate) fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Whether reading waits for acknowledgements.
    pub(crate) fn is_short_of_credit(&self) -> bool {
        !self.active.is_empty()
    }

    /// Writes down how far everything is acknowledged, durably.
    pub(crate) fn save(&mut self) -> std::io::Result<()> {
        for source in self.sources.iter_mut().flatten() {
            source.state.sent_to = source.sent_to;
            source.is_dirty = true;
        }
        self.save_positions();
        self.journal.sync()?;
        self.synced = self.appended;
        Ok(())
    }

    pub(crate) fn files(&self) -> Vec<FileStatus> {
        let sources = self.sources.iter().flatten();
        sources.filter_map(|source| source.status(&self.inputs[source.input].config.id)).collect()
    }

    fn rescan_due(&self) -> Instant {
        // Scans asked for by events leave most of the time to reading.
        self.last_scan_ended + (self.last_scan_took * SCAN_SHARE).max(Duration::from_millis(5))
    }

    fn activate(&mut self, slot: usize) {
        if let Some(source) = self.sources.get_mut(slot).and_then(Option::as_mut)
            && source.is_readable()
        {
            source.has_changed = true;
            self.queue(slot);
        }
    }

    fn queue(&mut self, slot: usize) {
        if let Some(source) = self.sources.get_mut(slot).and_then(Option::as_mut)
            && !source.is_active
        {
            source.is_active = true;
            self.active.push_back(slot);
        }
    }

    /// Reads blocks from the active files in turn. Returns whether there is more to do at once.
    fn read_some(&mut self, now: Now) -> bool {
        let mut blocks = 0;
        let mut blocked = 0;
        while blocks < BLOCKS_PER_TURN && blocked < self.active.len() {
            let Some(slot) = self.active.pop_front() else { break };
            // Whatever happens to it while it is read may put it back.
            if let Some(source) = &mut self.sources[slot] {
                source.is_active = false;
            }
            let step = self.read_block(now, slot);
            if let Some(source) = &mut self.sources[slot] {
                source.is_at_end = step == read::Step::Idle;
            }
            match step {
                read::Step::Progress => {
                    blocks += 1;
                    blocked = 0;
                    self.queue(slot);
                }
                read::Step::Blocked => {
                    blocked += 1;
                    self.watch_over(now, slot);
                    self.queue(slot);
                }
                read::Step::Idle => blocks += 1,
            }
        }
        blocks > 0 && blocked < self.active.len()
    }

    fn take_acks(&mut self, now: Now) {
        let mut acks = std::mem::take(&mut self.acks);
        self.sender.take_acks(&mut acks);
        // Counted here and added at the end: an atomic for each of a million a second would be felt.
        let took = (!acks.is_empty()).then(|| metrics::ACK_SECONDS.local());
        for ack in acks.drain(..) {
            let cost = ack.bytes as u64 + EVENT_OVERHEAD_BYTES;
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(cost);
            if let Some(bytes) = self.in_flight_by_partition.get_mut(&ack.partition) {
                *bytes = bytes.saturating_sub(cost);
            }
            let slot = ack.ticket.slot();
            let Some(source) = self.sources.get_mut(slot).and_then(Option::as_mut) else {
                continue;
            };
            match ack.result {
                Ok(()) => {
                    metrics::ACKED.inc();
                    let ms = source.in_flight.ack(ack.ticket.number(), ack.at_ms);
                    if let (Some(ms), Some(took)) = (ms, &took) {
                        took.observe(ms as f64 / 1000.0);
                    }
                    source.is_dirty = true;
                }
                Err(refusal) => {
                    metrics::SEND_FAILURES.inc();
                    let error = match refusal {
                        Refusal::TooLarge(error) => {
                            let room = (ack.bytes / 2).max(MESSAGE_BYTES_MIN);
                            source.message_bytes = source.message_bytes.min(room);
                            error
                        }
                        Refusal::Other(error) => error,
                    };
                    if source.in_flight.holds(ack.ticket.number()) {
                        if self.read_failures.is_due(now.instant) {
                            let path = source.path.display();
                            warn!(%path, error, "events were refused and will be read and sent again");
                        }
                        source.last_error = Some(error);
                        self.rewind(now, slot);
                    }
                }
            }
        }
        if let Some(took) = took {
            took.flush();
        }
        self.acks = acks;
        metrics::IN_FLIGHT_BYTES.set(self.in_flight_bytes as i64);
    }

    /// Whether one more block may be read for `partition`.
    ///
    /// A partition may hold as much as is still free, so that however many partitions are dead,
    /// something is left for the living.
    fn has_room(&self, partition: Option<i32>) -> bool {
        let free = self.limits.in_flight_bytes.saturating_sub(self.in_flight_bytes);
        let held =
            partition.and_then(|p| self.in_flight_by_partition.get(&p)).copied().unwrap_or(0);
        free > 0 && held < free
    }

    fn tick(&mut self, now: Now) {
        for slot in 0..self.sources.len() {
            if self.sources[slot].is_some() && !self.is_stopping {
                self.tick_source(now, slot);
            }
        }
        if now.instant >= self.minute_due {
            self.minute_due = now.instant + Duration::from_secs(60);
            self.tables.values_mut().for_each(PartitionTable::minute_passed);
        }
        if now.instant >= self.save_due {
            self.save_due = now.instant + SAVE_INTERVAL;
            self.save_positions();
            self.compact_if_worthwhile();
            self.measure();
        }
    }

    fn measure(&self) {
        let (mut files, mut lag) = (0, 0);
        for source in self.sources.iter().flatten().filter(|source| source.state.file.is_some()) {
            files += 1;
            lag += source.lag_bytes();
        }
        metrics::FILES.set(files);
        metrics::LAG_BYTES.set(lag as i64);
        metrics::OPEN_FILES.set(self.open_files as i64);
    }

    fn save_positions(&mut self) {
        let mut bytes = Vec::new();
        for source in self.sources.iter_mut().flatten() {
            // What is not resolved yet may turn out to be no generation of its own.
            if source.is_dirty && source.is_resolved {
                source.is_dirty = false;
                source.note_progress();
                registry::write_state(&source.state, &mut bytes);
            }
        }
        self.append(&bytes);
    }

    fn append(&mut self, bytes: &[u8]) -> u64 {
        if !bytes.is_empty() {
            self.journal.append(bytes);
            self.appended += 1;
        }
        self.appended
    }

    fn compact_if_worthwhile(&mut self) {
        // An entry has some 400 bytes.
        let entries = self.sources.iter().flatten().count() + self.kept.len();
        let live = 1000 * entries as u64;
        if self.journal.len() < COMPACT_BYTES.max(4 * live) {
            return;
        }
        self.compact();
    }

    fn compact(&mut self) {
        let agent = self.inputs.first().and_then(|input| {
            Some(input.template.fields.get("agent")?.get("id")?.as_str()?.to_string())
        });
        let mut bytes = Vec::new();
        registry::write_begun(self.begun_ms, &agent.unwrap_or_default(), &mut bytes);
        for source in self.sources.iter().flatten().filter(|source| source.is_resolved) {
            registry::write_state(&source.state, &mut bytes);
        }
        for state in &self.kept {
            registry::write_state(state, &mut bytes);
        }
        let (before, after) = (self.journal.len(), bytes.len());
        self.journal.replace(&bytes);
        info!(before, after, "registry compacted");
    }

    /// Forgets what is in flight for a source and reads it again after a pause.
    fn rewind(&mut self, now: Now, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        let resume = source.in_flight.rewind();
        source.drop_harvester(resume);
        source.retry_at = Some(now.instant + RETRY_INTERVAL);
    }
}

fn agent_id(random: fn() -> u64) -> String {
    let (a, b) = (random(), random());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0x3fff | 0x8000,
        b & 0xffff_ffff_ffff
    )
}
