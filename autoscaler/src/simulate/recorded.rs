//! A load as it was seen on a cluster, for the model: from what `run --record` and `log --json` wrote.
//!
//! Arrival is taken as it was. What a consumer and Elasticsearch take is only seen while something waited;
//! where it never did, the model's own figures stand.

use std::collections::BTreeMap;

use super::trace::{Change, Trace};
use crate::ladder::{Event, Observation};
use crate::shell::Looked;

/// A consumer is seen at its limit while this many seconds of its work wait.
const SATURATED_S: f64 = 10.0;
/// Of the time: beyond it, what was consumed is what Elasticsearch took.
const BLOCKED: f64 = 0.5;
/// One trace for each of so many groups and topics.
const PAIRS_MAX: usize = 100;

/// What was seen at a moment. Rates are those since the moment before.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    at_ms: i64,
    arrival_per_s: f64,
    consumed_per_s: f64,
    lag: f64,
    blocked_share: f64,
    partitions: u32,
    consumers: u32,
    workers: u32,
    workers_max: u32,
    brokers: u32,
    replication_factor: u32,
    hottest_file_share: f64,
    is_compacted: bool,
    is_keyed: bool,
}

/// One trace for each group and topic in the text, if it is a recording: a JSON document a line.
///
/// # Errors
///
/// With the line that is neither an observation nor an event, or when there is too little to go by.
pub fn recorded(name: &str, text: &str) -> Result<Vec<Trace>, String> {
    let mut looks: BTreeMap<(String, String), Vec<Looked>> = BTreeMap::new();
    let mut seen: BTreeMap<(String, String), Vec<Seen>> = BTreeMap::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{name}:{}", number + 1);
        if let Ok(looked) = serde_json::from_str::<Looked>(line) {
            looks.entry((looked.group.clone(), looked.topic.clone())).or_default().push(looked);
            continue;
        }
        let event: Event = serde_json::from_str(line)
            .map_err(|error| format!("{}: no observation and no event: {error}", place()))?;
        if let Event::Decision(decision) = event {
            let pair = (decision.group.clone(), decision.topic.clone());
            let inputs = &decision.inputs;
            seen.entry(pair).or_default().push(Seen {
                at_ms: decision.at_ms,
                arrival_per_s: inputs.arrival_per_s,
                consumed_per_s: inputs.consumed_per_s,
                lag: inputs.lag_records as f64,
                blocked_share: inputs.blocked_share,
                partitions: inputs.partitions,
                consumers: inputs.consumers,
                workers: inputs.workers,
                workers_max: inputs.workers_max,
                brokers: inputs.brokers,
                replication_factor: inputs.replication_factor,
                hottest_file_share: inputs.hottest_file_share,
                is_compacted: false,
                is_keyed: false,
            });
        }
    }
    for (pair, looks) in looks {
        let rates = looks.windows(2).filter_map(|two| between(&two[0], &two[1]));
        seen.entry(pair).or_default().extend(rates);
    }
    let mut traces = Vec::new();
    for ((group, topic), mut seen) in seen.into_iter().take(PAIRS_MAX) {
        seen.sort_by_key(|seen| seen.at_ms);
        traces.extend(trace(format!("{name}: {topic} in {group}"), &seen));
    }
    if traces.is_empty() {
        return Err(format!("{name}: too short: rates need two looks at a group and topic"));
    }
    Ok(traces)
}

fn between(old: &Looked, new: &Looked) -> Option<Seen> {
    let span_s = (new.at_ms - old.at_ms) as f64 / 1000.0;
    if span_s <= 0.0 {
        return None;
    }
    let sums = |observation: &Observation| {
        let ends: f64 = observation.partitions.iter().map(|p| p.end as f64).sum();
        let lag: f64 = observation.partitions.iter().map(|p| p.lag() as f64).sum();
        (ends, lag)
    };
    let ((old_ends, old_lag), (ends, lag)) = (sums(&old.observation), sums(&new.observation));
    let arrived = (ends - old_ends).max(0.0);
    let Observation { partitions, consumers, sink, cluster, topic, .. } = &new.observation;
    Some(Seen {
        at_ms: new.at_ms,
        arrival_per_s: arrived / span_s,
        consumed_per_s: (arrived + old_lag - lag).max(0.0) / span_s,
        lag,
        blocked_share: sink.as_ref().map_or(0.0, |sink| match sink.is_elasticsearch_away {
            true => 1.0,
            false => sink.blocked_share,
        }),
        partitions: partitions.len() as u32,
        consumers: *consumers,
        workers: sink.as_ref().map_or(0, |sink| sink.workers),
        workers_max: sink.as_ref().map_or(0, |sink| sink.workers_max),
        brokers: cluster.brokers,
        replication_factor: topic.replication_factor,
        hottest_file_share: topic.hottest_file.as_ref().map_or(0.0, |file| file.share),
        is_compacted: topic.is_compacted,
        is_keyed: topic.has_foreign_keys,
    })
}

