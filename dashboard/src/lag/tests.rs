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
fn what_is_gone_is_forgotten() {
    let mut tracker = Tracker::default();
    tracker.step(sample(0, 1, partition(Some(1), 2)));
    tracker.step(Sample { now_ms: 1000, groups: vec![] });
    assert!(tracker.history("sink", "logs").is_empty() && tracker.tracks.is_empty());
}
