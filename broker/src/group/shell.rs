//! The group coordinator: cores over the log of `__consumer_offsets`.
//!
//! One core a partition that this broker leads. A step and the appends it asks for happen under the
//! core's lock, so that the log has them in the core's order; waiting for the disk happens outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};
use std::time::{Duration, Instant};

use elkfk_base::Tasks;
use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::records::{BatchBuilder, Compression, batches};
use tokio::sync::{Notify, oneshot};
use tracing::{error, info, warn};

use super::core::{Groups, Limits};
use super::record::{self, Record};
use super::{Answer, Input, Now, Output, Waiter};
use crate::config::Config;
use crate::log::{AppendError, Origin};
use crate::partition::{AppendOptions, Isolation, Partition};
use elkfk_base::now_ms;

/// Records of one batch at most; a batch stays far below `max.message.bytes`.
const BATCH_BYTES: usize = 256 << 10;
/// Bytes of the log read at once while loading.
const LOAD_BYTES: usize = 4 << 20;
const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// The groups of one partition.
#[derive(Debug)]
struct Slot {
    partition: Arc<Partition>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Loading,
    Ready(Box<Ready>),
    /// What the log holds cannot be read; why was logged.
    Failed,
}

#[derive(Debug)]
struct Ready {
    groups: Groups,
    waiting: HashMap<Waiter, oneshot::Sender<Answer>>,
    next_waiter: Waiter,
}

/// The groups this broker coordinates.
#[derive(Debug)]
pub(crate) struct Coordinator {
    limits: Limits,
    commit_timeout: Duration,
    /// `offsets.topic.compression.codec`.
    compression: Compression,
    expire_every: Duration,
    /// By partition number.
    slots: RwLock<BTreeMap<i32, Arc<Slot>>>,
    /// Partitions of the topic; 0 while it does not exist.
    partitions: AtomicI32,
    /// A deadline may have come nearer.
    nearer: Notify,
    tasks: Tasks,
}

fn now() -> Now {
    Now { at: Instant::now(), wall_ms: now_ms() }
}

/// Java's `String.hashCode`, made positive as Kafka does, over UTF-16 units.
pub(crate) fn partition_of(group: &str, partitions: i32) -> i32 {
    let hash = group
        .encode_utf16()
        .fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % partitions.max(1)
}

impl Coordinator {
    pub(crate) fn new(config: &Config, tasks: Tasks) -> Self {
        Self {
            limits: Limits {
                session_timeout_min: config.group_session_timeout_min,
                session_timeout_max: config.group_session_timeout_max,
                initial_rebalance_delay: config.group_initial_rebalance_delay,
                members_max: config.group_members_max,
                metadata_bytes_max: config.offset_metadata_bytes_max,
                offsets_retention: config.offsets_retention,
            },
            commit_timeout: Duration::from_millis(
                config.number("offsets.commit.timeout.ms").unsigned_abs(),
            ),
            compression: u8::try_from(config.number("offsets.topic.compression.codec"))
                .ok()
                .and_then(Compression::from_id)
                .unwrap_or_default(),
            expire_every: config.offsets_retention_check,
            slots: RwLock::default(),
            partitions: AtomicI32::new(0),
            nearer: Notify::new(),
            tasks,
        }
    }

    /// Runs deadlines until the tasks are stopped.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut expire_at = tokio::time::Instant::now() + self.expire_every;
        loop {
            let nearer = self.nearer.notified();
            let deadline = self.deadline().map(tokio::time::Instant::from_std);
            let wake = deadline.unwrap_or(expire_at).min(expire_at);
            tokio::select! {
                () = self.tasks.stopping() => return,
                () = nearer => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            if tokio::time::Instant::now() >= expire_at {
                expire_at = tokio::time::Instant::now() + self.expire_every;
                self.step_all(&Input::Expire);
            }
            self.step_all(&Input::Tick);
        }
    }

    fn all(&self) -> Vec<Arc<Slot>> {
        self.slots.read().expect("no panic while held").values().cloned().collect()
    }

    fn deadline(&self) -> Option<Instant> {
        let slots = self.all();
        slots
            .iter()
            .filter_map(|slot| match &*slot.lock() {
                State::Ready(ready) => ready.groups.deadline(),
                _ => None,
            })
            .min()
    }

    fn step_all(self: &Arc<Self>, input: &Input) {
        for slot in self.all() {
            if let State::Ready(ready) = &mut *slot.lock() {
                self.step(&slot, ready, input.clone());
            }
        }
    }

    /// The topic has so many partitions now; 0: it is gone.
    pub(crate) fn set_partitions(&self, partitions: i32) {
        self.partitions.store(partitions, Ordering::Relaxed);
        if partitions == 0 {
            self.slots.write().expect("no panic while held").clear();
        }
    }

