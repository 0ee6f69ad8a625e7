//! From what cluster and sinks say to what the ladder is told.

use std::collections::BTreeMap;

use elkfk_broker_client::lag::{GroupSample, PartitionSample, Sample};
use elkfk_broker_client::{GroupDescription, Topic};

use super::facts::Facts;
use super::sinks;
use crate::ladder::{Cluster, Observation, Partition, Retention, Sink, TopicFacts};

/// Members of a group, as far as a step needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Members {
    pub all: u32,
    /// Those that read the topic, or nothing at all and so are free for it.
    pub of_topic: u32,
}

impl Members {
    pub(crate) fn of(group: &GroupDescription, topic: &str) -> Self {
        let of_topic = group.members.iter().filter(|member| {
            member.assignment.values().all(Vec::is_empty)
                || member.assignment.get(topic).is_some_and(|partitions| !partitions.is_empty())
        });
        Self { all: count(group.members.len()), of_topic: count(of_topic.count()) }
    }
}

/// What one group knows of one topic's partitions, and all others with it.
#[derive(Debug)]
pub(crate) struct Offsets<'a> {
    /// Log start and end of every partition.
    pub ends: Vec<(i64, i64)>,
    partitions: BTreeMap<i32, &'a PartitionSample>,
}

impl<'a> Offsets<'a> {
    /// `missing` has start and end of those partitions that no group has read yet.
    ///
    /// # Errors
    ///
    /// Naming the partition of which nothing is known: without it the others say too little.
    pub(crate) fn of(
        group: &'a GroupSample,
        topic: &Topic,
        missing: &BTreeMap<i32, (i64, i64)>,
    ) -> Result<Self, String> {
        let partitions: BTreeMap<i32, &PartitionSample> = group
            .partitions
            .iter()
            .filter(|sample| sample.topic == topic.name)
            .map(|sample| (sample.partition, sample))
            .collect();
        let mut ends = Vec::with_capacity(topic.partitions.len());
        for (at, partition) in topic.partitions.iter().enumerate() {
            if partition.index != at as i32 {
                return Err(format!("partition {at} is not in the metadata"));
            }
            let sampled = partitions.get(&partition.index);
            let known = sampled.and_then(|sample| sample.ends);
            match known.or_else(|| missing.get(&partition.index).copied()) {
                Some(both) => ends.push(both),
                None => {
                    let why = sampled.and_then(|sample| sample.why_unknown.as_deref());
                    return Err(format!(
                        "partition {at}: {}",
                        why.unwrap_or("its end is not known")
                    ));
                }
            }
        }
        Ok(Self { ends, partitions })
    }
}

/// Partitions of the topic whose ends the sample does not hold.
pub(crate) fn missing(group: &GroupSample, topic: &Topic) -> Vec<i32> {
    let has = |index: i32| {
        group.partitions.iter().any(|sample| {
            sample.topic == topic.name && sample.partition == index && sample.ends.is_some()
        })
    };
    topic.partitions.iter().map(|partition| partition.index).filter(|index| !has(*index)).collect()
}

/// Everything that is known of one group and topic at a moment.
#[derive(Debug)]
pub(crate) struct Look<'a> {
    pub sample: &'a Sample,
    pub group: &'a GroupSample,
    pub members: Members,
    pub topic: &'a Topic,
    pub offsets: &'a Offsets<'a>,
    pub facts: &'a Facts,
    pub cluster: &'a Cluster,
    /// Those that read it.
    pub sinks: &'a [&'a sinks::Sink],
}

