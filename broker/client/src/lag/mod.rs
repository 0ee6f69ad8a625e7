//! How far each consumer group is behind, and how fast it moves.
//!
//! [`Tracker`] takes samples of offsets and answers with a snapshot; it reads no clock and no socket.
//! [`Meter`] takes the samples. Who shows lag, acts on it or prints it asks these two, and so all say
//! the same.

mod measure;
mod retention;
mod track;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use measure::Meter;
pub use retention::Retention;
use track::Track;
pub use track::UNDER_WAY_SECONDS;

/// What was measured of the cluster at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Milliseconds since 1970.
    pub now_ms: i64,
    pub groups: Vec<GroupSample>,
}

#[derive(Debug, Clone, Default)]
pub struct GroupSample {
    pub group: String,
    /// As Kafka names it: Stable, Empty, …
    pub state: String,
    pub members: usize,
    pub partitions: Vec<PartitionSample>,
    /// Why the cluster did not say anything of this group; the other fields but its name are then empty.
    pub why_unknown: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct PartitionSample {
    pub topic: String,
    pub partition: i32,
    /// The member that reads it, by client id and host.
    pub member: Option<String>,
    /// `None`: no commit yet.
    pub committed: Option<i64>,
    /// First offset and offset after the last record; `None` with the reason in `why_unknown`.
    pub ends: Option<(i64, i64)>,
    pub why_unknown: Option<String>,
    /// Time of the record at the committed offset.
    pub committed_record_ms: Option<i64>,
    /// `None` where the brokers do not say, or nothing is unread.
    pub retention: Option<Retention>,
}

/// What is known after a sample.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Snapshot {
    pub now_ms: i64,
    pub groups: Vec<GroupLag>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct GroupLag {
    pub group: String,
    /// As Kafka names it: Stable, Empty, … In JSON `state` is that of the figures.
    #[serde(rename = "group_state")]
    pub state: String,
    pub members: usize,
    #[serde(flatten)]
    pub figures: Figures,
    pub topics: Vec<TopicLag>,
    /// Why nothing is known of it at the moment.
    pub why: Option<String>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct TopicLag {
    pub topic: String,
    #[serde(flatten)]
    pub figures: Figures,
    pub partitions: Vec<PartitionLag>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartitionLag {
    pub partition: i32,
    pub member: Option<String>,
    pub committed: Option<i64>,
    pub start: Option<i64>,
    pub end: Option<i64>,
    #[serde(flatten)]
    pub figures: Figures,
    /// When the committed offset was last seen to move, in milliseconds since 1970.
    pub moved_ms: Option<i64>,
    /// What `retention_used` is a share of; `None` where it is not known, or nothing is unread.
    #[serde(default)]
    pub retention: Option<Retention>,
    pub why: Option<String>,
}

/// How far behind, how fast, and whether that is well: of a partition; of a topic or a group the sum of
/// its partitions whose figures are known, and for all that cannot be added the worst of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Records from the committed offset to the end; never negative, without those already deleted.
    pub lag: Option<i64>,
    /// Now − time of the record at the committed offset; 0 where there is none to read.
    pub lag_seconds: Option<f64>,
    /// Records per second that arrive, over ten seconds.
    pub in_rate: Option<f64>,
    /// Records per second that are read and committed, over ten seconds.
    pub out_rate: Option<f64>,
    /// Arrival and drain as exponential averages of one minute and of ten.
    pub in_1m: Option<f64>,
    pub out_1m: Option<f64>,
    pub in_10m: Option<f64>,
    pub out_10m: Option<f64>,
    /// When nothing will be left to read, at the rates of the last minute.
    pub drain: Option<Drain>,
    /// The share of its retention, by age or by bytes, that the oldest unread record has used: from 1 on
    /// it may be deleted. 0 where nothing is unread or nothing is ever deleted.
    pub retention_used: Option<f64>,
    /// Records that were deleted between the committed offset and the first that is left.
    pub lost: i64,
    pub state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drain {
    Seconds(f64),
    /// What is read is not more than what arrives.
    Never,
}

/// How a group does. In the order of how much it matters.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing to read, or what there is moves.
    #[default]
    Ok,
    /// The group has not committed here.
    Uncommitted,
    /// Moving, but a minute or more behind.
    Behind,
    /// The commit has gone back within the last minute: by a reset, or a member that lost its place.
    Rewound,
    Unknown,
    /// Members are there, records too, and the commit has not moved for half a minute.
    Stalled,
    /// Records are there and nobody reads them.
    Stopped,
}

impl State {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Uncommitted => "uncommitted",
            Self::Behind => "behind",
            Self::Rewound => "rewound",
            Self::Unknown => "unknown",
            Self::Stalled => "stalled",
            Self::Stopped => "stopped",
        }
    }
}

