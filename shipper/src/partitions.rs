//! The table file → partition: a file's lines stay in one partition, new files go where least is going on.
//!
//! Pure: the time is given.

use std::time::{Duration, Instant};

/// A topic never loses partitions: fewer than before are the answer of a broker that has not heard of new
/// ones yet, or a topic made anew. Who lags behind has caught up by then.
const FEWER_PATIENCE: Duration = Duration::from_secs(30);

/// Load of each partition of a topic, as this shipper makes it.
#[derive(Debug, Default)]
pub(crate) struct PartitionTable {
    /// Of every partition that there ever was.
    loads: Vec<Load>,
    /// Partitions of the topic, as the last answer has it, and since when every answer has it so.
    count: usize,
    since: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    files: u32,
    /// Halved every minute.
    recent_bytes: u64,
}

impl PartitionTable {
    /// Takes note that the topic has `count` partitions. New ones are empty, so new files go there first.
    pub(crate) fn resize(&mut self, count: i32, now: Instant) {
        let count = count.max(1) as usize;
        if count != self.count {
            (self.count, self.since) = (count, Some(now));
        }
        if count > self.loads.len() {
            self.loads.resize(count, Load::default());
        }
    }

    /// Whether `partition`, which a file has, is there.
    pub(crate) fn has(&self, partition: i32) -> bool {
        usize::try_from(partition).is_ok_and(|partition| partition < self.count)
    }

    /// Whether a partition that is not there is gone for good, and its files may go elsewhere.
    pub(crate) fn is_settled(&self, now: Instant) -> bool {
        self.since.is_some_and(|since| now.saturating_duration_since(since) >= FEWER_PATIENCE)
    }

    /// The partition for a file: `kept` where it still exists, else the least loaded one.
    pub(crate) fn assign(&mut self, kept: Option<i32>) -> i32 {
        let kept = kept.filter(|partition| self.has(*partition));
        let chosen = kept.unwrap_or_else(|| {
            let load = |at: &usize| (self.loads[*at].recent_bytes >> 20, self.loads[*at].files);
            (0..self.count).min_by_key(load).unwrap_or(0) as i32
        });
        if let Some(load) = self.loads.get_mut(chosen as usize) {
            load.files += 1;
        }
        chosen
    }

    pub(crate) fn release(&mut self, partition: i32) {
        if let Some(load) = self.loads.get_mut(partition as usize) {
            load.files = load.files.saturating_sub(1);
        }
    }

    pub(crate) fn sent(&mut self, partition: i32, bytes: u64) {
        if let Some(load) = self.loads.get_mut(partition as usize) {
            load.recent_bytes += bytes;
        }
    }

    pub(crate) fn minute_passed(&mut self) {
        self.loads.iter_mut().for_each(|load| load.recent_bytes /= 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_spread_and_new_partitions_fill_first() {
        let (mut table, now) = (PartitionTable::default(), Instant::now());
        table.resize(3, now);
        let first: Vec<_> = (0..6).map(|_| table.assign(None)).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        table.resize(4, now);
        assert_eq!([table.assign(None), table.assign(None)], [3, 3]);
        assert_eq!(table.assign(Some(1)), 1);
        assert_eq!(table.assign(Some(9)), 0);
    }

    #[test]
    fn a_busy_partition_gets_no_new_file() {
        let mut table = PartitionTable::default();
        table.resize(2, Instant::now());
        table.sent(0, 100 << 20);
        assert_eq!([table.assign(None), table.assign(None)], [1, 1]);
    }

    #[test]
    fn fewer_partitions_are_believed_once_every_answer_has_them() {
        let (mut table, begin) = (PartitionTable::default(), Instant::now());
        let at = |seconds| begin + Duration::from_secs(seconds);
        table.resize(2, at(0));
        assert_eq!([table.assign(None), table.assign(None)], [0, 1]);
        for (seconds, count, is_there, is_settled) in [
            (10, 1, false, false),
            (39, 1, false, false),
            // It was a broker that lagged behind.
            (39, 2, true, false),
            (50, 1, false, false),
            (79, 1, false, false),
            (80, 1, false, true),
        ] {
            table.resize(count, at(seconds));
            let found = (table.has(1), table.is_settled(at(seconds)));
            assert_eq!(found, (is_there, is_settled), "after {seconds} s");
        }
        assert_eq!(table.assign(Some(1)), 0);
    }
}
