//! The file system as the shipper needs it, behind a trait that the simulation replaces.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags};

use crate::identity::{FileId, Stat};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    Other,
}

pub(crate) trait Disk {
    type File;

    fn list(&self, directory: &Path) -> io::Result<Vec<(OsString, Kind)>>;
    /// Of what `path` leads to; symbolic links are followed.
    fn stat(&self, path: &Path) -> io::Result<Stat>;
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    fn stat_open(&self, file: &Self::File) -> io::Result<Stat>;
    /// Fills `into` as far as the file goes.
    fn read_at(&self, file: &Self::File, at: u64, into: &mut [u8]) -> io::Result<usize>;
    /// The first position from `at` on that may hold data; none before the end of the file.
    fn next_data(&self, file: &Self::File, at: u64) -> io::Result<Option<u64>>;
}

/// The machine's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RealDisk;

impl Disk for RealDisk {
    type File = File;

    fn list(&self, directory: &Path) -> io::Result<Vec<(OsString, Kind)>> {
        std::fs::read_dir(directory)?
            .map(|entry| {
                let entry = entry?;
                let kind = match entry.file_type()? {
                    kind if kind.is_file() => Kind::File,
                    kind if kind.is_dir() => Kind::Directory,
                    kind if kind.is_symlink() => Kind::Symlink,
                    _ => Kind::Other,
                };
                Ok((entry.file_name(), kind))
            })
            .collect()
    }

    fn stat(&self, path: &Path) -> io::Result<Stat> {
        let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(convert(&rustix::fs::statx(CWD, path, AtFlags::empty(), flags)?))
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        // Should the file have become a pipe in the meantime, the open must not wait for its writer.
        let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)
    }

    fn stat_open(&self, file: &File) -> io::Result<Stat> {
        let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
        Ok(convert(&rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, flags)?))
    }

    fn read_at(&self, file: &File, at: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < into.len() {
            match file.read_at(&mut into[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(bytes) => filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the error is read; the error comes again.
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn next_data(&self, file: &File, at: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            Ok(next) => Ok(Some(next)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            // A file system that knows no holes has data everywhere.
            Err(rustix::io::Errno::INVAL) => Ok(Some(at)),
            Err(error) => Err(error.into()),
        }
    }
}

fn convert(stat: &rustix::fs::Statx) -> Stat {
    let nanoseconds = |time: &rustix::fs::StatxTimestamp| {
        (time.tv_sec.max(0) as u64)
            .wrapping_mul(1_000_000_000)
            .wrapping_add(u64::from(time.tv_nsec))
    };
    let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    Stat {
        id: FileId {
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            birth_ns: if has_birth { nanoseconds(&stat.stx_btime) } else { 0 },
        },
        size: stat.stx_size,
        modified_ns: nanoseconds(&stat.stx_mtime),
        links: u64::from(stat.stx_nlink),
        is_file: rustix::fs::FileType::from_raw_mode(stat.stx_mode.into()).is_file(),
    }
}
