//! What may be set, with defaults and units. `docs/autoscaler.md` gives the reasons at length.

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

/// Seconds that records may wait before anything is asked.
pub const HOT_S: f64 = 60.0;
/// Seconds that a backlog must stay hot: shorter ones are over before a step would help.
pub const HOLD_S: f64 = 60.0;
/// Seconds over which rates are taken.
pub const WINDOW_S: f64 = 120.0;
/// Seconds between two observations.
pub const INTERVAL_S: f64 = 15.0;
/// Seconds from one step of workers or consumers to the next.
pub const CONSUMER_COOLDOWN_S: f64 = 120.0;
/// Seconds from one expansion to the next: it can not be undone, so its effect must be plain first.
pub const PARTITION_COOLDOWN_S: f64 = 600.0;
/// Seconds from a step of consumers to an expansion, so that the cheaper remedy has shown its worth.
pub const PARTITIONS_AFTER_CONSUMERS_S: f64 = 180.0;
/// Seconds from a step to the judgement of its gain.
pub const PROBE_S: f64 = 90.0;
/// Seconds of consumption that the judgement looks at.
pub const PROBE_RATE_S: f64 = 30.0;
/// Share of the expected gain below which a step counts as one without gain.
pub const GAIN_MIN: f64 = 0.30;
/// Seconds without a step after one without gain.
pub const NO_GAIN_PAUSE_S: f64 = 900.0;
/// How much more than the arrival the next step is to consume.
pub const CATCH_UP: f64 = 1.5;
/// Seconds within which a backlog may drain by itself unanswered.
pub const DRAIN_TARGET_S: f64 = 900.0;
/// Share of the window blocked by Elasticsearch above which no step is taken.
pub const BLOCKED_MAX: f64 = 0.50;
/// Arrival, as a share of consumption, below which new partitions would stay nearly empty.
pub const ARRIVAL_MIN: f64 = 0.50;
/// Lag of a partition that does not move, as a share of the mean lag, from which it counts as stalled.
pub const STALLED_MIN: f64 = 0.50;
pub const PARTITIONS_MIN: u32 = 1;
pub const PARTITIONS_MAX: u32 = 64;
/// Replicas of all topics that a broker may hold after an expansion, on average.
pub const REPLICAS_PER_BROKER_MAX: u64 = 2000;
/// With one consumer its death stops the topic until a session timeout has passed.
pub const CONSUMERS_MIN: u32 = 2;
pub const CONSUMERS_MAX: u32 = 32;
pub const WORKERS_MAX: u32 = 32;
/// Seconds of calm before consumers are taken away, and between two such steps.
pub const CALM_S: f64 = 1800.0;
/// Share of the remaining consumers' capacity that the peak minute may use after a scale-in.
pub const SCALE_IN_FIT: f64 = 0.60;
/// Share of the arrival from which one file, or one partition, is called hot.
pub const HOT_SHARE: f64 = 0.50;
/// Share of used disk from which a shorter retention is offered.
pub const DISK_FULL: f64 = 0.85;
/// Share of the retention that the slowest reader may be behind before an alarm.
pub const RETENTION_NEAR: f64 = 0.80;
/// Seconds after which an unchanged non-decision is told again.
pub const REPEAT_S: f64 = 300.0;

/// What the ladder may do about a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Watches, says nothing.
    Off,
    /// Says what it would do.
    #[default]
    Advise,
    /// Does it.
    Auto,
}

