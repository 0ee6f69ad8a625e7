use super::*;

fn partition(committed: Option<i64>, end: i64) -> PartitionSample {
    PartitionSample {
        topic: "logs".into(),
        committed,
        ends: Some((0, end)),
        ..PartitionSample::default()
    }
}

fn sample(second: i64, members: usize, partition: PartitionSample) -> Sample {
    let group = GroupSample {
        group: "sink".into(),
        state: "Stable".into(),
        members,
        partitions: vec![partition],
        why_unknown: None,
    };
    Sample { now_ms: second * 1000, groups: vec![group] }
}

fn one(snapshot: &Snapshot) -> &PartitionLag {
    &snapshot.groups[0].topics[0].partitions[0]
}

#[test]
fn rates_are_records_per_second_over_the_window() {
    let mut tracker = Tracker::default();
    let mut last = Snapshot::default();
    for second in 0..=30 {
        last = tracker.step(sample(second, 1, partition(Some(second * 50), second * 100)));
    }
    assert_eq!(
        (one(&last).figures.in_rate, one(&last).figures.out_rate, one(&last).figures.lag),
        (Some(100.0), Some(50.0), Some(1500))
    );
    // The averages settle on the same.
    let figures = &one(&last).figures;
    for (rate, expected) in [(figures.in_1m, 100.0), (figures.out_10m, 50.0)] {
        assert!((rate.unwrap() - expected).abs() < 1e-6, "{rate:?}");
    }
    assert_eq!(figures.drain, Some(Drain::Never));
}

#[test]
fn a_commit_that_stands_still_with_records_to_read_is_stalled() {
    let mut tracker = Tracker::default();
    let mut states = Vec::new();
    for second in 0..=40 {
        states.push(one(&tracker.step(sample(second, 1, partition(Some(10), 100)))).figures.state);
    }
    assert_eq!(states[29], State::Ok);
    assert_eq!(states[30], State::Stalled);
    assert_eq!(
        one(&tracker.step(sample(41, 0, partition(Some(10), 100)))).figures.state,
        State::Stopped
    );
    assert_eq!(
        one(&tracker.step(sample(42, 1, partition(Some(11), 100)))).figures.state,
        State::Ok
    );
}

#[test]
fn an_idle_topic_is_never_stalled() {
    let mut tracker = Tracker::default();
    for second in 0..100 {
        assert_eq!(
            one(&tracker.step(sample(second, 1, partition(Some(100), 100)))).figures.state,
            State::Ok
        );
    }
    assert_eq!(
        one(&tracker.step(sample(100, 1, partition(Some(100), 101)))).figures.state,
        State::Ok
    );
}

#[test]
fn no_commit_is_not_zero_and_not_a_giant_lag() {
    let mut tracker = Tracker::default();
    let snapshot = tracker.step(sample(0, 1, partition(None, 5_000)));
    assert_eq!(
        (one(&snapshot).figures.state, one(&snapshot).figures.lag),
        (State::Uncommitted, None)
    );
}

#[test]
fn lag_is_never_negative_and_never_counts_deleted_records() {
    let mut tracker = Tracker::default();
    assert_eq!(one(&tracker.step(sample(0, 1, partition(Some(50), 20)))).figures.lag, Some(0));
    let trimmed = PartitionSample { ends: Some((90, 100)), ..partition(Some(50), 0) };
    assert_eq!(one(&tracker.step(sample(1, 1, trimmed))).figures.lag, Some(10));
}

#[test]
fn a_minute_behind_is_behind() {
    let mut tracker = Tracker::default();
    let old = PartitionSample { committed_record_ms: Some(0), ..partition(Some(10), 100) };
    let snapshot = tracker.step(sample(60, 1, old));
    assert_eq!(
        (one(&snapshot).figures.state, one(&snapshot).figures.lag_seconds),
        (State::Behind, Some(60.0))
    );
}

#[test]
fn what_is_gone_for_a_minute_is_forgotten() {
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(1), 2)));
    tracker.step(Sample { now_ms: 59_000, groups: vec![] });
    assert_eq!(tracker.tracks.len(), 1);
    tracker.step(Sample { now_ms: 60_000, groups: vec![] });
    assert!(tracker.tracks.is_empty());
}

#[test]
fn a_failed_measurement_between_two_makes_nothing_forgotten() {
    let mut tracker = Tracker::default();
    for second in 0..5 {
        tracker.step(sample(second, 1, partition(Some(second * 50), second * 100)));
    }
    // An outage of any length: a silent cluster makes nothing forgotten.
    for second in 5..200 {
        tracker.miss(second * 1000);
    }
    let after = tracker.step(sample(200, 1, partition(Some(10_000), 20_000)));
    assert_eq!(one(&after).figures.in_rate, Some(100.0));
}

