//! All the partitions of a broker: opening, making, deleting and closing them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use elkfk_base::errors::in_one_line;
use elkfk_base::now_ms;
use elkfk_wire::kafka::records::Offset;

use super::checkpoint::{
    CheckpointError, MetaProperties, OffsetCheckpoint, TopicId, decode_offsets,
    decode_partition_metadata, encode_partition_metadata,
};
use super::config::TopicConfig;
use super::directory::{Durability, LogDirectory};
use super::disk::{Disk, DiskFile, SystemDisk};
use super::files::{Files, OPEN_FILES_DEFAULT, lock};
use super::partition_log::{Log, METADATA_FILE};
use super::recovery::{LogError, OpenHints};
use crate::metrics;
use crate::partition::Partition;

pub(super) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(super) const LOG_STARTS: &str = "log-start-offset-checkpoint";
pub(super) const CLEANED_TO: &str = "cleaner-offset-checkpoint";
pub(super) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
const META_PROPERTIES: &str = "meta.properties";
/// The end of the name of a deleted partition's directory.
const DELETE_SUFFIX: &str = "-delete";
/// The longest name of a directory.
const NAME_BYTES_MAX: usize = 255;

/// How the logs of a broker are kept.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// `log.dirs`.
    pub directories: Vec<PathBuf>,
    pub broker_id: i32,
    /// Of the cluster this broker has joined; checked against, and written to, `meta.properties`.
    pub cluster_id: Option<String>,
    /// For topics that have no configuration of their own.
    pub topic_defaults: TopicConfig,
    pub topics: HashMap<String, TopicConfig>,
    pub durability: Durability,
    /// `num.recovery.threads.per.data.dir`.
    pub recovery_threads: usize,
    /// `log.retention.check.interval.ms`.
    pub retention_check_interval: Duration,
    /// `log.flush.offset.checkpoint.interval.ms`, also for log starts.
    pub checkpoint_interval: Duration,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub high_watermark_interval: Duration,
    /// `producer.id.expiration.ms`.
    pub producer_expiration: Duration,
    /// `elkfk.log.reserve.bytes`: appends are refused while less is free.
    pub reserve_bytes: u64,
    pub open_files_max: usize,
    pub disk: Arc<dyn Disk>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            directories: vec!["/tmp/kafka-logs".into()],
            broker_id: 0,
            cluster_id: None,
            topic_defaults: TopicConfig::default(),
            topics: HashMap::new(),
            durability: Durability::Group,
            recovery_threads: 2,
            retention_check_interval: Duration::from_secs(5 * 60),
            checkpoint_interval: Duration::from_secs(60),
            high_watermark_interval: Duration::from_secs(5),
            producer_expiration: Duration::from_secs(24 * 60 * 60),
            reserve_bytes: 64 << 20,
            open_files_max: OPEN_FILES_DEFAULT,
            disk: Arc::new(SystemDisk),
        }
    }
}

/// Why the logs of a broker cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("no log directory is given; name one with log.dirs=…")]
    NoDirectory,
    #[error("{action} {path}: {source}; make it writable for this user or give another log.dirs=…")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "log directory {path} is in use by another broker; stop that one or give another log.dirs=…"
    )]
    InUse { path: PathBuf },
    #[error("read {path}: {source}; remove the file if the directory is really this broker's")]
    Checkpoint { path: PathBuf, source: CheckpointError },
    #[error(
        "{path} belongs to broker {found}, this is broker {configured}; \
         correct broker.id or give another log.dirs=…"
    )]
    OtherBroker { path: PathBuf, found: i32, configured: i32 },
    #[error(
        "{path} belongs to cluster {found}, this broker has joined {joined}; \
         correct zookeeper.connect or give another log.dirs=…"
    )]
    OtherCluster { path: PathBuf, found: String, joined: String },
    #[error("partition {topic}-{partition} lies in {first} and in {second}; remove one of them")]
    Twice { topic: String, partition: i32, first: PathBuf, second: PathBuf },
}

