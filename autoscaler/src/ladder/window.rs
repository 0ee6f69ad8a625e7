//! The last two minutes partition by partition, and the last half hour in sums.

use std::collections::VecDeque;

use super::observation::Observation;
use super::parameters::{Parameters, STALLED_MIN, ms};

/// Samples kept with each partition's figures: 64 of 10,000 partitions are some 15 MB.
/// `Parameters::mistakes` holds the window to fewer; beyond, the oldest goes.
pub(super) const SAMPLES_MAX: usize = 64;
/// Sums kept; enough for the longest calm at the default interval, and for an hour or more at any.
pub(super) const SUMS_MAX: usize = 512;

/// Seconds of consumption that must wait for a reader to count as one that takes all it can.
pub(super) const SATURATED_S: f64 = 10.0;

/// How much older than the flow explains a record may be: rates vary within the window.
const AGE_TRUST: f64 = 2.0;
/// Share of the window blocked by Elasticsearch from which its rates say little about readers.
const DISTURBED_MIN: f64 = 0.1;

#[derive(Debug, Default)]
pub(super) struct Window {
    samples: VecDeque<Sample>,
    sums: VecDeque<Sum>,
}

impl Window {
    /// What it holds at most, of a topic with so many partitions.
    pub(super) fn bytes_max(partitions: usize) -> usize {
        let sample = size_of::<Sample>() + partitions * size_of::<Progress>();
        SAMPLES_MAX * sample + SUMS_MAX * size_of::<Sum>()
    }
}

#[derive(Debug)]
struct Sample {
    at_ms: i64,
    blocked_share: f64,
    is_rebalancing: bool,
    partitions: Vec<Progress>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    log_start: i64,
    end: i64,
    position: i64,
}

/// What came between a sample and the one before.
#[derive(Debug, Clone, Copy)]
struct Sum {
    at_ms: i64,
    span_ms: i64,
    arrived: f64,
}

/// Rates and lags over the window, of the partitions that count.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Signals {
    pub arrival: f64,
    pub consumed: f64,
    pub lag: f64,
    pub time_lag_s: f64,
    pub growth: f64,
    pub drain_s: Option<f64>,
    pub hottest: Option<(u32, f64)>,
    /// The partition with the most lag, and how much.
    pub fullest: Option<(u32, f64)>,
    pub idle_partitions: u32,
    /// With so much waiting that their reader takes all it can.
    pub saturated_partitions: u32,
}

impl Window {
    /// Takes an observation.
    ///
    /// Returns false if offsets went back, so that rates across this moment would mean nothing:
    /// a group's offsets were reset, or the topic was deleted and made anew.
    pub(super) fn push(
        &mut self,
        now_ms: i64,
        observation: &Observation,
        parameters: &Parameters,
        is_bounded: bool,
    ) -> bool {
        let partitions: Vec<Progress> = observation
            .partitions
            .iter()
            .map(|p| Progress { log_start: p.log_start, end: p.end, position: p.position() })
            .collect();
        let sink = observation.sink.as_ref();
        let blocked_share = sink.map_or(0.0, |sink| match sink.is_elasticsearch_away {
            true => 1.0,
            false if sink.blocked_share.is_finite() => sink.blocked_share.clamp(0.0, 1.0),
            false => 0.0,
        });
        let is_continued = self.samples.back().is_none_or(|last| {
            last.partitions.len() <= partitions.len()
                && (last.partitions.iter().zip(&partitions))
                    .all(|(old, new)| new.end >= old.end && new.position >= old.position)
        });
        if !is_continued {
            self.clear();
        }
        if let Some(last) = self.samples.back() {
            let arrived =
                pairs(last, &partitions).map(|(old, new)| new.end.saturating_sub(old.end) as f64);
            let sum = Sum { at_ms: now_ms, span_ms: now_ms - last.at_ms, arrived: arrived.sum() };
            self.sums.push_back(sum);
        }
        let is_rebalancing = observation.is_rebalancing;
        self.samples.push_back(Sample { at_ms: now_ms, blocked_share, is_rebalancing, partitions });
        if is_bounded {
            // One sample at or before the window's beginning stays: rates are taken from there.
            let from = now_ms - ms(parameters.window_s);
            while self.samples.len() > SAMPLES_MAX
                || self.samples.get(1).is_some_and(|second| second.at_ms <= from)
            {
                self.samples.pop_front();
            }
            let from = now_ms - ms(parameters.calm_s);
            while self.sums.len() > SUMS_MAX || self.sums.front().is_some_and(|s| s.at_ms <= from) {
                self.sums.pop_front();
            }
        }
        is_continued
    }

