//! What a partition remembers of its idempotent producers: their epochs and last sequences.
//!
//! A batch that is sent again is recognised among the last five of its producer and answered with
//! the offset it already has; a gap is refused. The state is a function of the log: snapshots,
//! taken where segments start, only shorten the replay. Pure state, and its codec.

use std::collections::{BTreeMap, VecDeque};

use elkfk_wire::kafka::records::{Batch, NO_PRODUCER_ID, NO_SEQUENCE, Offset};

/// As many batches as a producer may have in flight (`max.in.flight.requests.per.connection`).
const BATCHES_KEPT: usize = 5;

/// Why a producer's batch is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProducerError {
    /// A newer incarnation of the producer has written already.
    #[error("producer {producer_id} has epoch {current}, its batch is of epoch {given}")]
    Fenced { producer_id: i64, given: i16, current: i16 },
    /// A batch before this one is missing.
    #[error("producer {producer_id} sent sequence {given} where {expected} follows")]
    OutOfOrder { producer_id: i64, given: i32, expected: i32 },
}

/// One appended batch, as much of it as dedupe needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchEntry {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub last_offset: Offset,
    pub offset_delta: i32,
    pub timestamp_ms: i64,
}

impl BatchEntry {
    pub(super) fn first_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }
}

/// What is known of one producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ProducerState {
    epoch: i16,
    /// Oldest first; empty where only a marker was seen, or all has expired.
    batches: VecDeque<BatchEntry>,
    last_timestamp_ms: i64,
    coordinator_epoch: i32,
    /// The first offset of the transaction that is open.
    transaction_start: Option<Offset>,
}

impl ProducerState {
    fn new(epoch: i16) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            last_timestamp_ms: -1,
            coordinator_epoch: -1,
            transaction_start: None,
        }
    }

    fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(NO_SEQUENCE, |batch| batch.last_sequence)
    }

    fn push(&mut self, batch: BatchEntry) {
        if self.batches.len() == BATCHES_KEPT {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }
}

/// The producers of one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Producers {
    by_id: BTreeMap<i64, ProducerState>,
}

impl Producers {
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// The batch with these sequences, if it is one of the last that its producer appended.
    pub(super) fn duplicate_of(&self, batch: &Batch<'_>) -> Option<BatchEntry> {
        let state = self.by_id.get(&batch.producer_id())?;
        if state.epoch != batch.producer_epoch() {
            return None;
        }
        let (first, last) = (batch.base_sequence(), batch.last_sequence());
        let is_same =
            |entry: &&BatchEntry| entry.first_sequence == first && entry.last_sequence == last;
        state.batches.iter().find(is_same).copied()
    }

    /// True if `batch` is the last of a producer.
    pub(super) fn is_remembered(&self, batch: &Batch<'_>) -> bool {
        let state = self.by_id.get(&batch.producer_id());
        let last = state.and_then(|state| state.batches.back());
        last.is_some_and(|last| last.last_offset == batch.last_offset())
    }

    /// Checks that `batch`, come from a client, may follow what its producer wrote before.
    pub fn check(&self, batch: &Batch<'_>) -> Result<(), ProducerError> {
        let producer_id = batch.producer_id();
        let Some(state) = self.by_id.get(&producer_id) else {
            // Its records may all have expired: any sequence may come next (KAFKA-8483).
            return Ok(());
        };
        let (given, current) = (batch.producer_epoch(), state.epoch);
        if given < current {
            return Err(ProducerError::Fenced { producer_id, given, current });
        }
        if batch.is_control() {
            return Ok(());
        }
        let expected = match (given > current, state.last_sequence()) {
            (true, _) => 0,
            (false, NO_SEQUENCE) => return Ok(()),
            (false, last) => last.wrapping_add(1) & i32::MAX,
        };
        match batch.base_sequence() {
            given if given == expected => Ok(()),
            given => Err(ProducerError::OutOfOrder { producer_id, given, expected }),
        }
    }