/// Why a partition was not made or deleted.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error("partition {topic}-{partition} belongs to another topic of that name")]
    OtherTopicId { topic: String, partition: i32 },
    #[error("partition {topic}-{partition} is offline: {cause}")]
    Offline { topic: String, partition: i32, cause: String },
    #[error("no log directory is usable")]
    NoDirectory,
    #[error("{action} partition {topic}-{partition}")]
    Io { action: &'static str, topic: String, partition: i32, source: io::Error },
    #[error("open partition {topic}-{partition}")]
    Log { topic: String, partition: i32, source: LogError },
}

/// A partition by name.
type Key = (String, i32);

/// All the partitions of a broker.
#[derive(Debug)]
pub struct LogManager {
    pub(super) config: LogConfig,
    pub(super) directories: Vec<Arc<LogDirectory>>,
    partitions: RwLock<BTreeMap<Key, Arc<Partition>>>,
    /// Those on the disk that could not be opened, and why.
    pub(super) offline: Mutex<BTreeMap<Key, Offline>>,
    /// Held while a partition is made or deleted, so that no two do it at once.
    changing: Mutex<()>,
    /// Checkpoints as last written: unchanged ones are left alone.
    pub(super) written: Mutex<BTreeMap<PathBuf, String>>,
    /// Locks of the directories, for as long as this broker runs.
    locks: Mutex<Vec<Box<dyn std::fmt::Debug + Send + Sync>>>,
}

/// Whose directory `path` is; `None` where no broker has used it yet.
pub fn meta_properties(disk: &dyn Disk, path: &Path) -> Result<Option<MetaProperties>, OpenError> {
    let path = path.join(META_PROPERTIES);
    match disk.read(&path) {
        Ok(bytes) => MetaProperties::decode(&String::from_utf8_lossy(&bytes))
            .map(Some)
            .map_err(|source| OpenError::Checkpoint { path, source }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { action: "read", path, source }),
    }
}

/// A partition that could not be opened, and what was known of it.
#[derive(Debug)]
pub(super) struct Offline {
    cause: String,
    pub(super) directory: Arc<LogDirectory>,
    pub(super) hints: OpenHints,
    pub(super) high_watermark: Offset,
}

/// One partition found on the disk.
struct Found {
    directory: Arc<LogDirectory>,
    key: Key,
    path: PathBuf,
    hints: OpenHints,
    high_watermark: Offset,
}

impl LogManager {
    /// Locks the log directories and opens every partition in them. Blocks.
    ///
    /// Partitions that cannot be opened are offline, see [`LogManager::offline`]; the rest serves.
    pub fn open(config: LogConfig) -> Result<Arc<Self>, OpenError> {
        if config.directories.is_empty() {
            return Err(OpenError::NoDirectory);
        }
        let files = Files::new(config.disk.clone(), config.open_files_max);
        let manager = Self {
            directories: config
                .directories
                .iter()
                .map(|path| LogDirectory::new(path, files.clone(), config.reserve_bytes))
                .collect(),
            partitions: RwLock::default(),
            offline: Mutex::default(),
            changing: Mutex::default(),
            written: Mutex::default(),
            locks: Mutex::default(),
            config,
        };
        for directory in &manager.directories {
            manager.claim(directory.path())?;
        }
        let mut found = Vec::new();
        for directory in &manager.directories {
            manager.survey(directory, &mut found)?;
        }
        let mut places = BTreeMap::new();
        for one in &found {
            if let Some(first) = places.insert(one.key.clone(), one.path.clone()) {
                let (topic, partition) = one.key.clone();
                return Err(OpenError::Twice { topic, partition, first, second: one.path.clone() });
            }
        }
        manager.load(found);
        for directory in &manager.directories {
            directory.start_flushers().map_err(|source| OpenError::Io {
                action: "start flushers of",
                path: directory.path().into(),
                source,
            })?;
        }
        // Only from here on is a crash a crash: until now the files were as they had been left.
        manager.checkpoint_all().map_err(|(path, source)| OpenError::Io {
            action: "write",
            path,
            source,
        })?;
        for directory in &manager.directories {
            manager.clear_clean_shutdown(directory.path())?;
        }
        Ok(Arc::new(manager))
    }

