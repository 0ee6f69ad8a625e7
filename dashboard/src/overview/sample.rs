//! What shipper, sinks and index say of themselves at one moment, and what two moments tell. Pure.

use std::collections::VecDeque;

use serde_json::Value;

/// Rates are taken over as many samples.
const SAMPLES: usize = 5;

#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    pub(super) at_ms: i64,
    /// `None` where no shipper runs in this process.
    pub(super) shipper: Option<Shipper>,
    /// Each sink's answer, or why there is none.
    pub(super) sinks: Vec<(String, Result<Sink, String>)>,
    pub(super) index: Option<Result<Index, String>>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Shipper {
    pub(super) lines: f64,
    pub(super) acked: f64,
    /// From when lines stood in their file to when they were read, summed over the lines.
    pub(super) file_wait_s: f64,
    /// From the reading of lines to the acknowledgement of their events, summed over so many.
    pub(super) ack_s: f64,
    pub(super) acks: f64,
    pub(super) unshipped_bytes: f64,
    pub(super) in_flight_bytes: f64,
    pub(super) files: f64,
    pub(super) failures: f64,
    pub(super) is_kafka_up: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sink {
    pub(super) records: f64,
    pub(super) delivered: f64,
    pub(super) dropped: f64,
    pub(super) dead_letters: f64,
    pub(super) grok_failures: f64,
    pub(super) blocked_share: f64,
    /// From the times of records to when they were read, summed over so many; a Logstash does not say.
    pub(super) topic_wait_s: Option<f64>,
    pub(super) topic_waits: Option<f64>,
    /// From bulk requests to their answers, summed over so many.
    pub(super) bulk_s: Option<f64>,
    pub(super) bulks: Option<f64>,
    /// Records read and not acknowledged by the index.
    pub(super) in_flight: Option<f64>,
    pub(super) is_away: bool,
    pub(super) workers: u64,
    pub(super) consumers: u64,
    pub(super) groups: Vec<String>,
    pub(super) last_error: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    pub(super) indices: usize,
    pub(super) documents: f64,
    pub(super) bytes: f64,
    pub(super) newest_ms: Option<i64>,
}

impl Shipper {
    /// Of the metrics of this process, as Prometheus reads them.
    pub(super) fn of(metrics: &str) -> Option<Self> {
        let of = |name: &str| sum(metrics, name);
        Some(Self {
            lines: of("elkfk_shipper_lines_total")?,
            acked: of("elkfk_shipper_acked_events_total").unwrap_or(0.0),
            file_wait_s: of("elkfk_shipper_file_wait_milliseconds_total").unwrap_or(0.0) / 1e3,
            ack_s: of("elkfk_shipper_ack_seconds_sum").unwrap_or(0.0),
            acks: of("elkfk_shipper_ack_seconds_count").unwrap_or(0.0),
            unshipped_bytes: of("elkfk_shipper_lag_bytes").unwrap_or(0.0),
            in_flight_bytes: of("elkfk_shipper_in_flight_bytes").unwrap_or(0.0),
            files: of("elkfk_shipper_files").unwrap_or(0.0),
            failures: of("elkfk_shipper_send_failures_total").unwrap_or(0.0),
            is_kafka_up: of("elkfk_shipper_kafka_up").is_none_or(|up| up > 0.0),
        })
    }
}

/// The sum of the lines of a metric.
fn sum(metrics: &str, name: &str) -> Option<f64> {
    let values = metrics.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let is_it = rest.starts_with([' ', '{']);
        is_it.then(|| rest.rsplit(' ').next()?.parse::<f64>().ok())?
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
}

impl Sink {
    /// Of `GET /_node/stats`; a Logstash answers without our part, from which some is known too.
    pub(super) fn of(stats: &Value) -> Option<Self> {
        let own = &stats["elkfk"];
        let in_flight = stats["pipelines"].as_object().and_then(|pipelines| {
            let counts = pipelines.values().map(|one| one["queue"]["events_count"].as_f64());
            counts.flatten().reduce(|a, b| a + b)
        });
        if !own.is_object() {
            let events = stats["events"].as_object()?;
            let number = |name: &str| events.get(name).and_then(Value::as_f64);
            return Some(Self {
                records: number("in")?,
                delivered: number("out")?,
                in_flight,
                workers: stats["pipeline"]["workers"].as_u64().unwrap_or(0),
                ..Self::default()
            });
        }
        let number = |name: &str| own[name].as_f64().unwrap_or(0.0);
        let count = |name: &str| own[name].as_u64().unwrap_or(0);
        let groups = match &own["group"] {
            Value::String(group) => vec![group.clone()],
            Value::Array(groups) => {
                groups.iter().filter_map(|group| group.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        Some(Self {
            records: number("records"),
            delivered: number("delivered"),
            dropped: number("dropped"),
            dead_letters: number("dead_letters"),
            grok_failures: number("grok_failures"),
            blocked_share: number("blocked_share"),
            topic_wait_s: own["topic_wait_s"].as_f64(),
            topic_waits: own["topic_wait_records"].as_f64(),
            bulk_s: own["bulk_s"].as_f64(),
            bulks: own["bulks"].as_f64(),
            in_flight,
            is_away: own["is_elasticsearch_away"] == true,
            workers: count("workers"),
            consumers: count("consumers"),
            groups,
            last_error: own["last_error"].as_str().map(str::to_owned),
        })
    }

    /// Several as one.
    pub(super) fn all<'a>(sinks: impl Iterator<Item = &'a Self>) -> Option<Self> {
        sinks.cloned().reduce(|mut all, one| {
            all.records += one.records;
            all.delivered += one.delivered;
            all.dropped += one.dropped;
            all.dead_letters += one.dead_letters;
            all.grok_failures += one.grok_failures;
            all.blocked_share = all.blocked_share.max(one.blocked_share);
            let sum = |a: Option<f64>, b: Option<f64>| match (a, b) {
                (Some(a), Some(b)) => Some(a + b),
                (a, b) => a.or(b),
            };
            all.topic_wait_s = sum(all.topic_wait_s, one.topic_wait_s);
            all.topic_waits = sum(all.topic_waits, one.topic_waits);
            all.bulk_s = sum(all.bulk_s, one.bulk_s);
            all.bulks = sum(all.bulks, one.bulks);
            all.in_flight = sum(all.in_flight, one.in_flight);
            all.is_away |= one.is_away;
            all.workers += one.workers;
            all.consumers += one.consumers;
            all.groups.extend(one.groups);
            all.last_error = all.last_error.or(one.last_error);
            all
        })
    }
}

impl Index {
    /// Of `_cat/indices?format=json` and of the search for the newest line.
    pub(super) fn of(cat: &Value, newest: &Value) -> Self {
        let rows = cat.as_array().map_or(&[][..], Vec::as_slice);
        let number = |value: &Value| value.as_f64().or_else(|| value.as_str()?.parse().ok());
        let total = |name: &str| rows.iter().filter_map(|row| number(&row[name])).sum();
        Self {
            indices: rows.len(),
            documents: total("docs.count"),
            bytes: total("store.size"),
            newest_ms: newest["hits"]["hits"][0]["sort"][0].as_i64(),
        }
    }
}

impl Sample {
    pub(super) fn sink(&self) -> Option<Sink> {
        Sink::all(self.sinks.iter().filter_map(|(_, sink)| sink.as_ref().ok()))
    }

    pub(super) fn known_index(&self) -> Option<&Index> {
        self.index.as_ref()?.as_ref().ok()
    }
}

/// The last samples, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    samples: VecDeque<Sample>,
}

impl Flow {
    pub(super) fn push(&mut self, sample: Sample) {
        if self.samples.len() == SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    pub(super) fn newest(&self) -> Option<&Sample> {
        self.samples.back()
    }

    /// Of a counter per second; `None` until it was seen twice, or where it began anew.
    pub(super) fn rate(&self, counter: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        let known: Vec<(i64, f64)> = self
            .samples
            .iter()
            .filter_map(|sample| Some((sample.at_ms, counter(sample)?)))
            .collect();
        let (first, last) = (known.first()?, known.last()?);
        let elapsed_s = (last.0 - first.0) as f64 / 1000.0;
        let rate = (last.1 - first.1) / elapsed_s;
        (elapsed_s > 0.0 && rate >= 0.0).then(|| (rate * 1000.0).round() / 1000.0)
    }

    /// What each took in the mean over the samples, of a sum of seconds and a count that rise; `None` where
    /// there were none, or where they began anew.
    pub(super) fn mean(&self, of: impl Fn(&Sample) -> Option<(f64, f64)>) -> Option<f64> {
        let known: Vec<(f64, f64)> = self.samples.iter().filter_map(of).collect();
        let (first, last) = (known.first()?, known.last()?);
        let (seconds, count) = (last.0 - first.0, last.1 - first.1);
        (count > 0.0 && seconds >= 0.0).then(|| (seconds / count * 1e6).round() / 1e6)
    }

    /// Whether a value has risen over the samples.
    pub(super) fn is_growing(&self, value: impl Fn(&Sample) -> Option<f64>) -> bool {
        let known: Vec<f64> = self.samples.iter().filter_map(value).collect();
        matches!((known.first(), known.last()), (Some(first), Some(last)) if last > first)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_shipper_is_read_from_the_metrics_of_the_process() {
        let metrics = "# TYPE elkfk_shipper_lines_total counter\nelkfk_shipper_lines_total 12\nelkfk_shipper_files 3\nelkfk_shipper_filesystem 9\nelkfk_shipper_send_failures_total{why=\"a b\"} 1\nelkfk_shipper_send_failures_total{why=\"c\"} 2\nelkfk_shipper_file_wait_milliseconds_total 1500\nelkfk_shipper_ack_seconds_bucket{le=\"+Inf\"} 4\nelkfk_shipper_ack_seconds_sum 0.5\nelkfk_shipper_ack_seconds_count 4\n";
        let shipper = Shipper::of(metrics).unwrap();
        assert_eq!(
            (shipper.lines, shipper.files, shipper.failures, shipper.is_kafka_up),
            (12.0, 3.0, 3.0, true)
        );
        assert_eq!((shipper.file_wait_s, shipper.ack_s, shipper.acks), (1.5, 0.5, 4.0));
        assert_eq!(Shipper::of("elkfk_broker_topics 1\n"), None);
    }

    #[test]
    fn a_sink_and_a_logstash_are_read() {
        let ours = json!({"elkfk": {"records": 10, "delivered": 8, "blocked_share": 0.5, "workers": 2,
            "consumers": 3, "group": ["a", "b"], "is_elasticsearch_away": true,
            "topic_wait_s": 2.5, "topic_wait_records": 10, "bulk_s": 0.5, "bulks": 2},
            "pipelines": {"main": {"queue": {"events_count": 2}}}});
        let ours = Sink::of(&ours).unwrap();
        assert_eq!((ours.records, ours.is_away, ours.groups.len()), (10.0, true, 2));
        assert_eq!((ours.topic_wait_s, ours.topic_waits), (Some(2.5), Some(10.0)));
        let theirs = json!({"events": {"in": 5, "out": 4}, "pipeline": {"workers": 8},
            "pipelines": {"main": {"queue": {"events_count": 1}}}});
        let theirs = Sink::of(&theirs).unwrap();
        let all = Sink::all([&ours, &theirs].into_iter()).unwrap();
        assert_eq!(
            (all.records, all.delivered, all.workers, all.blocked_share),
            (15.0, 12.0, 10, 0.5)
        );
        assert_eq!(
            (all.in_flight, all.bulk_s, all.topic_waits),
            (Some(3.0), Some(0.5), Some(10.0))
        );
        assert_eq!(Sink::of(&json!({"odd": 1})), None);
    }

    #[test]
    fn an_index_is_read_in_both_spellings_of_numbers() {
        let cat = json!([{"index": "a", "docs.count": "12", "store.size": "100"}, {"docs.count": 3, "store.size": null}]);
        let newest = json!({"hits": {"hits": [{"sort": [1700000000000_i64]}]}});
        let index = Index::of(&cat, &newest);
        assert_eq!((index.indices, index.documents, index.bytes), (2, 15.0, 100.0));
        assert_eq!(index.newest_ms, Some(1_700_000_000_000));
        assert_eq!(Index::of(&json!({"error": "x"}), &Value::Null), Index::default());
    }

    #[test]
    fn rates_are_over_the_samples_and_a_restart_has_none() {
        let mut flow = Flow::default();
        let lines = |sample: &Sample| sample.shipper.as_ref().map(|shipper| shipper.lines);
        for second in 0..20 {
            let shipper = Shipper { lines: f64::from(second) * 50.0, ..Shipper::default() };
            flow.push(Sample {
                at_ms: i64::from(second) * 1000,
                shipper: Some(shipper),
                ..Sample::default()
            });
        }
        assert_eq!(
            (flow.samples.len(), flow.rate(lines), flow.is_growing(lines)),
            (SAMPLES, Some(50.0), true)
        );
        flow.push(Sample { at_ms: 21_000, shipper: Some(Shipper::default()), ..Sample::default() });
        assert_eq!(flow.rate(lines), None);
    }

    #[test]
    fn what_each_took_is_of_the_last_samples_and_nothing_where_there_was_none() {
        let mut flow = Flow::default();
        let acks =
            |sample: &Sample| sample.shipper.as_ref().map(|shipper| (shipper.ack_s, shipper.acks));
        let mut push = |ack_s, acks| {
            let shipper = Some(Shipper { ack_s, acks, ..Shipper::default() });
            flow.push(Sample { shipper, ..Sample::default() });
        };
        // Slow in the beginning, which is more than five samples ago.
        push(0.0, 0.0);
        push(100.0, 10.0);
        for n in 1..=5 {
            push(100.0 + f64::from(n) * 0.5, 10.0 + f64::from(n) * 5.0);
        }
        assert_eq!(flow.mean(acks), Some(0.1));
        for _ in 0..SAMPLES {
            flow.push(flow.newest().unwrap().clone());
        }
        assert_eq!(flow.mean(acks), None, "nothing was acknowledged");
        flow.push(Sample { shipper: Some(Shipper::default()), ..Sample::default() });
        assert_eq!(flow.mean(acks), None, "it was started anew");
        assert_eq!(Flow::default().mean(acks), None);
    }
}
