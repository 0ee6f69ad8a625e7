//! The file operations a log needs, so that a simulation can stand in for a failing disk.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Kafka's name for the file whose lock says that a broker uses the directory.
const LOCK_FILE: &str = ".lock";

/// A disk, real or simulated. Calls block.
pub trait Disk: Debug + Send + Sync {
    /// Opens a file for reading and writing; creates it where `create` says so.
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a directory and its parents; one that exists is fine.
    fn create_directory(&self, path: &Path) -> io::Result<()>;
    /// What lies in a directory, in no order.
    fn list(&self, path: &Path) -> io::Result<Vec<Entry>>;
    /// The whole of a small file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Replaces a small file: a crash leaves the old one or the new one. Durable when it returns.
    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()>;
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all that lies in it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes creations, renames and removals within a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
    /// Makes a directory this process's own until what is returned is dropped.
    ///
    /// # Errors
    /// `WouldBlock` where another process, or another part of this one, has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn Debug + Send + Sync>>;
    /// Bytes that this user may still write where `path` lies.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
}

/// An open file.
pub trait DiskFile: Debug + Send + Sync {
    /// Up to `length` bytes from `position`; fewer only where the file ends.
    fn read_at(&self, position: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes all of `bytes`. After an error any part of them may have been written.
    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// The file's length in bytes.
    fn size(&self) -> io::Result<u64>;
    fn set_len(&self, length: u64) -> io::Result<()>;
    /// Makes what was written durable, with the length that is needed to read it again.
    fn sync_data(&self) -> io::Result<()>;
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub is_directory: bool,
    pub bytes: u64,
    pub modified_ms: i64,
}

/// The disks of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

impl Disk for SystemDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let file =
            OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        Ok(Arc::new(SystemFile(file)))
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // Kafka's names are ASCII: others are not ours.
            let Ok(name) = entry.file_name().into_string() else { continue };
            let metadata = match fs::metadata(entry.path()) {
                Ok(metadata) => metadata,
                // Removed since it was listed, or a dangling link.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            entries.push(Entry {
                name,
                is_directory: metadata.is_dir(),
                bytes: metadata.len(),
                modified_ms: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
            });
        }
        Ok(entries)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        // Kafka's checkpoints go through NAME.tmp too: elkfk_base's `with_extension` would make
        // one temporary file of `a.log` and `a.index`.
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let file = File::create(&temporary)?;
        file.write_all_at(contents, 0)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        elkfk_base::durable::sync_parent(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        elkfk_base::durable::sync_directory(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        use rustix::fs::{FlockOperation, fcntl_lock, flock};
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK_FILE))?;
        // Java locks by fcntl, which does not keep two brokers of one process apart: flock does.
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Box::new(file)),
            Err(rustix::io::Errno::ACCESS) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) => Err(error.into()),
        }
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let found = rustix::fs::statvfs(path)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
}

#[derive(Debug)]
struct SystemFile(File);

impl DiskFile for SystemFile {
    fn read_at(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            let at = position + bytes.len() as u64;
            // Into capacity not yet written: zeroing a megabyte first costs as much as reading it.
            let spare = rustix::buffer::spare_capacity(&mut bytes);
            match rustix::io::pread(&self.0, spare, at) {
                Ok(0) => break,
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, position)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.set_len(length)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end_of_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = SystemDisk.open(&directory.path().join("a.log"), true).unwrap();
        file.write_at(2, b"abc").unwrap();
        assert_eq!(file.read_at(0, 100).unwrap(), b"\0\0abc");
        assert_eq!(file.read_at(3, 1).unwrap(), b"b");
        assert_eq!(file.read_at(9, 5).unwrap(), b"");
    }

    #[test]
    fn replacing_leaves_neighbours_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        SystemDisk.replace(&path("a.log"), b"1").unwrap();
        SystemDisk.replace(&path("a.index"), b"22").unwrap();
        let mut names = SystemDisk.list(directory.path()).unwrap();
        names.sort_by(|a, b| a.name.cmp(&b.name));
        let found: Vec<_> = names.iter().map(|entry| (entry.name.as_str(), entry.bytes)).collect();
        assert_eq!(found, [("a.index", 2), ("a.log", 1)]);
    }
}
