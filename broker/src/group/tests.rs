//! What each state answers, one claim a test.

use std::time::{Duration, Instant};

use elkfk_wire::kafka::ErrorCode;

use super::core::{Groups, Limits};
use super::offsets::Committed;
use super::state::State;
use super::*;

/// A core, a clock, and a log that answers at once.
struct Bench {
    groups: Groups,
    now: Now,
    next_waiter: Waiter,
    answers: Vec<(Waiter, Answer)>,
    log: Vec<record::Record>,
}

pub(super) fn limits(initial_delay: Duration) -> Limits {
    Limits {
        session_timeout_min: Duration::from_secs(1),
        session_timeout_max: Duration::from_secs(1800),
        initial_rebalance_delay: initial_delay,
        members_max: 5,
        metadata_bytes_max: 10,
        offsets_retention: Duration::from_secs(3600),
    }
}

impl Bench {
    fn new(initial_delay: Duration) -> Self {
        Self {
            groups: Groups::new(limits(initial_delay)),
            now: Now { at: Instant::now(), wall_ms: 1_000_000 },
            next_waiter: 0,
            answers: Vec::new(),
            log: Vec::new(),
        }
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.groups.step(self.now, input, &mut outputs);
        for output in outputs {
            match output {
                Output::Answer(waiter, answer) => self.answers.push((waiter, answer)),
                Output::Write(id, records) => {
                    self.log.extend(records);
                    self.step(Input::Written(id, ErrorCode::NONE));
                }
            }
        }
    }

    fn after(&mut self, time: Duration) {
        self.now.at += time;
        self.now.wall_ms += time.as_millis() as i64;
        self.step(Input::Tick);
    }

    fn waiter(&mut self) -> Waiter {
        self.next_waiter += 1;
        self.next_waiter
    }

    fn answer(&mut self, waiter: Waiter) -> Option<Answer> {
        let at = self.answers.iter().position(|(who, _)| *who == waiter)?;
        Some(self.answers.remove(at).1)
    }

    fn join(&mut self, member: &str, change: impl FnOnce(&mut Join)) -> Waiter {
        let waiter = self.waiter();
        let mut join = Join {
            group: "g".into(),
            member_id: member.into(),
            fresh: format!("{waiter}"),
            client_id: "c".into(),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(&["t"]))],
            ..Join::default()
        };
        change(&mut join);
        self.step(Input::Join(waiter, join));
        waiter
    }

    fn joined(&mut self, waiter: Waiter) -> Joined {
        match self.answer(waiter) {
            Some(Answer::Joined(joined)) => *joined,
            other => panic!("no join answer: {other:?}"),
        }
    }

    fn sync(&mut self, member: &str, generation: i32, assign: &[(&str, &str)]) -> Waiter {
        let waiter = self.waiter();
        let assignments = assign.iter().map(|(id, what)| ((*id).into(), what.as_bytes().to_vec()));
        self.step(Input::Sync(
            waiter,
            Sync {
                group: "g".into(),
                generation,
                member_id: member.into(),
                assignments: assignments.collect(),
                ..Sync::default()
            },
        ));
        waiter
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> ErrorCode {
        let waiter = self.waiter();
        let (group, member_id) = ("g".into(), member.into());
        self.step(Input::Heartbeat(
            waiter,
            Heartbeat { group, generation, member_id, instance_id: None },
        ));
        match self.answer(waiter) {
            Some(Answer::Code(code)) => code,
            other => panic!("no heartbeat answer: {other:?}"),
        }
    }

    fn commit(&mut self, member: &str, generation: i32, offset: i64, metadata: &str) -> Answer {
        let waiter = self.waiter();
        let committed = Committed {
            offset,
            leader_epoch: 0,
            metadata: metadata.into(),
            commit_ms: self.now.wall_ms,
            expire_ms: None,
        };
        self.step(Input::Commit(
            waiter,
            Commit {
                group: "g".into(),
                generation,
                member_id: member.into(),
                instance_id: None,
                offsets: vec![("t".into(), 0, committed)],
            },
        ));
        self.answer(waiter).expect("commits are answered at once here")
    }

    /// A group of one member, stable.
    fn stable(change: impl FnOnce(&mut Join)) -> (Self, String) {
        let mut bench = Self::new(Duration::ZERO);
        let waiter = bench.join("", change);
        bench.after(Duration::ZERO);
        let joined = bench.joined(waiter);
        let waiter = bench.sync(&joined.member_id, 1, &[(&joined.member_id, "all")]);
        assert!(
            matches!(bench.answer(waiter), Some(Answer::Synced(synced)) if synced.assignment == b"all")
        );
        (bench, joined.member_id)
    }

    fn state(&self) -> State {
        self.groups.get("g").map_or(State::Dead, |group| group.state)
    }
}

