//! Which files there are: the scan of the directories is the truth, events only ask for it.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use elkfk_wire::source_id::Generation;
use tracing::{debug, info, warn};

use crate::config::{InputConfig, StartAt};
use crate::discovery::Listing;
use crate::disk::{Disk, Kind};
use crate::harvester::{Harvester, Input};
use crate::identity::{FileId, Head, Stat};
use crate::metrics;
use crate::registry::{self, FileState, Journal};

use super::source::{Ignored, Source, Why};
use super::{COPY_PATIENCE, Engine, Now, Sender, TOMBSTONE_MS};

impl<D, S, J> Engine<D, S, J>
where
    D: Disk + Clone + Send + 'static,
    D::File: Send + Sync + 'static,
    S: Sender,
    J: Journal,
{
    /// Takes over a generation that the registry knows.
    pub(super) fn adopt(&mut self, input: usize, state: FileState, now: Now) {
        let file = state.file;
        // Of two that claim one file, the file holds the one that was begun later.
        if let Some(older) = file.and_then(|id| self.by_id.get(&(input, id)).copied()) {
            self.unbind(now, older, false);
        }
        let slot = self.insert(input, state, now.instant);
        let source = self.sources[slot].as_mut().expect("it was just put there");
        source.is_resolved = true;
        source.durable_with = 0;
        // Without a mark nothing was sent.
        let is_unsent = source.state.days.is_empty();
        source.sent_to = if is_unsent { Some(0) } else { source.state.sent_to };
        source.modified_ns = source.state.modified_ns;
        source.size = source.state.position;
        if file.is_none() && !source.state.is_finished {
            source.wanted_until = Some(now.instant + COPY_PATIENCE);
        }
        self.index_head(slot);
    }

    /// Keeps the entry of an input that is not configured at the moment.
    pub(super) fn keep(&mut self, state: FileState) {
        debug!(
            path = state.path,
            input = state.input,
            "the registry knows a file of no configured input"
        );
        self.kept.push(state);
    }

    /// Goes on with a file that an input without an id of its own read before that input's paths were
    /// changed, if this one has none either.
    fn take_over(&mut self, now: Now, input: usize, id: FileId) -> Option<usize> {
        let name = &self.inputs[input].config.id;
        if self.kept.is_empty() || !InputConfig::is_derived(name) {
            return None;
        }
        let is_it =
            |state: &FileState| state.file == Some(id) && InputConfig::is_derived(&state.input);
        let at = self.kept.iter().rposition(is_it)?;
        let state = FileState { input: name.clone(), ..self.kept.swap_remove(at) };
        self.adopt(input, state, now);
        let slot = self.by_id.get(&(input, id)).copied()?;
        self.sources[slot].as_mut()?.is_dirty = true;
        Some(slot)
    }

    /// Puts a source into a free slot.
    pub(super) fn insert(&mut self, input: usize, state: FileState, now: Instant) -> usize {
        let (slot, number) = self.free.pop().unwrap_or((self.sources.len(), 0));
        let source = Source::new(input, state, number, now);
        if let Some(id) = source.state.file {
            self.by_id.insert((input, id), slot);
        }
        let path = source.path.clone();
        if slot == self.sources.len() {
            self.sources.push(Some(source));
        } else {
            self.sources[slot] = Some(source);
        }
        self.list_path(&path, slot);
        slot
    }

    /// A new generation for the file `id`, not in the registry yet.
    pub(super) fn insert_new(&mut self, input: usize, id: FileId, path: &Path, now: Now) -> usize {
        let state = FileState {
            generation: Generation::new(now.unix_ms, (self.random)()),
            input: self.inputs[input].config.id.clone(),
            file: Some(id),
            was_in: None,
            path: path.to_string_lossy().into_owned(),
            head: Head::default(),
            guard: None,
            position: 0,
            cuts: Vec::new(),
            days: Vec::new(),
            sent_to: None,
            partition: None,
            compressed: false,
            stream_end: None,
            modified_ns: 0,
            gone_ms: 0,
            is_finished: false,
        };
        debug!(path = %path.display(), inode = id.inode, generation = ?state.generation, "new generation");
        let slot = self.insert(input, state, now.instant);
        let source = self.sources[slot].as_mut().expect("it was just put there");
        source.sent_to = Some(0);
        if source.path != path {
            // A name that is not UTF-8: the registry has its likeness, we need the original.
            self.move_path(slot, path);
        }
        slot
    }

    /// Takes a source out altogether. What of it is in flight is answered to nobody.
    pub(super) fn remove(&mut self, slot: usize) {
        self.close(slot);
        self.unindex_head(slot);
        let Some(source) = self.sources[slot].take() else { return };
        self.unlist_path(&source.path, slot);
        if let Some(id) = source.state.file
            && self.by_id.get(&(source.input, id)) == Some(&slot)
        {
            self.by_id.remove(&(source.input, id));
        }
        if let (true, Some(partition)) = (source.is_assigned, source.state.partition)
            && let Some(topic) = &self.inputs[source.input].fixed_topic
            && let Some(table) = self.tables.get_mut(topic)
        {
            table.release(partition);
        }
        self.active.retain(|other| *other != slot);
        self.free.push((slot, source.in_flight.next_number()));
    }

    fn list_path(&mut self, path: &Path, slot: usize) {
        self.by_path.entry(path.into()).or_default().insert(slot);
        if let Some(directory) = path.parent() {
            self.by_directory.entry(directory.into()).or_default().insert(slot);
        }
    }

    fn unlist_path(&mut self, path: &Path, slot: usize) {
        let mut unlist = |of_directory: bool, key: &Path| {
            let map = if of_directory { &mut self.by_directory } else { &mut self.by_path };
            if let Some(slots) = map.get_mut(key) {
                slots.remove(&slot);
                if slots.is_empty() {
                    map.remove(key);
                }
            }
        };
        unlist(false, path);
        if let Some(directory) = path.parent() {
            unlist(true, directory);
        }
    }

    pub(super) fn move_path(&mut self, slot: usize, path: &Path) {
        let Some(source) = &mut self.sources[slot] else { return };
        let old = std::mem::replace(&mut source.path, path.into());
        source.is_dirty = true;
        self.unlist_path(&old, slot);
        self.list_path(path, slot);
    }

    /// Gives the descriptor back. The harvester is dropped with it.
    pub(super) fn close(&mut self, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        if source.file.take().is_some() {
            self.open_files -= 1;
        }
        if let Some(resume) = source.harvester.as_ref().map(Harvester::open_start) {
            source.drop_harvester(resume);
        }
    }

    pub(super) fn scan_if_due(&mut self, now: Now) {
        let is_rescan = self.wants_rescan && now.instant >= self.rescan_due();
        let is_due = |due: Instant| due <= now.instant || is_rescan;
        if !self.inputs.iter().any(|input| is_due(input.scan_due)) {
            return;
        }
        self.wants_rescan &= !is_rescan;
        let started = Instant::now();
        for input in 0..self.inputs.len() {
            if is_due(self.inputs[input].scan_due) {
                self.scan(now, input);
                self.inputs[input].scan_due =
                    now.instant + self.inputs[input].config.check_interval;
            }
        }
        self.last_scan_took = started.elapsed();
        self.last_scan_ended = now.instant;
    }

    fn scan(&mut self, now: Now, input: usize) {
        let mut listing = Listing::default();
        let state = &self.inputs[input];
        for pattern in &state.patterns {
            pattern.walk(&self.disk, state.config.symlinks, &mut listing);
        }
        let is_excluded = |path: &Path| {
            let text = path.to_string_lossy();
            let config = &state.config;
            config.exclude_files.iter().any(|pattern| pattern.is_match(&text))
                || !config.include_files.is_empty()
                    && !config.include_files.iter().any(|pattern| pattern.is_match(&text))
        };
        listing.files.retain(|path, _| !is_excluded(path));
        self.directories[input].clone_from(&listing.directories);
        self.scans += 1;
        self.report_failures(input, &listing);

        // Known files first: a file must be found under its new name before its old name's new
        // owner is looked at.
        let mut seen = HashSet::new();
        let mut unknown = Vec::new();
        for (path, stat) in &listing.files {
            if !seen.insert(stat.id) {
                continue;
            }
            match self.by_id.get(&(input, stat.id)).copied() {
                Some(slot) => self.meet_again(now, slot, path, stat),
                None => unknown.push((path, stat)),
            }
        }
        self.look_for_unseen(now, input, &seen, &listing);
        for (path, stat) in unknown {
            self.meet(now, input, path, stat);
        }
        self.shadows.retain(|(of, id), _| *of != input || seen.contains(id));
        self.ignored.retain(|(of, id), _| *of != input || seen.contains(id));
        self.look_for_copies(now, input);
        self.forget_old(now, input);
        self.inputs[input].is_scanned = true;
    }

    fn report_failures(&mut self, input: usize, listing: &Listing) {
        for (path, error) in &listing.failures {
            if !self.inputs[input].is_scanned {
                warn!(path = %path.display(), %error, "cannot be listed; give this user the right to read it");
            }
        }
    }

    /// A known file was found at `path`.
    fn meet_again(&mut self, now: Now, slot: usize, path: &Path, stat: &Stat) {
        let Some(source) = &mut self.sources[slot] else { return };
        source.is_detached = false;
        source.is_deleted = false;
        let has_changed = (source.size, source.modified_ns) != (stat.size, stat.modified_ns);
        let is_behind = source.position() != stat.size && !source.state.compressed;
        source.size = stat.size;
        source.modified_ns = stat.modified_ns;
        if source.path != path {
            source.is_renamed = true;
            debug!(from = %source.path.display(), to = %path.display(), "file renamed");
            self.move_path(slot, path);
        }
        let source = self.sources[slot].as_ref().expect("looked up above");
        if has_changed || is_behind && source.file.is_none() {
            self.activate(slot);
            // A file may be deleted before its turn comes: hold it now.
            self.hold(now, slot);
        }
    }

    /// Opens the file of a source, so that its deletion takes nothing from us.
    pub(super) fn hold(&mut self, now: Now, slot: usize) {
        let Some(source) = &self.sources[slot] else { return };
        if source.file.is_some() || source.state.file.is_none() || source.state.is_finished {
            return;
        }
        if self.open_files >= self.limits.open_files && !self.close_an_idle_one() {
            return;
        }
        let source = self.sources[slot].as_mut().expect("looked up above");
        match self.disk.open(&source.path).and_then(|file| Ok((self.disk.stat_open(&file)?, file)))
        {
            Ok((stat, file)) if Some(stat.id) == source.state.file => {
                source.size = stat.size;
                source.modified_ns = stat.modified_ns;
                source.file = Some(Arc::new(file));
                source.last_growth = now.instant;
                self.open_files += 1;
            }
            // Another file has the name by now: the next scan sorts it out.
            Ok(_) => self.wants_rescan = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.wants_rescan = true,
            Err(error) => {
                if source.last_error.is_none() {
                    let path = source.path.display();
                    warn!(%path, %error, "cannot be read; give this user the right to read it");
                }
                source.last_error = Some(error.to_string());
            }
        }
    }

    fn close_an_idle_one(&mut self) -> bool {
        let idle = self.sources.iter().position(|source| {
            source.as_ref().is_some_and(|source| {
                source.file.is_some()
                    && !source.is_active
                    && !source.is_deleted
                    && !source.is_detached
                    && source.in_flight.is_empty()
                    && source.harvester.as_ref().is_none_or(|h| h.open_start() == h.position())
            })
        });
        idle.is_some_and(|slot| {
            self.close(slot);
            true
        })
    }

    /// A file that no source stands for was found.
    fn meet(&mut self, now: Now, input: usize, path: &Path, stat: &Stat) {
        let key = (input, stat.id);
        if let Some(shadow) = self.shadows.get(&key) {
            let is_orphaned =
                self.sources[shadow.of].as_ref().is_none_or(|s| s.state.file.is_none());
            let has_changed = (shadow.size, shadow.modified_ns) != (stat.size, stat.modified_ns);
            // A short file that stays the same may just begin as the other did.
            let is_short_and_old = shadow.size < super::copies::SURE_BYTES
                && now.instant.duration_since(shadow.since) > Duration::from_secs(60);
            if !is_orphaned && !has_changed && !is_short_and_old {
                return;
            }
        }
        if let Some(ignored) = self.ignored.get(&key) {
            let is_same = (ignored.size, ignored.modified_ns) == (stat.size, stat.modified_ns);
            match ignored.why {
                Why::Binary | Why::Compressed if stat.size >= ignored.size => return,
                Why::Old | Why::Damaged if is_same => return,
                _ => {}
            }
        }
        if let Some(slot) = self.take_over(now, input, stat.id) {
            self.meet_again(now, slot, path, stat);
            return;
        }
        let config = &self.inputs[input].config;
        let age_ms = now.unix_ms.saturating_sub(stat.modified_ns / 1_000_000);
        if config.ignore_older.is_some_and(|limit| u128::from(age_ms) > limit.as_millis()) {
            self.ignore(key, Why::Old, stat);
            return;
        }
        let modified_ms = stat.modified_ns / 1_000_000;
        let starts_at_end = match config.start_at {
            StartAt::Beginning => false,
            StartAt::End => !self.inputs[input].is_scanned,
            StartAt::SinceStart => modified_ms < self.started_ms,
            StartAt::SinceFirstStart => modified_ms < self.begun_ms,
        };
        if self.open_files >= self.limits.open_files && !self.close_an_idle_one() {
            // It stays unknown; a later scan finds it again.
            return;
        }
        let file = match self.disk.open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => {
                if !self.ignored.contains_key(&key) {
                    warn!(path = %path.display(), %error, "cannot be read; give this user the right to read it");
                    metrics::SKIPPED_FILES.with_label_values(&["unreadable"]).inc();
                }
                self.ignore(key, Why::Unreadable, stat);
                return;
            }
        };
        let Ok(stat) = self.disk.stat_open(&file) else { return };
        if stat.id != key.1 {
            self.wants_rescan = true;
            return;
        }
        if self.ignored.remove(&key).is_some_and(|ignored| ignored.why == Why::Unreadable) {
            info!(path = %path.display(), "can be read now");
        }
        let slot = self.insert_new(input, stat.id, path, now);
        let source = self.sources[slot].as_mut().expect("it was just put there");
        source.file = Some(Arc::new(file));
        source.size = stat.size;
        source.modified_ns = stat.modified_ns;
        self.open_files += 1;
        if starts_at_end && stat.size > 0 {
            self.start_at_end(slot, stat.size);
        }
        self.activate(slot);
    }

    fn start_at_end(&mut self, slot: usize, size: u64) {
        let Some(source) = &mut self.sources[slot] else { return };
        let Some(file) = &source.file else { return };
        let mut head = vec![0; crate::identity::HEAD_BYTES];
        let Ok(length) = self.disk.read_at(file, 0, &mut head) else { return };
        head.truncate(length);
        if crate::compressed::Codec::of(&head).is_some() {
            return;
        }
        source.state.head = Head::of(&head);
        source.state.position = size;
        source.resume = size;
        source.in_flight.cover(size);
        source.is_resolved = true;
        source.is_dirty = true;
        self.index_head(slot);
        self.enrol(slot);
    }

    /// Writes the generation to the registry; it is durable after the next sync.
    pub(super) fn enrol(&mut self, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        source.note_progress();
        let mut bytes = Vec::new();
        registry::write_state(&source.state, &mut bytes);
        let entry = self.append(&bytes);
        if let Some(source) = &mut self.sources[slot] {
            source.durable_with = source.durable_with.min(entry);
        }
    }

    pub(super) fn ignore(&mut self, key: (usize, FileId), why: Why, stat: &Stat) {
        let ignored = Ignored { why, size: stat.size, modified_ns: stat.modified_ns };
        self.ignored.insert(key, ignored);
    }

    /// Files that no pattern found this time: deleted, renamed out of sight, or gone with a mount.
    fn look_for_unseen(
        &mut self,
        now: Now,
        input: usize,
        seen: &HashSet<FileId>,
        listing: &Listing,
    ) {
        let mut entries: BTreeMap<PathBuf, Option<BTreeMap<FileId, PathBuf>>> = BTreeMap::new();
        for slot in 0..self.sources.len() {
            let Some(source) = &self.sources[slot] else { continue };
            let Some(id) =
                source.state.file.filter(|id| source.input == input && !seen.contains(id))
            else {
                continue;
            };
            if let Some(file) = &source.file {
                let links = self.disk.stat_open(file).map_or(0, |stat| stat.links);
                let source = self.sources[slot].as_mut().expect("looked up above");
                let is_news = !source.is_detached || (links == 0 && !source.is_deleted);
                source.is_detached = true;
                source.is_renamed = true;
                source.is_deleted = links == 0;
                if is_news {
                    self.activate(slot);
                }
                continue;
            }
            let directory = source.path.parent().unwrap_or(Path::new("/")).to_path_buf();
            if listing.failures.iter().any(|(path, _)| directory.starts_with(path)) {
                continue;
            }
            let disk = &self.disk;
            let ids = entries.entry(directory.clone()).or_insert_with(|| ids_in(disk, &directory));
            // Where the directory cannot be listed, nothing is known to be gone.
            let Some(ids) = ids else { continue };
            match ids.get(&id) {
                Some(path) => {
                    let path = path.clone();
                    if !source.is_detached || source.path != path {
                        let source = self.sources[slot].as_mut().expect("looked up above");
                        source.is_detached = true;
                        source.is_renamed = true;
                        self.move_path(slot, &path);
                        self.activate(slot);
                        self.hold(now, slot);
                    }
                }
                None => {
                    self.unbind(now, slot, false);
                    if let Some(source) = &mut self.sources[slot] {
                        source.state.was_in = Some(id);
                    }
                }
            }
        }
    }

    /// The source's file is gone, or holds something else now.
    pub(super) fn unbind(&mut self, now: Now, slot: usize, is_finished: bool) {
        let Some(source) = &mut self.sources[slot] else { return };
        let Some(id) = source.state.file.take() else { return };
        // Of a file that held nothing, any other might be a copy.
        let is_finished = is_finished || source.state.head.bytes == 0;
        debug!(path = %source.path.display(), position = source.position(), is_finished, "file gone");
        source.state.gone_ms = now.unix_ms.max(1);
        source.state.is_finished |= is_finished;
        source.is_dirty = true;
        if !is_finished {
            source.wanted_until = Some(now.instant + COPY_PATIENCE);
        }
        let key = (source.input, id);
        if self.by_id.get(&key) == Some(&slot) {
            self.by_id.remove(&key);
        }
        if source.file.take().is_some() {
            self.open_files -= 1;
        }
        source.stream = None;
    }

    fn forget_old(&mut self, now: Now, input: usize) {
        for slot in 0..self.sources.len() {
            let Some(source) = &self.sources[slot] else { continue };
            let gone = source.state.gone_ms;
            if source.input == input
                && source.state.file.is_none()
                && source.in_flight.is_empty()
                && gone > 0
                && now.unix_ms > gone + TOMBSTONE_MS
            {
                let mut bytes = Vec::new();
                registry::write_forget(source.state.generation, &mut bytes);
                self.append(&bytes);
                self.remove(slot);
            }
        }
    }

    /// Whether nothing of a file is left to be read. One that grew unnoticed is read first: its event
    /// may be late, and a deleted file has none.
    fn is_drained(&mut self, slot: usize) -> bool {
        let Some(source) = &self.sources[slot] else { return false };
        if !source.is_at_end || source.is_active || source.retry_at.is_some() {
            return false;
        }
        let Some(file) = source.file.as_ref().filter(|_| !source.state.compressed) else {
            return true;
        };
        // Truncated is not drained either.
        if self.disk.stat_open(file).is_ok_and(|stat| stat.size == source.looked_up_to) {
            return true;
        }
        self.activate(slot);
        false
    }

    /// What time brings for one source.
    pub(super) fn tick_source(&mut self, now: Now, slot: usize) {
        let Some(source) = &mut self.sources[slot] else { return };
        if source.retry_at.is_some_and(|at| at <= now.instant) {
            source.retry_at = None;
            self.activate(slot);
        }
        let Some(source) = &self.sources[slot] else { return };
        let deadline = source.harvester.as_ref().and_then(Harvester::deadline);
        // Time ends an event only where no more lines wait to be read.
        if deadline.is_some_and(|at| at <= now.instant)
            && (source.state.file.is_none() || self.is_drained(slot))
        {
            self.step(now, slot, Input::Tick);
        }
        let Some(source) = &mut self.sources[slot] else { return };
        if source.state.file.is_none() {
            if source.wanted_until.is_some_and(|until| until <= now.instant) {
                self.give_up(now, slot);
            }
            return;
        }
        if source.file.is_none() {
            return;
        }
        let input = source.input;
        let config = &self.inputs[input].config.close;
        let quiet = now.instant.duration_since(source.last_growth);
        let patience = match source.is_deleted {
            true if config.removed => Duration::ZERO,
            _ => self.limits.partial_timeout,
        };
        let is_open_ended =
            source.harvester.as_ref().is_some_and(|h| h.open_start() < h.position());
        // A file that nobody renamed may be in the middle of a line for as long as it counts as active.
        let patience_with_line = if source.is_renamed { patience } else { config.inactive };
        let is_drained = self.is_drained(slot);
        let config = &self.inputs[input].config.close;
        let Some(source) = &mut self.sources[slot] else { return };
        if is_drained && is_open_ended && quiet >= patience_with_line {
            self.step(now, slot, Input::Finish);
            return;
        }
        if is_drained && source.in_flight.is_empty() && !is_open_ended {
            if source.is_deleted && quiet >= patience {
                let is_resolved = source.is_resolved;
                self.unbind(now, slot, true);
                if !is_resolved {
                    // It never had a byte.
                    self.remove(slot);
                }
                return;
            }
            let is_idle = quiet >= config.inactive
                || config.eof && quiet >= Duration::from_secs(1)
                || config.renamed && source.is_renamed && quiet >= patience;
            if is_idle && !source.is_deleted {
                self.close(slot);
                return;
            }
        }
        if source.is_detached && !source.is_active {
            // No event tells of it any more.
            self.activate(slot);
        }
    }
}

/// The regular files of a directory by identity; none where it cannot be listed in full.
pub(super) fn ids_in<D: Disk>(disk: &D, directory: &Path) -> Option<BTreeMap<FileId, PathBuf>> {
    let entries = match disk.list(directory) {
        Ok(entries) => entries,
        // The directory went with its files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(BTreeMap::new()),
        Err(_) => return None,
    };
    let mut ids = BTreeMap::new();
    for (name, kind) in entries {
        if kind == Kind::File {
            let path = directory.join(name);
            match disk.stat(&path) {
                Ok(stat) => {
                    ids.insert(stat.id, path);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return None,
            }
        }
    }
    Some(ids)
}
