//! What a rule says, and whether it is one. Pure.

use serde::{Deserialize, Serialize};

use super::measure::Metric;

const TEXT_BYTES_MAX: usize = 200;
const FOR_S_MAX: u64 = 7 * 86_400;

/// `metric op value` of every group and topic that fit, for so long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Empty for one that is new.
    #[serde(default)]
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) metric: Metric,
    /// A name, with `*` for any part of it; empty fits all.
    #[serde(default, deserialize_with = "text_or_null")]
    pub(crate) group: String,
    #[serde(default, deserialize_with = "text_or_null")]
    pub(crate) topic: String,
    pub(crate) op: Op,
    pub(crate) value: f64,
    #[serde(default)]
    pub(crate) for_s: u64,
    #[serde(default = "warning")]
    pub(crate) severity: String,
    /// The receiver's name; empty: it is shown and not sent.
    #[serde(default, deserialize_with = "text_or_null")]
    pub(crate) receiver: String,
    #[serde(default = "yes")]
    pub(crate) enabled: bool,
    /// It came with the program: it can be switched off, not removed.
    #[serde(default)]
    pub(crate) shipped: bool,
}

fn warning() -> String {
    "warning".to_owned()
}

fn yes() -> bool {
    true
}

fn text_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Ok(Option::<String>::deserialize(from)?.unwrap_or_default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op {
    #[serde(rename = ">")]
    Above,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "<")]
    Below,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = "==")]
    Equals,
}

impl Op {
    pub(crate) fn sign(self) -> &'static str {
        match self {
            Self::Above => ">",
            Self::AtLeast => ">=",
            Self::Below => "<",
            Self::AtMost => "<=",
            Self::Equals => "==",
        }
    }
}

impl Rule {
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (name, text) in [
            ("id", &self.id),
            ("name", &self.name),
            ("group", &self.group),
            ("topic", &self.topic),
            ("severity", &self.severity),
            ("receiver", &self.receiver),
        ] {
            if text.len() > TEXT_BYTES_MAX {
                return Err(format!("the {name} is longer than {TEXT_BYTES_MAX} bytes"));
            }
        }
        if self.name.trim().is_empty() {
            return Err("a rule needs a name".to_owned());
        }
        if !self.value.is_finite() {
            return Err("the value must be a number".to_owned());
        }
        if self.for_s > FOR_S_MAX {
            return Err("a rule looks back seven days at most".to_owned());
        }
        Ok(())
    }

    pub(crate) fn fits(&self, group: &str, topic: &str) -> bool {
        fits(&self.group, group) && fits(&self.topic, topic)
    }

    pub(crate) fn holds(&self, value: f64) -> bool {
        match self.op {
            Op::Above => value > self.value,
            Op::AtLeast => value >= self.value,
            Op::Below => value < self.value,
            Op::AtMost => value <= self.value,
            Op::Equals => (value - self.value).abs() < f64::EPSILON,
        }
    }

    /// `lag_seconds > 300 for 300 s`
    pub(crate) fn text(&self) -> String {
        let (metric, op, value) = (self.metric.name(), self.op.sign(), self.value);
        match self.for_s {
            0 => format!("{metric} {op} {value}"),
            for_s => format!("{metric} {op} {value} for {for_s} s"),
        }
    }
}

/// Whether `name` is as `pattern`, in which `*` stands for any characters. Linear in both.
fn fits(pattern: &str, name: &str) -> bool {
    if pattern.is_empty() || pattern == "*" {
        return true;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let parts: Vec<&str> = parts.collect();
    let Some((last, between)) = parts.split_last() else { return rest.is_empty() };
    for part in between {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// The rules that come with the program.
pub(crate) fn shipped() -> Vec<Rule> {
    let rule = |id: &str, name: &str, metric, op, value, for_s, severity: &str| Rule {
        id: id.to_owned(),
        name: name.to_owned(),
        metric,
        group: String::new(),
        topic: String::new(),
        op,
        value,
        for_s,
        severity: severity.to_owned(),
        receiver: String::new(),
        enabled: true,
        shipped: true,
    };
    use Metric as M;
    vec![
        rule(
            "backlog-never-drains",
            "The backlog never drains",
            M::DrainNever,
            Op::AtLeast,
            1.0,
            300,
            "warning",
        ),
        rule(
            "backlog-old",
            "More than five minutes behind",
            M::LagSeconds,
            Op::Above,
            300.0,
            300,
            "warning",
        ),
        rule(
            "backlog-nears-retention",
            "Unread records are about to be deleted",
            M::RetentionUsed,
            Op::Above,
            0.8,
            60,
            "critical",
        ),
        rule("records-lost", "Records were deleted unread", M::Lost, Op::Above, 0.0, 0, "critical"),
        rule(
            "consumer-stopped",
            "Records wait and nobody reads",
            M::Stopped,
            Op::AtLeast,
            1.0,
            120,
            "critical",
        ),
        rule(
            "consumer-stalled",
            "Consumers are there and stand still",
            M::Stalled,
            Op::AtLeast,
            1.0,
            120,
            "critical",
        ),
        rule(
            "under-replicated",
            "Replicas are missing",
            M::UnderReplicated,
            Op::Above,
            0.0,
            300,
            "warning",
        ),
        rule(
            "partitions-offline",
            "Partitions without a leader",
            M::Offline,
            Op::Above,
            0.0,
            60,
            "critical",
        ),
        rule(
            "broker-disk",
            "A broker's disk is nearly full",
            M::DiskUsed,
            Op::AtLeast,
            0.85,
            300,
            "critical",
        ),
        rule(
            "cluster-silent",
            "The cluster does not answer",
            M::SilentSeconds,
            Op::Above,
            60.0,
            0,
            "critical",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_people_expect() {
        for (pattern, name, is_fit) in [
            ("", "x", true),
            ("*", "", true),
            ("logs", "logs", true),
            ("logs", "logs2", false),
            ("logs-*", "logs-a", true),
            ("*-a", "logs-a", true),
            ("l*s*a", "logs-a", true),
            ("l*x*a", "logs-a", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, name), is_fit, "{pattern} {name}");
        }
    }

    #[test]
    fn shipped_rules_are_sound_and_read_back() {
        let rules = shipped();
        for rule in &rules {
            assert_eq!(rule.check(), Ok(()));
            let json = serde_json::to_string(rule).unwrap();
            assert_eq!(&serde_json::from_str::<Rule>(&json).unwrap(), rule);
        }
        let ids: std::collections::BTreeSet<_> = rules.iter().map(|rule| &rule.id).collect();
        assert_eq!(ids.len(), rules.len());
    }

    #[test]
    fn what_is_no_rule_is_told() {
        let read =
            |text: &str| serde_json::from_str::<Rule>(text).map_err(|error| error.to_string());
        let rule =
            read(r#"{"name":"x","metric":"lag","op":">","value":1,"receiver":null,"group":null}"#)
                .unwrap();
        assert_eq!((rule.check(), rule.enabled, rule.text()), (Ok(()), true, "lag > 1".to_owned()));
        assert!(
            read(r#"{"name":"x","metric":"lagg","op":">","value":1}"#)
                .unwrap_err()
                .contains("lagg")
        );
        assert!(read(r#"{"name":"x","metric":"lag","op":"~","value":1}"#).is_err());
        assert!(Rule { name: " ".into(), ..rule.clone() }.check().is_err());
        assert!(Rule { group: "x".repeat(300), ..rule.clone() }.check().is_err());
        assert!(Rule { for_s: u64::MAX, ..rule }.check().is_err());
    }
}