pub(super) fn subscription(topics: &[&str]) -> Vec<u8> {
    let mut out = vec![0, 1];
    out.extend_from_slice(&(topics.len() as u32).to_be_bytes());
    for topic in topics {
        out.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        out.extend_from_slice(topic.as_bytes());
    }
    out
}

#[test]
fn new_member_is_first_told_its_id() {
    let mut bench = Bench::new(Duration::ZERO);
    let waiter = bench.join("", |join| join.is_id_required = true);
    let refused = bench.joined(waiter);
    assert_eq!((refused.error, &refused.member_id[..]), (ErrorCode::MEMBER_ID_REQUIRED, "c-1"));
    let waiter = bench.join("c-1", |join| join.is_id_required = true);
    bench.after(Duration::ZERO);
    let joined = bench.joined(waiter);
    assert_eq!((joined.error, joined.generation, &joined.leader[..]), (ErrorCode::NONE, 1, "c-1"));
    let waiter = bench.join("nobody", |_| ());
    assert_eq!(bench.joined(waiter).error, ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn first_rebalance_waits_for_companions() {
    let mut bench = Bench::new(Duration::from_secs(3));
    let first = bench.join("", |_| ());
    bench.after(Duration::from_secs(2));
    let second = bench.join("", |_| ());
    bench.after(Duration::from_secs(1));
    assert_eq!(bench.answer(first), None, "a newcomer prolongs the wait");
    bench.after(Duration::from_secs(3));
    let (first, second) = (bench.joined(first), bench.joined(second));
    assert_eq!((first.generation, second.generation), (1, 1));
    assert_eq!(first.leader, first.member_id);
    assert_eq!((first.members.len(), second.members.len()), (2, 0));
}

#[test]
fn assignment_is_handed_out_once_it_is_stored() {
    let (mut bench, member) = Bench::stable(|_| ());
    assert_eq!(bench.state(), State::Stable);
    assert_eq!(bench.heartbeat(&member, 1), ErrorCode::NONE);
    assert_eq!(bench.heartbeat(&member, 2), ErrorCode::ILLEGAL_GENERATION);
    assert_eq!(bench.heartbeat("other", 1), ErrorCode::UNKNOWN_MEMBER_ID);
    let stored = bench.log.last().unwrap();
    let record::Entry::Group { value: Some(value), .. } =
        record::decode(&stored.key, stored.value.as_deref()).unwrap()
    else {
        panic!("a group record is expected");
    };
    assert_eq!((value.generation, value.members[0].assignment.as_slice()), (1, &b"all"[..]));
    // Asking again gives the same.
    let waiter = bench.sync(&member, 1, &[]);
    assert!(
        matches!(bench.answer(waiter), Some(Answer::Synced(synced)) if synced.assignment == b"all")
    );
}

#[test]
fn second_member_makes_the_first_join_again() {
    let (mut bench, first) = Bench::stable(|_| ());
    let waiter = bench.join("", |_| ());
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::REBALANCE_IN_PROGRESS);
    assert!(
        matches!(bench.commit(&first, 1, 5, ""), Answer::Offsets(codes) if codes == [ErrorCode::NONE])
    );
    let again = bench.join(&first, |_| ());
    let (second, again) = (bench.joined(waiter), bench.joined(again));
    assert_eq!((second.generation, again.generation), (2, 2));
    assert_eq!(bench.commit(&first, 1, 5, ""), Answer::Code(ErrorCode::ILLEGAL_GENERATION));
    assert_eq!(bench.commit(&first, 2, 5, ""), Answer::Code(ErrorCode::REBALANCE_IN_PROGRESS));
    let follower = bench.sync(&second.member_id, 2, &[]);
    assert_eq!(bench.answer(follower), None);
    bench.sync(&first, 2, &[(&first, "a"), (&second.member_id, "b")]);
    assert!(
        matches!(bench.answer(follower), Some(Answer::Synced(synced)) if synced.assignment == b"b")
    );
}

#[test]
fn silent_member_is_thrown_out_after_its_session() {
    let (mut bench, first) = Bench::stable(|_| ());
    bench.after(Duration::from_secs(9));
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::NONE);
    bench.after(Duration::from_secs(9));
    assert_eq!(bench.state(), State::Stable);
    bench.after(Duration::from_secs(1));
    assert_eq!(
        (bench.state(), bench.heartbeat(&first, 1)),
        (State::Empty, ErrorCode::UNKNOWN_MEMBER_ID)
    );
    assert_eq!(bench.groups.deadline(), None, "an empty group wakes nobody");
}

