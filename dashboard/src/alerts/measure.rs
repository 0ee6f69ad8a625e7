//! What rules look at: each metric of everything that has it. Pure.

use elkfk_broker_client::lag::{Drain, Figures, Snapshot, State};
use serde::{Deserialize, Serialize};

use crate::cluster::Facts;
use crate::lag::history::Values;

/// A backlog of less than this many seconds of what arrives is none; the page says "keeping up".
const KEEPS_UP_S: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Metric {
    Lag,
    LagSeconds,
    /// Never is more than any number.
    DrainSeconds,
    /// 1 while what is read is not more than what arrives, and more waits than comes in five seconds:
    /// a group that keeps up has never read everything either.
    DrainNever,
    RetentionUsed,
    Lost,
    InRate,
    OutRate,
    /// 1 while records wait and nobody reads.
    Stopped,
    Stalled,
    Unknown,
    /// Of a group.
    Members,
    /// Of a topic: partitions that lack a replica, or a leader.
    UnderReplicated,
    Offline,
    /// Of a broker's log directory, 0 to 1.
    DiskUsed,
    /// Since the cluster was last measured.
    SilentSeconds,
}

impl Metric {
    pub(crate) const ALL: [Self; 16] = [
        Self::Lag,
        Self::LagSeconds,
        Self::DrainSeconds,
        Self::DrainNever,
        Self::RetentionUsed,
        Self::Lost,
        Self::InRate,
        Self::OutRate,
        Self::Stopped,
        Self::Stalled,
        Self::Unknown,
        Self::Members,
        Self::UnderReplicated,
        Self::Offline,
        Self::DiskUsed,
        Self::SilentSeconds,
    ];

    /// As it is written.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Lag => "lag",
            Self::LagSeconds => "lag_seconds",
            Self::DrainSeconds => "drain_seconds",
            Self::DrainNever => "drain_never",
            Self::RetentionUsed => "retention_used",
            Self::Lost => "lost",
            Self::InRate => "in_rate",
            Self::OutRate => "out_rate",
            Self::Stopped => "stopped",
            Self::Stalled => "stalled",
            Self::Unknown => "unknown",
            Self::Members => "members",
            Self::UnderReplicated => "under_replicated",
            Self::Offline => "offline",
            Self::DiskUsed => "disk_used",
            Self::SilentSeconds => "silent_seconds",
        }
    }

    fn of_figures(self, figures: &Figures) -> Option<f64> {
        let is = |state: State| Some(f64::from(u8::from(figures.state == state)));
        match self {
            Self::Lag => figures.lag.map(|lag| lag as f64),
            Self::LagSeconds => figures.lag_seconds,
            Self::DrainSeconds => figures.drain.map(|drain| match drain {
                Drain::Seconds(seconds) => seconds,
                Drain::Never => f64::INFINITY,
            }),
            Self::DrainNever => figures.drain.map(|drain| {
                let waits = figures.lag.unwrap_or(0) as f64;
                let keeps_up = waits <= KEEPS_UP_S * figures.in_1m.unwrap_or(0.0);
                f64::from(u8::from(drain == Drain::Never && !keeps_up))
            }),
            Self::RetentionUsed => figures.retention_used,
            Self::Lost => Some(figures.lost as f64),
            Self::InRate => figures.in_rate,
            Self::OutRate => figures.out_rate,
            Self::Stopped => is(State::Stopped),
            Self::Stalled => is(State::Stalled),
            Self::Unknown => is(State::Unknown),
            _ => None,
        }
    }

    /// The same of a point of the history; `None` where it is not known or the history does not hold it.
    pub(crate) fn of_point(self, [lag, seconds, inward, outward]: &Values) -> Option<f64> {
        let known = |value: &f32| value.is_finite().then(|| f64::from(*value));
        match self {
            Self::Lag => known(lag),
            Self::LagSeconds => known(seconds),
            Self::InRate => known(inward),
            Self::OutRate => known(outward),
            Self::DrainSeconds | Self::DrainNever => {
                let (lag, net) = (known(lag)?, known(outward)? - known(inward)?);
                let never = lag > 0.0 && net <= 0.0;
                let keeps_up = lag <= KEEPS_UP_S * known(inward)?;
                Some(match self {
                    Self::DrainNever => f64::from(u8::from(never && !keeps_up)),
                    _ if never => f64::INFINITY,
                    _ if lag <= 0.0 => 0.0,
                    _ => lag / net,
                })
            }
            _ => None,
        }
    }

    pub(crate) fn is_in_history(self) -> bool {
        self.of_point(&[1.0; 4]).is_some()
    }
}

