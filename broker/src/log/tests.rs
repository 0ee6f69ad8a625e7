//! One log from the outside: append, read, roll, retain, truncate, reopen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use elkfk_wire::kafka::records::{BatchBuilder, Compression, LeaderEpoch, Offset, batches};

use super::*;

const NOW_MS: i64 = 1_700_000_000_000;

struct Fixture {
    directory: tempfile::TempDir,
    config: TopicConfig,
}

impl Fixture {
    fn new(config: TopicConfig) -> Self {
        Self { directory: tempfile::tempdir().unwrap(), config }
    }

    fn open(&self, hints: OpenHints) -> (Log, Recovery) {
        let files = Files::new(Arc::new(SystemDisk), 4);
        Log::open(files, self.directory.path(), self.config.clone(), hints, NOW_MS).unwrap()
    }

    fn clean() -> OpenHints {
        OpenHints { is_clean: true, ..OpenHints::default() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// A batch of `count` records from `first`, whose values say their number.
fn numbered(first: i64, count: i64, timestamp_ms: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    for number in first..first + count {
        let value = format!("record {number}");
        builder.push(timestamp_ms + number, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn append(log: &mut Log, batch: Vec<u8>) -> Result<AppendInfo, AppendError> {
    append_at(log, batch, NOW_MS)
}

fn append_at(log: &mut Log, batch: Vec<u8>, now_ms: i64) -> Result<AppendInfo, AppendError> {
    let validated = validate(batch, &log.config().clone(), Origin::Client, now_ms)?;
    log.append(validated, LeaderEpoch(0), Origin::Client, now_ms)
}

fn fill(log: &mut Log, until: i64) {
    let mut next = log.log_end().0;
    while next < until {
        let count = (until - next).min(1 + next % 7);
        let info = append(log, numbered(next, count, NOW_MS)).unwrap();
        assert_eq!(info.base_offset, Offset(next));
        next += count;
    }
}

/// Checks that the log holds `record N` at offset N, without gaps, from its start to its end.
fn check_dense(log: &Log) {
    let bytes = log.read_all(log.log_start(), log.log_end()).unwrap();
    let mut expected = None;
    for batch in batches(&bytes) {
        let batch = batch.unwrap();
        batch.check().unwrap();
        let records = batch.records(1 << 20).unwrap();
        for record in &records {
            let record = record.unwrap();
            assert_eq!(*expected.get_or_insert(record.offset.0), record.offset.0);
            assert_eq!(record.value.unwrap(), format!("record {}", record.offset).as_bytes());
            expected = Some(record.offset.0 + 1);
        }
    }
    assert_eq!(Offset(expected.unwrap_or(log.log_end().0)), log.log_end());
}

fn find_timestamp(
    log: &mut Log,
    timestamp_ms: i64,
    upper: Offset,
) -> Result<Option<TimestampOffset>, LookupError> {
    log.plan_timestamp(timestamp_ms, upper)?.run()
}

fn small() -> TopicConfig {
    TopicConfig { segment_bytes_max: 4000, index_interval_bytes: 200, ..TopicConfig::default() }
}

#[test]
fn every_offset_is_found_where_a_linear_scan_finds_it() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 1000);
    assert!(log.segment_count() > 10);
    let all = log.read_all(Offset::ZERO, log.log_end()).unwrap();
    let batches: Vec<_> = batches(&all).map(Result::unwrap).collect();
    for pass in 0..2 {
        for from in (0..1000).map(Offset) {
            let expected = batches.iter().find(|batch| batch.last_offset() >= from).unwrap();
            let plan = log.plan_read(from, log.log_end(), 1, true);
            let read = plan.run().unwrap();
            assert_eq!(read.bytes, expected.bytes(), "offset {from}, pass {pass}");
            log.note_read(&read);
        }
    }
    check_dense(&log);
}

#[test]
fn reads_keep_to_their_limits() {
    let fixture = Fixture::new(TopicConfig::default());
    let (mut log, _) = fixture.open(OpenHints::default());
    let bytes = append(&mut log, numbered(0, 5, NOW_MS)).map(|_| log.bytes() as usize).unwrap();
    append(&mut log, numbered(5, 5, NOW_MS)).unwrap();
    let read = |log: &Log, from, upper, max_bytes, is_one_wanted| {
        let plan = log.plan_read(Offset(from), Offset(upper), max_bytes, is_one_wanted);
        plan.run().unwrap().bytes.len()
    };
    assert_eq!(read(&log, 0, 10, 1000, false), log.bytes() as usize);
    assert_eq!(read(&log, 0, 10, bytes + 1, false), bytes);
    assert_eq!(read(&log, 0, 10, 1, true), bytes);
    assert_eq!(read(&log, 0, 10, 1, false), 0);
    assert_eq!(read(&log, 0, 5, 1000, true), bytes);
    assert_eq!(read(&log, 7, 10, 1000, true), log.bytes() as usize - bytes);
    assert_eq!(read(&log, 5, 5, 1000, true), 0);
}

#[test]
fn a_clean_log_opens_as_it_was() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    log.start_epoch(LeaderEpoch(4));
    fill(&mut log, 500);
    log.close().unwrap();
    let (bytes, segments) = (log.bytes(), log.segment_count());
    drop(log);
    let (log, recovery) = fixture.open(Fixture::clean());
    assert_eq!(recovery, Recovery::default());
    assert_eq!((log.bytes(), log.segment_count()), (bytes, segments));
    assert_eq!(log.log_end(), Offset(500));
    assert_eq!(log.epochs().latest(), Some(LeaderEpoch(4)));
    check_dense(&log);
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 300);
    drop(log);
    let last = newest_log(fixture.path());
    let file = std::fs::OpenOptions::new().write(true).open(&last).unwrap();
    let bytes = file.metadata().unwrap().len();
    file.set_len(bytes - 3).unwrap();
    let (mut log, recovery) = fixture.open(OpenHints::default());
    assert!(recovery.cut_bytes > 0 && recovery.walked_bytes > 0);
    assert!(log.log_end() < Offset(300));
    check_dense(&log);
    fill(&mut log, 400);
    check_dense(&log);
}

fn newest_log(directory: &Path) -> std::path::PathBuf {
    let mut logs: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs.pop().unwrap()
}

#[test]
fn damage_below_the_recovery_point_is_never_cut() {
    let fixture = Fixture::new(TopicConfig::default());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 100);
    log.close().unwrap();
    drop(log);
    let path = newest_log(fixture.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[70] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let hints = OpenHints { recovery_point: Offset(100), ..OpenHints::default() };
    let (log, recovery) = fixture.open(hints);
    assert_eq!((recovery.damaged_batches, recovery.cut_bytes), (1, 0));
    assert_eq!(log.log_end(), Offset(100));
    drop(log);
    // A broken length leaves no way on: the log stays closed rather than shrink.
    bytes[8] ^= 0x40;
    std::fs::write(&path, &bytes).unwrap();
    let files = Files::new(Arc::new(SystemDisk), 4);
    let error = Log::open(files, fixture.path(), fixture.config.clone(), hints, NOW_MS);
    assert!(matches!(error, Err(LogError::Damaged { position: 0, .. })), "{error:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes.len() as u64);
}

#[test]
fn lost_indexes_are_rebuilt() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 500);
    log.close().unwrap();
    drop(log);
    for entry in std::fs::read_dir(fixture.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "index" || it == "timeindex") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let (mut log, _) = fixture.open(Fixture::clean());
    check_dense(&log);
    let found = find_timestamp(&mut log, NOW_MS + 77, Offset(500)).unwrap().unwrap();
    assert_eq!(found.offset, Offset(77));
}

#[test]
fn timestamps_are_found() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 500);
    for number in [0, 1, 6, 7, 250, 499] {
        let found = find_timestamp(&mut log, NOW_MS + number, Offset(500)).unwrap().unwrap();
        assert_eq!((found.offset, found.timestamp_ms), (Offset(number), NOW_MS + number));
    }
    assert_eq!(find_timestamp(&mut log, NOW_MS + 500, Offset(500)).unwrap(), None);
    assert_eq!(find_timestamp(&mut log, NOW_MS + 400, Offset(300)).unwrap(), None);
    assert_eq!(find_timestamp(&mut log, 0, Offset(500)).unwrap().unwrap().offset, Offset::ZERO);
    let largest = log.plan_largest_timestamp(Offset(500)).unwrap().unwrap().run().unwrap().unwrap();
    assert_eq!(largest.offset, Offset(499));
}

