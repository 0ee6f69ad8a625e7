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
        (one(&last).in_rate, one(&last).out_rate, one(&last).lag),
        (Some(100.0), Some(50.0), Some(1500))
    );
    let points = tracker.history("sink", "logs");
    assert_eq!(points.len(), 31);
    assert_eq!(points[30][1], Some(1500.0));
}

#[test]
fn a_commit_that_stands_still_with_records_to_read_is_stalled() {
    let mut tracker = Tracker::default();
    let mut states = Vec::new();
    for second in 0..=40 {
        states.push(one(&tracker.step(sample(second, 1, partition(Some(10), 100)))).state);
    }
    assert_eq!(states[29], State::Ok);
    assert_eq!(states[30], State::Stalled);
    assert_eq!(one(&tracker.step(sample(41, 0, partition(Some(10), 100)))).state, State::Stopped);
    assert_eq!(one(&tracker.step(sample(42, 1, partition(Some(11), 100)))).state, State::Ok);
}

#[test]
fn an_idle_topic_is_never_stalled() {
    let mut tracker = Tracker::default();
    for second in 0..100 {
        assert_eq!(
            one(&tracker.step(sample(second, 1, partition(Some(100), 100)))).state,
            State::Ok
        );
    }
    assert_eq!(one(&tracker.step(sample(100, 1, partition(Some(100), 101)))).state, State::Ok);
}

#[test]
fn no_commit_is_not_zero_and_not_a_giant_lag() {
    let mut tracker = Tracker::default();
    let snapshot = tracker.step(sample(0, 1, partition(None, 5_000)));
    assert_eq!((one(&snapshot).state, one(&snapshot).lag), (State::Uncommitted, None));
}

#[test]
fn lag_is_never_negative_and_never_counts_deleted_records() {
    let mut tracker = Tracker::default();
    assert_eq!(one(&tracker.step(sample(0, 1, partition(Some(50), 20)))).lag, Some(0));
    let trimmed = PartitionSample { ends: Some((90, 100)), ..partition(Some(50), 0) };
    assert_eq!(one(&tracker.step(sample(1, 1, trimmed))).lag, Some(10));
}

#[test]
fn a_minute_behind_is_behind() {
    let mut tracker = Tracker::default();
    let old = PartitionSample { committed_record_ms: Some(0), ..partition(Some(10), 100) };
    let snapshot = tracker.step(sample(60, 1, old));
    assert_eq!((one(&snapshot).state, one(&snapshot).lag_seconds), (State::Behind, Some(60.0)));
}

#[test]
fn what_is_gone_for_a_minute_is_forgotten() {
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(1), 2)));
    tracker.step(Sample { now_ms: 59_000, groups: vec![] });
    assert_eq!(tracker.history("sink", "logs").len(), 1);
    tracker.step(Sample { now_ms: 60_000, groups: vec![] });
    assert!(tracker.history("sink", "logs").is_empty() && tracker.tracks.is_empty());
}

#[test]
fn a_failed_measurement_between_two_is_a_gap_in_the_plot_and_no_more() {
    let mut tracker = Tracker::default();
    for second in 0..5 {
        tracker.step(sample(second, 1, partition(Some(second * 50), second * 100)));
    }
    // An outage of any length: a silent cluster makes nothing forgotten.
    for second in 5..200 {
        tracker.miss(second * 1000);
    }
    let after = tracker.step(sample(200, 1, partition(Some(10_000), 20_000)));
    assert_eq!(one(&after).in_rate, Some(100.0));
    let points = tracker.history("sink", "logs");
    let lags: Vec<_> = points.iter().map(|point| point[1]).collect();
    assert_eq!((points.len(), lags[4], lags[5], lags[199]), (201, Some(200.0), None, None));
    assert_eq!(lags[200], Some(10_000.0));
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
    assert_eq!(one(&snapshot).state, State::Ok);
    let other = &snapshot.groups[1];
    assert_eq!(other.why.as_deref(), Some("not authorized"));
    let partition = &other.topics[0].partitions[0];
    assert_eq!((partition.state, partition.lag, partition.in_rate), (State::Unknown, None, None));
    assert_eq!(partition.why.as_deref(), Some("not authorized"));
    assert_eq!(tracker.step(two(2, None)).groups[1].topics[0].partitions[0].state, State::Ok);
    assert_eq!(tracker.history("other", "logs").len(), 3);
}
