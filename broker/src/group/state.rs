//! One group: its members, its generation, and how they change.
//!
//! Pure state: no log, no socket, no clock. What has to be written or answered goes to [`Outbox`].

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use elkfk_wire::kafka::ErrorCode;

use super::member::Member;
use super::offsets::Offsets;
use super::record::{Record, StoredGroup};
use super::{Answer, Join, Joined, Now, Output, Synced, Waiter, WriteId};

/// Kafka's states of a group, under its names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is done once a write is durable.
#[derive(Debug)]
pub(crate) enum Pending {
    /// The leader's assignment of a generation.
    Assignment {
        group: String,
        generation: i32,
    },
    /// Offsets: place in the request, topic, partition, value.
    Offsets {
        group: String,
        waiter: Waiter,
        codes: Vec<ErrorCode>,
        offsets: Vec<PendingOffset>,
    },
    /// An answer that waited for its write; the code in its place if that failed.
    Answer {
        waiter: Waiter,
        answer: Answer,
    },
    Nothing,
}

/// Place in the request, topic, partition, value.
pub(crate) type PendingOffset = (usize, String, i32, super::offsets::Committed);

/// Where one step puts what is to be performed.
#[derive(Debug)]
pub(crate) struct Outbox<'a> {
    pub(crate) outputs: &'a mut Vec<Output>,
    pub(crate) next_write: &'a mut WriteId,
    pub(crate) pending: &'a mut BTreeMap<WriteId, Pending>,
}

impl Outbox<'_> {
    pub(crate) fn answer(&mut self, waiter: Waiter, answer: Answer) {
        self.outputs.push(Output::Answer(waiter, answer));
    }

    pub(crate) fn write(&mut self, records: Vec<Record>, pending: Pending) -> WriteId {
        let id = *self.next_write;
        *self.next_write += 1;
        self.pending.insert(id, pending);
        self.outputs.push(Output::Write(id, records));
        id
    }
}

/// The first rebalance of an empty group waits for companions to arrive.
#[derive(Debug, Clone, Copy)]
struct InitialDelay {
    /// How much longer it may be prolonged.
    remaining: Duration,
    has_newcomer: bool,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) state: State,
    /// When `state` was entered, in milliseconds since the epoch; -1: unknown.
    pub(crate) state_since_ms: i64,
    /// `None` for a group that only stores offsets.
    pub(crate) protocol_type: Option<String>,
    /// Chosen for the current generation.
    pub(crate) protocol: Option<String>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<String>,
    pub(crate) members: BTreeMap<String, Member>,
    /// Member id by instance id.
    pub(crate) instances: BTreeMap<String, String>,
    /// Ids given out and not yet used, with their end.
    pub(crate) promised: BTreeMap<String, Instant>,
    /// End of the join phase; only in `PreparingRebalance`.
    join_ends: Option<Instant>,
    initial: Option<InitialDelay>,
    /// When members that owe a sync are thrown out; only in `CompletingRebalance`.
    sync_ends: Option<Instant>,
    pub(crate) offsets: Offsets,
    /// Why the last rebalance began, for the log.
    pub(crate) reason: &'static str,
}

impl Group {
    pub(crate) fn new(id: &str, now: Now) -> Self {
        Self {
            id: id.to_owned(),
            state: State::Empty,
            state_since_ms: now.wall_ms,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            promised: BTreeMap::new(),
            join_ends: None,
            initial: None,
            sync_ends: None,
            offsets: Offsets::default(),
            reason: "",
        }
    }

    /// The group as its record left it; members get a whole session to speak again.
    pub(crate) fn restore(&mut self, stored: StoredGroup, now: Now) {
        let protocol = stored.protocol.clone().unwrap_or_default();
        self.protocol_type = Some(stored.protocol_type).filter(|kind| !kind.is_empty());
        self.generation = stored.generation;
        self.state_since_ms = stored.state_since_ms;
        self.members.clear();
        self.instances.clear();
        for member in stored.members {
            let join = Join {
                instance_id: member.instance_id,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout: member.session_timeout,
                rebalance_timeout: member.rebalance_timeout,
                protocols: vec![(protocol.clone(), member.subscription)],
                ..Join::default()
            };
            let mut restored = Member::new(member.id, &join, now.at);
            restored.is_new = false;
            restored.assignment = member.assignment;
            restored.keep_alive(now.at);
            if let Some(instance) = &restored.instance_id {
                self.instances.insert(instance.clone(), restored.id.clone());
            }
            self.members.insert(restored.id.clone(), restored);
        }
        if self.members.is_empty() {
            (self.state, self.protocol, self.leader) = (State::Empty, None, None);
        } else {
            (self.state, self.protocol, self.leader) =
                (State::Stable, stored.protocol, stored.leader);
        }
    }