#[test]
fn a_refused_group_keeps_its_partitions_and_leaves_the_others_alone() {
    let mut tracker = Tracker::default();
    let two = |second, refused: Option<&str>| {
        let mut both = sample(second, 1, partition(Some(10), 10));
        let mut other = both.groups[0].clone();
        other.group = "other".into();
        if let Some(why) = refused {
            other = GroupSample {
                group: "other".into(),
                why_unknown: Some(why.into()),
                ..GroupSample::default()
            };
        }
        both.groups.push(other);
        both
    };
    tracker.step(two(0, None));
    let snapshot = tracker.step(two(1, Some("not authorized")));
    assert_eq!(one(&snapshot).figures.state, State::Ok);
    let other = &snapshot.groups[1];
    assert_eq!(other.why.as_deref(), Some("not authorized"));
    let partition = &other.topics[0].partitions[0];
    assert_eq!(
        (partition.figures.state, partition.figures.lag, partition.figures.in_rate),
        (State::Unknown, None, None)
    );
    assert_eq!(partition.why.as_deref(), Some("not authorized"));
    assert_eq!(
        tracker.step(two(2, None)).groups[1].topics[0].partitions[0].figures.state,
        State::Ok
    );
}

#[test]
fn time_to_drain_is_that_of_the_worst_partition() {
    let mut tracker = Tracker::default();
    let two = |second: i64, slow: i64| {
        let mut sample = sample(second, 1, partition(Some(second * 300), 10_000 + second * 100));
        sample.groups[0].partitions.push(PartitionSample {
            partition: 1,
            ..partition(Some(second * slow), 10_000 + second * 100)
        });
        sample
    };
    for second in 0..10 {
        tracker.step(two(second, 200));
    }
    let topic = |snapshot: &Snapshot| snapshot.groups[0].topics[0].figures.clone();
    // 9,000 records at 100 a second more than arrive; the other has 8,200 at 200.
    let figures = topic(&tracker.step(two(10, 200)));
    assert_eq!(figures.drain, Some(Drain::Seconds(90.0)));
    let mut tracker = Tracker::default();
    tracker.step(two(0, 100));
    assert_eq!(topic(&tracker.step(two(1, 100))).drain, Some(Drain::Never));
    // Two seconds' worth of what arrives is under way: that it never ends is no backlog.
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(0), 200)));
    let snapshot = tracker.step(sample(1, 1, partition(Some(100), 300)));
    assert_eq!(one(&snapshot).figures.drain, Some(Drain::Seconds(2.0)));
}

#[test]
fn a_commit_that_goes_back_is_told_for_a_minute() {
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(50), 100)));
    for second in 1..60 {
        let snapshot = tracker.step(sample(second, 1, partition(Some(10 + second / 10), 100)));
        assert_eq!(one(&snapshot).figures.state, State::Rewound, "{second}");
    }
    let snapshot = tracker.step(sample(61, 1, partition(Some(17), 100)));
    assert_eq!(one(&snapshot).figures.state, State::Ok);
}

#[test]
fn what_retention_took_is_lost_and_what_it_will_take_is_told() {
    let mut tracker = Tracker::default();
    let retention = Retention { ms: Some(20_000), ..Retention::default() };
    let sampled = |ends, committed_record_ms| PartitionSample {
        ends: Some(ends),
        committed_record_ms: Some(committed_record_ms),
        retention: Some(retention),
        ..partition(Some(150), 0)
    };
    let figures = tracker.step(sample(10, 1, sampled((100, 200), 0))).groups[0].figures.clone();
    assert_eq!((figures.lag, figures.retention_used, figures.lost), (Some(50), Some(0.5), 0));
    let figures = tracker.step(sample(21, 1, sampled((180, 200), 2_000))).groups[0].figures.clone();
    assert_eq!((figures.lag, figures.retention_used, figures.lost), (Some(20), Some(0.95), 30));
    // The brokers do not say how long it keeps: no share of it is known.
    let unknown = PartitionSample { retention: None, ..sampled((180, 200), 0) };
    assert_eq!(tracker.step(sample(22, 1, unknown)).groups[0].figures.retention_used, None);
}

#[test]
fn a_group_is_as_its_worst_partition() {
    let mut tracker = Tracker::default();
    let mut both = sample(0, 1, partition(Some(10), 10));
    let refused = PartitionSample {
        partition: 1,
        why_unknown: Some("no leader".into()),
        ..PartitionSample::default()
    };
    let refused = PartitionSample { topic: "logs".into(), ..refused };
    both.groups[0].partitions.push(refused);
    let group = &tracker.step(both).groups[0];
    assert_eq!((group.figures.state, group.figures.lag), (State::Unknown, Some(0)));
}

#[test]
fn a_burst_at_the_beginning_is_no_more_than_a_second_of_the_average() {
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(0), 0)));
    let mut last = Snapshot::default();
    for second in 1..=15 {
        let end = 9_000 + second * 40;
        last = tracker.step(sample(second, 1, partition(Some(end), end)));
    }
    let (minute, ten) = (one(&last).figures.in_1m.unwrap(), one(&last).figures.in_10m.unwrap());
    // 9,600 records in 15 seconds, of which the oldest count a little less.
    assert!((550.0..640.0).contains(&minute) && (630.0..641.0).contains(&ten), "{minute} {ten}");
}
