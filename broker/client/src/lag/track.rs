//! One partition as one group sees it.

use std::collections::VecDeque;

use super::{PartitionLag, PartitionSample, State};

/// Rates are taken over this long: short enough to follow, long enough to be calm.
const RATE_WINDOW_MS: i64 = 10_000;
const STALLED_AFTER_MS: i64 = 30_000;
const BEHIND_SECONDS: f64 = 60.0;

/// Recent offsets of a partition.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// (ms, end, committed), oldest first, no older than the rate window but for one.
    recent: VecDeque<(i64, i64, Option<i64>)>,
    /// When the committed offset last changed.
    moved_ms: Option<i64>,
    last_ms: i64,
}

impl Track {
    pub(super) fn last_ms(&self) -> i64 {
        self.last_ms
    }

    /// A moment of which nothing is known.
    pub(super) fn miss(&mut self, now_ms: i64) {
        self.last_ms = now_ms;
    }

    pub(super) fn step(
        &mut self,
        now_ms: i64,
        sample: PartitionSample,
        has_members: bool,
    ) -> PartitionLag {
        self.last_ms = now_ms;
        let PartitionSample {
            partition,
            member,
            committed,
            ends,
            why_unknown,
            committed_record_ms,
            ..
        } = sample;
        if let Some((_, end)) = ends {
            self.remember(now_ms, end, committed);
        }
        // The end is read after the commit, yet a truncated or recreated topic can end before it.
        let lag =
            ends.and_then(|(start, end)| Some(end.saturating_sub(committed?.max(start)).max(0)));
        let lag_seconds = match (lag, committed_record_ms) {
            (Some(0), _) => Some(0.0),
            (Some(_), Some(record_ms)) => Some((now_ms - record_ms).max(0) as f64 / 1000.0),
            _ => None,
        };
        let state = match lag {
            _ if ends.is_none() => State::Unknown,
            None => State::Uncommitted,
            Some(0) => State::Ok,
            Some(_) if !has_members => State::Stopped,
            Some(_) if self.moved_ms.is_some_and(|moved| now_ms - moved >= STALLED_AFTER_MS) => {
                State::Stalled
            }
            Some(_) if lag_seconds.is_some_and(|seconds| seconds >= BEHIND_SECONDS) => {
                State::Behind
            }
            Some(_) => State::Ok,
        };
        PartitionLag {
            partition,
            member,
            committed,
            start: ends.map(|(start, _)| start),
            end: ends.map(|(_, end)| end),
            lag,
            lag_seconds,
            in_rate: ends.and_then(|_| self.rate(|(_, end, _)| Some(*end))),
            out_rate: ends.and_then(|_| self.rate(|(_, _, committed)| *committed)),
            state,
            why: why_unknown,
        }
    }

    fn remember(&mut self, now_ms: i64, end: i64, committed: Option<i64>) {
        let (last_end, last_committed) =
            self.recent.back().map_or((end, None), |(_, end, committed)| (*end, *committed));
        if end < last_end {
            // Recreated: what was before says nothing about now.
            self.recent.clear();
        }
        if committed != last_committed || self.moved_ms.is_none() {
            self.moved_ms = Some(now_ms);
        }
        // While there was nothing to read, standing still was right.
        if committed.is_some_and(|committed| committed >= last_end) {
            self.moved_ms = Some(now_ms);
        }
        self.recent.push_back((now_ms, end, committed));
        while self.recent.get(1).is_some_and(|(ms, ..)| now_ms - ms >= RATE_WINDOW_MS) {
            self.recent.pop_front();
        }
    }

    fn rate(&self, offset: impl Fn(&(i64, i64, Option<i64>)) -> Option<i64>) -> Option<f64> {
        let (first, last) = (self.recent.front()?, self.recent.back()?);
        let elapsed_ms = last.0 - first.0;
        let moved = offset(last)?.saturating_sub(offset(first)?).max(0);
        (elapsed_ms > 0).then(|| moved as f64 * 1000.0 / elapsed_ms as f64)
    }
}
