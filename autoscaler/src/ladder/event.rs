//! What the ladder says. Events go to a topic, so their form is an interface: fields are only added.

use serde::{Deserialize, Serialize};

use super::parameters::{Mode, Parameters};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    Decision(Box<Decision>),
    Effect(Effect),
}

/// What was decided, also where that was to do nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    pub at_ms: i64,
    pub group: String,
    pub topic: String,
    pub mode: Mode,
    /// The rule that decided.
    pub rule: Rule,
    /// To be performed, once this event is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<Action>,
    /// What would be performed under `mode: auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advised: Option<Action>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub alarms: Vec<Alarm>,
    /// Offered to a person, never taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advice: Vec<Advice>,
    pub inputs: Inputs,
    /// The thresholds; those that are the defaults are left out.
    #[serde(default, serialize_with = "Parameters::serialize_differing")]
    pub parameters: Parameters,
    /// One English sentence.
    pub why: String,
}

/// The rungs of the ladder, in the order in which they are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Less than a window has been seen.
    Watching,
    NotHot,
    /// Records wait, but are worked off within the target.
    Draining,
    /// Consumers are taken away after long calm.
    ScaleIn,
    /// Hot, not yet for long enough.
    Holding,
    /// Elasticsearch is what limits.
    SinkBlocked,
    NoConsumers,
    /// No partition's offset moves.
    Stopped,
    /// What waits is in partitions that do not move.
    Stalled,
    Rebalancing,
    /// The last step did not help.
    NoGain,
    ConsumerCooldown,
    Workers,
    Consumers,
    /// Everything is at its maximum.
    Maximum,
    RefusedCompacted,
    RefusedForeignKeys,
    RefusedHotFile,
    RefusedTooFewBrokers,
    RefusedReplicas,
    PartitionCooldown,
    /// The window holds an outage or a rebalance, so its rates are too low.
    Disturbed,
    /// New partitions would stay empty.
    ArrivalLow,
    RefusedHotPartition,
    RefusedIdlePartitions,
    Partitions,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "do")]
pub enum Action {
    /// Parser threads in each process of the sink.
    Workers {
        from: u32,
        to: u32,
    },
    Consumers {
        from: u32,
        to: u32,
    },
    /// Partitions first, then consumers.
    Partitions {
        from: u32,
        to: u32,
        consumers_from: u32,
        consumers_to: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "alarm")]
pub enum Alarm {
    Sink,
    NoConsumers,
    Stopped,
    /// The first sixteen, and how many there are.
    Stalled {
        partitions: Vec<u32>,
        count: u32,
    },
    NoGain,
    Maximum,
    HotFile {
        path: String,
    },
    HotPartition {
        partition: u32,
    },
    /// The oldest unread record is about to be deleted unread.
    Retention {
        group: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "advice")]
pub enum Advice {
    /// More bulk requests at once, if Elasticsearch has capacity left.
    BulkConcurrency,
    /// The shortest retention that deletes nothing the slowest group has yet to read.
    Retention { retention_ms: i64, slowest_group: String },
}

