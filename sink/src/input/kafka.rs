//! Input `kafka`: a member of a consumer group, on a thread of its own.
//!
//! Offsets are committed only after the outputs acknowledged, within a second, and when partitions
//! are given away. Differs from Logstash: never auto-commits; a partition without a committed
//! offset is read from its beginning; while the outputs are away partitions are paused and polling
//! goes on, so that the group does not rebalance.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::kafka_options::KafkaInput;
use crate::delivery::acks::{Acks, Epoch, TopicPartition};
use crate::delivery::budget::Budget;
use crate::delivery::chunk::Batch;
use crate::metrics::{HELD_BYTES, Meters};
use crate::worker::Queue;

mod leave;

use leave::Taken;
pub use leave::Turn;

/// Offsets are committed this often.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// How long partitions given away, and a consumer that leaves, wait for what is under way.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// While an index refuses writes, this part of the memory is for records of which it may hold some,
/// divided among the partitions; the rest is for partitions that it does not concern.
const BLOCKED_SHARE: usize = 4;
/// How long reading waits for memory before it pauses its partitions: pausing throws away what was
/// read ahead, so a moment's pressure is better sat out.
const PAUSE_AFTER: Duration = Duration::from_millis(400);
/// A batch goes to the workers at this size; records do sooner when there are no more.
const BATCH_BYTES: usize = 256 << 10;
/// Records read between two looks at the clock, at most.
const RECORDS_PER_LOOK: u32 = 64;
const POLL: Duration = Duration::from_millis(100);

/// What one consumer needs.
#[derive(Debug)]
pub struct Reader {
    /// Number of the input in the pipeline.
    pub input: usize,
    /// Number of the consumer in the input.
    pub consumer: usize,
    pub options: KafkaInput,
    pub queue: Arc<Queue>,
    /// Records that wait for a worker.
    pub unfiltered: Arc<Budget>,
    /// All records and documents in memory.
    pub held: Arc<Budget>,
    pub acks: Arc<Mutex<Acks>>,
    pub meters: Arc<Meters>,
    /// The sink stops: what is under way is waited for only shortly.
    pub stop: CancellationToken,
    /// This consumer leaves the group; cancelled with `stop` too.
    pub leave: CancellationToken,
    /// Whose turn it is to leave, of the consumers of the input.
    pub turn: Arc<Turn>,
}

/// The consumer's callbacks; they run within `poll`, on the reader's thread.
struct Group {
    acks: Arc<Mutex<Acks>>,
    assignment: Mutex<HashMap<TopicPartition, Epoch>>,
    meters: Arc<Meters>,
    /// What is under way is not waited for any more.
    hurry: CancellationToken,
    /// Rebalances so far: who paused partitions must pause the new ones too, and batches of an
    /// assignment that ended are not filled further.
    rebalances: AtomicU64,
    /// Where reading began anew since Kafka had removed what was to be read next.
    resets: Mutex<HashMap<TopicPartition, i64>>,
    has_resets: AtomicBool,
}

impl Reader {
    /// Connects; the broker need not be there yet.
    pub fn connect(self) -> Result<Connected, KafkaError> {
        let group = Group {
            acks: self.acks.clone(),
            assignment: Mutex::default(),
            meters: self.meters.clone(),
            hurry: self.stop.child_token(),
            rebalances: 0.into(),
            resets: Mutex::default(),
            has_resets: false.into(),
        };
        let mut config = self.options.client_config(self.consumer);
        config.set_log_level(RDKafkaLogLevel::Warning);
        let consumer: BaseConsumer<Group> = config.create_with_context(group)?;
        let topics: Vec<&str> = self.options.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics)?;
        Ok(Connected {
            reader: self,
            consumer: Arc::new(consumer),
            open: Vec::new(),
            stopped: Stopped::default(),
            rebalances: 0,
            is_paused: false,
            turn: None,
            next_look: Instant::now(),
            error: None,
        })
    }

    /// Whether it is the outputs that a paused reader waits for, and not the filters.
    fn waits_for_outputs(&self) -> bool {
        !self.held.has_room() || self.meters.is_unauthorised.load(Relaxed)
    }
}

