//! One index: its mapping, its documents, and the group commit that makes them durable.
//!
//! Whoever has a bulk request takes a builder (a segment in the making), adds its documents on its
//! own thread, gives the builder back and asks for a commit. One of those who wait commits for all:
//! it turns every builder that is not in use into a segment and publishes them by one rename of
//! `meta.json`. Nobody indexes while holding a lock, and nobody is answered before that rename is
//! on disk.

pub mod directory;
pub mod document;
pub mod ids;
pub mod parse;
mod replaced;

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use elkfk_base::durable;
use serde_json::{Map, Value, json};
use tantivy::directory::MmapDirectory;
use tantivy::index::{IndexSettings, SegmentMeta};
use tantivy::indexer::{AddOperation, IndexWriterOptions, LogMergePolicy, SegmentWriter};
use tantivy::schema::IndexRecordOption;
use tantivy::store::Compressor;
use tantivy::tokenizer::TextAnalyzer;
use tantivy::{
    DocAddress, DocSet, IndexReader, IndexWriter, ReloadPolicy, Searcher, Segment, TERMINATED, Term,
};

use crate::analysis::{self, StandardTokenizer};
use crate::error::EsError;
use crate::mapping::Mapping;
use crate::metrics;

use directory::DurableDirectory;
use document::{Fields, Prepared};
use ids::{Known, Ledger};
use parse::SharedMapping;
use replaced::Replaced;

/// Memory of a builder at which it becomes a segment before its commit.
const BUILDER_BYTES_MAX: usize = 24 << 20;
/// Builders of one index at a time; more would only make smaller segments.
const BUILDERS_MAX: usize = 2;
/// How long a commit waits for requests that are adding their documents, to take them along.
const GROUP_WAIT: Duration = Duration::from_millis(150);
/// Deleted ids whose version goes on if they come back.
const TOMBSTONES_MAX: usize = 10_000;
/// Segments beyond this many documents are left alone by merges.
const MERGE_DOCUMENTS_MAX: usize = 5_000_000;

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
    },
    Delete {
        id: Box<str>,
    },
}

