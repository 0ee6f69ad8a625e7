//! Reading records, one stretch of a partition at a time.

use std::time::Duration;

use elkfk_wire::kafka::ErrorCode;
use elkfk_wire::kafka::messages::{
    FetchRequest, FetchResponse,
    fetch_request::{FetchPartition, FetchTopic},
};
use elkfk_wire::kafka::records::{BatchError, batches};

use crate::TopicPartition;
use crate::client::Client;
use crate::error::{ClientError, Refused};

/// Newest version that names topics; later ones want their ids.
const FETCH_BY_NAME: i16 = 12;
/// Most that the records of one batch may decompress to, in bytes.
const BATCH_BYTES_MAX: usize = 64 << 20;

/// A stretch of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecords {
    /// Ascending; none before the offset asked for.
    pub records: Vec<FetchedRecord>,
    pub high_watermark: i64,
    pub log_start: i64,
    /// Where to go on. Beyond the last record, where control records follow.
    pub next_offset: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedRecord {
    pub offset: i64,
    /// Milliseconds since 1970; -1 if it has none.
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    /// Keys that are not UTF-8 are shown as well as they can be.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Client {
    /// The record at `offset`, or the next one where that offset is empty; `None` at the end.
    ///
    /// # Errors
    ///
    /// If the partition's leader cannot be asked, or the offset is outside of the log.
    pub async fn fetch_record(
        &self,
        place: &TopicPartition,
        offset: i64,
    ) -> Result<Option<FetchedRecord>, ClientError> {
        let fetched = self.fetch_records(place, offset, 1, Duration::ZERO).await?;
        Ok(fetched.records.into_iter().next())
    }

    /// Records from `offset` on: some `bytes_max` bytes, though at least one batch if there is one.
    ///
    /// Waits up to `wait` for the first byte.
    ///
    /// # Errors
    ///
    /// If the partition's leader cannot be asked, or the offset is outside of the log.
    pub async fn fetch_records(
        &self,
        place: &TopicPartition,
        offset: i64,
        bytes_max: i32,
        wait: Duration,
    ) -> Result<FetchedRecords, ClientError> {
        let what = || format!("fetch {place} at {offset}");
        self.retry(async || {
            let (by_leader, leaderless) = self.by_leader(std::iter::once(place)).await?;
            if let Some((_, refused)) = leaderless.into_iter().next() {
                return Err(ClientError::Refused { what: what(), refused });
            }
            let Some(leader) = by_leader.into_keys().next() else {
                return Err(ClientError::refused(what(), ErrorCode::LEADER_NOT_AVAILABLE.0));
            };
            let connection = self.node(leader).await?;
            let version = connection.version_up_to::<FetchRequest<'_>>(FETCH_BY_NAME)?;
            let request = FetchRequest {
                replica_id: -1,
                max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
                min_bytes: 1,
                max_bytes: bytes_max,
                topics: vec![FetchTopic {
                    topic: place.topic.as_str().into(),
                    partitions: vec![FetchPartition {
                        partition: place.partition,
                        fetch_offset: offset,
                        partition_max_bytes: bytes_max,
                        ..FetchPartition::default()
                    }],
                    ..FetchTopic::default()
                }],
                ..FetchRequest::default()
            };
            let reply = connection.send(&request, version).await?;
            let response: FetchResponse<'_> = reply.read()?;
            let refuse = |code| ClientError::refused(what(), code);
            if response.error_code != 0 {
                return Err(refuse(response.error_code));
            }
            let answer = response.responses.first().and_then(|topic| topic.partitions.first());
            let answer = answer.ok_or_else(|| refuse(ErrorCode::UNKNOWN_SERVER_ERROR.0))?;
            if answer.error_code != 0 {
                return Err(refuse(answer.error_code));
            }
            let bytes = answer.records.as_deref().unwrap_or_default();
            let (records, next_offset) = read(bytes, offset).map_err(|message| {
                let code = ErrorCode::CORRUPT_MESSAGE;
                ClientError::Refused {
                    what: what(),
                    refused: Refused { code, message: Some(message) },
                }
            })?;
            Ok(FetchedRecords {
                records,
                high_watermark: answer.high_watermark,
                log_start: answer.log_start_offset,
                next_offset,
            })
        })
        .await
    }
}

/// The records at or after `from`, and the offset after the last whole batch.
fn read(bytes: &[u8], from: i64) -> Result<(Vec<FetchedRecord>, i64), String> {
    let mut records = Vec::new();
    let mut next = from;
    // A broker cuts at the size asked for: what comes after the last whole batch is left out.
    for batch in batches(bytes) {
        let batch = match batch {
            Err(BatchError::Truncated { .. }) => break,
            batch => batch.map_err(|e| e.to_string())?,
        };
        batch.check().map_err(|e| e.to_string())?;
        next = next.max(batch.next_offset().0);
        if batch.is_control() {
            continue;
        }
        let decoded = batch.records(BATCH_BYTES_MAX).map_err(|e| e.to_string())?;
        for record in decoded.iter() {
            let record = record.map_err(|e| e.to_string())?;
            if record.offset.0 < from {
                continue;
            }
            let mut headers = Vec::new();
            for header in record.headers() {
                let value = header.value.map(<[u8]>::to_vec);
                let key = String::from_utf8_lossy(header.key).into_owned();
                headers.push((key, value));
            }
            records.push(FetchedRecord {
                offset: record.offset.0,
                timestamp_ms: record.timestamp_ms,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers,
            });
        }
    }
    Ok((records, next))
}
