//! How far each partition may be committed.
//!
//! Records are acknowledged in any order; a partition's committed offset only ever covers records
//! that are all acknowledged. An epoch separates one assignment of a partition from the next, so
//! that an answer that comes after a rebalance cannot move the new owner's position.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::budget::{Budget, Credit};

/// A partition by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    pub topic: Arc<str>,
    pub partition: i32,
}

/// Counts the assignments this consumer has had; unique over all its partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Epoch(pub u64);

/// A record's place in the order in which its partition was read. Dense, unlike its offset.
pub type Sequence = u64;

/// The outstanding records of one consumer's partitions.
#[derive(Debug, Default)]
pub struct Acks {
    partitions: HashMap<Epoch, Partition>,
    last_epoch: u64,
}

#[derive(Debug)]
struct Partition {
    name: TopicPartition,
    /// Sequence of `outstanding[0]`.
    head: Sequence,
    /// From the first record that is not acknowledged on; acknowledged ones leave at the head only.
    outstanding: VecDeque<Outstanding>,
    unacknowledged: usize,
    /// What may be committed: one past the last record that left at the head.
    committable: Option<i64>,
    committed: Option<i64>,
    /// Records whose dead letter could not be written; while there are any nothing more is read.
    stuck: usize,
    /// Whether reading stopped since `outstanding` was too long; see [`Acks::is_stopped`].
    is_long: bool,
    /// Bytes of records read and not let go of. Without a limit of its own.
    held: Arc<Budget>,
}

/// Beyond this many records from the first that is not acknowledged on, a partition is not read
/// further: 16 MiB. One record that waits for a blocked index keeps all later ones here.
pub const OUTSTANDING_MAX: usize = 1 << 20;

#[derive(Debug, Clone, Copy)]
struct Outstanding {
    offset: i64,
    /// Deliveries still missing; a record that goes to two outputs has two.
    missing: u32,
}

impl Acks {
    /// Begins an assignment of a partition.
    pub fn assign(&mut self, name: TopicPartition) -> Epoch {
        self.last_epoch += 1;
        let epoch = Epoch(self.last_epoch);
        self.partitions.insert(
            epoch,
            Partition {
                name,
                head: 0,
                outstanding: VecDeque::new(),
                unacknowledged: 0,
                committable: None,
                committed: None,
                stuck: 0,
                is_long: false,
                held: Budget::new(usize::MAX),
            },
        );
        epoch
    }

    /// Takes note of records read from a partition, in the order of their offsets, each of which
    /// needs one acknowledgement. Returns the sequence of the first; the others follow it.
    ///
    /// `None` where the assignment has ended: the records belong to somebody else.
    pub fn track(
        &mut self,
        epoch: Epoch,
        offsets: impl IntoIterator<Item = i64>,
    ) -> Option<Sequence> {
        let partition = self.partitions.get_mut(&epoch)?;
        let first = partition.head + partition.outstanding.len() as u64;
        let before = partition.outstanding.len();
        partition
            .outstanding
            .extend(offsets.into_iter().map(|offset| Outstanding { offset, missing: 1 }));
        partition.unacknowledged += partition.outstanding.len() - before;
        Some(first)
    }

    /// States how many acknowledgements a record needs, before any of them can have come.
    /// None at all means that the record is done: a filter dropped it.
    pub fn expect(&mut self, epoch: Epoch, sequence: Sequence, deliveries: u32) {
        let Some(partition) = self.partitions.get_mut(&epoch) else { return };
        if deliveries == 0 {
            partition.acknowledge(sequence);
        } else if let Some(record) = partition.get_mut(sequence) {
            record.missing = deliveries;
        }
        partition.advance();
    }

    /// Notes one delivery of each of these records. Late answers for an ended assignment are ignored.
    pub fn acknowledge(&mut self, epoch: Epoch, sequences: impl IntoIterator<Item = Sequence>) {
        let Some(partition) = self.partitions.get_mut(&epoch) else { return };
        for sequence in sequences {
            partition.acknowledge(sequence);
        }
        partition.advance();
    }

    /// Offsets that rose since they were last taken; the caller commits them.
    pub fn take_committable(&mut self) -> Vec<(TopicPartition, i64)> {
        self.partitions.values_mut().filter_map(Partition::take_committable).collect()
    }

