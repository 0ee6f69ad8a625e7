//! One server among the others: its part in the agreement, and what its clients get of it.
//!
//! A core: it is told what came from clients, from other servers and from the disk, and leaves what
//! is to be written and sent in [`Work`]. Writes go to the leader, which puts them into the log;
//! they are answered where they came from, when they are applied there. Reads are answered from
//! this server's own state.
//!
//! **A change of the leader is not told to clients.** What was on its way is told to the new leader,
//! once it is certain that it never comes from the old one: see [`outbox`].
//!
//! **Clients are taken while contact with the leader lasts.** Once in a while every server asks how
//! far the log is committed, which only a leader that a majority follows can answer. What it knew
//! when it asked, it knows for certain. Without an answer each client is sent away when half
//! of its session's timeout is over, before the leader could take the session for over; and all are,
//! after the limit of the configuration.
//!
//! **A lost disk does not vote.** A server that starts with an empty log in an ensemble may have
//! forgotten what it has promised. It first hears from so many others that one of them was there
//! when it promised, and takes the newest of their terms for its own: an older leader is not
//! followed. It votes again once a leader has told it everything that was committed. Where all
//! servers are as empty it is a full member at once, for that is a new ensemble; where a majority
//! is, and nothing is heard of the rest for a while, likewise.

mod contact;
mod members;
mod outbox;
mod peer;
#[cfg(test)]
mod simulation;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use elkfk_wire::jute::SessionId;
use tracing::{error, info};

use outbox::Outbox;
pub(crate) use peer::{FRAME_OVERHEAD_BYTES, Hello, Lane, PeerMessage};

use crate::consensus::{Consensus, Message};
use crate::ensemble::{Server, within_reach};
use crate::machine::{Action, Command, Machine, Origin};
use crate::metrics::ELECTIONS;
use crate::server::Leading;
use crate::service::{Now, Service, Sizes};
use crate::wal::Batch;

/// What of the configuration concerns the part in the ensemble.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// This server, never 0.
    pub(crate) id: u64,
    /// Contact with the leader may be this long ago while clients are served.
    pub(crate) contact_limit_ms: u64,
    /// What session passwords are made with, should this server be the first to lead: by chance.
    pub(crate) secret: [u8; 32],
    /// As zoo.cfg lists them, by their ids.
    pub(crate) servers: Vec<Server>,
}

/// What the shell has to do, in this order.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// To be made durable, one after the other; [`Replica::persisted`] is to be told the number.
    pub(crate) log: Vec<LogWork>,
    pub(crate) messages: Vec<(u64, PeerMessage)>,
    /// Bytes of the log that were applied.
    pub(crate) applied_bytes: u64,
    /// Connections are to be to these from now on.
    pub(crate) servers: Option<Vec<Server>>,
    /// This server cannot go on.
    pub(crate) failure: Option<String>,
}

#[derive(Debug)]
pub(crate) enum LogWork {
    Append {
        number: u64,
        batch: Batch,
    },
    /// This server is a full member from now on: [`Replica::is_joining`] is not to be remembered.
    Joined,
}

/// Batches handed to the disk and not durable yet.
const BATCHES_IN_FLIGHT_MAX: usize = 128;
const OBJECTIONS_MAX: u32 = 2;
/// A server without room on its disk waits so much longer before it wants to lead.
const SICK_TICKS: usize = 20;
/// Commands that travel to the leader together, in bytes; one may be larger and travels alone.
const FORWARD_BYTES_MAX: usize = 512 << 10;
/// Contact with the leader is sought this often, and this long is an answer waited for.
const CONTACT_INTERVAL_MS: u64 = 500;
const ANSWER_LIMIT_MS: u64 = 300;
/// What a leader has refused is unclear, unless another leads so soon.
const UNCLEAR_LIMIT_MS: u64 = 300;
/// Between two ticks; this process, or its machine, stood still.
const PAUSE_MS: u64 = 200;
/// A new ensemble begins without those of its servers that were not heard of for this long.
const NEW_ENSEMBLE_AFTER_MS: u64 = 10_000;
const QUESTIONS_MAX: usize = 16;
/// The leader is told of sessions this often.
const TOUCH_INTERVAL_MS: u64 = 200;
/// Digests of the tree are compared at every so many entries, and so many are remembered.
const CHECKPOINT_ENTRIES: u64 = 256;
const CHECKPOINTS_KEPT: usize = 64;

