//! A disk in memory that can lose power, tear writes, fill up and rot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::Disk;

/// What a power cut can tear a write into.
const SECTOR: usize = 512;

#[derive(Debug)]
struct State {
    files: BTreeMap<String, File>,
    random: StdRng,
    /// Bytes all files together may reserve.
    capacity: u64,
    syncs_until_failure: Option<u32>,
    /// Syncs that succeeded.
    syncs: u64,
    /// Times that there was no room.
    denials: u64,
    /// While it is, syncs wait.
    is_held: bool,
}

#[derive(Debug, Default, Clone)]
struct File {
    /// As programs read it.
    seen: Vec<u8>,
    /// As it is after a power cut, but for what was written since the last sync.
    durable: Vec<u8>,
    /// Places written since the last sync.
    unsynced: Vec<(usize, usize)>,
}

impl State {
    /// The file, `end` bytes long at least.
    fn grow(&mut self, name: &str, end: usize) -> io::Result<&mut File> {
        let used: u64 = self.files.values().map(|file| file.seen.len() as u64).sum();
        let file = self.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        let more = end.saturating_sub(file.seen.len());
        if more > 0 && used + more as u64 > self.capacity {
            self.denials += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.seen.resize(file.seen.len().max(end), 0);
        Ok(file)
    }
}

/// Clones are one disk, as seen by the program before and after a crash.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk(Arc<(Mutex<State>, Condvar)>);

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        let state = State {
            files: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            capacity: u64::MAX,
            syncs_until_failure: None,
            syncs: 0,
            denials: 0,
            is_held: false,
        };
        Self(Arc::new((Mutex::new(state), Condvar::new())))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.0.lock().unwrap())
    }

    pub(crate) fn syncs(&self) -> u64 {
        self.with(|state| state.syncs)
    }

    pub(crate) fn denials(&self) -> u64 {
        self.with(|state| state.denials)
    }

    /// From now on syncs wait, or no longer.
    pub(crate) fn hold_syncs(&self, is_held: bool) {
        self.with(|state| state.is_held = is_held);
        self.0.1.notify_all();
    }

    pub(crate) fn set_capacity(&self, bytes: u64) {
        self.with(|state| state.capacity = bytes);
    }

    /// The sync after so many others reports an error.
    pub(crate) fn fail_sync_after(&self, syncs: u32) {
        self.with(|state| state.syncs_until_failure = Some(syncs));
    }

    /// Of what was not synced, any subset of sectors reaches the disk, and one of them torn.
    pub(crate) fn lose_power(&self) {
        self.with(|state| {
            let State { files, random, .. } = state;
            for file in files.values_mut() {
                if file.durable.len() < file.seen.len() && random.random_bool(0.5) {
                    file.durable.resize(file.seen.len(), 0);
                }
                let keep = random.random_range(0.0..=1.0);
                for (start, end) in std::mem::take(&mut file.unsynced) {
                    let mut at = start;
                    while at < end {
                        let next = ((at / SECTOR + 1) * SECTOR).min(end);
                        let whole = next.min(file.durable.len());
                        if at < whole && random.random_bool(keep) {
                            let torn = random.random_bool(0.02);
                            let cut = if torn { random.random_range(at..=whole) } else { whole };
                            file.durable[at..cut].copy_from_slice(&file.seen[at..cut]);
                        }
                        at = next;
                    }
                }
                file.seen.clone_from(&file.durable);
            }
        });
    }

    /// Flips one bit of a file, in what is durable too.
    pub(crate) fn rot(&self, name: &str, offset: usize) {
        self.with(|state| {
            let file = state.files.get_mut(name).unwrap();
            file.seen[offset] ^= 0x10;
            file.durable[offset] ^= 0x10;
        });
    }
}

impl Disk for SimulatedDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|state| state.files.keys().cloned().collect()))
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        self.with(|state| state.files.get(name).map(|file| file.seen.clone()))
            .ok_or(io::ErrorKind::NotFound.into())
    }

    fn reader(&self, name: &str) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(io::Cursor::new(self.read(name)?)))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| state.files.insert(name.to_owned(), File::default()));
        Ok(())
    }

    fn reserve(&mut self, name: &str, end: u64) -> io::Result<()> {
        self.with(|state| state.grow(name, end as usize).map(drop))
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            let (start, end) = (offset as usize, offset as usize + bytes.len());
            let file = state.grow(name, end)?;
            file.seen[start..end].copy_from_slice(bytes);
            file.unsynced.push((start, end));
            Ok(())
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let (state, released) = &*self.0;
        drop(released.wait_while(state.lock().unwrap(), |state| state.is_held).unwrap());
        self.with(|state| {
            if let Some(left) = &mut state.syncs_until_failure {
                if *left == 0 {
                    return Err(io::Error::other("simulated"));
                }
                *left -= 1;
            }
            state.syncs += 1;
            let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            file.durable.resize(file.seen.len(), 0);
            for (start, end) in file.unsynced.drain(..) {
                file.durable[start..end].copy_from_slice(&file.seen[start..end]);
            }
            Ok(())
        })
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.with(|state| {
            let file = state.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
            state.files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| state.files.remove(name));
        Ok(())
    }
}
