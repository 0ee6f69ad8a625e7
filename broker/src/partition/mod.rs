//! A partition: its log, who leads it, and how far it may be read.
//!
//! With `Durability::Group` the high watermark rises only over what an fdatasync has covered, for
//! acks=0 and 1 too: what a consumer has seen, no power cut takes back. An acknowledgement of
//! acks=all waits for the same.

mod isr;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bytes::Bytes;
use elkfk_base::now_ms;
use elkfk_wire::kafka::records::{LeaderEpoch, Offset};
use tokio::sync::watch;

pub use isr::{BrokerId, InSyncReplicas};

use crate::log::{
    AppendError, AppendInfo, CleanError, DiskFile, Durability, Log, LogDirectory, LogError,
    LookupError, Origin, ReadPlan, TimestampOffset, TimestampPlan, TopicConfig, TopicId, lock,
    validate,
};

/// Retention may take the segment away that a timestamp is looked for in, hardly several in a row.
const LOOKUP_ATTEMPTS: u32 = 3;

/// What a produce request says about an append.
#[derive(Debug, Clone, Copy)]
pub struct AppendOptions {
    /// -1 is all: the append is refused where fewer than `min.insync.replicas` are in sync.
    pub acks: i16,
    /// The leader epoch the sender believes in.
    pub required_epoch: Option<LeaderEpoch>,
    pub origin: Origin,
}

impl Default for AppendOptions {
    fn default() -> Self {
        Self { acks: -1, required_epoch: None, origin: Origin::Client }
    }
}

/// How far a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// To the high watermark: `read_uncommitted`.
    Uncommitted,
    /// To the first open transaction: `read_committed`.
    Committed,
    /// To the log end: a follower.
    LogEnd,
}

/// Whole batches, and the partition's positions when they were read.
#[derive(Debug, Clone)]
pub struct ReadInfo {
    /// The first batch may start before the offset asked for; empty where there is none yet.
    pub bytes: Bytes,
    pub high_watermark: Offset,
    /// Where `read_committed` ends.
    pub last_stable: Offset,
    pub log_start: Offset,
    pub log_end: Offset,
    /// Before it there is nothing more to be had where `bytes` are empty: compaction leaves gaps.
    pub searched_to: Offset,
}

/// Why a partition was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("leader epoch {given} is not the current {current}")]
    Epoch { given: LeaderEpoch, current: LeaderEpoch },
    #[error("offset {from} is not in {log_start}..={log_end}")]
    OutOfRange { from: Offset, log_start: Offset, log_end: Offset },
    #[error("log directory has failed: {cause}")]
    DirectoryFailed { cause: String },
    #[error("partition was deleted")]
    Deleted,
    #[error("read the log")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Lookup(LookupError),
}

/// The positions of a partition that others wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    pub log_start: Offset,
    pub high_watermark: Offset,
    /// True while this broker leads the partition.
    pub is_leader: bool,
    pub is_deleted: bool,
}

/// Who leads.
#[derive(Debug)]
enum Role {
    /// Loaded from the disk; the controller has not spoken yet.
    Unassigned,
    Leader {
        epoch: LeaderEpoch,
        isr: InSyncReplicas,
    },
    Follower {
        epoch: LeaderEpoch,
    },
}

#[derive(Debug)]
struct State {
    log: Log,
    role: Role,
    /// Of the checkpoint, or of the last leader; the leader's own is in `Role::Leader`.
    high_watermark: Offset,
    is_deleted: bool,
}

impl State {
    fn high_watermark(&self) -> Offset {
        match &self.role {
            Role::Leader { isr, .. } => isr.high_watermark(),
            Role::Unassigned | Role::Follower { .. } => self.high_watermark,
        }
    }
}

/// One partition on this broker. Calls block on the disk for as long as its page cache does.
#[derive(Debug)]
pub struct Partition {
    topic: String,
    partition: i32,
    topic_id: OnceLock<TopicId>,
    directory: Arc<LogDirectory>,
    durability: Durability,
    state: Mutex<State>,
    positions: watch::Sender<Positions>,
    /// True while the flusher has this partition in its queue.
    is_sync_queued: AtomicBool,
    /// Held while a sync runs: one that began later covers less than it seems to until the
    /// earlier one is through.
    syncing: Mutex<()>,
}