    /// This broker leads `partition` from now on: its groups are loaded and then served.
    pub(crate) fn lead(self: &Arc<Self>, partition: &Arc<Partition>) {
        let number = partition.partition();
        let slot = {
            let mut slots = self.slots.write().expect("no panic while held");
            if slots.contains_key(&number) {
                return;
            }
            let slot =
                Arc::new(Slot { partition: partition.clone(), state: Mutex::new(State::Loading) });
            slots.insert(number, slot.clone());
            slot
        };
        let this = self.clone();
        let limits = self.limits.clone();
        // An empty partition, as most are, is not worth a thread.
        if partition.log_end() == partition.positions().log_start {
            *slot.lock() = State::Ready(Box::new(Ready::new(Groups::new(limits))));
            return;
        }
        self.tasks.spawn_blocking(move || {
            let started = Instant::now();
            let state = match load(&slot.partition, limits) {
                Ok((groups, records)) => {
                    let ms = started.elapsed().as_millis() as u64;
                    info!(
                        partition = number,
                        records,
                        groups = groups.iter().count(),
                        ms,
                        "groups loaded"
                    );
                    State::Ready(Box::new(Ready::new(groups)))
                }
                Err(error) => {
                    error!(
                        partition = number,
                        error, "groups cannot be loaded, their consumers are refused"
                    );
                    State::Failed
                }
            };
            *slot.lock() = state;
            this.nearer.notify_one();
        });
    }

    /// Another broker leads the partition: its groups are asked for there.
    pub(crate) fn resign(&self, number: i32) {
        self.slots.write().expect("no panic while held").remove(&number);
    }

    pub(crate) fn topic_deleted(self: &Arc<Self>, topic: &str) {
        self.step_all(&Input::TopicDeleted(topic.to_owned()));
    }

    fn slot(&self, group: &str) -> Result<Arc<Slot>, ErrorCode> {
        let partitions = self.partitions.load(Ordering::Relaxed);
        if partitions == 0 {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
        let slots = self.slots.read().expect("no panic while held");
        slots.get(&partition_of(group, partitions)).cloned().ok_or(ErrorCode::NOT_COORDINATOR)
    }

    /// Puts one question to the core of `group` and waits for its answer.
    ///
    /// # Errors
    /// Where this broker does not coordinate the group, or not yet.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        group: &str,
        input: impl FnOnce(Waiter) -> Input,
    ) -> Result<Answer, ErrorCode> {
        let slot = self.slot(group)?;
        let answered = {
            let mut state = slot.lock();
            let ready = state.ready()?;
            let (sender, answered) = oneshot::channel();
            let waiter = ready.next_waiter;
            ready.next_waiter += 1;
            ready.waiting.insert(waiter, sender);
            self.step(&slot, ready, input(waiter));
            answered
        };
        // The sender goes when the broker stops leading the partition.
        answered.await.map_err(|_| ErrorCode::NOT_COORDINATOR)
    }

    /// Looks at the groups that share a partition with `group`.
    pub(crate) fn look<T>(
        &self,
        group: &str,
        look: impl FnOnce(&Groups) -> T,
    ) -> Result<T, ErrorCode> {
        let slot = self.slot(group)?;
        let mut state = slot.lock();
        Ok(look(&state.ready()?.groups))
    }

    /// Looks at all groups; true if some are still being loaded.
    pub(crate) fn look_at_all(&self, mut look: impl FnMut(&Groups)) -> bool {
        let mut is_loading = false;
        for slot in self.all() {
            match &*slot.lock() {
                State::Ready(ready) => look(&ready.groups),
                State::Loading => is_loading = true,
                State::Failed => {}
            }
        }
        is_loading
    }