/// A reader with its consumer.
pub struct Connected {
    reader: Reader,
    consumer: Arc<BaseConsumer<Group>>,
    /// Batches being filled, one for each partition at most.
    open: Vec<Batch>,
    /// Partitions that are not read though others are.
    stopped: Stopped,
    /// Rebalances that this side has taken note of.
    rebalances: u64,
    is_paused: bool,
    /// Since when it is this consumer's turn to leave.
    turn: Option<(Taken, Instant)>,
    /// When to ask again whether the group has settled.
    next_look: Instant,
    /// The last error told, so that each is told once.
    error: Option<RDKafkaErrorCode>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl Connected {
    /// Reads until it is to leave, then waits for what is under way and commits. Blocks: wants a thread.
    ///
    /// # Errors
    /// The consumer can never go on, with the reason.
    pub fn run(mut self) -> Result<(), String> {
        let mut next_commit = Instant::now() + COMMIT_EVERY;
        let mut since_look = 0;
        while !self.leaves_now() {
            // Reading the clock for each record would cost as much as reading the record.
            since_look += 1;
            if since_look % RECORDS_PER_LOOK == 0 || self.open.is_empty() {
                since_look = 0;
            }
            if since_look == 0 && Instant::now() >= next_commit {
                self.commit();
                self.stop_single();
                HELD_BYTES.set(self.reader.held.used() as i64);
                next_commit = Instant::now() + COMMIT_EVERY;
            }
            if !self.make_room() {
                // Polled all the same: it keeps the membership and serves rebalances.
                let waits = self.reader.waits_for_outputs().then(Instant::now);
                self.poll_once(POLL)?;
                if let Some(since) = waits {
                    self.reader.meters.on_blocked(since.elapsed());
                }
                continue;
            }
            let patience = if self.open.is_empty() { POLL } else { Duration::ZERO };
            if !self.poll_once(patience)? {
                self.flush();
            }
        }
        // Held until the consumer has left.
        let _turn = self.turn.take();
        self.drain();
        Ok(())
    }

    /// Waits for memory, and pauses if that takes long. Returns whether to read.
    fn make_room(&mut self) -> bool {
        let is_unauthorised = self.reader.meters.is_unauthorised.load(Relaxed);
        let is_short = |reader: &Reader| {
            is_unauthorised || reader.held.is_spent() || reader.unfiltered.is_spent()
        };
        if self.is_paused {
            let has_room = self.reader.held.has_room() && self.reader.unfiltered.has_room();
            if !is_unauthorised && has_room {
                self.set_paused(false);
                return !self.is_paused;
            }
            return false;
        }
        if !is_short(&self.reader) {
            return true;
        }
        self.flush();
        let started = Instant::now();
        let has_room = !is_unauthorised
            && if self.reader.held.is_spent() {
                let has_room = self.reader.held.wait(PAUSE_AFTER);
                self.reader.meters.on_blocked(started.elapsed());
                has_room
            } else {
                self.reader.unfiltered.wait(PAUSE_AFTER)
            };
        if !has_room {
            self.set_paused(true);
        }
        has_room
    }

    fn set_paused(&mut self, is_paused: bool) {
        let result = self.consumer.assignment().and_then(|assignment| match is_paused {
            true => self.consumer.pause(&assignment),
            false => self.consumer.resume(&assignment),
        });
        match result {
            Ok(()) => {
                if self.is_paused != is_paused {
                    debug!(is_paused, "reading paused or resumed");
                }
                self.is_paused = is_paused;
                if !is_paused {
                    self.stopped.on_all_resumed();
                    self.stop_single();
                }
            }
            Err(error) => warn!(%error, is_paused, "partitions not paused or resumed"),
        }
    }

    /// Stops and restarts single partitions: those whose dead letters cannot be written, and those
    /// with too much that waits for a blocked index.
    fn stop_single(&mut self) {
        let assignment = self.consumer.context().assignment();
        let is_blocked = self.reader.meters.blocked_indices.load(Relaxed) > 0;
        let held_max = match is_blocked {
            true => self.reader.held.limit() / BLOCKED_SHARE / assignment.len().max(1),
            false => usize::MAX,
        };
        let mut acks = self.reader.acks.lock().expect("no holder of this lock panics");
        let now: Vec<TopicPartition> = assignment
            .iter()
            .filter(|(_, epoch)| acks.is_stopped(**epoch, held_max))
            .map(|(name, _)| name.clone())
            .collect();
        drop(acks);
        let (stop, free) = self.stopped.changes(&now);
        if stop.count() > 0 && self.consumer.pause(&stop).is_err() {
            return;
        }
        if free.count() > 0 && !self.is_paused && self.consumer.resume(&free).is_err() {
            return;
        }
        self.stopped.names = now;
    }

    /// A rebalance hands out new partitions, none of them paused, and ends assignments.
    fn after_rebalance(&mut self) {
        let rebalances = self.consumer.context().rebalances.load(Relaxed);
        if rebalances == self.rebalances {
            return;
        }
        self.rebalances = rebalances;
        let assignment = self.consumer.context().assignment();
        keep_current(&mut self.open, &assignment);
        self.stopped.names.retain(|name| assignment.contains_key(name));
        if self.is_paused {
            self.set_paused(true);
        }
    }

    /// Returns whether there was a record.
    fn poll_once(&mut self, patience: Duration) -> Result<bool, String> {
        let consumer = self.consumer.clone();
        let polled = consumer.poll(patience);
        self.after_rebalance();
        let message = match polled {
            None => return Ok(false),
            Some(Ok(message)) => message,
            Some(Err(error)) => return self.on_error(error).map(|()| false),
        };
        self.error = None;
        self.count_lost(&message);
        let (topic, partition) = (message.topic(), message.partition());
        let at = self.open.iter().position(|batch| {
            batch.partition.partition == partition && *batch.partition.topic == *topic
        });
        let at = match at {
            Some(at) => at,
            None => {
                let name = TopicPartition { topic: topic.into(), partition };
                let Some(epoch) = self.consumer.context().epoch(&name) else {
                    // Read ahead of a rebalance that took the partition away.
                    return Ok(true);
                };
                let mut batch = Batch::new(name, epoch, self.reader.acks.clone());
                batch.input = self.reader.input;
                self.open.push(batch);
                self.open.len() - 1
            }
        };
        let batch = &mut self.open[at];
        let headers = message.headers();
        let headers = (0..headers.map_or(0, |headers| headers.count())).filter_map(|n| {
            let header = headers?.try_get(n)?;
            Some((header.key, header.value))
        });
        let timestamp = message.timestamp().to_millis();
        batch.push(message.offset(), timestamp, message.key(), message.payload(), headers);
        if batch.len() >= self.reader.options.poll_records_max || batch.bytes() >= BATCH_BYTES {
            let batch = self.open.swap_remove(at);
            self.hand_over(batch);
        }
        Ok(true)
    }

    /// Told once for each time that Kafka's retention was quicker than we.
    fn count_lost(&self, message: &BorrowedMessage<'_>) {
        let context = self.consumer.context();
        if !context.has_resets.load(Relaxed) {
            return;
        }
        let name = TopicPartition { topic: message.topic().into(), partition: message.partition() };
        let mut resets = context.resets.lock().expect("no holder of this lock panics");
        let wanted = resets.remove(&name);
        context.has_resets.store(!resets.is_empty(), Relaxed);
        drop(resets);
        let Some(wanted) = wanted else { return };
        let lost = u64::try_from(message.offset() - wanted).unwrap_or(0);
        if lost > 0 {
            let partition = name.partition;
            error!(topic = %name.topic, partition, offset = wanted, lost, "records removed by kafka's retention before they were read");
            self.reader.meters.on_lost(lost);
            self.reader.meters.set_error(format!(
                "{}-{partition}: {lost} records were removed before they were read",
                name.topic
            ));
        }
    }

    fn flush(&mut self) {
        for batch in std::mem::take(&mut self.open) {
            self.hand_over(batch);
        }
    }

    fn hand_over(&self, mut batch: Batch) {
        let mut acks = self.reader.acks.lock().expect("no holder of this lock panics");
        let Some(first) = acks.track(batch.epoch, batch.offsets()) else { return };
        if let Some(credit) = acks.hold(batch.epoch, batch.bytes()) {
            batch.hold(credit);
        }
        drop(acks);
        batch.first = first;
        batch.hold(self.reader.held.take(batch.bytes()));
        self.reader.meters.on_records(batch.len());
        let (waited_ms, records) = batch.waited(elkfk_base::now_ms());
        self.reader.meters.on_topic_wait(waited_ms, records);
        let credit = self.reader.unfiltered.take(batch.bytes());
        self.reader.queue.push(Arc::new(batch), credit);
    }

    /// What rose since the last time, without waiting.
    fn commit(&self) {
        let offsets =
            self.reader.acks.lock().expect("no holder of this lock panics").take_committable();
        commit(&self.consumer, &self.reader.acks, &offsets, CommitMode::Async);
    }

    /// As [`Self::commit`], of all that is assigned, and waits for the answer.
    fn commit_last(&self) -> bool {
        let epochs = self.consumer.context().assignment().into_values();
        let mut acks = self.reader.acks.lock().expect("no holder of this lock panics");
        let offsets: Vec<_> = epochs.filter_map(|epoch| acks.take_last_of(epoch)).collect();
        drop(acks);
        commit(&self.consumer, &self.reader.acks, &offsets, CommitMode::Sync)
    }

    fn on_error(&mut self, error: KafkaError) -> Result<(), String> {
        if let KafkaError::MessageConsumptionFatal(code) = error {
            return Err(format!("consume: {code}"));
        }
        let code = error.rdkafka_error_code();
        if code != self.error || code.is_none() {
            self.reader.meters.set_error(format!("kafka: {error}"));
            warn!(%error, "consume");
        }
        self.error = code;
        Ok(())
    }

    /// Serves rebalances. Records that still come are not kept: they were never tracked.
    fn poll_away(&mut self, patience: Duration) {
        drop(self.consumer.poll(patience));
        self.after_rebalance();
    }
}

/// Returns whether nothing was refused.
fn commit<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    acks: &Mutex<Acks>,
    offsets: &[(TopicPartition, i64)],
    mode: CommitMode,
) -> bool {
    if offsets.is_empty() {
        return true;
    }
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for (name, offset) in offsets {
        if let Err(error) =
            list.add_partition_offset(&name.topic, name.partition, Offset::Offset(*offset))
        {
            warn!(%error, topic = %name.topic, partition = name.partition, "offset not committed");
        }
    }
    if let Err(error) = consumer.commit(&list, mode) {
        warn!(%error, "offsets not committed; tried again");
        acks.lock().expect("no holder of this lock panics").uncommit(offsets);
        return false;
    }
    true
}

