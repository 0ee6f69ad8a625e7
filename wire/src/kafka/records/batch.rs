//! One batch, read and patched where it lies.

use super::record::{RecordError, Records};
use super::{Compression, LeaderEpoch, Offset};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and batch length, which the length does not count.
const LENGTH_END: usize = 12;
/// Where the checksummed part starts.
const CRC_END: usize = 21;

/// The length of the shortest message of magic 0.
const OLD_MESSAGE_BYTES_MIN: i32 = 14;

pub const NO_PRODUCER_ID: i64 = -1;
pub const NO_PRODUCER_EPOCH: i16 = -1;
pub const NO_SEQUENCE: i32 = -1;
pub const NO_TIMESTAMP: i64 = -1;

const COMPRESSION_MASK: i16 = 0b0111;
const TIMESTAMP_TYPE_BIT: i16 = 1 << 3;
const TRANSACTIONAL_BIT: i16 = 1 << 4;
const CONTROL_BIT: i16 = 1 << 5;
const DELETE_HORIZON_BIT: i16 = 1 << 6;

/// Whose clock the timestamps of a batch come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// Why bytes are not a batch that may be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// More bytes are needed before anything can be said.
    #[error("batch of {need_bytes} bytes or more is cut off after {have_bytes}")]
    Truncated { need_bytes: usize, have_bytes: usize },
    #[error("batch length {length} is below the {minimum} of a header")]
    Length { length: i32, minimum: usize },
    /// Magic 0 and 1: message sets from before Kafka 0.11.
    #[error("batch format {magic} is older than the supported format 2")]
    OldMagic { magic: i8 },
    #[error("batch format {magic} is unknown")]
    UnknownMagic { magic: i8 },
    #[error("batch checksum is {computed:#010x}, its header says {stored:#010x}")]
    Crc { stored: u32, computed: u32 },
    #[error("compression id {id} is unknown")]
    Compression { id: u8 },
    #[error("batch of {count} records announces {last_offset_delta} as its last offset delta")]
    Count { count: i32, last_offset_delta: i32 },
    #[error("base offset {base_offset} is negative")]
    BaseOffset { base_offset: i64 },
    /// Producer id, epoch and sequence contradict one another.
    #[error(
        "producer id {producer_id} with epoch {producer_epoch} and sequence {base_sequence} \
         is no producer"
    )]
    Producer { producer_id: i64, producer_epoch: i16, base_sequence: i32 },
    #[error("a {field} of {value} is out of range")]
    Timestamp { field: &'static str, value: i64 },
}

