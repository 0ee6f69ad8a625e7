//! Walking the batches of a segment file.

use std::io;
use std::sync::Arc;

use elkfk_wire::kafka::records::{Batch, BatchError, HEADER_BYTES, peek};

use super::disk::DiskFile;

/// Read at once: large enough that a cold disk streams, small enough to stay in the cache.
const WINDOW_BYTES: usize = 256 * 1024;

/// Why a walk ended before the end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error("read at position {position}")]
    Io { position: u64, source: io::Error },
    #[error("batch at position {position}")]
    Batch { position: u64, source: BatchError },
}

/// Walks whole batches between two positions of a file.
#[derive(Debug)]
pub(super) struct Scanner {
    file: Arc<dyn DiskFile>,
    position: u64,
    end: u64,
    window: Vec<u8>,
    window_at: u64,
    window_bytes: usize,
}

impl Scanner {
    pub(super) fn new(file: Arc<dyn DiskFile>, position: u64, end: u64) -> Self {
        Self { file, position, end, window: Vec::new(), window_at: 0, window_bytes: WINDOW_BYTES }
    }

    /// Where the next batch starts.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// The next batch and where it starts; its checksum is not looked at.
    pub(super) fn next_batch(&mut self) -> Result<Option<(u64, Batch<'_>)>, ScanError> {
        let position = self.position;
        if position >= self.end {
            return Ok(None);
        }
        let bad = |source| ScanError::Batch { position, source };
        self.fill(HEADER_BYTES)?;
        let total = peek(self.ahead()).map_err(bad)?.total_bytes;
        self.fill(total)?;
        self.position += total as u64;
        let start = (position - self.window_at) as usize;
        let batch = Batch::parse(&self.window[start..]).map_err(|source| {
            self.position = position;
            bad(source)
        })?;
        Ok(Some((position, batch)))
    }

    fn ahead(&self) -> &[u8] {
        let start = (self.position - self.window_at) as usize;
        &self.window[start.min(self.window.len())..]
    }

    /// Makes `want` bytes available, or as many as there are.
    fn fill(&mut self, want: usize) -> Result<(), ScanError> {
        let left = self.end - self.position;
        let is_outside = self.position < self.window_at;
        if !is_outside && (self.ahead().len() as u64) >= left.min(want as u64) {
            return Ok(());
        }
        let length = left.min(want.max(self.window_bytes) as u64) as usize;
        self.window = self
            .file
            .read_at(self.position, length)
            .map_err(|source| ScanError::Io { position: self.position, source })?;
        self.window_at = self.position;
        Ok(())
    }
}