impl Look<'_> {
    /// What the ladder is told.
    pub(crate) fn observation(&self) -> Observation {
        let Self { sample, group, members, topic, offsets, facts, cluster, sinks } = self;
        let (slowest, slowest_group) = slowest(sample, topic);
        let partitions = offsets.ends.iter().enumerate().map(|(at, (log_start, end))| {
            let own = offsets.partitions.get(&(at as i32));
            let slowest = slowest.get(at).copied().flatten();
            Partition {
                log_start: *log_start,
                end: *end,
                committed: own.and_then(|own| own.committed),
                committed_record_ms: own.and_then(|own| own.committed_record_ms),
                slowest_committed: slowest.map(|(committed, _)| committed),
                slowest_record_ms: slowest.and_then(|(_, record_ms)| record_ms),
            }
        });
        let state = group.state.as_str();
        let replicas = topic.partitions.iter().map(|partition| partition.replicas.len()).max();
        Observation {
            partitions: partitions.collect(),
            consumers: members.of_topic,
            is_rebalancing: matches!(state, "PreparingRebalance" | "CompletingRebalance"),
            sink: sink(sinks),
            cluster: (*cluster).clone(),
            topic: TopicFacts {
                replication_factor: count(replicas.unwrap_or(0)),
                is_compacted: facts.is_compacted,
                has_foreign_keys: facts.has_foreign_keys(),
                hottest_file: facts.hottest_file.clone(),
            },
            retention: Retention {
                retention_ms: facts.retention_ms,
                disk_used_share: facts.disk_used_share,
                slowest_group,
            },
        }
    }
}

/// All sinks as one. None: none of them answers.
fn sink(sinks: &[&sinks::Sink]) -> Option<Sink> {
    let mut whole: Option<Sink> = None;
    let mut waited = 0.0;
    for sink in sinks {
        let Some(figures) = sink.now() else { continue };
        let consumers = figures.consumers.max(1);
        waited += sink.blocked_share * f64::from(consumers);
        let first = whole.is_none();
        let whole = whole.get_or_insert_with(Sink::default);
        whole.is_elasticsearch_away |= figures.is_elasticsearch_away;
        // Asked for in each of them, so that the one with the fewest counts.
        whole.workers = if first { figures.workers } else { whole.workers.min(figures.workers) };
        whole.workers_max = match first {
            true => figures.workers_max,
            false => whole.workers_max.min(figures.workers_max),
        };
        whole.processes = whole.processes.saturating_add(consumers);
        whole.processes_max = whole.processes_max.saturating_add(figures.consumers_max.max(1));
    }
    if let Some(whole) = &mut whole {
        whole.blocked_share = waited / f64::from(whole.processes.max(1));
    }
    whole
}

/// An offset, and the time of the record there.
type Slowest = Option<(i64, Option<i64>)>;

/// By partition the least offset that any group has committed, with the time of the record there, and the
/// name of the group that is furthest behind. None where some group's is not known: it may be the slowest.
fn slowest(sample: &Sample, topic: &Topic) -> (Vec<Slowest>, Option<String>) {
    let count = topic.partitions.len();
    if sample.groups.iter().any(|group| group.why_unknown.is_some()) {
        return (vec![None; count], None);
    }
    let mut least: Vec<Slowest> = vec![None; count];
    let mut is_unknown = vec![false; count];
    let mut furthest: Option<(i64, &str)> = None;
    for group in &sample.groups {
        let mut lag: Option<i64> = None;
        for read in group.partitions.iter().filter(|read| read.topic == topic.name) {
            let Some(at) = usize::try_from(read.partition).ok().filter(|at| *at < count) else {
                continue;
            };
            let Some(committed) = read.committed else {
                // It may want all of it.
                is_unknown[at] = true;
                continue;
            };
            if least[at].is_none_or(|(other, _)| committed < other) {
                least[at] = Some((committed, read.committed_record_ms));
            }
            if let Some((start, end)) = read.ends {
                let own = end.saturating_sub(committed.max(start)).max(0);
                lag = Some(lag.unwrap_or(0).saturating_add(own));
            }
        }
        if let Some(lag) = lag
            && furthest.is_none_or(|(most, _)| lag > most)
        {
            furthest = Some((lag, &group.group));
        }
    }
    for (least, is_unknown) in least.iter_mut().zip(is_unknown) {
        if is_unknown {
            *least = None;
        }
    }
    (least, furthest.map(|(_, group)| group.to_owned()))
}

