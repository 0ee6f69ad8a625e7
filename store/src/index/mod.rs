//! One index: its mapping, its documents, and the group commit that makes them durable.
//!
//! Whoever has a bulk request takes a builder (a segment in the making), adds its documents on its
//! own thread, gives the builder back and asks for a commit. One of those who wait commits for all:
//! it turns every builder that is not in use into a segment and publishes them by one rename of
//! `meta.json`. Nobody indexes while holding a lock, and nobody is answered before that rename is
//! on disk.

mod builder;
pub mod directory;
pub mod document;
pub mod ids;
mod merge;
pub mod parse;
mod replaced;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elkfk_base::durable;
use serde_json::{Map, Value, json};
use tantivy::directory::MmapDirectory;
use tantivy::index::{IndexSettings, SegmentMeta};
use tantivy::indexer::{IndexWriterOptions, NoMergePolicy};
use tantivy::schema::IndexRecordOption;
use tantivy::store::Compressor;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{
    DocAddress, DocSet, FutureResult, IndexReader, IndexWriter, ReloadPolicy, Searcher, TERMINATED,
    Term,
};

use crate::analysis::{self, StandardTokenizer};
use crate::error::EsError;
use crate::mapping::Mapping;
use crate::metrics;

use builder::{BUILDERS_MAX, Batch, Builder, Builders, COMMITTED, FAILED, Lent};
use directory::DurableDirectory;
use document::{Fields, Prepared};
use ids::{Known, Ledger};
use parse::SharedMapping;
use replaced::Replaced;

/// How long a commit waits for requests that are adding their documents, to take them along.
const GROUP_WAIT: Duration = Duration::from_millis(150);
/// Deleted ids whose version goes on if they come back.
const TOMBSTONES_MAX: usize = 10_000;

/// What an index is besides its documents; `index.json` in its directory.
#[derive(Debug, Clone)]
pub struct IndexInfo {
    pub uuid: String,
    pub created_ms: i64,
    /// Under `index`, as Elasticsearch nests it, values as texts.
    pub settings: Map<String, Value>,
    pub aliases: Map<String, Value>,
    pub is_closed: bool,
    /// The data stream it is the backing index of.
    pub data_stream: Option<String>,
}

impl IndexInfo {
    fn to_json(&self, mapping: &Mapping) -> Value {
        json!({
            "uuid": self.uuid, "created_ms": self.created_ms, "settings": self.settings, "aliases": self.aliases,
            "closed": self.is_closed, "data_stream": self.data_stream, "mappings": mapping.to_json(),
            "dynamic": mapping.fields.iter().filter(|field| field.is_dynamic).map(|field| &*field.path).collect::<Vec<_>>(),
        })
    }

    fn from_json(json: &Value) -> Option<Self> {
        Some(Self {
            uuid: json.get("uuid")?.as_str()?.to_owned(),
            created_ms: json.get("created_ms")?.as_i64()?,
            settings: json.get("settings")?.as_object()?.clone(),
            aliases: json.get("aliases")?.as_object()?.clone(),
            is_closed: json.get("closed").and_then(Value::as_bool).unwrap_or(false),
            data_stream: json.get("data_stream").and_then(Value::as_str).map(str::to_owned),
        })
    }
}

/// What is to be done with one id.
#[derive(Debug)]
pub enum Op {
    /// `create` fails with 409 where the id exists; without it the document replaces its older self.
    Put {
        document: Box<Prepared>,
        is_create: bool,
        is_auto_id: bool,
        /// The sequence number its older self must have, or there is a conflict.
        expects: Option<u64>,
    },
    Delete {
        id: Box<str>,
        expects: Option<u64>,
    },
}

impl Op {
    fn id(&self) -> &str {
        match self {
            Self::Put { document, .. } => &document.id,
            Self::Delete { id, .. } => id,
        }
    }
}