/// What a rule is about: parts that do not apply are empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Target {
    pub(crate) group: String,
    pub(crate) topic: String,
    /// A broker and its directory.
    pub(crate) place: String,
}

impl Target {
    pub(crate) fn new(group: &str, topic: &str) -> Self {
        Self { group: group.to_owned(), topic: topic.to_owned(), place: String::new() }
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let parts = [&self.group, &self.topic, &self.place];
        let named: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        if named.is_empty() { "the cluster".to_owned() } else { named.join(" / ") }
    }
}

/// The value of `metric` of everything that `is_wanted`. Where it is not known at the moment it is `None`.
pub(crate) fn values(
    metric: Metric,
    snapshot: &Snapshot,
    facts: &Facts,
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Vec<(Target, Option<f64>)> {
    let mut values = Vec::new();
    match metric {
        Metric::Members => {
            for group in snapshot.groups.iter().filter(|group| is_wanted(&group.group, "")) {
                let members = group.why.is_none().then_some(group.members as f64);
                values.push((Target::new(&group.group, ""), members));
            }
        }
        Metric::UnderReplicated | Metric::Offline => {
            for topic in facts.topics.iter().filter(|topic| is_wanted("", &topic.name)) {
                let count = match metric {
                    Metric::Offline => topic.offline(),
                    _ => topic.under_replicated(),
                };
                values.push((Target::new("", &topic.name), Some(count as f64)));
            }
        }
        Metric::DiskUsed => {
            for directory in facts.directories.iter().filter(|_| is_wanted("", "")) {
                let place = format!("broker {} {}", directory.broker, directory.path);
                values.push((Target { place, ..Target::new("", "") }, directory.used_share()));
            }
        }
        Metric::SilentSeconds => values.push((Target::new("", ""), Some(0.0))),
        _ => {
            for group in &snapshot.groups {
                let wanted =
                    group.topics.iter().filter(|topic| is_wanted(&group.group, &topic.topic));
                for topic in wanted {
                    // Of a group that cannot be asked only that is known.
                    let is_known = group.why.is_none() || metric == Metric::Unknown;
                    let value = metric.of_figures(&topic.figures).filter(|_| is_known);
                    values.push((Target::new(&group.group, &topic.topic), value));
                }
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_wire() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }

    #[test]
    fn time_to_drain_is_told_from_points_of_the_past() {
        let drain = |point: Values| Metric::DrainSeconds.of_point(&point);
        assert_eq!(drain([100.0, 1.0, 10.0, 20.0]), Some(10.0));
        assert_eq!(drain([100.0, 1.0, 10.0, 10.0]), Some(f64::INFINITY));
        assert_eq!(drain([0.0, 0.0, 10.0, 10.0]), Some(0.0));
        assert_eq!(drain([f32::NAN, 0.0, 10.0, 10.0]), None);
        assert_eq!(Metric::DrainNever.of_point(&[50.0, 1.0, 2.0, 1.0]), Some(1.0));
        assert_eq!(Metric::DrainNever.of_point(&[10.0, 1.0, 2.0, 1.0]), Some(0.0));
        assert!(!Metric::Stopped.is_in_history() && Metric::DrainNever.is_in_history());
    }
}
