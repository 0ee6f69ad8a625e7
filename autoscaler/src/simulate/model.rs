//! A topic, its writers, its readers and Elasticsearch, second by second, as a fluid.
//!
//! A partition is read by one consumer; a consumer takes at most what it can parse, a partition gives
//! at most what its broker serves, all together at most what Elasticsearch takes. Consumer `c` of `n`
//! has the partitions `c`, `c + n`, …, so that some have one more than others. A change of consumers
//! or partitions stops the whole group for a while.

use std::collections::VecDeque;

use super::chance::mix;
use super::trace::{Change, Trace};
use crate::ladder::{self, Cluster, HotFile, Observation, Retention, Sink, TopicFacts};

/// Unix time of second 0.
pub(crate) const EPOCH_MS: i64 = 1_700_000_000_000;
/// The ladder's window, over which the model remembers when it was blocked.
pub(crate) const BLOCKED_S: usize = 120;
const RECORD_BYTES: f64 = 200.0;

/// Counts that a policy may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    pub partitions: u32,
    pub consumers: u32,
    pub workers: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Model<'a> {
    pub(crate) trace: &'a Trace,
    /// The second last lived through.
    pub(crate) now_s: u32,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) consumers: u32,
    pub(crate) workers: u32,
    /// Readers stand still before this second.
    pub(crate) stopped_until_s: u32,
    files: Vec<File>,
    /// Keys that changed their partition while older records of theirs were unread.
    moves: Vec<Move>,
    /// Records of one key or file were read out of order.
    pub(crate) order_broken: u64,
    arrival: Cursor,
    elasticsearch: Cursor,
    pub(crate) arrival_per_s: f64,
    pub(crate) consumed_per_s: f64,
    /// Whether Elasticsearch took less than was there for it, the latest last.
    pub(crate) blocked: VecDeque<bool>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Partition {
    pub(crate) end: f64,
    pub(crate) committed: f64,
    /// Second of arrival and end of what arrived then; the first is not wholly read.
    unread: VecDeque<(u32, f64)>,
    files: u32,
    /// Halved every minute, as the shipper's.
    recent_bytes: f64,
}

#[derive(Debug, Clone)]
struct File {
    partition: u32,
    share: f64,
    written: f64,
    rotates: bool,
}

#[derive(Debug, Clone, Copy)]
struct Move {
    from: u32,
    from_end: f64,
    to: u32,
    to_end: f64,
}

/// Reads changes in the order of time.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    next: usize,
}

impl Cursor {
    fn at(&mut self, now_s: u32, changes: &[Change]) -> Option<f64> {
        while changes.get(self.next).is_some_and(|change| change.at_s <= now_s) {
            self.next += 1;
        }
        Some(changes[self.next.checked_sub(1)?].per_s)
    }
}

impl Partition {
    pub(crate) fn lag(&self) -> f64 {
        (self.end - self.committed).max(0.0)
    }

    fn take(&mut self, records: f64) {
        self.committed = (self.committed + records).min(self.end);
        while self.unread.front().is_some_and(|(_, end)| *end <= self.committed + 1e-6) {
            self.unread.pop_front();
        }
        if self.unread.is_empty() {
            self.committed = self.end;
        }
    }

    /// When the oldest unread record came.
    pub(crate) fn oldest_s(&self) -> Option<u32> {
        self.unread.front().map(|(at_s, _)| *at_s)
    }
}

impl Trace {
    /// What one consumer takes at most, with the workers it starts with.
    pub(super) fn consumer_rate(&self) -> f64 {
        self.per_consumer.min(f64::from(self.workers) * self.per_worker)
    }
}

impl<'a> Model<'a> {
    pub(crate) fn new(trace: &'a Trace) -> Self {
        let mut model = Self {
            trace,
            now_s: 0,
            partitions: vec![Partition::default(); trace.partitions as usize],
            consumers: trace.consumers,
            workers: trace.workers,
            stopped_until_s: 0,
            files: Vec::new(),
            moves: Vec::new(),
            order_broken: 0,
            arrival: Cursor::default(),
            elasticsearch: Cursor::default(),
            arrival_per_s: 0.0,
            consumed_per_s: 0.0,
            blocked: VecDeque::new(),
        };
        let hot = trace.hot_file_share;
        for number in 0..trace.files {
            let is_hot = hot > 0.0 && number == 0;
            let others = f64::from(trace.files - u32::from(hot > 0.0)).max(1.0);
            let share = if is_hot { hot } else { (1.0 - hot) / others };
            // Files rotate one after the other, not all at once.
            let written = f64::from(number) / f64::from(trace.files) * trace.file_records;
            let partition = model.place(number);
            model.files.push(File { partition, share, written, rotates: !is_hot });
        }
        model
    }

