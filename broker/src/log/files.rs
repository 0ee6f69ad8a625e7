//! Open files of segments, as many as fit the cache and no more.
//!
//! A broker may hold tens of thousands of segments: their files open when they are read and close
//! when others need the room. A reader keeps its file open through its own `Arc`.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use elkfk_wire::kafka::records::Offset;

use super::disk::{Disk, DiskFile};

/// Files kept open besides those of active segments, where nobody says how many.
pub const OPEN_FILES_DEFAULT: usize = 1000;

/// A disk and the files open on it.
#[derive(Debug)]
pub struct Files {
    pub(super) disk: Arc<dyn Disk>,
    open_limit: usize,
    /// Candidates for closing, longest open first; a file used meanwhile gets a second round.
    open: Mutex<VecDeque<Weak<LazyFile>>>,
}

impl Files {
    pub fn new(disk: Arc<dyn Disk>, open_limit: usize) -> Arc<Self> {
        Arc::new(Self { disk, open_limit: open_limit.max(1), open: Mutex::default() })
    }

    fn admit(&self, file: &Arc<LazyFile>) {
        let mut open = lock(&self.open);
        open.push_back(Arc::downgrade(file));
        let mut rounds = open.len() * 2;
        while open.len() > self.open_limit && rounds > 0 {
            rounds -= 1;
            let Some(oldest) = open.pop_front() else { break };
            let Some(candidate) = oldest.upgrade() else { continue };
            let is_new = Arc::ptr_eq(&candidate, file);
            if is_new || candidate.is_used.swap(false, Ordering::Relaxed) {
                open.push_back(oldest);
            } else {
                *lock(&candidate.handle) = None;
            }
        }
    }

    /// How many files the cache holds open.
    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        lock(&self.open)
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|file| lock(&file.handle).is_some())
            .count()
    }
}

/// State behind these locks is whole between any two statements, so a panic elsewhere spoils none.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file that opens at first use.
#[derive(Debug)]
pub(super) struct LazyFile {
    directory: Arc<Path>,
    base_offset: Offset,
    suffix: &'static str,
    handle: Mutex<Option<Arc<dyn DiskFile>>>,
    is_used: AtomicBool,
    /// True once the file has left the log: its name may belong to another by now.
    is_gone: AtomicBool,
}

impl LazyFile {
    pub(super) fn new(
        directory: Arc<Path>,
        base_offset: Offset,
        suffix: &'static str,
    ) -> Arc<Self> {
        Arc::new(Self {
            directory,
            base_offset,
            suffix,
            handle: Mutex::default(),
            is_used: AtomicBool::default(),
            is_gone: AtomicBool::default(),
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(file_name(self.base_offset, self.suffix))
    }

    /// The open file. One that is missing stays so: its segment may have been removed.
    pub(super) fn get(self: &Arc<Self>, files: &Files) -> io::Result<Arc<dyn DiskFile>> {
        self.open(files, false)
    }

    /// As [`LazyFile::get`], but makes the file where it is missing.
    pub(super) fn create(self: &Arc<Self>, files: &Files) -> io::Result<Arc<dyn DiskFile>> {
        self.open(files, true)
    }

    fn open(self: &Arc<Self>, files: &Files, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        self.is_used.store(true, Ordering::Relaxed);
        let mut handle = lock(&self.handle);
        if self.is_gone.load(Ordering::Acquire) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if let Some(open) = &*handle {
            return Ok(open.clone());
        }
        let opened = files.disk.open(&self.path(), create)?;
        *handle = Some(opened.clone());
        drop(handle);
        files.admit(self);
        Ok(opened)
    }

    /// Gives the file up: it is about to be renamed or removed.
    pub(super) fn close(&self) {
        let mut handle = lock(&self.handle);
        self.is_gone.store(true, Ordering::Release);
        *handle = None;
    }
}

/// Kafka's name of a segment's file: its base offset in twenty digits.
pub(super) fn file_name(base_offset: Offset, suffix: &str) -> String {
    format!("{:020}{suffix}", base_offset.0)
}

/// The base offset in a name made by [`file_name`] with this suffix.
pub(super) fn parse_file_name(name: &str, suffix: &str) -> Option<Offset> {
    let digits = name.strip_suffix(suffix)?;
    let is_plain = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_plain.then(|| digits.parse().ok().map(Offset)).flatten()
}

#[cfg(test)]
mod tests {
    use super::super::disk::SystemDisk;
    use super::*;

    #[test]
    fn the_cache_closes_what_was_not_used_lately() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(Arc::new(SystemDisk), 3);
        let path: Arc<Path> = directory.path().into();
        let all: Vec<_> =
            (0..10).map(|offset| LazyFile::new(path.clone(), Offset(offset), ".log")).collect();
        for file in &all {
            file.create(&files).unwrap().write_at(0, b"x").unwrap();
            assert!(files.open_count() <= 3);
        }
        // A closed file opens again.
        assert_eq!(all[0].get(&files).unwrap().read_at(0, 1).unwrap(), b"x");
        assert!(files.open_count() <= 3);
    }

    #[test]
    fn names_are_kafkas() {
        assert_eq!(file_name(Offset(42_000), ".log"), "00000000000000042000.log");
        assert_eq!(parse_file_name("00000000000000042000.log", ".log"), Some(Offset(42_000)));
        for bad in ["42.log", "00000000000000042000.index", "0000000000000004200x.log", ".log"] {
            assert_eq!(parse_file_name(bad, ".log"), None, "{bad}");
        }
    }
}
