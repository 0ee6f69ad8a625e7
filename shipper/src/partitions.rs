//! The table file → partition: a file's lines stay in one partition, new files go where least is going on.

/// Load of each partition of a topic, as this shipper makes it.
#[derive(Debug, Default)]
pub(crate) struct PartitionTable {
    loads: Vec<Load>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Load {
    files: u32,
    /// Halved every minute.
    recent_bytes: u64,
}

impl PartitionTable {
    /// Takes note that the topic has `count` partitions. New ones are empty, so new files go there first.
    pub(crate) fn resize(&mut self, count: i32) {
        let count = count.max(0) as usize;
        if count > self.loads.len() {
            self.loads.resize(count, Load::default());
        }
        self.loads.truncate(count.max(1));
    }

    /// The partition for a file: `kept` where it still exists, else the least loaded one.
    pub(crate) fn assign(&mut self, kept: Option<i32>) -> i32 {
        let kept = kept.filter(|p| usize::try_from(*p).is_ok_and(|p| p < self.loads.len()));
        let chosen = kept.unwrap_or_else(|| {
            let load = |at: &usize| (self.loads[*at].recent_bytes >> 20, self.loads[*at].files);
            (0..self.loads.len()).min_by_key(load).unwrap_or(0) as i32
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
        let mut table = PartitionTable::default();
        table.resize(3);
        let first: Vec<_> = (0..6).map(|_| table.assign(None)).collect();
        assert_eq!(first, [0, 1, 2, 0, 1, 2]);
        table.resize(4);
        assert_eq!([table.assign(None), table.assign(None)], [3, 3]);
        assert_eq!(table.assign(Some(1)), 1);
        assert_eq!(table.assign(Some(9)), 0);
    }

    #[test]
    fn a_busy_partition_gets_no_new_file() {
        let mut table = PartitionTable::default();
        table.resize(2);
        table.sent(0, 100 << 20);
        assert_eq!([table.assign(None), table.assign(None)], [1, 1]);
    }
}
