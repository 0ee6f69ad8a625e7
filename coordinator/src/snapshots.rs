//! Snapshots: the machine at one index, as a file of checksummed chunks.
//!
//! A snapshot is written under a temporary name and takes its own when it is whole and durable, so
//! a file with such a name was once complete. The newest that reads well is used; one that does not
//! is reported, and the one before it with the longer log serves as well.

use std::io;

use tracing::{error, info};

use crate::machine::Machine;
use crate::tree::ImageError;
use crate::wal::disk::Disk;

const MAGIC: &[u8; 8] = b"elkfksn1";
/// In place of a chunk's length, at the end.
const END: u32 = u32::MAX;
const TEMPORARY: &str = "snapshot.tmp";

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("list the directory of snapshots")]
    List(#[source] io::Error),
    #[error("read {name}")]
    Read { name: String, source: io::Error },
    #[error("{name} is damaged at byte {offset}")]
    Damaged { name: String, offset: usize },
    #[error("{name}")]
    Image { name: String, source: ImageError },
}

fn name(index: u64) -> String {
    format!("snapshot-{index:016x}")
}

fn index_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("snapshot-")?;
    (number.len() == 16).then(|| u64::from_str_radix(number, 16).ok())?
}

/// Indices of all snapshots, ascending.
pub(crate) fn indices(disk: &impl Disk) -> Result<Vec<u64>, SnapshotError> {
    let names = disk.list().map_err(SnapshotError::List)?;
    let mut indices: Vec<_> = names.iter().filter_map(|name| index_of(name)).collect();
    indices.sort_unstable();
    Ok(indices)
}

/// The newest whole snapshot's machine, or a new one where there is no snapshot.
///
/// # Errors
/// Where there are snapshots, but none can be read.
pub(crate) fn load_newest(disk: &impl Disk) -> Result<Machine, SnapshotError> {
    let mut failure = None;
    for index in indices(disk)?.into_iter().rev() {
        match load(disk, index) {
            Ok(machine) => return Ok(machine),
            Err(why) => {
                error!(snapshot = name(index), error = %why, "snapshot cannot be used");
                failure.get_or_insert(why);
            }
        }
    }
    failure.map_or_else(|| Ok(Machine::new()), Err)
}

fn load(disk: &impl Disk, index: u64) -> Result<Machine, SnapshotError> {
    let name = name(index);
    let bytes =
        disk.read(&name).map_err(|source| SnapshotError::Read { name: name.clone(), source })?;
    let image =
        unframe(&bytes).map_err(|offset| SnapshotError::Damaged { name: name.clone(), offset })?;
    Machine::from_image(&image).map_err(|source| SnapshotError::Image { name, source })
}

/// What the chunks hold, or where they are damaged.
fn unframe(bytes: &[u8]) -> Result<Vec<u8>, usize> {
    let mut image = Vec::with_capacity(bytes.len());
    let mut at = MAGIC.len();
    if bytes.get(..at) != Some(&MAGIC[..]) {
        return Err(0);
    }
    loop {
        let number = |at: usize| {
            let bytes: &[u8; 4] = bytes.get(at..)?.first_chunk()?;
            Some(u32::from_be_bytes(*bytes))
        };
        let (length, crc) = (number(at).ok_or(at)?, number(at + 4).ok_or(at)?);
        if length == END {
            return if crc == crc32fast::hash(&image) { Ok(image) } else { Err(at) };
        }
        let chunk = bytes.get(at + 8..at + 8 + length as usize).ok_or(at)?;
        if crc32fast::hash(chunk) != crc {
            return Err(at);
        }
        image.extend_from_slice(chunk);
        at += 8 + length as usize;
    }
}

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(crate) struct SnapshotWriter<D> {
    disk: D,
    index: u64,
    offset: u64,
    crc: crc32fast::Hasher,
}

impl<D: Disk> SnapshotWriter<D> {
    pub(crate) fn start(mut disk: D, index: u64) -> io::Result<Self> {
        disk.create(TEMPORARY)?;
        disk.write_at(TEMPORARY, 0, MAGIC)?;
        Ok(Self { disk, index, offset: MAGIC.len() as u64, crc: crc32fast::Hasher::new() })
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.crc.update(piece);
        let mut chunk = Vec::with_capacity(piece.len() + 8);
        chunk.extend((piece.len() as u32).to_be_bytes());
        chunk.extend(crc32fast::hash(piece).to_be_bytes());
        chunk.extend_from_slice(piece);
        self.disk.write_at(TEMPORARY, self.offset, &chunk)?;
        self.offset += chunk.len() as u64;
        Ok(())
    }

    /// Makes it durable under its name; returns its size in bytes.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        let mut end = END.to_be_bytes().to_vec();
        end.extend(self.crc.clone().finalize().to_be_bytes());
        self.disk.write_at(TEMPORARY, self.offset, &end)?;
        self.disk.sync(TEMPORARY)?;
        self.disk.rename(TEMPORARY, &name(self.index))?;
        info!(index = self.index, bytes = self.offset, "snapshot written");
        Ok(self.offset)
    }
}

/// Removes all but the newest `kept`, and what a crash left half written. Returns the oldest index
/// that is kept: the log is needed from there on.
pub(crate) fn purge(disk: &mut impl Disk, kept: usize) -> Result<u64, SnapshotError> {
    let indices = indices(disk)?;
    let (old, kept) = indices.split_at(indices.len().saturating_sub(kept.max(1)));
    for index in old {
        let name = name(*index);
        disk.remove(&name).map_err(|source| SnapshotError::Read { name, source })?;
    }
    Ok(kept.first().copied().unwrap_or(0))
}
