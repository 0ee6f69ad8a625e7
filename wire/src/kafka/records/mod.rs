//! Record batches, format version 2 (magic 2): what producers send, logs keep and consumers fetch.
//!
//! ```text
//!  0 base offset i64      12 partition leader epoch i32   23 last offset delta i32   51 producer epoch i16
//!  8 batch length i32     16 magic i8                     27 base timestamp i64      53 base sequence i32
//!    (of what follows)    17 crc32c u32 (of 21..)         35 max timestamp i64       57 record count i32
//!                         21 attributes i16               43 producer id i64         61 records
//! ```
//!
//! Base offset and leader epoch lie before the checksummed part, so a broker assigns both in place.
//! Batches of magic 0 and 1 (before Kafka 0.11) are recognised and refused.

mod batch;
mod builder;
mod compression;
mod record;
mod varint;

#[cfg(test)]
mod tests;

pub use batch::{
    Batch, BatchError, BatchMut, Batches, HEADER_BYTES, Head, NO_PRODUCER_EPOCH, NO_PRODUCER_ID,
    NO_SEQUENCE, NO_TIMESTAMP, TimestampType, batches, peek, whole_batches_bytes,
};
pub use builder::{BatchBuilder, BuildError, ControlType};
pub use compression::{Compression, CompressionError};
pub use record::{Header, Headers, Record, RecordError, Records};

/// The place of a record in its partition; the first is 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    pub const ZERO: Self = Self(0);

    /// The offset `records` further on; saturates, so that hostile offsets cannot wrap.
    #[must_use]
    pub const fn plus(self, records: i64) -> Self {
        Self(self.0.saturating_add(records))
    }

    /// The next record's offset.
    #[must_use]
    pub const fn next(self) -> Self {
        self.plus(1)
    }
}

impl std::fmt::Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the leaders of a partition; a batch carries the epoch of the leader that appended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// Unknown, or not asked for.
    pub const NONE: Self = Self(-1);
}

impl std::fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
