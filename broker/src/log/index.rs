//! The two sparse indexes of a segment: offset → position, timestamp → offset.
//!
//! Entries are 8 bytes (relative offset i32, position i32) and 12 bytes (timestamp i64, relative
//! offset i32), big-endian, rising. The offset of an entry is the last one of its batch, the
//! position where that batch starts: so do Kafka and `kafka-dump-log`.
//!
//! While a segment is active its indexes are in memory and follow to their files in blocks; those
//! of older segments are searched in their files.

use std::io;

use super::disk::DiskFile;

/// An entry of either index.
pub(super) trait IndexEntry: Copy {
    const BYTES: usize;
    fn encode(self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Self;
    /// True where `self` may stand after `previous`.
    fn follows(self, previous: Self) -> bool;
}

/// `relative_offset` counts from the segment's base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    pub(super) relative_offset: u32,
    /// Bytes from the start of the segment; below 2 GiB.
    pub(super) position: u32,
}

impl IndexEntry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        Self { relative_offset: be_u32(&bytes[..4]), position: be_u32(&bytes[4..8]) }
    }

    fn follows(self, previous: Self) -> bool {
        self.relative_offset > previous.relative_offset && self.position > previous.position
    }
}

/// At or before `relative_offset`, no record is younger than the timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TimeEntry {
    pub(super) timestamp_ms: i64,
    pub(super) relative_offset: u32,
}

impl IndexEntry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp_ms.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let timestamp = <[u8; 8]>::try_from(&bytes[..8]).expect("eight bytes");
        Self { timestamp_ms: i64::from_be_bytes(timestamp), relative_offset: be_u32(&bytes[8..12]) }
    }

    fn follows(self, previous: Self) -> bool {
        self.timestamp_ms > previous.timestamp_ms && self.relative_offset > previous.relative_offset
    }
}

fn be_u32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("four bytes"))
}

/// The index of an active segment.
#[derive(Debug)]
pub(super) struct ActiveIndex<E> {
    entries: Vec<E>,
    /// How many of them are in the file already.
    written: usize,
    /// True where the file may hold more than what is written here.
    is_file_longer: bool,
}

impl<E: IndexEntry> ActiveIndex<E> {
    /// Of a file that is empty or about to be rewritten.
    pub(super) fn empty() -> Self {
        Self { entries: Vec::new(), written: 0, is_file_longer: true }
    }

    /// The entries of a file up to the first that makes no sense: Kafka's active indexes are
    /// preallocated, so zeros may follow, and a crash may leave anything.
    pub(super) fn load(file: &dyn DiskFile, index_bytes_max: u64) -> io::Result<Self> {
        // One entry beyond the limit may stand there: the last one of a sealed time index.
        let bytes = file.read_at(0, index_bytes_max as usize + E::BYTES)?;
        let mut entries: Vec<E> = Vec::with_capacity(bytes.len() / E::BYTES);
        for bytes in bytes.chunks_exact(E::BYTES) {
            let entry = E::decode(bytes);
            if bytes.iter().all(|&byte| byte == 0) {
                break;
            }
            if entries.last().is_some_and(|&previous| !entry.follows(previous)) {
                break;
            }
            entries.push(entry);
        }
        Ok(Self { written: entries.len(), entries, is_file_longer: true })
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn last(&self) -> Option<E> {
        self.entries.last().copied()
    }

    pub(super) fn unwritten(&self) -> usize {
        self.entries.len() - self.written
    }

    /// Adds an entry; one that does not follow the last is left out.
    pub(super) fn push(&mut self, entry: E) {
        if self.entries.last().is_none_or(|&last| entry.follows(last)) {
            self.entries.push(entry);
        }
    }

    /// The last entry for which `is_before` holds; it holds for a prefix of the entries.
    pub(super) fn floor(&self, is_before: impl Fn(E) -> bool) -> Option<E> {
        let after = self.entries.partition_point(|&entry| is_before(entry));
        Some(self.entries[after.checked_sub(1)?])
    }

    /// Brings the file up to date.
    pub(super) fn write(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        if self.is_file_longer {
            file.set_len((self.written * E::BYTES) as u64)?;
            self.is_file_longer = false;
        }
        if self.unwritten() > 0 {
            let mut bytes = Vec::with_capacity(self.unwritten() * E::BYTES);
            for entry in &self.entries[self.written..] {
                entry.encode(&mut bytes);
            }
            file.write_at((self.written * E::BYTES) as u64, &bytes)?;
            self.written = self.entries.len();
        }
        Ok(())
    }
}

/// The last entry of a sealed segment's index for which `is_before` holds.
///
/// A damaged file gives a wrong entry at worst, which the reader of the log must expect.
pub(super) fn floor_in_file<E: IndexEntry>(
    file: &dyn DiskFile,
    file_bytes: u64,
    is_before: impl Fn(E) -> bool,
) -> io::Result<Option<E>> {
    let (mut low, mut high) = (0, file_bytes / E::BYTES as u64);
    let mut found = None;
    while low < high {
        let middle = low + (high - low) / 2;
        match entry_in_file(file, middle)? {
            Some(entry) if is_before(entry) => {
                found = Some(entry);
                low = middle + 1;
            }
            _ => high = middle,
        }
    }
    Ok(found)
}

/// The entry at `index`; `None` beyond the end of the file.
pub(super) fn entry_in_file<E: IndexEntry>(
    file: &dyn DiskFile,
    index: u64,
) -> io::Result<Option<E>> {
    let bytes = file.read_at(index * E::BYTES as u64, E::BYTES)?;
    Ok((bytes.len() == E::BYTES).then(|| E::decode(&bytes)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::disk::{Disk, SystemDisk};
    use super::*;

    fn entry(relative_offset: u32, position: u32) -> OffsetEntry {
        OffsetEntry { relative_offset, position }
    }

    #[test]
    fn zeros_after_the_entries_are_not_entries() {
        let directory = tempfile::tempdir().unwrap();
        let file = SystemDisk.open(&directory.path().join("i"), true).unwrap();
        let mut index = ActiveIndex::empty();
        index.push(entry(10, 4000));
        index.push(entry(20, 8000));
        index.push(entry(15, 9000));
        index.write(&*file).unwrap();
        file.set_len(800).unwrap();
        let mut loaded = ActiveIndex::<OffsetEntry>::load(&*file, 10 << 20).unwrap();
        assert_eq!(loaded.entries, [entry(10, 4000), entry(20, 8000)]);
        loaded.push(entry(30, 12_000));
        loaded.write(&*file).unwrap();
        assert_eq!(file.read_at(0, 1000).unwrap().len(), 24);
    }

    proptest! {
        #[test]
        fn file_and_memory_find_the_same(
            steps in proptest::collection::vec((1u32..50, 1u32..9000), 0..200), target: u16
        ) {
            let directory = tempfile::tempdir().unwrap();
            let file = SystemDisk.open(&directory.path().join("i"), true).unwrap();
            let mut index = ActiveIndex::empty();
            let mut last = entry(0, 0);
            for (offsets, bytes) in steps {
                last = entry(last.relative_offset + offsets, last.position + bytes);
                index.push(last);
            }
            index.write(&*file).unwrap();
            let is_before = |entry: OffsetEntry| entry.relative_offset <= target.into();
            let linear = index.entries.iter().copied().rfind(|&entry| is_before(entry));
            prop_assert_eq!(index.floor(is_before), linear);
            let bytes = (index.len() * OffsetEntry::BYTES) as u64;
            prop_assert_eq!(floor_in_file(&*file, bytes, is_before).unwrap(), linear);
        }
    }
}
