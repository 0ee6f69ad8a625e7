//! What a plot needs: each second of ten minutes, each ten seconds of three hours, each five minutes of
//! seven days. Pure state in bounded memory.

use std::collections::{BTreeMap, VecDeque};

use elkfk_broker_client::lag::{Figures, Snapshot};

/// Of one series; with all its rings full it takes about 87 KiB.
const FINE_POINTS: usize = 600;
/// All points together; what does not fit is not plotted.
const BYTES_MAX: usize = 48 << 20;
const SERIES_MAX: usize = 10_000;
/// A series that is not measured for this long has ended.
const FORGET_AFTER_MS: i64 = 60_000;
/// Points of one answer.
const ANSWER_POINTS_MAX: usize = 2_000;

/// lag, lag seconds, in, out; NaN where a figure is not known.
pub(crate) type Values = [f32; 4];
/// When, in milliseconds, and what.
type Point = (i64, Values);
/// Group and topic.
pub(crate) type Series = (String, String);

/// The two that are kept on disk as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Grain {
    TenSeconds,
    FiveMinutes,
}

impl Grain {
    pub(crate) const ALL: [Self; 2] = [Self::TenSeconds, Self::FiveMinutes];

    pub(crate) fn ms(self) -> i64 {
        match self {
            Self::TenSeconds => 10_000,
            Self::FiveMinutes => 300_000,
        }
    }

    fn points_max(self) -> usize {
        match self {
            Self::TenSeconds => 1_080,
            Self::FiveMinutes => 2_016,
        }
    }

    /// How far back a ring of it reaches.
    pub(crate) fn span_ms(self) -> i64 {
        self.ms() * self.points_max() as i64
    }
}

/// Points that a window of time closed with: they are never changed again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Closed {
    pub(crate) grain: Grain,
    /// When it was first measured within the window: at its beginning, unless the series, or what broke
    /// it off, ended within it. A line from the window's beginning would show what nobody measured.
    pub(crate) at_ms: i64,
    pub(crate) series: Series,
    pub(crate) values: Values,
}

/// What was seen within the window that is open: the worst lag, the mean of the rates.
#[derive(Debug, Clone, Copy)]
struct Open {
    /// When the window began, and when it was first measured within it.
    begin_ms: i64,
    at_ms: i64,
    worst: [f32; 2],
    rates: [(f32, u16); 2],
}

impl Open {
    fn new(begin_ms: i64, at_ms: i64) -> Self {
        Self { begin_ms, at_ms, worst: [f32::NAN; 2], rates: [(0.0, 0); 2] }
    }

    fn add(&mut self, values: &Values) {
        for (worst, value) in self.worst.iter_mut().zip(values) {
            // `max` prefers a number to NaN.
            *worst = worst.max(*value);
        }
        for ((sum, count), value) in self.rates.iter_mut().zip(&values[2..]) {
            if value.is_finite() {
                *sum += value;
                *count = count.saturating_add(1);
            }
        }
    }

    fn values(&self) -> Values {
        let mean = |(sum, count): (f32, u16)| {
            if count == 0 { f32::NAN } else { sum / f32::from(count) }
        };
        [self.worst[0], self.worst[1], mean(self.rates[0]), mean(self.rates[1])]
    }
}

#[derive(Debug, Default)]
struct Ring {
    points: VecDeque<Point>,
    open: Option<Open>,
}

/// One group on one topic.
#[derive(Debug, Default)]
struct History {
    fine: VecDeque<Point>,
    rings: [Ring; 2],
    last_ms: i64,
}

impl History {
    /// Takes in a moment; answers with the windows that it closed.
    fn push(&mut self, now_ms: i64, values: Values) -> [Option<(i64, Values)>; 2] {
        self.leave_gap(now_ms);
        self.last_ms = now_ms;
        push_bounded(&mut self.fine, (now_ms, values), FINE_POINTS);
        let mut closed = [None; 2];
        for ((ring, grain), closed) in self.rings.iter_mut().zip(Grain::ALL).zip(&mut closed) {
            let begin_ms = now_ms - now_ms.rem_euclid(grain.ms());
            if let Some(open) = ring.open
                && open.begin_ms != begin_ms
            {
                push_bounded(&mut ring.points, (open.at_ms, open.values()), grain.points_max());
                *closed = Some((open.at_ms, open.values()));
                ring.open = None;
            }
            ring.open.get_or_insert_with(|| Open::new(begin_ms, now_ms)).add(&values);
        }
        closed
    }