#[test]
fn truncation_ends_the_log_where_asked() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 500);
    for target in [490, 300, 299, 120] {
        log.truncate_to(Offset(target), NOW_MS).unwrap();
        // A batch that reaches over the target goes whole.
        assert!(log.log_end() <= Offset(target) && log.log_end() > Offset(target - 8));
        check_dense(&log);
        fill(&mut log, target + 5);
        check_dense(&log);
    }
    log.truncate_fully(Offset(9000), NOW_MS).unwrap();
    assert_eq!((log.log_start(), log.log_end(), log.bytes()), (Offset(9000), Offset(9000), 0));
    fill(&mut log, 9100);
    log.close().unwrap();
    drop(log);
    let (log, _) = fixture.open(Fixture::clean());
    assert_eq!((log.log_start(), log.log_end()), (Offset(9000), Offset(9100)));
    check_dense(&log);
}

#[test]
fn retention_by_size_keeps_the_limit() {
    let fixture = Fixture::new(TopicConfig { retention_bytes: Some(9000), ..small() });
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 1000);
    let high_watermark = Offset(900);
    let retired = log.apply_retention(high_watermark, NOW_MS).unwrap();
    assert!(!retired.is_empty());
    assert!(log.bytes() >= 9000 && log.bytes() < 9000 + 4000, "{}", log.bytes());
    check_dense(&log);
    assert!(log.log_start() > Offset::ZERO);
    // Nothing above the high watermark goes.
    log.configure(TopicConfig { retention_bytes: Some(0), ..small() });
    log.apply_retention(high_watermark, NOW_MS).unwrap();
    assert!(log.log_start() <= high_watermark);
}