impl Op {
    fn id(&self) -> &str {
        match self {
            Self::Put { document, .. } => &document.id,
            Self::Delete { id } => id,
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
    /// `create` of an id that exists; nothing was changed.
    Conflict,
}

/// The documents that become durable together.
#[derive(Debug)]
pub struct Batch {
    state: AtomicU8,
    error: Mutex<Option<String>>,
}

const OPEN: u8 = 0;
const COMMITTED: u8 = 1;
const FAILED: u8 = 2;

impl Batch {
    fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(OPEN), error: Mutex::new(None) })
    }

    fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) != OPEN
    }

    fn result(&self) -> Result<(), EsError> {
        match self.state.load(Ordering::Acquire) {
            FAILED => {
                let error = lock(&self.error).clone().unwrap_or_default();
                Err(EsError::new(
                    503,
                    "process_cluster_event_timeout_exception",
                    format!("commit failed: {error}"),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// A segment in the making.
struct Builder {
    /// `None` until the first document.
    writer: Option<(Segment, SegmentWriter)>,
    sealed: Vec<SegmentMeta>,
    /// Ids that were replaced or deleted, and the sequence number that did it.
    deletes: Vec<(Term, u64)>,
    documents: u32,
    batch: Arc<Batch>,
}

impl Builder {
    fn new() -> Self {
        Self {
            writer: None,
            sealed: Vec::new(),
            deletes: Vec::new(),
            documents: 0,
            batch: Batch::new(),
        }
    }

    fn is_empty(&self) -> bool {
        self.writer.is_none() && self.sealed.is_empty() && self.deletes.is_empty()
    }

    fn add(
        &mut self,
        index: &tantivy::Index,
        document: Prepared,
        bytes: usize,
    ) -> tantivy::Result<()> {
        if self.writer.is_none() {
            let segment = index.new_segment();
            let writer =
                SegmentWriter::for_segment((bytes * 3).clamp(1 << 20, 15 << 20), segment.clone())?;
            self.writer = Some((segment, writer));
        }
        let Some((_, writer)) = &mut self.writer else { return Ok(()) };
        writer.add_document(AddOperation { opstamp: 0, document })?;
        self.documents += 1;
        // Asked now and then only: it walks every field.
        if self.documents.is_multiple_of(256) && writer.mem_usage() > BUILDER_BYTES_MAX {
            self.seal()?;
        }
        Ok(())
    }

    /// Writes what it holds as a segment, which nobody sees before the commit.
    fn seal(&mut self) -> tantivy::Result<()> {
        let Some((segment, writer)) = self.writer.take() else { return Ok(()) };
        let documents = writer.max_doc();
        writer.finalize()?;
        let segment = segment.with_max_doc(documents);
        segment.meta().untrack_temp_docstore();
        self.sealed.push(segment.meta().clone());
        Ok(())
    }
}

#[derive(Default)]
struct Builders {
    idle: Vec<Builder>,
    busy: usize,
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

    /// Stops merges and frees what writing needs. Waits for a commit in progress.
    pub fn close_writer(&self) {
        drop(lock(&self.writer).take());
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
            let mut builder = self.take_builder();
            let added =
                self.fill(&mut builder, &mut ops, &mut outcomes, &mut waits, &mut previous, bytes);
            if !builder.is_empty() && !waits.iter().any(|batch| Arc::ptr_eq(batch, &builder.batch))
            {
                waits.push(builder.batch.clone());
            }
            if added.is_err() {
                // A segment that failed half-way cannot be used: who has documents in it is told.
                let error = added.as_ref().err().map(|error| error.reason().to_owned());
                self.fail(&builder.batch, error.unwrap_or_default());
                builder = Builder::new();
            }
            self.return_builder(builder);
            added?;
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
        let searcher = self.searcher()?;
        let mut decided: Vec<Prepared> = Vec::with_capacity(DECIDE_AT_ONCE);
        loop {
            if ops.draw().is_empty() {
                return Ok(());
            }
            let mut wait = None;
            let mut state = lock(&self.state);
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
            Known::New => None,
            Known::Maybe => self.find(searcher, id)?,
        };
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
            .with_label_values(&[if known == Known::New { "newer" } else { "terms" }])
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

    fn take_builder(&self) -> Builder {
        let mut builders = lock(&self.builders);
        loop {
            if let Some(builder) = builders.idle.pop() {
                builders.busy += 1;
                return builder;
            }
            if builders.busy < BUILDERS_MAX {
                builders.busy += 1;
                return Builder::new();
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
            self.commit();
            is_committing = lock(&self.is_committing);
            *is_committing = false;
            self.committed.notify_all();
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
        let result = self.publish(&mut builders);
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
                self.close_reader();
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
        let reader = lock(&self.reader);
        if let Some(reader) = &*reader {
            reader.reload()?;
        }
        Ok(())
    }

    fn open_writer(&self) -> Result<IndexWriter<Prepared>, EsError> {
        let options =
            IndexWriterOptions::builder().num_worker_threads(1).num_merge_threads(1).build();
        let writer: IndexWriter<Prepared> = self.tantivy.writer_with_options(options)?;
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(8);
        policy.set_max_docs_before_merge(MERGE_DOCUMENTS_MAX);
        policy.set_del_docs_ratio_before_merge(0.3);
        writer.set_merge_policy(Box::new(policy));
        Ok(writer)
    }

    /// Merges all segments into one.
    pub fn force_merge(&self) -> Result<(), EsError> {
        let merge = {
            let mut writer = lock(&self.writer);
            if writer.is_none() {
                *writer = Some(self.open_writer()?);
            }
            let segments = self.tantivy.searchable_segment_ids()?;
            match writer.as_mut() {
                Some(writer) if segments.len() > 1 => Some(writer.merge(&segments)),
                _ => None,
            }
        };
        if let Some(merge) = merge {
            merge.wait()?;
            if let Some(reader) = &*lock(&self.reader) {
                reader.reload()?;
            }
        }
        Ok(())
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
