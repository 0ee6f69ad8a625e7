//! What leaves a log at its old end: by age, by size, on request.

use std::io;
use std::path::PathBuf;

use elkfk_wire::kafka::records::Offset;

use super::partition_log::Log;

impl Log {
    /// Takes segments out of the log that the topic's retention no longer wants.
    ///
    /// Only below `high_watermark`. Returns the renamed files, to be removed once nobody can be
    /// reading them (`file.delete.delay.ms`).
    pub fn apply_retention(
        &mut self,
        high_watermark: Offset,
        now_ms: i64,
    ) -> io::Result<Vec<PathBuf>> {
        let mut gone = self.retire_below(self.log_start)?;
        if !self.config.is_deleted {
            return Ok(gone);
        }
        // An idle partition never appends the record that would roll its segment: it is rolled
        // here, so that its records age as promised.
        let age = now_ms - self.active.created_ms.min(self.active.modified_ms);
        let is_idle = now_ms > self.active.modified_ms
            && self.active.bytes > 0
            && u128::try_from(age).is_ok_and(|age| age > self.config.segment_age_max.as_millis());
        if is_idle {
            self.roll(now_ms)?;
        }
        while let Some(next) = self.expired(high_watermark, now_ms)? {
            if self.sealed.is_empty() {
                self.roll(now_ms)?;
            }
            self.log_start = self.log_start.max(next);
            gone.extend(self.retire_below(self.log_start)?);
        }
        self.note_log_start()?;
        Ok(gone)
    }

    /// The end of the oldest segment, if it may go.
    fn expired(&mut self, high_watermark: Offset, now_ms: i64) -> io::Result<Option<Offset>> {
        let total = self.bytes();
        let active = self.active.base_offset();
        let (end, bytes, largest_ms, modified_ms) = match self.sealed.iter_mut().next() {
            Some((&base, oldest)) => {
                let largest_ms = oldest.largest_timestamp_ms(&self.files)?;
                let (bytes, modified_ms) = (oldest.bytes, oldest.modified_ms);
                let next = self.sealed.range(base.next()..).next();
                (next.map_or(active, |(&next, _)| next), bytes, largest_ms, modified_ms)
            }
            None if self.active.bytes == 0 => return Ok(None),
            None => {
                let active = &self.active;
                (self.log_end, active.bytes, active.largest_timestamp_ms(), active.modified_ms)
            }
        };
        if end > high_watermark {
            return Ok(None);
        }
        // A timestamp of the future would keep its segment for ever: the file's time stands in.
        let youngest_ms =
            if largest_ms < 0 || largest_ms > now_ms { modified_ms } else { largest_ms };
        let is_old = self.config.retention.is_some_and(|limit| {
            u128::try_from(now_ms.saturating_sub(youngest_ms))
                .is_ok_and(|age| age > limit.as_millis())
        });
        // The active segment never goes for its size: it would go with every record in it.
        let is_beyond = self
            .config
            .retention_bytes
            .is_some_and(|limit| !self.sealed.is_empty() && total.saturating_sub(bytes) >= limit);
        Ok((is_old || is_beyond).then_some(end))
    }

    /// Moves the log start on, as DeleteRecords asks; `offset` is at most the high watermark.
    pub fn delete_records(&mut self, offset: Offset) -> io::Result<Vec<PathBuf>> {
        self.log_start = self.log_start.max(offset.min(self.log_end));
        self.note_log_start()?;
        self.retire_below(self.log_start)
    }

    fn note_log_start(&mut self) -> io::Result<()> {
        if self.epochs.truncate_start(self.log_start) {
            self.write_epochs()?;
        }
        Ok(())
    }

    /// Takes the sealed segments out of the log that end at or below `offset`.
    fn retire_below(&mut self, offset: Offset) -> io::Result<Vec<PathBuf>> {
        let mut gone = Vec::new();
        while let Some((&base, _)) = self.sealed.first_key_value() {
            let next = self.sealed.range(base.next()..).next();
            let end = next.map_or(self.active.base_offset(), |(&next, _)| next);
            if end > offset {
                break;
            }
            let oldest = self.sealed.remove(&base).expect("just found");
            gone.extend(oldest.files.retire(&self.files, &self.directory)?);
        }
        Ok(gone)
    }
}
