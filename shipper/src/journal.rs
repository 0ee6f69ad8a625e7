//! The registry's journal on disk: a thread of its own writes and syncs, so that reading never waits
//! for a position to be saved, only for a generation to be made known.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use elkfk_base::durable;
use tracing::warn;

use crate::registry::{self, Contents, Journal};

const FILE_NAME: &str = "journal";
/// Positions are durable at most this much later.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);
/// Entries that wait for room on the disk; beyond, only the newest of each file are kept.
const UNWRITTEN_BYTES: usize = 4 << 20;
/// Batches of entries between the reader and the disk. A full queue makes the reader wait.
const QUEUE_LENGTH: usize = 64;

enum Work {
    Append(Vec<u8>),
    Replace(Vec<u8>),
    Sync(SyncSender<io::Result<()>>),
}

#[derive(Debug)]
pub(crate) struct FileJournal {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
    length: Arc<AtomicU64>,
}

impl FileJournal {
    /// Opens the journal in `directory` and reads what it holds. A torn tail is cut and reported.
    pub(crate) fn open(directory: &Path) -> io::Result<(Self, Contents)> {
        let path = directory.join(FILE_NAME);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let contents = registry::read(&bytes);
        if contents.torn_bytes > 0 {
            let (cut, kept) = (contents.torn_bytes, contents.good_bytes);
            warn!(path = %path.display(), cut, kept, "the registry's torn tail was cut off");
        }
        if contents.damaged_entries > 0 {
            let entries = contents.damaged_entries;
            warn!(path = %path.display(), entries, "damaged entries of the registry were skipped");
        }
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        file.set_len(contents.good_bytes)?;
        file.sync_all()?;
        durable::sync_parent(&path)?;
        let length = Arc::new(AtomicU64::new(contents.good_bytes));
        let (work, jobs) = sync_channel(QUEUE_LENGTH);
        let mut writer = Writer {
            path,
            file,
            length: length.clone(),
            unwritten: Vec::new(),
            unwritten_bytes_max: UNWRITTEN_BYTES,
            unsynced: Vec::new(),
            unsynced_since: None,
            is_parent_unsynced: false,
            is_failing: false,
        };
        let thread = std::thread::Builder::new()
            .name("shipper-registry".into())
            .spawn(move || writer.run(&jobs))?;
        Ok((Self { work: Some(work), thread: Some(thread), length }, contents))
    }

    fn send(&self, work: Work) {
        // The thread ends only after this sender was dropped.
        let _ = self.work.as_ref().map(|sender| sender.send(work));
    }
}