pub(crate) fn count(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::{Broker, Member};
    use elkfk_wire::kafka::{ErrorCode, Uuid};

    use super::*;

    fn topic(partitions: i32) -> Topic {
        let partition = |index| elkfk_broker_client::Partition {
            error: ErrorCode::NONE,
            index,
            leader: Some(0),
            leader_epoch: 0,
            replicas: vec![0, 1],
            isr: vec![0, 1],
            offline: vec![],
        };
        Topic {
            error: ErrorCode::NONE,
            name: "logs".into(),
            id: Uuid::ZERO,
            is_internal: false,
            partitions: (0..partitions).map(partition).collect(),
        }
    }

    fn group(name: &str, committed: &[Option<i64>]) -> GroupSample {
        let partitions = committed.iter().zip(0..).map(|(committed, partition)| PartitionSample {
            topic: "logs".into(),
            partition,
            committed: *committed,
            ends: Some((0, 100)),
            committed_record_ms: committed.map(|committed| committed * 1000),
            ..PartitionSample::default()
        });
        GroupSample {
            group: name.into(),
            state: "Stable".into(),
            partitions: partitions.collect(),
            ..GroupSample::default()
        }
    }

    fn look(sample: &Sample, topic: &Topic, missing: &BTreeMap<i32, (i64, i64)>) -> Observation {
        let group = &sample.groups[0];
        let offsets = Offsets::of(group, topic, missing).unwrap();
        let cluster = Cluster { brokers: 2, replicas: 4 };
        Look {
            sample,
            group,
            members: Members { all: 2, of_topic: 2 },
            topic,
            offsets: &offsets,
            facts: &Facts::default(),
            cluster: &cluster,
            sinks: &[],
        }
        .observation()
    }

    #[test]
    fn the_slowest_of_all_groups_is_known_or_nothing_is_said() {
        let mut sample = Sample {
            now_ms: 0,
            groups: vec![
                group("sink", &[Some(90), Some(80)]),
                group("audit", &[Some(95), Some(7)]),
            ],
        };
        let seen = look(&sample, &topic(2), &BTreeMap::new());
        let slowest = |seen: &Observation| {
            seen.partitions.iter().map(|p| p.slowest_committed).collect::<Vec<_>>()
        };
        assert_eq!(slowest(&seen), [Some(90), Some(7)]);
        assert_eq!(seen.partitions[1].slowest_record_ms, Some(7000));
        assert_eq!(seen.retention.slowest_group.as_deref(), Some("audit"));
        // A group that never committed a partition may want all of it.
        sample.groups[1].partitions[0].committed = None;
        assert_eq!(slowest(&look(&sample, &topic(2), &BTreeMap::new())), [None, Some(7)]);
        sample.groups[1].why_unknown = Some("moved".into());
        assert_eq!(slowest(&look(&sample, &topic(2), &BTreeMap::new())), [None, None]);
    }

    #[test]
    fn a_partition_nobody_has_read_counts_and_one_without_an_end_ends_the_look() {
        let sample = Sample { now_ms: 0, groups: vec![group("sink", &[Some(90), Some(80)])] };
        assert_eq!(missing(&sample.groups[0], &topic(3)), [2]);
        let seen = look(&sample, &topic(3), &BTreeMap::from([(2, (0, 40))]));
        assert_eq!((seen.partitions[2].end, seen.partitions[2].committed), (40, None));
        let unseen = Offsets::of(&sample.groups[0], &topic(3), &BTreeMap::new());
        assert_eq!(unseen.unwrap_err(), "partition 2: its end is not known");
    }

    #[test]
    fn members_of_another_topic_are_not_counted_and_idle_ones_are() {
        let member = |topics: &[&str]| Member {
            id: "m".into(),
            instance_id: None,
            client_id: "c".into(),
            host: "/127.0.0.1".into(),
            assignment: topics.iter().map(|topic| ((*topic).to_owned(), vec![0])).collect(),
        };
        let described = GroupDescription {
            group: "sink".into(),
            state: "Stable".into(),
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![member(&["logs"]), member(&["other"]), member(&[])],
            coordinator: Broker { id: 0, host: "h".into(), port: 1, rack: None },
        };
        assert_eq!(Members::of(&described, "logs"), Members { all: 3, of_topic: 2 });
    }
}