/// How one operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub result: OpResult,
    pub version: u64,
    pub seq_no: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpResult {
    Created,
    Updated,
    Deleted,
    NotFound,
    /// `create` of an id that exists, or not the older self that was expected; nothing was changed.
    Conflict,
}

/// Whoever commits; the next may when it is dropped.
struct Committing<'a>(&'a Index);

impl Drop for Committing<'_> {
    fn drop(&mut self) {
        *lock(&self.0.is_committing) = false;
        self.0.committed.notify_all();
    }
}

/// An id whose document is not committed yet.
struct Pending {
    batch: Arc<Batch>,
    version: u64,
}

#[derive(Default)]
struct State {
    ledger: Ledger,
    pending: HashMap<Box<str>, Pending>,
    tombstones: HashMap<Box<str>, u64>,
    tombstone_order: VecDeque<Box<str>>,
    /// The next sequence number; `None` until the index was asked.
    next_seq_no: Option<u64>,
}

/// A document found by its id.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub address: DocAddress,
    pub version: u64,
    pub seq_no: u64,
}

pub struct Index {
    pub name: String,
    directory: PathBuf,
    pub fields: Fields,
    pub mapping: SharedMapping,
    info: Mutex<IndexInfo>,
    /// The mapping that is on disk.
    saved_mapping: Mutex<Arc<Mapping>>,
    tantivy: tantivy::Index,
    reader: Mutex<Option<IndexReader>>,
    writer: Mutex<Option<IndexWriter<Prepared>>>,
    builders: Mutex<Builders>,
    builder_returned: Condvar,
    state: Mutex<State>,
    is_committing: Mutex<bool>,
    committed: Condvar,
    is_deleted: AtomicBool,
    /// Since when nobody wrote; for choosing which writer to close.
    last_write: Mutex<Instant>,
    /// Whether what a reader would be opened on is known to be on disk, not in the kernel's memory only.
    is_synced: AtomicBool,
    /// The merge under way.
    merge: Mutex<Option<FutureResult<Option<SegmentMeta>>>>,
    /// Whether there was something to merge after the last change of segments.
    wants_merge: AtomicBool,
    #[cfg(test)]
    before_publish: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("name", &self.name).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const INFO_FILE: &str = "index.json";
const SEGMENTS: &str = "segments";

impl Index {
    /// Makes an index in `directory`, durable when it returns.
    pub fn create(
        directory: &Path,
        name: &str,
        info: IndexInfo,
        mapping: Mapping,
    ) -> Result<Self, EsError> {
        let segments = directory.join(SEGMENTS);
        std::fs::create_dir_all(&segments)?;
        let (schema, _) = document::schema();
        let settings = IndexSettings {
            docstore_compression: Compressor::Lz4,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let directory_handle =
            DurableDirectory(MmapDirectory::open(&segments).map_err(tantivy::TantivyError::from)?);
        tantivy::Index::create(directory_handle, schema, settings)?;
        // Written last: a directory without it is half made and removed at the next start.
        write_info(directory, &info, &mapping)?;
        durable::sync_parent(directory)?;
        Self::open(directory, name)
    }

    pub fn open(directory: &Path, name: &str) -> Result<Self, EsError> {
        let text = std::fs::read_to_string(directory.join(INFO_FILE))?;
        let json: Value = serde_json::from_str(&text)
            .map_err(|e| EsError::internal(format!("read {INFO_FILE} of [{name}]: {e}")))?;
        let info = IndexInfo::from_json(&json).ok_or_else(|| {
            EsError::internal(format!("read {INFO_FILE} of [{name}]: keys missing"))
        })?;
        let mut mapping = Mapping::from_json(json.get("mappings").unwrap_or(&Value::Null))?;
        for path in json
            .get("dynamic")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if let Some(field) = mapping.fields.iter_mut().find(|field| &*field.path == path) {
                field.is_dynamic = true;
            }
        }
        let mmap =
            MmapDirectory::open(directory.join(SEGMENTS)).map_err(tantivy::TantivyError::from)?;
        let mut tantivy = tantivy::Index::open(DurableDirectory(mmap))?;
        tantivy.set_tokenizers(tokenizers());
        let (_, fields) = document::schema();
        let mapping = SharedMapping::new(mapping);
        Ok(Self {
            name: name.to_owned(),
            directory: directory.to_owned(),
            fields,
            saved_mapping: Mutex::new(mapping.get()),
            mapping,
            info: Mutex::new(info),
            tantivy,
            reader: Mutex::new(None),
            writer: Mutex::new(None),
            builders: Mutex::default(),
            builder_returned: Condvar::new(),
            state: Mutex::default(),
            is_committing: Mutex::new(false),
            committed: Condvar::new(),
            is_deleted: AtomicBool::new(false),
            last_write: Mutex::new(Instant::now()),
            is_synced: AtomicBool::new(false),
            merge: Mutex::new(None),
            // Looked at when its turn comes: it may have been left with many by its last writer.
            wants_merge: AtomicBool::new(true),
            #[cfg(test)]
            before_publish: Mutex::new(None),
        })
    }