    pub(super) fn disk(&self) -> &dyn Disk {
        &*self.config.disk
    }

    /// Makes a directory this broker's: creates it, locks it, checks whose it is.
    fn claim(&self, path: &Path) -> Result<(), OpenError> {
        let io = |action| move |source| OpenError::Io { action, path: path.to_path_buf(), source };
        self.disk().create_directory(path).map_err(io("create"))?;
        match self.disk().lock(path) {
            Ok(held) => lock(&self.locks).push(held),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(OpenError::InUse { path: path.into() });
            }
            Err(source) => return Err(io("lock")(source)),
        }
        let configured = self.config.broker_id;
        match meta_properties(self.disk(), path)? {
            Some(found) => {
                if found.broker_id != configured {
                    let found = found.broker_id;
                    return Err(OpenError::OtherBroker { path: path.into(), found, configured });
                }
                if let (Some(found), Some(joined)) = (found.cluster_id, &self.config.cluster_id)
                    && found != *joined
                {
                    let joined = joined.clone();
                    return Err(OpenError::OtherCluster { path: path.into(), found, joined });
                }
            }
            None => {
                let cluster_id = self.config.cluster_id.clone();
                let text = MetaProperties { broker_id: configured, cluster_id }.encode();
                self.disk()
                    .replace(&path.join(META_PROPERTIES), text.as_bytes())
                    .map_err(io("write meta.properties in"))?;
            }
        }
        Ok(())
    }

    /// Lists the partitions in a directory.
    fn survey(
        &self,
        directory: &Arc<LogDirectory>,
        found: &mut Vec<Found>,
    ) -> Result<(), OpenError> {
        let path = directory.path();
        let recovery_points = self.read_offsets(&path.join(RECOVERY_POINTS))?;
        let log_starts = self.read_offsets(&path.join(LOG_STARTS))?;
        let cleaned = self.read_offsets(&path.join(CLEANED_TO))?;
        let high_watermarks = self.read_offsets(&path.join(HIGH_WATERMARKS))?;
        let entries = self.disk().list(path).map_err(|source| OpenError::Io {
            action: "list",
            path: path.into(),
            source,
        })?;
        let is_clean = entries.iter().any(|entry| entry.name == CLEAN_SHUTDOWN);
        for entry in entries.iter().filter(|entry| entry.is_directory) {
            let place = path.join(&entry.name);
            if entry.name.ends_with(DELETE_SUFFIX) {
                directory.remove_later(vec![place], Duration::ZERO);
                continue;
            }
            let Some(key) = parse_partition_directory(&entry.name) else {
                if !["lost+found", "__cluster_metadata-0"].contains(&entry.name.as_str()) {
                    tracing::warn!(path = %place.display(), "directory is no partition's, it is left alone");
                }
                continue;
            };
            let offset = |of: &OffsetCheckpoint| of.get(&key).copied().unwrap_or(Offset::ZERO);
            let hints = OpenHints {
                is_clean,
                recovery_point: offset(&recovery_points),
                log_start: offset(&log_starts),
                cleaned_to: offset(&cleaned),
            };
            let high_watermark = offset(&high_watermarks);
            found.push(Found {
                directory: directory.clone(),
                key,
                path: place,
                hints,
                high_watermark,
            });
        }
        Ok(())
    }

    fn read_offsets(&self, path: &Path) -> Result<OffsetCheckpoint, OpenError> {
        match self.disk().read(path) {
            Ok(bytes) => decode_offsets(&String::from_utf8_lossy(&bytes)).or_else(|error| {
                // Without it logs are walked from their start: slower, and as good.
                tracing::warn!(%error, path = %path.display(), "checkpoint cannot be read, it is made anew");
                Ok(OffsetCheckpoint::new())
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(OffsetCheckpoint::new()),
            Err(source) => Err(OpenError::Io { action: "read", path: path.into(), source }),
        }
    }

    /// Opens partitions, several at once.
    fn load(&self, found: Vec<Found>) {
        let started = Instant::now();
        let count = found.len();
        let threads = (self.config.recovery_threads * self.directories.len()).clamp(1, 64);
        let queue = Mutex::new(found);
        let next = || lock(&queue).pop();
        std::thread::scope(|scope| {
            for _ in 0..threads.min(count) {
                scope.spawn(|| {
                    while let Some(one) = next() {
                        self.load_one(one);
                    }
                });
            }
        });
        tracing::info!(
            partitions = count,
            millis = started.elapsed().as_millis() as u64,
            "logs opened"
        );
    }

    fn load_one(&self, found: Found) {
        let (topic, partition) = found.key.clone();
        let opened = Log::open(
            found.directory.files().clone(),
            &found.path,
            self.topic_config(&topic),
            found.hints,
            now_ms(),
        );
        match opened {
            Ok((log, recovery)) => {
                if recovery.cut_bytes > 0 || recovery.damaged_batches > 0 {
                    tracing::warn!(
                        topic,
                        partition,
                        cut_bytes = recovery.cut_bytes,
                        damaged_batches = recovery.damaged_batches,
                        log_end = log.log_end().0,
                        "log was repaired"
                    );
                }
                if recovery.missing_offsets > 0 {
                    metrics::MISSING_RECORDS.inc_by(recovery.missing_offsets);
                    tracing::error!(
                        topic,
                        partition,
                        log_end = log.log_end().0,
                        recovery_point = found.hints.recovery_point.0,
                        missing = recovery.missing_offsets,
                        "records that were durable are missing at the end of the log; if it was restored from a copy, that one was older"
                    );
                }
                let topic_id = self.read_topic_id(&found.path);
                let made = Partition::new(
                    &topic,
                    partition,
                    topic_id,
                    found.directory,
                    self.config.durability,
                    log,
                    found.high_watermark,
                );
                self.insert(found.key, made);
            }
            Err(error) => {
                let cause = in_one_line(&error);
                tracing::error!(topic, partition, error = %cause, "partition is offline");
                let Found { key, directory, hints, high_watermark, .. } = found;
                let offline = Offline { cause, directory, hints, high_watermark };
                lock(&self.offline).insert(key, offline);
            }
        }
    }

    fn read_topic_id(&self, path: &Path) -> Option<TopicId> {
        let path = path.join(METADATA_FILE);
        let bytes = self.disk().read(&path).ok()?;
        decode_partition_metadata(&String::from_utf8_lossy(&bytes))
            .inspect_err(
                |error| tracing::warn!(%error, path = %path.display(), "topic id cannot be read"),
            )
            .ok()
    }

    fn insert(&self, key: Key, partition: Arc<Partition>) {
        self.partitions
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .insert(key, partition);
    }

    fn clear_clean_shutdown(&self, path: &Path) -> Result<(), OpenError> {
        let io = |source| OpenError::Io { action: "clear", path: path.to_path_buf(), source };
        match self.disk().remove_file(&path.join(CLEAN_SHUTDOWN)) {
            Ok(()) => self.disk().sync_directory(path).map_err(io),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io(error)),
        }
    }

    /// The configuration in force for a topic.
    pub fn topic_config(&self, topic: &str) -> TopicConfig {
        match self.config.topics.get(topic) {
            Some(config) => config.clone(),
            None if topic == "__consumer_offsets" => TopicConfig::consumer_offsets(),
            None => self.config.topic_defaults.clone(),
        }
    }

    /// The partition, if it is on this broker and can be used.
    pub fn partition(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        partitions.get(&(topic.to_owned(), partition)).cloned()
    }

    /// All partitions, by topic and number.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        let partitions = self.partitions.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        partitions.values().cloned().collect()
    }

    /// The partitions on the disk that could not be opened, and why.
    pub fn offline(&self) -> BTreeMap<(String, i32), String> {
        let offline = lock(&self.offline);
        offline.iter().map(|(key, one)| (key.clone(), one.cause.clone())).collect()
    }

    pub fn directories(&self) -> &[Arc<LogDirectory>] {
        &self.directories
    }

    /// The partition, which is made where it is not there yet.
    ///
    /// Its files become durable with its first records: until then it holds nothing to lose, and
    /// the controller asks for it again.
    pub fn create(
        &self,
        topic: &str,
        topic_id: Option<TopicId>,
        partition: i32,
        config: TopicConfig,
    ) -> Result<Arc<Partition>, PartitionError> {
        let _changing = lock(&self.changing);
        if let Some(existing) = self.partition(topic, partition) {
            if let (Some(wanted), Some(found)) = (topic_id, existing.topic_id())
                && wanted != found
            {
                return Err(PartitionError::OtherTopicId { topic: topic.to_owned(), partition });
            }
            if let (Some(wanted), None) = (topic_id, existing.topic_id()) {
                existing.adopt_topic_id(wanted, |path| self.write_topic_id(path, wanted)).map_err(
                    |source| PartitionError::Io {
                        action: "name the topic of",
                        topic: topic.to_owned(),
                        partition,
                        source,
                    },
                )?;
            }
            existing.configure(config);
            return Ok(existing);
        }
        let key = (topic.to_owned(), partition);
        if let Some(offline) = lock(&self.offline).get(&key) {
            let (topic, cause) = (topic.to_owned(), offline.cause.clone());
            return Err(PartitionError::Offline { topic, partition, cause });
        }
        let directory = self.emptiest_directory().ok_or(PartitionError::NoDirectory)?;
        let path = directory.path().join(format!("{topic}-{partition}"));
        let io = |source| PartitionError::Io {
            action: "create",
            topic: topic.to_owned(),
            partition,
            source,
        };
        self.disk().create_directory(&path).map_err(io)?;
        let opened =
            Log::open(directory.files().clone(), &path, config, OpenHints::default(), now_ms());
        let (mut log, _) = opened.map_err(|source| PartitionError::Log {
            topic: topic.to_owned(),
            partition,
            source,
        })?;
        if let Some(topic_id) = topic_id {
            log.sync_with_next(self.write_topic_id(&path, topic_id).map_err(io)?);
        }
        let durability = self.config.durability;
        let made =
            Partition::new(topic, partition, topic_id, directory, durability, log, Offset::ZERO);
        self.insert(key, made.clone());
        Ok(made)
    }

    fn write_topic_id(&self, path: &Path, topic_id: TopicId) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk().open(&path.join(METADATA_FILE), true)?;
        file.set_len(0)?;
        file.write_at(0, encode_partition_metadata(topic_id).as_bytes())?;
        Ok(file)
    }

    fn emptiest_directory(&self) -> Option<Arc<LogDirectory>> {
        let partitions = self.partitions();
        let count = |directory: &Arc<LogDirectory>| {
            partitions.iter().filter(|it| Arc::ptr_eq(it.directory(), directory)).count()
        };
        let usable = self.directories.iter().filter(|directory| directory.failed().is_none());
        usable.min_by_key(|directory| count(directory)).cloned()
    }

    /// Takes a partition away; its files go later. One that is not there is fine.
    pub fn delete(&self, topic: &str, partition: i32) -> Result<(), PartitionError> {
        let _changing = lock(&self.changing);
        let Some(gone) = self.partition(topic, partition) else { return Ok(()) };
        let name = deleted_name(topic, partition);
        let renamed = gone
            .delete(|path| {
                let to = gone.directory().path().join(&name);
                self.disk().rename(path, &to)?;
                self.disk().sync_directory(gone.directory().path())?;
                Ok(to)
            })
            .map_err(|source| PartitionError::Io {
                action: "delete",
                topic: topic.to_owned(),
                partition,
                source,
            })?;
        let delay = gone.config().delete_delay;
        gone.directory().remove_later(vec![renamed], delay);
        self.partitions
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .remove(&(topic.to_owned(), partition));
        // A topic of the same name must not inherit this recovery point.
        if let Err((path, error)) = self.checkpoint(false, true) {
            tracing::warn!(%error, path = %path.display(), "checkpoint not written yet");
        }
        Ok(())
    }

    /// Gives all partitions of a topic another configuration.
    pub fn configure(&self, topic: &str, config: &TopicConfig) {
        for partition in self.partitions().iter().filter(|it| it.topic() == topic) {
            partition.configure(config.clone());
        }
    }

    /// Resolves with the path and cause once a log directory fails.
    pub async fn failed(&self) -> (PathBuf, String) {
        let mut waits: Vec<_> = self
            .directories
            .iter()
            .map(|directory| {
                let mut failure = directory.failure();
                Box::pin(async move {
                    match failure.wait_for(Option::is_some).await.map(|cause| cause.clone()) {
                        Ok(cause) => (directory.path().to_path_buf(), cause.unwrap_or_default()),
                        // The sender lives as long as the directory, which is borrowed here.
                        Err(_) => std::future::pending().await,
                    }
                })
            })
            .collect();
        std::future::poll_fn(|context| {
            waits
                .iter_mut()
                .map(|wait| wait.as_mut().poll(context))
                .find(std::task::Poll::is_ready)
                .unwrap_or(std::task::Poll::Pending)
        })
        .await
    }

    /// Leaves everything as a kill would, but for the threads.
    #[cfg(test)]
    pub(crate) fn abandon(&self) {
        for directory in &self.directories {
            directory.stop_flushers();
        }
        lock(&self.locks).clear();
    }

    /// Syncs and closes every log, and says so to the next start. Blocks. Call it last.
    pub fn shutdown(&self) {
        for directory in &self.directories {
            directory.stop_flushers();
        }
        for partition in self.partitions() {
            let directory = partition.directory();
            if directory.failed().is_none()
                && let Err(error) = partition.close()
            {
                let name = format!("{}-{}", partition.topic(), partition.partition());
                directory.fail(&format!("close {name}: {error}"));
            }
        }
        if let Err((path, error)) = self.checkpoint_all() {
            tracing::error!(%error, path = %path.display(), "checkpoint not written, the next start walks the logs");
            return;
        }
        for directory in self.directories.iter().filter(|it| it.failed().is_none()) {
            // A log that could not be opened was not left in order.
            if lock(&self.offline).values().any(|it| Arc::ptr_eq(&it.directory, directory)) {
                continue;
            }
            let path = directory.path().join(CLEAN_SHUTDOWN);
            let written = self
                .disk()
                .open(&path, true)
                .and_then(|_| self.disk().sync_directory(directory.path()));
            if let Err(error) = written {
                tracing::error!(%error, path = %path.display(), "orderly stop not recorded, the next start walks the logs");
            }
        }
        lock(&self.locks).clear();
    }
}

