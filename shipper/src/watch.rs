//! inotify on directories. It only wakes: what there is to read, the scan and the reads decide.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask, Watches};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tracing::warn;

const BUFFER_BYTES: usize = 64 << 10;
/// Paths remembered until the reader takes them; beyond, a full scan takes their place.
const MAX_PATHS: usize = 10_000;

/// What happened since it was looked at last.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Files that were written to.
    pub(crate) paths: HashSet<PathBuf>,
    /// Entries came, went or changed their names, or events were lost.
    pub(crate) rescan: bool,
}

/// The reader's side.
#[derive(Debug)]
pub(crate) struct Watcher {
    watches: Watches,
    directories: Arc<Mutex<HashMap<WatchDescriptor, PathBuf>>>,
    watched: BTreeSet<PathBuf>,
    changes: Arc<Mutex<Changes>>,
    is_full: bool,
}

/// The side that waits for the kernel.
#[derive(Debug)]
pub(crate) struct Events {
    inotify: Inotify,
    directories: Arc<Mutex<HashMap<WatchDescriptor, PathBuf>>>,
    changes: Arc<Mutex<Changes>>,
}

pub(crate) fn new() -> io::Result<(Watcher, Events)> {
    let inotify = Inotify::init()?;
    let (directories, changes) = (Arc::default(), Arc::default());
    let watcher = Watcher {
        watches: inotify.watches(),
        directories: Arc::clone(&directories),
        watched: BTreeSet::new(),
        changes: Arc::clone(&changes),
        is_full: false,
    };
    Ok((watcher, Events { inotify, directories, changes }))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watcher {
    pub(crate) fn take(&self) -> Changes {
        std::mem::take(&mut lock(&self.changes))
    }

    /// Watches `directories` from now on. Returns whether one is new: what happened in it before may
    /// have been missed.
    pub(crate) fn watch(&mut self, directories: &BTreeSet<PathBuf>) -> bool {
        let mask = WatchMask::MODIFY
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::MOVED_FROM
            | WatchMask::MOVED_TO
            | WatchMask::ATTRIB
            | WatchMask::ONLYDIR;
        let mut is_new = false;
        for directory in directories {
            if self.watched.contains(directory) {
                continue;
            }
            match self.watches.add(directory, mask) {
                Ok(descriptor) => {
                    lock(&self.directories).insert(descriptor, directory.clone());
                    self.watched.insert(directory.clone());
                    is_new = true;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    if !self.is_full {
                        warn!(
                            path = %directory.display(), %error,
                            "no more directories can be watched, the others are only scanned; raise fs.inotify.max_user_watches"
                        );
                    }
                    self.is_full = true;
                    self.watched.insert(directory.clone());
                }
            }
        }
        // Directories that went are watched again should they come back.
        let known: HashSet<PathBuf> = lock(&self.directories).values().cloned().collect();
        if !self.is_full {
            self.watched.retain(|directory| known.contains(directory));
        }
        is_new
    }
}

impl Events {
    /// Waits for events and wakes `reader`, until `stop`.
    pub(crate) async fn run(self, reader: Thread, stop: CancellationToken) -> io::Result<()> {
        let mut events = self.inotify.into_event_stream(vec![0; BUFFER_BYTES])?;
        loop {
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                event = events.next() => event,
            };
            let Some(event) = event.transpose()? else { return Ok(()) };
            note(&event, &mut lock(&self.changes), &mut lock(&self.directories));
            reader.unpark();
        }
    }
}

fn note(
    event: &inotify::Event<std::ffi::OsString>,
    changes: &mut Changes,
    directories: &mut HashMap<WatchDescriptor, PathBuf>,
) {
    if event.mask.contains(EventMask::Q_OVERFLOW) {
        changes.rescan = true;
        return;
    }
    if event.mask.contains(EventMask::IGNORED) {
        directories.remove(&event.wd);
        changes.rescan = true;
        return;
    }
    let is_write = event.mask.intersects(EventMask::MODIFY);
    match (directories.get(&event.wd), &event.name) {
        (Some(directory), Some(name)) if is_write => {
            if changes.paths.len() < MAX_PATHS {
                changes.paths.insert(Path::new(directory).join(name));
            } else {
                changes.rescan = true;
            }
        }
        _ => changes.rescan = true,
    }
}
