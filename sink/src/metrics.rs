//! Every metric of the sink, and the figures of one running pipeline.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntGauge, register_histogram, register_int_counter,
    register_int_gauge,
};
use tracing::warn;

fn counter(name: &str, help: &str) -> IntCounter {
    register_int_counter!(name, help).expect("the name is registered once")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    register_int_gauge!(name, help).expect("the name is registered once")
}

pub static RECORDS: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_sink_records_total", "Records read from Kafka."));
pub static DROPPED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_sink_dropped_total", "Events that a filter dropped."));
pub static SKIPPED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_skipped_total", "Records without an event: tombstones, empty arrays.")
});
pub static GROK_FAILURES: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_grok_failures_total", "Events that a filter grok could not take apart.")
});
pub static LOST: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_lost_total", "Offsets that Kafka had removed before they were read.")
});
pub static DELIVERED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_delivered_total", "Documents that Elasticsearch acknowledged.")
});
pub static ALREADY_THERE: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "elkfk_sink_already_there_total",
        "Of the delivered, those that an earlier delivery had brought.",
    )
});
pub static SALVAGED: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_salvaged_total", "Documents with a field moved to unmapped.*.")
});
pub static DEAD: LazyLock<IntCounter> = LazyLock::new(|| {
    counter("elkfk_sink_dead_letters_total", "Records written to a dead-letter topic.")
});
pub static THROTTLED: LazyLock<IntCounter> =
    LazyLock::new(|| counter("elkfk_sink_throttled_total", "Bulk answers that told of overload."));
pub static BLOCKED_MS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "elkfk_sink_blocked_milliseconds_total",
        "Time in which reading waited for the outputs.",
    )
});
pub static TOPIC_WAIT_MS: LazyLock<IntCounter> = LazyLock::new(|| {
    counter(
        "elkfk_sink_topic_wait_milliseconds_total",
        "From the times of records to when they were read, summed over those that have one.",
    )
});
pub static WORKERS: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("elkfk_sink_workers", "Threads that run filters."));
pub static CONSUMERS: LazyLock<IntGauge> = LazyLock::new(|| {
    gauge("elkfk_sink_consumers", "Members of consumer groups, those leaving apart.")
});
pub static HELD_BYTES: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("elkfk_sink_held_bytes", "Records and documents in memory."));
pub static IN_FLIGHT: LazyLock<IntGauge> =
    LazyLock::new(|| gauge("elkfk_sink_bulk_in_flight", "Bulk requests under way."));
pub static BULK_SECONDS: LazyLock<Histogram> = LazyLock::new(|| {
    let buckets = vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
    let options =
        HistogramOpts::new("elkfk_sink_bulk_seconds", "From a bulk request to its answer.");
    register_histogram!(options.buckets(buckets)).expect("the name is registered once")
});

/// Reasons remembered so that each is logged once; then the set begins anew.
const TOLD_MAX: usize = 1000;

/// What one running pipeline counts; also adds to the metrics of the process.
#[derive(Debug)]
pub struct Meters {
    pub started: Instant,
    pub records: AtomicU64,
    /// Time from the times of records to when they were read, summed over so many that have one.
    pub topic_wait_ms: AtomicU64,
    pub topic_wait_records: AtomicU64,
    pub events: AtomicU64,
    pub dropped: AtomicU64,
    pub skipped: AtomicU64,
    pub grok_failures: AtomicU64,
    pub lost: AtomicU64,
    pub delivered: AtomicU64,
    pub already_there: AtomicU64,
    /// Events that an output `stdout` is done with.
    pub printed: AtomicU64,
    pub salvaged: AtomicU64,
    pub dead: AtomicU64,
    pub throttled: AtomicU64,
    /// Time that workers spent on batches, summed over them.
    pub work_micros: AtomicU64,
    /// Time that reading waited for the outputs, summed over the consumers.
    pub blocked_micros: AtomicU64,
    /// Consumers that read, those of all inputs together.
    consumers: AtomicUsize,
    pub bulks: AtomicU64,
    pub bulk_micros: AtomicU64,
    pub bulks_in_flight: AtomicUsize,
    /// Indices that refuse writes, as the last output to answer saw it.
    pub blocked_indices: AtomicUsize,
    pub is_away: AtomicBool,
    pub is_unauthorised: AtomicBool,
    blocked: Mutex<Blocked>,
    last_error: Mutex<Option<(Instant, String)>>,
    told: Mutex<HashSet<String>>,
}

