//! What a plot needs: each second of ten minutes, each ten seconds of three hours.

use std::collections::VecDeque;

use elkfk_broker_client::lag::Figures;

const FINE_POINTS: usize = 600;
const COARSE_POINTS: usize = 1080;
const COARSE_MS: i64 = 10_000;

/// (ms, lag, lag seconds, in, out); NaN where a figure is not known.
type Point = (i64, [f32; 4]);

#[derive(Debug, Default)]
pub(super) struct History {
    fine: VecDeque<Point>,
    coarse: VecDeque<Point>,
}

impl History {
    pub(super) fn last_ms(&self) -> i64 {
        self.fine.back().map_or(0, |(ms, _)| *ms)
    }

    pub(super) fn push(&mut self, now_ms: i64, figures: &Figures) {
        let value = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        let values = [
            value(figures.lag.map(|lag| lag as f64)),
            value(figures.lag_seconds),
            value(figures.in_rate),
            value(figures.out_rate),
        ];
        self.remember(now_ms, values);
    }

    /// A moment of which nothing is known.
    pub(super) fn miss(&mut self, now_ms: i64) {
        self.remember(now_ms, [f32::NAN; 4]);
    }

    fn remember(&mut self, now_ms: i64, values: [f32; 4]) {
        if self.coarse.back().is_none_or(|(ms, _)| now_ms - ms >= COARSE_MS) {
            push_bounded(&mut self.coarse, (now_ms, values), COARSE_POINTS);
        }
        push_bounded(&mut self.fine, (now_ms, values), FINE_POINTS);
    }

    /// `[seconds, lag, lag seconds, in, out]`, oldest first: coarse ones until the fine ones begin.
    pub(super) fn points(&self) -> Vec<[Option<f64>; 5]> {
        let fine_from = self.fine.front().map_or(i64::MAX, |(ms, _)| *ms);
        let coarse = self.coarse.iter().take_while(|(ms, _)| *ms < fine_from);
        let known = |value: f32| value.is_finite().then_some(f64::from(value));
        coarse
            .chain(&self.fine)
            .map(|(ms, [lag, seconds, inward, outward])| {
                [
                    Some(*ms as f64 / 1000.0),
                    known(*lag),
                    known(*seconds),
                    known(*inward),
                    known(*outward),
                ]
            })
            .collect()
    }
}

fn push_bounded(ring: &mut VecDeque<Point>, point: Point, points_max: usize) {
    if ring.len() == points_max {
        ring.pop_front();
    }
    ring.push_back(point);
}
