//! Rates over windows, as Logstash's `flow`. Pure: samples come with their time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::status::Status;

pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// `current` covers about ten seconds in Logstash too; its longer windows (15 minutes and more) are
/// not kept.
const WINDOWS: [(&str, Duration); 3] = [
    ("current", Duration::from_secs(10)),
    ("last_1_minute", Duration::from_secs(60)),
    ("last_5_minutes", Duration::from_secs(300)),
];

/// What has happened up to a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) input: f64,
    pub(super) filtered: f64,
    pub(super) output: f64,
    /// Seconds, summed over consumers or workers; of the process.
    pub(super) blocked_s: f64,
    pub(super) worked_s: f64,
    pub(super) cpu_s: f64,
}

impl Sample {
    pub(super) fn of(at: Instant, status: &Status, cpu: Duration) -> Self {
        Self {
            at,
            input: status.records as f64,
            filtered: status.events as f64,
            output: (status.delivered + status.printed) as f64,
            blocked_s: status.blocked_s,
            worked_s: status.worked_s,
            cpu_s: cpu.as_secs_f64(),
        }
    }
}

/// The samples of the longest window, and the first.
#[derive(Debug)]
pub(super) struct Flow {
    first: Sample,
    samples: VecDeque<Sample>,
}

impl Flow {
    pub(super) fn new(first: Sample) -> Self {
        Self { first, samples: [first].into() }
    }

    pub(super) fn push(&mut self, sample: Sample) {
        let (_, longest) = WINDOWS[WINDOWS.len() - 1];
        // One older than the longest window stays: it is where that begins.
        while self.samples.len() > 1 && sample.at.duration_since(self.samples[1].at) >= longest {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// Where a window that ends with `now` begins; `None` while there is no sample so old.
    fn start(&self, now: &Sample, window: Duration) -> Option<&Sample> {
        self.samples.iter().rev().find(|sample| now.at.duration_since(sample.at) >= window)
    }

    /// Logstash's `flow` of the pipeline.
    pub(super) fn rates(&self, now: &Sample, workers: usize) -> Value {
        let mut flow = Map::new();
        let mut add = |name: &str, of: &dyn Fn(&Sample) -> f64, scale: f64| {
            let mut rates = Map::new();
            let starts = WINDOWS.map(|(name, window)| (name, self.start(now, window)));
            for (window, start) in starts.into_iter().chain([("lifetime", Some(&self.first))]) {
                if let Some(rate) = start.and_then(|start| rate(start, now, of)) {
                    rates.insert(window.into(), json!(rounded(rate * scale)));
                }
            }
            flow.insert(name.into(), rates.into());
        };
        add("input_throughput", &|sample| sample.input, 1.0);
        add("filter_throughput", &|sample| sample.filtered, 1.0);
        add("output_throughput", &|sample| sample.output, 1.0);
        add("queue_backpressure", &|sample| sample.blocked_s, 1.0);
        add("worker_concurrency", &|sample| sample.worked_s, 1.0);
        add("worker_utilization", &|sample| sample.worked_s, 100.0 / workers.max(1) as f64);
        flow.into()
    }

    /// Processors in use over the last ten seconds, or since the start where that is shorter.
    pub(super) fn cpu(&self, now: &Sample) -> f64 {
        let (_, window) = WINDOWS[0];
        let start = self.start(now, window).unwrap_or(&self.first);
        rate(start, now, &|sample| sample.cpu_s).unwrap_or(0.0)
    }
}

/// For each second; `None` within the first moment.
fn rate(start: &Sample, now: &Sample, of: &dyn Fn(&Sample) -> f64) -> Option<f64> {
    let seconds = now.at.duration_since(start.at).as_secs_f64();
    (seconds >= 0.1).then(|| (of(now) - of(start)) / seconds)
}

/// Three places, as Logstash.
fn rounded(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After `seconds` with so many events of every kind and half as many seconds of every kind.
    fn sample(begun: Instant, seconds: u64, events: f64) -> Sample {
        Sample {
            at: begun + Duration::from_secs(seconds),
            input: events,
            filtered: events,
            output: events,
            blocked_s: seconds as f64 / 2.0,
            worked_s: seconds as f64 / 2.0,
            cpu_s: seconds as f64 / 2.0,
        }
    }

    #[test]
    fn rates_are_those_of_their_windows() {
        let begun = Instant::now();
        let mut flow = Flow::new(sample(begun, 0, 0.0));
        let now = sample(begun, 4, 40.0);
        let rates = flow.rates(&now, 2);
        assert_eq!(rates["input_throughput"], json!({"lifetime": 10.0}));
        assert_eq!(rates["worker_concurrency"], json!({"lifetime": 0.5}));
        assert_eq!(rates["worker_utilization"], json!({"lifetime": 25.0}));
        assert_eq!(flow.cpu(&now), 0.5);
        // Ten a second for an hour, then a hundred for half a minute.
        for second in (5..=3600).step_by(5) {
            flow.push(sample(begun, second, second as f64 * 10.0));
        }
        for second in (3605..=3630).step_by(5) {
            flow.push(sample(begun, second, 36000.0 + (second - 3600) as f64 * 100.0));
        }
        assert!(flow.samples.len() <= 62, "{}", flow.samples.len());
        let rates = flow.rates(&sample(begun, 3630, 39000.0), 2);
        let output = &rates["output_throughput"];
        assert_eq!((&output["current"], &output["last_1_minute"]), (&json!(100.0), &json!(55.0)));
        assert_eq!(output["last_5_minutes"], json!(19.0));
        assert_eq!(output["lifetime"], json!(10.744));
        assert_eq!(rates["queue_backpressure"]["current"], json!(0.5));
    }

    #[test]
    fn nothing_is_said_of_a_moment() {
        let begun = Instant::now();
        let flow = Flow::new(sample(begun, 0, 0.0));
        assert_eq!(flow.rates(&sample(begun, 0, 0.0), 0)["input_throughput"], json!({}));
        assert_eq!(flow.cpu(&sample(begun, 0, 0.0)), 0.0);
    }
}