#[derive(Debug, Default)]
struct Peer {
    /// Something can be sent to it.
    is_up: bool,
    hello: Option<Hello>,
    /// Of its newest hello, also once it is gone.
    ensemble: u64,
    /// Told in this life of ours.
    term: Option<u64>,
    /// What came of it to the leader, that is us: of this lane, all so far.
    taken: Lane,
}

/// A question to the leader for how far the log is committed.
#[derive(Debug, Clone, Copy)]
struct Question {
    context: u64,
    asked_ms: u64,
    /// Of the service; those asked for later need another question.
    barrier: u64,
}

#[derive(Debug)]
pub(crate) struct Replica<C> {
    pub(crate) service: Service,
    pub(crate) consensus: C,
    terms: Terms,
    now: Now,
    peers: BTreeMap<u64, Peer>,
    /// Where the others are, as far as was heard.
    servers: Vec<Server>,
    /// Leader and term as of the last look.
    following: (Option<u64>, u64),
    /// Whether what is sent to the leader now would reach it, as far as is known.
    is_leader_in_reach: bool,
    /// What was sent to the leader.
    lane: Lane,
    outbox: Outbox,
    batches_in_flight: VecDeque<u64>,
    /// Asked and not answered, the newest last: an answer that takes long is one all the same.
    questions: VecDeque<Question>,
    /// Answered, but the index is not applied yet.
    answered: Option<(Question, u64)>,
    next_context: u64,
    /// When the question was asked whose answer arrived last.
    contact_ms: u64,
    started_ms: u64,
    ticked_ms: u64,
    touched_ms: u64,
    has_empty_log: bool,
    is_joining: bool,
    /// The ensemble that the others were told of.
    told_ensemble: u64,
    /// Received, and to take the place of the state when the agreement says so.
    incoming: Option<Machine>,
    checkpoints: VecDeque<(u64, u64)>,
    proposals: Sizes,
    /// Chance, for the patience of elections.
    random: u64,
    patience: usize,
    /// To the candidates since there was a leader.
    objections: u32,
    work: Work,
    #[cfg(test)]
    notes: Vec<simulation::Note>,
}

impl<C: Consensus> Replica<C> {
    /// `has_empty_log`: nothing was ever written here. `is_joining`: nor was this server a full
    /// member when it was here before.
    pub(crate) fn new(
        service: Service,
        consensus: C,
        terms: Terms,
        now: Now,
        has_empty_log: bool,
        is_joining: bool,
    ) -> Self {
        let members = consensus.members();
        let boot = service.boot();
        // Clients may have changed what zoo.cfg says.
        let changed = service.machine.ensemble().filter(|ensemble| ensemble.version != 0);
        let listed = changed.map_or_else(|| terms.servers.clone(), |it| it.servers.clone());
        let mut replica = Self {
            peers: members.others(terms.id).map(|id| (id, Peer::default())).collect(),
            servers: within_reach(listed, &terms.servers, &members),
            following: (None, consensus.term()),
            is_leader_in_reach: true,
            lane: Lane { id: boot, sent: 0 },
            outbox: Outbox::new(boot),
            batches_in_flight: VecDeque::new(),
            questions: VecDeque::new(),
            answered: None,
            next_context: (terms.id << 56) | ((boot & 0xffff) << 40),
            contact_ms: now.steady_ms,
            started_ms: now.steady_ms,
            ticked_ms: now.steady_ms,
            touched_ms: now.steady_ms,
            is_joining: is_joining && members.voters.len() > 1,
            has_empty_log,
            told_ensemble: service.machine.ensemble_id(),
            incoming: None,
            checkpoints: VecDeque::new(),
            proposals: Sizes::default(),
            random: boot | 1,
            patience: 0,
            objections: 0,
            work: Work::default(),
            #[cfg(test)]
            notes: Vec::new(),
            service,
            consensus,
            terms,
            now,
        };
        replica.draw_patience();
        replica
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
        self.service.set_now(now);
    }

