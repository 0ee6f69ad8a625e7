//! Agreement on the order of commands: Raft, without I/O.
//!
//! The shell ticks it, hands it proposals and messages, makes its batches durable and says so; it
//! answers with entries that are committed. Only this folder knows that the algorithm is `raft`'s.

mod log;
mod message;

use std::collections::VecDeque;

use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, Entry, EntryType,
    MessageType, Snapshot,
};
use raft::{Config, INVALID_ID, RawNode, SnapshotStatus, StateRole};

pub(crate) use message::{Message, MessageError};

use crate::wal::{Batch, LogEntry, Vote};
use log::Log;

/// What the shell has to do next.
#[derive(Debug, Default)]
pub(crate) struct Ready {
    /// To be told to [`Consensus::persisted`] once `batch` is durable.
    pub(crate) number: u64,
    /// To be made durable; `None` where there is nothing to write.
    pub(crate) batch: Option<Batch>,
    /// The snapshot that was received takes the place of the state and of the log up to this index.
    pub(crate) restored: Option<u64>,
    /// To be applied now, in this order.
    pub(crate) committed: Vec<LogEntry>,
    /// To be sent to the other servers.
    pub(crate) messages: Vec<Message>,
    /// Reads that were asked for with [`Consensus::read_index`]: good once this index is applied.
    pub(crate) reads: Vec<(u64, u64)>,
}

/// Why a proposal was not taken.
#[derive(Debug, thiserror::Error)]
#[error("this server does not lead the ensemble")]
pub(crate) struct NotLeader;

/// Who takes part in the agreement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) voters: Vec<u64>,
    /// They hear everything and have no vote: ZooKeeper's observers.
    pub(crate) learners: Vec<u64>,
}

impl Members {
    pub(crate) fn quorum(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// What an entry that changes the members makes of them.
    pub(crate) fn changed(mut self, data: &[u8]) -> Self {
        let mut change = ConfChangeV2::default();
        // It was encoded by propose_members, here or elsewhere, and the log has checksums.
        if change.merge_from_bytes(data).is_err() {
            return self;
        }
        for single in change.changes.iter() {
            let id = single.node_id;
            self.voters.retain(|voter| *voter != id);
            self.learners.retain(|learner| *learner != id);
            match single.get_change_type() {
                ConfChangeType::AddNode => self.voters.push(id),
                ConfChangeType::AddLearnerNode => self.learners.push(id),
                ConfChangeType::RemoveNode => {}
            }
        }
        self.voters.sort_unstable();
        self.learners.sort_unstable();
        self
    }

    pub(crate) fn others(&self, id: u64) -> impl Iterator<Item = u64> {
        self.voters.iter().chain(&self.learners).copied().filter(move |other| *other != id)
    }
}

/// How far another server's log is known to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) id: u64,
    pub(crate) matched: u64,
    pub(crate) is_active: bool,
}

/// Agreement, seen by the core around it.
pub(crate) trait Consensus: Send + 'static {
    /// Whether proposals are taken: not while leadership is on its way to another server.
    fn takes_proposals(&self) -> bool;
    fn propose(&mut self, data: Bytes) -> Result<(), NotLeader>;
    /// Takes the next step towards these members; not while one is under way.
    fn propose_members(&mut self, members: &Members) -> Result<(), NotLeader>;
    /// An entry that changes the members was applied; returns the members from now on.
    fn members_changed(&mut self, data: &[u8]) -> Members;
    fn members(&self) -> Members;
    /// Takes a message of another server.
    fn step(&mut self, message: Message);
    /// To be called at regular intervals; elections and heartbeats count them. An election is due
    /// after `patience` of them without a leader, counted from the fewest there may be; `None`
    /// stands for none.
    fn tick(&mut self, patience: Option<usize>);
    /// `None` while there is nothing to do.
    fn ready(&mut self) -> Option<Ready>;
    /// The batch with this number, and all before it, are durable.
    fn persisted(&mut self, number: u64);
    /// Entries up to here were applied to a state of roughly so many bytes; the log in memory may
    /// forget them.
    fn applied(&mut self, index: u64, state_bytes: u64);
    fn is_leader(&self) -> bool;
    fn term(&self) -> u64;
    fn leader(&self) -> Option<u64>;
    /// No older term is taken part in.
    fn raise_term(&mut self, term: u64);
    /// Asks how far the log is committed; the answer comes with [`Ready::reads`], or never.
    fn read_index(&mut self, context: u64);
    /// What the leader is silent about is known: it is gone, nobody need wait for it.
    fn leader_is_gone(&mut self);
    /// This server's log ends here: it may have been longer before its disk was lost.
    fn ends_at(&mut self, id: u64, last_index: u64);
    fn last_index(&self) -> u64;
    fn unreachable(&mut self, id: u64);
    fn snapshot_sent(&mut self, id: u64, is_whole: bool);
    /// A snapshot at this index can be sent to a server that is far behind.
    fn offer_snapshot(&mut self, index: u64, term: u64, members: Members);
    /// Whether one is needed that is newer than the one on offer.
    fn wants_snapshot(&mut self) -> bool;
    fn hand_over(&mut self, id: u64);
    /// Whether this asks for votes for a server with a smaller id and a log just like ours.
    fn outranks(&self, message: &Message) -> bool;
    fn progress(&self) -> Vec<Progress>;
}