impl Drain {
    /// The later of two.
    fn later(self, other: Self) -> Self {
        match (self, other) {
            (Self::Seconds(a), Self::Seconds(b)) => Self::Seconds(a.max(b)),
            _ => Self::Never,
        }
    }
}

impl Figures {
    /// Of several, as of one.
    fn of_all<'a>(all: impl Iterator<Item = &'a Self>) -> Self {
        let mut whole = Self::default();
        let sum = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a + b.unwrap_or(0.0)));
        let worst = |a: Option<f64>, b: Option<f64>| a.map_or(b, |a| Some(a.max(b.unwrap_or(a))));
        for one in all {
            whole.lag = match (whole.lag, one.lag) {
                (Some(a), Some(b)) => Some(a.saturating_add(b)),
                (a, b) => a.or(b),
            };
            whole.drain = match (whole.drain, one.drain) {
                (Some(a), Some(b)) => Some(a.later(b)),
                (a, b) => a.or(b),
            };
            whole.lag_seconds = worst(whole.lag_seconds, one.lag_seconds);
            whole.retention_used = worst(whole.retention_used, one.retention_used);
            whole.in_rate = sum(whole.in_rate, one.in_rate);
            whole.out_rate = sum(whole.out_rate, one.out_rate);
            whole.in_1m = sum(whole.in_1m, one.in_1m);
            whole.out_1m = sum(whole.out_1m, one.out_1m);
            whole.in_10m = sum(whole.in_10m, one.in_10m);
            whole.out_10m = sum(whole.out_10m, one.out_10m);
            whole.lost = whole.lost.saturating_add(one.lost);
            whole.state = whole.state.max(one.state);
        }
        whole
    }
}

/// Beyond this many partitions of groups no more are remembered: about 2 KiB each.
const TRACKS_MAX: usize = 20_000;
/// A broker that has just come back lists groups only once it has read them: what a sample leaves out is
/// remembered for this long.
const FORGET_AFTER_MS: i64 = 60_000;

/// Remembers enough of past samples to tell rates and states.
#[derive(Debug, Default)]
pub struct Tracker {
    tracks: BTreeMap<(String, String, i32), Track>,
}

impl Tracker {
    /// Takes in a sample. What no sample mentions for a minute is forgotten.
    pub fn step(&mut self, sample: Sample) -> Snapshot {
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
                topic.figures = Figures::of_all(topic.partitions.iter().map(|one| &one.figures));
            }
            let topics: Vec<_> = topics.into_values().collect();
            let mut figures = Figures::of_all(topics.iter().map(|topic| &topic.figures));
            if group.why_unknown.is_some() {
                figures.state = State::Unknown;
            }
            groups.push(GroupLag {
                group: group.group,
                state: group.state,
                members: group.members,
                figures,
                topics,
                why: group.why_unknown,
            });
        }
        self.tracks.retain(|_, track| now_ms - track.last_ms() < FORGET_AFTER_MS);
        Snapshot { now_ms, groups }
    }

    /// Nothing could be measured: everything is kept for when it can be again.
    pub fn miss(&mut self, now_ms: i64) {
        self.tracks.values_mut().for_each(|track| track.miss(now_ms));
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
}

#[cfg(test)]
mod tests;
