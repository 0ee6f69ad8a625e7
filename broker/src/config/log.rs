//! Topic settings as the log takes them.

use std::collections::BTreeMap;
use std::time::Duration;

use elkfk_wire::kafka::records::{Compression, TimestampType};

use super::{Config, topic_setting};
use crate::log::TopicConfig;

/// The configuration of a topic's logs: its own settings, else the broker's. Values were checked
/// when they were given; what a foreign broker let through counts as unlimited.
pub(crate) fn log_config(config: &Config, settings: &BTreeMap<String, String>) -> TopicConfig {
    let text = |name: &str| topic_setting(config, settings, name);
    let number = |name: &str| text(name).trim().parse::<i64>().ok();
    // -1 and what is no number: without limit.
    let limit = |name: &str| number(name).and_then(|number| u64::try_from(number).ok());
    let is_finite = |number: &u64| *number < i64::MAX.unsigned_abs();
    let ms = |name: &str| limit(name).filter(is_finite).map(Duration::from_millis);
    let policy = text("cleanup.policy");
    let has_policy = |wanted: &str| policy.split(',').any(|policy| policy.trim() == wanted);
    let defaults = TopicConfig::default();
    let size = |name: &str, default: u64| limit(name).unwrap_or(default);
    TopicConfig {
        segment_bytes_max: size("segment.bytes", defaults.segment_bytes_max),
        segment_age_max: ms("segment.ms").unwrap_or(Duration::MAX),
        index_bytes_max: size("segment.index.bytes", defaults.index_bytes_max),
        index_interval_bytes: size("index.interval.bytes", defaults.index_interval_bytes),
        retention: ms("retention.ms"),
        retention_bytes: limit("retention.bytes"),
        is_deleted: has_policy("delete"),
        is_compacted: has_policy("compact"),
        message_bytes_max: size("max.message.bytes", defaults.message_bytes_max as u64) as usize,
        compression: Compression::from_name(&text("compression.type")),
        timestamp_type: match text("message.timestamp.type").as_str() {
            "LogAppendTime" => TimestampType::LogAppendTime,
            _ => TimestampType::CreateTime,
        },
        timestamp_difference_max: ms("message.timestamp.difference.max.ms"),
        delete_delay: ms("file.delete.delay.ms").unwrap_or(defaults.delete_delay),
        flush_records: limit("flush.messages").filter(is_finite),
        flush_interval: ms("flush.ms"),
        min_insync_replicas: size("min.insync.replicas", 1) as usize,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_limits_and_minus_one_is_none() {
        let defaults = log_config(&Config::default(), &BTreeMap::new());
        assert_eq!(defaults, TopicConfig::default());
        let settings = [
            ("retention.ms", "-1"),
            ("retention.bytes", "1048576"),
            ("cleanup.policy", "compact,delete"),
            ("segment.bytes", "1000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("flush.messages", "1"),
            ("compression.type", "zstd"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let config = log_config(&Config::default(), &settings);
        assert_eq!((config.retention, config.retention_bytes), (None, Some(1 << 20)));
        assert!(config.is_compacted && config.is_deleted);
        assert_eq!((config.segment_bytes_max, config.flush_records), (1000, Some(1)));
        assert_eq!(config.timestamp_type, TimestampType::LogAppendTime);
        assert_eq!(config.compression, Some(Compression::Zstd));
    }
}
