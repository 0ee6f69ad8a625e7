//! A disk in memory that can lose power, tear writes, fill up and rot.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

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

/// Clones are one disk, as seen by the program before and after a crash.
#[derive(Debug, Clone)]
pub(crate) struct SimulatedDisk(Arc<Mutex<State>>);

impl SimulatedDisk {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            files: BTreeMap::new(),
            random: StdRng::seed_from_u64(seed),
            capacity: u64::MAX,
            syncs_until_failure: None,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.0.lock().unwrap())
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

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| state.files.insert(name.to_owned(), File::default()));
        Ok(())
    }

    fn reserve(&mut self, name: &str, end: u64) -> io::Result<()> {
        self.with(|state| {
            let used: u64 = state.files.values().map(|file| file.seen.len() as u64).sum();
            let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            let more = end.saturating_sub(file.seen.len() as u64);
            if used + more > state.capacity {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let length = file.seen.len().max(end as usize);
            file.seen.resize(length, 0);
            Ok(())
        })
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|state| {
            let file = state.files.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            let (start, end) = (offset as usize, offset as usize + bytes.len());
            if file.seen.len() < end {
                file.seen.resize(end, 0);
            }
            file.seen[start..end].copy_from_slice(bytes);
            file.unsynced.push((start, end));
            Ok(())
        })
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.with(|state| {
            if let Some(left) = &mut state.syncs_until_failure {
                if *left == 0 {
                    return Err(io::Error::other("simulated"));
                }
                *left -= 1;
            }
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
