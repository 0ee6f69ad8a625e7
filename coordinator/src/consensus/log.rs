//! The end of the log, in memory, where Raft looks for it.

use std::cell::Cell;
use std::collections::VecDeque;

use raft::StorageError;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::storage::{GetEntriesContext, RaftState, Storage};

use super::{Members, Start, to_raft};

/// Applied entries are kept in memory for servers that are a little behind: as many bytes as make this
/// part of the state, which such a server would have to be sent instead, within these bounds.
const KEPT_PART: u64 = 16;
const KEPT_BYTES_MIN: u64 = if cfg!(test) { 4 << 10 } else { 2 << 20 };
const KEPT_BYTES_MAX: u64 = if cfg!(test) { 4 << 10 } else { 8 << 20 };
/// So many while a server is known to need them.
const NEEDED_BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 32 << 20 };

pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// What `entries` weigh.
    bytes: usize,
    /// The entry before the first of `entries`.
    before_index: u64,
    before_term: u64,
    pub(super) hard_state: HardState,
    pub(super) members: ConfState,
    /// The snapshot that can be sent.
    offered: Option<SnapshotMetadata>,
    /// Whether one is asked for that is newer.
    is_wanted: Cell<bool>,
}

impl Log {
    pub(super) fn new(start: Start) -> Self {
        let vote = start.vote;
        // Raft has no answer to a question for votes in term 0.
        let first_term = u64::from(start.members.voters.len() > 1);
        let entries: VecDeque<_> = start.entries.into_iter().map(to_raft).collect();
        Self {
            bytes: entries.iter().map(weight).sum(),
            entries,
            before_index: start.before.0,
            before_term: start.before.1,
            hard_state: HardState {
                term: vote.term.max(start.before.1).max(first_term),
                vote: vote.vote,
                commit: vote.commit.max(start.applied_index),
                ..HardState::default()
            },
            members: ConfState::from((start.members.voters, start.members.learners)),
            offered: None,
            is_wanted: Cell::new(false),
        }
    }

    pub(super) fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries);
    }

    /// A snapshot stands for everything up to its index.
    pub(super) fn restore(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        (self.before_index, self.before_term) = (metadata.index, metadata.term);
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.members = metadata.get_conf_state().clone();
        self.entries.clear();
        self.bytes = 0;
        self.offered = None;
    }

    pub(super) fn offer(&mut self, index: u64, term: u64, members: Members) {
        let mut metadata = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        metadata.set_conf_state(ConfState::from((members.voters, members.learners)));
        self.offered = Some(metadata);
    }

    /// Whether a newer snapshot is wanted than the one on offer; true once for each asking.
    pub(super) fn takes_want(&self) -> bool {
        self.is_wanted.take()
    }

    /// Entries up to `applied` may go, but those after `needed` only when there are too many; without
    /// other servers there is nobody who could need one.
    pub(super) fn forget(&mut self, applied: u64, needed: u64, state_bytes: u64) {
        let is_alone = self.members.voters.len() + self.members.learners.len() <= 1;
        let kept = (state_bytes / KEPT_PART).clamp(KEPT_BYTES_MIN, KEPT_BYTES_MAX) as usize;
        let unneeded = if is_alone { 0 } else { kept };
        while let Some(first) = self.entries.front()
            && first.index <= applied
        {
            let kept = if first.index > needed { NEEDED_BYTES_MAX } else { unneeded };
            if self.bytes <= kept {
                return;
            }
            let Some(entry) = self.entries.pop_front() else { return };
            self.bytes -= weight(&entry);
            (self.before_index, self.before_term) = (entry.index, entry.term);
        }
    }
}

/// Roughly what an entry takes in memory.
fn weight(entry: &Entry) -> usize {
    entry.data.len() + size_of::<Entry>()
}

impl Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.members.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut bytes = 0u64;
        let from = (low - self.before_index - 1) as usize;
        let count = (high - low) as usize;
        let chosen = self.entries.iter().skip(from).take(count).take_while(|entry| {
            let is_first = bytes == 0;
            bytes += entry.data.len() as u64 + 32;
            is_first || bytes <= limit
        });
        Ok(chosen.cloned().collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before_index {
            return Ok(self.before_term);
        }
        if index < self.before_index {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        self.entries
            .get((index - self.before_index - 1) as usize)
            .map(|entry| entry.term)
            .ok_or(raft::Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before_index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.before_index + self.entries.len() as u64)
    }

    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let fits = |metadata: &&SnapshotMetadata| {
            let members = metadata.get_conf_state();
            // One that does not know it as a member yet would be refused.
            let knows = members.voters.contains(&to) || members.learners.contains(&to);
            knows && metadata.index >= self.before_index && metadata.index >= request_index
        };
        match self.offered.as_ref().filter(fits) {
            Some(metadata) => {
                let mut snapshot = Snapshot::default();
                snapshot.set_metadata(metadata.clone());
                Ok(snapshot)
            }
            None => {
                self.is_wanted.set(true);
                Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::{LogEntry, Vote};

    /// A log of 100 entries of 1 KiB, all applied, of a server among `voters`.
    fn log(voters: &[u64]) -> Log {
        let entry = |index| LogEntry { term: 1, index, kind: 0, data: vec![0; 1 << 10].into() };
        Log::new(Start {
            id: 1,
            vote: Vote { term: 1, vote: 1, commit: 100 },
            before: (0, 0),
            entries: (1..=100).map(entry).collect(),
            applied_index: 100,
            members: Members { voters: voters.to_vec(), learners: Vec::new() },
        })
    }

    #[test]
    fn what_nobody_needs_is_kept_within_bounds_and_what_is_needed_longer() {
        let mut all_have_it = log(&[1, 2, 3]);
        all_have_it.forget(100, u64::MAX, 0);
        assert!(
            (1..=KEPT_BYTES_MAX as usize).contains(&all_have_it.bytes),
            "{}",
            all_have_it.bytes
        );
        let mut one_lags = log(&[1, 2, 3]);
        one_lags.forget(100, 90, 0);
        let first = one_lags.first_index().unwrap();
        assert!((88..=91).contains(&first), "kept from {first}");
        // Further behind than it is worth.
        let mut one_is_gone = log(&[1, 2, 3]);
        one_is_gone.forget(100, 10, 0);
        assert!(one_is_gone.bytes <= NEEDED_BYTES_MAX, "{}", one_is_gone.bytes);
        assert!(one_is_gone.bytes > all_have_it.bytes);
    }

    #[test]
    fn a_server_alone_keeps_only_what_is_not_applied() {
        let mut alone = log(&[1]);
        alone.forget(95, u64::MAX, 1 << 30);
        assert_eq!((alone.first_index().unwrap(), alone.last_index().unwrap()), (96, 100));
    }
}