/// Drops the batches of assignments that ended: their records are read again by who owns them now,
/// and those of a new assignment must not be taken for theirs.
fn keep_current(open: &mut Vec<Batch>, assignment: &HashMap<TopicPartition, Epoch>) {
    open.retain(|batch| assignment.get(&batch.partition) == Some(&batch.epoch));
}

/// The partitions that are paused one by one.
#[derive(Debug, Default)]
struct Stopped {
    names: Vec<TopicPartition>,
}

impl Stopped {
    /// What to pause and what to resume, so that just `now` is paused.
    fn changes(&self, now: &[TopicPartition]) -> (TopicPartitionList, TopicPartitionList) {
        let list = |names: &[TopicPartition], without: &[TopicPartition]| {
            let mut list = TopicPartitionList::new();
            for name in names.iter().filter(|name| !without.contains(name)) {
                list.add_partition(&name.topic, name.partition);
            }
            list
        };
        (list(now, &self.names), list(&self.names, now))
    }

    /// Resuming all has resumed these too.
    fn on_all_resumed(&mut self) {
        self.names.clear();
    }
}

/// The partition, and the offset that was to be read, of librdkafka's word on an offset that is out
/// of range: `logs [3]: offset reset (at offset 17 (leader epoch 0), broker 1) to …: Broker: Offset
/// out of range`. It says so nowhere else.
fn offset_reset(message: &str) -> Option<(TopicPartition, i64)> {
    let (before, after) = message.split_once("]: offset reset (at offset ")?;
    if !message.contains("Offset out of range") {
        return None;
    }
    let (name, partition) = before.rsplit_once(" [")?;
    let topic = name.rsplit_once(' ').map_or(name, |(_, topic)| topic);
    let digits = after.find(|c: char| !c.is_ascii_digit())?;
    let name = TopicPartition { topic: topic.into(), partition: partition.parse().ok()? };
    Some((name, after[..digits].parse().ok()?))
}

