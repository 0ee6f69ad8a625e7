//! How many requests to have under way at once.
//!
//! Additive increase while answers stay nearly as quick as the quickest, multiplicative decrease
//! when they queue; a 429 halves at once. One controller stands over each node and each lane.
//! Compared is with the best, not with the mean as Vector does: a mean follows a queue as it grows.

use std::time::{Duration, Instant};

/// Answers within this factor of the best: more may be asked.
const QUICK: f64 = 1.5;
/// Answers beyond this factor of the best: they wait for each other.
const SLOW: f64 = 2.0;
const DECREASE: f64 = 0.9;
/// The best is forgotten by this factor each round, so that a cluster that became slower for good
/// is judged by what it is.
const FORGET: f64 = 1.02;
/// Smaller requests are judged as if they had this size: their time is latency, not work.
const SMALLEST_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub struct Concurrency {
    limit: f64,
    longest: usize,
    in_flight: usize,
    /// The lowest mean of a round, in seconds per mebibyte.
    best: Option<f64>,
    window: Window,
    last_cut: Option<Instant>,
}

/// Answers since the last decision.
#[derive(Debug, Default)]
struct Window {
    started: Option<Instant>,
    seconds_per_mib: f64,
    answers: usize,
    slowest: Duration,
    /// Whether all of the limit was in use at some moment: an unused limit teaches nothing.
    was_full: bool,
}

impl Concurrency {
    /// Starts at one request and never exceeds `longest`.
    pub fn new(longest: usize) -> Self {
        Self {
            limit: 1.0,
            longest: longest.max(1),
            in_flight: 0,
            best: None,
            window: Window::default(),
            last_cut: None,
        }
    }

    pub fn limit(&self) -> usize {
        (self.limit as usize).clamp(1, self.longest)
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub fn has_room(&self) -> bool {
        self.in_flight < self.limit()
    }

    pub fn on_sent(&mut self) {
        self.in_flight += 1;
        self.window.was_full |= !self.has_room();
    }

    /// An answer that says nothing about load: an error, a timeout.
    pub fn on_lost(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub fn on_answered(&mut self, now: Instant, took: Duration, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let window = &mut self.window;
        let started = *window.started.get_or_insert(now);
        window.seconds_per_mib +=
            took.as_secs_f64() * f64::from(1 << 20) / bytes.max(SMALLEST_BYTES) as f64;
        window.answers += 1;
        window.slowest = window.slowest.max(took);
        // A window is one round: as many answers as may be under way, and at least one round trip.
        if window.answers >= self.limit.max(2.0) as usize
            && now.duration_since(started) + took >= window.slowest
        {
            self.decide();
        }
    }

    /// The other side said that this is too much. At most once per round trip, since one overload
    /// is told by every request that was under way.
    pub fn on_throttled(&mut self, now: Instant, took: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.last_cut.is_none_or(|last| now.duration_since(last) >= took) {
            self.limit = (self.limit / 2.0).max(1.0);
            self.last_cut = Some(now);
            self.window = Window::default();
        }
    }

    fn decide(&mut self) {
        let window = std::mem::take(&mut self.window);
        let current = window.seconds_per_mib / window.answers as f64;
        let best = self.best.map_or(current, |best| (best * FORGET).min(current));
        self.best = Some(best);
        if current > best * SLOW {
            self.limit = (self.limit * DECREASE).max(1.0);
        } else if window.was_full && current <= best * QUICK {
            self.limit = (self.limit + 1.0).min(self.longest as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `rounds` full rounds against a server that handles `capacity` requests at once and
    /// queues the others; returns the limit reached.
    fn settle(controller: &mut Concurrency, now: &mut Instant, capacity: usize, rounds: usize) {
        for _ in 0..rounds {
            let batch = controller.limit();
            for _ in 0..batch {
                controller.on_sent();
            }
            let took = Duration::from_millis(100) * batch.div_ceil(capacity) as u32;
            *now += took;
            for _ in 0..batch {
                controller.on_answered(*now, took, 5 << 20);
            }
        }
    }

    #[test]
    fn limit_grows_while_answers_stay_quick_and_stops_where_they_queue() {
        let (mut controller, mut now) = (Concurrency::new(64), Instant::now());
        settle(&mut controller, &mut now, 1000, 200);
        assert_eq!(controller.limit(), 64);
        let mut controller = Concurrency::new(64);
        settle(&mut controller, &mut now, 1, 60);
        assert!(controller.limit() <= 8, "limit is {}", controller.limit());
    }

    #[test]
    fn throttling_halves_once_per_round_trip() {
        let (mut controller, mut now) = (Concurrency::new(64), Instant::now());
        settle(&mut controller, &mut now, 1000, 200);
        for _ in 0..10 {
            controller.on_sent();
        }
        for _ in 0..10 {
            controller.on_throttled(now, Duration::from_millis(10));
        }
        assert_eq!(controller.limit(), 32);
        assert_eq!(controller.in_flight(), 0);
        for _ in 0..20 {
            now += Duration::from_millis(10);
            controller.on_throttled(now, Duration::from_millis(10));
        }
        assert_eq!(controller.limit(), 1);
    }

    #[test]
    fn unused_limit_does_not_grow() {
        let (mut controller, mut now) = (Concurrency::new(64), Instant::now());
        settle(&mut controller, &mut now, 1000, 10);
        let limit = controller.limit();
        assert!(limit > 2);
        for _ in 0..100 {
            controller.on_sent();
            now += Duration::from_millis(100);
            controller.on_answered(now, Duration::from_millis(100), 5 << 20);
        }
        // The window in which the limit was last reached may still count.
        assert!(controller.limit() <= limit + 1);
    }
}