    /// Notes a batch that is in the log, whose offsets are assigned. Others are passed over.
    pub fn appended(&mut self, batch: &Batch<'_>) {
        let producer_id = batch.producer_id();
        if producer_id == NO_PRODUCER_ID {
            return;
        }
        let epoch = batch.producer_epoch();
        let state = self.by_id.entry(producer_id).or_insert_with(|| ProducerState::new(epoch));
        if state.epoch != epoch {
            state.epoch = epoch;
            state.batches.clear();
        }
        state.last_timestamp_ms = batch.max_timestamp_ms();
        if batch.is_control() {
            state.transaction_start = None;
            return;
        }
        if batch.base_sequence() != NO_SEQUENCE {
            state.push(BatchEntry {
                first_sequence: batch.base_sequence(),
                last_sequence: batch.last_sequence(),
                last_offset: batch.last_offset(),
                offset_delta: batch.last_offset_delta(),
                timestamp_ms: batch.max_timestamp_ms(),
            });
        }
        if batch.is_transactional() && state.transaction_start.is_none() {
            state.transaction_start = Some(batch.base_offset());
        }
    }

    /// The first offset of the oldest open transaction: read_committed ends there.
    pub fn first_unstable(&self) -> Option<Offset> {
        self.by_id.values().filter_map(|state| state.transaction_start).min()
    }

    /// Forgets producers that wrote nothing since `oldest_ms` and have no open transaction.
    pub fn expire(&mut self, oldest_ms: i64) {
        self.by_id.retain(|_, state| {
            state.transaction_start.is_some() || state.last_timestamp_ms >= oldest_ms
        });
    }

    pub fn clear(&mut self) {
        self.by_id.clear();
    }

    /// The bytes of a `.snapshot` file.
    ///
    /// Version i16 = 1, CRC-32C u32 of the rest, count i32; of each producer its id i64, epoch
    /// i16, last sequence i32, last offset i64, offset delta i32, timestamp i64, coordinator epoch
    /// i32 and transaction start i64. So only the last batch of a producer survives a restart
    /// without replay, as with Kafka.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(10 + self.by_id.len() * SNAPSHOT_ENTRY_BYTES);
        out.extend_from_slice(&1i16.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(self.by_id.len() as i32).to_be_bytes());
        for (producer_id, state) in &self.by_id {
            let last = state.batches.back();
            out.extend_from_slice(&producer_id.to_be_bytes());
            out.extend_from_slice(&state.epoch.to_be_bytes());
            out.extend_from_slice(&state.last_sequence().to_be_bytes());
            out.extend_from_slice(&last.map_or(-1, |batch| batch.last_offset.0).to_be_bytes());
            out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            out.extend_from_slice(&state.last_timestamp_ms.to_be_bytes());
            out.extend_from_slice(&state.coordinator_epoch.to_be_bytes());
            out.extend_from_slice(&state.transaction_start.map_or(-1, |at| at.0).to_be_bytes());
        }
        let crc = crc32c::crc32c(&out[6..]);
        out[2..6].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// Reads what [`Producers::encode`] or Kafka wrote.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let header = bytes.get(..10).ok_or(SnapshotError::Length { bytes: bytes.len() })?;
        let version = i16::from_be_bytes([header[0], header[1]]);
        if version != 1 {
            return Err(SnapshotError::Version { version });
        }
        if crc32c::crc32c(&bytes[6..]) != u32::from_be_bytes(array(&header[2..])) {
            return Err(SnapshotError::Crc);
        }
        let entries = &bytes[10..];
        if entries.len() as i64
            != i64::from(i32::from_be_bytes(array(&header[6..]))) * SNAPSHOT_ENTRY_BYTES as i64
        {
            return Err(SnapshotError::Length { bytes: bytes.len() });
        }
        let mut by_id = BTreeMap::new();
        for entry in entries.chunks_exact(SNAPSHOT_ENTRY_BYTES) {
            let mut state = ProducerState::new(i16::from_be_bytes(array(&entry[8..])));
            let last_sequence = i32::from_be_bytes(array(&entry[10..]));
            let last_offset = Offset(i64::from_be_bytes(array(&entry[14..])));
            let offset_delta = i32::from_be_bytes(array(&entry[22..]));
            state.last_timestamp_ms = i64::from_be_bytes(array(&entry[26..]));
            state.coordinator_epoch = i32::from_be_bytes(array(&entry[34..]));
            let transaction_start = i64::from_be_bytes(array(&entry[38..]));
            state.transaction_start = (transaction_start >= 0).then_some(Offset(transaction_start));
            if last_sequence != NO_SEQUENCE && offset_delta >= 0 {
                state.push(BatchEntry {
                    first_sequence: last_sequence.wrapping_sub(offset_delta) & i32::MAX,
                    last_sequence,
                    last_offset,
                    offset_delta,
                    timestamp_ms: state.last_timestamp_ms,
                });
            }
            by_id.insert(i64::from_be_bytes(array(entry)), state);
        }
        Ok(Self { by_id })
    }
}