/// `TOPIC-PARTITION`; topics may contain dashes.
fn parse_partition_directory(name: &str) -> Option<Key> {
    let (topic, partition) = name.rsplit_once('-')?;
    let is_plain = !topic.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| Some((topic.to_owned(), partition.parse().ok()?))).flatten()
}

/// `TOPIC-PARTITION.UUID-delete`, as Kafka's own start finds and removes it.
fn deleted_name(topic: &str, partition: i32) -> String {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let end = format!("-{partition}.{unique}{DELETE_SUFFIX}");
    // Topic names are ASCII and at most 249 bytes long.
    let topic = topic.get(..topic.len().min(NAME_BYTES_MAX - end.len())).unwrap_or(topic);
    format!("{topic}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partition_directories_are_told_from_others() {
        assert_eq!(parse_partition_directory("a-b-12"), Some(("a-b".to_owned(), 12)));
        for other in ["a", "-1", "a-", "a-x", "a-1.0123-delete", "a-1-future", "a-99999999999"] {
            assert_eq!(parse_partition_directory(other), None, "{other}");
        }
    }

    #[test]
    fn deleted_names_fit_a_directory_entry() {
        let name = deleted_name(&"t".repeat(249), 100);
        assert!(name.len() <= NAME_BYTES_MAX && name.ends_with("-delete"), "{name}");
    }
}
