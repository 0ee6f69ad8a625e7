//! What may be configured per topic, under Kafka's names and with Kafka's defaults.

use std::time::Duration;

use elkfk_wire::kafka::records::{Compression, TimestampType};

/// The configuration of a topic's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// `segment.bytes`: a segment does not grow beyond this.
    pub segment_bytes_max: u64,
    /// `segment.ms`: a segment whose first record is this old is followed by a new one.
    pub segment_age_max: Duration,
    /// `segment.index.bytes`: a full index ends its segment too.
    pub index_bytes_max: u64,
    /// `index.interval.bytes`: an index entry for each so many bytes of log.
    pub index_interval_bytes: u64,
    /// `retention.ms`; `None` is for ever (-1).
    pub retention: Option<Duration>,
    /// `retention.bytes`; `None` is without limit (-1).
    pub retention_bytes: Option<u64>,
    /// `cleanup.policy` contains `delete`.
    pub is_deleted: bool,
    /// `cleanup.policy` contains `compact`.
    pub is_compacted: bool,
    /// `max.message.bytes`: of one batch as it is stored.
    pub message_bytes_max: usize,
    /// `compression.type`; `None` keeps what the producer chose (`producer`).
    pub compression: Option<Compression>,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `message.timestamp.difference.max.ms`; `None` is without limit.
    pub timestamp_difference_max: Option<Duration>,
    /// `file.delete.delay.ms`: how long files that are no longer part of a log stay.
    pub delete_delay: Duration,
    /// `flush.messages`; `None` leaves it to the operating system.
    pub flush_records: Option<u64>,
    /// `flush.ms`; `None` leaves it to the operating system.
    pub flush_interval: Option<Duration>,
    /// `min.insync.replicas`.
    pub min_insync_replicas: usize,
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            segment_bytes_max: 1 << 30,
            segment_age_max: 7 * DAY,
            index_bytes_max: 10 << 20,
            index_interval_bytes: 4096,
            retention: Some(7 * DAY),
            retention_bytes: None,
            is_deleted: true,
            is_compacted: false,
            message_bytes_max: 1_048_588,
            compression: None,
            timestamp_type: TimestampType::CreateTime,
            timestamp_difference_max: None,
            delete_delay: Duration::from_secs(60),
            flush_records: None,
            flush_interval: None,
            min_insync_replicas: 1,
        }
    }
}

impl TopicConfig {
    /// The configuration of `__consumer_offsets`, as Kafka creates that topic.
    pub fn consumer_offsets() -> Self {
        Self {
            segment_bytes_max: 100 << 20,
            is_deleted: false,
            is_compacted: true,
            ..Self::default()
        }
    }
}
