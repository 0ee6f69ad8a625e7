//! Snapshots: the machine at one index, as a file of checksummed chunks.
//!
//! A snapshot is written under a temporary name and takes its own when it is whole and durable, so
//! a file with such a name was once complete. The newest that reads well is used; one that does not
//! is reported, and the one before it with the longer log serves as well.
//!
//! A chunk is one piece of the machine's image, as it was made: whole znodes, so that each can be
//! read without the next.

use std::io::{self, Read};

use elkfk_base::errors::in_one_line;
use elkfk_wire::jute::Zxid;
use tracing::{error, info, warn};

use crate::machine::{Machine, MachineReader};
use crate::tree::ImageError;
use crate::wal::disk::Disk;

const MAGIC: &[u8; 8] = b"elkfksn1";
/// In place of a chunk's length, at the end.
const END: u32 = u32::MAX;
/// A sync of more at once would keep the log's waiting for as long as it takes.
const UNSYNCED_BYTES_MAX: u64 = 4 << 20;
const TEMPORARY: &str = "snapshot.tmp";
/// A snapshot on its way from another server.
const RECEIVING: &str = "received.tmp";

/// Why a snapshot cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("list the directory of snapshots")]
    List(#[source] io::Error),
    #[error("read {name}")]
    Read { name: String, source: io::Error },
    #[error("{name} is damaged at byte {offset}")]
    Damaged { name: String, offset: u64 },
    #[error("{name}")]
    Image { name: String, source: ImageError },
}

pub(crate) fn name(index: u64) -> String {
    format!("snapshot-{index:016x}")
}

fn index_of(name: &str) -> Option<u64> {
    let number = name.strip_prefix("snapshot-")?;
    (number.len() == 16).then(|| u64::from_str_radix(number, 16).ok())?
}

/// Of a snapshot that came from another server whole and durable, before it counts.
fn received_name(index: u64) -> String {
    format!("received-{index:016x}")
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
                error!(
                    snapshot = name(index),
                    error = in_one_line(&why),
                    "snapshot cannot be used"
                );
                failure.get_or_insert(why);
            }
        }
    }
    failure.map_or_else(|| Ok(Machine::new()), Err)
}

fn load(disk: &impl Disk, index: u64) -> Result<Machine, SnapshotError> {
    let name = name(index);
    read(disk, &name, &name)
}

/// Reads a snapshot chunk by chunk: what it takes in memory is the machine. Errors name it `name`.
fn read(disk: &impl Disk, file: &str, name: &str) -> Result<Machine, SnapshotError> {
    let failed = |failure, at| match failure {
        Failure::Read(source) => SnapshotError::Read { name: name.to_owned(), source },
        Failure::Damaged => SnapshotError::Damaged { name: name.to_owned(), offset: at },
        Failure::Image(source) => SnapshotError::Image { name: name.to_owned(), source },
    };
    let mut file = match disk.reader(file) {
        Ok(file) => Chunks { file, at: 0 },
        Err(source) => return Err(failed(Failure::Read(source), 0)),
    };
    let mut image = MachineReader::new();
    file.each(|chunk| image.piece(chunk)).map_err(|failure| failed(failure, file.at))?;
    image.finish().map_err(|source| failed(Failure::Image(source), file.at))
}

enum Failure {
    Read(io::Error),
    Damaged,
    Image(ImageError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            // It is cut short.
            io::ErrorKind::UnexpectedEof => Self::Damaged,
            _ => Self::Read(error),
        }
    }
}

/// A file of chunks.
struct Chunks {
    file: Box<dyn Read>,
    /// Where the chunk begins that is being read.
    at: u64,
}