/// One whole batch, borrowed. Accessors read the header in place.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Invariant: at least `HEADER_BYTES`, and exactly what the length field says.
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the start of `bytes`, which may go on beyond it.
    ///
    /// Only length and magic are looked at: see [`Batch::check`] for the rest.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BatchError> {
        let total = total_bytes(bytes)?;
        match bytes.get(..total) {
            Some(bytes) => Ok(Self { bytes }),
            None => Err(BatchError::Truncated { need_bytes: total, have_bytes: bytes.len() }),
        }
    }

    /// Checks what a log must be able to rely on: checksum, compression, offsets.
    ///
    /// Batches thinned by compaction, even to no record, pass.
    pub fn check(&self) -> Result<(), BatchError> {
        let (stored, computed) = (self.crc(), self.compute_crc());
        if stored != computed {
            return Err(BatchError::Crc { stored, computed });
        }
        self.compression()?;
        let (count, last_offset_delta) = (self.count(), self.last_offset_delta());
        if count < 0 || last_offset_delta < 0 || i64::from(count) > i64::from(last_offset_delta) + 1
        {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        let base_offset = self.base_offset().0;
        if base_offset < 0 || base_offset.checked_add(last_offset_delta.into()).is_none() {
            return Err(BatchError::BaseOffset { base_offset });
        }
        Ok(())
    }

    /// [`Batch::check`], and what may be asked of a producer: no gaps, sane producer fields.
    pub fn check_produced(&self) -> Result<(), BatchError> {
        self.check()?;
        let (count, last_offset_delta) = (self.count(), self.last_offset_delta());
        if count < 1 || count != last_offset_delta.wrapping_add(1) {
            return Err(BatchError::Count { count, last_offset_delta });
        }
        let (producer_id, producer_epoch, base_sequence) =
            (self.producer_id(), self.producer_epoch(), self.base_sequence());
        let is_sane = if producer_id == NO_PRODUCER_ID {
            !self.is_transactional()
        } else {
            // A control batch carries a producer but no sequence.
            producer_id >= 0 && producer_epoch >= 0 && (base_sequence >= 0 || self.is_control())
        };
        if !is_sane {
            return Err(BatchError::Producer { producer_id, producer_epoch, base_sequence });
        }
        for (field, value) in [
            ("base timestamp", self.base_timestamp_ms()),
            ("max timestamp", self.max_timestamp_ms()),
        ] {
            if value < NO_TIMESTAMP {
                return Err(BatchError::Timestamp { field, value });
            }
        }
        Ok(())
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the whole batch.
    #[expect(clippy::len_without_is_empty, reason = "a batch has a header at least")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    fn field<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("the header is whole")
    }

    pub fn base_offset(&self) -> Offset {
        Offset(i64::from_be_bytes(self.field(0)))
    }

    pub fn leader_epoch(&self) -> LeaderEpoch {
        LeaderEpoch(i32::from_be_bytes(self.field(12)))
    }

    /// The checksum in the header.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.field(17))
    }

    fn compute_crc(&self) -> u32 {
        crc32c::crc32c(&self.bytes[CRC_END..])
    }

    pub fn attributes(&self) -> i16 {
        i16::from_be_bytes(self.field(21))
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        let id = (self.attributes() & COMPRESSION_MASK) as u8;
        Compression::from_id(id).ok_or(BatchError::Compression { id })
    }

    pub fn timestamp_type(&self) -> TimestampType {
        match self.attributes() & TIMESTAMP_TYPE_BIT {
            0 => TimestampType::CreateTime,
            _ => TimestampType::LogAppendTime,
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// True for transaction markers, which consumers never see.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// True where the base timestamp is the time at which tombstones may go (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes() & DELETE_HORIZON_BIT != 0
    }

    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.field(23))
    }

    /// The offset of the last record, also where compaction removed it.
    pub fn last_offset(&self) -> Offset {
        self.base_offset().plus(self.last_offset_delta().into())
    }

    /// The offset after the batch.
    pub fn next_offset(&self) -> Offset {
        self.last_offset().next()
    }

    /// What the records' timestamp deltas count from.
    pub fn base_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(self.field(27))
    }

    /// The largest timestamp, or the append time under [`TimestampType::LogAppendTime`].
    pub fn max_timestamp_ms(&self) -> i64 {
        i64::from_be_bytes(self.field(35))
    }

    /// [`NO_PRODUCER_ID`] for a producer that is not idempotent.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.field(43))
    }

    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.field(51))
    }

    /// The sequence number of the first record.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.field(53))
    }

    /// The sequence number of the last record: after 2^31 - 1 comes 0.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence() {
            NO_SEQUENCE => NO_SEQUENCE,
            base => base.wrapping_add(self.last_offset_delta()) & i32::MAX,
        }
    }

    /// Records in the batch, as its header says.
    pub fn count(&self) -> i32 {
        i32::from_be_bytes(self.field(57))
    }

    /// The records, decompressed into at most `limit_bytes`. Not decompressed, they are borrowed.
    pub fn records(&self, limit_bytes: usize) -> Result<Records<'a>, RecordError> {
        Records::new(*self, &self.bytes[HEADER_BYTES..], limit_bytes)
    }
}

impl std::fmt::Debug for Batch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch")
            .field("base_offset", &self.base_offset().0)
            .field("last_offset_delta", &self.last_offset_delta())
            .field("count", &self.count())
            .field("leader_epoch", &self.leader_epoch().0)
            .field("attributes", &self.attributes())
            .field("producer_id", &self.producer_id())
            .field("base_sequence", &self.base_sequence())
            .field("bytes", &self.len())
            .finish()
    }
}