    /// The partition for a new file: hashed, or as the shipper's table chooses.
    fn place(&mut self, number: u32) -> u32 {
        let count = self.partitions.len() as u32;
        if self.trace.is_keyed {
            return (mix(u64::from(number) + 1) % u64::from(count)) as u32;
        }
        let load = |at: &u32| {
            let partition = &self.partitions[*at as usize];
            (partition.recent_bytes as u64 >> 20, partition.files)
        };
        let chosen = (0..count).min_by_key(load).unwrap_or(0);
        self.partitions[chosen as usize].files += 1;
        chosen
    }

    /// Lives through one second.
    pub(crate) fn tick(&mut self) {
        self.now_s += 1;
        self.write();
        self.read();
        self.check_order();
        if self.now_s.is_multiple_of(60) {
            self.partitions.iter_mut().for_each(|p| p.recent_bytes /= 2.0);
        }
    }

    fn write(&mut self) {
        let rate = self.arrival.at(self.now_s, &self.trace.arrival).unwrap_or(0.0);
        self.arrival_per_s = rate;
        for number in 0..self.files.len() {
            let file = &mut self.files[number];
            let records = rate * file.share;
            file.written += records;
            let partition = &mut self.partitions[file.partition as usize];
            partition.end += records;
            partition.recent_bytes += records * RECORD_BYTES;
            let is_full = file.rotates && file.written >= self.trace.file_records;
            if is_full && !self.trace.is_keyed {
                file.written = 0.0;
                partition.files -= 1;
                self.files[number].partition = self.place(number as u32);
            }
        }
        for partition in &mut self.partitions {
            let known = partition.unread.back().map_or(partition.committed, |(_, end)| *end);
            if partition.end > known {
                partition.unread.push_back((self.now_s, partition.end));
            }
        }
    }

    fn read(&mut self) {
        for rebalance in &self.trace.rebalances {
            if rebalance.at_s == self.now_s {
                let until_s = self.now_s.saturating_add(rebalance.seconds);
                self.stopped_until_s = self.stopped_until_s.max(until_s);
            }
        }
        let limit = self.elasticsearch.at(self.now_s, &self.trace.elasticsearch);
        let mut budget = limit.unwrap_or(f64::MAX);
        self.consumed_per_s = 0.0;
        let readers = self.consumers.min(self.partitions.len() as u32);
        if !self.is_stopped() && readers > 0 {
            for turn in 0..readers {
                let consumer = (turn + self.now_s) % readers;
                self.consume(consumer as usize, readers as usize, &mut budget);
            }
        }
        if self.blocked.len() == BLOCKED_S {
            self.blocked.pop_front();
        }
        self.blocked.push_back(budget < 1.0);
    }

    fn consume(&mut self, consumer: usize, readers: usize, budget: &mut f64) {
        let limit = self.consumer_rate().min(*budget);
        let per_partition = self.trace.per_partition;
        let mut waiting = 0.0;
        for at in (consumer..self.partitions.len()).step_by(readers) {
            if !self.is_stalled(at) {
                waiting += self.partitions[at].lag().min(per_partition);
            }
        }
        let share = (limit / waiting.max(1.0)).min(1.0);
        for at in (consumer..self.partitions.len()).step_by(readers) {
            if !self.is_stalled(at) {
                let records = share * self.partitions[at].lag().min(per_partition);
                self.partitions[at].take(records);
                self.consumed_per_s += records;
                *budget -= records;
            }
        }
    }

    /// A moved key's records in its new partition are read before those in the old one?
    fn check_order(&mut self) {
        let partitions = &self.partitions;
        let mut broken = 0;
        self.moves.retain(|moved| {
            let old = &partitions[moved.from as usize];
            let new = &partitions[moved.to as usize];
            let is_old_read = old.committed + 1e-6 >= moved.from_end;
            let is_new_begun = new.committed > moved.to_end + 1.0;
            broken += u64::from(is_new_begun && !is_old_read);
            !is_old_read && !is_new_begun
        });
        self.order_broken += broken;
    }