impl Chunks {
    /// Hands out all chunks, once they are known to be whole.
    fn each(
        &mut self,
        mut take: impl FnMut(&[u8]) -> Result<(), ImageError>,
    ) -> Result<(), Failure> {
        let mut magic = [0; MAGIC.len()];
        self.file.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(Failure::Damaged);
        }
        self.at = MAGIC.len() as u64;
        let mut whole = crc32fast::Hasher::new();
        let mut chunk = Vec::new();
        loop {
            let (length, crc) = (self.number()?, self.number()?);
            if length == END {
                return if crc == whole.finalize() { Ok(()) } else { Err(Failure::Damaged) };
            }
            chunk.clear();
            // It grows by what is there, whatever a damaged length says.
            let read = (&mut self.file).take(length.into()).read_to_end(&mut chunk)?;
            if read < length as usize || crc32fast::hash(&chunk) != crc {
                return Err(Failure::Damaged);
            }
            whole.update(&chunk);
            take(&chunk).map_err(Failure::Image)?;
            self.at += 8 + u64::from(length);
        }
    }

    fn number(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.file.read_exact(&mut bytes)?;
        Ok(u32::from_be_bytes(bytes))
    }
}

/// A file that grows at its end, and is synced as it does.
#[derive(Debug)]
struct Growing<D> {
    disk: D,
    name: &'static str,
    bytes: u64,
    synced: u64,
}

impl<D: Disk> Growing<D> {
    fn start(mut disk: D, name: &'static str) -> io::Result<Self> {
        disk.create(name)?;
        Ok(Self { disk, name, bytes: 0, synced: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.disk.write_at(self.name, self.bytes, bytes)?;
        self.bytes += bytes.len() as u64;
        if self.bytes - self.synced >= UNSYNCED_BYTES_MAX {
            self.disk.sync(self.name)?;
            self.synced = self.bytes;
        }
        Ok(())
    }

    /// Makes it durable under another name.
    fn finish(&mut self, name: &str) -> io::Result<()> {
        self.disk.sync(self.name)?;
        self.disk.rename(self.name, name)
    }
}

/// A snapshot on its way to the disk.
#[derive(Debug)]
pub(crate) struct SnapshotWriter<D> {
    file: Growing<D>,
    index: u64,
    crc: crc32fast::Hasher,
}

impl<D: Disk> SnapshotWriter<D> {
    pub(crate) fn start(disk: D, index: u64) -> io::Result<Self> {
        let mut file = Growing::start(disk, TEMPORARY)?;
        file.append(MAGIC)?;
        Ok(Self { file, index, crc: crc32fast::Hasher::new() })
    }

    #[cfg(test)]
    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.crc.update(piece);
        let mut chunk = Vec::with_capacity(piece.len() + 8);
        chunk.extend((piece.len() as u32).to_be_bytes());
        chunk.extend(crc32fast::hash(piece).to_be_bytes());
        chunk.extend_from_slice(piece);
        self.file.append(&chunk)
    }

    /// Makes it durable under its name; returns its size in bytes.
    pub(crate) fn finish(mut self) -> io::Result<u64> {
        let mut end = END.to_be_bytes().to_vec();
        end.extend(self.crc.clone().finalize().to_be_bytes());
        let bytes = self.file.bytes;
        self.file.append(&end)?;
        self.file.finish(&name(self.index))?;
        info!(index = self.index, bytes, "snapshot written");
        Ok(bytes)
    }
}

/// Of the newest snapshot in a directory: the last zxid in it, and when it was written, in seconds
/// since 1970.
pub(crate) fn newest(path: &std::path::Path) -> Option<(Zxid, i64)> {
    let names = std::fs::read_dir(path)
        .ok()?
        .flatten()
        .filter_map(|file| file.file_name().into_string().ok());
    let index = names.filter_map(|name| index_of(&name)).max()?;
    let mut file = std::fs::File::open(path.join(name(index))).ok()?;
    let written = file.metadata().ok()?.modified().ok()?;
    // The first chunk begins with term, index and zxid.
    let mut start = [0; 8 + 8 + 24];
    file.read_exact(&mut start).ok()?;
    let zxid = Zxid(i64::from_be_bytes(*start.last_chunk()?));
    let written = written.duration_since(std::time::SystemTime::UNIX_EPOCH).ok()?;
    Some((zxid, written.as_secs() as i64))
}

/// Removes what a crash left half written: it holds room that the log may need.
pub(crate) fn remove_unfinished(disk: &mut impl Disk) {
    remove_half(disk, RECEIVING);
    remove_given_up(disk);
}

/// Removes what is half written of an own snapshot that was given up.
pub(crate) fn remove_given_up(disk: &mut impl Disk) {
    remove_half(disk, TEMPORARY);
}

fn remove_half(disk: &mut impl Disk, name: &str) {
    match disk.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!(name, %error, "half a snapshot cannot be removed");
        }
        _ => {}
    }
}

