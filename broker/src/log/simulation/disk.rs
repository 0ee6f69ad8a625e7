//! A disk in memory that loses what was not synced, tears what was being written, fills up and
//! fails, as one seed decides.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::disk::{Disk, DiskFile, Entry};
use super::super::files::lock;

/// What a disk writes whole or not at all.
const SECTOR_BYTES: usize = 512;

#[derive(Debug)]
pub(super) struct SimulatedDisk(Arc<Mutex<World>>);

#[derive(Debug)]
struct World {
    random: StdRng,
    files: Vec<File>,
    /// Files by path, as processes see them.
    names: BTreeMap<PathBuf, usize>,
    /// As they are on the disk.
    durable_names: BTreeMap<PathBuf, usize>,
    /// Changes of names not yet on the disk; a journal: what is lost is a suffix.
    name_changes: Vec<NameChange>,
    now_ms: i64,
    is_full: bool,
    /// The next sync fails, and what it was to write is lost.
    fails_next_sync: bool,
    /// Syncs are left before the power fails in the midst of one.
    syncs_left: Option<u32>,
}

#[derive(Debug, Default, Clone)]
struct File {
    /// As processes see it.
    bytes: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
    modified_ms: i64,
}

#[derive(Debug, Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Clone)]
enum NameChange {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl NameChange {
    fn is_in(&self, directory: &Path) -> bool {
        let (Self::Link(path, _) | Self::Unlink(path) | Self::Rename(path, _)) = self;
        path.parent() == Some(directory)
    }

    fn apply(self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, file) => drop(names.insert(path, file)),
            Self::Unlink(path) => drop(names.remove(&path)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(&from) {
                    names.insert(to, file);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(position, written) => {
                bytes.resize(bytes.len().max(position + written.len()), 0);
                bytes[*position..position + written.len()].copy_from_slice(written);
            }
            Self::Length(length) => bytes.resize(*length, 0),
        }
    }
}

impl SimulatedDisk {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(World {
            random: StdRng::seed_from_u64(seed),
            files: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            now_ms: 0,
            is_full: false,
            fails_next_sync: false,
            syncs_left: None,
        })))
    }

    pub(super) fn set_full(&self, is_full: bool) {
        lock(&self.0).is_full = is_full;
    }

    pub(super) fn fail_next_sync(&self) {
        lock(&self.0).fails_next_sync = true;
    }

    /// Lets `syncs` more succeed; the next fails half done.
    pub(super) fn stop_after_syncs(&self, syncs: u32) {
        lock(&self.0).syncs_left = Some(syncs);
    }

    /// Cuts the power: of what was not synced any sectors survive, and any first changes of names.
    pub(super) fn lose_power(&self) {
        let mut world = lock(&self.0);
        let world = &mut *world;
        let kept = world.random.random_range(0..=world.name_changes.len());
        for change in world.name_changes.drain(..).take(kept) {
            change.apply(&mut world.durable_names);
        }
        world.names.clone_from(&world.durable_names);
        // Some crashes lose all that was not synced, some nothing, most a part.
        let survival = [0.0, 0.5, 0.9, 1.0][world.random.random_range(0..4)];
        for file in &mut world.files {
            let mut bytes = std::mem::take(&mut file.durable);
            for change in file.changes.drain(..) {
                match change {
                    Change::Length(_) if world.random.random_bool(survival) => {
                        change.apply(&mut bytes);
                    }
                    Change::Length(_) => {}
                    Change::Write(position, written) => {
                        let mut at = 0;
                        while at < written.len() {
                            let sector_end = SECTOR_BYTES - (position + at) % SECTOR_BYTES;
                            let end = (at + sector_end).min(written.len());
                            if world.random.random_bool(survival) {
                                Change::Write(position + at, written[at..end].to_vec())
                                    .apply(&mut bytes);
                            }
                            at = end;
                        }
                    }
                }
            }
            file.durable.clone_from(&bytes);
            file.bytes = bytes;
        }
        world.is_full = false;
        world.fails_next_sync = false;
        world.syncs_left = None;
    }

    /// Flips one bit of a file with this extension. Returns its path, if there is one.
    pub(super) fn flip_bit(&self, extension: &str) -> Option<PathBuf> {
        let mut world = lock(&self.0);
        let world = &mut *world;
        let candidates: Vec<_> = world
            .names
            .iter()
            .filter(|(path, file)| {
                path.extension().is_some_and(|it| it == extension)
                    && !world.files[**file].bytes.is_empty()
            })
            .map(|(path, file)| (path.clone(), *file))
            .collect();
        if candidates.is_empty() {
            return None;
        }
        let (path, file) = candidates[world.random.random_range(0..candidates.len())].clone();
        let at = world.random.random_range(0..world.files[file].bytes.len());
        let bit = 1 << world.random.random_range(0..8);
        world.files[file].bytes[at] ^= bit;
        if let Some(byte) = world.files[file].durable.get_mut(at) {
            *byte ^= bit;
        }
        Some(path)
    }

    /// A digest of all there is, to compare two runs by.
    pub(super) fn digest(&self) -> u32 {
        let world = lock(&self.0);
        world.names.iter().fold(0, |digest, (path, file)| {
            let digest = crc32c::crc32c_append(digest, path.to_string_lossy().as_bytes());
            crc32c::crc32c_append(digest, &world.files[*file].bytes)
        })
    }
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, path.display().to_string())
}