#[test]
fn idle_logs_expire_to_the_last_record() {
    let fixture = Fixture::new(TopicConfig {
        retention: Some(Duration::from_secs(100)),
        segment_age_max: Duration::from_secs(1_000_000),
        ..TopicConfig::default()
    });
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 10);
    log.apply_retention(Offset(10), NOW_MS + 90_000).unwrap();
    assert_eq!(log.log_start(), Offset::ZERO);
    log.apply_retention(Offset(10), NOW_MS + 101_000).unwrap();
    assert_eq!((log.log_start(), log.log_end(), log.bytes()), (Offset(10), Offset(10), 0));
    fill(&mut log, 20);
    check_dense(&log);
}

#[test]
fn a_timestamp_of_the_future_does_not_hold_retention_up() {
    let fixture = Fixture::new(TopicConfig {
        retention: Some(Duration::from_secs(100)),
        ..TopicConfig::default()
    });
    let (mut log, _) = fixture.open(OpenHints::default());
    append(&mut log, numbered(0, 3, NOW_MS * 3)).unwrap();
    log.apply_retention(Offset(3), NOW_MS + 50_000).unwrap();
    assert_eq!(log.log_start(), Offset::ZERO);
    log.apply_retention(Offset(3), NOW_MS + 150_000).unwrap();
    assert_eq!(log.log_start(), Offset(3));
}

#[test]
fn deleted_records_are_out_of_reach_and_their_segments_go() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    fill(&mut log, 500);
    let retired = log.delete_records(Offset(333)).unwrap();
    assert!(retired.iter().all(|path| path.to_string_lossy().ends_with(".deleted")));
    assert_eq!(log.log_start(), Offset(333));
    assert!(log.first_base_offset() <= Offset(333) && log.first_base_offset() > Offset(200));
    log.close().unwrap();
    drop(log);
    let hints = OpenHints { log_start: Offset(333), ..Fixture::clean() };
    let (log, _) = fixture.open(hints);
    assert_eq!(log.log_start(), Offset(333));
    // Files of segments that had gone are gone now.
    assert!(retired.iter().all(|path| !path.exists()));
}

#[test]
fn segments_roll_by_age_and_full_index() {
    let aged = TopicConfig { segment_age_max: Duration::from_millis(50), ..TopicConfig::default() };
    let fixture = Fixture::new(aged);
    let (mut log, _) = fixture.open(OpenHints::default());
    for number in 0..200 {
        append(&mut log, numbered(number, 1, NOW_MS)).unwrap();
    }
    assert_eq!(log.segment_count(), 4);
    let full =
        TopicConfig { index_bytes_max: 80, index_interval_bytes: 1, ..TopicConfig::default() };
    let fixture = Fixture::new(full);
    let (mut log, _) = fixture.open(OpenHints::default());
    for number in 0..100 {
        append(&mut log, numbered(number, 1, NOW_MS)).unwrap();
    }
    assert!(log.segment_count() > 10);
    check_dense(&log);
}

fn sequenced(epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None).producer(7, epoch, sequence);
    builder.push(NOW_MS, None, Some(b"v"), &[]);
    builder.build().unwrap()
}