    pub fn info(&self) -> IndexInfo {
        lock(&self.info).clone()
    }

    /// Changes what is not documents; durable when it returns.
    pub fn update_info(&self, change: impl FnOnce(&mut IndexInfo)) -> Result<(), EsError> {
        let mut info = lock(&self.info);
        let mut changed = info.clone();
        change(&mut changed);
        write_info(&self.directory, &changed, &self.mapping.get())?;
        *info = changed;
        Ok(())
    }

    /// Makes the mapping durable if it grew since it last was.
    pub fn save_mapping(&self) -> Result<(), EsError> {
        let mut saved = lock(&self.saved_mapping);
        let current = self.mapping.get();
        if !Arc::ptr_eq(&saved, &current) {
            write_info(&self.directory, &lock(&self.info).clone(), &current)?;
            *saved = current;
        }
        Ok(())
    }

    /// A view of everything committed.
    pub fn searcher(&self) -> Result<Searcher, EsError> {
        let mut reader = lock(&self.reader);
        if let Some(reader) = &*reader {
            return Ok(reader.searcher());
        }
        // A commit whose process was killed, or which failed, between its rename and the sync of the
        // directory: whoever is told that a document exists must find it after a power cut too.
        if !self.is_synced.load(Ordering::Acquire) {
            durable::sync_directory(&self.directory.join(SEGMENTS))?;
            durable::sync_directory(&self.directory)?;
            self.is_synced.store(true, Ordering::Release);
        }
        let opened = self
            .tantivy
            .reader_builder()
            .reload_policy(ReloadPolicy::Manual)
            .doc_store_cache_num_blocks(4)
            .try_into()?;
        let searcher = opened.searcher();
        *reader = Some(opened);
        Ok(searcher)
    }

    /// Closes files that only searches need; they are opened again when asked.
    pub fn close_reader(&self) {
        *lock(&self.reader) = None;
    }

    pub fn has_reader(&self) -> bool {
        lock(&self.reader).is_some()
    }

    pub fn has_writer(&self) -> bool {
        lock(&self.writer).is_some()
    }

    pub fn idle_since(&self) -> Instant {
        *lock(&self.last_write)
    }

    /// Stops a merge and frees what writing needs. Waits for a commit in progress.
    pub fn close_writer(&self) {
        drop(lock(&self.writer).take());
        self.forget_ids();
    }

    /// Frees what is remembered of ids; it is found again in the index.
    pub fn forget_ids(&self) {
        let mut state = lock(&self.state);
        if state.pending.is_empty() {
            state.ledger = Ledger::default();
        }
    }