const SNAPSHOT_ENTRY_BYTES: usize = 46;

/// The first `N` of bytes whose length was checked.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    *bytes.first_chunk().expect("the length was checked")
}

/// Why a producer snapshot cannot be read; an older one, or the log, must do instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("snapshot version {version} is not 1")]
    Version { version: i16 },
    #[error("snapshot checksum does not match")]
    Crc,
    #[error("snapshot of {bytes} bytes does not hold the producers it announces")]
    Length { bytes: usize },
}

#[cfg(test)]
mod tests {
    use elkfk_wire::kafka::records::{BatchBuilder, Compression};

    use super::*;

    /// A batch of `count` records at `offset`.
    fn batch(epoch: i16, sequence: i32, count: usize, offset: i64) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Compression::None)
            .producer(9, epoch, sequence)
            .base_offset(Offset(offset));
        for _ in 0..count {
            builder.push(1000 + offset, None, Some(b"v"), &[]);
        }
        builder.build().unwrap()
    }

    fn append(producers: &mut Producers, bytes: &[u8]) -> Result<(), ProducerError> {
        let batch = Batch::parse(bytes).unwrap();
        producers.check(&batch)?;
        producers.appended(&batch);
        Ok(())
    }

    #[test]
    fn sequences_follow_one_another() {
        let mut producers = Producers::default();
        append(&mut producers, &batch(0, 0, 3, 0)).unwrap();
        append(&mut producers, &batch(0, 3, 2, 3)).unwrap();
        let gap = append(&mut producers, &batch(0, 6, 1, 5));
        assert_eq!(gap, Err(ProducerError::OutOfOrder { producer_id: 9, given: 6, expected: 5 }));
        // A new epoch starts anew, and fences the old one.
        let late = append(&mut producers, &batch(1, 5, 1, 5));
        assert_eq!(late, Err(ProducerError::OutOfOrder { producer_id: 9, given: 5, expected: 0 }));
        append(&mut producers, &batch(1, 0, 1, 5)).unwrap();
        let old = append(&mut producers, &batch(0, 5, 1, 6));
        assert_eq!(old, Err(ProducerError::Fenced { producer_id: 9, given: 0, current: 1 }));
    }

    #[test]
    fn the_last_five_batches_are_known_again() {
        let mut producers = Producers::default();
        let batches: Vec<_> = (0..7).map(|n| batch(0, n * 2, 2, i64::from(n) * 2)).collect();
        for bytes in &batches {
            append(&mut producers, bytes).unwrap();
        }
        for (index, bytes) in batches.iter().enumerate() {
            let found = producers.duplicate_of(&Batch::parse(bytes).unwrap());
            let expected = (index >= 2).then_some(Offset(index as i64 * 2));
            assert_eq!(found.map(|entry| entry.first_offset()), expected, "{index}");
        }
    }

    #[test]
    fn sequence_wraps_at_two_to_the_thirty_one() {
        let mut producers = Producers::default();
        append(&mut producers, &batch(0, i32::MAX - 1, 2, 0)).unwrap();
        append(&mut producers, &batch(0, 0, 1, 2)).unwrap();
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_found() {
        let mut producers = Producers::default();
        append(&mut producers, &batch(3, 7, 3, 40)).unwrap();
        let bytes = producers.encode();
        let read = Producers::decode(&bytes).unwrap();
        assert_eq!(read, producers);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Producers::decode(&damaged).is_err(), "byte {at}");
            assert!(Producers::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn silent_producers_expire() {
        let mut producers = Producers::default();
        append(&mut producers, &batch(0, 0, 1, 0)).unwrap();
        producers.expire(1000);
        assert_eq!(producers.len(), 1);
        producers.expire(1001);
        assert!(producers.is_empty());
    }
}
