//! The few things the log and the snapshots ask of a file system, so that a simulated one can
//! stand in for it and crash.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use elkfk_base::durable::sync_directory;
use rustix::fs::{FallocateFlags, fallocate};

/// A flat directory of files.
pub(crate) trait Disk: Send + 'static {
    /// Names of all files, sorted.
    fn list(&self) -> io::Result<Vec<String>>;
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Reads it from its beginning, however much is written meanwhile.
    fn reader(&self, name: &str) -> io::Result<Box<dyn io::Read>>;
    /// Makes an empty file and its name durable.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Makes sure that the file can be written up to `end` bytes; what is new reads as zeros.
    fn reserve(&mut self, name: &str, end: u64) -> io::Result<()>;
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// After it returned, what was written survives a power cut.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Durable when it returns.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A directory of the operating system.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    open: HashMap<String, File>,
}

impl Directory {
    /// `path` must exist.
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into(), open: HashMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&File> {
        if !self.open.contains_key(name) {
            let file = OpenOptions::new().read(true).write(true).open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(&self.open[name])
    }
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is not one of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn reader(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(io::BufReader::new(File::open(self.path.join(name))?)))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        file.sync_all()?;
        sync_directory(&self.path)?;
        self.open.insert(name.to_owned(), file);
        Ok(())
    }

    fn reserve(&mut self, name: &str, end: u64) -> io::Result<()> {
        let file = self.file(name)?;
        let length = file.metadata()?.len();
        if length >= end {
            return Ok(());
        }
        match fallocate(file, FallocateFlags::empty(), length, end - length) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => {
                // Zeros take the room just as well, only slower.
                let zeros = vec![0; 1 << 16];
                let mut at = length;
                while at < end {
                    let count = (end - at).min(zeros.len() as u64) as usize;
                    file.write_all_at(&zeros[..count], at)?;
                    at += count as u64;
                }
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.open.remove(from);
        self.open.remove(to);
        fs::rename(self.path.join(from), self.path.join(to))?;
        sync_directory(&self.path)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        fs::remove_file(self.path.join(name))
    }
}