/// As in Kafka: the others wait for who says nothing, and no longer than that.
#[test]
fn round_waits_for_a_silent_member_until_it_leaves_or_its_session_ends() {
    for leaves in [true, false] {
        let (mut bench, first) = Bench::stable(|_| ());
        let promised = bench.join("", |join| join.is_id_required = true);
        let promised = bench.joined(promised).member_id;
        let waiter = bench.join("", |_| ());
        for silent in [first, promised] {
            bench.after(Duration::from_secs(4));
            assert_eq!((bench.state(), bench.answer(waiter)), (State::PreparingRebalance, None));
            if leaves {
                let (told, members) = (bench.waiter(), vec![(silent, None)]);
                bench.step(Input::Leave(told, Leave { group: "g".into(), members }));
                assert_eq!(bench.answer(told), Some(Answer::Left(vec![ErrorCode::NONE])));
            }
        }
        if !leaves {
            bench.after(Duration::from_secs(1));
            assert_eq!(bench.answer(waiter), None);
            bench.after(Duration::from_secs(1));
        }
        let second = bench.joined(waiter);
        assert_eq!((second.generation, second.members.len()), (2, 1));
    }
}

#[test]
fn slow_member_is_left_behind_after_the_rebalance_timeout() {
    let (mut bench, first) = Bench::stable(|join| join.session_timeout = Duration::from_secs(120));
    let waiter = bench.join("", |_| ());
    bench.after(Duration::from_secs(59));
    assert_eq!(bench.answer(waiter), None);
    bench.after(Duration::from_secs(1));
    let second = bench.joined(waiter);
    assert_eq!((second.generation, second.members.len()), (2, 1));
    assert_eq!(bench.heartbeat(&first, 1), ErrorCode::UNKNOWN_MEMBER_ID);
}

#[test]
fn member_that_does_not_sync_is_thrown_out() {
    let mut bench = Bench::new(Duration::ZERO);
    let waiter = bench.join("", |join| join.session_timeout = Duration::from_secs(100));
    bench.after(Duration::ZERO);
    assert_eq!(bench.joined(waiter).generation, 1);
    bench.after(Duration::from_secs(60));
    assert_eq!(bench.state(), State::Empty);
}

#[test]
fn static_member_returns_without_a_rebalance_and_fences_its_old_self() {
    let as_static = |join: &mut Join| join.instance_id = Some("i".into());
    let (mut bench, old) = Bench::stable(as_static);
    let waiter = bench.join("", as_static);
    let back = bench.joined(waiter);
    assert_eq!((back.error, back.generation), (ErrorCode::NONE, 1));
    assert_ne!(back.member_id, old);
    assert_eq!(back.leader, old, "an old client must not think that it leads");
    assert_eq!(bench.state(), State::Stable);
    let waiter = bench.waiter();
    bench.step(Input::Heartbeat(
        waiter,
        Heartbeat {
            group: "g".into(),
            generation: 1,
            member_id: old,
            instance_id: Some("i".into()),
        },
    ));
    assert_eq!(bench.answer(waiter), Some(Answer::Code(ErrorCode::FENCED_INSTANCE_ID)));
    let waiter = bench.sync(&back.member_id, 1, &[]);
    assert!(
        matches!(bench.answer(waiter), Some(Answer::Synced(synced)) if synced.assignment == b"all")
    );
    let waiter = bench.join("", |join| {
        as_static(join);
        join.can_skip_assignment = true;
    });
    let back = bench.joined(waiter);
    assert!(back.is_assignment_skipped && back.leader == back.member_id && back.members.len() == 1);
}