    fn step(self: &Arc<Self>, slot: &Arc<Slot>, ready: &mut Ready, input: Input) {
        let before = ready.groups.deadline();
        let mut outputs = Vec::new();
        ready.groups.step(now(), input, &mut outputs);
        for output in outputs {
            match output {
                Output::Answer(waiter, answer) => {
                    // Who hung up meanwhile needs no answer.
                    if let Some(sender) = ready.waiting.remove(&waiter) {
                        let _ = sender.send(answer);
                    }
                }
                Output::Write(id, records) => self.write(slot, id, &records),
            }
        }
        let after = ready.groups.deadline();
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.nearer.notify_one();
        }
    }

    /// Appends at once, for the order; hands the outcome to the core when it is durable.
    fn write(self: &Arc<Self>, slot: &Arc<Slot>, id: super::WriteId, records: &[Record]) {
        let options = AppendOptions { acks: -1, required_epoch: None, origin: Origin::Coordinator };
        let appended = slot.partition.append(batch(records, self.compression), options);
        let (this, slot, timeout) = (self.clone(), slot.clone(), self.commit_timeout);
        self.tasks.spawn("group write", async move {
            let code = match appended {
                Ok(appended) => {
                    let durable = slot.partition.durable(appended.next_offset);
                    match tokio::time::timeout(timeout, durable).await {
                        Ok(Ok(())) => ErrorCode::NONE,
                        Ok(Err(error)) => refusal(&error),
                        Err(_) => ErrorCode::COORDINATOR_NOT_AVAILABLE,
                    }
                }
                Err(error) => refusal(&error),
            };
            if let State::Ready(ready) = &mut *slot.lock() {
                this.step(&slot, ready, Input::Written(id, code));
            }
        });
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic while held")
    }
}

impl State {
    fn ready(&mut self) -> Result<&mut Ready, ErrorCode> {
        match self {
            Self::Ready(ready) => Ok(ready),
            Self::Loading => Err(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS),
            Self::Failed => Err(ErrorCode::COORDINATOR_NOT_AVAILABLE),
        }
    }
}

impl Ready {
    fn new(mut groups: Groups) -> Self {
        groups.loaded();
        Self { groups, waiting: HashMap::new(), next_waiter: 0 }
    }
}

/// What a client is told when a group could not be written, as Kafka maps it.
fn refusal(error: &AppendError) -> ErrorCode {
    match error {
        AppendError::NotLeader | AppendError::Epoch { .. } | AppendError::Deleted => {
            ErrorCode::NOT_COORDINATOR
        }
        AppendError::NotEnoughReplicas { .. } => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        AppendError::DiskFull | AppendError::DirectoryFailed { .. } | AppendError::Io(_) => {
            warn!(%error, "groups cannot be written");
            ErrorCode::COORDINATOR_NOT_AVAILABLE
        }
        error => {
            error!(%error, "groups cannot be written");
            ErrorCode::UNKNOWN_SERVER_ERROR
        }
    }
}

fn batch(records: &[Record], compression: Compression) -> Vec<u8> {
    let now_ms = now_ms();
    let mut bytes = Vec::new();
    let mut builder = BatchBuilder::new(compression);
    for record in records {
        if builder.plain_bytes() > BATCH_BYTES {
            let full = std::mem::replace(&mut builder, BatchBuilder::new(compression));
            bytes.extend(full.build().expect("it has records, far below 2 GiB"));
        }
        builder.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    if !builder.is_empty() {
        bytes.extend(builder.build().expect("it has records, far below 2 GiB"));
    }
    bytes
}

/// Reads the whole partition. Returns the groups and how many records made them.
fn load(partition: &Partition, limits: Limits) -> Result<(Groups, usize), String> {
    let mut groups = Groups::new(limits);
    let mut at = partition.positions().log_start;
    let (end, mut count) = (partition.log_end(), 0);
    while at < end {
        let read = partition
            .read(at, LOAD_BYTES, true, Isolation::LogEnd)
            .map_err(|error| format!("read at {at}: {error}"))?;
        if read.bytes.is_empty() {
            if read.searched_to >= end {
                break;
            }
            // Half of the groups would pass for all of them, and start from nothing.
            return Err(format!("nothing is readable from {at} on, the log ends at {end}"));
        }
        for batch in batches(&read.bytes) {
            let batch = batch.map_err(|error| format!("batch at {at}: {error}"))?;
            batch.check().map_err(|error| format!("batch at {at}: {error}"))?;
            at = batch.next_offset();
            if batch.is_control() {
                continue;
            }
            let records =
                batch.records(DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
            for record in &records {
                let record = record.map_err(|error| error.to_string())?;
                count += 1;
                let Some(key) = record.key else { continue };
                match record::decode(key, record.value) {
                    Ok(entry) => groups.load(entry, now()),
                    // One that a newer Kafka wrote must not keep the others from loading.
                    Err(error) => {
                        warn!(offset = record.offset.0, %error, "record of a group is not understood")
                    }
                }
            }
        }
    }
    Ok((groups, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hash_as_in_java() {
        // "a".hashCode() = 97, "elkfk-sink".hashCode() and "é".hashCode() computed by a JVM.
        assert_eq!(partition_of("a", 50), 97 % 50);
        assert_eq!(partition_of("", 50), 0);
        assert_eq!(partition_of("polygenelubricants", 50), 0, "hashCode is Integer.MIN_VALUE");
        assert_eq!(partition_of("é", 50), 233 % 50);
    }
}
