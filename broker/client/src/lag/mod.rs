//! How far each consumer group is behind, and how fast it moves.
//!
//! The core takes samples of offsets and answers with a snapshot; it reads no clock and no socket.

mod history;
pub(crate) mod poller;
mod track;

use std::collections::BTreeMap;

use serde::Serialize;

use history::History;
use track::Track;

/// What was measured of the cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
    pub(crate) groups: Vec<GroupSample>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct GroupSample {
    pub(crate) group: String,
    /// As Kafka names it: Stable, Empty, …
    pub(crate) state: String,
    pub(crate) members: usize,
    pub(crate) partitions: Vec<PartitionSample>,
    /// Why the cluster did not say anything of this group; the other fields but its name are then empty.
    pub(crate) why_unknown: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct PartitionSample {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// The member that reads it, by client id and host.
    pub(crate) member: Option<String>,
    /// `None`: no commit yet.
    pub(crate) committed: Option<i64>,
    /// First offset and offset after the last record; `None` with the reason in `why_unknown`.
    pub(crate) ends: Option<(i64, i64)>,
    pub(crate) why_unknown: Option<String>,
    /// Time of the record at the committed offset.
    pub(crate) committed_record_ms: Option<i64>,
}

/// What the page shows.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Snapshot {
    pub(crate) now_ms: i64,
    pub(crate) groups: Vec<GroupLag>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct GroupLag {
    pub(crate) group: String,
    pub(crate) state: String,
    pub(crate) members: usize,
    pub(crate) topics: Vec<TopicLag>,
    /// Why nothing is known of it at the moment.
    pub(crate) why: Option<String>,
}

/// Sums over the partitions whose figures are known; seconds are those of the worst.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct TopicLag {
    pub(crate) topic: String,
    pub(crate) lag: Option<i64>,
    pub(crate) lag_seconds: Option<f64>,
    pub(crate) in_rate: Option<f64>,
    pub(crate) out_rate: Option<f64>,
    pub(crate) partitions: Vec<PartitionLag>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct PartitionLag {
    pub(crate) partition: i32,
    pub(crate) member: Option<String>,
    pub(crate) committed: Option<i64>,
    pub(crate) start: Option<i64>,
    pub(crate) end: Option<i64>,
    /// Records from the committed offset to the end.
    pub(crate) lag: Option<i64>,
    pub(crate) lag_seconds: Option<f64>,
    /// Records per second.
    pub(crate) in_rate: Option<f64>,
    pub(crate) out_rate: Option<f64>,
    pub(crate) state: State,
    pub(crate) why: Option<String>,
}

/// How a group does on one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Nothing to read, or what there is moves.
    Ok,
    /// Moving, but a minute or more behind.
    Behind,
    /// Members are there, records too, and the commit has not moved for half a minute.
    Stalled,
    /// Records are there and nobody reads them.
    Stopped,
    /// The group has not committed here.
    Uncommitted,
    Unknown,
}

/// Beyond this many partitions of groups no more are remembered: about 2 KiB each.
const TRACKS_MAX: usize = 20_000;
/// Beyond this many topics of groups no more are plotted: about 80 KiB each.
const HISTORIES_MAX: usize = 500;
/// A broker that has just come back lists groups only once it has read them: what a sample leaves out is
/// remembered for this long.
const FORGET_AFTER_MS: i64 = 60_000;

/// Remembers enough of past samples to tell rates, states and plots.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    tracks: BTreeMap<(String, String, i32), Track>,
    histories: BTreeMap<(String, String), History>,
}

impl Tracker {
    /// Takes in a sample. What no sample mentions for a minute is forgotten.
    pub(crate) fn step(&mut self, sample: Sample) -> Snapshot {
        let now_ms = sample.now_ms;
        let mut groups = Vec::with_capacity(sample.groups.len());
        for group in sample.groups {
            let mut topics: BTreeMap<String, TopicLag> = BTreeMap::new();
            let partitions = match &group.why_unknown {
                None => group.partitions,
                Some(why) => self.last_known(&group.group, why),
            };
            for partition in partitions {
                let topic = topics.entry(partition.topic.clone()).or_default();
                topic.topic.clone_from(&partition.topic);
                let key = (group.group.clone(), partition.topic.clone(), partition.partition);
                if self.tracks.len() < TRACKS_MAX || self.tracks.contains_key(&key) {
                    let track = self.tracks.entry(key).or_default();
                    topic.partitions.push(track.step(now_ms, partition, group.members > 0));
                }
            }
            for topic in topics.values_mut() {
                topic.add_up();
                let key = (group.group.clone(), topic.topic.clone());
                if self.histories.len() < HISTORIES_MAX || self.histories.contains_key(&key) {
                    self.histories.entry(key).or_default().push(now_ms, topic);
                }
            }
            let topics = topics.into_values().collect();
            groups.push(GroupLag {
                group: group.group,
                state: group.state,
                members: group.members,
                topics,
                why: group.why_unknown,
            });
        }
        let is_recent = |last_ms: i64| now_ms - last_ms < FORGET_AFTER_MS;
        self.tracks.retain(|_, track| is_recent(track.last_ms()));
        self.histories.retain(|_, history| is_recent(history.last_ms()));
        Snapshot { now_ms, groups }
    }

    /// Nothing could be measured: the plots get a gap, and everything is kept for when it can be again.
    pub(crate) fn miss(&mut self, now_ms: i64) {
        self.tracks.values_mut().for_each(|track| track.miss(now_ms));
        self.histories.values_mut().for_each(|history| history.miss(now_ms));
    }

    /// The partitions that `group` was last seen to read, with nothing known but why.
    fn last_known(&self, group: &str, why: &str) -> Vec<PartitionSample> {
        self.tracks
            .range((group.to_owned(), String::new(), i32::MIN)..)
            .take_while(|((of, ..), _)| of == group)
            .map(|((_, topic, partition), _)| PartitionSample {
                topic: topic.clone(),
                partition: *partition,
                why_unknown: Some(why.to_owned()),
                ..PartitionSample::default()
            })
            .collect()
    }

    /// `[seconds, lag, lag seconds, in, out]`, oldest first.
    pub(crate) fn history(&self, group: &str, topic: &str) -> Vec<[Option<f64>; 5]> {
        self.histories
            .get(&(group.to_owned(), topic.to_owned()))
            .map(History::points)
            .unwrap_or_default()
    }
}

impl TopicLag {
    fn add_up(&mut self) {
        let known = || self.partitions.iter();
        let sum = |value: fn(&PartitionLag) -> Option<f64>| {
            known().filter_map(value).reduce(|a, b| a + b)
        };
        self.lag = known().filter_map(|partition| partition.lag).reduce(i64::saturating_add);
        self.lag_seconds = known().filter_map(|partition| partition.lag_seconds).reduce(f64::max);
        self.in_rate = sum(|partition| partition.in_rate);
        self.out_rate = sum(|partition| partition.out_rate);
    }
}

#[cfg(test)]
mod tests;