    /// When something is to happen by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let members = self.members.values().filter_map(Member::deadline);
        let promised = self.promised.values().copied();
        members.chain(promised).chain(self.join_ends).chain(self.sync_ends).min()
    }

    pub(crate) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    /// Whether a member with these protocols can work with those already here.
    pub(crate) fn supports(&self, kind: &str, protocols: &[(String, Vec<u8>)]) -> bool {
        if self.members.is_empty() {
            return !kind.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(kind)
            && protocols.iter().any(|(name, _)| self.is_known_to_all(name))
    }

    fn is_known_to_all(&self, protocol: &str) -> bool {
        self.members
            .values()
            .all(|member| member.protocols.iter().any(|(name, _)| name == protocol))
    }

    /// Each member votes for the first it prefers among those that all support.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let first = self.members.values().next()?;
        let names = first.protocols.iter().map(|(name, _)| name.as_str());
        let candidates: Vec<&str> = names.filter(|name| self.is_known_to_all(name)).collect();
        let votes = |name: &&&str| {
            self.members.values().filter(|member| member.vote(&candidates) == Some(name)).count()
        };
        // Of equally many votes the last wins in `max_by_key`; the first member's preference should.
        candidates.iter().rev().max_by_key(votes).map(|name| (*name).to_owned())
    }

    fn enter(&mut self, state: State, now: Now) {
        self.state = state;
        self.state_since_ms = now.wall_ms;
        if state != State::PreparingRebalance {
            (self.join_ends, self.initial) = (None, None);
        }
        if state != State::CompletingRebalance {
            self.sync_ends = None;
        }
    }

    pub(crate) fn kill(&mut self, now: Now) {
        self.enter(State::Dead, now);
    }

    /// Adds a member that waits to join.
    pub(crate) fn add(&mut self, id: &str, waiter: Waiter, join: &Join, now: Now) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        let mut member = Member::new(id.to_owned(), join, now.at);
        member.joining = Some(waiter);
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.to_owned());
        }
        self.promised.remove(id);
        self.leader.get_or_insert_with(|| id.to_owned());
        self.members.insert(id.to_owned(), member);
        if let Some(initial) = &mut self.initial {
            initial.has_newcomer = true;
        }
    }

    /// Takes a member out; a waiting one is answered with `error`.
    pub(crate) fn remove(&mut self, id: &str, error: ErrorCode, outbox: &mut Outbox<'_>) {
        let Some(member) = self.members.remove(id) else { return };
        if let Some(instance) = &member.instance_id
            && self.instances.get(instance).is_some_and(|current| current == id)
        {
            self.instances.remove(instance);
        }
        if let Some(waiter) = member.joining {
            outbox.answer(waiter, Joined::refused(id, error));
        }
        if let Some(waiter) = member.syncing {
            outbox.answer(waiter, Synced::refused(error));
        }
        if self.is_leader(id) {
            let next = self.members.values().find(|member| member.joining.is_some());
            self.leader = next.or(self.members.values().next()).map(|member| member.id.clone());
        }
    }

    /// A static member came back under a new id: the old one is fenced (KIP-345).
    pub(crate) fn replace_static(
        &mut self,
        instance: &str,
        new_id: &str,
        outbox: &mut Outbox<'_>,
    ) -> Option<()> {
        let old_id = self.instances.insert(instance.to_owned(), new_id.to_owned())?;
        let mut member = self.members.remove(&old_id)?;
        if let Some(waiter) = member.joining.take() {
            outbox.answer(waiter, Joined::refused(&old_id, ErrorCode::FENCED_INSTANCE_ID));
        }
        if let Some(waiter) = member.syncing.take() {
            outbox.answer(waiter, Synced::refused(ErrorCode::FENCED_INSTANCE_ID));
        }
        if self.is_leader(&old_id) {
            self.leader = Some(new_id.to_owned());
        }
        member.id = new_id.to_owned();
        self.members.insert(new_id.to_owned(), member);
        Some(())
    }

    /// Starts a rebalance unless one is already gathering members.
    pub(crate) fn rebalance(
        &mut self,
        reason: &'static str,
        initial_delay: Duration,
        now: Now,
        outbox: &mut Outbox<'_>,
    ) {
        match self.state {
            State::PreparingRebalance | State::Dead => return,
            State::CompletingRebalance => {
                self.reset_assignment(ErrorCode::REBALANCE_IN_PROGRESS, now, outbox);
            }
            State::Empty | State::Stable => {}
        }
        self.reason = reason;
        let whole = self.rebalance_timeout();
        let was_empty = self.state == State::Empty;
        self.enter(State::PreparingRebalance, now);
        if was_empty {
            let remaining = whole.saturating_sub(initial_delay);
            self.initial = Some(InitialDelay { remaining, has_newcomer: false });
            self.join_ends = Some(now.at + initial_delay.min(whole));
        } else {
            self.join_ends = Some(now.at + whole);
        }
    }

    fn rebalance_timeout(&self) -> Duration {
        self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default()
    }

    fn reset_assignment(&mut self, error: ErrorCode, now: Now, outbox: &mut Outbox<'_>) {
        for member in self.members.values_mut() {
            member.assignment.clear();
            if let Some(waiter) = member.syncing.take() {
                member.keep_alive(now.at);
                outbox.answer(waiter, Synced::refused(error));
            }
        }
    }

    /// Ends the join phase once everyone is there; an initial one only ends by time.
    pub(crate) fn try_complete_join(&mut self, now: Now, outbox: &mut Outbox<'_>) {
        let is_complete = self.state == State::PreparingRebalance
            && self.initial.is_none()
            && self.promised.is_empty()
            && self.members.values().all(|member| member.joining.is_some());
        if is_complete {
            self.complete_join(now, outbox);
        }
    }

    /// What has to happen because time passed.
    pub(crate) fn tick(&mut self, initial_delay: Duration, now: Now, outbox: &mut Outbox<'_>) {
        self.promised.retain(|_, end| *end > now.at);
        let expired: Vec<String> = self
            .members
            .values()
            .filter(|member| member.deadline().is_some_and(|deadline| deadline <= now.at))
            .map(|member| member.id.clone())
            .collect();
        for id in &expired {
            self.remove(id, ErrorCode::UNKNOWN_MEMBER_ID, outbox);
        }
        if !expired.is_empty() {
            self.after_removal("a member's session ended", initial_delay, now, outbox);
        }
        if self.sync_ends.is_some_and(|end| end <= now.at) {
            let late: Vec<String> = self
                .members
                .values()
                .filter(|member| member.owes_sync)
                .map(|member| member.id.clone())
                .collect();
            self.sync_ends = None;
            for id in &late {
                self.remove(id, ErrorCode::UNKNOWN_MEMBER_ID, outbox);
            }
            if !late.is_empty() {
                self.after_removal(
                    "a member did not ask for its assignment",
                    initial_delay,
                    now,
                    outbox,
                );
            }
        }
        if self.join_ends.is_some_and(|end| end <= now.at) {
            self.end_join_by_time(initial_delay, now, outbox);
        }
        self.try_complete_join(now, outbox);
    }

    pub(crate) fn after_removal(
        &mut self,
        reason: &'static str,
        initial_delay: Duration,
        now: Now,
        outbox: &mut Outbox<'_>,
    ) {
        match self.state {
            State::Stable | State::CompletingRebalance => {
                self.rebalance(reason, initial_delay, now, outbox)
            }
            _ => {}
        }
        self.try_complete_join(now, outbox);
    }

    fn end_join_by_time(&mut self, delay: Duration, now: Now, outbox: &mut Outbox<'_>) {
        if let Some(initial) = &mut self.initial
            && initial.has_newcomer
            && !initial.remaining.is_zero()
            && !delay.is_zero()
        {
            let more = delay.min(initial.remaining);
            initial.remaining -= more;
            initial.has_newcomer = false;
            self.join_ends = Some(now.at + more);
            return;
        }
        self.complete_join(now, outbox);
    }

    /// Begins the next generation with those who came.
    fn complete_join(&mut self, now: Now, outbox: &mut Outbox<'_>) {
        // Static members keep their place until their session ends (KIP-345).
        let absent: Vec<String> = self
            .members
            .values()
            .filter(|member| member.joining.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &absent {
            self.remove(id, ErrorCode::UNKNOWN_MEMBER_ID, outbox);
        }
        let leader_came = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(|member| member.joining.is_some());
        if !leader_came {
            let present = self.members.values().find(|member| member.joining.is_some());
            match present.map(|member| member.id.clone()) {
                Some(id) => self.leader = Some(id),
                None if !self.members.is_empty() => {
                    // Only static members are left, all away: wait for one of them or for their end.
                    self.initial = None;
                    self.join_ends = Some(now.at + self.rebalance_timeout());
                    return;
                }
                None => {}
            }
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            (self.protocol, self.leader) = (None, None);
            self.enter(State::Empty, now);
            outbox.write(vec![super::record::group_record(self)], Pending::Nothing);
            return;
        }
        self.protocol = self.select_protocol();
        self.enter(State::CompletingRebalance, now);
        self.sync_ends = Some(now.at + self.rebalance_timeout());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.joined(&id);
            let member = self.members.get_mut(&id).expect("id was just listed");
            member.is_new = false;
            member.owes_sync = true;
            if let Some(waiter) = member.joining.take() {
                member.keep_alive(now.at);
                outbox.answer(waiter, Answer::Joined(Box::new(answer)));
            }
        }
    }

    /// The current generation as `member` is told it.
    pub(crate) fn joined(&self, member: &str) -> Joined {
        Joined {
            error: ErrorCode::NONE,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            is_assignment_skipped: false,
            member_id: member.to_owned(),
            members: if self.is_leader(member) { self.member_metadata() } else { Vec::new() },
        }
    }

    pub(crate) fn member_metadata(&self) -> Vec<(String, Option<String>, Vec<u8>)> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.values();
        members
            .map(|member| {
                (member.id.clone(), member.instance_id.clone(), member.metadata(protocol).to_vec())
            })
            .collect()
    }

    pub(crate) fn synced(&self, member: &str) -> Answer {
        let assignment = self.members.get(member).map(|member| member.assignment.clone());
        Answer::Synced(Box::new(Synced {
            error: ErrorCode::NONE,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: assignment.unwrap_or_default(),
        }))
    }

    /// The leader's assignment is durable, or could not be made so.
    pub(crate) fn on_assignment_written(
        &mut self,
        generation: i32,
        error: ErrorCode,
        initial_delay: Duration,
        now: Now,
        outbox: &mut Outbox<'_>,
    ) {
        // Another rebalance may have begun meanwhile; its own assignment will come.
        if self.state != State::CompletingRebalance || self.generation != generation {
            return;
        }
        if !error.is_none() {
            self.reset_assignment(error, now, outbox);
            self.rebalance("the assignment could not be stored", initial_delay, now, outbox);
            return;
        }
        let sync_ends = self.sync_ends;
        self.enter(State::Stable, now);
        // Those who have not asked yet still owe it.
        self.sync_ends = sync_ends.filter(|_| self.members.values().any(|member| member.owes_sync));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.synced(&id);
            let member = self.members.get_mut(&id).expect("id was just listed");
            if let Some(waiter) = member.syncing.take() {
                member.keep_alive(now.at);
                outbox.answer(waiter, answer);
            }
        }
    }

    /// The member paid its sync; the limit falls with the last of them.
    pub(crate) fn on_sync(&mut self, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.owes_sync = false;
        }
        if !self.members.values().any(|member| member.owes_sync) {
            self.sync_ends = None;
        }
    }

    /// Whether offsets of `topic` must not be deleted now.
    pub(crate) fn is_subscribed(&self, topic: &str) -> bool {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        self.members.values().any(|member| match member.subscription(protocol) {
            Some(topics) => topics.iter().any(|subscribed| subscribed == topic),
            // Metadata of another shape: better refuse than delete what is in use.
            None => true,
        })
    }
}
