//! Telling a copy from a new file: by how it begins, confirmed by what stands before the position.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{debug, info, warn};

use crate::compressed::Stream;
use crate::disk::{Disk, Kind};
use crate::harvester::{Harvester, Input};
use crate::identity::{FileId, GUARD_BYTES, HEAD_BYTES, Head, Stat, is_rotated_name};
use crate::metrics;
use crate::registry::Journal;

use super::source::{Shadow, Source, Why};
use super::{Engine, Now, Sender};

/// So many equal bytes are no accident.
pub(super) const SURE_BYTES: u64 = HEAD_BYTES as u64;

/// Bytes of a compressed file and its original that are compared at a time.
const COMPARED_BYTES: usize = 64 << 10;

/// What a file that was met for the first time is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Resemblance {
    New,
    /// It holds the generation of this slot, whose own file is gone.
    Continues(usize),
    /// It is a copy of this slot's file, which is still there.
    Shadows(usize),
    /// It may be a copy of a file that is not where it was seen last: a scan has to find that first.
    Unclear,
}

/// Whether a file is, as far as it goes, what another holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prefix {
    /// `is_whole`: the other holds no more.
    Yes {
        is_whole: bool,
    },
    No,
    /// The other file is not under its name.
    Unknown,
}

impl<D, S, J> Engine<D, S, J>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send + Sync + 'static,
    S: Sender,
    J: Journal,
{
    pub(super) fn index_head(&mut self, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let head = source.state.head;
        if head.bytes > 0
            && self.heads.entry((source.input, head.bytes, head.hash)).or_default().insert(slot)
        {
            *self.head_lengths.entry(head.bytes).or_default() += 1;
        }
    }

    pub(super) fn unindex_head(&mut self, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let head = source.state.head;
        let key = (source.input, head.bytes, head.hash);
        if let Some(slots) = self.heads.get_mut(&key)
            && slots.remove(&slot)
        {
            if slots.is_empty() {
                self.heads.remove(&key);
            }
            if let Some(count) = self.head_lengths.get_mut(&head.bytes) {
                *count -= 1;
                if *count == 0 {
                    self.head_lengths.remove(&head.bytes);
                }
            }
        }
    }

    /// Brings the files up to date that the one in `slot` may be a copy of, by its name: what it is
    /// depends on whether they were truncated in the meantime, and what they hold now.
    pub(super) fn see_to_originals(&mut self, now: Now, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let (input, path) = (source.input, source.path.clone());
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
        for (at, _) in name.match_indices(['.', '-', '_', '~']).filter(|(at, _)| *at > 0) {
            let Some(slots) = self.by_path.get(&path.with_file_name(&name[..at])) else { continue };
            for other in slots.clone() {
                if self.sources[other]
                    .as_ref()
                    .is_none_or(|s| s.input != input || s.state.file.is_none())
                {
                    continue;
                }
                self.hold(now, other);
                if let Some(source) = &mut self.sources[other] {
                    source.has_changed = true;
                }
                self.watch_over(now, other);
            }
            let unresolved = |slot: &usize| {
                let source = self.sources[*slot].as_ref();
                source.is_some_and(|s| s.input == input && s.file.is_some() && !s.is_resolved)
            };
            let slots = self.by_path.get(&path.with_file_name(&name[..at])).into_iter().flatten();
            for other in slots.copied().filter(unresolved).collect::<Vec<_>>() {
                self.resolve(now, other);
            }
        }
    }

    /// What the unresolved source in `slot`, which begins with `first`, is.
    pub(super) fn resemblance(&mut self, now: Now, slot: usize, first: &[u8]) -> Resemblance {
        let Some(source) = &self.sources[slot] else { return Resemblance::New };
        let input = source.input;
        let candidates: Vec<usize> = self
            .head_lengths
            .keys()
            .filter(|length| usize::from(**length) <= first.len())
            .filter_map(|length| {
                let head = Head::of(&first[..usize::from(*length)]);
                self.heads.get(&(input, head.bytes, head.hash))
            })
            .flatten()
            .copied()
            .filter(|other| *other != slot)
            .collect();
        // The longest equal head first; before those, files that are longer than this one is so far.
        let longer =
            if first.len() < HEAD_BYTES { self.neighbours(slot, first) } else { Vec::new() };
        for other in longer.into_iter().chain(candidates.into_iter().rev()) {
            self.check_for_truncation(now, other);
            if let Some(found) = self.relation(now, slot, other, first) {
                return found;
            }
        }
        Resemblance::New
    }

    /// What the file of `slot` is to the generation in `other`; none where it is nothing to it.
    fn relation(
        &mut self,
        now: Now,
        slot: usize,
        other: usize,
        first: &[u8],
    ) -> Option<Resemblance> {
        let (new, old) = (self.sources[slot].as_ref()?, self.sources[other].as_ref()?);
        // Where birth times are not kept, another file may have got the inode.
        let came_back = old.state.file.is_none()
            && old.state.was_in.is_some_and(|id| id.birth_ns > 0 && new.state.file == Some(id));
        // Equal bytes alone make no copy: two programs may begin and end alike.
        if !came_back && !is_related(&old.path, &new.path) {
            return None;
        }
        if old.state.file.is_some() {
            // Its name may lead elsewhere before its turn comes.
            self.hold(now, other);
            match self.is_prefix_of(slot, other) {
                Prefix::Unknown => return Some(Resemblance::Unclear),
                Prefix::Yes { is_whole } => {
                    let new = self.sources[slot].as_ref()?;
                    let shadow = self.shadows.get(&(new.input, new.state.file?));
                    let is_old = shadow.is_some_and(|shadow| {
                        now.instant.duration_since(shadow.since).as_secs() > 60
                    });
                    let is_sure = is_whole || first.len() as u64 >= SURE_BYTES;
                    return (is_sure || !is_old).then_some(Resemblance::Shadows(other));
                }
                // Unless it was truncated between two of these looks.
                Prefix::No => self.check_for_truncation(now, other),
            }
        }
        let old = self.sources[other].as_ref()?;
        let continues = old.state.file.is_none()
            && usize::from(old.state.head.bytes) <= first.len()
            && self.holds_all_of(slot, other);
        continues.then_some(Resemblance::Continues(other))
    }

    /// Sources with files in the directory of `slot` that hold more than `first`, which is all that it
    /// holds, and may begin with it.
    fn neighbours(&self, slot: usize, first: &[u8]) -> Vec<usize> {
        let Some(source) = &self.sources[slot] else { return Vec::new() };
        let slots = source.path.parent().and_then(|directory| self.by_directory.get(directory));
        let is_longer = |other: &usize| {
            self.sources[*other].as_ref().is_some_and(|other| {
                other.input == source.input
                    && other.state.file.is_some()
                    && other.state.head.bytes > 0
                    && other.size > first.len() as u64
            })
        };
        slots
            .into_iter()
            .flatten()
            .copied()
            .filter(|other| *other != slot && is_longer(other))
            .collect()
    }

    /// Keeps the identity of a file that changed while it may not be read: its truncation must not
    /// go unnoticed, nor what it begins with.
    pub(super) fn watch_over(&mut self, now: Now, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        if !std::mem::take(&mut source.has_changed)
            || !source.is_resolved
            || source.state.compressed
        {
            return;
        }
        let Some(file) = source.file.clone() else { return };
        let mut head = vec![0; HEAD_BYTES];
        let Ok(length) = self.disk.read_at(&file, 0, &mut head) else { return };
        head.truncate(length);
        if (length as u64) < source.position().min(HEAD_BYTES as u64)
            || !source.state.head.matches(&head)
        {
            self.on_replaced(now, slot);
            return;
        }
        if source.harvester.is_none() && source.position() == 0 {
            let filled = head.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
            self.grow_head(slot, 0, &head[..filled]);
        }
        self.check_for_truncation(now, slot);
    }

    /// Sees to it that a source whose file was truncated is known to be.
    fn check_for_truncation(&mut self, now: Now, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let Some(file) = source.file.clone() else { return };
        if source.state.compressed {
            return;
        }
        if source.harvester.is_none() {
            let is_intact = || {
                let stat = self.disk.stat_open(&file);
                stat.is_ok_and(|stat| stat.size >= source.position())
                    && self.holds_generation(&file, false, source)
            };
            if source.is_resolved && !is_intact() {
                self.on_replaced(now, slot);
            }
            return;
        }
        let (position, tail) = (source.position(), source.tail.clone());
        let mut bytes = vec![0; tail.len()];
        let start = position - tail.len() as u64;
        let is_intact = self
            .disk
            .read_at(&file, start, &mut bytes)
            .is_ok_and(|length| length == tail.len() && bytes == tail);
        if !is_intact {
            self.on_replaced(now, slot);
        }
    }

    /// Whether the file of `slot` holds everything that was read of the generation in `other`.
    fn holds_all_of(&self, slot: usize, other: usize) -> bool {
        let (Some(new), Some(old)) = (&self.sources[slot], &self.sources[other]) else {
            return false;
        };
        let Some(file) = new.file.clone() else { return false };
        self.holds_generation(&file, new.state.compressed, old)
    }

    /// Whether `file` holds everything that was read of a generation.
    fn holds_generation(
        &self,
        file: &Arc<D::File>,
        is_compressed: bool,
        old: &Source<D::File>,
    ) -> bool {
        // The bytes just before the next read, or, of an earlier run, before a position below.
        let (start, length) = match (old.tail.is_empty(), old.state.guard) {
            (false, _) => (old.position() - old.tail.len() as u64, old.tail.len()),
            (true, Some(guard)) => (guard.start(), usize::from(guard.bytes)),
            // Nothing was read beyond what the head covers.
            (true, None) => (0, 0),
        };
        let mut bytes = vec![0; length];
        let mut head = vec![0; usize::from(old.state.head.bytes)];
        let read = || -> io::Result<bool> {
            if !is_compressed {
                return Ok(self.disk.read_at(file, 0, &mut head)? == head.len()
                    && self.disk.read_at(file, start, &mut bytes)? == length);
            }
            let Some(mut stream) = Stream::open(&self.disk, file.clone())? else {
                return Ok(false);
            };
            if stream.read(&mut head)? != head.len() {
                return Ok(false);
            }
            if stream.position() > start {
                let Some(again) = Stream::open(&self.disk, file.clone())? else { return Ok(false) };
                stream = again;
            }
            Ok(stream.skip_to(start)? && stream.read(&mut bytes)? == length)
        };
        if !{ read }().unwrap_or(false) || !old.state.head.matches(&head) {
            return false;
        }
        if old.tail.is_empty() {
            old.state.guard.is_none_or(|guard| guard.matches(&bytes))
        } else {
            bytes == old.tail
        }
    }

    /// Whether the file of `slot` is, as far as it goes, what the living file of `other` holds.
    fn is_prefix_of(&self, slot: usize, other: usize) -> Prefix {
        let (Some(new), Some(old)) = (&self.sources[slot], &self.sources[other]) else {
            return Prefix::No;
        };
        let (Some(file), false) = (&new.file, old.state.compressed) else { return Prefix::No };
        let original = match &old.file {
            Some(file) => file.clone(),
            None => match self.disk.open(&old.path) {
                Ok(file) => Arc::new(file),
                // Renamed or deleted since the last scan.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Prefix::Unknown,
                // What the registry knows of it has to do.
                Err(_) if self.holds_generation(file, new.state.compressed, old) => {
                    return Prefix::Yes { is_whole: false };
                }
                Err(_) => return Prefix::No,
            },
        };
        let whole = match self.disk.stat_open(&original) {
            Ok(stat) if Some(stat.id) == old.state.file => stat.size,
            _ => return Prefix::Unknown,
        };
        if new.state.compressed {
            return self.is_stream_of(file, &original, whole);
        }
        let size = self.disk.stat_open(file).map_or(0, |stat| stat.size);
        // The end, the middle and the beginning; a copy has them all.
        let span = 4096;
        let is_equal = [0, size / 2, size.saturating_sub(span)].into_iter().all(|at| {
            let length = span.min(size - at) as usize;
            let (mut mine, mut theirs) = (vec![0; length], vec![0; length]);
            self.disk.read_at(file, at, &mut mine).is_ok_and(|n| n == length)
                && self.disk.read_at(&original, at, &mut theirs).is_ok_and(|n| n == length)
                && mine == theirs
        });
        if is_equal { Prefix::Yes { is_whole: size == whole } } else { Prefix::No }
    }

    /// Whether what is compressed in `file` is, as far as it goes, what `original` of `size` bytes holds.
    fn is_stream_of(&self, file: &Arc<D::File>, original: &D::File, size: u64) -> Prefix {
        let Ok(Some(mut stream)) = Stream::open(&self.disk, file.clone()) else {
            return Prefix::No;
        };
        let (mut mine, mut theirs) = (vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]);
        loop {
            let at = stream.position();
            // Of a damaged one, what comes before the damage counts.
            let length = stream.read(&mut mine).unwrap_or(0);
            if length == 0 {
                return if at > 0 { Prefix::Yes { is_whole: at == size } } else { Prefix::No };
            }
            let read = self.disk.read_at(original, at, &mut theirs[..length]);
            if !read.is_ok_and(|read| read == length) || mine[..length] != theirs[..length] {
                return Prefix::No;
            }
        }
    }

    /// The file of `slot`, a source without a record of its own, goes on with the generation of `other`.
    pub(super) fn continue_with(&mut self, now: Now, slot: usize, other: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        let (Some(id), Some(file)) = (source.state.file, source.file.take()) else { return };
        self.open_files -= 1;
        let stat = (source.size, source.modified_ns);
        let (path, is_compressed) = (source.path.clone(), source.state.compressed);
        self.remove(slot);
        self.bind(now, other, id, &path, file, is_compressed, stat);
    }

    #[expect(clippy::too_many_arguments, reason = "all that is known about the file found")]
    fn bind(
        &mut self,
        now: Now,
        slot: usize,
        id: FileId,
        path: &Path,
        file: Arc<D::File>,
        is_compressed: bool,
        (size, modified_ns): (u64, u64),
    ) {
        self.move_path(slot, path);
        let Some(source) = &mut self.sources[slot] else { return };
        info!(path = %path.display(), position = source.position(), inode = id.inode, generation = ?source.state.generation, "found the rest of a rotated file");
        let key = (source.input, id);
        source.state.file = Some(id);
        source.state.was_in = None;
        source.state.compressed = is_compressed;
        source.state.stream_end = None;
        source.state.gone_ms = 0;
        source.state.is_finished = false;
        source.wanted_until = None;
        source.rejected.clear();
        source.is_renamed = true;
        source.is_deleted = false;
        source.is_detached = false;
        source.size = size;
        source.modified_ns = modified_ns;
        source.last_growth = now.instant;
        source.stream = None;
        if let Some(resume) = source.harvester.as_ref().map(Harvester::open_start)
            && is_compressed
        {
            source.drop_harvester(resume);
        }
        source.file = Some(file);
        self.open_files += 1;
        self.by_id.insert(key, slot);
        self.shadows.remove(&key);
        self.enrol(slot);
        self.activate(slot);
    }

    /// Takes note that the file of `slot` is a copy of `of`, and closes it.
    pub(super) fn shadow(&mut self, now: Now, slot: usize, of: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let Some(id) = source.state.file else { return };
        debug!(path = %source.path.display(), "a copy of a file that is being read");
        let key = (source.input, id);
        let since =
            self.shadows.get(&key).filter(|old| old.size == source.size).map(|old| old.since);
        let shadow = Shadow {
            of,
            size: source.size,
            modified_ns: source.modified_ns,
            since: since.unwrap_or(now.instant),
        };
        self.remove(slot);
        self.shadows.insert(key, shadow);
    }

    /// The file of `slot` was truncated, or written anew in place: its generation ends here.
    ///
    /// What was not read of it may stand in a copy. The file goes on under a new generation.
    pub(super) fn on_replaced(&mut self, now: Now, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        let Some(id) = source.state.file else { return };
        metrics::ROTATED.inc();
        let (input, path) = (source.input, source.path.clone());
        info!(path = %path.display(), position = source.position(), "file truncated or replaced");
        let file = source.file.clone();
        let is_detached = source.is_detached;
        self.unbind(now, slot, false);
        // Before the next generation is made known: of two that claim one file a restart could not
        // tell which one it holds.
        self.enrol(slot);
        let new = self.insert_new(input, id, &path, now);
        if let (Some(source), Some(file)) = (&mut self.sources[new], file) {
            if let Ok(stat) = self.disk.stat_open(&file) {
                source.size = stat.size;
                source.modified_ns = stat.modified_ns;
                source.is_deleted = stat.links == 0;
            }
            source.is_detached = is_detached;
            source.file = Some(file);
            self.open_files += 1;
        }
        self.activate(new);
        self.find_copy(now, slot);
    }

    pub(super) fn look_for_copies(&mut self, now: Now, input: usize) {
        for slot in 0..self.sources.len() {
            let wants = self.sources[slot].as_ref().is_some_and(|source| {
                source.input == input
                    && source.state.file.is_none()
                    && source.wanted_until.is_some()
            });
            if wants {
                self.find_copy(now, slot);
            }
        }
    }

    /// Looks beside a lost file for a copy with the rest of it.
    fn find_copy(&mut self, now: Now, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        let (input, original) = (source.input, source.path.clone());
        let Some(directory) = original.parent() else { return };
        let Ok(entries) = self.disk.list(directory) else { return };
        let mut found = None;
        for (name, kind) in entries {
            let path = directory.join(&name);
            if kind != Kind::File || !is_related(&original, &path) {
                continue;
            }
            let Ok(stat) = self.disk.stat(&path) else { continue };
            let Some(source) = &self.sources[slot] else { return };
            // Another generation's file is no copy of this one.
            if source.rejected.contains(&(stat.id, stat.size)) || self.is_taken(input, stat.id) {
                continue;
            }
            let Ok(file) = self.disk.open(&path).map(Arc::new) else { continue };
            let is_compressed = Stream::open(&self.disk, file.clone()).ok().flatten().is_some();
            let decompresses = self.inputs[input].config.decompress;
            if (!is_compressed || decompresses)
                && self.holds_generation(&file, is_compressed, source)
                && !self.is_rather_anothers(slot, &file, is_compressed)
            {
                // Where little was read, others begin so too: the one that ends there is its copy.
                let is_sure = u64::from(source.state.head.bytes) >= SURE_BYTES
                    || self.ends_at(&file, is_compressed, source.position());
                if is_sure || found.is_none() {
                    found = Some((stat, path, file, is_compressed));
                }
                if is_sure {
                    break;
                }
                continue;
            }
            if let Some(source) = &mut self.sources[slot] {
                source.rejected.insert((stat.id, stat.size));
            }
        }
        let Some((stat, path, file, is_compressed)) = found else { return };
        // A source that was made for it and never resolved gives way.
        if let Some(other) = self.by_id.get(&(input, stat.id)).copied() {
            self.remove(other);
        }
        let size_and_time = (stat.size, stat.modified_ns);
        self.bind(now, slot, stat.id, &path, file, is_compressed, size_and_time);
    }

    /// Whether what `file` holds ends at `position`.
    fn ends_at(&self, file: &Arc<D::File>, is_compressed: bool, position: u64) -> bool {
        if !is_compressed {
            return self.disk.stat_open(file).is_ok_and(|stat| stat.size == position);
        }
        let ends = || -> io::Result<bool> {
            let Some(mut stream) = Stream::open(&self.disk, file.clone())? else {
                return Ok(false);
            };
            Ok(stream.skip_to(position)? && stream.read(&mut [0])? == 0)
        };
        ends().unwrap_or(false)
    }

    /// Whether another generation has more in common with `file` than the one in `slot`.
    ///
    /// Of a file that held nothing but its first line, every file that begins so seems to be a copy.
    fn is_rather_anothers(&self, slot: usize, file: &Arc<D::File>, is_compressed: bool) -> bool {
        let Some(source) = &self.sources[slot] else { return true };
        let first = if is_compressed {
            Stream::head(&self.disk, file.clone(), HEAD_BYTES)
        } else {
            let mut first = vec![0; HEAD_BYTES];
            self.disk.read_at(file, 0, &mut first).map(|length| {
                first.truncate(length);
                Some(first)
            })
        };
        // What is still being written may become anything.
        let Ok(Some(first)) = first else { return true };
        let longer = source.state.head.bytes.saturating_add(1);
        self.head_lengths
            .range(longer..)
            .map(|(length, _)| usize::from(*length))
            .filter(|length| *length <= first.len())
            .any(|length| {
                let head = Head::of(&first[..length]);
                self.heads.contains_key(&(source.input, head.bytes, head.hash))
            })
    }

    fn is_taken(&self, input: usize, id: FileId) -> bool {
        let owner = self.by_id.get(&(input, id)).and_then(|slot| self.sources[*slot].as_ref());
        owner.is_some_and(|source| source.is_resolved)
    }

    /// No copy was found in time: what was read of an unfinished line is its end.
    pub(super) fn give_up(&mut self, now: Now, slot: usize) {
        if self.sources[slot].as_ref().is_some_and(|source| source.harvester.is_some()) {
            self.step(now, slot, Input::Finish);
        }
        let Some(source) = &mut self.sources[slot] else { return };
        source.wanted_until = None;
        if !source.in_flight.is_empty() && source.harvester.is_none() {
            return;
        }
        let unread = source
            .size
            .saturating_sub(source.harvester.as_ref().map_or(source.resume, Harvester::position));
        if unread > 0 && !source.state.compressed {
            metrics::UNFOUND_BYTES.inc_by(unread);
            warn!(
                path = %source.path.display(), from = source.position(), to = source.size,
                "these bytes were not read before the file went, and no copy of it was found beside it"
            );
        }
        source.state.is_finished = true;
        source.is_dirty = true;
        let position = source.position();
        source.drop_harvester(position);
        source.rejected.clear();
    }

    /// Leaves a file alone for good.
    pub(super) fn skip_file(&mut self, slot: usize, why: Why, label: &str, message: &str) {
        let Some(source) = &self.sources[slot] else { return };
        warn!(path = %source.path.display(), "{message}");
        metrics::SKIPPED_FILES.with_label_values(&[label]).inc();
        if let Some(id) = source.state.file {
            let stat = Stat {
                id,
                size: source.size,
                modified_ns: source.modified_ns,
                links: 1,
                is_file: true,
            };
            let key = (source.input, id);
            self.remove(slot);
            self.ignore(key, why, &stat);
        }
    }
}

/// Whether `candidate` is named as a rotated form of `original`, beside it.
fn is_related(original: &Path, candidate: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    original.parent() == candidate.parent()
        && matches!((name(original), name(candidate)), (Some(a), Some(b)) if is_rotated_name(&a, &b))
}

const _: () = assert!(GUARD_BYTES <= u8::MAX as usize);
