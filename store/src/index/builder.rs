//! Segments in the making, and the batches of documents that become durable with them.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use tantivy::index::SegmentMeta;
use tantivy::indexer::{AddOperation, SegmentWriter};
use tantivy::{Segment, Term};

use super::document::Prepared;
use super::{Index, lock};
use crate::error::EsError;

/// Memory of a builder at which it becomes a segment before its commit.
pub(super) const BUILDER_BYTES_MAX: usize = 24 << 20;
/// Documents, and bytes of them, between two looks at a builder's memory: looking walks every field.
const WEIGHED_EVERY: u32 = 256;
pub(super) const WEIGHED_EVERY_BYTES: usize = 4 << 20;
/// Builders of one index at a time; more would only make smaller segments.
pub(super) const BUILDERS_MAX: usize = 2;

/// The documents that become durable together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) state: AtomicU8,
    pub(super) error: Mutex<Option<String>>,
}

const OPEN: u8 = 0;
pub(super) const COMMITTED: u8 = 1;
pub(super) const FAILED: u8 = 2;

impl Batch {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(OPEN), error: Mutex::new(None) })
    }

    pub(super) fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) != OPEN
    }

    pub(super) fn result(&self) -> Result<(), EsError> {
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
pub(super) struct Builder {
    /// `None` until the first document.
    pub(super) writer: Option<(Segment, SegmentWriter)>,
    pub(super) sealed: Vec<SegmentMeta>,
    /// Ids that were replaced or deleted, and the sequence number that did it.
    pub(super) deletes: Vec<(Term, u64)>,
    /// Documents and bytes added since its memory was last looked at.
    unweighed: (u32, usize),
    pub(super) batch: Arc<Batch>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            writer: None,
            sealed: Vec::new(),
            deletes: Vec::new(),
            unweighed: (0, 0),
            batch: Batch::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.writer.is_none() && self.sealed.is_empty() && self.deletes.is_empty()
    }

    pub(super) fn add(
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
        let size = document.source().len() + document.size();
        writer.add_document(AddOperation { opstamp: 0, document })?;
        self.unweighed = (self.unweighed.0 + 1, self.unweighed.1 + size);
        if self.unweighed.0 >= WEIGHED_EVERY || self.unweighed.1 >= WEIGHED_EVERY_BYTES {
            self.unweighed = (0, 0);
            if writer.mem_usage() > BUILDER_BYTES_MAX {
                self.seal()?;
            }
        }
        Ok(())
    }

    /// Writes what it holds as a segment, which nobody sees before the commit.
    pub(super) fn seal(&mut self) -> tantivy::Result<()> {
        let Some((segment, writer)) = self.writer.take() else { return Ok(()) };
        let documents = writer.max_doc();
        writer.finalize()?;
        let segment = segment.with_max_doc(documents);
        segment.meta().untrack_temp_docstore();
        self.sealed.push(segment.meta().clone());
        Ok(())
    }
}

/// A builder in use. Whatever becomes of who uses it, its place is given back; where that was a
/// panic, the documents in it are failed, so that nobody waits for a commit that cannot come.
pub(super) struct Lent<'a> {
    pub(super) index: &'a Index,
    pub(super) builder: Option<Builder>,
}

impl Lent<'_> {
    pub(super) fn give_back(mut self) {
        if let Some(builder) = self.builder.take() {
            self.index.return_builder(builder);
        }
    }

    /// Gives back an empty one: a segment that failed half-way cannot be used.
    pub(super) fn fail(&mut self, reason: String) {
        if let Some(builder) = self.builder.take() {
            self.index.fail(&builder.batch, reason);
            self.index.return_builder(Builder::new());
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        self.fail("indexing panicked".into());
    }
}

#[derive(Default)]
pub(super) struct Builders {
    pub(super) idle: Vec<Builder>,
    pub(super) busy: usize,
}