/// A snapshot that comes from another server, as the bytes of its file. What was received goes
/// with it, unless it was finished.
#[derive(Debug)]
pub(crate) struct SnapshotReceiver<D: Disk> {
    file: Growing<D>,
    index: u64,
}

impl<D: Disk> SnapshotReceiver<D> {
    pub(crate) fn start(disk: D, index: u64) -> io::Result<Self> {
        Ok(Self { file: Growing::start(disk, RECEIVING)?, index })
    }

    pub(crate) fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        self.file.append(piece)
    }

    /// Checks it and makes it durable; it counts once it is taken over ([`take_over`]).
    pub(crate) fn finish(mut self) -> Result<Machine, SnapshotError> {
        let name = received_name(self.index);
        let machine = read(&self.file.disk, RECEIVING, &name)?;
        if machine.index() != self.index {
            return Err(SnapshotError::Damaged { name, offset: 0 });
        }
        self.file.finish(&name).map_err(|source| SnapshotError::Read { name, source })?;
        Ok(machine)
    }
}

impl<D: Disk> Drop for SnapshotReceiver<D> {
    fn drop(&mut self) {
        // On a full disk the log waits for this room.
        remove_half(&mut self.file.disk, RECEIVING);
    }
}

/// A snapshot that was received counts from now on; the log goes on after it.
pub(crate) fn take_over(disk: &mut impl Disk, index: u64) -> io::Result<()> {
    disk.rename(&received_name(index), &name(index))
}

/// After a crash: a received snapshot counts where the log goes on after it, and else never will.
pub(crate) fn adopt_received(
    disk: &mut impl Disk,
    log_begins_at: impl Fn(u64) -> bool,
) -> Result<(), SnapshotError> {
    for file in disk.list().map_err(SnapshotError::List)? {
        let Some(number) = file.strip_prefix("received-") else { continue };
        let index = u64::from_str_radix(number, 16).ok();
        let done = match index.filter(|index| log_begins_at(index + 1)) {
            Some(index) => take_over(disk, index),
            None => disk.remove(&file),
        };
        done.map_err(|source| SnapshotError::Read { name: file, source })?;
    }
    Ok(())
}

/// The file of a snapshot, as it is sent to another server.
#[cfg(test)]
pub(crate) fn read_file(disk: &impl Disk, index: u64) -> io::Result<Vec<u8>> {
    disk.read(&name(index))
}