#[test]
fn duplicates_are_known_after_crash_and_orderly_stop() {
    for is_clean in [true, false] {
        let fixture = Fixture::new(small());
        let (mut log, _) = fixture.open(OpenHints::default());
        for sequence in 0..100 {
            append(&mut log, sequenced(0, sequence)).unwrap();
        }
        if is_clean {
            log.close().unwrap();
        }
        drop(log);
        let (mut log, _) = fixture.open(OpenHints { is_clean, ..OpenHints::default() });
        let again = append(&mut log, sequenced(0, 99)).unwrap();
        assert_eq!((again.base_offset, again.is_duplicate), (Offset(99), true));
        assert_eq!(log.log_end(), Offset(100));
        let gap = append(&mut log, sequenced(0, 101)).unwrap_err();
        assert!(matches!(gap, AppendError::Producer(ProducerError::OutOfOrder { .. })));
        append(&mut log, sequenced(0, 100)).unwrap();
        append(&mut log, sequenced(1, 0)).unwrap();
        let fenced = append(&mut log, sequenced(0, 101)).unwrap_err();
        assert!(matches!(fenced, AppendError::Producer(ProducerError::Fenced { .. })));
    }
}

#[test]
fn truncation_forgets_what_producers_wrote_after() {
    let fixture = Fixture::new(small());
    let (mut log, _) = fixture.open(OpenHints::default());
    for sequence in 0..100 {
        append(&mut log, sequenced(0, sequence)).unwrap();
    }
    log.truncate_to(Offset(50), NOW_MS).unwrap();
    let info = append(&mut log, sequenced(0, 50)).unwrap();
    assert_eq!((info.base_offset, info.is_duplicate), (Offset(50), false));
}

#[test]
fn a_follower_keeps_its_leaders_offsets() {
    let (leader, follower) = (Fixture::new(small()), Fixture::new(small()));
    let (mut log, _) = leader.open(OpenHints::default());
    log.start_epoch(LeaderEpoch(0));
    fill(&mut log, 200);
    let (mut copy, _) = follower.open(OpenHints::default());
    let bytes = log.read_all(Offset::ZERO, Offset(200)).unwrap();
    for batch in batches(&bytes) {
        copy.append_replicated(batch.unwrap().bytes(), NOW_MS).unwrap();
    }
    assert_eq!(copy.log_end(), log.log_end());
    assert_eq!(copy.epochs(), log.epochs());
    check_dense(&copy);
    let again = copy.append_replicated(&bytes, NOW_MS).unwrap_err();
    assert!(matches!(again, AppendError::NotContiguous { .. }));
}

fn compacted() -> TopicConfig {
    TopicConfig { is_compacted: true, is_deleted: false, ..small() }
}

/// Appends `KEY=VALUE` for 60 keys in turn, so often that each key is replaced many times.
fn churn(log: &mut Log, from: i64, until: i64) {
    for number in from..until {
        let mut builder = BatchBuilder::new(Compression::ALL[number as usize % 5]);
        for key in [number % 60, (number * 7) % 60] {
            let (key, value) = (format!("key {key}"), format!("value {number}"));
            builder.push(NOW_MS + number, Some(key.as_bytes()), Some(value.as_bytes()), &[]);
        }
        append(log, builder.build().unwrap()).unwrap();
    }
}

/// The last value of each key, and how many records there are.
fn latest(log: &Log) -> (std::collections::BTreeMap<Vec<u8>, Option<Vec<u8>>>, usize) {
    let bytes = log.read_all(log.log_start(), log.log_end()).unwrap();
    let mut found = std::collections::BTreeMap::new();
    let (mut count, mut previous) = (0, Offset(-1));
    for batch in batches(&bytes) {
        let batch = batch.unwrap();
        batch.check().unwrap();
        let records = batch.records(1 << 20).unwrap();
        for record in &records {
            let record = record.unwrap();
            assert!(record.offset > previous);
            (previous, count) = (record.offset, count + 1);
            found.insert(record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec));
        }
    }
    (found, count)
}

fn clean(log: &mut Log, now_ms: i64) -> bool {
    let Some(plan) = log.plan_clean(log.log_end(), now_ms) else { return false };
    let cleaned = plan.run().unwrap();
    let retired = log.install_cleaned(cleaned).unwrap();
    for path in retired {
        std::fs::remove_file(path).unwrap();
    }
    true
}

