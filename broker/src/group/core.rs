//! All groups of one partition of `__consumer_offsets`.
//!
//! Advances by one input at a time. What Kafka's GroupCoordinator answers in each state is answered
//! here; differs: offsets never expire while a group has members, and a group's writes are answered
//! once they are as durable as the broker's acknowledgements are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use elkfk_wire::kafka::ErrorCode;

use super::offsets::Committed;
use super::record::{self, Entry, Record};
use super::state::{Group, Outbox, Pending, State};
use super::{
    Answer, Commit, Heartbeat, Input, Join, Joined, Leave, Now, Output, Sync, Synced, Waiter,
    WriteId,
};

/// Limits that `server.properties` sets.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    pub(crate) session_timeout_min: Duration,
    pub(crate) session_timeout_max: Duration,
    pub(crate) initial_rebalance_delay: Duration,
    pub(crate) members_max: usize,
    pub(crate) metadata_bytes_max: usize,
    pub(crate) offsets_retention: Duration,
}

#[derive(Debug)]
pub(crate) struct Groups {
    limits: Limits,
    groups: BTreeMap<String, Group>,
    /// The deadline under which each group is listed in `deadlines`.
    listed: BTreeMap<String, Instant>,
    deadlines: BTreeSet<(Instant, String)>,
    next_write: WriteId,
    pending: BTreeMap<WriteId, Pending>,
}