/// None: too little was seen.
fn trace(name: String, seen: &[Seen]) -> Option<Trace> {
    let (first, last) = (seen.first()?, seen.last()?);
    let seconds = u32::try_from((last.at_ms - first.at_ms) / 1000).ok().filter(|s| *s > 0)?;
    let at_s = |seen: &Seen| ((seen.at_ms - first.at_ms) / 1000) as u32;
    // What waited at the beginning comes in the first second.
    let mut arrival = vec![Change { at_s: 0, per_s: first.lag + first.arrival_per_s }];
    // A rate is that of the time before it was seen.
    arrival.extend(
        seen.windows(2)
            .map(|two| Change { at_s: at_s(&two[0]).max(1), per_s: two[1].arrival_per_s }),
    );
    let mut elasticsearch: Vec<Change> = Vec::new();
    for two in seen.windows(2) {
        let limits = two[1].blocked_share > BLOCKED;
        let per_s = if limits { two[1].consumed_per_s } else { 1e12 };
        if elasticsearch.last().map_or(limits, |last| last.per_s != per_s) {
            elasticsearch.push(Change { at_s: at_s(&two[0]), per_s });
        }
    }
    let saturated = seen.iter().filter(|seen| {
        seen.consumers > 0
            && seen.blocked_share < BLOCKED
            && seen.lag > SATURATED_S * seen.consumed_per_s
    });
    let each = |seen: &Seen, count: u32| seen.consumed_per_s / f64::from(count.max(1));
    let per_consumer = saturated
        .clone()
        .map(|seen| each(seen, seen.consumers.min(seen.partitions)))
        .reduce(f64::max)
        .filter(|rate| *rate > 0.0);
    let defaults = Trace::default();
    let per_consumer = per_consumer.unwrap_or(defaults.per_consumer);
    let workers = first.workers.max(1);
    Some(Trace {
        name,
        seconds: seconds.min(7 * 86_400),
        arrival,
        elasticsearch,
        partitions: first.partitions.max(1),
        consumers: first.consumers,
        workers,
        workers_max: first.workers_max.max(workers),
        per_consumer,
        // What one partition gives is not seen; more than its consumer takes, as in the scenarios.
        per_partition: per_consumer * defaults.per_partition / defaults.per_consumer,
        per_worker: per_consumer / f64::from(workers),
        hot_file_share: if first.hottest_file_share >= BLOCKED {
            first.hottest_file_share
        } else {
            0.0
        },
        is_keyed: seen.iter().any(|seen| seen.is_keyed),
        is_compacted: seen.iter().any(|seen| seen.is_compacted),
        brokers: first.brokers.max(1),
        replication_factor: first.replication_factor.max(1),
        ..defaults
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ladder::{Cluster, Partition, TopicFacts};
    use crate::simulate::{self, Policy};

    /// 3000/s come, two consumers take 1000/s each, from the thirtieth second on.
    fn looked(at_s: i64) -> Looked {
        let partition =
            |_| Partition { end: at_s * 750, committed: Some(at_s * 500), ..Partition::default() };
        Looked {
            at_ms: 1_700_000_000_000 + at_s * 1000,
            group: "g".into(),
            topic: "logs".into(),
            observation: Observation {
                partitions: (0..4).map(partition).collect(),
                consumers: 2,
                cluster: Cluster { brokers: 1, replicas: 4 },
                topic: TopicFacts { replication_factor: 1, ..TopicFacts::default() },
                ..Observation::default()
            },
        }
    }

    #[test]
    fn a_recording_is_lived_through_again() {
        let text: String =
            (2..=240).map(|n| serde_json::to_string(&looked(n * 15)).unwrap() + "\n").collect();
        let traces = recorded("seen.jsonl", &text).unwrap();
        let [trace] = &traces[..] else { panic!("{traces:?}") };
        assert_eq!(trace.mistakes(), Vec::<String>::new());
        assert_eq!((trace.partitions, trace.consumers, trace.per_consumer), (4, 2, 1000.0));
        assert!(trace.arrival[1..].iter().all(|change| change.per_s == 3000.0));
        let report = simulate::run(trace, Policy::Ladder, &simulate::acting());
        assert!(report.consumers > 2, "{report:?}");
        // The same from the events of that run.
        let log: String = report
            .events
            .iter()
            .map(|event| serde_json::to_string(event).unwrap() + "\n")
            .collect();
        let again = recorded("log.jsonl", &log).unwrap();
        assert_eq!(again[0].partitions, 4);
        assert_eq!(again[0].mistakes(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_recording_is_refused_with_its_line() {
        let one = serde_json::to_string(&looked(30)).unwrap();
        assert!(recorded("a", &one).unwrap_err().contains("too short"));
        let wrong = recorded("a", &format!("{one}\n{{}}\n")).unwrap_err();
        assert!(wrong.starts_with("a:2: "), "{wrong}");
    }
}