    /// Does what a policy asked for.
    pub(crate) fn apply(&mut self, step: Step) {
        let is_rebalance =
            step.consumers != self.consumers || step.partitions != self.partitions.len() as u32;
        if step.partitions as usize != self.partitions.len() {
            self.partitions.resize(step.partitions as usize, Partition::default());
            // Kafka knows no fewer partitions: a policy that asks for them loses what they held.
            for number in 0..self.files.len() {
                if self.files[number].partition >= step.partitions {
                    self.files[number].partition = self.place(number as u32);
                }
            }
            if self.trace.is_keyed {
                self.rehash();
            }
        }
        self.consumers = step.consumers;
        self.workers = step.workers;
        if is_rebalance {
            self.stopped_until_s =
                self.stopped_until_s.max(self.now_s.saturating_add(self.trace.rebalance_s));
        }
    }

    fn rehash(&mut self) {
        for number in 0..self.files.len() {
            let from = self.files[number].partition;
            let to = self.place(number as u32);
            self.files[number].partition = to;
            if from != to {
                let end = |at: u32| self.partitions[at as usize].end;
                self.moves.push(Move { from, from_end: end(from), to, to_end: end(to) });
            }
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.now_s < self.stopped_until_s
    }

    pub(crate) fn is_stalled(&self, partition: usize) -> bool {
        self.trace.stalls.iter().any(|stall| {
            stall.partition as usize == partition
                && (stall.from_s..stall.to_s).contains(&self.now_s)
        })
    }

    pub(crate) fn consumer_rate(&self) -> f64 {
        self.trace.per_consumer.min(f64::from(self.workers) * self.trace.per_worker)
    }

    pub(crate) fn counts(&self) -> Step {
        Step {
            partitions: self.partitions.len() as u32,
            consumers: self.consumers,
            workers: self.workers,
        }
    }

    pub(crate) fn lag(&self) -> f64 {
        self.partitions.iter().map(Partition::lag).sum()
    }

    /// How long the oldest unread record has waited, of partitions that are not stalled or of all.
    pub(crate) fn time_lag_s(&self, with_stalled: bool) -> u32 {
        let partitions = self.partitions.iter().enumerate();
        partitions
            .filter(|(at, partition)| {
                partition.lag() >= 1.0 && (with_stalled || !self.is_stalled(*at))
            })
            .filter_map(|(_, partition)| Some(self.now_s - partition.oldest_s()?))
            .max()
            .unwrap_or(0)
    }

    pub(crate) fn now_ms(&self) -> i64 {
        EPOCH_MS + i64::from(self.now_s) * 1000
    }

    /// What an observer of the cluster would see, `interval_s` after the last look.
    pub(crate) fn observe(&self, interval_s: usize) -> Observation {
        let partition = |partition: &Partition| {
            let record_ms = partition.oldest_s().map(|at_s| EPOCH_MS + i64::from(at_s) * 1000);
            ladder::Partition {
                log_start: 0,
                end: partition.end as i64,
                committed: Some(partition.committed as i64),
                committed_record_ms: record_ms,
                slowest_committed: Some(partition.committed as i64),
                slowest_record_ms: record_ms,
            }
        };
        let lately = self.blocked.len().min(interval_s).max(1);
        let blocked = self.blocked.iter().rev().take(lately).filter(|&&is| is).count();
        let trace = self.trace;
        let replicas = self.partitions.len() as u64 * u64::from(trace.replication_factor);
        let hottest_file = (trace.is_hot_file_told && trace.hot_file_share > 0.0)
            .then(|| HotFile { path: "/var/log/hot.log".into(), share: trace.hot_file_share });
        Observation {
            partitions: self.partitions.iter().map(partition).collect(),
            consumers: self.consumers,
            is_rebalancing: self.is_stopped(),
            sink: Some(Sink {
                blocked_share: blocked as f64 / lately as f64,
                is_elasticsearch_away: false,
                workers: self.workers,
                workers_max: trace.workers_max,
                processes: self.consumers,
                processes_max: u32::MAX,
            }),
            cluster: Cluster {
                brokers: trace.brokers,
                replicas: trace.other_replicas.saturating_add(replicas),
            },
            topic: TopicFacts {
                replication_factor: trace.replication_factor,
                is_compacted: trace.is_compacted,
                has_foreign_keys: trace.is_keyed,
                hottest_file,
            },
            retention: Retention::default(),
        }
    }
}
