//! What one group committed.

use std::collections::BTreeMap;

use super::WriteId;

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
    by_topic: BTreeMap<String, BTreeMap<i32, Stored>>,
}

#[derive(Debug, Clone)]
struct Stored {
    committed: Committed,
    /// The write that put it into the log.
    write: WriteId,
}

impl Offsets {
    pub(crate) fn get(&self, topic: &str, partition: i32) -> Option<&Committed> {
        Some(&self.by_topic.get(topic)?.get(&partition)?.committed)
    }

    /// Takes in what `write` has put into the log, unless a later write is known already: they
    /// become durable together, and are heard of in any order.
    pub(crate) fn insert(
        &mut self,
        topic: &str,
        partition: i32,
        committed: Committed,
        write: WriteId,
    ) {
        let stored = Stored { committed, write };
        match self.by_topic.get_mut(topic) {
            Some(partitions) => {
                if partitions.get(&partition).is_none_or(|known| known.write <= write) {
                    partitions.insert(partition, stored);
                }
            }
            None => drop(self.by_topic.insert(topic.to_owned(), [(partition, stored)].into())),
        }
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) -> Option<Committed> {
        let partitions = self.by_topic.get_mut(topic)?;
        let removed = partitions.remove(&partition);
        if partitions.is_empty() {
            self.by_topic.remove(topic);
        }
        removed.map(|stored| stored.committed)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    /// The partitions of each topic.
    pub(crate) fn topics(
        &self,
    ) -> impl Iterator<Item = (&str, impl Iterator<Item = (i32, &Committed)>)> {
        self.by_topic.iter().map(|(topic, partitions)| {
            let partitions = partitions.iter();
            (topic.as_str(), partitions.map(|(number, stored)| (*number, &stored.committed)))
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, i32, &Committed)> {
        self.by_topic.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(|(number, stored)| (topic.as_str(), *number, &stored.committed))
        })
    }
}