fn io_error(text: &str) -> io::Error {
    io::Error::other(text)
}

impl World {
    fn change_names(&mut self, change: NameChange) {
        change.clone().apply(&mut self.names);
        self.name_changes.push(change);
    }

    /// Counts a sync; false where it fails.
    fn may_sync(&mut self) -> bool {
        if std::mem::take(&mut self.fails_next_sync) {
            return false;
        }
        match &mut self.syncs_left {
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
            None => true,
        }
    }

    fn sync(&mut self, file: usize) {
        let file = &mut self.files[file];
        file.changes.clear();
        file.durable.clone_from(&file.bytes);
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, create: bool) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = lock(&self.0);
        let file = match world.names.get(path).copied() {
            Some(file) => file,
            // A full disk may well have room for a name, and none for what goes into the file.
            None if create && world.is_full && world.random.random_bool(0.5) => {
                return Err(io::ErrorKind::StorageFull.into());
            }
            None if create => {
                world.files.push(File::default());
                let file = world.files.len() - 1;
                world.change_names(NameChange::Link(path.into(), file));
                file
            }
            None => return Err(not_found(path)),
        };
        Ok(Arc::new(SimulatedFile { world: self.0.clone(), file }))
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<Entry>> {
        let world = lock(&self.0);
        let within = world.names.iter().filter(|(name, _)| name.parent() == Some(path));
        Ok(within
            .map(|(name, &file)| Entry {
                name: name.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                is_directory: false,
                bytes: world.files[file].bytes.len() as u64,
                modified_ms: world.files[file].modified_ms,
            })
            .collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let world = lock(&self.0);
        let file = world.names.get(path).ok_or_else(|| not_found(path))?;
        Ok(world.files[*file].bytes.clone())
    }

    fn replace(&self, path: &Path, contents: &[u8]) -> io::Result<()> {
        let mut world = lock(&self.0);
        if world.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !world.may_sync() {
            return Err(io_error("sync failed"));
        }
        world.files.push(File { bytes: contents.to_vec(), ..File::default() });
        let file = world.files.len() - 1;
        world.sync(file);
        world.change_names(NameChange::Link(path.into(), file));
        drop(world);
        self.sync_directory(path.parent().unwrap_or(path))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = lock(&self.0);
        if !world.names.contains_key(from) {
            return Err(not_found(from));
        }
        world.change_names(NameChange::Rename(from.into(), to.into()));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut world = lock(&self.0);
        if !world.names.contains_key(path) {
            return Err(not_found(path));
        }
        world.change_names(NameChange::Unlink(path.into()));
        Ok(())
    }

    fn remove_directory(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut world = lock(&self.0);
        if !world.may_sync() {
            return Err(io_error("sync failed"));
        }
        let changes = std::mem::take(&mut world.name_changes);
        for change in changes {
            if change.is_in(path) {
                change.apply(&mut world.durable_names);
            } else {
                world.name_changes.push(change);
            }
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn Debug + Send + Sync>> {
        Ok(Box::new(()))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(if lock(&self.0).is_full { 0 } else { u64::MAX })
    }
}

#[derive(Debug)]
struct SimulatedFile {
    world: Arc<Mutex<World>>,
    file: usize,
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let world = lock(&self.world);
        let bytes = &world.files[self.file].bytes;
        let start = (position as usize).min(bytes.len());
        Ok(bytes[start..start.saturating_add(length).min(bytes.len())].to_vec())
    }

    fn write_at(&self, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut world = lock(&self.world);
        let (written, result) = if world.is_full {
            let part = world.random.random_range(0..=bytes.len());
            (&bytes[..part], Err(io::ErrorKind::StorageFull.into()))
        } else {
            (bytes, Ok(()))
        };
        let now_ms = world.now_ms;
        let file = &mut world.files[self.file];
        let change = Change::Write(position as usize, written.to_vec());
        change.apply(&mut file.bytes);
        file.changes.push(change);
        file.modified_ms = now_ms;
        result
    }

    fn size(&self) -> io::Result<u64> {
        Ok(lock(&self.world).files[self.file].bytes.len() as u64)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut world = lock(&self.world);
        let file = &mut world.files[self.file];
        if file.bytes.len() as u64 != length {
            let change = Change::Length(length as usize);
            change.apply(&mut file.bytes);
            file.changes.push(change);
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = lock(&self.world);
        if !world.may_sync() {
            return Err(io_error("sync failed"));
        }
        world.sync(self.file);
        Ok(())
    }
}