impl Group {
    fn assignment(&self) -> HashMap<TopicPartition, Epoch> {
        self.assignment.lock().expect("no holder of this lock panics").clone()
    }

    fn epoch(&self, name: &TopicPartition) -> Option<Epoch> {
        self.assignment.lock().expect("no holder of this lock panics").get(name).copied()
    }

    fn on_assigned(&self, names: &[TopicPartition]) {
        let mut acks = self.acks.lock().expect("no holder of this lock panics");
        let mut assignment = self.assignment.lock().expect("no holder of this lock panics");
        for name in names {
            let epoch = acks.assign(name.clone());
            if let Some(before) = assignment.insert(name.clone(), epoch) {
                acks.end(before);
            }
        }
    }

    /// Waits for what is under way, commits it, and forgets the partitions.
    fn on_revoked(&self, consumer: &BaseConsumer<Self>, names: &[TopicPartition]) {
        let assignment = self.assignment();
        let epochs: Vec<Epoch> =
            names.iter().filter_map(|name| assignment.get(name).copied()).collect();
        // Lost partitions have another owner already: a commit would be refused.
        if !consumer.assignment_lost() {
            let deadline = Instant::now() + DRAIN_PATIENCE;
            loop {
                let acks = self.acks.lock().expect("no holder of this lock panics");
                let is_done = epochs.iter().all(|epoch| acks.in_flight(*epoch) == 0);
                drop(acks);
                let is_away = self.meters.is_away.load(Relaxed);
                if is_done || is_away || self.hurry.is_cancelled() || Instant::now() >= deadline {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let mut acks = self.acks.lock().expect("no holder of this lock panics");
            let offsets: Vec<_> =
                epochs.iter().filter_map(|epoch| acks.take_last_of(*epoch)).collect();
            drop(acks);
            commit(consumer, &self.acks, &offsets, CommitMode::Sync);
        }
        let mut acks = self.acks.lock().expect("no holder of this lock panics");
        let mut assignment = self.assignment.lock().expect("no holder of this lock panics");
        for name in names {
            if let Some(epoch) = assignment.remove(name) {
                acks.end(epoch);
            }
        }
    }
}

fn names_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition {
            topic: element.topic().into(),
            partition: element.partition(),
        })
        .collect()
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "OFFSET"
            && let Some((name, wanted)) = offset_reset(message)
        {
            let mut resets = self.resets.lock().expect("no holder of this lock panics");
            resets.insert(name, wanted);
            self.has_resets.store(true, Relaxed);
        }
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                error!(facility, "{message}");
            }
            // A broker that is away is told once, by the error that `poll` returns.
            _ => debug!(facility, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.meters.set_error(format!("kafka: {error}: {reason}"));
        debug!(%error, reason, "kafka");
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(list) => self.on_assigned(&names_of(list)),
            Rebalance::Revoke(list) => self.on_revoked(consumer, &names_of(list)),
            Rebalance::Error(error) => warn!(%error, "rebalance"),
        }
    }

    fn post_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        self.rebalances.fetch_add(1, Relaxed);
        let (what, list) = match rebalance {
            Rebalance::Assign(list) => ("partitions assigned", list),
            Rebalance::Revoke(list) => ("partitions given away", list),
            Rebalance::Error(_) => return,
        };
        if list.count() > 0 {
            let partitions: Vec<String> = names_of(list)
                .iter()
                .map(|name| format!("{}-{}", name.topic, name.partition))
                .collect();
            info!(partitions = partitions.join(" "), "{what}");
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        let Err(error) = result else { return };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) {
            return;
        }
        debug!(%error, "offsets not committed; tried again");
        let offsets: Vec<_> = names_of(offsets).into_iter().map(|name| (name, 0)).collect();
        self.acks.lock().expect("no holder of this lock panics").uncommit(&offsets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(partition: i32) -> TopicPartition {
        TopicPartition { topic: "logs".into(), partition }
    }

    fn partitions(list: &TopicPartitionList) -> Vec<i32> {
        list.elements().iter().map(|element| element.partition()).collect()
    }

    #[test]
    fn stopped_partition_stops_again_after_all_were_resumed() {
        let mut stopped = Stopped::default();
        let changes = |stopped: &Stopped, now: &[TopicPartition]| {
            let (stop, free) = stopped.changes(now);
            (partitions(&stop), partitions(&free))
        };
        assert_eq!(changes(&stopped, &[name(1)]), (vec![1], vec![]));
        stopped.names = vec![name(1)];
        assert_eq!(changes(&stopped, &[name(1)]), (vec![], vec![]));
        stopped.on_all_resumed();
        assert_eq!(changes(&stopped, &[name(1)]), (vec![1], vec![]));
        stopped.names = vec![name(1)];
        assert_eq!(changes(&stopped, &[name(2)]), (vec![2], vec![1]));
    }

    #[test]
    fn batch_of_an_ended_assignment_is_not_filled_further() {
        let acks = Arc::new(Mutex::new(Acks::default()));
        let (old, kept) = {
            let mut acks = acks.lock().unwrap();
            (acks.assign(name(0)), acks.assign(name(1)))
        };
        let mut open = vec![
            Batch::new(name(0), old, acks.clone()),
            Batch::new(name(1), kept, acks.clone()),
            Batch::new(name(2), Epoch(99), acks.clone()),
        ];
        let new = acks.lock().unwrap().assign(name(0));
        keep_current(&mut open, &HashMap::from([(name(0), new), (name(1), kept)]));
        let left: Vec<_> = open.iter().map(|batch| batch.epoch).collect();
        assert_eq!(left, [kept]);
    }

    #[test]
    fn loss_by_retention_is_read_from_librdkafkas_word() {
        let out_of_range = "[thrd:main]: my-logs.x [3]: offset reset (at offset 17 (leader epoch 0), broker 1) to offset BEGINNING (leader epoch -1): fetch failed due to requested offset not available on the broker: Broker: Offset out of range";
        let topic = TopicPartition { topic: "my-logs.x".into(), partition: 3 };
        assert_eq!(offset_reset(out_of_range), Some((topic.clone(), 17)));
        let bare = out_of_range.strip_prefix("[thrd:main]: ").unwrap();
        assert_eq!(offset_reset(bare), Some((topic, 17)));
        let new = "logs [0]: offset reset (at offset INVALID (leader epoch -1), broker 1) to offset BEGINNING: no previously committed offset available: Local: No offset stored";
        assert_eq!(offset_reset(new), None);
        assert_eq!(offset_reset("Offset out of range"), None);
    }
}