    /// Marks it as gone, so that late writers fail, and waits for a commit in progress.
    pub fn delete(&self) {
        self.is_deleted.store(true, Ordering::Release);
        let mut is_committing = lock(&self.is_committing);
        while *is_committing {
            is_committing =
                self.committed.wait(is_committing).unwrap_or_else(PoisonError::into_inner);
        }
        drop(is_committing);
        self.close_writer();
        self.close_reader();
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// When segments last changed.
    pub fn last_commit_ms(&self) -> Result<i64, EsError> {
        let changed = self.directory.join(SEGMENTS).join("meta.json").metadata()?.modified()?;
        let since = changed.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// Bytes on disk.
    pub fn disk_bytes(&self) -> u64 {
        let files =
            std::fs::read_dir(self.directory.join(SEGMENTS)).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    /// Finds the committed document with this id.
    pub fn find(&self, searcher: &Searcher, id: &str) -> Result<Option<Found>, EsError> {
        let term = Term::from_field_text(self.fields.id, id);
        for (ord, segment) in searcher.segment_readers().iter().enumerate() {
            let inverted = segment.inverted_index(self.fields.id)?;
            let Some(info) = inverted.get_term_info(&term)? else { continue };
            let mut postings =
                inverted.read_postings_from_terminfo(&info, IndexRecordOption::Basic)?;
            let mut doc = postings.doc();
            while doc != TERMINATED {
                if !segment.is_deleted(doc) {
                    let seq_no =
                        segment.fast_fields().u64(document::SEQ_NO)?.first(doc).unwrap_or(0);
                    let version = segment.fast_fields().column_opt::<u64>(document::VERSION)?;
                    let version = version.and_then(|column| column.first(doc)).unwrap_or(1);
                    return Ok(Some(Found {
                        address: DocAddress::new(ord as u32, doc),
                        version,
                        seq_no,
                    }));
                }
                doc = postings.advance();
            }
        }
        Ok(None)
    }

    /// Applies operations in order and returns when they are durable and searchable.
    ///
    /// `ops` is drawn from as they are indexed, so that documents are read when they are needed;
    /// `bytes` is about how much there is.
    ///
    /// # Errors
    /// The index is gone or the disk failed: then none of them may be taken as done.
    pub fn apply(
        &self,
        ops: impl IntoIterator<Item = Op>,
        bytes: usize,
    ) -> Result<Vec<Outcome>, EsError> {
        *lock(&self.last_write) = Instant::now();
        let mut outcomes = Vec::new();
        let mut waits: Vec<Arc<Batch>> = Vec::new();
        let mut previous: Option<Box<str>> = None;
        let mut ops = Feed { ops: ops.into_iter(), drawn: VecDeque::new() };
        loop {
            // Taken before the first document is read: who has no builder waits without holding more
            // than its body.
            let mut lent = self.take_builder();
            let Some(builder) = &mut lent.builder else { break Ok(outcomes) };
            let added =
                self.fill(builder, &mut ops, &mut outcomes, &mut waits, &mut previous, bytes);
            if !builder.is_empty() && !waits.iter().any(|batch| Arc::ptr_eq(batch, &builder.batch))
            {
                waits.push(builder.batch.clone());
            }
            if let Err(error) = added {
                // Who else has documents in it is told.
                lent.fail(error.reason().to_owned());
                return Err(error);
            }
            lent.give_back();
            // An operation on an id that is not committed yet waits for it, then goes on.
            let is_done = ops.draw().is_empty();
            self.commit_until(&waits)?;
            if is_done {
                return Ok(outcomes);
            }
        }
    }

    /// Adds operations until all are done or one must wait for a commit.
    fn fill(
        &self,
        builder: &mut Builder,
        ops: &mut Feed<impl Iterator<Item = Op>>,
        outcomes: &mut Vec<Outcome>,
        waits: &mut Vec<Arc<Batch>>,
        previous: &mut Option<Box<str>>,
        bytes: usize,
    ) -> Result<(), EsError> {
        if self.is_deleted.load(Ordering::Acquire) {
            return Err(EsError::no_such_index(&self.name));
        }
        let mut decided: Vec<Prepared> = Vec::with_capacity(DECIDE_AT_ONCE);
        loop {
            if ops.draw().is_empty() {
                return Ok(());
            }
            let mut wait = None;
            let mut state = lock(&self.state);
            // After the lock, every time: what is not pending any more was published before it was
            // struck off, so a searcher taken now has it. An older one would take a document that
            // another request committed meanwhile for new.
            let searcher = self.searcher()?;
            while let Some(op) = ops.drawn.front() {
                let (outcome, batch) = match self.decide(
                    &mut state,
                    &searcher,
                    op,
                    &builder.batch,
                    previous.as_deref(),
                )? {
                    Decision::Done(outcome, batch) => (outcome, batch),
                    Decision::Wait(batch) => {
                        wait = Some(batch);
                        break;
                    }
                };
                if let Some(batch) = batch
                    && !waits.iter().any(|wait| Arc::ptr_eq(wait, &batch))
                {
                    waits.push(batch);
                }
                let Some(op) = ops.drawn.pop_front() else { break };
                if matches!(outcome.result, OpResult::Updated | OpResult::Deleted) {
                    let id = Term::from_field_text(self.fields.id, op.id());
                    builder.deletes.push((id, outcome.seq_no));
                }
                if let (
                    OpResult::Created | OpResult::Updated,
                    Op::Put { mut document, is_auto_id, .. },
                ) = (outcome.result, op)
                {
                    (document.seq_no, document.version) = (outcome.seq_no, outcome.version);
                    if !is_auto_id {
                        *previous = Some(document.id.clone());
                    }
                    decided.push(*document);
                }
                outcomes.push(outcome);
            }
            drop(state);
            self.add_all(builder, &mut decided, bytes)?;
            if let Some(batch) = wait {
                waits.push(batch);
                return Ok(());
            }
        }
    }

    fn add_all(
        &self,
        builder: &mut Builder,
        documents: &mut Vec<Prepared>,
        bytes: usize,
    ) -> Result<(), EsError> {
        for document in documents.drain(..) {
            builder.add(&self.tantivy, document, bytes)?;
        }
        Ok(())
    }

    /// What becomes of one operation, and the batch whose commit its answer depends on.
    fn decide(
        &self,
        state: &mut State,
        searcher: &Searcher,
        op: &Op,
        batch: &Arc<Batch>,
        previous: Option<&str>,
    ) -> Result<Decision, EsError> {
        let id = op.id();
        if let Op::Put { is_auto_id: true, .. } = op {
            let seq_no = self.next_seq_no(state, searcher)?;
            return Ok(Decision::Done(
                Outcome { result: OpResult::Created, version: 1, seq_no },
                None,
            ));
        }
        if let Some(pending) = state.pending.get(id) {
            return Ok(match op {
                // Refused now, but answered only when what it collided with is durable.
                Op::Put { is_create: true, .. } => Decision::Done(
                    Outcome { result: OpResult::Conflict, version: pending.version, seq_no: 0 },
                    Some(pending.batch.clone()),
                ),
                _ => Decision::Wait(pending.batch.clone()),
            });
        }
        let known = self.known(state, searcher, id, previous);
        let found = match known {
            Known::Newer | Known::NotInFilter => None,
            Known::Maybe => self.find(searcher, id)?,
        };
        let (Op::Put { expects, .. } | Op::Delete { expects, .. }) = op;
        if expects.is_some() && *expects != found.map(|found| found.seq_no) {
            let (version, seq_no) = found.map_or((0, 0), |found| (found.version, found.seq_no));
            let outcome = Outcome { result: OpResult::Conflict, version, seq_no };
            return Ok(Decision::Done(outcome, None));
        }
        let seq_no = |state: &mut State| self.next_seq_no(state, searcher);
        let outcome = match (op, found) {
            (Op::Put { is_create: true, .. }, Some(found)) => {
                return Ok(Decision::Done(
                    Outcome {
                        result: OpResult::Conflict,
                        version: found.version,
                        seq_no: found.seq_no,
                    },
                    None,
                ));
            }
            (Op::Put { .. }, Some(found)) => Outcome {
                result: OpResult::Updated,
                version: found.version + 1,
                seq_no: seq_no(state)?,
            },
            (Op::Put { .. }, None) => {
                let version = state.tombstones.remove(id).unwrap_or(0) + 1;
                Outcome { result: OpResult::Created, version, seq_no: seq_no(state)? }
            }
            (Op::Delete { .. }, found) => {
                let before = found.map_or_else(
                    || state.tombstones.get(id).copied().unwrap_or(0),
                    |found| found.version,
                );
                let result = if found.is_some() { OpResult::Deleted } else { OpResult::NotFound };
                state.tombstone(id, before + 1);
                Outcome { result, version: before + 1, seq_no: seq_no(state)? }
            }
        };
        if !matches!(outcome.result, OpResult::NotFound) {
            state
                .pending
                .insert(id.into(), Pending { batch: batch.clone(), version: outcome.version });
        }
        Ok(Decision::Done(outcome, None))
    }

    fn known(
        &self,
        state: &mut State,
        searcher: &Searcher,
        id: &str,
        previous: Option<&str>,
    ) -> Known {
        // As long as the ids made here: those never went through the ledger.
        if id.len() == crate::engine::AUTO_ID_CHARS {
            metrics::ID_LOOKUPS.with_label_values(&["terms"]).inc();
            return Known::Maybe;
        }
        let State { ledger, pending, .. } = state;
        let known = ledger.see(
            id,
            previous,
            |source| self.generation_bounds(searcher, pending, source),
            |feed| {
                pending.keys().for_each(|id| feed(id.as_bytes()));
                for segment in searcher.segment_readers() {
                    let Ok(inverted) = segment.inverted_index(self.fields.id) else { continue };
                    let Ok(mut stream) = inverted.terms().stream() else { continue };
                    while stream.advance() {
                        feed(stream.key());
                    }
                }
            },
            searcher.num_docs(),
        );
        metrics::ID_LOOKUPS
            .with_label_values(&[match known {
                Known::Newer => "newer",
                Known::NotInFilter => "filter",
                Known::Maybe => "terms",
            }])
            .inc();
        known
    }

    /// The least and greatest position held of a generation.
    fn generation_bounds(
        &self,
        searcher: &Searcher,
        pending: &HashMap<Box<str>, Pending>,
        source: &elkfk_wire::source_id::SourceId,
    ) -> Option<(u64, u64)> {
        use elkfk_wire::source_id::SourceId;
        let at = |position| SourceId { generation: source.generation, position }.to_text();
        let position = |text: &[u8]| SourceId::from_text(text).map(|id| id.position);
        let mut bounds: Option<(u64, u64)> = None;
        let mut widen = |position: u64| {
            let (low, high) = bounds.unwrap_or((position, position));
            bounds = Some((low.min(position), high.max(position)));
        };
        for id in pending.keys() {
            if let Some(id) = SourceId::from_text(id.as_bytes())
                && id.generation == source.generation
            {
                widen(id.position);
            }
        }
        for segment in searcher.segment_readers() {
            let Ok(inverted) = segment.inverted_index(self.fields.id) else { continue };
            let range = || inverted.terms().range().ge(at(0)).le(at(u64::MAX));
            let mut ends = Vec::new();
            if let Ok(mut stream) = range().into_stream()
                && stream.advance()
            {
                ends.extend(position(stream.key()));
            }
            if let Ok(mut stream) = range().backward().into_stream()
                && stream.advance()
            {
                ends.extend(position(stream.key()));
            }
            ends.into_iter().for_each(&mut widen);
        }
        bounds
    }

    fn next_seq_no(&self, state: &mut State, searcher: &Searcher) -> Result<u64, EsError> {
        let next = match state.next_seq_no {
            Some(next) => next,
            None => {
                let mut next = 0;
                for segment in searcher.segment_readers() {
                    if let Some(column) =
                        segment.fast_fields().column_opt::<u64>(document::SEQ_NO)?
                    {
                        next = next.max(column.max_value() + 1);
                    }
                }
                next
            }
        };
        state.next_seq_no = Some(next + 1);
        Ok(next)
    }

    fn take_builder(&self) -> Lent<'_> {
        let mut builders = lock(&self.builders);
        loop {
            let idle = builders.idle.pop();
            if idle.is_some() || builders.busy < BUILDERS_MAX {
                builders.busy += 1;
                return Lent { index: self, builder: idle.or_else(|| Some(Builder::new())) };
            }
            builders = self.builder_returned.wait(builders).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn return_builder(&self, builder: Builder) {
        let mut builders = lock(&self.builders);
        builders.busy -= 1;
        if !builder.is_empty() {
            builders.idle.push(builder);
        }
        self.builder_returned.notify_all();
    }

    /// Returns when nothing about `id` is waiting for a commit.
    pub fn settle(&self, id: &str) -> Result<(), EsError> {
        let pending = lock(&self.state).pending.get(id).map(|pending| pending.batch.clone());
        pending.map_or(Ok(()), |batch| self.commit_until(&[batch]))
    }

    /// Returns when all of `batches` are on disk.
    fn commit_until(&self, batches: &[Arc<Batch>]) -> Result<(), EsError> {
        let mut is_committing = lock(&self.is_committing);
        while !batches.iter().all(|batch| batch.is_done()) {
            if *is_committing {
                is_committing =
                    self.committed.wait(is_committing).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            *is_committing = true;
            drop(is_committing);
            let committing = Committing(self);
            self.commit();
            drop(committing);
            is_committing = lock(&self.is_committing);
        }
        drop(is_committing);
        batches.iter().try_for_each(|batch| batch.result())
    }

    /// Makes all builders that nobody fills durable and searchable.
    fn commit(&self) {
        let mut builders = {
            let mut builders = lock(&self.builders);
            let patience = Instant::now() + GROUP_WAIT;
            while builders.busy > 0 {
                let Some(left) = patience.checked_duration_since(Instant::now()) else { break };
                builders = self
                    .builder_returned
                    .wait_timeout(builders, left)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            std::mem::take(&mut builders.idle)
        };
        if builders.is_empty() {
            return;
        }
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| self.publish(&mut builders)))
            .unwrap_or_else(|_| Err(EsError::internal("commit panicked")));
        match result {
            Ok(()) => {
                let mut state = lock(&self.state);
                for builder in &builders {
                    builder.batch.state.store(COMMITTED, Ordering::Release);
                }
                state.pending.retain(|_, pending| !pending.batch.is_done());
                metrics::COMMITS.inc();
                metrics::COMMIT_SECONDS.observe(started.elapsed().as_secs_f64());
            }
            Err(error) => {
                tracing::error!(index = %self.name, error = error.reason(), "commit failed");
                // What tantivy holds in memory is not to be trusted any more, and the commit may be on
                // disk all the same: who asks for an id next must see what is there.
                drop(lock(&self.writer).take());
                let mut reader = lock(&self.reader);
                self.is_synced.store(false, Ordering::Release);
                *reader = None;
                drop(reader);
                for builder in &builders {
                    self.fail(&builder.batch, error.reason().to_owned());
                }
            }
        }
    }

    fn fail(&self, batch: &Arc<Batch>, error: String) {
        *lock(&batch.error) = Some(error);
        batch.state.store(FAILED, Ordering::Release);
        lock(&self.state).pending.retain(|_, pending| !pending.batch.is_done());
    }

    fn publish(&self, builders: &mut [Builder]) -> Result<(), EsError> {
        match builders {
            [first, rest @ ..] if !rest.is_empty() => {
                std::thread::scope(|scope| -> tantivy::Result<()> {
                    let others: Vec<_> =
                        rest.iter_mut().map(|builder| scope.spawn(|| builder.seal())).collect();
                    first.seal()?;
                    for other in others {
                        other.join().map_err(|_| {
                            tantivy::TantivyError::SystemError("writing a segment panicked".into())
                        })??;
                    }
                    Ok(())
                })?
            }
            _ => builders.iter_mut().try_for_each(Builder::seal)?,
        }
        // Before the documents: whoever sees a document can read it by its mapping.
        self.save_mapping()?;
        #[cfg(test)]
        if let Some(before) = lock(&self.before_publish).take() {
            before();
        }
        let mut writer = lock(&self.writer);
        if self.is_deleted.load(Ordering::Acquire) {
            return Err(EsError::no_such_index(&self.name));
        }
        if writer.is_none() {
            *writer = Some(self.open_writer()?);
        }
        let Some(writer) = writer.as_mut() else { return Ok(()) };
        let deletes: Vec<_> =
            builders.iter().flat_map(|builder| builder.deletes.iter().cloned()).collect();
        if !deletes.is_empty() {
            writer.delete_query(Box::new(Replaced(deletes)))?;
        }
        for builder in &*builders {
            for segment in &builder.sealed {
                writer.add_segment(segment.clone())?;
            }
        }
        writer.commit()?;
        self.reload()?;
        self.look_for_merges();
        Ok(())
    }

    /// Shows searches what is committed.
    fn reload(&self) -> Result<(), EsError> {
        // Not under the lock: who decides about documents waits for it. A reader that is opened
        // meanwhile is opened on what is committed.
        let reader = lock(&self.reader).clone();
        if let Some(reader) = reader {
            reader.reload()?;
        }
        Ok(())
    }

    fn open_writer(&self) -> Result<IndexWriter<Prepared>, EsError> {
        let options =
            IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).build();
        let writer: IndexWriter<Prepared> = self.tantivy.writer_with_options(options)?;
        // Merges are started by `start_merge`, so that it is known when they end.
        writer.set_merge_policy(Box::new(NoMergePolicy));
        Ok(writer)
    }
}

impl State {
    fn tombstone(&mut self, id: &str, version: u64) {
        if self.tombstones.insert(id.into(), version).is_none() {
            self.tombstone_order.push_back(id.into());
        }
        while self.tombstone_order.len() > TOMBSTONES_MAX {
            if let Some(oldest) = self.tombstone_order.pop_front() {
                self.tombstones.remove(&oldest);
            }
        }
    }
}

/// Operations on their way, drawn a few at a time: reading a document happens outside of any lock.
struct Feed<I> {
    ops: I,
    drawn: VecDeque<Op>,
}

impl<I: Iterator<Item = Op>> Feed<I> {
    /// The next operations; empty at the end.
    fn draw(&mut self) -> &VecDeque<Op> {
        if self.drawn.is_empty() {
            self.drawn.extend(self.ops.by_ref().take(DECIDE_AT_ONCE));
        }
        &self.drawn
    }
}

/// Documents decided about under one lock.
const DECIDE_AT_ONCE: usize = 128;

enum Decision {
    Done(Outcome, Option<Arc<Batch>>),
    Wait(Arc<Batch>),
}

fn write_info(directory: &Path, info: &IndexInfo, mapping: &Mapping) -> Result<(), EsError> {
    let text = serde_json::to_vec_pretty(&info.to_json(mapping))
        .map_err(|error| EsError::internal(error.to_string()))?;
    Ok(durable::replace(&directory.join(INFO_FILE), &text)?)
}

fn tokenizers() -> tantivy::tokenizer::TokenizerManager {
    let manager = tantivy::tokenizer::TokenizerManager::default();
    manager
        .register(analysis::STANDARD, TextAnalyzer::builder(StandardTokenizer::default()).build());
    manager
}

#[cfg(test)]
mod tests;