/// The ladder's parameters for one topic. Times are in seconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    pub mode: Mode,
    pub hot_s: f64,
    pub hold_s: f64,
    pub window_s: f64,
    pub interval_s: f64,
    pub consumer_cooldown_s: f64,
    pub partition_cooldown_s: f64,
    pub partitions_after_consumers_s: f64,
    pub probe_s: f64,
    pub gain_min: f64,
    pub no_gain_pause_s: f64,
    pub catch_up: f64,
    pub drain_target_s: f64,
    pub blocked_max: f64,
    pub arrival_min: f64,
    /// The first expansion goes at least this far. Alone it is no reason to expand.
    pub partitions_min: u32,
    pub partitions_max: u32,
    pub replicas_per_broker_max: u64,
    pub consumers_min: u32,
    /// Consumers of the group that there may be. Older events and files call it `processes_max`.
    #[serde(alias = "processes_max")]
    pub consumers_max: u32,
    /// Parser threads within a process.
    pub workers_max: u32,
    pub calm_s: f64,
    pub scale_in_fit: f64,
    /// Expand also topics with keys that elkfk did not write, whose order per key then breaks.
    pub is_foreign_keys_allowed: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            hot_s: HOT_S,
            hold_s: HOLD_S,
            window_s: WINDOW_S,
            interval_s: INTERVAL_S,
            consumer_cooldown_s: CONSUMER_COOLDOWN_S,
            partition_cooldown_s: PARTITION_COOLDOWN_S,
            partitions_after_consumers_s: PARTITIONS_AFTER_CONSUMERS_S,
            probe_s: PROBE_S,
            gain_min: GAIN_MIN,
            no_gain_pause_s: NO_GAIN_PAUSE_S,
            catch_up: CATCH_UP,
            drain_target_s: DRAIN_TARGET_S,
            blocked_max: BLOCKED_MAX,
            arrival_min: ARRIVAL_MIN,
            partitions_min: PARTITIONS_MIN,
            partitions_max: PARTITIONS_MAX,
            replicas_per_broker_max: REPLICAS_PER_BROKER_MAX,
            consumers_min: CONSUMERS_MIN,
            consumers_max: CONSUMERS_MAX,
            workers_max: WORKERS_MAX,
            calm_s: CALM_S,
            scale_in_fit: SCALE_IN_FIT,
            is_foreign_keys_allowed: false,
        }
    }
}

impl Mode {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Advise => "advise",
            Self::Auto => "auto",
        }
    }
}

impl Parameters {
    /// Writes those that are not the defaults: events are many, and nearly all of these stay what they are.
    pub(super) fn serialize_differing<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let fields = |parameters: &Self| match serde_json::to_value(parameters) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        let (mut own, defaults) = (fields(self), fields(&Self::default()));
        own.retain(|key, value| defaults.get(key) != Some(value));
        own.serialize(to)
    }

    /// Every mistake, each with the key, its value and what it must be. Empty if there is none.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let day_s = 86_400.0;
        for (key, value, least, most) in [
            ("hot_s", self.hot_s, 1.0, day_s),
            ("hold_s", self.hold_s, 0.0, day_s),
            // Of these follows how many samples are kept.
            ("interval_s", self.interval_s, 1.0, 300.0),
            ("window_s", self.window_s, 2.0 * self.interval_s, 60.0 * self.interval_s),
            ("consumer_cooldown_s", self.consumer_cooldown_s, self.probe_s, day_s),
            ("partition_cooldown_s", self.partition_cooldown_s, self.probe_s, day_s),
            ("partitions_after_consumers_s", self.partitions_after_consumers_s, 0.0, day_s),
            ("probe_s", self.probe_s, 2.0 * self.interval_s, day_s),
            ("gain_min", self.gain_min, 0.0, 1.0),
            ("no_gain_pause_s", self.no_gain_pause_s, 0.0, day_s),
            ("catch_up", self.catch_up, 1.0, 10.0),
            ("drain_target_s", self.drain_target_s, self.hot_s, 30.0 * day_s),
            ("blocked_max", self.blocked_max, 0.0, 1.0),
            ("arrival_min", self.arrival_min, 0.0, 10.0),
            ("calm_s", self.calm_s, 60.0, 500.0 * self.interval_s),
            ("scale_in_fit", self.scale_in_fit, 0.05, 0.95),
        ] {
            // Written so that NaN is a mistake too.
            if !(value >= least && value <= most) {
                mistakes.push(format!("{key} = {value} must be between {least} and {most}"));
            }
        }
        for (key, least, most) in [
            ("partitions_min", self.partitions_min, self.partitions_max),
            ("consumers_min", self.consumers_min, self.consumers_max),
            ("workers_max", 1, self.workers_max),
        ] {
            if least == 0 || least > most {
                mistakes.push(format!("{key}: at least 1, and {least} must not be above {most}"));
            }
        }
        mistakes
    }
}

pub(super) fn ms(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_have_no_mistakes_and_mistakes_come_all_at_once() {
        assert_eq!(Parameters::default().mistakes(), Vec::<String>::new());
        let wrong = Parameters {
            hot_s: f64::NAN,
            partitions_min: 9,
            partitions_max: 8,
            ..Parameters::default()
        };
        // The drain target is judged by hot_s.
        assert_eq!(wrong.mistakes().len(), 3, "{:?}", wrong.mistakes());
    }
}
