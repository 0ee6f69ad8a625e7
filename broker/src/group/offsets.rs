//! What one group committed.

use std::collections::BTreeMap;

/// How far a group has read one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset to read.
    pub(crate) offset: i64,
    /// -1: unknown.
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
    /// Milliseconds since the epoch.
    pub(crate) commit_ms: i64,
    /// Set by old clients only; otherwise `offsets.retention.minutes` counts.
    pub(crate) expire_ms: Option<i64>,
}

/// Committed offsets by topic and partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct Offsets {
    by_topic: BTreeMap<String, BTreeMap<i32, Committed>>,
}

impl Offsets {
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        self.by_topic.get(topic)?.get(&partition)
    }

    pub(crate) fn insert(&mut self, topic: &str, partition: i32, committed: Committed) {
        match self.by_topic.get_mut(topic) {
            Some(partitions) => drop(partitions.insert(partition, committed)),
            None => drop(self.by_topic.insert(topic.to_owned(), [(partition, committed)].into())),
        }
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) -> Option<Committed> {
        let partitions = self.by_topic.get_mut(topic)?;
        let removed = partitions.remove(&partition);
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        removed
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &BTreeMap<i32, Committed>)> {
        self.by_topic.iter().map(|(topic, partitions)| (topic.as_str(), partitions))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(partition, committed)| (topic.as_str(), *partition, committed))
        })
    }
}