/// In how much of the last half minute a consumer waited for the outputs, in the mean.
///
/// Takes the time since the start instead of reading a clock.
#[derive(Debug, Default)]
struct Blocked {
    /// Of each period; the newest stands at `newest % PERIODS`.
    periods: [Duration; PERIODS],
    /// Periods since the start.
    newest: u64,
}

const PERIODS: usize = 6;
const PERIOD: Duration = Duration::from_secs(5);

impl Blocked {
    /// Notes that one of so many consumers has waited for `time`.
    fn add(&mut self, since_start: Duration, time: Duration, consumers: usize) {
        self.advance(since_start);
        self.periods[self.newest as usize % PERIODS] += time / consumers.max(1) as u32;
    }

    fn share(&mut self, since_start: Duration) -> f64 {
        self.advance(since_start);
        let begun = PERIOD.as_secs_f64() * self.newest.saturating_sub(PERIODS as u64 - 1) as f64;
        let covered = since_start.as_secs_f64() - begun;
        let blocked: Duration = self.periods.iter().sum();
        (blocked.as_secs_f64() / covered.max(0.001)).min(1.0)
    }

    fn advance(&mut self, since_start: Duration) {
        let now = since_start.as_secs() / PERIOD.as_secs();
        // Threads come here in another order than they looked at the clock.
        for period in (self.newest + 1..=now).rev().take(PERIODS) {
            self.periods[period as usize % PERIODS] = Duration::ZERO;
        }
        self.newest = self.newest.max(now);
    }
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            records: AtomicU64::new(0),
            topic_wait_ms: AtomicU64::new(0),
            topic_wait_records: AtomicU64::new(0),
            events: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
            grok_failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            already_there: AtomicU64::new(0),
            printed: AtomicU64::new(0),
            salvaged: AtomicU64::new(0),
            dead: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            work_micros: AtomicU64::new(0),
            blocked_micros: AtomicU64::new(0),
            consumers: AtomicUsize::new(0),
            bulks: AtomicU64::new(0),
            bulk_micros: AtomicU64::new(0),
            bulks_in_flight: AtomicUsize::new(0),
            blocked_indices: AtomicUsize::new(0),
            is_away: AtomicBool::new(false),
            is_unauthorised: AtomicBool::new(false),
            blocked: Mutex::default(),
            last_error: Mutex::new(None),
            told: Mutex::default(),
        }
    }
}

impl Meters {
    pub fn on_records(&self, count: usize) {
        self.records.fetch_add(count as u64, Relaxed);
        RECORDS.inc_by(count as u64);
    }

    /// So many records have waited in their topic for so long, all together.
    pub fn on_topic_wait(&self, ms: u64, records: u64) {
        self.topic_wait_ms.fetch_add(ms, Relaxed);
        self.topic_wait_records.fetch_add(records, Relaxed);
        TOPIC_WAIT_MS.inc_by(ms);
    }

    pub fn on_filtered(&self, events: u64, dropped: u64, skipped: u64) {
        self.events.fetch_add(events, Relaxed);
        self.dropped.fetch_add(dropped, Relaxed);
        self.skipped.fetch_add(skipped, Relaxed);
        DROPPED.inc_by(dropped);
        SKIPPED.inc_by(skipped);
    }

    pub fn on_grok_failures(&self, count: u64) {
        self.grok_failures.fetch_add(count, Relaxed);
        GROK_FAILURES.inc_by(count);
    }

    pub fn on_lost(&self, count: u64) {
        self.lost.fetch_add(count, Relaxed);
        LOST.inc_by(count);
    }

    pub fn on_delivered(&self, count: usize, already_there: usize) {
        self.delivered.fetch_add(count as u64, Relaxed);
        self.already_there.fetch_add(already_there as u64, Relaxed);
        DELIVERED.inc_by(count as u64);
        ALREADY_THERE.inc_by(already_there as u64);
    }

    pub fn on_printed(&self, count: usize) {
        self.printed.fetch_add(count as u64, Relaxed);
    }

    pub fn on_answered(&self, took: Duration) {
        self.bulks.fetch_add(1, Relaxed);
        self.bulk_micros.fetch_add(took.as_micros() as u64, Relaxed);
        BULK_SECONDS.observe(took.as_secs_f64());
    }

