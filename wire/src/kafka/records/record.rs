//! The records of a batch.

use std::borrow::Cow;

use super::batch::{Batch, BatchError, TimestampType};
use super::compression::{Compression, CompressionError};
use super::varint::{Cursor, Malformed};
use super::{ControlType, Offset};

/// Why records cannot be read from a batch.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("decompress records of the batch at offset {base_offset}")]
    Compression { base_offset: Offset, source: CompressionError },
    #[error("record {index} of the batch at offset {base_offset} is malformed")]
    Malformed { base_offset: Offset, index: i32 },
    #[error("{bytes} bytes follow the last record of the batch at offset {base_offset}")]
    Trailing { base_offset: Offset, bytes: usize },
}

/// The records of one batch, decompressed where they were compressed.
#[derive(Debug)]
pub struct Records<'a> {
    body: Cow<'a, [u8]>,
    base_offset: Offset,
    base_timestamp_ms: i64,
    /// Replaces the records' own timestamps.
    log_append_time_ms: Option<i64>,
    count: i32,
}

impl<'a> Records<'a> {
    pub(super) fn new(
        batch: Batch<'a>,
        packed: &'a [u8],
        limit_bytes: usize,
    ) -> Result<Self, RecordError> {
        let base_offset = batch.base_offset();
        let body = match batch.compression()? {
            Compression::None => Cow::Borrowed(packed),
            codec => Cow::Owned(
                codec
                    .decompress(packed, limit_bytes)
                    .map_err(|source| RecordError::Compression { base_offset, source })?,
            ),
        };
        Ok(Self {
            body,
            base_offset,
            base_timestamp_ms: batch.base_timestamp_ms(),
            log_append_time_ms: (batch.timestamp_type() == TimestampType::LogAppendTime)
                .then(|| batch.max_timestamp_ms()),
            count: batch.count(),
        })
    }

    /// The records in order; after an error nothing follows.
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter { records: self, cursor: Cursor(&self.body), index: 0, is_done: false }
    }
}

impl<'r> IntoIterator for &'r Records<'_> {
    type Item = Result<Record<'r>, RecordError>;
    type IntoIter = RecordsIter<'r>;

    fn into_iter(self) -> RecordsIter<'r> {
        self.iter()
    }
}

/// See [`Records::iter`].
#[derive(Debug)]
pub struct RecordsIter<'r> {
    records: &'r Records<'r>,
    cursor: Cursor<'r>,
    index: i32,
    is_done: bool,
}

impl<'r> Iterator for RecordsIter<'r> {
    type Item = Result<Record<'r>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let (records, index) = (self.records, self.index);
        let base_offset = records.base_offset;
        if index >= records.count {
            self.is_done = true;
            let bytes = self.cursor.0.len();
            return (bytes > 0).then_some(Err(RecordError::Trailing { base_offset, bytes }));
        }
        self.index += 1;
        let record = Record::decode(&mut self.cursor, records)
            .map_err(|Malformed| RecordError::Malformed { base_offset, index });
        self.is_done = record.is_err();
        Some(record)
    }
}

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy)]
pub struct Record<'r> {
    pub offset: Offset,
    /// The producer's time, or the broker's under `LogAppendTime`. -1 is none.
    pub timestamp_ms: i64,
    pub key: Option<&'r [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'r [u8]>,
    /// The headers as encoded after their count; already walked once, so they decode.
    headers: &'r [u8],
    header_count: usize,
}

impl<'r> Record<'r> {
    fn decode(cursor: &mut Cursor<'r>, records: &Records<'_>) -> Result<Self, Malformed> {
        let length = usize::try_from(cursor.varint()?).map_err(|_| Malformed)?;
        let mut fields = Cursor(cursor.take(length)?);
        let _attributes = fields.byte()?;
        let timestamp_delta = fields.varlong()?;
        let offset_delta = fields.varint()?;
        if offset_delta < 0 {
            return Err(Malformed);
        }
        let key = fields.nullable_bytes()?;
        let value = fields.nullable_bytes()?;
        let header_count = usize::try_from(fields.varint()?).map_err(|_| Malformed)?;
        let headers = fields.0;
        for _ in 0..header_count {
            decode_header(&mut fields)?;
        }
        if !fields.0.is_empty() {
            return Err(Malformed);
        }
        Ok(Self {
            offset: records.base_offset.plus(offset_delta.into()),
            timestamp_ms: records
                .log_append_time_ms
                .unwrap_or_else(|| records.base_timestamp_ms.wrapping_add(timestamp_delta)),
            key,
            value,
            headers,
            header_count,
        })
    }

    pub fn headers(&self) -> Headers<'r> {
        Headers { cursor: Cursor(self.headers), left: self.header_count }
    }

    /// The value of the last header with this key, which is the one Kafka calls "last header".
    pub fn header(&self, key: &str) -> Option<&'r [u8]> {
        self.headers().filter(|header| header.key == key.as_bytes()).last()?.value
    }

    /// What a record of a control batch says; `None` for kinds that are unknown here.
    pub fn control_type(&self) -> Option<ControlType> {
        // Key: version i16, type i16.
        let kind = self.key?.get(2..4)?;
        ControlType::from_id(i16::from_be_bytes([kind[0], kind[1]]))
    }
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'r> {
    /// UTF-8 by agreement, which no broker checks.
    pub key: &'r [u8],
    pub value: Option<&'r [u8]>,
}

/// See [`Record::headers`].
#[derive(Debug, Clone)]
pub struct Headers<'r> {
    cursor: Cursor<'r>,
    left: usize,
}

impl<'r> Iterator for Headers<'r> {
    type Item = Header<'r>;

    fn next(&mut self) -> Option<Header<'r>> {
        self.left = self.left.checked_sub(1)?;
        decode_header(&mut self.cursor).ok()
    }
}

fn decode_header<'r>(fields: &mut Cursor<'r>) -> Result<Header<'r>, Malformed> {
    Ok(Header { key: fields.nullable_bytes()?.ok_or(Malformed)?, value: fields.nullable_bytes()? })
}
