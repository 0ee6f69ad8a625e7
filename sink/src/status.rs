//! What a running sink tells of itself.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;

use crate::crew::{Crew, Look, Scaled};

/// What the sink does at a moment; counts are since its start.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Status {
    pub uptime_s: f64,
    pub records: u64,
    pub events: u64,
    /// By a filter.
    pub dropped: u64,
    /// Records without an event.
    pub skipped: u64,
    /// Events that a filter `grok` could not take apart.
    pub grok_failures: u64,
    /// Offsets that Kafka's retention had removed before they were read.
    pub lost: u64,
    /// Acknowledged by an elasticsearch output.
    pub delivered: u64,
    /// Of these, those that were there from an earlier delivery.
    pub already_there: u64,
    /// Events that a stdout output is done with.
    pub printed: u64,
    pub salvaged: u64,
    pub dead_letters: u64,
    /// Bulk answers that told of overload.
    pub throttled: u64,
    /// Time from the times of records to when they were read, summed over so many that have one.
    pub topic_wait_s: f64,
    pub topic_wait_records: u64,
    pub bulks: u64,
    pub bulks_in_flight: usize,
    /// From request to answer, summed over the bulks, and the mean since the start.
    pub bulk_s: f64,
    pub bulk_seconds_mean: f64,
    /// Time that workers spent on batches, summed over them.
    pub worked_s: f64,
    /// Time that reading waited for the outputs, summed over the consumers.
    pub blocked_s: f64,
    /// Share of the last half minute in which a consumer waited for the outputs, 0 to 1.
    pub blocked_share: f64,
    pub held_bytes: usize,
    /// Reading waits beyond it.
    pub held_bytes_max: usize,
    /// No node of Elasticsearch answers.
    pub is_elasticsearch_away: bool,
    /// It answers, but refuses the credentials.
    pub is_unauthorised: bool,
    /// Threads that run filters.
    pub workers: usize,
    pub workers_max: usize,
    /// Consumers that every kafka input has at least.
    pub consumers: usize,
    /// Of each input.
    pub consumers_max: usize,
    pub inputs: Vec<InputStatus>,
    pub partitions: Vec<PartitionStatus>,
    pub last_error: Option<LastError>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct InputStatus {
    pub group: String,
    /// Those named, or of a pattern those that are assigned now.
    pub topics: Vec<String>,
    pub consumers: usize,
    /// Its `consumer_threads`, the least it may have.
    pub consumers_configured: usize,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartitionStatus {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    /// Records read and not acknowledged.
    pub in_flight: usize,
    /// What was last committed by this assignment.
    pub committed: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct LastError {
    pub seconds_ago: f64,
    pub text: String,
}

impl Status {
    pub(crate) fn of(crew: &Crew) -> Self {
        let meters = &crew.meters;
        let Look { in_force, consumers, acks } = crew.look();
        let Scaled { workers, workers_max, consumers: of_each, consumers_max, remark: _ } =
            in_force;
        let mut partitions: Vec<PartitionStatus> = Vec::new();
        let mut assigned: Vec<BTreeSet<String>> = vec![BTreeSet::new(); crew.inputs.len()];
        for (input, acks) in acks {
            let acks = acks.lock().expect("no holder of this lock panics");
            for (name, in_flight, committed) in acks.positions() {
                assigned[input].insert(name.topic.to_string());
                partitions.push(PartitionStatus {
                    group: crew.inputs[input].group.clone(),
                    topic: name.topic.to_string(),
                    partition: name.partition,
                    in_flight,
                    committed,
                });
            }
        }
        partitions.sort_by(|a, b| {
            (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition))
        });
        let inputs = crew.inputs.iter().zip(assigned).enumerate().map(|(n, (input, assigned))| {
            InputStatus {
                group: input.group.clone(),
                topics: match input.is_pattern {
                    true => assigned.into_iter().collect(),
                    false => input.topics.clone(),
                },
                consumers: consumers.get(n).copied().unwrap_or(0),
                consumers_configured: input.consumers,
            }
        });
        let seconds = |micros: u64| micros as f64 / 1e6;
        let bulks = meters.bulks.load(Relaxed);
        Self {
            uptime_s: meters.started.elapsed().as_secs_f64(),
            records: meters.records.load(Relaxed),
            events: meters.events.load(Relaxed),
            dropped: meters.dropped.load(Relaxed),
            skipped: meters.skipped.load(Relaxed),
            grok_failures: meters.grok_failures.load(Relaxed),
            lost: meters.lost.load(Relaxed),
            delivered: meters.delivered.load(Relaxed),
            already_there: meters.already_there.load(Relaxed),
            printed: meters.printed.load(Relaxed),
            salvaged: meters.salvaged.load(Relaxed),
            dead_letters: meters.dead.load(Relaxed),
            throttled: meters.throttled.load(Relaxed),
            topic_wait_s: meters.topic_wait_ms.load(Relaxed) as f64 / 1e3,
            topic_wait_records: meters.topic_wait_records.load(Relaxed),
            bulks,
            bulks_in_flight: meters.bulks_in_flight.load(Relaxed),
            bulk_s: seconds(meters.bulk_micros.load(Relaxed)),
            bulk_seconds_mean: seconds(meters.bulk_micros.load(Relaxed)) / bulks.max(1) as f64,
            worked_s: seconds(meters.work_micros.load(Relaxed)),
            blocked_s: seconds(meters.blocked_micros.load(Relaxed)),
            blocked_share: meters.blocked_share(),
            held_bytes: crew.held.used(),
            held_bytes_max: crew.held.limit(),
            is_elasticsearch_away: meters.is_away.load(Relaxed),
            is_unauthorised: meters.is_unauthorised.load(Relaxed),
            workers,
            workers_max,
            consumers: of_each,
            consumers_max,
            inputs: inputs.collect(),
            partitions,
            last_error: meters
                .last_error()
                .map(|(ago, text)| LastError { seconds_ago: ago.as_secs_f64(), text }),
        }
    }

    /// The consumer groups, each once.
    pub fn groups(&self) -> Vec<&str> {
        let groups: BTreeSet<_> = self.inputs.iter().map(|input| input.group.as_str()).collect();
        groups.into_iter().collect()
    }

    /// The topics that are read, each once.
    pub fn topics(&self) -> Vec<&str> {
        let topics = self.inputs.iter().flat_map(|input| &input.topics).map(String::as_str);
        topics.collect::<BTreeSet<_>>().into_iter().collect()
    }
}
