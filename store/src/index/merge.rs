//! Merges: which segments become one, and what is known of those under way.
//!
//! tantivy would start them by itself, but not say when they end, and closing a writer throws a
//! merge away: where many indices are written in turn, none would ever come to its end.

use std::pin::Pin;
use std::sync::TryLockError;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use tantivy::index::SegmentId;
use tantivy::indexer::{LogMergePolicy, MergePolicy};

use super::{Index, lock};
use crate::error::EsError;

/// Segments of about one size that are merged.
const MERGE_SEGMENTS_MIN: usize = 8;
/// Segments beyond this many documents are left alone by merges.
const MERGE_DOCUMENTS_MAX: usize = 5_000_000;

impl Index {
    /// The segments that should be one.
    fn to_merge(&self) -> Result<Option<Vec<SegmentId>>, EsError> {
        let mut policy = LogMergePolicy::default();
        policy.set_min_num_segments(MERGE_SEGMENTS_MIN);
        policy.set_max_docs_before_merge(MERGE_DOCUMENTS_MAX);
        policy.set_del_docs_ratio_before_merge(0.3);
        let segments = self.tantivy.searchable_segment_metas()?;
        Ok(policy.compute_merge_candidates(&segments).into_iter().next().map(|found| found.0))
    }

    pub(super) fn look_for_merges(&self) {
        let is_wanted = self.to_merge().is_ok_and(|found| found.is_some());
        self.wants_merge.store(is_wanted, Ordering::Release);
    }

    pub fn wants_merge(&self) -> bool {
        self.wants_merge.load(Ordering::Acquire)
    }

    /// Whether a merge is under way. Shows searches the result of one that has ended.
    pub fn is_merging(&self) -> bool {
        let mut merge = lock(&self.merge);
        let Some(running) = &mut *merge else { return false };
        let mut context = Context::from_waker(Waker::noop());
        if Future::poll(Pin::new(running), &mut context).is_pending() {
            return true;
        }
        *merge = None;
        drop(merge);
        self.look_for_merges();
        if let Err(error) = self.reload() {
            tracing::warn!(index = %self.name, error = error.reason(), "merged segments not opened");
        }
        false
    }

    /// Starts to merge what should be merged, unless that is being done; returns whether it did.
    pub fn start_merge(&self) -> Result<bool, EsError> {
        if self.is_merging() {
            return Ok(false);
        }
        // Not waited for: a commit holds it, and whoever comes here has an answer to give.
        let mut writer = match self.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let segments = self.to_merge()?.filter(|_| !self.is_deleted.load(Ordering::Acquire));
        self.wants_merge.store(false, Ordering::Release);
        let Some(segments) = segments else { return Ok(false) };
        if writer.is_none() {
            *writer = Some(self.open_writer()?);
        }
        let Some(writer) = writer.as_mut() else { return Ok(false) };
        *lock(&self.merge) = Some(writer.merge(&segments));
        Ok(true)
    }

    /// Merges all segments into one.
    pub fn force_merge(&self) -> Result<(), EsError> {
        // Segments that are being merged already cannot be merged by another.
        let running = lock(&self.merge).take();
        if let Some(running) = running {
            let _ = running.wait();
        }
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
            self.reload()?;
        }
        Ok(())
    }

    pub fn segment_count(&self) -> usize {
        self.tantivy.searchable_segment_ids().map_or(0, |segments| segments.len())
    }
}
