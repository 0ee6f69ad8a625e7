//! Loads by chance: surges, ramps, noise, outages, stalls, deaths, hot files, on clusters of all kinds.

use super::chance::Chance;
use super::trace::{Change, Pause, Stall, Trace};
use crate::ladder::{Mode, Parameters};

/// The trace of a seed, and the limits set for it.
pub fn random(seed: u64) -> (Trace, Parameters) {
    let mut chance = Chance::new(seed);
    let chance = &mut chance;
    let partitions = chance.count(1..13);
    let mut trace = Trace {
        name: format!("seed {seed}"),
        seconds: chance.count(3600..10_800),
        partitions,
        consumers: chance.count(1..partitions + 1),
        files: chance.count(8..100),
        file_records: chance.within(10e3, 200e3),
        rebalance_s: chance.count(2..20),
        brokers: chance.count(1..6),
        ..Trace::default()
    };
    trace.replication_factor = chance.count(1..4).min(trace.brokers);
    if chance.is(0.3) {
        trace.workers = chance.count(1..3);
        trace.workers_max = chance.count(1..9);
        trace.per_worker = chance.within(1e3, 8e3);
    }
    let capacity = f64::from(trace.consumers) * trace.consumer_rate();
    let base = capacity * chance.within(0.2, 0.9);
    trace.arrival = arrival(chance, trace.seconds, base);
    if chance.is(0.3) {
        trace.elasticsearch = outages(chance, trace.seconds, capacity);
    }
    let moment = |chance: &mut Chance| chance.count(0..trace.seconds);
    if chance.is(0.15) {
        let from_s = moment(chance);
        let to_s = from_s + chance.count(60..7200);
        trace.stalls = vec![Stall { partition: chance.count(0..partitions), from_s, to_s }];
    }
    if chance.is(0.3) {
        let deaths = (0..chance.count(1..6))
            .map(|_| Pause { at_s: moment(chance), seconds: chance.count(5..60) });
        trace.rebalances = deaths.collect();
    }
    if chance.is(0.12) {
        trace.hot_file_share = chance.within(0.3, 0.95);
        trace.is_hot_file_told = chance.is(0.7);
    }
    trace.is_keyed = chance.is(0.08);
    trace.is_compacted = chance.is(0.04);
    if chance.is(0.04) {
        trace.replication_factor = trace.brokers + 1;
    }
    if chance.is(0.08) {
        let room = 2000 * u64::from(trace.brokers);
        trace.other_replicas = room.saturating_sub(u64::from(chance.count(0..120)));
    }
    let parameters = Parameters {
        mode: match chance.share() {
            share if share < 0.85 => Mode::Auto,
            share if share < 0.95 => Mode::Advise,
            _ => Mode::Off,
        },
        partitions_max: partitions.max(chance.count(4..65)),
        consumers_max: trace.consumers.max(chance.count(2..33)),
        ..Parameters::default()
    };
    (trace, parameters)
}

/// A base rate with surges, each reached at once or by a ramp, with noise or without.
fn arrival(chance: &mut Chance, seconds: u32, base: f64) -> Vec<Change> {
    const STEP_S: u32 = 10;
    let surges: Vec<(u32, u32, f64, u32)> = (0..chance.count(0..4))
        .map(|_| {
            let from_s = chance.count(0..seconds);
            let to_s = if chance.is(0.3) { u32::MAX } else { from_s + chance.count(30..3000) };
            let ramp_s = if chance.is(0.4) { chance.count(60..1200) } else { 1 };
            (from_s, to_s, chance.within(0.5, 5.0), ramp_s)
        })
        .collect();
    let noise = if chance.is(0.5) { chance.within(0.0, 0.4) } else { 0.0 };
    let silence = chance.is(0.1).then(|| chance.count(0..seconds));
    (0..seconds.div_ceil(STEP_S))
        .map(|step| {
            let at_s = step * STEP_S;
            let mut per_s = base;
            for &(from_s, to_s, factor, ramp_s) in &surges {
                if (from_s..to_s).contains(&at_s) {
                    per_s += base * factor * f64::from((at_s - from_s).min(ramp_s)).max(1.0)
                        / f64::from(ramp_s);
                }
            }
            per_s *= 1.0 + noise * chance.within(-1.0, 1.0);
            let is_silent = silence.is_some_and(|from| (from..from + 1200).contains(&at_s));
            Change { at_s, per_s: if is_silent { 0.0 } else { per_s } }
        })
        .collect()
}

/// Elasticsearch away or slow, for a while each time.
fn outages(chance: &mut Chance, seconds: u32, capacity: f64) -> Vec<Change> {
    let mut changes = vec![Change { at_s: 0, per_s: 1e9 }];
    let mut at_s = 0;
    for _ in 0..chance.count(1..4) {
        at_s += chance.count(60..seconds / 2);
        let per_s = if chance.is(0.4) { 0.0 } else { capacity * chance.within(0.2, 1.5) };
        changes.push(Change { at_s, per_s });
        at_s += chance.count(60..1800);
        changes.push(Change { at_s, per_s: 1e9 });
    }
    changes
}
