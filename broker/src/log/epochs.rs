//! Where each leader's records start: the leader epoch cache and its checkpoint file.
//!
//! A replica that comes back truncates by these, not by its high watermark (KIP-101, KIP-279).

use elkfk_wire::kafka::records::{LeaderEpoch, Offset};

use super::checkpoint::CheckpointError;

/// Epochs and the first offset of each; both rise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    /// The epoch of the last entry.
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    /// Notes that `epoch` starts at `offset`. Returns true if that was news.
    pub fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if epoch < LeaderEpoch(0) || self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        // An epoch that wrote nothing gives its place to the next one.
        self.entries.retain(|&(_, start)| start < offset);
        self.entries.push((epoch, offset));
        true
    }

    /// Forgets what starts at `end` or later. Returns true if there was such an entry.
    pub fn truncate_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|&(_, start)| start < end);
        self.entries.len() != before
    }

    /// Forgets what ends before `log_start`, where the oldest entry kept now starts.
    pub fn truncate_start(&mut self, log_start: Offset) -> bool {
        let covered = self.entries.iter().rposition(|&(_, start)| start <= log_start);
        let Some(index) = covered else { return false };
        let is_changed = index > 0 || self.entries[0].1 != log_start;
        self.entries.drain(..index);
        self.entries[0].1 = log_start;
        is_changed
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// The largest epoch not above `requested` and where it ends, as OffsetForLeaderEpoch asks.
    ///
    /// `None` where that cannot be said: nothing is known, or `requested` is of the future.
    pub fn end_offset(
        &self,
        requested: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if requested == latest {
            return Some((requested, log_end));
        }
        if requested > latest || requested < LeaderEpoch(0) {
            return None;
        }
        let above = self.entries.partition_point(|&(epoch, _)| epoch <= requested);
        // Below the oldest epoch: its end is where the oldest starts.
        let epoch = above.checked_sub(1).map_or(requested, |index| self.entries[index].0);
        Some((epoch, self.entries[above].1))
    }

    /// The epoch in which the record at `offset` was appended.
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let above = self.entries.partition_point(|&(_, start)| start <= offset);
        Some(self.entries[above.checked_sub(1)?].0)
    }

    /// The text of `leader-epoch-checkpoint`: version, count, one `EPOCH OFFSET` a line.
    pub(super) fn encode(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        text
    }

    /// Reads what [`LeaderEpochs::encode`] or Kafka wrote.
    pub(super) fn decode(text: &str) -> Result<Self, CheckpointError> {
        let mut entries: Vec<(LeaderEpoch, Offset)> = Vec::new();
        for (line, text) in super::checkpoint::lines(text)? {
            let fields = text.split_once(' ').and_then(|(epoch, start)| {
                Some((LeaderEpoch(epoch.parse().ok()?), Offset(start.trim().parse().ok()?)))
            });
            let entry = fields.ok_or(CheckpointError::Line { line, text: text.to_owned() })?;
            // Kafka itself tolerates and drops entries out of order.
            if entries.last().is_none_or(|last| last.0 < entry.0 && last.1 <= entry.1) {
                entries.push(entry);
            }
        }
        Ok(Self { entries })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for &(epoch, start) in entries {
            epochs.assign(LeaderEpoch(epoch), Offset(start));
        }
        epochs
    }

    #[test]
    fn an_epoch_ends_where_the_next_starts() {
        let epochs = epochs(&[(2, 10), (5, 20), (7, 30)]);
        let check = |requested, expected: Option<(i32, i64)>| {
            let found = epochs.end_offset(LeaderEpoch(requested), Offset(44));
            let expected = expected.map(|(epoch, end)| (LeaderEpoch(epoch), Offset(end)));
            assert_eq!(found, expected, "{requested}");
        };
        check(-1, None);
        check(1, Some((1, 10)));
        check(2, Some((2, 20)));
        check(3, Some((2, 20)));
        check(5, Some((5, 30)));
        check(6, Some((5, 30)));
        check(7, Some((7, 44)));
        check(8, None);
    }

    #[test]
    fn epochs_never_go_back() {
        let mut epochs = epochs(&[(2, 10)]);
        assert!(!epochs.assign(LeaderEpoch(2), Offset(15)));
        assert!(!epochs.assign(LeaderEpoch(1), Offset(15)));
        assert_eq!(epochs.epoch_of(Offset(15)), Some(LeaderEpoch(2)));
        assert_eq!(epochs.epoch_of(Offset(9)), None);
    }

    #[test]
    fn an_epoch_that_wrote_nothing_is_replaced() {
        let epochs = epochs(&[(2, 10), (3, 20), (4, 20)]);
        assert_eq!(epochs.encode(), "0\n2\n2 10\n4 20\n");
    }

    #[test]
    fn truncation_keeps_what_is_covered() {
        let mut tail = epochs(&[(2, 10), (5, 20), (7, 30)]);
        assert!(tail.truncate_end(Offset(20)));
        assert_eq!(tail, epochs(&[(2, 10)]));
        let mut head = epochs(&[(2, 10), (5, 20), (7, 30)]);
        assert!(head.truncate_start(Offset(25)));
        assert_eq!(head, epochs(&[(5, 25), (7, 30)]));
        assert!(!head.truncate_start(Offset(25)));
    }

    #[test]
    fn the_file_is_kafkas() {
        let text = "0\n2\n0 0\n3 1200\n";
        let epochs = LeaderEpochs::decode(text).unwrap();
        assert_eq!(epochs.encode(), text);
        for bad in ["", "1\n0\n", "0\n1\n", "0\n1\nx y\n", "0\n-1\n", "0\n99999999999\n"] {
            assert!(LeaderEpochs::decode(bad).is_err(), "{bad:?}");
        }
    }
}
