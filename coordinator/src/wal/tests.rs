use proptest::prelude::*;

use super::simulated::SimulatedDisk;
use super::*;

const SEGMENT: u64 = 4096;

fn batch(first: u64, sizes: &[usize]) -> Batch {
    let entries = sizes
        .iter()
        .zip(first..)
        .map(|(size, index)| LogEntry {
            term: 3,
            index,
            kind: 0,
            data: Bytes::from(vec![index as u8; *size]),
        })
        .collect();
    Batch { vote: Vote { term: 3, vote: 1, commit: first - 1 }, entries, restored: None }
}

fn open(disk: &SimulatedDisk, snapshot: u64) -> Result<(Wal<SimulatedDisk>, Recovered), WalError> {
    Wal::open(disk.clone(), snapshot, SEGMENT)
}

/// A log of `count` batches of one entry each, from index 1.
fn filled(count: u64) -> (SimulatedDisk, Wal<SimulatedDisk>) {
    let disk = SimulatedDisk::new(1);
    let (mut wal, recovered) = open(&disk, 0).unwrap();
    assert!(recovered.entries.is_empty() && recovered.torn.is_none());
    for index in 1..=count {
        wal.append(&[batch(index, &[100])]).unwrap();
    }
    (disk, wal)
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

#[test]
fn what_was_appended_is_there_again_across_segments() {
    let (disk, wal) = filled(100);
    assert!(wal.segments.len() > 1);
    drop(wal);
    disk.lose_power();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(indices(&recovered), (1..=100).collect::<Vec<_>>());
    assert_eq!(recovered.vote, Vote { term: 3, vote: 1, commit: 99 });
    assert_eq!(recovered.torn, None);
    // Below a snapshot nothing is asked for.
    let (mut wal, recovered) = open(&disk, 90).unwrap();
    assert_eq!(indices(&recovered), (91..=100).collect::<Vec<_>>());
    wal.append(&[batch(101, &[1, 2])]).unwrap();
    assert_eq!(open(&disk, 100).unwrap().1.entries.len(), 2);
}

#[test]
fn segments_below_the_oldest_snapshot_are_purged() {
    let (disk, mut wal) = filled(100);
    let before = wal.segments.len();
    let purged = wal.purge(60).unwrap();
    assert!(purged > 0 && wal.segments.len() == before - purged);
    assert_eq!(*indices(&open(&disk, 60).unwrap().1).last().unwrap(), 100);
    assert!(matches!(open(&disk, 5), Err(WalError::Missing { .. })));
    // The one being written stays, whatever it holds.
    wal.purge(1000).unwrap();
    assert_eq!(wal.segments.len(), 1);
}

#[test]
fn a_torn_end_is_cut_off_and_written_over() {
    let (disk, mut wal) = filled(3);
    let offset = wal.offset;
    wal.append(&[batch(4, &[700])]).unwrap();
    let name = wal.segments.back().unwrap().name.clone();
    disk.rot(&name, offset as usize + 600);
    let (mut wal, recovered) = open(&disk, 0).unwrap();
    assert_eq!(indices(&recovered), [1, 2, 3]);
    assert_eq!(recovered.torn, Some(Torn { segment: name, offset }));
    wal.append(&[batch(4, &[10])]).unwrap();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(indices(&recovered), [1, 2, 3, 4]);
    assert_eq!(recovered.torn, None);
}

#[test]
fn damage_below_what_was_acknowledged_is_refused() {
    let (disk, wal) = filled(100);
    let names: Vec<_> = wal.segments.iter().map(|segment| segment.name.clone()).collect();
    for name in [&names[0], names.last().unwrap()] {
        disk.rot(name, 30);
        assert!(matches!(open(&disk, 0), Err(WalError::Damaged { offset: 0, .. })), "{name}");
        // A length that leads astray does not hide what follows.
        disk.rot(name, 30);
        disk.rot(name, 5);
        assert!(matches!(open(&disk, 0), Err(WalError::Damaged { .. })), "{name}");
        disk.rot(name, 5);
    }
    open(&disk, 0).unwrap();
    let mut gone = disk.clone();
    gone.remove(&names[1]).unwrap();
    assert!(matches!(open(&disk, 0), Err(WalError::Gap { .. })));
}

#[test]
fn a_full_disk_refuses_and_heals() {
    let (disk, mut wal) = filled(1);
    wal.keep_room().unwrap();
    disk.set_capacity(0);
    let large = RESERVE_BYTES as usize + 1;
    let append = wal.append(&[batch(2, &[large])]);
    assert!(matches!(append, Err(AppendError::Full(_))), "{append:?}");
    let offset = std::mem::replace(&mut wal.offset, 3000);
    assert!(wal.keep_room().is_err());
    wal.offset = offset;
    disk.set_capacity(u64::MAX);
    wal.keep_room().unwrap();
    wal.append(&[batch(2, &[large])]).unwrap();
    assert_eq!(indices(&open(&disk, 0).unwrap().1), [1, 2]);
}

#[test]
fn room_is_kept_in_the_next_segment_too() {
    let (disk, mut wal) = filled(1);
    while wal.offset < SEGMENT {
        let index = wal.segments.back().unwrap().last_index + 1;
        wal.append(&[batch(index, &[100])]).unwrap();
    }
    // Full just where a segment ends: it shows before a batch is taken.
    disk.set_capacity(0);
    assert!(matches!(wal.keep_room(), Err(AppendError::Full(_))));
    disk.set_capacity(u64::MAX);
    wal.keep_room().unwrap();
    disk.set_capacity(0);
    let index = wal.segments.back().unwrap().last_index + 1;
    wal.append(&[batch(index, &[100])]).unwrap();
    assert_eq!(*indices(&open(&disk, 0).unwrap().1).last().unwrap(), index);
}

#[test]
fn a_snapshot_without_its_log_is_refused() {
    let empty = SimulatedDisk::new(1);
    assert!(matches!(open(&empty, 7), Err(WalError::NoLog { snapshot: 7 })));
    assert!(empty.list().unwrap().is_empty());
    let (disk, _) = filled(5);
    open(&disk, 5).unwrap();
    assert!(matches!(open(&disk, 6), Err(WalError::Behind { last: 5, snapshot: 6 })));
}

#[test]
fn after_a_failed_sync_nothing_is_appended() {
    let (disk, mut wal) = filled(1);
    disk.fail_sync_after(0);
    assert!(matches!(wal.append(&[batch(2, &[10])]), Err(AppendError::Failed(_))));
    disk.fail_sync_after(u32::MAX);
    assert!(matches!(wal.append(&[batch(2, &[10])]), Err(AppendError::Failed(_))));
}

#[test]
fn entries_of_a_newer_leader_replace_what_was_not_committed() {
    let (disk, mut wal) = filled(5);
    let mut newer = batch(4, &[1]);
    newer.entries[0].term = 4;
    wal.append(&[newer]).unwrap();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(indices(&recovered), [1, 2, 3, 4]);
    assert_eq!(recovered.entries[3].term, 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Power cuts at any moment: whatever was acknowledged is there, and at most one batch more.
    #[test]
    fn no_power_cut_loses_what_was_acknowledged(
        seed in any::<u64>(),
        lives in prop::collection::vec(prop::collection::vec(1usize..3000, 0..12), 1..6),
    ) {
        let disk = SimulatedDisk::new(seed);
        let mut acknowledged = 0;
        for sizes in lives {
            let (mut wal, recovered) = open(&disk, 0).unwrap();
            let found = recovered.entries.back().map_or(0, |entry| entry.index);
            prop_assert!(found == acknowledged || found == acknowledged + 1);
            for entry in &recovered.entries {
                prop_assert!(entry.data.iter().all(|byte| *byte == entry.index as u8));
            }
            acknowledged = found;
            let mut index = found;
            let count = sizes.len();
            for (at, size) in sizes.into_iter().enumerate() {
                index += 1;
                if at + 1 == count {
                    // The last one is written but never synced.
                    disk.fail_sync_after(0);
                    prop_assert!(wal.append(&[batch(index, &[size])]).is_err());
                } else {
                    wal.append(&[batch(index, &[size])]).unwrap();
                    acknowledged = index;
                }
            }
            disk.lose_power();
            disk.fail_sync_after(u32::MAX);
        }
    }

    #[test]
    fn no_bytes_do_harm(bytes in any::<Vec<u8>>(), sequence in 0u64..4) {
        let _ = record_at(&bytes, 0, sequence);
        let _ = has_record_after(&bytes, 0, sequence);
        let mut record = Vec::new();
        put_record(&mut record, sequence, &batch(1, &[5]));
        for (at, byte) in bytes.iter().enumerate() {
            let place = at * 7 % record.len();
            record[place] = *byte;
            let _ = record_at(&record, 0, sequence);
        }
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    let (disk, mut wal) = filled(10);
    let vote = Vote { term: 5, vote: 2, commit: 500 };
    let restored = Batch { vote, entries: Vec::new(), restored: Some(500) };
    wal.append(&[batch(11, &[9]), restored, batch(501, &[7])]).unwrap();
    disk.lose_power();
    let (mut wal, recovered) = open(&disk, 500).unwrap();
    assert_eq!(indices(&recovered), [501]);
    assert_eq!(recovered.vote, Vote { term: 3, vote: 1, commit: 500 });
    wal.append(&[batch(502, &[7])]).unwrap();
    wal.purge(500).unwrap();
    assert_eq!(indices(&open(&disk, 500).unwrap().1), [501, 502]);
}

#[test]
fn a_log_that_goes_on_after_a_lost_snapshot_is_refused() {
    let (disk, mut wal) = filled(10);
    let vote = Vote { term: 5, vote: 2, commit: 500 };
    wal.append(&[Batch { vote, entries: Vec::new(), restored: Some(500) }]).unwrap();
    open(&disk, 500).unwrap();
    for snapshot in [0, 8, 10] {
        let refused = open(&disk, snapshot).map(drop).unwrap_err();
        assert!(matches!(refused, WalError::Missing { first: 501, .. }), "{refused}");
    }
}

#[test]
fn a_promise_outlives_a_crash_right_after_a_segment_was_begun() {
    let (disk, mut wal) = filled(3);
    let vote = Vote { term: 9, vote: 2, commit: 3 };
    wal.append(&[Batch { vote, entries: Vec::new(), restored: None }]).unwrap();
    // As a crash leaves it before the first record of the segment.
    wal.start_segment(4).unwrap();
    drop(wal);
    disk.lose_power();
    for snapshot in [0, 3] {
        let (_, recovered) = open(&disk, snapshot).unwrap();
        assert_eq!((recovered.vote, recovered.entries.len()), (vote, 3 - snapshot as usize));
    }
    // An older promise must not stand for one that is damaged.
    let name = disk.list().unwrap()[0].clone();
    let whole = disk.read(&name).unwrap();
    let last = (0..whole.len()).rfind(|at| whole[*at..].starts_with(b"elkW")).unwrap();
    disk.rot(&name, last + HEADER_BYTES);
    assert!(matches!(open(&disk, 3), Err(WalError::Damaged { .. })));
}

#[test]
fn a_promise_outlives_a_crash_right_after_a_snapshot_was_received() {
    // Three entries nobody else has, and a promise in the segment after them.
    let (disk, mut wal) = filled(3);
    wal.start_segment(4).unwrap();
    let vote = Vote { term: 9, vote: 2, commit: 1 };
    wal.append(&[Batch { vote, entries: Vec::new(), restored: None }]).unwrap();
    // A snapshot up to entry 2 takes their place; a crash leaves it before the first record.
    wal.start_segment(3).unwrap();
    drop(wal);
    disk.lose_power();
    let (mut wal, recovered) = open(&disk, 2).unwrap();
    assert_eq!((recovered.vote, recovered.entries.len()), (vote, 0));
    // And it goes on from there.
    wal.append(&[batch(3, &[5])]).unwrap();
    assert_eq!(indices(&open(&disk, 2).unwrap().1), [3]);
}

#[test]
fn what_was_written_over_below_a_snapshot_does_not_come_back() {
    let disk = SimulatedDisk::new(1);
    let (mut wal, _) = open(&disk, 0).unwrap();
    wal.append(&[batch(1, &[9; 20])]).unwrap();
    let mut newer = batch(5, &[7; 6]);
    newer.entries.iter_mut().for_each(|entry| entry.term = 4);
    wal.append(&[newer]).unwrap();
    // All that the newer leader wrote is in the snapshot; entries 11 to 20 are nobody's.
    assert!(indices(&open(&disk, 10).unwrap().1).is_empty());
    assert_eq!(indices(&open(&disk, 8).unwrap().1), [9, 10]);
    wal.append(&[batch(11, &[1])]).unwrap();
    assert_eq!(indices(&open(&disk, 10).unwrap().1), [11]);
}
