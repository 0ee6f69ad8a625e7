//! Topic-level keys: what `--config` and `kafka-configs --entity-type topics` take.
//!
//! Each falls back to a key of `server.properties`. Names, ranges and complaints are Kafka's.

use std::collections::BTreeMap;

use super::keys::Kind::{Bool, Double, Int, List, Long, Text};
use super::keys::Range::{Any, AtLeast, Between, OneOf};
use super::keys::{Kind, Range};
use super::{Config, check};

/// One topic-level key.
#[derive(Debug)]
pub struct TopicKey {
    pub name: &'static str,
    pub kind: Kind,
    range: Range,
    /// The key of `server.properties` that gives the default.
    pub server_key: &'static str,
    /// False: stored and shown, changes nothing yet.
    pub is_honoured: bool,
}

const fn key(
    name: &'static str,
    kind: Kind,
    range: Range,
    server_key: &'static str,
    is_honoured: bool,
) -> TopicKey {
    TopicKey { name, kind, range, server_key, is_honoured }
}

const COMPRESSIONS: Range = OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]);

/// In the order in which Kafka lists them.
#[rustfmt::skip]
pub static TOPIC_KEYS: &[TopicKey] = &[
    key("compression.type", Text, COMPRESSIONS, "compression.type", true),
    key("leader.replication.throttled.replicas", List, Any, "", false),
    key("message.downconversion.enable", Bool, Any, "log.message.downconversion.enable", false),
    key("min.insync.replicas", Int, AtLeast(1), "min.insync.replicas", true),
    key("segment.jitter.ms", Long, AtLeast(0), "log.roll.jitter.ms", false),
    key("cleanup.policy", List, OneOf(&["compact", "delete"]), "log.cleanup.policy", true),
    key("flush.ms", Long, AtLeast(0), "log.flush.interval.ms", true),
    key("follower.replication.throttled.replicas", List, Any, "", false),
    key("segment.bytes", Int, AtLeast(14), "log.segment.bytes", true),
    key("retention.ms", Long, AtLeast(-1), "log.retention.ms", true),
    key("flush.messages", Long, AtLeast(1), "log.flush.interval.messages", true),
    key("message.format.version", Text, Any, "log.message.format.version", false),
    key("max.compaction.lag.ms", Long, AtLeast(1), "log.cleaner.max.compaction.lag.ms", false),
    key("file.delete.delay.ms", Long, AtLeast(0), "log.segment.delete.delay.ms", true),
    key("max.message.bytes", Int, AtLeast(0), "message.max.bytes", true),
    key("min.compaction.lag.ms", Long, AtLeast(0), "log.cleaner.min.compaction.lag.ms", false),
    key("message.timestamp.type", Text, OneOf(&["CreateTime", "LogAppendTime"]), "log.message.timestamp.type", true),
    key("preallocate", Bool, Any, "log.preallocate", false),
    key("min.cleanable.dirty.ratio", Double, Between(0.0, 1.0), "log.cleaner.min.cleanable.ratio", false),
    key("index.interval.bytes", Int, AtLeast(0), "log.index.interval.bytes", true),
    key("unclean.leader.election.enable", Bool, Any, "unclean.leader.election.enable", false),
    key("retention.bytes", Long, Any, "log.retention.bytes", true),
    key("delete.retention.ms", Long, AtLeast(0), "log.cleaner.delete.retention.ms", false),
    key("segment.ms", Long, AtLeast(1), "log.roll.ms", true),
    key("message.timestamp.difference.max.ms", Long, AtLeast(0), "log.message.timestamp.difference.max.ms", true),
    key("segment.index.bytes", Int, AtLeast(4), "log.index.size.max.bytes", true),
];

/// Why a topic's configuration is refused, in Kafka's words.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TopicConfigError {
    #[error("Unknown topic config name: {0}")]
    UnknownName(String),
    #[error("{0}")]
    Value(String),
}

/// Checks a topic's own settings, as create and alter are given them.
pub(crate) fn validate_topic_config(
    settings: &BTreeMap<String, String>,
) -> Result<(), TopicConfigError> {
    for (name, value) in settings {
        let key = find(name).ok_or_else(|| TopicConfigError::UnknownName(name.clone()))?;
        check(key.name, key.kind, key.range, value).map_err(TopicConfigError::Value)?;
    }
    Ok(())
}

pub(crate) fn find(name: &str) -> Option<&'static TopicKey> {
    TOPIC_KEYS.iter().find(|key| key.name == name)
}

/// The value in force for a topic: its own, else the server's.
pub(crate) fn topic_setting(
    config: &Config,
    settings: &BTreeMap<String, String>,
    name: &str,
) -> String {
    if let Some(value) = settings.get(name) {
        return value.clone();
    }
    let hours = |key: &str| config.number(key).saturating_mul(3_600_000).to_string();
    match name {
        // The finest unit given wins, as in Kafka; -1 hours or minutes is for ever.
        "retention.ms" => {
            match (config.value("log.retention.ms"), config.value("log.retention.minutes")) {
                (Some(ms), _) if !ms.is_empty() => ms.to_owned(),
                (_, Some("-1")) => "-1".into(),
                (_, Some(minutes)) if !minutes.is_empty() => {
                    minutes.parse::<i64>().unwrap_or(-1).saturating_mul(60_000).to_string()
                }
                _ if config.number("log.retention.hours") < 0 => "-1".into(),
                _ => hours("log.retention.hours"),
            }
        }
        "segment.ms" => {
            config.value("log.roll.ms").map_or_else(|| hours("log.roll.hours"), str::to_owned)
        }
        "segment.jitter.ms" => config
            .value("log.roll.jitter.ms")
            .map_or_else(|| hours("log.roll.jitter.hours"), str::to_owned),
        "flush.ms" => config
            .value("log.flush.interval.ms")
            .or_else(|| config.value("log.flush.scheduler.interval.ms"))
            .unwrap_or_default()
            .to_owned(),
        _ => find(name).and_then(|key| config.value(key.server_key)).unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    #[test]
    fn complaints_are_kafkas() {
        let check = |pair, expected: &str| {
            assert_eq!(
                validate_topic_config(&settings(&[pair])).unwrap_err().to_string(),
                expected
            );
        };
        check(("no.such.config", "1"), "Unknown topic config name: no.such.config");
        check(
            ("retention.ms", "soon"),
            "Invalid value soon for configuration retention.ms: Not a number of type LONG",
        );
        check(
            ("cleanup.policy", "delete,shred"),
            "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete",
        );
        validate_topic_config(&settings(&[
            ("cleanup.policy", "compact,delete"),
            ("retention.bytes", "-1"),
        ]))
        .unwrap();
    }

    #[test]
    fn the_finest_unit_given_wins() {
        let check = |pairs: &[(&str, &str)], expected| {
            let pairs = pairs.iter().copied().chain([("zookeeper.connect", "z")]);
            let config = Config::from_pairs(pairs).unwrap();
            assert_eq!(topic_setting(&config, &BTreeMap::new(), "retention.ms"), expected);
        };
        check(&[], "604800000");
        check(&[("log.retention.hours", "1")], "3600000");
        check(&[("log.retention.hours", "-1")], "-1");
        check(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")], "120000");
        check(&[("log.retention.minutes", "2"), ("log.retention.ms", "3")], "3");
        let own = settings(&[("retention.ms", "9")]);
        assert_eq!(topic_setting(&Config::default(), &own, "retention.ms"), "9");
    }
}