impl Groups {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            groups: BTreeMap::new(),
            listed: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            next_write: 0,
            pending: BTreeMap::new(),
        }
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// When the next [`Input::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Takes in one record of the log, in the log's order, before any step.
    pub(crate) fn load(&mut self, entry: Entry, now: Now) {
        match entry {
            Entry::Offset { group, topic, partition, committed: Some(committed) } => {
                // Below every write to come.
                self.entry(&group, now).offsets.insert(&topic, partition, committed, 0);
            }
            Entry::Offset { group, topic, partition, committed: None } => {
                if let Some(group) = self.groups.get_mut(&group) {
                    group.offsets.remove(&topic, partition);
                }
            }
            Entry::Group { group, value: Some(value) } => {
                self.entry(&group, now).restore(value, now)
            }
            Entry::Group { group, value: None } => {
                // Offsets written after the tombstone bring the group back, as in Kafka.
                self.groups.remove(&group);
            }
            Entry::Unknown { .. } => {}
        }
    }

    /// Ends loading: what was read is in force from now on.
    pub(crate) fn loaded(&mut self) {
        let ids: Vec<String> = self.groups.keys().cloned().collect();
        for id in ids {
            self.list(&id);
        }
    }

    fn entry(&mut self, id: &str, now: Now) -> &mut Group {
        self.groups.entry(id.to_owned()).or_insert_with(|| Group::new(id, now))
    }

    /// Advances by one input. Outputs are to be performed in order.
    pub(crate) fn step(&mut self, now: Now, input: Input, outputs: &mut Vec<Output>) {
        let touched = match &input {
            Input::Join(_, Join { group, .. })
            | Input::Sync(_, Sync { group, .. })
            | Input::Heartbeat(_, Heartbeat { group, .. })
            | Input::Leave(_, Leave { group, .. })
            | Input::Commit(_, Commit { group, .. })
            | Input::DeleteGroup(_, group)
            | Input::DeleteOffsets(_, group, _) => Some(group.clone()),
            Input::Written(id, _) => match self.pending.get(id) {
                Some(Pending::Assignment { group, .. } | Pending::Offsets { group, .. }) => {
                    Some(group.clone())
                }
                _ => None,
            },
            Input::TopicDeleted(_) | Input::Tick | Input::Expire => None,
        };
        match input {
            Input::Join(waiter, join) => self.join(now, waiter, &join, outputs),
            Input::Sync(waiter, sync) => self.sync(now, waiter, sync, outputs),
            Input::Heartbeat(waiter, heartbeat) => {
                let code = self.heartbeat(now, &heartbeat);
                outputs.push(Output::Answer(waiter, Answer::Code(code)));
            }
            Input::Leave(waiter, leave) => self.leave(now, waiter, &leave, outputs),
            Input::Commit(waiter, commit) => self.commit(now, waiter, commit, outputs),
            Input::DeleteGroup(waiter, group) => self.delete_group(now, waiter, &group, outputs),
            Input::DeleteOffsets(waiter, group, offsets) => {
                self.delete_offsets(waiter, &group, &offsets, outputs);
            }
            Input::TopicDeleted(topic) => self.topic_deleted(&topic, outputs),
            Input::Written(id, error) => self.written(now, id, error, outputs),
            Input::Tick => self.tick(now, outputs),
            Input::Expire => self.expire(now, outputs),
        }
        if let Some(id) = touched {
            self.list(&id);
        }
    }

    /// Keeps `deadlines` in step with the group.
    fn list(&mut self, id: &str) {
        let deadline = self.groups.get(id).and_then(Group::deadline);
        if self.listed.get(id).copied() == deadline {
            return;
        }
        if let Some(at) = self.listed.remove(id) {
            self.deadlines.remove(&(at, id.to_owned()));
        }
        if let Some(at) = deadline {
            self.listed.insert(id.to_owned(), at);
            self.deadlines.insert((at, id.to_owned()));
        }
    }

    fn outbox<'a>(
        pending: &'a mut BTreeMap<WriteId, Pending>,
        next_write: &'a mut WriteId,
        outputs: &'a mut Vec<Output>,
    ) -> Outbox<'a> {
        Outbox { outputs, next_write, pending }
    }

    fn join(&mut self, now: Now, waiter: Waiter, join: &Join, outputs: &mut Vec<Output>) {
        let Self { limits, groups, pending, next_write, .. } = self;
        let mut outbox = Self::outbox(pending, next_write, outputs);
        let refuse = |outbox: &mut Outbox<'_>, error| {
            outbox.answer(waiter, Joined::refused(&join.member_id, error));
        };
        let mut strings = [&join.group, &join.client_id, &join.client_host, &join.protocol_type]
            .into_iter()
            .chain(&join.instance_id)
            .chain(join.protocols.iter().map(|(name, _)| name));
        if strings.any(|string| string.len() > record::STRING_BYTES_MAX) {
            return refuse(&mut outbox, ErrorCode::INVALID_REQUEST);
        }
        if join.session_timeout < limits.session_timeout_min
            || join.session_timeout > limits.session_timeout_max
        {
            return refuse(&mut outbox, ErrorCode::INVALID_SESSION_TIMEOUT);
        }
        let group = match groups.get_mut(&join.group) {
            Some(group) => group,
            None if join.member_id.is_empty() => {
                if join.protocols.is_empty() || join.protocol_type.is_empty() {
                    return refuse(&mut outbox, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
                }
                groups.entry(join.group.clone()).or_insert_with(|| Group::new(&join.group, now))
            }
            None => return refuse(&mut outbox, ErrorCode::UNKNOWN_MEMBER_ID),
        };
        if group.state == State::Dead {
            return refuse(&mut outbox, ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        if !group.supports(&join.protocol_type, &join.protocols) {
            return refuse(&mut outbox, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        let is_inside = group.members.contains_key(&join.member_id)
            || join
                .instance_id
                .as_ref()
                .is_some_and(|instance| group.instances.contains_key(instance));
        if !is_inside && group.members.len() >= limits.members_max {
            return refuse(&mut outbox, ErrorCode::GROUP_MAX_SIZE_REACHED);
        }
        if join.member_id.is_empty() {
            join_as_new(group, limits, now, waiter, join, &mut outbox);
        } else {
            join_as_known(group, limits, now, waiter, join, &mut outbox);
        }
        group.try_complete_join(now, &mut outbox);
    }

    fn sync(&mut self, now: Now, waiter: Waiter, sync: Sync, outputs: &mut Vec<Output>) {
        let Self { groups, pending, next_write, .. } = self;
        let mut outbox = Self::outbox(pending, next_write, outputs);
        let mut refuse = |error| outbox.answer(waiter, Synced::refused(error));
        let Some(group) = groups.get_mut(&sync.group) else {
            return refuse(ErrorCode::UNKNOWN_MEMBER_ID);
        };
        if group.state == State::Dead {
            return refuse(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        if let Err(error) = check_member(group, &sync.member_id, sync.instance_id.as_deref()) {
            return refuse(error);
        }
        if sync.generation != group.generation {
            return refuse(ErrorCode::ILLEGAL_GENERATION);
        }
        let differs =
            |given: &Option<String>, ours: &Option<String>| given.is_some() && given != ours;
        if differs(&sync.protocol_type, &group.protocol_type)
            || differs(&sync.protocol, &group.protocol)
        {
            return refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        }
        match group.state {
            State::Empty => refuse(ErrorCode::UNKNOWN_MEMBER_ID),
            State::PreparingRebalance => refuse(ErrorCode::REBALANCE_IN_PROGRESS),
            State::Stable => {
                group.on_sync(&sync.member_id);
                if let Some(member) = group.members.get_mut(&sync.member_id) {
                    member.keep_alive(now.at);
                }
                let answer = group.synced(&sync.member_id);
                outbox.answer(waiter, answer);
            }
            State::CompletingRebalance => {
                group.on_sync(&sync.member_id);
                let member =
                    group.members.get_mut(&sync.member_id).expect("the member was checked");
                if let Some(earlier) = member.syncing.replace(waiter) {
                    outbox.answer(earlier, Synced::refused(ErrorCode::REBALANCE_IN_PROGRESS));
                }
                if group.is_leader(&sync.member_id) {
                    for member in group.members.values_mut() {
                        member.assignment.clear();
                    }
                    for (id, assignment) in sync.assignments {
                        if let Some(member) = group.members.get_mut(&id) {
                            member.assignment = assignment;
                        }
                    }
                    let pending = Pending::Assignment {
                        group: group.id.clone(),
                        generation: group.generation,
                    };
                    outbox.write(vec![record::group_record(group)], pending);
                }
            }
            State::Dead => unreachable!("answered above"),
        }
    }

    fn heartbeat(&mut self, now: Now, heartbeat: &Heartbeat) -> ErrorCode {
        let Some(group) = self.groups.get_mut(&heartbeat.group) else {
            return ErrorCode::UNKNOWN_MEMBER_ID;
        };
        if group.state == State::Dead {
            return ErrorCode::COORDINATOR_NOT_AVAILABLE;
        }
        if let Err(error) =
            check_member(group, &heartbeat.member_id, heartbeat.instance_id.as_deref())
        {
            return error;
        }
        if heartbeat.generation != group.generation {
            return ErrorCode::ILLEGAL_GENERATION;
        }
        let state = group.state;
        let member = group.members.get_mut(&heartbeat.member_id).expect("the member was checked");
        member.keep_alive(now.at);
        match state {
            State::PreparingRebalance => ErrorCode::REBALANCE_IN_PROGRESS,
            State::Empty => ErrorCode::UNKNOWN_MEMBER_ID,
            _ => ErrorCode::NONE,
        }
    }

    fn leave(&mut self, now: Now, waiter: Waiter, leave: &Leave, outputs: &mut Vec<Output>) {
        let delay = self.limits.initial_rebalance_delay;
        let Self { groups, pending, next_write, .. } = self;
        let mut outbox = Self::outbox(pending, next_write, outputs);
        let Some(group) = groups.get_mut(&leave.group) else {
            let codes = vec![ErrorCode::UNKNOWN_MEMBER_ID; leave.members.len()];
            return outbox.answer(waiter, Answer::Left(codes));
        };
        if group.state == State::Dead {
            return outbox.answer(waiter, Answer::Code(ErrorCode::COORDINATOR_NOT_AVAILABLE));
        }
        let mut codes = Vec::with_capacity(leave.members.len());
        for (id, instance) in &leave.members {
            let id = match instance {
                // An administrator removes a static member by its instance id alone.
                Some(instance) if id.is_empty() => group.instances.get(instance).cloned(),
                _ => Some(id.clone()),
            };
            let Some(id) = id else {
                codes.push(ErrorCode::UNKNOWN_MEMBER_ID);
                continue;
            };
            if group.promised.remove(&id).is_some() {
                codes.push(ErrorCode::NONE);
                continue;
            }
            match check_member(group, &id, instance.as_deref()) {
                Ok(()) => {
                    group.remove(&id, ErrorCode::UNKNOWN_MEMBER_ID, &mut outbox);
                    codes.push(ErrorCode::NONE);
                }
                Err(error) => codes.push(error),
            }
        }
        group.after_removal("a member left", delay, now, &mut outbox);
        outbox.answer(waiter, Answer::Left(codes));
    }

    fn commit(&mut self, now: Now, waiter: Waiter, commit: Commit, outputs: &mut Vec<Output>) {
        let metadata_bytes_max = self.limits.metadata_bytes_max.min(record::STRING_BYTES_MAX);
        let Self { groups, pending, next_write, .. } = self;
        let mut outbox = Self::outbox(pending, next_write, outputs);
        if commit.group.len() > record::STRING_BYTES_MAX {
            return outbox.answer(waiter, Answer::Code(ErrorCode::INVALID_GROUP_ID));
        }
        let group = match groups.get_mut(&commit.group) {
            Some(group) => group,
            None if commit.generation < 0 => {
                groups.entry(commit.group.clone()).or_insert_with(|| Group::new(&commit.group, now))
            }
            None => return outbox.answer(waiter, Answer::Code(ErrorCode::ILLEGAL_GENERATION)),
        };
        if let Err(error) = check_commit(group, &commit, now) {
            return outbox.answer(waiter, Answer::Code(error));
        }
        let mut codes = vec![ErrorCode::NONE; commit.offsets.len()];
        let (mut records, mut offsets) = (Vec::new(), Vec::new());
        for (place, (topic, partition, committed)) in commit.offsets.into_iter().enumerate() {
            if committed.metadata.len() > metadata_bytes_max {
                codes[place] = ErrorCode::OFFSET_METADATA_TOO_LARGE;
                continue;
            }
            records.push(record::offset_record(&group.id, &topic, partition, Some(&committed)));
            offsets.push((place, topic, partition, committed));
        }
        if records.is_empty() {
            return outbox.answer(waiter, Answer::Offsets(codes));
        }
        let pending = Pending::Offsets { group: group.id.clone(), waiter, codes, offsets };
        outbox.write(records, pending);
    }

    fn delete_group(&mut self, now: Now, waiter: Waiter, id: &str, outputs: &mut Vec<Output>) {
        let code = match self.groups.get(id).map(|group| group.state) {
            None | Some(State::Dead) => ErrorCode::GROUP_ID_NOT_FOUND,
            Some(State::Empty) => ErrorCode::NONE,
            Some(_) => ErrorCode::NON_EMPTY_GROUP,
        };
        if !code.is_none() {
            return outputs.push(Output::Answer(waiter, Answer::Code(code)));
        }
        let mut group = self.groups.remove(id).expect("the group was just found");
        group.kill(now);
        let mut gone = forget_pending(&mut self.pending, id, |_, _| true);
        gone.extend(group.offsets.iter().map(|(topic, number, _)| (topic.to_owned(), number)));
        let mut records: Vec<Record> =
            gone.iter().map(|(topic, p)| record::offset_record(id, topic, *p, None)).collect();
        records.push(record::group_tombstone(id));
        let Self { pending, next_write, .. } = self;
        let answer = Answer::Code(ErrorCode::NONE);
        Self::outbox(pending, next_write, outputs)
            .write(records, Pending::Answer { waiter, answer });
    }

    fn delete_offsets(
        &mut self,
        waiter: Waiter,
        id: &str,
        wanted: &[(String, i32)],
        outputs: &mut Vec<Output>,
    ) {
        let Self { groups, pending, next_write, .. } = self;
        let mut refuse = |error| outputs.push(Output::Answer(waiter, Answer::Code(error)));
        let group = match groups.get_mut(id) {
            Some(group) if group.state != State::Dead => group,
            _ => return refuse(ErrorCode::GROUP_ID_NOT_FOUND),
        };
        let is_consumer = group.protocol_type.as_deref() == Some("consumer");
        if group.state != State::Empty && !is_consumer {
            return refuse(ErrorCode::NON_EMPTY_GROUP);
        }
        let (mut codes, mut records) = (Vec::with_capacity(wanted.len()), Vec::new());
        for (topic, partition) in wanted {
            if group.state != State::Empty && group.is_subscribed(topic) {
                codes.push(ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC);
                continue;
            }
            let is_wanted = |other: &str, number| other == topic && number == *partition;
            let was_pending = !forget_pending(pending, id, is_wanted).is_empty();
            if group.offsets.remove(topic, *partition).is_some() || was_pending {
                records.push(record::offset_record(id, topic, *partition, None));
            }
            codes.push(ErrorCode::NONE);
        }
        let mut outbox = Self::outbox(pending, next_write, outputs);
        let answer = Answer::Offsets(codes);
        if records.is_empty() {
            return outbox.answer(waiter, answer);
        }
        outbox.write(records, Pending::Answer { waiter, answer });
    }

    fn topic_deleted(&mut self, topic: &str, outputs: &mut Vec<Output>) {
        let mut records = Vec::new();
        for group in self.groups.values_mut() {
            let mut partitions: BTreeSet<i32> = group
                .offsets
                .topics()
                .filter(|(name, _)| *name == topic)
                .flat_map(|(_, partitions)| partitions.map(|(number, _)| number))
                .collect();
            let pending = forget_pending(&mut self.pending, &group.id, |name, _| name == topic);
            partitions.extend(pending.into_iter().map(|(_, partition)| partition));
            for partition in partitions {
                group.offsets.remove(topic, partition);
                records.push(record::offset_record(&group.id, topic, partition, None));
            }
        }
        if !records.is_empty() {
            let Self { pending, next_write, .. } = self;
            Self::outbox(pending, next_write, outputs).write(records, Pending::Nothing);
        }
    }

    fn written(&mut self, now: Now, id: WriteId, error: ErrorCode, outputs: &mut Vec<Output>) {
        let delay = self.limits.initial_rebalance_delay;
        let Self { groups, pending, next_write, .. } = self;
        let Some(done) = pending.remove(&id) else { return };
        let mut outbox = Self::outbox(pending, next_write, outputs);
        match done {
            Pending::Nothing => {}
            Pending::Answer { waiter, answer } => {
                let answer = match answer {
                    answer if error.is_none() => answer,
                    Answer::Offsets(codes) => Answer::Offsets(vec![error; codes.len()]),
                    Answer::Joined(joined) => Joined::refused(&joined.member_id, error),
                    _ => Answer::Code(error),
                };
                outbox.answer(waiter, answer);
            }
            Pending::Assignment { group, generation } => {
                if let Some(group) = groups.get_mut(&group) {
                    group.on_assignment_written(generation, error, delay, now, &mut outbox);
                }
            }
            Pending::Offsets { group, waiter, mut codes, offsets } => {
                let group = groups.get_mut(&group);
                if error.is_none() {
                    // Those deleted meanwhile are no longer in the list: their tombstones came after
                    // this write.
                    if let Some(group) = group {
                        for (_, topic, partition, committed) in offsets {
                            group.offsets.insert(&topic, partition, committed, id);
                        }
                    }
                } else {
                    for (place, ..) in offsets {
                        codes[place] = error;
                    }
                }
                outbox.answer(waiter, Answer::Offsets(codes));
            }
        }
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) {
        while let Some((at, id)) = self.deadlines.first().cloned() {
            if at > now.at {
                break;
            }
            let delay = self.limits.initial_rebalance_delay;
            let Self { groups, pending, next_write, .. } = self;
            if let Some(group) = groups.get_mut(&id) {
                group.tick(delay, now, &mut Self::outbox(pending, next_write, outputs));
            }
            self.list(&id);
            if self.listed.get(&id) == Some(&at) {
                // Nothing moved: a deadline that stays in the past must not spin.
                break;
            }
        }
    }

    /// Forgets offsets past their retention, and groups without any.
    fn expire(&mut self, now: Now, outputs: &mut Vec<Output>) {
        let retention_ms =
            i64::try_from(self.limits.offsets_retention.as_millis()).unwrap_or(i64::MAX);
        let (mut records, mut gone) = (Vec::new(), Vec::new());
        for group in self.groups.values_mut() {
            if group.state != State::Empty || !group.promised.is_empty() {
                continue;
            }
            // A group that had members counts from when the last one left (KIP-211).
            let since = group.protocol_type.as_ref().map_or(-1, |_| group.state_since_ms);
            let is_expired = |committed: &Committed| match committed.expire_ms {
                Some(at) => at <= now.wall_ms,
                None => committed.commit_ms.max(since).saturating_add(retention_ms) <= now.wall_ms,
            };
            let expired: Vec<(String, i32)> = group
                .offsets
                .iter()
                .filter(|(_, _, committed)| is_expired(committed))
                // One that is being committed anew is not as old as it looks.
                .filter(|(topic, partition, _)| {
                    !is_pending(&self.pending, &group.id, topic, *partition)
                })
                .map(|(topic, partition, _)| (topic.to_owned(), partition))
                .collect();
            for (topic, partition) in &expired {
                group.offsets.remove(topic, *partition);
                records.push(record::offset_record(&group.id, topic, *partition, None));
            }
            let is_written = |pending: &Pending| matches!(pending, Pending::Offsets { group: id, .. } if *id == group.id);
            if group.offsets.is_empty() && !self.pending.values().any(is_written) {
                records.push(record::group_tombstone(&group.id));
                gone.push(group.id.clone());
            }
        }
        for id in gone {
            self.groups.remove(&id);
            self.list(&id);
        }
        if !records.is_empty() {
            let Self { pending, next_write, .. } = self;
            Self::outbox(pending, next_write, outputs).write(records, Pending::Nothing);
        }
    }
}

/// Takes offsets out of the commits of `group` that are not durable yet, and lists them: what is
/// deleted now comes after them in the log, and must not come back when they are heard of.
fn forget_pending(
    pending: &mut BTreeMap<WriteId, Pending>,
    group: &str,
    is_forgotten: impl Fn(&str, i32) -> bool,
) -> BTreeSet<(String, i32)> {
    let mut forgotten = BTreeSet::new();
    for write in pending.values_mut() {
        let Pending::Offsets { group: id, offsets, .. } = write else { continue };
        if id == group {
            offsets.retain(|(_, topic, partition, _)| {
                let is_kept = !is_forgotten(topic, *partition);
                if !is_kept {
                    forgotten.insert((topic.clone(), *partition));
                }
                is_kept
            });
        }
    }
    forgotten
}

fn is_pending(
    pending: &BTreeMap<WriteId, Pending>,
    group: &str,
    topic: &str,
    partition: i32,
) -> bool {
    pending.values().any(|write| match write {
        Pending::Offsets { group: id, offsets, .. } if id == group => {
            offsets.iter().any(|(_, name, number, _)| name == topic && *number == partition)
        }
        _ => false,
    })
}

fn join_as_new(
    group: &mut Group,
    limits: &Limits,
    now: Now,
    waiter: Waiter,
    join: &Join,
    outbox: &mut Outbox<'_>,
) {
    let id = format!("{}-{}", join.instance_id.as_deref().unwrap_or(&join.client_id), join.fresh);
    match &join.instance_id {
        Some(instance) if group.instances.contains_key(instance) => {
            rejoin_static(group, limits, now, waiter, instance, &id, join, outbox);
        }
        None if join.is_id_required => {
            group.promised.insert(id.clone(), now.at + join.session_timeout);
            outbox.answer(waiter, Joined::refused(&id, ErrorCode::MEMBER_ID_REQUIRED));
        }
        _ => {
            group.add(&id, waiter, join, now);
            group.rebalance("a member joined", limits.initial_rebalance_delay, now, outbox);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "one step with all it needs")]
fn rejoin_static(
    group: &mut Group,
    limits: &Limits,
    now: Now,
    waiter: Waiter,
    instance: &str,
    id: &str,
    join: &Join,
    outbox: &mut Outbox<'_>,
) {
    let was_leader = group.instances.get(instance).is_some_and(|old| group.is_leader(old));
    let old_leader = group.leader.clone().unwrap_or_default();
    if group.replace_static(instance, id, outbox).is_none() {
        group.add(id, waiter, join, now);
        return group.rebalance(
            "a static member joined",
            limits.initial_rebalance_delay,
            now,
            outbox,
        );
    }
    let member = group.members.get_mut(id).expect("the member was just put there");
    member.update(join);
    member.keep_alive(now.at);
    match group.state {
        State::Stable if group.select_protocol() == group.protocol => {
            // The group goes on undisturbed: that is what static membership is for.
            let mut joined = group.joined(id);
            if was_leader && join.can_skip_assignment {
                joined.is_assignment_skipped = true;
            } else if was_leader {
                // An older client would assign anew if it saw itself as the leader.
                (joined.leader, joined.members) = (old_leader, Vec::new());
            }
            let answer = Answer::Joined(Box::new(joined));
            outbox.write(vec![record::group_record(group)], Pending::Answer { waiter, answer });
        }
        _ => {
            member_waits(group, id, waiter, outbox);
            group.rebalance(
                "a static member returned",
                limits.initial_rebalance_delay,
                now,
                outbox,
            );
        }
    }
}

fn join_as_known(
    group: &mut Group,
    limits: &Limits,
    now: Now,
    waiter: Waiter,
    join: &Join,
    outbox: &mut Outbox<'_>,
) {
    let delay = limits.initial_rebalance_delay;
    let id = join.member_id.as_str();
    if join.instance_id.is_none() && group.promised.contains_key(id) {
        group.add(id, waiter, join, now);
        return group.rebalance("a member joined", delay, now, outbox);
    }
    if let Err(error) = check_member(group, id, join.instance_id.as_deref()) {
        return outbox.answer(waiter, Joined::refused(id, error));
    }
    let is_leader = group.is_leader(id);
    let member = group.members.get_mut(id).expect("the member was checked");
    let is_unchanged = member.protocols == join.protocols;
    let is_answered_at_once = match group.state {
        // It did not hear of the generation that has begun.
        State::CompletingRebalance => is_unchanged,
        // A leader that joins again asks for a new assignment, for reasons of its own.
        State::Stable => is_unchanged && !is_leader,
        _ => false,
    };
    member.keep_alive(now.at);
    member.update(join);
    match group.state {
        State::Empty | State::Dead => {
            outbox.answer(waiter, Joined::refused(id, ErrorCode::UNKNOWN_MEMBER_ID))
        }
        _ if is_answered_at_once => {
            let joined = group.joined(id);
            outbox.answer(waiter, Answer::Joined(Box::new(joined)));
        }
        _ => {
            member_waits(group, id, waiter, outbox);
            group.rebalance("a member joined again", delay, now, outbox);
        }
    }
}

/// The member waits for the join phase to end; a request it sent before is answered now.
fn member_waits(group: &mut Group, id: &str, waiter: Waiter, outbox: &mut Outbox<'_>) {
    let Some(member) = group.members.get_mut(id) else { return };
    if let Some(earlier) = member.joining.replace(waiter) {
        outbox.answer(earlier, Joined::refused(id, ErrorCode::REBALANCE_IN_PROGRESS));
    }
}

fn check_member(group: &Group, id: &str, instance: Option<&str>) -> Result<(), ErrorCode> {
    if let Some(instance) = instance {
        match group.instances.get(instance) {
            None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
            Some(current) if current != id => return Err(ErrorCode::FENCED_INSTANCE_ID),
            Some(_) => {}
        }
    }
    match group.members.contains_key(id) {
        true => Ok(()),
        false => Err(ErrorCode::UNKNOWN_MEMBER_ID),
    }
}

fn check_commit(group: &mut Group, commit: &Commit, now: Now) -> Result<(), ErrorCode> {
    if group.state == State::Dead {
        return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
    }
    let is_anonymous =
        commit.generation < 0 && commit.member_id.is_empty() && commit.instance_id.is_none();
    if is_anonymous || commit.generation < 0 && group.state == State::Empty {
        // A tool or a simple consumer: only while nobody else decides about these offsets.
        return match group.state {
            State::Empty => Ok(()),
            _ => Err(ErrorCode::UNKNOWN_MEMBER_ID),
        };
    }
    check_member(group, &commit.member_id, commit.instance_id.as_deref())?;
    if commit.generation != group.generation {
        return Err(ErrorCode::ILLEGAL_GENERATION);
    }
    match group.state {
        State::Stable | State::PreparingRebalance => {
            group
                .members
                .get_mut(&commit.member_id)
                .expect("the member was checked")
                .keep_alive(now.at);
            Ok(())
        }
        State::CompletingRebalance => Err(ErrorCode::REBALANCE_IN_PROGRESS),
        State::Empty | State::Dead => Err(ErrorCode::UNKNOWN_MEMBER_ID),
    }
}