/// Where a server starts from.
#[derive(Debug)]
pub(crate) struct Start {
    /// This server, never 0.
    pub(crate) id: u64,
    pub(crate) members: Members,
    pub(crate) vote: Vote,
    /// Index and term of the snapshot it starts from.
    pub(crate) before: (u64, u64),
    /// Applied already.
    pub(crate) applied_index: u64,
    /// Those after the snapshot.
    pub(crate) entries: VecDeque<LogEntry>,
}

pub(crate) struct RaftConsensus {
    node: RawNode<Log>,
    /// The hard state as of the last batch; one that only commits more waits for the next.
    vote: Vote,
    /// Numbers of the batches that are not durable yet.
    in_flight: VecDeque<u64>,
    /// Of the batch that the term of `vote` came with.
    term_number: u64,
    /// Of the newest [`Ready`].
    number: u64,
    /// What may be sent only when everything up to the number is durable: votes, and what a
    /// follower says it holds.
    held: VecDeque<(u64, Vec<Message>)>,
    sendable: Vec<Message>,
    /// Number and index of a snapshot that counts as applied once it is durable.
    restoring: Option<(u64, u64)>,
}

impl std::fmt::Debug for RaftConsensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RaftConsensus").field("vote", &self.vote).finish_non_exhaustive()
    }
}

pub(crate) const HEARTBEAT_TICKS: usize = 2;
pub(crate) const ELECTION_TICKS: usize = 12;
const NEVER_TICKS: usize = 1 << 30;
/// An entry may be larger; then it travels alone.
const MESSAGE_BYTES_MAX: u64 = 256 << 10;
/// Appends under way to one server. Together with the bytes of each they bound what waits for it.
const MESSAGES_IN_FLIGHT_MAX: usize = 64;

impl RaftConsensus {
    /// # Errors
    /// Where `start` contradicts itself.
    pub(crate) fn new(start: Start) -> Result<Self, raft::Error> {
        let config = Config {
            id: start.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            // Set anew before each tick, so that chance is ours.
            max_election_tick: NEVER_TICKS,
            applied: start.applied_index,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let applied_index = start.applied_index;
        let is_alone = start.members.voters == [start.id];
        let vote = start.vote;
        let log = Log::new(start);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut node = RawNode::new(&config, log, &logger)?;
        node.mut_store().forget(applied_index, u64::MAX, 0);
        if is_alone {
            // Nobody to ask, so nothing to wait for.
            node.campaign()?;
        }
        Ok(Self {
            node,
            vote,
            in_flight: VecDeque::new(),
            term_number: 0,
            number: 0,
            held: VecDeque::new(),
            sendable: Vec::new(),
            restoring: None,
        })
    }

    /// Whether a message promises nothing that a crash could take back: an answer to a heartbeat, once the
    /// term it is of is durable. Held back like the others, a slow disk would look like a dead server, and
    /// two of them would cost a leader its office.
    fn only_says_that_we_live(&self, message: &Message) -> bool {
        message.0.get_msg_type() == MessageType::MsgHeartbeatResponse
            && message.0.term == self.vote.term
            && self.in_flight.front().is_none_or(|first| *first > self.term_number)
    }

    /// Everything up to where the first batch in flight begins is durable.
    fn settle(&mut self) {
        let settled = self.in_flight.front().map_or(self.number, |number| number - 1);
        self.node.on_persist_ready(settled);
        if let Some((_, index)) = self.restoring.take_if(|(number, _)| *number <= settled) {
            self.node.advance_apply_to(index);
        }
        while let Some((number, _)) = self.held.front()
            && *number <= settled
        {
            self.sendable.extend(self.held.pop_front().into_iter().flat_map(|held| held.1));
        }
    }
}

impl Consensus for RaftConsensus {
    fn takes_proposals(&self) -> bool {
        let raft = &self.node.raft;
        self.is_leader() && raft.lead_transferee.is_none() && raft.prs().get(raft.id).is_some()
    }