/// Bytes of the batch that starts `bytes`, from its length field; checks magic where it is there.
fn total_bytes(bytes: &[u8]) -> Result<usize, BatchError> {
    let cut = |need_bytes| BatchError::Truncated { need_bytes, have_bytes: bytes.len() };
    let length = i32::from_be_bytes(
        *bytes.get(8..).and_then(|rest| rest.first_chunk()).ok_or(cut(HEADER_BYTES))?,
    );
    // Zeros, as a crash leaves them at the end of a file, are no message of magic 0.
    if length < OLD_MESSAGE_BYTES_MIN {
        let minimum = OLD_MESSAGE_BYTES_MIN as usize;
        return Err(BatchError::Length { length, minimum });
    }
    // The magic stands at the same place in all formats, and old ones may be shorter than ours.
    match bytes.get(16).map(|&magic| magic as i8) {
        None => return Err(cut(HEADER_BYTES)),
        Some(2) => {}
        Some(magic @ (0 | 1)) => return Err(BatchError::OldMagic { magic }),
        Some(magic) => return Err(BatchError::UnknownMagic { magic }),
    }
    let minimum = HEADER_BYTES - LENGTH_END;
    match usize::try_from(length) {
        Ok(after) if after >= minimum => Ok(LENGTH_END + after),
        _ => Err(BatchError::Length { length, minimum }),
    }
}

/// What the header of a batch says about where it lies, without its records at hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the whole batch.
    pub total_bytes: usize,
    pub base_offset: Offset,
    /// The offset of the last record.
    pub last_offset: Offset,
    pub max_timestamp_ms: i64,
}

/// Reads the header of a batch from its first [`HEADER_BYTES`]; the checksum stays unchecked.
pub fn peek(bytes: &[u8]) -> Result<Head, BatchError> {
    let total_bytes = total_bytes(bytes)?;
    let head = bytes
        .get(..HEADER_BYTES)
        .ok_or(BatchError::Truncated { need_bytes: HEADER_BYTES, have_bytes: bytes.len() })?;
    let header = Batch { bytes: head };
    Ok(Head {
        total_bytes,
        base_offset: header.base_offset(),
        last_offset: header.last_offset(),
        max_timestamp_ms: header.max_timestamp_ms(),
    })
}

/// The batches that `bytes` hold, in order.
///
/// A batch that is cut off at the end comes as [`BatchError::Truncated`]; after an error nothing
/// follows. Each batch still wants [`Batch::check`].
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<Batch<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = Batch::parse(self.rest);
        self.rest = match &batch {
            Ok(batch) => &self.rest[batch.len()..],
            Err(_) => &[],
        };
        Some(batch)
    }
}

/// How many bytes at the start of `bytes` are whole batches.
pub fn whole_batches_bytes(bytes: &[u8]) -> usize {
    batches(bytes).map_while(Result::ok).map(|batch| batch.len()).sum()
}

/// One whole batch that may be patched in place.
#[derive(Debug)]
pub struct BatchMut<'a> {
    /// Invariant: as in [`Batch`].
    bytes: &'a mut [u8],
}

impl<'a> BatchMut<'a> {
    /// The batch at the start of `bytes`, as [`Batch::parse`].
    pub fn parse(bytes: &'a mut [u8]) -> Result<Self, BatchError> {
        let total = Batch::parse(bytes)?.len();
        Ok(Self { bytes: &mut bytes[..total] })
    }

    pub fn view(&self) -> Batch<'_> {
        Batch { bytes: self.bytes }
    }

    /// Leaves the checksum valid: it does not cover the base offset.
    pub fn set_base_offset(&mut self, offset: Offset) {
        self.bytes[..8].copy_from_slice(&offset.0.to_be_bytes());
    }

    /// Leaves the checksum valid: it does not cover the leader epoch.
    pub fn set_leader_epoch(&mut self, epoch: LeaderEpoch) {
        self.bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
    }

    /// Makes the append time the timestamp of every record, and the checksum anew.
    pub fn set_log_append_time(&mut self, timestamp_ms: i64) {
        let attributes = self.view().attributes() | TIMESTAMP_TYPE_BIT;
        self.bytes[21..23].copy_from_slice(&attributes.to_be_bytes());
        self.set_max_timestamp(timestamp_ms);
    }

    /// Replaces the largest timestamp, and makes the checksum anew.
    pub fn set_max_timestamp(&mut self, timestamp_ms: i64) {
        self.bytes[35..43].copy_from_slice(&timestamp_ms.to_be_bytes());
        let crc = self.view().compute_crc();
        self.bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
}