impl Partition {
    pub(crate) fn new(
        topic: &str,
        partition: i32,
        topic_id: Option<TopicId>,
        directory: Arc<LogDirectory>,
        durability: Durability,
        log: Log,
        high_watermark: Offset,
    ) -> Arc<Self> {
        let high_watermark = high_watermark.clamp(log.log_start(), log.log_end());
        let positions = Positions {
            log_start: log.log_start(),
            high_watermark,
            is_leader: false,
            is_deleted: false,
        };
        Arc::new(Self {
            topic: topic.to_owned(),
            partition,
            topic_id: topic_id.map(OnceLock::from).unwrap_or_default(),
            directory,
            durability,
            state: Mutex::new(State {
                log,
                role: Role::Unassigned,
                high_watermark,
                is_deleted: false,
            }),
            positions: watch::Sender::new(positions),
            is_sync_queued: AtomicBool::new(false),
            syncing: Mutex::new(()),
        })
    }

    pub fn topic(&self) -> &str {
        &self.topic
    }

    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// `None` where an inter-broker protocol before 2.8 made the topic.
    pub fn topic_id(&self) -> Option<TopicId> {
        self.topic_id.get().copied()
    }

    /// Gives a partition that had none its topic id, by `write` into the log's directory.
    pub(crate) fn adopt_topic_id(
        &self,
        topic_id: TopicId,
        write: impl FnOnce(&Path) -> io::Result<Arc<dyn DiskFile>>,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        let file = write(state.log.directory())?;
        state.log.sync_with_next(file);
        let _ = self.topic_id.set(topic_id);
        Ok(())
    }

    pub fn directory(&self) -> &Arc<LogDirectory> {
        &self.directory
    }

    /// Makes this broker the leader, of `epoch`, with these followers in sync.
    ///
    /// An epoch not above the current one changes nothing but the followers.
    pub fn become_leader(
        &self,
        local: BrokerId,
        epoch: LeaderEpoch,
        in_sync_followers: &[BrokerId],
    ) -> Result<(), AppendError> {
        let mut guard = lock(&self.state);
        let state = &mut *guard;
        self.check_usable(state)?;
        match &mut state.role {
            Role::Leader { epoch: current, isr } if *current >= epoch => {
                isr.set_followers(in_sync_followers.iter().map(|&id| (id, Offset::ZERO)));
            }
            _ => {
                state.log.start_epoch(epoch);
                let isr = InSyncReplicas::new(
                    local,
                    self.safe_end(&state.log),
                    in_sync_followers.iter().copied(),
                    state.high_watermark(),
                );
                state.role = Role::Leader { epoch, isr };
            }
        }
        self.publish(state);
        Ok(())
    }

    /// Makes this broker a follower.
    pub fn become_follower(&self, epoch: LeaderEpoch) {
        let mut state = lock(&self.state);
        state.high_watermark = state.high_watermark();
        state.role = Role::Follower { epoch };
        self.publish(&state);
    }

    /// The epoch this broker leads in, if `required` is that one or none.
    pub fn check_leader(&self, required: Option<LeaderEpoch>) -> Result<LeaderEpoch, ReadError> {
        leader_epoch(&lock(&self.state), required)
    }

    /// Appends batches; their offsets are assigned, and answered.
    ///
    /// In the log when it returns, and visible to reads only later: for acks=all await
    /// [`Partition::durable`] with the answer's `next_offset`.
    ///
    /// # Errors
    /// Nothing was appended.
    pub fn append(
        self: &Arc<Self>,
        batches: Vec<u8>,
        options: AppendOptions,
    ) -> Result<AppendInfo, AppendError> {
        let now_ms = now_ms();
        self.directory.check_space(now_ms)?;
        let config = lock(&self.state).log.config().clone();
        // Checksums and all else that needs no lock come before it.
        let validated = validate(batches, &config, options.origin, now_ms)?;
        let mut state = lock(&self.state);
        self.check_usable(&state)?;
        let epoch = match leader_epoch(&state, options.required_epoch) {
            Ok(epoch) => epoch,
            Err(ReadError::Epoch { given, current }) => {
                return Err(AppendError::Epoch { given, current });
            }
            Err(_) => return Err(AppendError::NotLeader),
        };
        if let Role::Leader { isr, .. } = &state.role
            && options.acks == -1
            && isr.len() < config.min_insync_replicas
        {
            let (in_sync, minimum) = (isr.len(), config.min_insync_replicas);
            return Err(AppendError::NotEnoughReplicas { in_sync, minimum });
        }
        let appended = state.log.append(validated, epoch, options.origin, now_ms);
        let appended = appended.inspect_err(|error| match error {
            AppendError::DiskFull => self.directory.note_full(now_ms),
            AppendError::Io(error) => self.directory.fail(&format!("append: {error}")),
            _ => {}
        })?;
        if !appended.is_duplicate {
            self.advance(&mut state);
        }
        drop(state);
        if self.durability == Durability::Group {
            self.request_sync();
        }
        Ok(appended)
    }