    fn propose(&mut self, data: Bytes) -> Result<(), NotLeader> {
        // A follower's would be passed on in a way that may lose it.
        if !self.is_leader() {
            return Err(NotLeader);
        }
        // As `RawNode::propose` does, which would copy.
        let mut message = raft::eraftpb::Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.node.raft.id;
        message.mut_entries().push(Entry { data, ..Entry::default() });
        self.node.raft.step(message).map_err(|_| NotLeader)
    }

    fn propose_members(&mut self, members: &Members) -> Result<(), NotLeader> {
        if !self.is_leader() || self.node.raft.has_pending_conf() {
            return Err(NotLeader);
        }
        match step_to(&self.members(), members) {
            Some(change) => {
                self.node.propose_conf_change(Vec::new(), change).map_err(|_| NotLeader)
            }
            None => Ok(()),
        }
    }

    fn members_changed(&mut self, data: &[u8]) -> Members {
        let mut change = ConfChangeV2::default();
        if change.merge_from_bytes(data).is_ok()
            && let Ok(state) = self.node.apply_conf_change(&change)
        {
            self.node.mut_store().members = state;
        }
        self.members()
    }

    fn members(&self) -> Members {
        let state = &self.node.store().members;
        let mut members =
            Members { voters: state.voters.clone(), learners: state.learners.clone() };
        // The algorithm keeps them in no order.
        members.voters.sort_unstable();
        members.learners.sort_unstable();
        members
    }

    fn step(&mut self, mut message: Message) {
        if message.0.get_msg_type() == MessageType::MsgHeartbeat {
            // A leader that does not know yet that our log was lost counts on more than there is.
            message.0.commit = message.0.commit.min(self.last_index());
        }
        if self.restoring.is_some() && message.0.get_msg_type() == MessageType::MsgTimeoutNow {
            // Nor does it campaign by itself; see tick.
            return;
        }
        // What it refuses is of another term or from a server that was removed.
        let _ = self.node.step(message.0);
    }

    fn tick(&mut self, patience: Option<usize>) {
        // To campaign it would look at what it has not applied, and that is not there before the
        // snapshot counts.
        let patience = patience.filter(|_| self.restoring.is_none());
        let ticks = patience.map_or(NEVER_TICKS - 1, |more| ELECTION_TICKS + more);
        self.node.raft.set_randomized_election_timeout(ticks);
        self.node.tick();
    }

    fn ready(&mut self) -> Option<Ready> {
        if !self.node.has_ready() && self.sendable.is_empty() {
            return None;
        }
        let mut messages = std::mem::take(&mut self.sendable);
        if !self.node.has_ready() {
            let messages = messages.into_iter().collect();
            return Some(Ready { messages, ..Ready::default() });
        }
        let mut ready = self.node.ready();
        self.number = ready.number();
        messages.extend(ready.take_messages().into_iter().map(Message));
        let committed = ready.take_committed_entries().into_iter().map(from_raft).collect();
        let reads = ready.take_read_states().into_iter().filter_map(|state| {
            let context = state.request_ctx.as_slice().try_into().map(u64::from_be_bytes).ok()?;
            Some((context, state.index))
        });
        let reads = reads.collect();
        let entries = ready.take_entries();
        if let Some(hard_state) = ready.hs() {
            if hard_state.term != self.vote.term {
                self.term_number = self.number;
            }
            self.vote =
                Vote { term: hard_state.term, vote: hard_state.vote, commit: hard_state.commit };
            self.node.mut_store().hard_state = hard_state.clone();
        }
        let restored = (!is_empty(ready.snapshot())).then(|| {
            self.node.mut_store().restore(ready.snapshot());
            ready.snapshot().get_metadata().index
        });
        let batch = ready.must_sync().then(|| Batch {
            vote: self.vote,
            entries: entries.iter().cloned().map(from_raft).collect(),
            restored,
        });
        self.node.mut_store().append(entries);
        let persisted = ready.take_persisted_messages().into_iter().map(Message);
        self.node.advance_append_async(ready);
        if let Some(index) = restored {
            self.restoring = Some((self.number, index));
        }
        if batch.is_some() {
            self.in_flight.push_back(self.number);
        }
        let (at_once, held): (Vec<_>, Vec<_>) =
            persisted.partition(|message| self.only_says_that_we_live(message));
        messages.extend(at_once);
        if !held.is_empty() {
            self.held.push_back((self.number, held));
        }
        if self.in_flight.is_empty() {
            self.settle();
            messages.append(&mut self.sendable);
        }
        Some(Ready { number: self.number, batch, restored, committed, messages, reads })
    }