    pub fn on_throttled(&self) {
        if self.throttled.fetch_add(1, Relaxed) == 0 {
            warn!("elasticsearch is overloaded; documents are sent again, more slowly");
        }
        THROTTLED.inc();
    }

    pub fn on_salvaged(&self, index: &str, field: &str, reason: &str) {
        self.salvaged.fetch_add(1, Relaxed);
        SALVAGED.inc();
        if self.tells_first(format!("{index} {field}")) {
            warn!(index, field, reason, "mapping refused a field; moved to unmapped, told once");
        }
    }

    pub fn on_dead(&self, topic: &str, reason: &str) {
        self.dead.fetch_add(1, Relaxed);
        DEAD.inc();
        // Reasons name documents; their kind is what is told once.
        let kind: String = reason.chars().take_while(|c| *c != '[').take(120).collect();
        if self.tells_first(format!("{topic} {kind}")) {
            warn!(topic, reason, "record parked in the dead-letter topic, told once for its kind");
        }
        self.set_error(format!("dead letter: {reason}"));
    }

    /// A worker is done with a batch that took it so long.
    pub fn on_worked(&self, time: Duration) {
        self.work_micros.fetch_add(time.as_micros() as u64, Relaxed);
    }

    pub fn on_blocked(&self, time: Duration) {
        BLOCKED_MS.inc_by(time.as_millis() as u64);
        self.blocked_micros.fetch_add(time.as_micros() as u64, Relaxed);
        let consumers = self.consumers.load(Relaxed);
        let mut blocked = self.blocked.lock().expect("no holder of this lock panics");
        blocked.add(self.started.elapsed(), time, consumers);
    }

    /// Share of the last 25 to 30 seconds in which reading waited for the outputs, 0 to 1.
    pub fn blocked_share(&self) -> f64 {
        let mut blocked = self.blocked.lock().expect("no holder of this lock panics");
        blocked.share(self.started.elapsed())
    }

    pub fn set_threads(&self, workers: usize, consumers: usize) {
        self.consumers.store(consumers, Relaxed);
        WORKERS.set(workers as i64);
        CONSUMERS.set(consumers as i64);
    }

    pub fn set_bulk(&self, is_away: bool, is_unauthorised: bool, in_flight: usize) {
        self.is_away.store(is_away, Relaxed);
        self.is_unauthorised.store(is_unauthorised, Relaxed);
        self.bulks_in_flight.store(in_flight, Relaxed);
        IN_FLIGHT.set(in_flight as i64);
    }

    /// Returns what it was before.
    pub fn set_away(&self, is_away: bool) -> bool {
        self.is_away.swap(is_away, Relaxed)
    }

    pub fn set_error(&self, text: String) {
        *self.last_error.lock().expect("no holder of this lock panics") =
            Some((Instant::now(), text));
    }

    /// The newest trouble and how long ago it was.
    pub fn last_error(&self) -> Option<(Duration, String)> {
        let held = self.last_error.lock().expect("no holder of this lock panics");
        held.as_ref().map(|(at, text)| (at.elapsed(), text.clone()))
    }

    fn tells_first(&self, what: String) -> bool {
        let mut told = self.told.lock().expect("no holder of this lock panics");
        if told.len() >= TOLD_MAX {
            told.clear();
        }
        told.insert(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn blocked_share_is_that_of_the_last_half_minute() {
        let mut blocked = Blocked::default();
        assert_eq!(blocked.share(Duration::ZERO), 0.0);
        blocked.add(seconds(4), seconds(2), 1);
        assert_eq!(blocked.share(seconds(4)), 0.5);
        assert_eq!(blocked.share(seconds(8)), 0.25);
        // Nobody looked for an hour.
        blocked.add(seconds(3600), seconds(3), 1);
        assert_eq!(blocked.share(seconds(3600)), 3.0 / 25.0);
        assert_eq!(blocked.share(seconds(3624)), 3.0 / 29.0);
        assert_eq!(blocked.share(seconds(3631)), 0.0);
    }

    #[test]
    fn blocked_share_is_the_mean_of_the_consumers() {
        let mut blocked = Blocked::default();
        for _ in 0..4 {
            blocked.add(seconds(10), seconds(5), 4);
        }
        assert_eq!(blocked.share(seconds(10)), 0.5);
        blocked.add(seconds(10), seconds(500), 1);
        assert_eq!(blocked.share(seconds(10)), 1.0);
        // A look at the clock that comes late.
        blocked.add(seconds(9), seconds(1), 1);
    }
}
