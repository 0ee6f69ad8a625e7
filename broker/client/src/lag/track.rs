//! One partition as one group sees it.

use std::collections::VecDeque;

use super::{Drain, Figures, PartitionLag, PartitionSample, State};

/// Rates that are shown are taken over this long: short enough to follow, long enough to be calm.
const RATE_WINDOW_MS: i64 = 10_000;
const STALLED_AFTER_MS: i64 = 30_000;
const BEHIND_SECONDS: f64 = 60.0;
/// How long a commit that went back is told.
const REWOUND_MS: i64 = 60_000;
/// Below this a rate is nothing: a record in ten minutes.
const RATE_MIN: f64 = 1.0 / 600.0;
/// What arrives in this many seconds is under way, no backlog.
pub const UNDER_WAY_SECONDS: f64 = 5.0;

/// Recent offsets of a partition.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// (ms, end, committed), oldest first, no older than the rate window but for one.
    recent: VecDeque<(i64, i64, Option<i64>)>,
    /// When the committed offset last changed.
    moved_ms: Option<i64>,
    /// When it last went back.
    rewound_ms: Option<i64>,
    inward: Averages,
    outward: Averages,
    last_ms: i64,
}

/// A rate as exponential averages, over what has been seen of it.
#[derive(Debug, Clone, Copy, Default)]
struct Averages {
    minute: Average,
    ten_minutes: Average,
}

#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: f64,
    /// Of all that is in the sum; 1 once that is long. Without it the first second would count like all
    /// that went before.
    weight: f64,
}

impl Average {
    fn step(&mut self, rate: f64, elapsed: f64, over: f64) {
        let kept = (-elapsed / over).exp();
        self.sum = self.sum * kept + rate * (1.0 - kept);
        self.weight = self.weight * kept + (1.0 - kept);
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

impl Averages {
    fn step(&mut self, records: i64, elapsed_ms: i64) {
        let elapsed = elapsed_ms as f64 / 1000.0;
        let rate = records.max(0) as f64 / elapsed;
        self.minute.step(rate, elapsed, 60.0);
        self.ten_minutes.step(rate, elapsed, 600.0);
    }
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
        let PartitionSample { committed, ends, committed_record_ms, retention, .. } = sample;
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
            Some(_) if self.rewound_ms.is_some_and(|ms| now_ms - ms < REWOUND_MS) => State::Rewound,
            Some(_) if lag_seconds.is_some_and(|seconds| seconds >= BEHIND_SECONDS) => {
                State::Behind
            }
            Some(_) => State::Ok,
        };
        let is_known = ends.is_some();
        let known = |rate: Option<f64>| rate.filter(|_| is_known);
        let figures = Figures {
            lag,
            lag_seconds,
            in_rate: known(self.rate(|(_, end, _)| Some(*end))),
            out_rate: known(self.rate(|(_, _, committed)| *committed)),
            in_1m: known(self.inward.minute.value()),
            out_1m: known(self.outward.minute.value()),
            in_10m: known(self.inward.ten_minutes.value()),
            out_10m: known(self.outward.ten_minutes.value()),
            drain: lag.and_then(|lag| self.drain(lag)),
            retention_used: match (lag, ends, retention) {
                (Some(0), ..) => Some(0.0),
                (Some(lag), Some((start, end)), Some(retention)) => {
                    retention.used(lag, end - start, lag_seconds)
                }
                _ => None,
            },
            lost: ends.zip(committed).map_or(0, |((start, _), at)| (start - at).max(0)),
            state,
        };
        PartitionLag {
            partition: sample.partition,
            member: sample.member,
            committed,
            start: ends.map(|(start, _)| start),
            end: ends.map(|(_, end)| end),
            figures,
            moved_ms: self.moved_ms.filter(|_| committed.is_some()),
            retention,
            why: sample.why_unknown,
        }
    }

    /// At the rates of the last minute; `None` before there are any.
    fn drain(&self, lag: i64) -> Option<Drain> {
        if lag == 0 {
            return Some(Drain::Seconds(0.0));
        }
        let (inward, outward) = (self.inward.minute.value()?, self.outward.minute.value()?);
        if outward >= RATE_MIN && lag as f64 <= inward * UNDER_WAY_SECONDS {
            return Some(Drain::Seconds(lag as f64 / outward));
        }
        let net = outward - inward;
        Some(if net >= RATE_MIN { Drain::Seconds(lag as f64 / net) } else { Drain::Never })
    }

    fn remember(&mut self, now_ms: i64, end: i64, committed: Option<i64>) {
        let last = self.recent.back().copied();
        let (last_end, last_committed) =
            last.map_or((end, None), |(_, end, committed)| (end, committed));
        if end < last_end {
            // Recreated: what was before says nothing about now.
            self.recent.clear();
            (self.inward, self.outward) = (Averages::default(), Averages::default());
        } else if let Some((last_ms, ..)) = last
            && now_ms > last_ms
        {
            self.inward.step(end - last_end, now_ms - last_ms);
            if let (Some(from), Some(to)) = (last_committed, committed) {
                self.outward.step(to.saturating_sub(from), now_ms - last_ms);
            }
        }
        if let (Some(from), Some(to)) = (last_committed, committed)
            && to < from
        {
            self.rewound_ms = Some(now_ms);
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