    /// As [`Acks::take_committable`] for one assignment.
    pub fn take_committable_of(&mut self, epoch: Epoch) -> Option<(TopicPartition, i64)> {
        self.partitions.get_mut(&epoch)?.take_committable()
    }

    /// What is to be committed of an assignment before it is given away, what was taken before
    /// included: of a commit under way nobody knows yet whether it is refused, as it is where a round
    /// of the group has begun.
    pub fn take_last_of(&mut self, epoch: Epoch) -> Option<(TopicPartition, i64)> {
        let partition = self.partitions.get_mut(&epoch)?;
        partition.committed = None;
        partition.take_committable()
    }

    /// Has the commit of these offsets tried again, after it failed.
    pub fn uncommit(&mut self, offsets: &[(TopicPartition, i64)]) {
        for partition in self.partitions.values_mut() {
            if offsets.iter().any(|(name, _)| *name == partition.name) {
                partition.committed = None;
            }
        }
    }

    /// Ends an assignment. What was not acknowledged will be read again by the next owner.
    pub fn end(&mut self, epoch: Epoch) {
        self.partitions.remove(&epoch);
    }

    /// Records read and not yet acknowledged.
    pub fn in_flight(&self, epoch: Epoch) -> usize {
        self.partitions.get(&epoch).map_or(0, |partition| partition.unacknowledged)
    }

    /// Stops the partition (`true`) or lets it go on once every stop was undone.
    pub fn set_stuck(&mut self, epoch: Epoch, is_stuck: bool) {
        if let Some(partition) = self.partitions.get_mut(&epoch) {
            partition.stuck = match is_stuck {
                true => partition.stuck + 1,
                false => partition.stuck.saturating_sub(1),
            };
        }
    }

    /// Counts bytes read from the partition, for as long as the credit lives.
    pub fn hold(&self, epoch: Epoch, bytes: usize) -> Option<Credit> {
        Some(self.partitions.get(&epoch)?.held.take(bytes))
    }

    /// Whether this partition is not to be read for now: a dead letter could not be written so far,
    /// too much is outstanding, or it holds more than `held_max` bytes.
    pub fn is_stopped(&mut self, epoch: Epoch, held_max: usize) -> bool {
        let Some(partition) = self.partitions.get_mut(&epoch) else { return false };
        let limit = match partition.is_long {
            // Not for each record anew.
            true => OUTSTANDING_MAX / 4 * 3,
            false => OUTSTANDING_MAX,
        };
        partition.is_long = partition.outstanding.len() >= limit;
        partition.stuck > 0 || partition.is_long || partition.held.used() > held_max
    }

    /// Every current assignment: the partition, records in flight, and what was last committed.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, usize, Option<i64>)> {
        self.partitions
            .values()
            .map(|partition| (&partition.name, partition.unacknowledged, partition.committed))
    }
}

impl Partition {
    fn get_mut(&mut self, sequence: Sequence) -> Option<&mut Outstanding> {
        let index = usize::try_from(sequence.checked_sub(self.head)?).ok()?;
        self.outstanding.get_mut(index)
    }

    fn acknowledge(&mut self, sequence: Sequence) {
        let Some(record) = self.get_mut(sequence) else { return };
        if record.missing == 0 {
            return;
        }
        record.missing -= 1;
        if record.missing == 0 {
            self.unacknowledged -= 1;
        }
    }

    fn advance(&mut self) {
        while let Some(record) = self.outstanding.front()
            && record.missing == 0
        {
            self.committable = Some(record.offset + 1);
            self.outstanding.pop_front();
            self.head += 1;
        }
    }

    fn take_committable(&mut self) -> Option<(TopicPartition, i64)> {
        let offset = self.committable.filter(|offset| self.committed != Some(*offset))?;
        self.committed = Some(offset);
        Some((self.name.clone(), offset))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn partition(number: i32) -> TopicPartition {
        TopicPartition { topic: "logs".into(), partition: number }
    }

    #[test]
    fn commit_waits_for_the_first_unacknowledged_record() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        let first = acks.track(epoch, [10, 11, 15]).unwrap();
        acks.acknowledge(epoch, [first + 1, first + 2]);
        assert_eq!(acks.take_committable(), []);
        assert_eq!(acks.in_flight(epoch), 1);
        acks.acknowledge(epoch, [first]);
        assert_eq!(acks.take_committable(), [(partition(0), 16)]);
        assert_eq!(acks.take_committable(), []);
    }