    /// Resolves once all below `up_to` is committed: durable here as configured, and held by all
    /// in-sync replicas.
    ///
    /// # Errors
    /// Where that will not come about any more.
    pub async fn durable(&self, up_to: Offset) -> Result<(), AppendError> {
        let mut positions = self.positions.subscribe();
        let mut failure = self.directory.failure();
        loop {
            let now = *positions.borrow_and_update();
            if now.high_watermark >= up_to {
                return Ok(());
            }
            if now.is_deleted {
                return Err(AppendError::Deleted);
            }
            if !now.is_leader {
                return Err(AppendError::NotLeader);
            }
            if let Some(cause) = failure.borrow_and_update().clone() {
                return Err(AppendError::DirectoryFailed { cause });
            }
            tokio::select! {
                changed = positions.changed() => changed.map_err(|_| AppendError::Deleted)?,
                changed = failure.changed() => changed.map_err(|_| AppendError::Deleted)?,
            }
        }
    }

    /// Whole batches from the one that holds `from`.
    ///
    /// At most `max_bytes`; if `is_one_wanted`, the first one even if it is larger (KIP-74).
    pub fn read(
        &self,
        from: Offset,
        max_bytes: usize,
        is_one_wanted: bool,
        isolation: Isolation,
    ) -> Result<ReadInfo, ReadError> {
        let mut at = from;
        let mut vanished: Option<ReadPlan> = None;
        loop {
            let (plan, mut info) = {
                let state = lock(&self.state);
                self.check_readable(&state)?;
                let mut info = read_info(&state);
                if from < info.log_start || from > info.log_end {
                    let (log_start, log_end) = (info.log_start, info.log_end);
                    return Err(ReadError::OutOfRange { from, log_start, log_end });
                }
                let upper = match isolation {
                    Isolation::Uncommitted => info.high_watermark,
                    Isolation::Committed => info.last_stable,
                    Isolation::LogEnd => info.log_end,
                };
                info.searched_to = at;
                if at >= upper {
                    return Ok(info);
                }
                (state.log.plan_read(at, upper, max_bytes, is_one_wanted), info)
            };
            let read = match plan.run() {
                // The segment was removed between plan and read: plan anew. A plan that leads there
                // again says that the log still counts on a file which somebody took away.
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && vanished
                            .as_ref()
                            .is_none_or(|earlier| !plan.is_of_same_segment(earlier)) =>
                {
                    vanished = Some(plan);
                    continue;
                }
                other => other?,
            };
            if read.bytes.is_empty()
                && let Some(next) = plan.next_segment.filter(|&next| next > at)
            {
                // Compaction may leave nothing between here and the end of a segment. If it is
                // only that a batch is larger than `max_bytes`, the answer stays empty too.
                if read.is_beyond {
                    at = next;
                    continue;
                }
                return Ok(info);
            }
            lock(&self.state).log.note_read(&read);
            info.bytes = Bytes::from(read.bytes);
            return Ok(info);
        }
    }

    /// The positions now.
    pub fn positions(&self) -> Positions {
        *self.positions.borrow()
    }

    /// Tells of every change of the positions: long polls wait here.
    pub fn changed(&self) -> watch::Receiver<Positions> {
        self.positions.subscribe()
    }

    /// The next offset to be written.
    pub fn log_end(&self) -> Offset {
        lock(&self.state).log.log_end()
    }

    /// Where `read_committed` ends.
    pub fn last_stable(&self) -> Offset {
        read_info(&lock(&self.state)).last_stable
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        lock(&self.state).log.bytes()
    }

    pub fn config(&self) -> TopicConfig {
        lock(&self.state).log.config().clone()
    }

    pub fn configure(&self, config: TopicConfig) {
        lock(&self.state).log.configure(config);
    }

    /// The first readable record at least as young as `timestamp_ms`. Blocks.
    pub fn find_timestamp(&self, timestamp_ms: i64) -> Result<Option<TimestampOffset>, ReadError> {
        self.look_up(|log, upper| log.plan_timestamp(timestamp_ms, upper).map(Some))
    }

    /// The youngest readable record. Blocks.
    pub fn find_largest_timestamp(&self) -> Result<Option<TimestampOffset>, ReadError> {
        self.look_up(Log::plan_largest_timestamp)
    }