/// Every number a rule looked at. Rates are per second, over the window.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Inputs {
    pub arrival_per_s: f64,
    pub consumed_per_s: f64,
    /// Stalled partitions included.
    pub lag_records: u64,
    /// Without them, as all that follows.
    pub counted_lag_records: u64,
    /// How long the oldest unread record has waited.
    pub time_lag_s: f64,
    pub growth_per_s: f64,
    /// None: never, at these rates.
    pub drain_s: Option<f64>,
    /// For how long the backlog has been hot, with stalled partitions and without.
    pub all_hot_for_s: f64,
    pub hot_for_s: f64,
    pub calm_for_s: f64,
    pub blocked_share: f64,
    pub stalled: u32,
    pub workers: u32,
    pub workers_max: u32,
    pub consumers: u32,
    pub consumers_max: u32,
    pub partitions: u32,
    pub partitions_max: u32,
    /// Since the last step of each kind; None: none known.
    pub since_consumers_s: Option<f64>,
    pub since_partitions_s: Option<f64>,
    /// What is left of the pause after a step without gain.
    pub pause_left_s: f64,
    /// What a consumer took when it had all it could take; None: not seen yet.
    pub consumer_capacity_per_s: Option<f64>,
    /// The busiest minute of the last half hour.
    pub peak_arrival_per_s: f64,
    /// Of the arrival, and of the lag, the largest share that one partition has.
    pub hottest_partition_share: f64,
    pub fullest_partition_share: f64,
    pub idle_partitions: u32,
    /// The group prepares or completes a rebalance.
    pub is_rebalancing: bool,
    /// A step of workers brought nothing, so parsing is not what limits.
    pub is_parsing_acquitted: bool,
    /// Share of the arrival that comes from one file, where shippers tell.
    pub hottest_file_share: f64,
    pub replication_factor: u32,
    /// Brokers that are alive, and replicas of all topics on them.
    pub brokers: u32,
    pub replicas: u64,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    pub at_ms: i64,
    /// `at_ms` of the decision.
    pub of_ms: i64,
    pub group: String,
    pub topic: String,
    pub action: Action,
    pub consumed_before_per_s: f64,
    pub consumed_after_per_s: f64,
    /// 1.0 is twice as much.
    pub expected_gain: f64,
    pub gain: f64,
    pub verdict: Verdict,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Gained,
    /// A pause follows.
    NoGain,
    /// The backlog is no longer hot, so that consumption shows arrival, not capacity.
    Drained,
    /// Elasticsearch limits, so the step can not be judged.
    Blocked,
    /// The observed counts are not those asked for.
    NotCarriedOut,
    /// Another step came before its gain could be told.
    Overtaken,
    /// Nobody looked at the time.
    Unseen,
}

impl Event {
    pub fn at_ms(&self) -> i64 {
        match self {
            Self::Decision(decision) => decision.at_ms,
            Self::Effect(effect) => effect.at_ms,
        }
    }

    /// The group and the topic that it is about.
    pub fn of(&self) -> (&str, &str) {
        match self {
            Self::Decision(decision) => (&decision.group, &decision.topic),
            Self::Effect(effect) => (&effect.group, &effect.topic),
        }
    }

    /// The action to be performed, if there is one.
    pub fn action(&self) -> Option<Action> {
        match self {
            Self::Decision(decision) => decision.action,
            Self::Effect(_) => None,
        }
    }
}

impl Rule {
    /// As it is written in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Watching => "watching",
            Self::NotHot => "not-hot",
            Self::Draining => "draining",
            Self::ScaleIn => "scale-in",
            Self::Holding => "holding",
            Self::SinkBlocked => "sink-blocked",
            Self::NoConsumers => "no-consumers",
            Self::Stopped => "stopped",
            Self::Stalled => "stalled",
            Self::Rebalancing => "rebalancing",
            Self::NoGain => "no-gain",
            Self::ConsumerCooldown => "consumer-cooldown",
            Self::Workers => "workers",
            Self::Consumers => "consumers",
            Self::Maximum => "maximum",
            Self::ArrivalLow => "arrival-low",
            Self::RefusedCompacted => "refused-compacted",
            Self::RefusedForeignKeys => "refused-foreign-keys",
            Self::RefusedHotFile => "refused-hot-file",
            Self::RefusedHotPartition => "refused-hot-partition",
            Self::RefusedIdlePartitions => "refused-idle-partitions",
            Self::RefusedTooFewBrokers => "refused-too-few-brokers",
            Self::RefusedReplicas => "refused-replicas",
            Self::PartitionCooldown => "partition-cooldown",
            Self::Disturbed => "disturbed",
            Self::Partitions => "partitions",
        }
    }
}

impl Verdict {
    /// As it is written in events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gained => "gained",
            Self::NoGain => "no-gain",
            Self::Drained => "drained",
            Self::Blocked => "blocked",
            Self::NotCarriedOut => "not-carried-out",
            Self::Overtaken => "overtaken",
            Self::Unseen => "unseen",
        }
    }
}

impl Alarm {
    /// Its kind, for people and for labels.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sink => "sink",
            Self::NoConsumers => "no consumers",
            Self::Stopped => "stopped",
            Self::Stalled { .. } => "stalled",
            Self::NoGain => "no gain",
            Self::Maximum => "maximum",
            Self::HotFile { .. } => "hot file",
            Self::HotPartition { .. } => "hot partition",
            Self::Retention { .. } => "retention",
        }
    }
}