impl Drop for FileJournal {
    fn drop(&mut self) {
        self.work.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Journal for FileJournal {
    fn append(&mut self, bytes: &[u8]) {
        self.send(Work::Append(bytes.to_vec()));
    }

    fn sync(&mut self) -> io::Result<()> {
        let (answer, result) = sync_channel(1);
        self.send(Work::Sync(answer));
        result.recv().unwrap_or_else(|_| Err(io::Error::other("the registry's thread has ended")))
    }

    fn replace(&mut self, bytes: &[u8]) {
        self.send(Work::Replace(bytes.to_vec()));
    }

    fn len(&self) -> u64 {
        self.length.load(Ordering::Relaxed)
    }
}

struct Writer {
    path: PathBuf,
    file: File,
    /// Of what was written whole.
    length: Arc<AtomicU64>,
    /// Entries that a full disk refused; they come before any newer ones.
    unwritten: Vec<u8>,
    /// How many of them there may be before the outdated ones are left out.
    unwritten_bytes_max: usize,
    /// Entries written since the last sync that succeeded; the last ones of the file.
    unsynced: Vec<u8>,
    unsynced_since: Option<Instant>,
    /// The file's name may not be durable yet.
    is_parent_unsynced: bool,
    is_failing: bool,
}

impl Writer {
    fn run(&mut self, jobs: &Receiver<Work>) {
        loop {
            let wait = match self.unsynced_since {
                Some(since) => SYNC_INTERVAL.saturating_sub(since.elapsed()),
                None => Duration::from_secs(3600),
            };
            match jobs.recv_timeout(wait) {
                Ok(Work::Append(bytes)) => {
                    self.unwritten.extend_from_slice(&bytes);
                    let _ = self.write();
                    self.bound_unwritten();
                    self.unsynced_since.get_or_insert_with(Instant::now);
                }
                Ok(Work::Replace(bytes)) => self.replace(bytes),
                Ok(Work::Sync(answer)) => {
                    // Whoever asked may be gone; the sync counts all the same.
                    let _ = answer.send(self.sync());
                }
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.sync();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let _ = self.sync();
                    return;
                }
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let length = self.length.load(Ordering::Relaxed);
        let result = self
            .file
            .seek(SeekFrom::Start(length))
            .and_then(|_| self.file.write_all(&self.unwritten));
        match &result {
            Ok(()) => {
                self.length.store(length + self.unwritten.len() as u64, Ordering::Relaxed);
                self.unsynced.append(&mut self.unwritten);
                self.unwritten_bytes_max = UNWRITTEN_BYTES;
                self.is_failing = false;
            }
            Err(error) => {
                // Half an entry must not stand before the next one.
                let _ = self.file.set_len(length);
                if !self.is_failing {
                    warn!(path = %self.path.display(), %error, "the registry cannot be written; positions are kept in memory");
                }
                self.is_failing = true;
            }
        }
        result
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.unwritten.is_empty()
            && let Err(error) = self.write()
        {
            self.unsynced_since = Some(Instant::now());
            return Err(error);
        }
        let result = rustix::fs::fdatasync(&self.file).map_err(io::Error::from).and_then(|()| {
            if self.is_parent_unsynced {
                durable::sync_parent(&self.path)?;
                self.is_parent_unsynced = false;
            }
            Ok(())
        });
        self.unsynced_since = result.is_err().then(Instant::now);
        if result.is_ok() {
            self.unsynced.clear();
            return result;
        }
        // The kernel may have dropped what it could not write and would call the next sync a success:
        // these entries are written again before that.
        let length = self.length.load(Ordering::Relaxed) - self.unsynced.len() as u64;
        self.length.store(length, Ordering::Relaxed);
        self.unsynced.append(&mut self.unwritten);
        std::mem::swap(&mut self.unsynced, &mut self.unwritten);
        self.bound_unwritten();
        result
    }

    fn bound_unwritten(&mut self) {
        if self.unwritten.len() > self.unwritten_bytes_max {
            self.unwritten = registry::newest(&self.unwritten);
            // With very many files even those are more: then not at every entry.
            self.unwritten_bytes_max = UNWRITTEN_BYTES.max(2 * self.unwritten.len());
        }
    }

    fn replace(&mut self, bytes: Vec<u8>) {
        // Opened before it gets the name: without a descriptor to be had afterwards, entries would go
        // into the old file, which nobody would find again.
        let temporary = self.path.with_extension("tmp");
        let replaced = File::create(&temporary).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&temporary, &self.path)?;
            Ok(file)
        });
        match replaced {
            Ok(file) => {
                self.file = file;
                self.length.store(bytes.len() as u64, Ordering::Relaxed);
                self.unwritten.clear();
                self.unsynced.clear();
                self.is_parent_unsynced = true;
                let _ = self.sync();
            }
            // The old journal still says everything.
            Err(error) => {
                warn!(path = %self.path.display(), %error, "the registry was not compacted")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_tail_is_cut_and_the_rest_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, contents) = FileJournal::open(directory.path()).unwrap();
        assert_eq!(contents.begun_ms, 0);
        let mut bytes = Vec::new();
        registry::write_begun(42, "agent", &mut bytes);
        journal.append(&bytes);
        journal.sync().unwrap();
        assert_eq!(journal.len(), bytes.len() as u64);
        journal.append(b"0badc0de {\"sta");
        drop(journal);
        let (journal, contents) = FileJournal::open(directory.path()).unwrap();
        assert_eq!((contents.begun_ms, contents.torn_bytes), (42, 14));
        drop(journal);
        assert_eq!(std::fs::read(directory.path().join(FILE_NAME)).unwrap(), bytes);
    }

    fn writer(path: &Path, device: &str) -> Writer {
        Writer {
            path: path.into(),
            file: OpenOptions::new().write(true).open(device).unwrap(),
            length: Arc::default(),
            unwritten: Vec::new(),
            unwritten_bytes_max: UNWRITTEN_BYTES,
            unsynced: Vec::new(),
            unsynced_since: None,
            is_parent_unsynced: false,
            is_failing: false,
        }
    }

    #[test]
    fn a_full_disk_costs_no_more_memory_than_there_are_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        let mut writer = writer(&path, "/dev/full");
        let mut last = Vec::new();
        for at_ms in 0..100_000 {
            last.clear();
            registry::write_begun(at_ms, "an agent with a long name", &mut last);
            writer.unwritten.extend_from_slice(&last);
            if at_ms % 100 == 0 {
                assert!(writer.write().is_err());
            }
            writer.bound_unwritten();
            assert!(writer.unwritten.len() <= UNWRITTEN_BYTES);
        }
        writer.file = File::create(&path).unwrap();
        writer.sync().unwrap();
        assert_eq!(registry::read(&std::fs::read(&path).unwrap()).begun_ms, 99_999);
    }

    #[test]
    fn entries_of_a_failed_sync_are_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE_NAME);
        // It takes what is written, and cannot be synced.
        let mut writer = writer(&path, "/dev/null");
        writer.unwritten = b"first\n".to_vec();
        writer.write().unwrap();
        assert!(writer.sync().is_err());
        writer.unwritten.extend_from_slice(b"second\n");
        writer.file = File::create(&path).unwrap();
        writer.sync().unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"first\nsecond\n");
        assert_eq!(writer.length.load(Ordering::Relaxed), 13);
    }

    #[test]
    fn a_compacted_journal_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = FileJournal::open(directory.path()).unwrap();
        let mut bytes = Vec::new();
        registry::write_begun(1, "a", &mut bytes);
        journal.append(&bytes);
        bytes.clear();
        registry::write_begun(2, "b", &mut bytes);
        journal.replace(&bytes);
        bytes.clear();
        registry::write_begun(3, "c", &mut bytes);
        journal.append(&bytes);
        journal.sync().unwrap();
        drop(journal);
        let (_, contents) = FileJournal::open(directory.path()).unwrap();
        assert_eq!((contents.begun_ms, contents.torn_bytes, contents.damaged_entries), (3, 0, 0));
    }
}