    /// Where nobody looked the line is broken: it must not be drawn across.
    fn leave_gap(&mut self, now_ms: i64) {
        let (last_ms, silence_ms) = (self.last_ms, now_ms - self.last_ms);
        let nothing = [f32::NAN; 4];
        if silence_ms >= FORGET_AFTER_MS && !self.fine.is_empty() {
            push_bounded(&mut self.fine, (last_ms + 1000, nothing), FINE_POINTS);
        }
        for (ring, grain) in self.rings.iter_mut().zip(Grain::ALL) {
            let at_ms = last_ms - last_ms.rem_euclid(grain.ms()) + grain.ms();
            if silence_ms >= 3 * grain.ms() && !ring.points.is_empty() {
                if let Some(open) = ring.open.take() {
                    let point = (open.at_ms, open.values());
                    push_bounded(&mut ring.points, point, grain.points_max());
                }
                push_bounded(&mut ring.points, (at_ms, nothing), grain.points_max());
            }
        }
    }

    fn bytes(&self) -> usize {
        let points = self.fine.capacity()
            + self.rings.iter().map(|ring| ring.points.capacity()).sum::<usize>();
        points * size_of::<Point>() + size_of::<Self>()
    }

    /// Oldest first: the coarsest until finer ones begin.
    fn points(&self) -> Vec<Point> {
        let fine_from = first_ms(&self.fine);
        let ten_from = first_ms(&self.rings[0].points).min(fine_from);
        let before = |ring: &VecDeque<Point>, until: i64| {
            ring.iter().take_while(|(ms, _)| *ms < until).copied().collect::<Vec<_>>()
        };
        let mut points = before(&self.rings[1].points, ten_from);
        points.extend(before(&self.rings[0].points, fine_from));
        points.extend(&self.fine);
        points
    }
}

fn first_ms(points: &VecDeque<Point>) -> i64 {
    points.front().map_or(i64::MAX, |(ms, _)| *ms)
}

/// Grows in eighths, so that a ring never takes twice its size as a doubling one would.
fn push_bounded(ring: &mut VecDeque<Point>, point: Point, points_max: usize) {
    if ring.len() == points_max {
        ring.pop_front();
    } else if ring.len() == ring.capacity() {
        ring.reserve_exact((points_max / 8).min(points_max - ring.len()));
    }
    ring.push_back(point);
}

/// All series.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    of: BTreeMap<Series, History>,
    bytes: usize,
}

impl Histories {
    /// Takes in a snapshot; answers with the windows that it closed.
    pub(crate) fn push(&mut self, snapshot: &Snapshot) -> Vec<Closed> {
        let now_ms = snapshot.now_ms;
        let mut closed = Vec::new();
        for group in &snapshot.groups {
            for topic in &group.topics {
                let key = (group.group.clone(), topic.topic.clone());
                self.add(key, now_ms, values(&topic.figures), &mut closed);
            }
        }
        // A series that has ended is kept for its past, until that is older than the rings reach.
        self.of.retain(|_, history| now_ms - history.last_ms < Grain::FiveMinutes.span_ms());
        self.make_room(now_ms);
        closed
    }

    /// Forgets series that have ended, those that ended first, where they take the room of others.
    fn make_room(&mut self, now_ms: i64) {
        self.bytes = self.of.values().map(History::bytes).sum();
        let is_full = |this: &Self| this.bytes >= BYTES_MAX || this.of.len() >= SERIES_MAX;
        if !is_full(self) {
            return;
        }
        let mut ended: Vec<(i64, Series)> = self
            .of
            .iter()
            .filter(|(_, history)| now_ms - history.last_ms >= FORGET_AFTER_MS)
            .map(|(series, history)| (history.last_ms, series.clone()))
            .collect();
        ended.sort_unstable();
        for (_, series) in ended {
            if !is_full(self) {
                return;
            }
            if let Some(history) = self.of.remove(&series) {
                self.bytes -= history.bytes();
            }
        }
    }

    fn add(&mut self, key: Series, now_ms: i64, values: Values, closed: &mut Vec<Closed>) {
        if !self.has_room_for(&key) {
            return;
        }
        let is_new = !self.of.contains_key(&key);
        let history = self.of.entry(key.clone()).or_default();
        if is_new {
            // What it will soon take, so that one snapshot alone does not go beyond the bound.
            self.bytes += (FINE_POINTS / 8) * size_of::<Point>();
        }
        for (grain, done) in Grain::ALL.into_iter().zip(history.push(now_ms, values)) {
            if let Some((at_ms, values)) = done {
                closed.push(Closed { grain, at_ms, series: key.clone(), values });
            }
        }
    }