#[test]
fn cleaning_keeps_the_last_of_each_key() {
    let fixture = Fixture::new(compacted());
    let (mut log, _) = fixture.open(OpenHints::default());
    let mut from = 0;
    for round in 1..=4 {
        churn(&mut log, from, round * 500);
        from = round * 500;
        let (expected, before) = latest(&log);
        assert!(clean(&mut log, NOW_MS));
        let (found, after) = latest(&log);
        assert_eq!(found, expected);
        assert!(after < before / 2 && after >= 60, "{before} → {after}");
        assert!(!clean(&mut log, NOW_MS), "a clean log is left alone");
        // Reads at offsets that are gone go on at the next one that is there.
        for from in (0..log.log_end().0).step_by(37) {
            let mut at = Offset(from);
            loop {
                let plan = log.plan_read(at, log.log_end(), 1, true);
                let read = plan.run().unwrap();
                if let Some(batch) = batches(&read.bytes).next() {
                    assert!(batch.unwrap().last_offset() >= Offset(from));
                    break;
                }
                at = plan.next_segment.expect("the last segment holds records");
            }
        }
    }
    log.close().unwrap();
    let (expected, _) = latest(&log);
    drop(log);
    for is_clean in [true, false] {
        let (log, recovery) = fixture.open(OpenHints { is_clean, ..OpenHints::default() });
        assert_eq!((latest(&log).0, recovery.cut_bytes), (expected.clone(), 0));
    }
}

#[test]
fn tombstones_go_once_everybody_had_the_time_to_see_them() {
    const DAY_MS: i64 = 24 * 60 * 60 * 1000;
    let fixture = Fixture::new(compacted());
    let (mut log, _) = fixture.open(OpenHints::default());
    churn(&mut log, 0, 200);
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(NOW_MS, Some(b"key 5"), None, &[]);
    append(&mut log, builder.build().unwrap()).unwrap();
    // Never key 5.
    let others = |log: &mut Log, from: i64, until: i64| {
        for number in from..until {
            let mut builder = BatchBuilder::new(Compression::None);
            let key = format!("other {}", number % 10);
            builder.push(NOW_MS, Some(key.as_bytes()), Some(&[b'x'; 100]), &[]);
            append_at(log, builder.build().unwrap(), NOW_MS).unwrap();
        }
    };
    others(&mut log, 0, 200);
    assert!(clean(&mut log, NOW_MS));
    assert_eq!(latest(&log).0.get(&b"key 5"[..]), Some(&None));
    others(&mut log, 0, 400);
    assert!(clean(&mut log, NOW_MS + 2 * DAY_MS));
    assert_eq!(latest(&log).0.get(&b"key 5"[..]), None);
    assert!(latest(&log).0.contains_key(&b"key 6"[..]));
}

#[test]
fn a_swap_that_a_crash_cut_short_is_finished() {
    let fixture = Fixture::new(compacted());
    let (mut log, _) = fixture.open(OpenHints::default());
    churn(&mut log, 0, 600);
    log.close().unwrap();
    let (expected, before) = latest(&log);
    let plan = log.plan_clean(log.log_end(), NOW_MS).unwrap();
    let cleaned = plan.run().unwrap();
    drop((log, cleaned));
    // As the cleaner leaves it between its renames.
    for entry in std::fs::read_dir(fixture.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "cleaned") {
            std::fs::rename(&path, path.with_extension("swap")).unwrap();
        }
    }
    let (log, recovery) = fixture.open(Fixture::clean());
    let (found, after) = latest(&log);
    assert_eq!((found, recovery.cut_bytes), (expected, 0));
    assert!(after < before);
}

#[test]
fn an_empty_segment_that_a_failed_roll_left_hides_nothing() {
    for is_last in [true, false] {
        for is_clean in [true, false] {
            let fixture = Fixture::new(TopicConfig::default());
            let (mut log, _) = fixture.open(OpenHints::default());
            fill(&mut log, 40);
            if !is_last {
                log.roll(NOW_MS).unwrap();
                fill(&mut log, 60);
            }
            log.close().unwrap();
            let log_end = log.log_end();
            drop(log);
            // The disk was full when the log was to roll at 20, and had room again soon after.
            std::fs::write(fixture.path().join("00000000000000000020.log"), b"").unwrap();
            let hints = OpenHints { is_clean, ..OpenHints::default() };
            let (mut log, recovery) = fixture.open(hints);
            assert_eq!((log.log_end(), recovery.cut_bytes), (log_end, 0));
            check_dense(&log);
            fill(&mut log, 100);
            check_dense(&log);
        }
    }
}

#[test]
fn a_log_that_ends_before_its_recovery_point_says_so() {
    for is_clean in [true, false] {
        let fixture = Fixture::new(TopicConfig::default());
        let (mut log, _) = fixture.open(OpenHints::default());
        fill(&mut log, 40);
        log.close().unwrap();
        drop(log);
        let hints = OpenHints { is_clean, recovery_point: Offset(45), ..OpenHints::default() };
        let (log, recovery) = fixture.open(hints);
        assert_eq!((log.log_end(), recovery.missing_offsets), (Offset(40), 5));
    }
}
