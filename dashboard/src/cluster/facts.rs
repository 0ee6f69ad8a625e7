//! What is known of topics and brokers. Pure.

use std::collections::BTreeMap;

use elkfk_broker_client::{Broker, Cluster, ListedOffsets, LogDir, LogSizes, TopicPartition};

/// A cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// 0 before the first.
    pub(crate) at_ms: i64,
    /// Why it is not newer.
    pub(crate) why: Option<String>,
    pub(crate) cluster_id: String,
    pub(crate) brokers: Vec<Broker>,
    /// By name.
    pub(crate) topics: Vec<TopicFacts>,
    pub(crate) directories: Vec<LogDir>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct TopicFacts {
    pub(crate) name: String,
    pub(crate) is_internal: bool,
    pub(crate) partitions: Vec<PartitionFacts>,
    /// Records per second since the last look.
    pub(crate) in_rate: Option<f64>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionFacts {
    pub(crate) index: i32,
    pub(crate) leader: Option<i32>,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) size_bytes: Option<u64>,
}

impl Facts {
    /// Of what was asked for, and of the look before.
    pub(crate) fn of(
        before: &Self,
        now_ms: i64,
        cluster: &Cluster,
        starts: &ListedOffsets,
        ends: &ListedOffsets,
        sizes: &LogSizes,
    ) -> Self {
        let elapsed_s = (now_ms - before.at_ms) as f64 / 1000.0;
        let topics = cluster.topics.iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let place = TopicPartition::new(topic.name.as_str(), partition.index);
                let known = |offsets: &ListedOffsets| offsets.get(&place)?.as_ref().ok()?.offset;
                PartitionFacts {
                    index: partition.index,
                    leader: partition.leader,
                    replicas: partition.replicas.clone(),
                    isr: partition.isr.clone(),
                    start: known(starts),
                    end: known(ends),
                    size_bytes: sizes.partitions.get(&place).copied(),
                }
            });
            let partitions: Vec<_> = partitions.collect();
            let in_rate = before
                .topic(&topic.name)
                .filter(|_| elapsed_s > 0.0)
                .map(|before| arrived(before, &partitions) as f64 / elapsed_s);
            let (name, is_internal) = (topic.name.clone(), topic.is_internal);
            TopicFacts { name, is_internal, partitions, in_rate }
        });
        let mut topics: Vec<_> = topics.collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Self {
            at_ms: now_ms,
            why: None,
            cluster_id: cluster.id.clone().unwrap_or_default(),
            brokers: cluster.brokers.clone(),
            topics,
            directories: sizes.directories.clone(),
        }
    }

    pub(crate) fn topic(&self, name: &str) -> Option<&TopicFacts> {
        let at = self.topics.binary_search_by(|topic| topic.name.as_str().cmp(name)).ok()?;
        self.topics.get(at)
    }

    pub(crate) fn partitions(&self) -> usize {
        self.topics.iter().map(|topic| topic.partitions.len()).sum()
    }

    /// Leaders of a topic by partition.
    pub(crate) fn leaders(&self, topic: &str) -> BTreeMap<i32, i32> {
        let partitions = self.topic(topic).into_iter().flat_map(|topic| &topic.partitions);
        partitions.filter_map(|one| Some((one.index, one.leader?))).collect()
    }
}

fn arrived(before: &TopicFacts, partitions: &[PartitionFacts]) -> i64 {
    let known: BTreeMap<i32, i64> =
        before.partitions.iter().filter_map(|one| Some((one.index, one.end?))).collect();
    let moved = |one: &PartitionFacts| match known.get(&one.index) {
        Some(before) => Some((one.end? - before).max(0)),
        // A partition that is new began with nothing.
        None => one.end,
    };
    partitions.iter().filter_map(moved).fold(0, i64::saturating_add)
}

impl TopicFacts {
    pub(crate) fn replication_factor(&self) -> usize {
        self.partitions.iter().map(|one| one.replicas.len()).max().unwrap_or(0)
    }

    /// Partitions without a leader.
    pub(crate) fn offline(&self) -> usize {
        self.partitions.iter().filter(|one| one.leader.is_none()).count()
    }

    /// Partitions of which a replica is missing.
    pub(crate) fn under_replicated(&self) -> usize {
        self.partitions.iter().filter(|one| one.is_under_replicated()).count()
    }

    pub(crate) fn size_bytes(&self) -> Option<u64> {
        let sizes: Vec<u64> = self.partitions.iter().filter_map(|one| one.size_bytes).collect();
        (!sizes.is_empty()).then(|| sizes.iter().sum())
    }

    pub(crate) fn records(&self) -> Option<i64> {
        let kept = self.partitions.iter().map(|one| Some((one.end? - one.start?).max(0)));
        kept.sum::<Option<i64>>()
    }
}

impl PartitionFacts {
    pub(crate) fn is_under_replicated(&self) -> bool {
        self.isr.len() < self.replicas.len()
    }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::{ListedOffset, Partition, Topic};

    use super::*;

    fn cluster(partitions: i32) -> Cluster {
        let partition = |index| Partition {
            error: elkfk_wire::kafka::ErrorCode::NONE,
            index,
            leader: (index != 1).then_some(0),
            leader_epoch: 0,
            replicas: vec![0, 1],
            isr: vec![0],
            offline: vec![],
        };
        let topic = Topic {
            error: elkfk_wire::kafka::ErrorCode::NONE,
            name: "logs".into(),
            id: elkfk_wire::kafka::Uuid::ZERO,
            is_internal: false,
            partitions: (0..partitions).map(partition).collect(),
        };
        Cluster { topics: vec![topic], ..Cluster::default() }
    }

    fn offsets(offsets: &[i64]) -> ListedOffsets {
        let listed =
            |offset| ListedOffset { offset: Some(offset), timestamp_ms: None, leader_epoch: 0 };
        (0..)
            .zip(offsets)
            .map(|(p, offset)| (TopicPartition::new("logs", p), Ok(listed(*offset))))
            .collect()
    }

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let sizes = LogSizes::default();
        let starts = offsets(&[0, 0, 0]);
        let first =
            Facts::of(&Facts::default(), 1_000, &cluster(2), &starts, &offsets(&[100, 50]), &sizes);
        assert_eq!(first.topics[0].in_rate, None);
        let ends = offsets(&[150, 40, 25]);
        let second = Facts::of(&first, 6_000, &cluster(3), &starts, &ends, &sizes);
        let topic = second.topic("logs").unwrap();
        // 50 of the first, none of one that was recreated, 25 of a new one.
        assert_eq!(topic.in_rate, Some(15.0));
        assert_eq!((topic.records(), topic.size_bytes()), (Some(215), None));
        assert_eq!(
            (topic.offline(), topic.under_replicated(), topic.replication_factor()),
            (1, 3, 2)
        );
        assert_eq!(second.leaders("logs"), BTreeMap::from([(0, 0), (2, 0)]));
        assert!(second.topic("none").is_none());
    }
}