    fn persisted(&mut self, number: u64) {
        while self.in_flight.front().is_some_and(|first| *first <= number) {
            self.in_flight.pop_front();
        }
        self.settle();
    }

    fn applied(&mut self, index: u64, state_bytes: u64) {
        self.node.advance_apply_to(index);
        // What the server furthest behind has yet to get.
        let own = self.node.raft.id;
        let needed = match self.is_leader() {
            true => (self.node.raft.prs().iter())
                .filter(|(id, _)| **id != own)
                .map(|(_, progress)| progress.matched.max(progress.pending_snapshot))
                .min()
                .unwrap_or(u64::MAX),
            false => u64::MAX,
        };
        self.node.mut_store().forget(index, needed, state_bytes);
    }

    fn is_leader(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn term(&self) -> u64 {
        self.node.raft.term
    }

    fn leader(&self) -> Option<u64> {
        Some(self.node.raft.leader_id).filter(|id| *id != INVALID_ID)
    }

    fn raise_term(&mut self, term: u64) {
        if term > self.node.raft.term {
            self.node.raft.become_follower(term, INVALID_ID);
        }
    }

    fn read_index(&mut self, context: u64) {
        self.node.read_index(context.to_be_bytes().to_vec());
    }

    fn leader_is_gone(&mut self) {
        if !self.is_leader() {
            // Others hear of it by themselves; the lease must not have them wait.
            self.node.raft.election_elapsed = ELECTION_TICKS;
        }
    }

    fn ends_at(&mut self, id: u64, last_index: u64) {
        if self.is_leader()
            && let Some(progress) = self.node.raft.mut_prs().get_mut(id)
            && progress.matched > last_index
        {
            progress.matched = 0;
            progress.become_probe();
        }
    }

    fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    fn unreachable(&mut self, id: u64) {
        self.node.report_unreachable(id);
    }

    fn snapshot_sent(&mut self, id: u64, is_whole: bool) {
        let status = if is_whole { SnapshotStatus::Finish } else { SnapshotStatus::Failure };
        self.node.report_snapshot(id, status);
    }

    fn offer_snapshot(&mut self, index: u64, term: u64, members: Members) {
        self.node.mut_store().offer(index, term, members);
    }

    fn wants_snapshot(&mut self) -> bool {
        self.node.store().takes_want()
    }

    fn hand_over(&mut self, id: u64) {
        self.node.transfer_leader(id);
    }

    fn outranks(&self, message: &Message) -> bool {
        let log = &self.node.raft.raft_log;
        message.0.get_msg_type() == MessageType::MsgRequestPreVote
            && message.0.from < self.node.raft.id
            && (message.0.log_term, message.0.index) == (log.last_term(), log.last_index())
    }

    fn progress(&self) -> Vec<Progress> {
        let mut all: Vec<_> = (self.node.raft.prs().iter())
            .map(|(id, progress)| Progress {
                id: *id,
                matched: progress.matched,
                is_active: progress.recent_active,
            })
            .collect();
        all.sort_unstable_by_key(|progress| progress.id);
        all
    }
}

fn is_empty(snapshot: &Snapshot) -> bool {
    snapshot.get_metadata().index == 0
}

/// The next step from one membership to another: one server at a time, so that every two majorities
/// share a server. `None` where they are the same.
fn step_to(from: &Members, to: &Members) -> Option<ConfChangeV2> {
    let first = |those: &[u64], held: &[u64]| those.iter().copied().find(|id| !held.contains(id));
    let add = first(&to.voters, &from.voters).map(|id| (ConfChangeType::AddNode, id));
    let learn = || {
        let id = first(&to.learners, &from.learners)?;
        Some((ConfChangeType::AddLearnerNode, id))
    };
    let remove = || {
        let all: Vec<_> = to.voters.iter().chain(&to.learners).copied().collect();
        let held: Vec<_> = from.learners.iter().chain(&from.voters).copied().collect();
        Some((ConfChangeType::RemoveNode, first(&held, &all)?))
    };
    let (kind, id) = add.or_else(learn).or_else(remove)?;
    let mut single = ConfChangeSingle { node_id: id, ..ConfChangeSingle::default() };
    single.set_change_type(kind);
    let mut change = ConfChangeV2 { changes: vec![single].into(), ..ConfChangeV2::default() };
    change.set_transition(ConfChangeTransition::Auto);
    Some(change)
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