    #[cfg(test)]
    pub(crate) fn is_joining(&self) -> bool {
        self.is_joining
    }

    /// Whom this server is connected to when it starts.
    pub(crate) fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// The leader, while clients are served.
    pub(crate) fn leader(&self) -> Option<u64> {
        self.following.0.filter(|_| self.service.is_serving())
    }

    /// What a leader knows of those that follow it.
    pub(crate) fn leading(&self) -> Leading {
        let is_up = |id: &u64| self.peers.get(id).is_some_and(|peer| peer.is_up);
        let (members, last) = (self.consensus.members(), self.consensus.last_index());
        let others = self.consensus.progress();
        let synced = others.iter().filter(|other| {
            is_up(&other.id) && members.voters.contains(&other.id) && other.matched == last
        });
        Leading {
            followers: self.peers.keys().filter(|id| is_up(id)).count(),
            synced_followers: synced.count(),
            pending_syncs: usize::from(!self.questions.is_empty()),
            proposals: self.proposals,
        }
    }

    fn is_alone(&self) -> bool {
        self.peers.is_empty()
    }

    fn send(&mut self, to: u64, message: PeerMessage) {
        self.work.messages.push((to, message));
    }

    /// Messages to this server find their way from now on.
    pub(crate) fn peer_up(&mut self, id: u64) {
        let hello = self.hello();
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.is_up = true;
        self.send(id, PeerMessage::Hello(hello));
        if self.following.0 == Some(id) {
            self.is_leader_in_reach = true;
            self.give_up_what_is_unclear(0);
        }
        if self.following.0.is_none() {
            // After a start there is no reason to wait: where a leader is, the others say so.
            self.draw_patience();
            self.consensus.leader_is_gone();
        }
    }

