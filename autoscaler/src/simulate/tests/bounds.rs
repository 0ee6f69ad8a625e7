//! How far the ladder, and how near the naive rule, may go in the seven scenarios.

use super::*;

/// What is asserted of each scenario, of the ladder and of the naive policy.
struct Bounds {
    scenario: &'static str,
    partitions: u32,
    /// At the end.
    consumers: std::ops::RangeInclusive<u32>,
    changes: u32,
    worst_time_lag_s: u32,
    hot_s: u32,
    lag_at_end: u64,
    alarms: &'static [&'static str],
    naive_partitions: u32,
}

const DAY_S: u32 = 86_400;

fn bounds() -> [Bounds; 7] {
    [
        Bounds {
            scenario: "burst",
            partitions: 16,
            consumers: 2..=6,
            changes: 5,
            worst_time_lag_s: 900,
            hot_s: 2400,
            lag_at_end: 0,
            alarms: &[],
            naive_partitions: 64,
        },
        Bounds {
            scenario: "growth",
            partitions: 32,
            consumers: 13..=32,
            changes: 4,
            worst_time_lag_s: 900,
            hot_s: 2400,
            lag_at_end: 2_000_000,
            alarms: &["maximum"],
            naive_partitions: 64,
        },
        Bounds {
            scenario: "noise",
            partitions: 8,
            consumers: 8..=8,
            changes: 0,
            worst_time_lag_s: 90,
            hot_s: 60,
            lag_at_end: 100_000,
            alarms: &[],
            naive_partitions: 8,
        },
        Bounds {
            scenario: "spikes",
            partitions: 8,
            consumers: 8..=8,
            changes: 1,
            worst_time_lag_s: 300,
            hot_s: 1200,
            lag_at_end: 0,
            alarms: &[],
            naive_partitions: 56,
        },
        Bounds {
            scenario: "sink-slow",
            partitions: 4,
            consumers: 4..=4,
            changes: 0,
            worst_time_lag_s: 1500,
            hot_s: 6000,
            lag_at_end: 0,
            alarms: &["sink"],
            naive_partitions: 64,
        },
        Bounds {
            scenario: "sink-away",
            partitions: 8,
            consumers: 4..=8,
            changes: 4,
            worst_time_lag_s: 1260,
            hot_s: 2700,
            lag_at_end: 0,
            alarms: &["no gain", "sink"],
            naive_partitions: 64,
        },
        Bounds {
            scenario: "poison",
            partitions: 4,
            consumers: 4..=4,
            changes: 0,
            worst_time_lag_s: DAY_S,
            hot_s: DAY_S,
            // All that came to the stalled partition.
            lag_at_end: 75_000_000,
            alarms: &["stalled"],
            naive_partitions: 64,
        },
    ]
}

/// What the ladder, with a guard broken or none, did to the scenarios that it must not.
pub(super) fn scenario_mistakes(guard: Option<Guard>) -> Vec<String> {
    let parameters = acting();
    let mut mistakes = Vec::new();
    for bounds in bounds() {
        let trace = scenario(bounds.scenario).expect("it is one of the seven");
        let mut instances = Instances::new(&parameters, guard, Vec::new());
        let report = drive(&trace, &mut instances, &parameters, &mut |_, _| {});
        let alarms: Vec<&str> = report.alarms.iter().map(String::as_str).collect();
        let is_within = report.partitions <= bounds.partitions
            && bounds.consumers.contains(&report.consumers)
            && report.changes <= bounds.changes
            && report.worst_time_lag_s <= bounds.worst_time_lag_s
            && report.hot_s <= bounds.hot_s
            && report.lag_at_end <= bounds.lag_at_end
            && report.order_broken == 0
            && alarms == bounds.alarms;
        if !is_within {
            mistakes.push(table([&report]));
        }
    }
    mistakes
}

#[test]
fn the_seven_scenarios_stay_within_their_bounds() {
    assert_eq!(scenario_mistakes(None), Vec::<String>::new());
}

#[test]
fn the_naive_rule_ends_next_to_the_maximum_in_six_of_seven() {
    for bounds in bounds() {
        let trace = scenario(bounds.scenario).expect("it is one of the seven");
        let report = run(&trace, Policy::Naive, &acting());
        let partitions = report.partitions;
        assert!(partitions >= bounds.naive_partitions, "{}", table([&report]));
        assert_eq!(partitions == 8, bounds.scenario == "noise", "{}", table([&report]));
    }
}
