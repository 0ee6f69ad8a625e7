//! Making batches.

use super::batch::{
    HEADER_BYTES, NO_PRODUCER_EPOCH, NO_PRODUCER_ID, NO_SEQUENCE, NO_TIMESTAMP, TimestampType,
};
use super::compression::{Compression, CompressionError};
use super::varint::{put_varint, put_varlong, varlong_bytes};
use super::{LeaderEpoch, Offset};

/// What a transaction marker says; the number is the one in the key of its record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlType {
    Abort,
    Commit,
}

impl ControlType {
    pub fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::Abort),
            1 => Some(Self::Commit),
            _ => None,
        }
    }

    pub fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
        }
    }
}

/// Why no batch could be made.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("a batch holds one record at least")]
    Empty,
    #[error("batch of {bytes} bytes exceeds what its length field can say")]
    TooLarge { bytes: usize },
    #[error("compress records")]
    Compression(#[from] CompressionError),
    /// Offsets rise within a batch.
    #[error("offset delta {given} does not follow {last}")]
    Offset { given: i32, last: i32 },
}

/// Collects records and makes one batch of them.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    compression: Compression,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: i64,
    producer_epoch: i16,
    base_sequence: i32,
    timestamp_type: TimestampType,
    is_transactional: bool,
    is_control: bool,
    /// The timestamp of the first record, from which the others count.
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
    count: i32,
    last_offset_delta: i32,
    body: Vec<u8>,
}

impl BatchBuilder {
    pub fn new(compression: Compression) -> Self {
        Self {
            compression,
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            producer_id: NO_PRODUCER_ID,
            producer_epoch: NO_PRODUCER_EPOCH,
            base_sequence: NO_SEQUENCE,
            timestamp_type: TimestampType::CreateTime,
            is_transactional: false,
            is_control: false,
            base_timestamp_ms: NO_TIMESTAMP,
            max_timestamp_ms: NO_TIMESTAMP,
            count: 0,
            last_offset_delta: -1,
            body: Vec::new(),
        }
    }

    /// The batch of one transaction marker.
    pub fn control(
        kind: ControlType,
        producer_id: i64,
        producer_epoch: i16,
        coordinator_epoch: i32,
        timestamp_ms: i64,
    ) -> Self {
        let mut builder = Self::new(Compression::None);
        builder.producer_id = producer_id;
        builder.producer_epoch = producer_epoch;
        builder.is_transactional = true;
        builder.is_control = true;
        let mut key = [0; 4];
        key[2..].copy_from_slice(&kind.id().to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
        builder.push(timestamp_ms, Some(&key), Some(&value), &[]);
        builder
    }

    #[must_use]
    pub fn base_offset(mut self, offset: Offset) -> Self {
        self.base_offset = offset;
        self
    }

    #[must_use]
    pub fn leader_epoch(mut self, epoch: LeaderEpoch) -> Self {
        self.leader_epoch = epoch;
        self
    }

    /// Makes the batch one of an idempotent producer.
    #[must_use]
    pub fn producer(mut self, id: i64, epoch: i16, base_sequence: i32) -> Self {
        (self.producer_id, self.producer_epoch, self.base_sequence) = (id, epoch, base_sequence);
        self
    }

    #[must_use]
    pub fn transactional(mut self, is_transactional: bool) -> Self {
        self.is_transactional = is_transactional;
        self
    }

    /// Marks the timestamps as a broker's; the largest becomes that of all records.
    #[must_use]
    pub fn timestamp_type(mut self, timestamp_type: TimestampType) -> Self {
        self.timestamp_type = timestamp_type;
        self
    }

    /// Adds a record after those already there.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let headers = headers.iter().map(|&(key, value)| (key.as_bytes(), value));
        self.put(self.last_offset_delta + 1, timestamp_ms, key, value, headers);
    }

    /// Adds a record at base offset + `offset_delta`, so that compaction can leave gaps.
    ///
    /// # Errors
    /// If the delta is not above those already there, as where it came from a peer.
    pub fn push_at<'h>(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) -> Result<(), BuildError> {
        if offset_delta <= self.last_offset_delta {
            return Err(BuildError::Offset { given: offset_delta, last: self.last_offset_delta });
        }
        self.put(offset_delta, timestamp_ms, key, value, headers);
        Ok(())
    }

    fn put<'h>(
        &mut self,
        offset_delta: i32,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl Iterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) {
        if self.count == 0 {
            self.base_timestamp_ms = timestamp_ms;
        }
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
        self.last_offset_delta = offset_delta;
        self.count += 1;
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let nullable = |bytes: Option<&[u8]>| match bytes {
            Some(bytes) => varlong_bytes(bytes.len() as i64) + bytes.len(),
            None => 1,
        };
        let (header_count, header_bytes) =
            headers.clone().fold((0i32, 0), |(count, bytes), (key, value)| {
                (count + 1, bytes + nullable(Some(key)) + nullable(value))
            });
        let length = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(offset_delta.into())
            + nullable(key)
            + nullable(value)
            + varlong_bytes(header_count.into())
            + header_bytes;
        let out = &mut self.body;
        out.reserve(length + 5);
        put_varint(out, length as i32);
        out.push(0); // Attributes: none are defined.
        put_varlong(out, timestamp_delta);
        put_varint(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        put_varint(out, header_count);
        for (key, value) in headers {
            put_nullable(out, Some(key));
            put_nullable(out, value);
        }
    }

    /// Extends the offsets the batch covers beyond its last record, as compaction must.
    pub fn cover_to(&mut self, last_offset_delta: i32) {
        self.last_offset_delta = self.last_offset_delta.max(last_offset_delta);
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the batch if it were not compressed.
    pub fn plain_bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The batch.
    ///
    /// # Errors
    /// Without records; above 2 GiB.
    pub fn build(&self) -> Result<Vec<u8>, BuildError> {
        if self.is_empty() {
            return Err(BuildError::Empty);
        }
        let mut out = Vec::with_capacity(match self.compression {
            Compression::None => self.plain_bytes(),
            _ => HEADER_BYTES + self.body.len() / 2,
        });
        out.resize(HEADER_BYTES, 0);
        self.compression.compress(&self.body, &mut out)?;
        let length =
            i32::try_from(out.len() - 12).map_err(|_| BuildError::TooLarge { bytes: out.len() })?;
        let attributes = self.compression as i16
            | i16::from(self.timestamp_type == TimestampType::LogAppendTime) << 3
            | i16::from(self.is_transactional) << 4
            | i16::from(self.is_control) << 5;
        out[0..8].copy_from_slice(&self.base_offset.0.to_be_bytes());
        out[8..12].copy_from_slice(&length.to_be_bytes());
        out[12..16].copy_from_slice(&self.leader_epoch.0.to_be_bytes());
        out[16] = 2;
        out[21..23].copy_from_slice(&attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp_ms.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp_ms.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
        let crc = crc32c::crc32c(&out[21..]);
        out[17..21].copy_from_slice(&crc.to_be_bytes());
        Ok(out)
    }
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, bytes.len() as i32);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