    fn has_room_for(&self, key: &Series) -> bool {
        self.of.contains_key(key) || (self.of.len() < SERIES_MAX && self.bytes < BYTES_MAX)
    }

    /// A moment of which nothing is known: the plots get a gap.
    pub(crate) fn miss(&mut self, now_ms: i64) -> Vec<Closed> {
        let mut closed = Vec::new();
        let keys: Vec<Series> = self
            .of
            .iter()
            .filter(|(_, history)| history.fine.back().is_some_and(|(ms, _)| now_ms > *ms))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.add(key, now_ms, [f32::NAN; 4], &mut closed);
        }
        closed
    }

    /// Closes what is open, as the last word before the end.
    pub(crate) fn flush(&mut self) -> Vec<Closed> {
        let mut closed = Vec::new();
        for (series, history) in &mut self.of {
            for (ring, grain) in history.rings.iter_mut().zip(Grain::ALL) {
                if let Some(open) = ring.open.take() {
                    let (at_ms, values, series) = (open.at_ms, open.values(), series.clone());
                    closed.push(Closed { grain, at_ms, series, values });
                }
            }
        }
        closed
    }

    /// Puts back what an earlier run closed; each series in the order of time.
    pub(crate) fn restore(&mut self, closed: Closed) {
        if !self.has_room_for(&closed.series) {
            return;
        }
        let history = self.of.entry(closed.series).or_default();
        let before = history.bytes();
        let ring = &mut history.rings[closed.grain as usize];
        if ring.points.back().is_none_or(|(ms, _)| *ms < closed.at_ms) {
            push_bounded(
                &mut ring.points,
                (closed.at_ms, closed.values),
                closed.grain.points_max(),
            );
        }
        history.last_ms = history.last_ms.max(closed.at_ms);
        self.bytes += history.bytes().saturating_sub(before);
    }

    /// `[seconds, lag, lag seconds, in, out]` of the time from `from_ms` to before `to_ms`, oldest first;
    /// where there are too many, every n-th.
    pub(crate) fn points(
        &self,
        group: &str,
        topic: &str,
        (from_ms, to_ms): (i64, i64),
    ) -> Vec<[Option<f64>; 5]> {
        let Some(history) = self.of.get(&(group.to_owned(), topic.to_owned())) else {
            return Vec::new();
        };
        let points: Vec<Point> =
            history.points().into_iter().filter(|(ms, _)| (from_ms..to_ms).contains(ms)).collect();
        thin(points)
            .into_iter()
            .map(|(ms, values)| {
                let [lag, seconds, inward, outward] = values.map(known);
                [Some(ms as f64 / 1000.0), lag, seconds, inward, outward]
            })
            .collect()
    }

    /// The series that `is_wanted`: for rules that look back.
    pub(crate) fn series(&self, is_wanted: impl Fn(&str, &str) -> bool) -> Vec<Series> {
        let wanted = self.of.keys().filter(|(group, topic)| is_wanted(group, topic));
        wanted.cloned().collect()
    }

    /// (ms, values) of one series, oldest first.
    pub(crate) fn past(&self, series: &Series) -> Vec<(i64, Values)> {
        self.of.get(series).map(History::points).unwrap_or_default()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn known(value: f32) -> Option<f64> {
    // Three decimals are what a plot shows; more only make the answer longer.
    value.is_finite().then(|| (f64::from(value) * 1000.0).round() / 1000.0)
}

/// At most so many that an answer stays small; the newest stays.
fn thin(points: Vec<Point>) -> Vec<Point> {
    let step = points.len().div_ceil(ANSWER_POINTS_MAX).max(1);
    let last = points.len().saturating_sub(1);
    let mut thin: Vec<Point> = Vec::with_capacity(points.len() / step + 1);
    for (at, point) in points.into_iter().enumerate() {
        if (last - at).is_multiple_of(step) {
            thin.push(point);
        }
    }
    thin
}

fn values(figures: &Figures) -> Values {
    let value = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
    [
        value(figures.lag.map(|lag| lag as f64)),
        value(figures.lag_seconds),
        value(figures.in_rate),
        value(figures.out_rate),
    ]
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{GroupLag, TopicLag};

    use super::*;

    const ALL: (i64, i64) = (i64::MIN, i64::MAX);

    fn snapshot(now_ms: i64, groups: usize, lag: i64) -> Snapshot {
        let figures = Figures { lag: Some(lag), in_rate: Some(2.0), ..Figures::default() };
        let groups = (0..groups).map(|group| GroupLag {
            group: format!("group-{group}"),
            state: "Stable".into(),
            members: 1,
            figures: figures.clone(),
            topics: vec![TopicLag {
                topic: "logs".into(),
                figures: figures.clone(),
                ..TopicLag::default()
            }],
            why: None,
        });
        Snapshot { now_ms, groups: groups.collect() }
    }

    #[test]
    fn a_week_fits_and_coarse_points_hold_the_worst() {
        let mut histories = Histories::default();
        let (begin, week) = (1_700_000_000_000, 7 * 86_400);
        for second in (0..week + 3600).step_by(5) {
            let lag = if second % 300 == 100 { 1000 } else { 1 };
            histories.push(&snapshot(begin + second * 1000, 1, lag));
        }
        let points = histories.points("group-0", "logs", ALL);
        assert!(points.len() <= ANSWER_POINTS_MAX, "{}", points.len());
        let span = points.last().unwrap()[0].unwrap() - points[0][0].unwrap();
        assert!(span >= 6.9 * 86_400.0, "{span}");
        assert!(points.windows(2).all(|two| two[0][0] < two[1][0]));
        assert_eq!((points[1][1], points[1][3]), (Some(1000.0), Some(2.0)));
        assert!(histories.bytes() < 100 << 10, "{}", histories.bytes());
        let part = histories.points("group-0", "logs", (begin + 86_400_000, begin + 90_000_000));
        assert_eq!(part.len(), 12);
    }

    #[test]
    fn memory_has_a_bound_whatever_is_measured() {
        let mut histories = Histories::default();
        for second in 0..3 {
            histories.push(&snapshot(second * 1000, 20_000, 1));
        }
        assert!(histories.of.len() <= SERIES_MAX);
        assert!(histories.bytes() <= BYTES_MAX + (1 << 20), "{}", histories.bytes());
    }

    #[test]
    fn a_line_begins_where_it_was_first_measured_and_after_a_gap_again() {
        let mut histories = Histories::default();
        // Within windows of ten seconds and of five minutes, with a silence of two hours.
        let (begin, again) = (1_007_000, 1_007_000 + 7_200_000);
        let mut closed = Vec::new();
        for from in [begin, again] {
            for second in 0..700 {
                closed.extend(histories.push(&snapshot(from + second * 1000, 1, 5)));
            }
        }
        for grain in Grain::ALL {
            let stamps = closed.iter().filter(|one| one.grain == grain).map(|one| one.at_ms);
            let stamps: Vec<_> = stamps.collect();
            assert_eq!((stamps[0], stamps[1] % grain.ms()), (begin, 0), "{grain:?}");
            let first_again = stamps.iter().find(|ms| **ms > begin + 700_000);
            assert_eq!(first_again, Some(&again), "{grain:?}");
        }
        // Coarse and fine points together: none before the first, and each later than the one before.
        let points = histories.points("group-0", "logs", ALL);
        assert_eq!((points[0][0], points[0][1]), (Some(begin as f64 / 1000.0), Some(5.0)));
        assert!(points.windows(2).all(|two| two[0][0] < two[1][0]));
        assert!(points.iter().any(|point| point[1].is_none()), "the silence is a gap");
    }

    #[test]
    fn what_was_closed_comes_back_once() {
        let mut histories = Histories::default();
        let mut closed = Vec::new();
        for second in 0..100 {
            closed.extend(histories.push(&snapshot(second * 1000, 1, second)));
        }
        assert_eq!(closed.len(), 9);
        closed.extend(histories.flush());
        assert_eq!(closed.len(), 11);
        let mut again = Histories::default();
        for one in closed.iter().chain(&closed) {
            again.restore(one.clone());
        }
        let lags: Vec<_> =
            again.points("group-0", "logs", ALL).iter().map(|point| point[1].unwrap()).collect();
        assert_eq!(lags, [9.0, 19.0, 29.0, 39.0, 49.0, 59.0, 69.0, 79.0, 89.0, 99.0]);
    }
}