#[test]
fn leaving_members_are_answered_one_by_one() {
    let (mut bench, member) = Bench::stable(|join| join.instance_id = Some("i".into()));
    let waiter = bench.waiter();
    let members = vec![("x".into(), None), (String::new(), Some("i".into())), (member, None)];
    bench.step(Input::Leave(waiter, Leave { group: "g".into(), members }));
    let (unknown, none) = (ErrorCode::UNKNOWN_MEMBER_ID, ErrorCode::NONE);
    assert_eq!(bench.answer(waiter), Some(Answer::Left(vec![unknown, none, unknown])));
    assert_eq!(bench.state(), State::Empty);
}

#[test]
fn protocols_must_be_common_and_the_most_wanted_is_chosen() {
    let names = |names: &[&str]| {
        names.iter().map(|name| ((*name).to_owned(), subscription(&["t"]))).collect::<Vec<_>>()
    };
    let mut bench = Bench::new(Duration::from_secs(1));
    let first = bench.join("", |join| join.protocols = names(&["range", "sticky"]));
    bench.join("", |join| join.protocols = names(&["sticky", "range"]));
    bench.join("", |join| join.protocols = names(&["sticky", "range", "other"]));
    let odd = bench.join("", |join| join.protocols = names(&["other"]));
    assert_eq!(bench.joined(odd).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    let odd = bench.join("", |join| join.protocol_type = "connect".into());
    assert_eq!(bench.joined(odd).error, ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
    bench.after(Duration::from_secs(1));
    bench.after(Duration::from_secs(1));
    assert_eq!(bench.joined(first).protocol.as_deref(), Some("sticky"));
}

#[test]
fn limits_are_kept() {
    let mut bench = Bench::new(Duration::from_secs(1));
    let short = bench.join("", |join| join.session_timeout = Duration::from_millis(1));
    assert_eq!(bench.joined(short).error, ErrorCode::INVALID_SESSION_TIMEOUT);
    for _ in 0..5 {
        bench.join("", |_| ());
    }
    let sixth = bench.join("", |_| ());
    assert_eq!(bench.joined(sixth).error, ErrorCode::GROUP_MAX_SIZE_REACHED);
    let (mut bench, member) = Bench::stable(|_| ());
    let answer = bench.commit(&member, 1, 5, "12345678901");
    assert_eq!(answer, Answer::Offsets(vec![ErrorCode::OFFSET_METADATA_TOO_LARGE]));
}

#[test]
fn strings_longer_than_a_record_can_hold_are_refused() {
    let long = "x".repeat(40_000);
    let mut bench = Bench::new(Duration::ZERO);
    let changes: [fn(&mut Join, String); 3] = [
        |join, long| join.client_id = long,
        |join, long| join.instance_id = Some(long),
        |join, long| join.protocols[0].0 = long,
    ];
    for change in changes {
        let waiter = bench.join("", |join| change(join, long.clone()));
        assert_eq!(bench.joined(waiter).error, ErrorCode::INVALID_REQUEST);
    }
}

#[test]
fn offsets_of_a_simple_consumer_need_an_empty_group() {
    let mut bench = Bench::new(Duration::ZERO);
    assert_eq!(bench.commit("", -1, 7, ""), Answer::Offsets(vec![ErrorCode::NONE]));
    assert_eq!(bench.groups.get("g").unwrap().offsets.get("t", 0).unwrap().offset, 7);
    assert_eq!(bench.commit("", 3, 7, ""), Answer::Code(ErrorCode::UNKNOWN_MEMBER_ID));
    let (mut bench, _) = Bench::stable(|_| ());
    assert_eq!(bench.commit("", -1, 7, ""), Answer::Code(ErrorCode::UNKNOWN_MEMBER_ID));
}

#[test]
fn offsets_never_expire_while_the_group_has_members() {
    let (mut bench, member) =
        Bench::stable(|join| join.session_timeout = Duration::from_secs(1000));
    bench.commit(&member, 1, 5, "");
    bench.now.wall_ms += 10_000_000;
    bench.step(Input::Expire);
    assert!(bench.groups.get("g").unwrap().offsets.get("t", 0).is_some());
    let waiter = bench.waiter();
    bench.step(Input::Leave(waiter, Leave { group: "g".into(), members: vec![(member, None)] }));
    bench.now.wall_ms += 3_599_000;
    bench.step(Input::Expire);
    assert!(bench.groups.get("g").is_some(), "counted from when the last member left");
    bench.now.wall_ms += 1_000;
    bench.step(Input::Expire);
    assert!(bench.groups.get("g").is_none());
    let tombstones = bench.log.iter().filter(|record| record.value.is_none()).count();
    assert_eq!(tombstones, 2, "one for the offset, one for the group");
}

#[test]
fn only_empty_groups_are_deleted_and_only_unsubscribed_topics_forgotten() {
    let (mut bench, member) = Bench::stable(|_| ());
    bench.commit(&member, 1, 5, "");
    let delete = |bench: &mut Bench, input: fn(Waiter) -> Input| {
        let waiter = bench.waiter();
        bench.step(input(waiter));
        bench.answer(waiter).unwrap()
    };
    let group = |waiter| Input::DeleteGroup(waiter, "g".into());
    let offsets =
        |waiter| Input::DeleteOffsets(waiter, "g".into(), vec![("t".into(), 0), ("u".into(), 0)]);
    assert_eq!(delete(&mut bench, group), Answer::Code(ErrorCode::NON_EMPTY_GROUP));
    let codes = vec![ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC, ErrorCode::NONE];
    assert_eq!(delete(&mut bench, offsets), Answer::Offsets(codes));
    bench.after(Duration::from_secs(11));
    assert_eq!(delete(&mut bench, offsets), Answer::Offsets(vec![ErrorCode::NONE; 2]));
    assert_eq!(delete(&mut bench, group), Answer::Code(ErrorCode::NONE));
    assert_eq!(delete(&mut bench, group), Answer::Code(ErrorCode::GROUP_ID_NOT_FOUND));
}

#[test]
fn a_group_loads_as_its_records_left_it() {
    let (mut bench, member) = Bench::stable(|join| join.instance_id = Some("i".into()));
    bench.commit(&member, 1, 5, "m");
    let mut loaded = Groups::new(limits(Duration::ZERO));
    for stored in &bench.log {
        loaded.load(record::decode(&stored.key, stored.value.as_deref()).unwrap(), bench.now);
    }
    loaded.loaded();
    let (old, new) = (bench.groups.get("g").unwrap(), loaded.get("g").unwrap());
    assert_eq!((new.state, new.generation, &new.leader), (State::Stable, 1, &old.leader));
    assert_eq!(new.protocol.as_deref(), Some("range"));
    assert_eq!(new.instances, old.instances);
    assert_eq!(new.members[&member].assignment, b"all");
    assert_eq!(new.offsets.get("t", 0), old.offsets.get("t", 0));
    assert!(loaded.deadline().is_some(), "the member has to speak again");
}

/// Kafka's tools and brokers read these: a changed byte is lost offsets.
#[test]
fn records_are_kafkas_bytes() {
    let committed = Committed {
        offset: 8,
        leader_epoch: -1,
        metadata: String::new(),
        commit_ms: 1,
        expire_ms: None,
    };
    let record = record::offset_record("g1", "t", 2, Some(&committed));
    assert_eq!(record.key, b"\x00\x01\x00\x02g1\x00\x01t\x00\x00\x00\x02");
    assert_eq!(
        record.value.unwrap(),
        b"\x00\x03\0\0\0\0\0\0\0\x08\xff\xff\xff\xff\x00\x00\0\0\0\0\0\0\0\x01"
    );
    assert_eq!(record::group_tombstone("g1").key, b"\x00\x02\x00\x02g1");
}