    pub(super) fn clear(&mut self) {
        self.samples.clear();
        self.sums.clear();
    }

    pub(super) fn last_at_ms(&self) -> Option<i64> {
        Some(self.samples.back()?.at_ms)
    }

    /// Samples and sums held.
    #[cfg(test)]
    pub(super) fn held(&self) -> (usize, usize) {
        (self.samples.len(), self.sums.len())
    }

    /// Whether a whole window has been seen, give or take half an interval.
    pub(super) fn is_full(&self, parameters: &Parameters) -> bool {
        self.span_s() >= parameters.window_s - parameters.interval_s / 2.0
    }

    fn span_s(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some(first), Some(last)) => (last.at_ms - first.at_ms) as f64 / 1000.0,
            _ => 0.0,
        }
    }

    /// Mean of the samples within the window; each tells of the time since the one before.
    pub(super) fn blocked_share(&self) -> f64 {
        let shares = self.samples.iter().skip(1).map(|sample| sample.blocked_share);
        // No sample makes a sum of -0.0.
        (shares.sum::<f64>() + 0.0) / (self.samples.len().saturating_sub(1).max(1)) as f64
    }

    /// Whether reading was interrupted within the window by more than readers' own limits.
    pub(super) fn is_disturbed(&self) -> bool {
        self.blocked_share() > DISTURBED_MIN || self.samples.iter().any(|s| s.is_rebalancing)
    }

    /// Whether the group was seen rebalancing in the last `seconds`.
    pub(super) fn is_interrupted(&self, seconds: f64) -> bool {
        let from = self.last_at_ms().map(|at_ms| at_ms - ms(seconds));
        self.samples.iter().rev().take_while(|s| Some(s.at_ms) >= from).any(|s| s.is_rebalancing)
    }

    /// Partitions with a good share of the lag whose offset has not moved for `seconds`.
    pub(super) fn stalled(&self, observation: &Observation, seconds: f64) -> Vec<bool> {
        let count = observation.partitions.len();
        let total: f64 = observation.partitions.iter().map(|p| p.lag() as f64).sum();
        let Some(first) = self.before(seconds) else { return vec![false; count] };
        let newest = &observation.partitions;
        (0..count)
            .map(|at| {
                let had_lag = first.partitions.get(at).is_some_and(|p| p.end > p.position);
                let lag = newest[at].lag() as f64;
                had_lag
                    && lag > STALLED_MIN * total / count as f64
                    && first.partitions[at].position == newest[at].position()
            })
            .collect()
    }

    /// The latest sample that is at least `seconds` older than the last.
    fn before(&self, seconds: f64) -> Option<&Sample> {
        let until_ms = self.samples.back()?.at_ms - ms(seconds);
        self.samples.iter().rev().find(|sample| sample.at_ms <= until_ms)
    }

    /// As [`Window::before`], or the oldest sample of a window that is shorter.
    fn lately(&self, seconds: f64) -> Option<&Sample> {
        self.before(seconds).or(self.samples.front())
    }

    /// The signals of those partitions that are not left out.
    pub(super) fn signals(
        &self,
        now_ms: i64,
        observation: &Observation,
        is_left_out: &[bool],
    ) -> Signals {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return Signals::default();
        };
        let span_s = self.span_s().max(0.001);
        let mut signals = Signals::default();
        let mut lag_before = 0.0;
        let mut rates = Vec::with_capacity(last.partitions.len());
        for (at, (old, new)) in pairs(first, &last.partitions).enumerate() {
            let arrival = new.end.saturating_sub(old.end) as f64 / span_s;
            let consumed = new.position.saturating_sub(old.position) as f64 / span_s;
            rates.push((arrival, consumed));
            if is_left_out[at] {
                continue;
            }
            signals.arrival += arrival;
            signals.consumed += consumed;
            signals.lag += new.end.saturating_sub(new.position).max(0) as f64;
            lag_before += old.end.saturating_sub(old.position).max(0) as f64;
        }
        signals.growth = (signals.lag - lag_before) / span_s;
        let surplus = signals.consumed - signals.arrival;
        signals.drain_s = (surplus > 0.0).then(|| signals.lag / surplus);
        for (at, (arrival, consumed)) in rates.iter().copied().enumerate() {
            if is_left_out[at] {
                continue;
            }
            if arrival > signals.hottest.map_or(0.0, |(_, rate)| rate) {
                signals.hottest = Some((at as u32, arrival));
            }
            if arrival < 0.1 * signals.arrival / rates.len() as f64 {
                signals.idle_partitions += 1;
            }
            let partition = &observation.partitions[at];
            let lag = partition.lag() as f64;
            if lag > signals.fullest.map_or(0.0, |(_, lag)| lag) {
                signals.fullest = Some((at as u32, lag));
            }
            if lag > SATURATED_S * consumed {
                signals.saturated_partitions += 1;
            }
            if lag > 0.0 {
                // An age is believed as far as the flow bears it out: files of last week, read now,
                // have old records and no backlog.
                let in_flow_s = AGE_TRUST * lag / arrival.min(consumed).max(1.0);
                // No timestamp is -1 in Kafka, and a producer's clock may be ahead.
                let waited_s = match partition.committed_record_ms {
                    Some(record_ms) if (0..=now_ms).contains(&record_ms) => {
                        ((now_ms - record_ms) as f64 / 1000.0).min(in_flow_s)
                    }
                    _ => signals.lag / signals.arrival.max(1.0),
                };
                signals.time_lag_s = signals.time_lag_s.max(waited_s);
            }
        }
        signals
    }

    /// Records consumed per second over the last `seconds`.
    pub(super) fn consumed_lately(&self, seconds: f64) -> f64 {
        let (Some(first), Some(last)) = (self.lately(seconds), self.samples.back()) else {
            return 0.0;
        };
        let moved = pairs(first, &last.partitions)
            .map(|(old, new)| new.position.saturating_sub(old.position) as f64);
        moved.sum::<f64>() * 1000.0 / (last.at_ms - first.at_ms).max(1) as f64
    }

    /// The share of what arrived in the last `seconds` that went to partitions from `partition` on.
    pub(super) fn arrival_share_from(&self, partition: u32, seconds: f64) -> f64 {
        let (Some(first), Some(last)) = (self.lately(seconds), self.samples.back()) else {
            return 0.0;
        };
        let (mut all, mut new_ones) = (0.0, 0.0);
        for (at, (old, new)) in pairs(first, &last.partitions).enumerate() {
            let arrived = new.end.saturating_sub(old.end) as f64;
            all += arrived;
            new_ones += if at >= partition as usize { arrived } else { 0.0 };
        }
        new_ones / f64::max(all, 1.0)
    }

    /// Arrival per second in the busiest minute of the time that scale-in looks back on.
    pub(super) fn peak_arrival(&self) -> f64 {
        let mut peak: f64 = 0.0;
        let (mut oldest, mut arrived, mut span_ms) = (0, 0.0, 0);
        for sum in &self.sums {
            arrived += sum.arrived;
            span_ms += sum.span_ms;
            while span_ms - self.sums[oldest].span_ms >= 60_000 {
                arrived -= self.sums[oldest].arrived;
                span_ms -= self.sums[oldest].span_ms;
                oldest += 1;
            }
            if span_ms >= 60_000 {
                peak = peak.max(arrived * 1000.0 / span_ms as f64);
            }
        }
        peak
    }

    /// How long the sums reach back.
    pub(super) fn remembered_s(&self) -> f64 {
        self.sums.iter().map(|sum| sum.span_ms).sum::<i64>() as f64 / 1000.0
    }
}

/// Each partition then and now. One that was not there then was empty.
fn pairs<'a>(
    first: &'a Sample,
    partitions: &'a [Progress],
) -> impl Iterator<Item = (Progress, Progress)> + 'a {
    partitions.iter().enumerate().map(|(at, new)| {
        let empty =
            Progress { log_start: new.log_start, end: new.log_start, position: new.log_start };
        (first.partitions.get(at).copied().unwrap_or(empty), *new)
    })
}