    fn look_up(
        &self,
        plan: impl Fn(&mut Log, Offset) -> Result<Option<TimestampPlan>, LookupError>,
    ) -> Result<Option<TimestampOffset>, ReadError> {
        let mut attempts = LOOKUP_ATTEMPTS;
        loop {
            let plan = {
                let mut state = lock(&self.state);
                self.check_readable(&state)?;
                let upper = state.high_watermark();
                plan(&mut state.log, upper).map_err(ReadError::Lookup)?
            };
            attempts -= 1;
            match plan.map_or(Ok(None), |plan| plan.run()) {
                Err(error) if error.is_gone() && attempts > 0 => {}
                found => return found.map_err(ReadError::Lookup),
            }
        }
    }

    /// The largest epoch not above `requested` and where it ends; `None` where unknown.
    pub fn epoch_end(&self, requested: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = lock(&self.state);
        state.log.epochs().end_offset(requested, state.log.log_end())
    }

    /// The epoch in which the record at `offset` was appended.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        lock(&self.state).log.epochs().epoch_of(offset)
    }

    /// Moves the log start to `offset`, or to the high watermark for `None` (DeleteRecords).
    ///
    /// Returns the new log start.
    pub fn delete_records(&self, offset: Option<Offset>) -> Result<Offset, ReadError> {
        let mut state = lock(&self.state);
        self.check_readable(&state)?;
        let high_watermark = state.high_watermark();
        let wanted = offset.unwrap_or(high_watermark);
        if wanted > high_watermark || wanted < Offset::ZERO {
            let log_start = state.log.log_start();
            let (from, log_end) = (wanted, high_watermark);
            return Err(ReadError::OutOfRange { from, log_start, log_end });
        }
        let retired = state.log.delete_records(wanted)?;
        self.publish(&state);
        let (log_start, delay) = (state.log.log_start(), state.log.config().delete_delay);
        drop(state);
        self.directory.remove_later(retired, delay);
        Ok(log_start)
    }

    /// Asks for what was appended to be synced.
    pub(crate) fn request_sync(self: &Arc<Self>) {
        if !self.is_sync_queued.swap(true, Ordering::AcqRel) {
            self.directory.queue_sync(self.clone());
        }
    }

    /// Makes all that is appended by now durable. Blocks; for the flushers.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let _syncing = lock(&self.syncing);
        // Cleared first: an append from here on queues the partition again.
        self.is_sync_queued.store(false, Ordering::Release);
        let work = {
            let mut state = lock(&self.state);
            // Its files have other names by now, and nobody waits for them.
            if state.is_deleted {
                return Ok(());
            }
            state.log.begin_sync()
        };
        let Some(work) = work else { return Ok(()) };
        work.run()?;
        let mut state = lock(&self.state);
        state.log.end_sync(&work);
        self.advance(&mut state);
        Ok(())
    }

    /// Bytes or time of unsynced data are past what `flush.messages` and `flush.ms` allow.
    pub(crate) fn is_sync_due(&self, unsynced_for: std::time::Duration) -> bool {
        let state = lock(&self.state);
        let unsynced = state.log.log_end().0 - state.log.recovery_point().0;
        let config = state.log.config();
        let is_past_limit = config.flush_records.is_some_and(|limit| unsynced as u64 >= limit)
            || config.flush_interval.is_some_and(|limit| unsynced_for >= limit);
        // Kafka too syncs a segment once another has followed it.
        state.log.has_unsynced_segments() || (unsynced > 0 && is_past_limit)
    }

    /// Applies retention, expires producers.
    pub(crate) fn tidy(&self, now_ms: i64, producers_older_ms: i64) -> io::Result<()> {
        let mut state = lock(&self.state);
        if state.is_deleted {
            return Ok(());
        }
        let high_watermark = state.high_watermark();
        let retired = state.log.apply_retention(high_watermark, now_ms)?;
        state.log.expire_producers(producers_older_ms);
        let delay = state.log.config().delete_delay;
        self.publish(&state);
        drop(state);
        self.directory.remove_later(retired, delay);
        Ok(())
    }

    /// Below it the cleaner has been; `None` where the topic is not compacted.
    pub(crate) fn cleaned_to(&self) -> Option<Offset> {
        let state = lock(&self.state);
        state.log.config().is_compacted.then(|| state.log.cleaned_to())
    }

    /// Cleans a compacted log if it is dirty; returns its bytes before and after. Blocks.
    pub(crate) fn clean(&self, now_ms: i64) -> Result<Option<(u64, u64)>, CleanError> {
        let (plan, before) = {
            let state = lock(&self.state);
            if state.is_deleted {
                return Ok(None);
            }
            let Some(plan) = state.log.plan_clean(state.high_watermark(), now_ms) else {
                return Ok(None);
            };
            (plan, state.log.bytes())
        };
        let cleaned = plan.run();
        let mut state = lock(&self.state);
        if state.is_deleted {
            return Ok(None);
        }
        let cleaned = cleaned?;
        let retired = state.log.install_cleaned(cleaned)?;
        let (after, delay) = (state.log.bytes(), state.log.config().delete_delay);
        drop(state);
        self.directory.remove_later(retired, delay);
        Ok(Some((before, after)))
    }

    /// Recovery point, log start (where it lies within a segment), high watermark.
    pub(crate) fn checkpoint(&self) -> (Offset, Option<Offset>, Offset) {
        let state = lock(&self.state);
        let log_start = state.log.log_start();
        let within = (log_start > state.log.first_base_offset()).then_some(log_start);
        (state.log.recovery_point(), within, state.high_watermark())
    }

    /// Marks the partition deleted, and gives its directory another name by `rename`.
    pub(crate) fn delete(
        &self,
        rename: impl FnOnce(&Path) -> io::Result<PathBuf>,
    ) -> io::Result<PathBuf> {
        // A sync under way still goes to the old names: one that does not find them would count as
        // a failure of the disk.
        let _syncing = lock(&self.syncing);
        let mut state = lock(&self.state);
        let renamed = rename(state.log.directory())?;
        state.is_deleted = true;
        self.publish(&state);
        Ok(renamed)
    }

    /// Leaves the log as an orderly stop should; nothing can be appended afterwards.
    pub(crate) fn close(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        if !state.is_deleted {
            state.log.close()?;
            self.advance(&mut state);
            state.high_watermark = state.high_watermark();
            state.role = Role::Unassigned;
            self.publish(&state);
        }
        Ok(())
    }

    /// Cuts the log for a follower that diverged from its leader.
    pub fn truncate_to(&self, offset: Offset) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        state.log.truncate_to(offset, now_ms())?;
        state.high_watermark = state.high_watermark().min(state.log.log_end());
        self.publish(&state);
        Ok(())
    }

    /// How far the log is as safe as an acknowledgement claims.
    fn safe_end(&self, log: &Log) -> Offset {
        match self.durability {
            Durability::Group => log.recovery_point(),
            Durability::Kafka => log.log_end(),
        }
    }

    fn advance(&self, state: &mut State) {
        let safe_end = self.safe_end(&state.log);
        if let Role::Leader { isr, .. } = &mut state.role
            && isr.on_local_end(safe_end).is_some()
        {
            self.publish(state);
        }
    }

    fn publish(&self, state: &State) {
        let now = Positions {
            log_start: state.log.log_start(),
            high_watermark: state.high_watermark(),
            is_leader: matches!(state.role, Role::Leader { .. }),
            is_deleted: state.is_deleted,
        };
        self.positions.send_if_modified(|positions| {
            let is_changed = *positions != now;
            *positions = now;
            is_changed
        });
    }

    fn check_usable(&self, state: &State) -> Result<(), AppendError> {
        if state.is_deleted {
            return Err(AppendError::Deleted);
        }
        match self.directory.failed() {
            Some(cause) => Err(AppendError::DirectoryFailed { cause }),
            None => Ok(()),
        }
    }

    fn check_readable(&self, state: &State) -> Result<(), ReadError> {
        match self.check_usable(state) {
            Err(AppendError::DirectoryFailed { cause }) => {
                Err(ReadError::DirectoryFailed { cause })
            }
            Err(_) => Err(ReadError::Deleted),
            Ok(()) => Ok(()),
        }
    }
}

fn leader_epoch(state: &State, required: Option<LeaderEpoch>) -> Result<LeaderEpoch, ReadError> {
    let (current, is_leader) = match &state.role {
        Role::Leader { epoch, .. } => (*epoch, true),
        Role::Follower { epoch } => (*epoch, false),
        Role::Unassigned => return Err(ReadError::NotLeader),
    };
    if let Some(given) = required.filter(|&given| given != LeaderEpoch::NONE && given != current) {
        return Err(ReadError::Epoch { given, current });
    }
    if is_leader { Ok(current) } else { Err(ReadError::NotLeader) }
}

fn read_info(state: &State) -> ReadInfo {
    let high_watermark = state.high_watermark();
    let unstable = state.log.producers().first_unstable();
    ReadInfo {
        bytes: Bytes::new(),
        high_watermark,
        last_stable: unstable.map_or(high_watermark, |offset| offset.min(high_watermark)),
        log_start: state.log.log_start(),
        log_end: state.log.log_end(),
        searched_to: Offset::ZERO,
    }
}
