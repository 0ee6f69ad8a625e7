//! What the ladder is told, each interval.

use serde::{Deserialize, Serialize};

/// The state of one topic as one group reads it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Observation {
    /// By number; all of the topic's.
    pub partitions: Vec<Partition>,
    /// Members of the group that read this topic.
    pub consumers: u32,
    /// The group prepares or completes a rebalance.
    pub is_rebalancing: bool,
    /// None: the consumers are not elkfk's, or can not be asked.
    pub sink: Option<Sink>,
    pub cluster: Cluster,
    pub topic: TopicFacts,
    pub retention: Retention,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Partition {
    pub log_start: i64,
    /// The high watermark; read after the committed offset, so that lag is not negative by a race.
    pub end: i64,
    /// None: the group has not committed yet and will read from the beginning.
    pub committed: Option<i64>,
    /// Timestamp of the record at the committed offset. None: nothing there, or not known.
    pub committed_record_ms: Option<i64>,
    /// The slowest of all groups that read this topic.
    pub slowest_committed: Option<i64>,
    /// Timestamp of the record there.
    pub slowest_record_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sink {
    /// Share of the time since the last observation in which reading waited for Elasticsearch, 0 to 1.
    pub blocked_share: f64,
    /// No node of Elasticsearch answers.
    pub is_elasticsearch_away: bool,
    /// Parser threads of each process.
    pub workers: u32,
    pub workers_max: u32,
    pub processes: u32,
    pub processes_max: u32,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Cluster {
    /// Brokers that are alive.
    pub brokers: u32,
    /// Replicas of all partitions of all topics.
    pub replicas: u64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct TopicFacts {
    pub replication_factor: u32,
    pub is_compacted: bool,
    /// Records carry keys that elkfk's shipper did not write.
    pub has_foreign_keys: bool,
    /// The file with the largest share of the arrival, where shippers tell.
    pub hottest_file: Option<HotFile>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct HotFile {
    pub path: String,
    /// Of the topic's arrival, 0 to 1.
    pub share: f64,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Retention {
    /// `retention.ms`; None: not limited.
    pub retention_ms: Option<i64>,
    /// Of the fullest broker that holds this topic, 0 to 1.
    pub disk_used_share: Option<f64>,
    /// Name of the slowest group.
    pub slowest_group: Option<String>,
}

impl Partition {
    /// Where reading stands. A commit below the first offset is moved there by the broker's answer,
    /// one above the end is a race between two questions.
    pub(crate) fn position(&self) -> i64 {
        self.committed.unwrap_or(self.log_start).clamp(self.log_start, self.end.max(self.log_start))
    }

    pub(crate) fn lag(&self) -> i64 {
        self.end.saturating_sub(self.position()).max(0)
    }
}
