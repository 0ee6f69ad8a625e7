//! What a batch must be before it may be appended. No lock is held and no file is touched here.

use std::time::Duration;

use elkfk_wire::kafka::records::{
    Batch, BatchBuilder, BatchError, BatchMut, Compression, LeaderEpoch, NO_TIMESTAMP, Offset,
    RecordError, TimestampType, batches,
};

use super::config::TopicConfig;
use super::producers::ProducerError;

/// The records of one batch may grow to this when decompressed, where they must be.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

const OFFSETS_RULE: &str = "the offsets of a batch's records count up from 0";

/// Where a batch comes from, which decides what it may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A producer: no control batches, sequences checked.
    Client,
    /// The group or transaction coordinator of this broker.
    Coordinator,
}

/// Why batches were not appended. Nothing of them was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    #[error("this broker does not lead the partition")]
    NotLeader,
    /// The sender follows another leader and should refresh its metadata.
    #[error("leader epoch {given} is not the current {current}")]
    Epoch { given: LeaderEpoch, current: LeaderEpoch },
    #[error("{in_sync} replicas are in sync, min.insync.replicas = {minimum}")]
    NotEnoughReplicas { in_sync: usize, minimum: usize },
    /// Damaged, or of a format that is not kept.
    #[error("batch is damaged")]
    Batch(#[source] BatchError),
    #[error("records of a batch cannot be read")]
    Records(#[source] RecordError),
    #[error("no batch was given")]
    Empty,
    #[error("batch of {batch_bytes} bytes exceeds max.message.bytes = {limit_bytes}")]
    TooLarge { batch_bytes: usize, limit_bytes: usize },
    #[error("{bytes} bytes of batches exceed segment.bytes = {limit_bytes}")]
    LargerThanSegment { bytes: usize, limit_bytes: u64 },
    #[error("timestamp {timestamp_ms} is too far from the broker's time {now_ms}")]
    Timestamp { timestamp_ms: i64, now_ms: i64 },
    /// A rule on records is broken: text names it.
    #[error("{rule}")]
    Invalid { rule: &'static str },
    #[error(transparent)]
    Producer(#[from] ProducerError),
    /// A follower was given batches that do not continue its log.
    #[error("batch at offset {given} does not follow log end {log_end}")]
    NotContiguous { given: Offset, log_end: Offset },
    /// Too little space is left; reads and deletes go on. May be retried.
    #[error("too little space is left on the disk of the log")]
    DiskFull,
    /// The disk failed; the log is read no more until a restart.
    #[error("log directory has failed: {cause}")]
    DirectoryFailed { cause: String },
    /// The partition was deleted meanwhile.
    #[error("partition was deleted")]
    Deleted,
    #[error("append to the log")]
    Io(#[source] std::io::Error),
}

/// Batches that may be appended, but for their producers' sequences.
#[derive(Debug)]
pub struct Validated {
    pub(super) bytes: Vec<u8>,
    /// Of all batches together.
    pub(super) records: i64,
    pub(super) max_timestamp_ms: i64,
    /// Set where the broker's time replaced the producer's.
    pub(super) log_append_time_ms: Option<i64>,
}

/// Checks batches from `origin` and brings them into the form the topic keeps.
pub fn validate(
    mut bytes: Vec<u8>,
    config: &TopicConfig,
    origin: Origin,
    now_ms: i64,
) -> Result<Validated, AppendError> {
    let mut rebuild = false;
    let mut count = 0usize;
    let mut has_producer = false;
    // What the records say, where the header of their batch says otherwise: position, time.
    let mut corrections = Vec::new();
    let mut position = 0;
    for batch in batches(&bytes) {
        let batch = batch.map_err(AppendError::Batch)?;
        batch.check_produced().map_err(AppendError::Batch)?;
        // Before anything is decompressed, which may make a hundred times more of it.
        check_size(&batch, config, origin)?;
        check_batch(&batch, config, origin, now_ms)?;
        let codec = batch.compression().map_err(AppendError::Batch)?;
        let is_rebuilt = config.compression.is_some_and(|wanted| wanted != codec);
        if (is_rebuilt || config.is_compacted) && !batch.is_control() {
            let max_timestamp_ms = check_records(&batch, config)?;
            if max_timestamp_ms != batch.max_timestamp_ms() {
                corrections.push((position, max_timestamp_ms));
            }
        }
        position += batch.len();
        rebuild |= is_rebuilt;
        count += 1;
        has_producer |= batch.producer_id() >= 0;
    }
    match count {
        0 => return Err(AppendError::Empty),
        1 => {}
        // As Kafka: otherwise a duplicate could hide behind a new batch.
        _ if has_producer && origin == Origin::Client => {
            return Err(AppendError::Invalid {
                rule: "an idempotent producer sends one batch a partition in a request",
            });
        }
        _ => {}
    }
    for (position, max_timestamp_ms) in corrections {
        BatchMut::parse(&mut bytes[position..])
            .map_err(AppendError::Batch)?
            .set_max_timestamp(max_timestamp_ms);
    }
    if rebuild && let Some(codec) = config.compression {
        bytes = recompress(&bytes, codec)?;
    }
    let mut records = 0;
    let mut max_timestamp_ms = -1;
    let log_append_time_ms =
        (config.timestamp_type == TimestampType::LogAppendTime).then_some(now_ms);
    let mut at = 0;
    while at < bytes.len() {
        let mut batch = BatchMut::parse(&mut bytes[at..]).map_err(AppendError::Batch)?;
        if let Some(now_ms) = log_append_time_ms {
            batch.set_log_append_time(now_ms);
        } else if batch.view().timestamp_type() == TimestampType::LogAppendTime {
            return Err(AppendError::Invalid {
                rule: "a producer does not send timestamps of type LogAppendTime",
            });
        }
        let batch = batch.view();
        check_size(&batch, config, origin)?;
        records += i64::from(batch.count());
        max_timestamp_ms = max_timestamp_ms.max(batch.max_timestamp_ms());
        at += batch.len();
    }
    let limit_bytes = config.segment_bytes_max.min(i32::MAX as u64);
    if bytes.len() as u64 > limit_bytes {
        return Err(AppendError::LargerThanSegment { bytes: bytes.len(), limit_bytes });
    }
    Ok(Validated { bytes, records, max_timestamp_ms, log_append_time_ms })
}

fn check_batch(
    batch: &Batch<'_>,
    config: &TopicConfig,
    origin: Origin,
    now_ms: i64,
) -> Result<(), AppendError> {
    if batch.is_control() && origin == Origin::Client {
        return Err(AppendError::Invalid { rule: "a producer does not send control batches" });
    }
    if config.timestamp_type == TimestampType::CreateTime
        && let Some(limit) = config.timestamp_difference_max.and_then(as_ms)
        && batch.max_timestamp_ms() >= 0
    {
        for timestamp_ms in [batch.base_timestamp_ms(), batch.max_timestamp_ms()] {
            if timestamp_ms.abs_diff(now_ms) > limit {
                return Err(AppendError::Timestamp { timestamp_ms, now_ms });
            }
        }
    }
    Ok(())
}

fn check_size(batch: &Batch<'_>, config: &TopicConfig, origin: Origin) -> Result<(), AppendError> {
    let (batch_bytes, limit_bytes) = (batch.len(), config.message_bytes_max);
    if batch_bytes > limit_bytes && origin == Origin::Client {
        return Err(AppendError::TooLarge { batch_bytes, limit_bytes });
    }
    Ok(())
}

/// Checks the records of a batch, where they must be read at all. Returns their largest timestamp.
fn check_records(batch: &Batch<'_>, config: &TopicConfig) -> Result<i64, AppendError> {
    let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(AppendError::Records)?;
    let mut expected = batch.base_offset();
    let mut max_timestamp_ms = NO_TIMESTAMP;
    for record in &records {
        let record = record.map_err(AppendError::Records)?;
        // The header announces as many offsets as records: with others inside, the offsets of this
        // batch and those of the next would overlap once it is rebuilt.
        if record.offset != expected {
            return Err(AppendError::Invalid { rule: OFFSETS_RULE });
        }
        if config.is_compacted && record.key.is_none() {
            return Err(AppendError::Invalid { rule: "a compacted topic keeps keyed records" });
        }
        expected = expected.next();
        max_timestamp_ms = max_timestamp_ms.max(record.timestamp_ms);
    }
    Ok(max_timestamp_ms)
}

fn as_ms(duration: Duration) -> Option<u64> {
    u64::try_from(duration.as_millis()).ok()
}

/// The same batches under another codec; offsets are assigned later.
fn recompress(bytes: &[u8], codec: Compression) -> Result<Vec<u8>, AppendError> {
    let mut out = Vec::with_capacity(bytes.len());
    for batch in batches(bytes) {
        let batch = batch.map_err(AppendError::Batch)?;
        if batch.compression().map_err(AppendError::Batch)? == codec || batch.is_control() {
            out.extend_from_slice(batch.bytes());
            continue;
        }
        let records = batch.records(DECOMPRESSED_BYTES_MAX).map_err(AppendError::Records)?;
        let mut builder = BatchBuilder::new(codec)
            .base_offset(batch.base_offset())
            .producer(batch.producer_id(), batch.producer_epoch(), batch.base_sequence())
            .transactional(batch.is_transactional());
        for record in &records {
            let record = record.map_err(AppendError::Records)?;
            let headers = record.headers();
            builder
                .push_at(
                    (record.offset.0 - batch.base_offset().0) as i32,
                    record.timestamp_ms,
                    record.key,
                    record.value,
                    headers.map(|header| (header.key, header.value)),
                )
                .map_err(|_| AppendError::Invalid { rule: OFFSETS_RULE })?;
        }
        let built = builder.build().map_err(|_| AppendError::Invalid {
            rule: "records cannot be brought into the topic's compression.type",
        })?;
        Batch::parse(&built).and_then(|it| it.check_produced()).map_err(AppendError::Batch)?;
        out.extend_from_slice(&built);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use elkfk_wire::kafka::records::HEADER_BYTES;

    use super::*;

    fn sample(compression: Compression, key: Option<&[u8]>) -> Vec<u8> {
        let mut builder = BatchBuilder::new(compression);
        builder.push(1000, key, Some(b"one"), &[("h", Some(b"1"))]);
        builder.push(3000, key, Some(b"two"), &[]);
        builder.build().unwrap()
    }

    fn refuse(bytes: Vec<u8>, config: &TopicConfig, expected: &str) {
        let error = validate(bytes, config, Origin::Client, 5000).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn the_rules_of_a_topic_hold() {
        let topic = TopicConfig::default();
        let plain = || sample(Compression::None, None);
        refuse(vec![], &topic, "no batch");
        refuse(vec![0; 100], &topic, "damaged");
        let limit = TopicConfig { message_bytes_max: 80, ..topic.clone() };
        refuse(plain(), &limit, "exceeds max.message.bytes = 80");
        let limit = TopicConfig { segment_bytes_max: 80, ..topic.clone() };
        refuse(plain(), &limit, "exceed segment.bytes = 80");
        let limit = TopicConfig { is_compacted: true, ..topic.clone() };
        refuse(plain(), &limit, "keyed");
        validate(sample(Compression::Gzip, Some(b"k")), &limit, Origin::Client, 5000).unwrap();
        let limit =
            TopicConfig { timestamp_difference_max: Some(Duration::from_secs(3)), ..topic.clone() };
        refuse(plain(), &limit, "timestamp 1000 is too far");
        let control =
            BatchBuilder::control(elkfk_wire::kafka::records::ControlType::Abort, 1, 0, 0, 5);
        refuse(control.build().unwrap(), &topic, "control");
    }

    /// A batch whose records, in varints as they are on the wire, have offset deltas of the
    /// caller's choice; its header counts them and its checksum is right.
    fn with_deltas(compression: Compression, deltas: &[i32]) -> Vec<u8> {
        let mut plain = BatchBuilder::new(Compression::None);
        for _ in deltas {
            plain.push(1000, Some(b"k"), Some(b"v"), &[]);
        }
        let mut plain = plain.build().unwrap();
        // Each record: length, attributes, timestamp delta, offset delta, and so on, a byte each.
        let record_bytes = (plain.len() - HEADER_BYTES) / deltas.len();
        for (index, delta) in deltas.iter().enumerate() {
            plain[HEADER_BYTES + index * record_bytes + 3] = (*delta as u8) << 1;
        }
        let body = plain.split_off(HEADER_BYTES);
        if compression == Compression::Gzip {
            use std::io::Write;
            let mut encoder = flate2::write::GzEncoder::new(plain, flate2::Compression::default());
            encoder.write_all(&body).unwrap();
            plain = encoder.finish().unwrap();
            plain[22] = 1;
        } else {
            plain.extend(body);
        }
        let length = plain.len() as i32 - 12;
        plain[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&plain[21..]);
        plain[17..21].copy_from_slice(&crc.to_be_bytes());
        plain
    }

    #[test]
    fn offsets_within_a_batch_are_dense_wherever_it_is_read() {
        let recompressed =
            TopicConfig { compression: Some(Compression::Zstd), ..TopicConfig::default() };
        let compacted = TopicConfig { is_compacted: true, ..TopicConfig::default() };
        for codec in [Compression::None, Compression::Gzip] {
            for topic in [&recompressed, &compacted] {
                validate(with_deltas(codec, &[0, 1]), topic, Origin::Client, 5000).unwrap();
                for deltas in [[0, 0], [0, 5], [1, 2], [1, 0]] {
                    refuse(with_deltas(codec, &deltas), topic, "count up from 0");
                }
            }
        }
    }

    #[test]
    fn a_wrong_largest_timestamp_is_corrected_where_records_are_read() {
        let topic = TopicConfig { is_compacted: true, ..TopicConfig::default() };
        let mut bytes = sample(Compression::Lz4, Some(b"k"));
        BatchMut::parse(&mut bytes).unwrap().set_max_timestamp(i64::MAX);
        let out = validate(bytes, &topic, Origin::Client, 5000).unwrap();
        assert_eq!(out.max_timestamp_ms, 3000);
        let batch = Batch::parse(&out.bytes).unwrap();
        batch.check().unwrap();
        assert_eq!(batch.max_timestamp_ms(), 3000);
    }

    #[test]
    fn size_is_checked_before_anything_is_decompressed() {
        let mut bytes = sample(Compression::Gzip, Some(b"k"));
        // Cannot be decompressed, which nobody finds out.
        bytes[HEADER_BYTES..].fill(0xff);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        let topic =
            TopicConfig { is_compacted: true, message_bytes_max: 80, ..TopicConfig::default() };
        refuse(bytes, &topic, "exceeds max.message.bytes = 80");
    }

    #[test]
    fn log_append_time_replaces_the_producers() {
        let topic =
            TopicConfig { timestamp_type: TimestampType::LogAppendTime, ..TopicConfig::default() };
        let out = validate(sample(Compression::Lz4, None), &topic, Origin::Client, 5000).unwrap();
        assert_eq!((out.log_append_time_ms, out.max_timestamp_ms), (Some(5000), 5000));
        let batch = Batch::parse(&out.bytes).unwrap();
        batch.check().unwrap();
        assert_eq!(batch.max_timestamp_ms(), 5000);
    }

    #[test]
    fn another_compression_type_rebuilds_the_batch() {
        let topic = TopicConfig { compression: Some(Compression::Zstd), ..TopicConfig::default() };
        let out = validate(sample(Compression::None, None), &topic, Origin::Client, 5000).unwrap();
        let batch = Batch::parse(&out.bytes).unwrap();
        assert_eq!(batch.compression(), Ok(Compression::Zstd));
        let records = batch.records(1000).unwrap();
        let values: Vec<_> = records
            .iter()
            .map(|record| record.map(|it| (it.offset.0, it.timestamp_ms, it.headers().count())))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(values, [(0, 1000, 1), (1, 3000, 0)]);
    }
}