/// Removes all but the newest `kept`; what cannot be removed stays, with a warning. Returns the
/// oldest index that is kept: the log is needed from there on.
pub(crate) fn purge(disk: &mut impl Disk, kept: usize) -> Result<u64, SnapshotError> {
    let indices = indices(disk)?;
    let (old, kept) = indices.split_at(indices.len().saturating_sub(kept.max(1)));
    for index in old {
        let name = name(*index);
        if let Err(error) = disk.remove(&name) {
            warn!(snapshot = name, %error, "old snapshot cannot be removed");
        }
    }
    Ok(kept.first().copied().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{Action, Command, Origin};
    use crate::wal::simulated::SimulatedDisk;

    /// A machine with this many entries applied.
    fn machine(entries: u64) -> Machine {
        let mut machine = Machine::new();
        machine.apply(1, 1, &[]);
        for index in 2..=entries {
            let (origin, session) = (Origin::default(), Default::default());
            let action = Action::Secret([index as u8; 32]);
            let command = Command { time_ms: 1, origin, session, action };
            machine.apply(1, index, &command.encode());
        }
        machine
    }

    fn write(disk: &SimulatedDisk, entries: u64) -> io::Result<u64> {
        let mut machine = machine(entries);
        let mut writer = SnapshotWriter::start(disk.clone(), machine.index())?;
        writer.write(&machine.start_image())?;
        loop {
            let (piece, is_last) =
                machine.tree.next_image_piece(100).expect("an image is under way");
            writer.write(&piece)?;
            if is_last {
                return writer.finish();
            }
        }
    }

    fn disk_with(snapshots: &[u64]) -> SimulatedDisk {
        let disk = SimulatedDisk::new(1);
        for entries in snapshots {
            write(&disk, *entries).unwrap();
        }
        disk
    }

    #[test]
    fn the_newest_whole_snapshot_is_used() {
        let disk = disk_with(&[3, 20, 7]);
        assert_eq!(load_newest(&disk).unwrap().index(), 20);
        disk.rot(&name(20), 40);
        assert_eq!(load_newest(&disk).unwrap().index(), 7);
        disk.rot(&name(7), 40);
        disk.rot(&name(3), 40);
        // The newest is what an operator has to mend.
        let error = load_newest(&disk).unwrap_err();
        assert!(error.to_string().starts_with(&name(20)), "{error}");
        assert_eq!(load_newest(&SimulatedDisk::new(1)).unwrap().index(), 0);
    }

    #[test]
    fn a_flipped_bit_anywhere_is_noticed() {
        let disk = disk_with(&[5]);
        for offset in 0..disk.read(&name(5)).unwrap().len() {
            disk.rot(&name(5), offset);
            assert!(load_newest(&disk).is_err(), "byte {offset}");
            disk.rot(&name(5), offset);
        }
        load_newest(&disk).unwrap();
    }

    #[test]
    fn a_snapshot_cut_short_anywhere_is_noticed() {
        let whole = disk_with(&[5]).read(&name(5)).unwrap();
        for length in 0..whole.len() {
            let mut disk = SimulatedDisk::new(1);
            disk.create(&name(5)).unwrap();
            disk.write_at(&name(5), 0, &whole[..length]).unwrap();
            assert!(load_newest(&disk).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn the_newest_are_kept_and_the_log_from_the_oldest_of_them() {
        let mut disk = disk_with(&[2, 4, 6, 8]);
        assert_eq!(purge(&mut disk, 3).unwrap(), 4);
        assert_eq!(indices(&disk).unwrap(), [4, 6, 8]);
        assert_eq!(purge(&mut disk, 3).unwrap(), 4);
        // None would leave nothing to start from.
        assert_eq!(purge(&mut disk, 0).unwrap(), 8);
        assert_eq!(purge(&mut SimulatedDisk::new(1), 3).unwrap(), 0);
    }

    #[test]
    fn half_a_snapshot_counts_for_nothing_and_can_be_removed() {
        let mut disk = disk_with(&[3]);
        disk.set_capacity(disk.read(&name(3)).unwrap().len() as u64 + 30);
        assert_eq!(write(&disk, 9).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(load_newest(&disk).unwrap().index(), 3);
        assert_eq!(disk.list().unwrap(), [name(3), TEMPORARY.to_owned()]);
        remove_unfinished(&mut disk);
        remove_unfinished(&mut disk);
        assert_eq!(disk.list().unwrap(), [name(3)]);
    }

    #[test]
    fn what_is_received_stays_once_it_is_whole_and_not_before() {
        let whole = disk_with(&[5]).read(&name(5)).unwrap();
        let receive = |bytes: &[u8], index| {
            let disk = SimulatedDisk::new(1);
            let mut receiver = SnapshotReceiver::start(disk.clone(), index).unwrap();
            bytes.chunks(7).for_each(|piece| receiver.write(piece).unwrap());
            let result = receiver.finish().map(|machine| machine.index());
            (result.map_err(|error| error.to_string()), disk)
        };
        let (result, mut disk) = receive(&whole, 5);
        assert_eq!(result, Ok(5));
        disk.lose_power();
        take_over(&mut disk, 5).unwrap();
        assert_eq!(load_newest(&disk).unwrap().index(), 5);
        for (bytes, index) in [(&whole[..whole.len() - 1], 5), (&whole, 6)] {
            let (result, disk) = receive(bytes, index);
            assert!(result.as_ref().is_err_and(|why| why.contains("damaged")), "{result:?}");
            assert!(disk.list().unwrap().is_empty());
        }
    }
}