    #[test]
    fn failed_commit_is_taken_again() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        let first = acks.track(epoch, [4]).unwrap();
        acks.acknowledge(epoch, [first]);
        let taken = acks.take_committable();
        acks.uncommit(&taken);
        assert_eq!(acks.take_committable(), taken);
    }

    #[test]
    fn last_commit_covers_those_that_may_yet_be_refused() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        assert_eq!(acks.take_last_of(epoch), None);
        let first = acks.track(epoch, [4]).unwrap();
        acks.acknowledge(epoch, [first]);
        assert_eq!(acks.take_committable(), [(partition(0), 5)]);
        assert_eq!(acks.take_committable_of(epoch), None);
        assert_eq!(acks.take_last_of(epoch), Some((partition(0), 5)));
    }

    #[test]
    fn late_answer_does_not_touch_the_next_assignment() {
        let mut acks = Acks::default();
        let old = acks.assign(partition(0));
        let first = acks.track(old, [7]).unwrap();
        acks.end(old);
        let new = acks.assign(partition(0));
        assert_eq!(acks.track(new, [7]), Some(first));
        acks.acknowledge(old, [first]);
        assert_eq!(acks.take_committable(), []);
        assert_eq!(acks.track(old, [8]), None);
    }

    #[test]
    fn record_for_two_outputs_needs_both() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        let first = acks.track(epoch, [0, 1, 2]).unwrap();
        acks.expect(epoch, first, 2);
        acks.expect(epoch, first + 1, 0);
        acks.acknowledge(epoch, [first, first + 2]);
        assert_eq!(acks.take_committable(), []);
        acks.acknowledge(epoch, [first]);
        assert_eq!(acks.take_committable(), [(partition(0), 3)]);
    }

    #[test]
    fn partition_stops_while_one_record_keeps_too_many_waiting() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        let first = acks.track(epoch, 0..OUTSTANDING_MAX as i64 - 1).unwrap();
        acks.acknowledge(epoch, first + 1..first + OUTSTANDING_MAX as u64 - 1);
        assert!(!acks.is_stopped(epoch, usize::MAX));
        acks.track(epoch, [OUTSTANDING_MAX as i64]);
        assert!(
            acks.is_stopped(epoch, usize::MAX),
            "one that is not acknowledged holds the others"
        );
        acks.acknowledge(epoch, [first]);
        assert!(!acks.is_stopped(epoch, usize::MAX));
    }

    #[test]
    fn partition_stops_beyond_its_share_and_while_a_dead_letter_is_stuck() {
        let mut acks = Acks::default();
        let epoch = acks.assign(partition(0));
        let credit = acks.hold(epoch, 100);
        assert!(!acks.is_stopped(epoch, 100) && acks.is_stopped(epoch, 99));
        drop(credit);
        assert!(!acks.is_stopped(epoch, 0));
        acks.set_stuck(epoch, true);
        assert!(acks.is_stopped(epoch, usize::MAX));
        acks.set_stuck(epoch, false);
        assert!(!acks.is_stopped(epoch, usize::MAX));
    }

    proptest! {
        /// The law: the committable offset is one past the longest acknowledged prefix.
        #[test]
        fn committable_is_the_acknowledged_prefix(
            gaps in prop::collection::vec(1i64..4, 1..60),
            order in prop::collection::vec((0usize..60, any::<bool>()), 0..200),
        ) {
            let offsets: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut acks = Acks::default();
            let epoch = acks.assign(partition(3));
            let first = acks.track(epoch, offsets.iter().copied()).unwrap();
            let mut done = vec![false; offsets.len()];
            let mut last = None;
            for (index, take) in order {
                let index = index % offsets.len();
                acks.acknowledge(epoch, [first + index as u64]);
                done[index] = true;
                let prefix = done.iter().take_while(|done| **done).count();
                let expected = prefix.checked_sub(1).map(|last| offsets[last] + 1);
                if take {
                    let taken = acks.take_committable().first().map(|(_, offset)| *offset);
                    prop_assert_eq!(taken, expected.filter(|_| expected != last));
                    last = expected;
                }
                prop_assert_eq!(acks.in_flight(epoch), done.iter().filter(|done| !**done).count());
            }
        }
    }
}
