//! A load and the cluster it meets: recorded, written by hand, or one of the named scenarios.

use serde::{Deserialize, Serialize};

/// Seconds a trace may last: a week.
const SECONDS_MAX: u32 = 7 * 86_400;
const COUNT_MAX: u32 = 10_000;

/// All rates are records per second. What is not given has the defaults of the seven scenarios.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trace {
    pub name: String,
    pub seconds: u32,
    /// What is written to the topic, from a second on until the next entry.
    pub arrival: Vec<Change>,
    /// What Elasticsearch takes, all consumers together. Empty: it never limits.
    pub elasticsearch: Vec<Change>,
    /// Partitions that do not move for a while.
    pub stalls: Vec<Stall>,
    /// Rebalances that nobody asked for, such as a consumer's death.
    pub rebalances: Vec<Pause>,
    /// Files written to at any time. Each keeps its partition; when it rotates, its successor goes
    /// where least is going on.
    pub files: u32,
    /// Records after which a file rotates; the default is 10 MB of 200 bytes each.
    pub file_records: f64,
    /// Share of the arrival that comes from one file that never rotates, 0 to 1.
    pub hot_file_share: f64,
    /// Shippers tell of the hot file.
    pub is_hot_file_told: bool,
    /// Producers are not elkfk's: a record's partition is the hash of its key, modulo the partitions.
    pub is_keyed: bool,
    pub is_compacted: bool,
    pub partitions: u32,
    pub consumers: u32,
    pub workers: u32,
    pub workers_max: u32,
    /// Limits of one consumer, of one partition, and of one parser thread.
    pub per_consumer: f64,
    pub per_partition: f64,
    pub per_worker: f64,
    /// For how long a change of consumers or partitions stops the group.
    pub rebalance_s: u32,
    pub brokers: u32,
    pub replication_factor: u32,
    /// Replicas of other topics on these brokers.
    pub other_replicas: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Change {
    pub at_s: u32,
    pub per_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Stall {
    pub partition: u32,
    pub from_s: u32,
    pub to_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    pub at_s: u32,
    pub seconds: u32,
}

impl Default for Trace {
    fn default() -> Self {
        Self {
            name: String::new(),
            seconds: 4 * 3600,
            arrival: vec![Change { at_s: 0, per_s: 20e3 }],
            elasticsearch: Vec::new(),
            stalls: Vec::new(),
            rebalances: Vec::new(),
            files: 64,
            file_records: 50e3,
            hot_file_share: 0.0,
            is_hot_file_told: true,
            is_keyed: false,
            is_compacted: false,
            partitions: 4,
            consumers: 4,
            workers: 2,
            workers_max: 2,
            per_consumer: 10e3,
            per_partition: 15e3,
            per_worker: 5e3,
            rebalance_s: 10,
            brokers: 3,
            replication_factor: 2,
            other_replicas: 0,
        }
    }
}

impl Trace {
    /// Every mistake of a trace that someone else wrote. Empty if it can be run.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        for (key, value, least, most) in [
            ("seconds", self.seconds, 1, SECONDS_MAX),
            ("files", self.files, 1, COUNT_MAX),
            ("partitions", self.partitions, 1, COUNT_MAX),
            ("consumers", self.consumers, 0, COUNT_MAX),
            ("workers", self.workers, 1, COUNT_MAX),
            ("workers_max", self.workers_max, 1, COUNT_MAX),
            ("rebalance_s", self.rebalance_s, 0, 3600),
            ("brokers", self.brokers, 1, COUNT_MAX),
            ("replication_factor", self.replication_factor, 1, COUNT_MAX),
        ] {
            if !(least..=most).contains(&value) {
                mistakes.push(format!("{key} = {value} must be between {least} and {most}"));
            }
        }
        for (key, value) in [
            ("per_consumer", self.per_consumer),
            ("per_partition", self.per_partition),
            ("per_worker", self.per_worker),
            ("file_records", self.file_records),
        ] {
            if !(value > 0.0 && value <= 1e12) {
                mistakes.push(format!("{key} = {value} must be above 0"));
            }
        }
        if !(0.0..=1.0).contains(&self.hot_file_share) {
            mistakes.push(format!("hot_file_share = {} must be 0 to 1", self.hot_file_share));
        }
        for (key, changes) in [("arrival", &self.arrival), ("elasticsearch", &self.elasticsearch)] {
            if !changes.is_sorted_by_key(|change| change.at_s) {
                mistakes.push(format!("{key}: at_s must not fall"));
            }
            if let Some(wrong) = changes.iter().find(|c| !(c.per_s >= 0.0 && c.per_s <= 1e12)) {
                mistakes.push(format!("{key}: {} at {} s is no rate", wrong.per_s, wrong.at_s));
            }
        }
        mistakes
    }
}
