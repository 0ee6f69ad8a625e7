//! Agreement on the order of commands: Raft, without I/O.
//!
//! The shell ticks it, hands it proposals and messages, makes its batches durable and says so; it
//! answers with entries that are committed. Only this file knows that the algorithm is `raft`'s.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Message, Snapshot};
use raft::storage::{GetEntriesContext, RaftState, Storage};
use raft::{Config, RawNode, StateRole, StorageError};

use crate::wal::{Batch, LogEntry, Vote};

/// What the shell has to do next.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// To be told to [`Consensus::persisted`] once `batch` is durable.
    pub(crate) number: u64,
    /// To be made durable; `None` where there is nothing to write.
    pub(crate) batch: Option<Batch>,
    /// To be applied now, in this order.
    pub(crate) committed: Vec<LogEntry>,
    /// To be sent to the other servers.
    pub(crate) messages: Vec<Message>,
}

/// Why a proposal was not taken.
#[derive(Debug, thiserror::Error)]
#[error("this server does not lead the ensemble")]
pub(crate) struct NotLeader;

/// Agreement, seen by the shell.
pub(crate) trait Consensus: Send + 'static {
    fn propose(&mut self, data: Vec<u8>) -> Result<(), NotLeader>;
    /// Takes a message of another server.
    #[expect(dead_code, reason = "one voter has no peers; the ensemble's transport will call it")]
    fn step(&mut self, message: Message);
    /// To be called at regular intervals; elections and heartbeats count them.
    fn tick(&mut self);
    /// `None` while there is nothing to do.
    fn ready(&mut self) -> Option<Ready>;
    /// The batch with this number, and all before it, are durable.
    fn persisted(&mut self, number: u64);
    /// Entries up to here were applied; the log in memory may forget them.
    fn applied(&mut self, index: u64);
    fn is_leader(&self) -> bool;
    fn term(&self) -> u64;
}

/// Where a server starts from.
#[derive(Debug)]
pub(crate) struct Start {
    /// This server, never 0.
    pub(crate) id: u64,
    pub(crate) voters: Vec<u64>,
    pub(crate) vote: Vote,
    /// Applied already: from a snapshot, or from the log up to its commit index.
    pub(crate) applied_index: u64,
    pub(crate) applied_term: u64,
    /// Those after.
    pub(crate) entries: VecDeque<LogEntry>,
}

pub(crate) struct RaftConsensus {
    node: RawNode<Log>,
    /// The hard state as of the last batch; one that only commits more waits for the next.
    vote: Vote,
}

impl std::fmt::Debug for RaftConsensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftConsensus").field("vote", &self.vote).finish_non_exhaustive()
    }
}

const HEARTBEAT_TICKS: usize = 2;
const ELECTION_TICKS: usize = 10;
/// Applied entries are kept in memory up to this many bytes, for servers that are a little behind.
const KEPT_BYTES: usize = 1 << 20;

impl RaftConsensus {
    /// # Errors
    /// Where `start` contradicts itself.
    pub(crate) fn new(start: Start) -> Result<Self, raft::Error> {
        let config = Config {
            id: start.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            applied: start.applied_index,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            // Between equal logs the larger id wins, as ZooKeeper's election has it.
            priority: start.id as i64,
            ..Config::default()
        };
        let is_alone = start.voters.len() == 1;
        let vote = start.vote;
        let entries: VecDeque<_> = start.entries.into_iter().map(to_raft).collect();
        let log = Log {
            bytes: entries.iter().map(weight).sum(),
            entries,
            before_index: start.applied_index,
            before_term: start.applied_term,
            hard_state: HardState {
                term: vote.term.max(start.applied_term),
                vote: vote.vote,
                commit: vote.commit.max(start.applied_index),
                ..HardState::default()
            },
            voters: start.voters,
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, log, &logger)?;
        if is_alone {
            // Nobody to ask, so nothing to wait for.
            node.campaign()?;
        }
        Ok(Self { node, vote })
    }
}

impl Consensus for RaftConsensus {
    fn propose(&mut self, data: Vec<u8>) -> Result<(), NotLeader> {
        self.node.propose(Vec::new(), data).map_err(|_| NotLeader)
    }

    fn step(&mut self, message: Message) {
        // What it refuses is of another term or from a server that was removed.
        let _ = self.node.step(message);
    }

    fn tick(&mut self) {
        self.node.tick();
    }

    fn ready(&mut self) -> Option<Ready> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut messages = ready.take_messages();
        let committed = ready.take_committed_entries().into_iter().map(from_raft).collect();
        let entries = ready.take_entries();
        if let Some(hard_state) = ready.hs() {
            self.vote =
                Vote { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
            self.node.mut_store().hard_state = hard_state.clone();
        }
        let batch = ready.must_sync().then(|| Batch {
            vote: self.vote,
            entries: entries.iter().cloned().map(from_raft).collect(),
        });
        self.node.mut_store().append(entries);
        let number = ready.number();
        messages.extend(ready.take_persisted_messages());
        self.node.advance_append_async(ready);
        if batch.is_none() {
            self.node.on_persist_ready(number);
        }
        Some(Ready { number, batch, committed, messages })
    }

    fn persisted(&mut self, number: u64) {
        self.node.on_persist_ready(number);
    }

    fn applied(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().forget(index);
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn term(&self) -> u64 {
        self.node.raft.term
    }
}

fn to_raft(entry: LogEntry) -> Entry {
    Entry {
        term: entry.term,
        index: entry.index,
        entry_type: match entry.kind {
            1 => EntryType::EntryConfChange,
            2 => EntryType::EntryConfChangeV2,
            _ => EntryType::EntryNormal,
        },
        data: entry.data,
        ..Entry::default()
    }
}

fn from_raft(entry: Entry) -> LogEntry {
    LogEntry {
        term: entry.term,
        index: entry.index,
        kind: match entry.entry_type {
            EntryType::EntryNormal => 0,
            EntryType::EntryConfChange => 1,
            EntryType::EntryConfChangeV2 => 2,
        },
        data: entry.data,
    }
}

/// The end of the log, in memory.
struct Log {
    entries: VecDeque<Entry>,
    /// What `entries` weigh.
    bytes: usize,
    /// The entry before the first of `entries`.
    before_index: u64,
    before_term: u64,
    hard_state: HardState,
    voters: Vec<u64>,
}

impl Log {
    fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first() else { return };
        while self.entries.back().is_some_and(|last| last.index >= first.index) {
            self.bytes -= self.entries.pop_back().as_ref().map_or(0, weight);
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries);
    }

    fn forget(&mut self, applied: u64) {
        while self.bytes > KEPT_BYTES
            && self.entries.front().is_some_and(|entry| entry.index <= applied)
        {
            let Some(entry) = self.entries.pop_front() else { break };
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
        let conf_state = ConfState::from((self.voters.clone(), Vec::new()));
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state })
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

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable))
    }
}