    /// Messages to this server may have been lost. `is_gone`: so is its process, not only the way
    /// to it.
    pub(crate) fn peer_down(&mut self, id: u64, is_gone: bool) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.is_up = false;
        peer.hello = None;
        self.consensus.unreachable(id);
        if self.following.0 == Some(id) {
            self.is_leader_in_reach = false;
            self.break_lane();
            if is_gone {
                info!(leader = id, "the leader is gone");
                self.draw_patience();
                self.consensus.leader_is_gone();
            }
        }
    }

    /// Takes a message of another server.
    pub(crate) fn message(&mut self, from: u64, message: PeerMessage) {
        if !self.peers.contains_key(&from)
            || self.is_foreign(from) && !matches!(message, PeerMessage::Hello(_))
        {
            return;
        }
        match message {
            PeerMessage::Raft(message) => {
                // The memory of a promise may be lost with the disk it was on.
                let is_deaf =
                    self.is_joining && (message.is_about_votes() || !self.knows_the_term());
                if self.is_better_than(&message) {
                    self.objections += 1;
                    return self.consensus.leader_is_gone();
                }
                if message.from() == from
                    && message.to() == self.terms.id
                    && message.snapshot_index().is_none()
                    && !is_deaf
                {
                    self.consensus.step(message);
                }
            }
            PeerMessage::Hello(hello) => self.take_hello(from, hello),
            PeerMessage::Forward { term, lane, commands } => {
                self.take_forwarded(from, term, lane, commands);
            }
            PeerMessage::Refused { lane } => {
                if self.lane.id == lane {
                    self.break_lane();
                }
            }
            PeerMessage::Touch { sessions, checkpoint, lane } => {
                self.service.touch(&sessions);
                let taken = self.peers.get(&from).map(|peer| peer.taken);
                if lane.sent > 0 && taken != Some(lane) {
                    self.send(from, PeerMessage::Refused { lane: lane.id });
                }
                self.compare(from, checkpoint);
            }
            PeerMessage::Diverged { index } => {
                error!(index, leader = from, "the tree here differs from the leader's");
                self.work.failure = Some(format!(
                    "the tree differs from that of server {from} at entry {index}: a disk or memory has damaged it; \
                     move dataDir away and start again, it is then copied from the others"
                ));
            }
        }
    }

    /// What was on its way to the leader may never be in the log.
    fn break_lane(&mut self) {
        self.outbox.break_lane(self.now.steady_ms);
        self.service.touch_attached();
        self.lane = Lane { id: self.draw(), sent: 0 };
    }

    /// Where the same leader leads on, only it knows what it has taken: those who wait are cut off,
    /// which tells them that it may have been done or not.
    fn give_up_what_is_unclear(&mut self, limit_ms: u64) {
        if self.outbox.is_unclear(self.following.1, self.now.steady_ms, limit_ms) {
            let unclear = self.outbox.give_up();
            self.service.cut_off(&unclear);
            self.forget_those_gone();
        }
    }

    fn forget_those_gone(&mut self) {
        let service = &self.service;
        self.outbox.forget_those_gone(|client| service.is_connected(client));
    }

    fn take_forwarded(&mut self, from: u64, term: u64, lane: Lane, commands: Vec<Bytes>) {
        let is_ours = self.consensus.is_leader() && self.consensus.term() == term;
        let is_next =
            lane.sent == 0 || self.peers.get(&from).is_some_and(|peer| peer.taken == lane);
        let time_ms = self.now.wall_ms;
        let taken = is_ours
            && is_next
            && commands.into_iter().all(|command| {
                let mut command = Vec::from(command);
                Command::stamp(&mut command, time_ms);
                self.proposals.add(command.len());
                self.consensus.propose(command.into()).is_ok()
            });
        let Some(peer) = self.peers.get_mut(&from) else { return };
        match taken {
            true => peer.taken = Lane { id: lane.id, sent: lane.sent + 1 },
            false => {
                peer.taken = Lane::default();
                self.send(from, PeerMessage::Refused { lane: lane.id });
            }
        }
    }

    fn compare(&mut self, from: u64, checkpoint: Option<(u64, u64)>) {
        let Some((index, digest)) = checkpoint else { return };
        let ours = self.checkpoints.iter().find(|(at, _)| *at == index);
        if let Some((_, ours)) = ours
            && *ours != digest
            && self.consensus.is_leader()
        {
            error!(server = from, index, "the tree of this server differs from ours");
            self.send(from, PeerMessage::Diverged { index });
        }
    }

    /// Takes a snapshot that another server has sent, with the message that announced it. The file
    /// is durable.
    pub(crate) fn restore(&mut self, from: u64, message: Message, machine: Machine) {
        if message.from() == from
            && message.to() == self.terms.id
            && message.snapshot_index() == Some(machine.index())
            && !self.is_foreign(from)
        {
            self.incoming = Some(machine);
            self.consensus.step(message);
        }
    }

    /// A snapshot was sent to this server, or could not be.
    pub(crate) fn snapshot_sent(&mut self, to: u64, is_whole: bool) {
        self.consensus.snapshot_sent(to, is_whole);
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self) {
        let patience = (!self.is_joining).then_some(self.patience);
        self.consensus.tick(patience);
        // Before anything is decided as a leader that this server may no longer be.
        self.look();
        self.follow_config();
        self.begin_ensemble();
        self.service.tick();
        if self.is_leader_in_reach && self.following.0.is_some() {
            self.give_up_what_is_unclear(UNCLEAR_LIMIT_MS);
        }
        let now_ms = self.now.steady_ms;
        let newest = self.questions.back();
        if newest.is_some_and(|question| now_ms >= question.asked_ms + ANSWER_LIMIT_MS)
            || now_ms >= self.contact_ms + CONTACT_INTERVAL_MS
                && self.questions.is_empty()
                && self.answered.is_none()
        {
            self.ask();
        }
        if now_ms >= self.touched_ms + TOUCH_INTERVAL_MS {
            self.touched_ms = now_ms;
            self.tell_touched();
        }
        let was_paused = now_ms > self.ticked_ms + PAUSE_MS;
        self.ticked_ms = now_ms;
        // After a pause of this process answers may wait in its sockets.
        if self.service.is_serving() && !self.is_alone() && !was_paused {
            self.send_away_in_time();
        }
    }

    fn tell_touched(&mut self) {
        let Some(leader) = self.following.0.filter(|id| *id != self.terms.id) else { return };
        if self.is_leader_in_reach {
            let sessions = self.service.take_touched();
            let checkpoint = self.checkpoints.back().copied();
            let lane = self.lane;
            self.send(leader, PeerMessage::Touch { sessions, checkpoint, lane });
        }
    }

    /// The batch with this number, and all before it, are durable.
    pub(crate) fn persisted(&mut self, number: u64) {
        while self.batches_in_flight.front().is_some_and(|first| *first <= number) {
            self.batches_in_flight.pop_front();
        }
        self.consensus.persisted(number);
    }

    pub(crate) fn batches_in_flight(&self) -> usize {
        self.batches_in_flight.len()
    }

    /// The disk is full, or has room again. Without room this server must not lead.
    pub(crate) fn set_refusing(&mut self, refusing: Option<String>) {
        let is_new = refusing.is_some() && !self.service.is_refusing();
        self.service.set_refusing(refusing);
        self.draw_patience();
        if is_new {
            self.hand_over();
        }
    }

    /// Has another server lead, where one is as far as this one.
    pub(crate) fn hand_over(&mut self) -> bool {
        if !self.consensus.is_leader() {
            return false;
        }
        let members = self.consensus.members();
        let best = (self.consensus.progress().into_iter())
            .filter(|other| other.id != self.terms.id && other.is_active)
            .filter(|other| members.voters.contains(&other.id))
            .max_by_key(|other| (other.matched, other.id));
        let Some(best) = best else { return false };
        info!(server = best.id, "leadership is handed over");
        self.consensus.hand_over(best.id);
        true
    }

    /// Hands out everything that is to be done now.
    pub(crate) fn advance(&mut self) -> Work {
        self.look();
        // First of all, so that a question which a read has just asked for goes out with the rest.
        self.pass_barrier();
        self.propose();
        while self.batches_in_flight.len() < BATCHES_IN_FLIGHT_MAX {
            let Some(ready) = self.consensus.ready() else { break };
            if let Some(index) = ready.restored {
                self.install(index);
            }
            for entry in &ready.committed {
                if entry.kind == 0 {
                    self.outbox.applied(&entry.data);
                    self.service.apply(entry);
                } else {
                    self.members_changed(entry);
                }
                #[cfg(test)]
                self.notes.push(simulation::Note::of(&self.service.machine));
                self.work.applied_bytes += entry.data.len() as u64 + 64;
                if entry.index.is_multiple_of(CHECKPOINT_ENTRIES) {
                    if self.checkpoints.len() == CHECKPOINTS_KEPT {
                        self.checkpoints.pop_front();
                    }
                    let digest = self.service.machine.tree.digest();
                    self.checkpoints.push_back((entry.index, digest));
                }
            }
            if let Some(last) = ready.committed.last() {
                let state_bytes = self.service.machine.tree.approximate_bytes();
                self.consensus.applied(last.index, state_bytes);
            }
            if let Some(batch) = ready.batch {
                self.has_empty_log &= batch.entries.is_empty() && batch.restored.is_none();
                self.batches_in_flight.push_back(ready.number);
                self.work.log.push(LogWork::Append { number: ready.number, batch });
            }
            for message in ready.messages {
                let to = message.to();
                self.send(to, PeerMessage::Raft(message));
            }
            for (context, index) in ready.reads {
                self.take_answer(context, index);
            }
            self.look();
            self.pass_barrier();
            // Proposals that applying brought forth.
            self.propose();
        }
        self.pass_barrier();
        self.tell_ensemble();
        self.answer_reconfigs();
        self.propose();
        std::mem::take(&mut self.work)
    }

    fn install(&mut self, index: u64) {
        let Some(machine) = self.incoming.take().filter(|machine| machine.index() == index) else {
            // The agreement restores only what came with its message.
            self.work.failure = Some(format!("snapshot at entry {index} is not at hand"));
            return;
        };
        info!(index, zxid = %machine.zxid(), znodes = machine.tree.len(), "state of another server taken over");
        self.checkpoints.clear();
        self.answered = None;
        // What was done meanwhile is in there, and nobody saw whose it was.
        self.outbox.give_up();
        self.service.install(machine);
        self.forget_those_gone();
        self.meet_members();
    }

    /// Looks whether somebody else leads now.
    fn look(&mut self) {
        let following = (self.consensus.leader(), self.consensus.term());
        if following != self.following {
            let before = std::mem::replace(&mut self.following, following);
            // With nobody to lead, nothing was on its way.
            if before.0.is_some() {
                self.break_lane();
            }
            if following.0 != before.0
                && let Some(leader) = following.0
            {
                ELECTIONS.inc();
                self.objections = 0;
                info!(
                    leader,
                    term = following.1,
                    is_us = leader == self.terms.id,
                    "ensemble has a leader"
                );
            }
            self.is_leader_in_reach = following.0.is_some_and(|leader| {
                leader == self.terms.id || self.peers.get(&leader).is_some_and(|peer| peer.is_up)
            });
            self.service.set_leading(false);
            self.questions.clear();
            self.answered = None;
            self.draw_patience();
            // At once: whoever waits, waits for this.
            self.ask();
        }
        // An entry of this term is applied after all of those before.
        let leads =
            self.consensus.is_leader() && self.service.machine.term() == self.consensus.term();
        if leads && !self.service.is_leading() {
            self.service.set_leading(true);
            self.ask();
        }
    }

    /// Puts commands into the log, or sends them to where that is done.
    fn propose(&mut self) {
        if self.service.is_leading() && !self.service.machine.has_secret() {
            // A second one, proposed before the first is applied, changes nothing.
            let action = Action::Secret(self.terms.secret);
            let (origin, session) = (Origin::default(), SessionId(0));
            let command = Command { time_ms: self.now.wall_ms, origin, session, action };
            let _ = self.consensus.propose(command.encode().into());
        }
        self.outbox.park(self.service.take_proposals());
        let service = &self.service;
        self.outbox.reached(service.machine.term(), |client| service.is_connected(client));
        if self.outbox.is_empty() {
            return;
        }
        let service = &self.service;
        self.outbox.purge(|client| service.is_connected(client));
        if self.consensus.is_leader() {
            let term = self.consensus.term();
            while self.consensus.takes_proposals()
                && let Some(mut command) = self.outbox.next()
            {
                Command::stamp(&mut command, self.now.wall_ms);
                let command = Bytes::from(command);
                if self.consensus.propose(command.clone()).is_err() {
                    return self.outbox.give_back(command.into());
                }
                self.proposals.add(command.len());
                self.outbox.sent(&command, term);
            }
        } else if let (Some(leader), term) = self.following
            && self.is_leader_in_reach
        {
            let mut commands = Vec::new();
            let mut bytes = 0;
            while let Some(command) = self.outbox.next() {
                if bytes > 0 && bytes + command.len() > FORWARD_BYTES_MAX {
                    let commands = std::mem::take(&mut commands);
                    self.forward(leader, term, commands);
                    bytes = 0;
                }
                bytes += command.len();
                let command = Bytes::from(command);
                self.outbox.sent(&command, term);
                commands.push(command);
            }
            if !commands.is_empty() {
                self.forward(leader, term, commands);
            }
        }
    }

    fn forward(&mut self, leader: u64, term: u64, commands: Vec<Bytes>) {
        let lane = self.lane;
        self.lane.sent += 1;
        self.send(leader, PeerMessage::Forward { term, lane, commands });
    }

    /// The server with the largest id is the least patient, so that one campaigns before the
    /// others do.
    fn draw_patience(&mut self) {
        let members = self.consensus.members();
        let is_up = |id: &u64| self.peers.get(id).is_none_or(|peer| peer.is_up);
        let larger = members.voters.iter().filter(|id| **id > self.terms.id && is_up(id)).count();
        let sick = if self.service.is_refusing() { SICK_TICKS } else { 0 };
        self.patience = sick + 1 + larger * 2 + (self.draw() % 3) as usize;
    }

    /// Splitmix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
