//! Groups under members that crash, are slow, lose answers and come back; all chance from one seed.
//!
//! Faults first, then calm in which the group must heal. `ELKFK_SEED` runs one seed alone,
//! `ELKFK_SIMULATION_SEEDS` that many instead of a short share.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use elkfk_wire::kafka::ErrorCode;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::core::Groups;
use super::offsets::Committed;
use super::state::State;
use super::tests::{limits, subscription};
use super::*;

const PARTITIONS: u8 = 6;

/// What a client believes about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    /// Not running until that millisecond.
    Down(u64),
    Out,
    Joining(Waiter),
    Syncing(Waiter),
    Member {
        next_heartbeat: u64,
    },
}

#[derive(Debug)]
struct Client {
    phase: Phase,
    id: String,
    instance: Option<String>,
    generation: i32,
    assignment: Vec<u8>,
    /// When it stops waiting for an answer.
    gives_up: u64,
}

struct World {
    random: StdRng,
    start: Instant,
    ms: u64,
    groups: Groups,
    clients: Vec<Client>,
    next_waiter: Waiter,
    /// Answers and finished writes under way, by arrival.
    under_way: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    log: Vec<record::Record>,
    /// Every waiter is answered once at most.
    answered: BTreeSet<Waiter>,
    waiting: BTreeMap<Waiter, usize>,
    commits: BTreeMap<Waiter, (u8, i64)>,
    acknowledged: BTreeMap<u8, i64>,
    /// Commits of these waiters came before the topic was deleted.
    deleted_before: Waiter,
    /// Leader and owners of each generation, as clients were told.
    leaders: BTreeMap<i32, String>,
    owners: BTreeMap<(i32, u8), String>,
    newest_generation: i32,
    calm: bool,
}

enum Event {
    Answer(Waiter, Answer),
    Written(WriteId, ErrorCode),
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = random.random_range(1..=4);
        let delay = Duration::from_millis(random.random_range(0..2) * 1000);
        let clients = (0..count)
            .map(|i| Client {
                phase: Phase::Down(random.random_range(0..3000)),
                id: String::new(),
                instance: (random.random_range(0..3) == 0).then(|| format!("i{i}")),
                generation: -1,
                assignment: Vec::new(),
                gives_up: 0,
            })
            .collect();
        Self {
            random,
            start: Instant::now(),
            ms: 0,
            groups: Groups::new(limits(delay)),
            clients,
            next_waiter: 0,
            under_way: BTreeMap::new(),
            sequence: 0,
            log: Vec::new(),
            answered: BTreeSet::new(),
            waiting: BTreeMap::new(),
            commits: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            deleted_before: 0,
            leaders: BTreeMap::new(),
            owners: BTreeMap::new(),
            newest_generation: 0,
            calm: false,
        }
    }

    fn now(&self) -> Now {
        Now { at: self.start + Duration::from_millis(self.ms), wall_ms: self.ms as i64 }
    }

    fn send(&mut self, in_ms: u64, event: Event) {
        self.sequence += 1;
        self.under_way.insert((self.ms + in_ms, self.sequence), event);
    }

    fn step(&mut self, input: Input) {
        let mut outputs = Vec::new();
        self.groups.step(self.now(), input, &mut outputs);
        for output in outputs {
            match output {
                Output::Answer(waiter, answer) => {
                    assert!(self.answered.insert(waiter), "{waiter} was answered twice");
                    let lost = !self.calm && self.random.random_range(0..20) == 0;
                    let delay = self.random.random_range(1..50);
                    if !lost {
                        self.send(delay, Event::Answer(waiter, answer));
                    }
                }
                Output::Write(id, records) => {
                    let fails = !self.calm && self.random.random_range(0..20) == 0;
                    if !fails {
                        self.log.extend(records);
                    }
                    let code = if fails { ErrorCode::NOT_COORDINATOR } else { ErrorCode::NONE };
                    // One fdatasync covers many writes, and their tasks run in any order.
                    let delay = self.random.random_range(1..20);
                    self.send(delay, Event::Written(id, code));
                }
            }
        }
    }

    fn waiter(&mut self, client: usize) -> Waiter {
        self.next_waiter += 1;
        self.waiting.insert(self.next_waiter, client);
        self.next_waiter
    }

    /// One millisecond.
    fn advance(&mut self) {
        self.ms += 1;
        while let Some(entry) = self.under_way.first_entry() {
            if entry.key().0 > self.ms {
                break;
            }
            match entry.remove() {
                Event::Written(id, code) => self.step(Input::Written(id, code)),
                Event::Answer(waiter, answer) => self.on_answer(waiter, answer),
            }
        }
        if self.groups.deadline().is_some_and(|at| at <= self.now().at) {
            self.step(Input::Tick);
        }
        for client in 0..self.clients.len() {
            self.act(client);
        }
        if !self.calm && self.random.random_range(0..20_000) == 0 {
            self.restart_coordinator();
        }
        if !self.calm && self.random.random_range(0..20_000) == 0 {
            // What is committed by now goes with the topic, also where it is not durable yet.
            self.acknowledged.clear();
            self.deleted_before = self.next_waiter;
            self.step(Input::TopicDeleted("t".into()));
        }
        self.check();
    }

    fn act(&mut self, at: usize) {
        let (ms, client) = (self.ms, &mut self.clients[at]);
        if !self.calm && self.random.random_range(0..10_000) == 0 {
            client.phase = Phase::Down(ms + self.random.random_range(1..15_000));
            // A crash forgets the member id; what is configured stays.
            client.id.clear();
            return;
        }
        match client.phase {
            Phase::Down(until) if until <= ms => client.phase = Phase::Out,
            Phase::Out => self.join(at),
            Phase::Joining(_) | Phase::Syncing(_) if client.gives_up <= ms => {
                client.phase = Phase::Out
            }
            Phase::Member { next_heartbeat } if next_heartbeat <= ms => self.live(at),
            _ => {}
        }
    }

    fn join(&mut self, at: usize) {
        let waiter = self.waiter(at);
        let client = &mut self.clients[at];
        client.phase = Phase::Joining(waiter);
        client.gives_up = self.ms + 30_000;
        let join = Join {
            group: "g".into(),
            member_id: client.id.clone(),
            fresh: waiter.to_string(),
            instance_id: client.instance.clone(),
            client_id: format!("c{at}"),
            session_timeout: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(5),
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(&["t"]))],
            is_id_required: client.instance.is_none(),
            ..Join::default()
        };
        self.step(Input::Join(waiter, join));
    }

    /// A heartbeat, often with a commit of something it owns.
    fn live(&mut self, at: usize) {
        // A slow member lets its session end.
        let slow = !self.calm && self.random.random_range(0..50) == 0;
        let pause = if slow { 4000 } else { self.random.random_range(300..900) };
        let waiter = self.waiter(at);
        let client = &mut self.clients[at];
        client.phase = Phase::Member { next_heartbeat: self.ms + pause };
        let (generation, member_id, instance_id) =
            (client.generation, client.id.clone(), client.instance.clone());
        let owned = client.assignment.clone();
        let heartbeat = Heartbeat {
            group: "g".into(),
            generation,
            member_id: member_id.clone(),
            instance_id: instance_id.clone(),
        };
        self.step(Input::Heartbeat(waiter, heartbeat));
        let Some(&partition) = owned.first() else { return };
        // A client that commits without waiting has several under way.
        for number in 0..self.random.random_range(1..4) {
            let waiter = self.waiter(at);
            let offset = self.ms as i64 * 4 + number;
            self.commits.insert(waiter, (partition, offset));
            let committed = Committed {
                offset,
                leader_epoch: -1,
                metadata: String::new(),
                commit_ms: self.ms as i64,
                expire_ms: None,
            };
            let offsets = vec![("t".into(), i32::from(partition), committed)];
            let (member_id, instance_id) = (member_id.clone(), instance_id.clone());
            self.step(Input::Commit(
                waiter,
                Commit { group: "g".into(), generation, member_id, instance_id, offsets },
            ));
        }
    }

    fn on_answer(&mut self, waiter: Waiter, answer: Answer) {
        let at = self.waiting.remove(&waiter).expect("only asked questions are answered");
        let ms = self.ms;
        match answer {
            Answer::Joined(joined) => {
                if self.clients[at].phase != Phase::Joining(waiter) {
                    return;
                }
                self.on_joined(at, *joined);
            }
            Answer::Synced(synced) => {
                let client = &mut self.clients[at];
                if client.phase != Phase::Syncing(waiter) {
                    return;
                }
                if !synced.error.is_none() {
                    return self.start_over(at, synced.error);
                }
                client.assignment.clone_from(&synced.assignment);
                client.phase = Phase::Member { next_heartbeat: ms + 500 };
                let (generation, who) = (client.generation, format!("c{at}"));
                for partition in synced.assignment {
                    // Invariant: within a generation a partition has one owner.
                    let owner = self.owners.entry((generation, partition)).or_insert(who.clone());
                    assert_eq!(
                        *owner, who,
                        "partition {partition} has two owners in generation {generation}"
                    );
                }
            }
            Answer::Code(code) if !code.is_none() && !self.commits.contains_key(&waiter) => {
                if matches!(self.clients[at].phase, Phase::Member { .. }) {
                    self.start_over(at, code);
                }
            }
            Answer::Offsets(codes) => {
                let (partition, offset) = self.commits[&waiter];
                if codes[0].is_none() && waiter > self.deleted_before {
                    let newest = self.acknowledged.entry(partition).or_insert(offset);
                    *newest = offset.max(*newest);
                }
            }
            _ => {}
        }
    }

    fn on_joined(&mut self, at: usize, joined: Joined) {
        let client = &mut self.clients[at];
        if joined.error == ErrorCode::MEMBER_ID_REQUIRED {
            client.id = joined.member_id;
            client.phase = Phase::Out;
            return;
        }
        if !joined.error.is_none() {
            return self.start_over(at, joined.error);
        }
        client.id.clone_from(&joined.member_id);
        client.generation = joined.generation;
        let is_leader = joined.leader == joined.member_id && !joined.members.is_empty();
        if is_leader {
            // Invariant: a generation has one leader (by name: a static one may change its id).
            let name = format!("c{at}");
            let known = self.leaders.entry(joined.generation).or_insert_with(|| name.clone());
            assert_eq!(*known, name, "generation {} has two leaders", joined.generation);
        }
        let mut assignments: Vec<(String, Vec<u8>)> =
            joined.members.iter().map(|(id, ..)| (id.clone(), Vec::new())).collect();
        if is_leader {
            for partition in 0..PARTITIONS {
                let to = usize::from(partition) % assignments.len();
                assignments[to].1.push(partition);
            }
        }
        let instance_id = client.instance.clone();
        let (generation, member_id) = (client.generation, client.id.clone());
        let waiter = self.waiter(at);
        self.clients[at].phase = Phase::Syncing(waiter);
        self.clients[at].gives_up = self.ms + 10_000;
        let sync = Sync {
            group: "g".into(),
            generation,
            member_id,
            instance_id,
            assignments,
            ..Sync::default()
        };
        self.step(Input::Sync(waiter, sync));
    }

    fn start_over(&mut self, at: usize, error: ErrorCode) {
        let client = &mut self.clients[at];
        if matches!(error, ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID) {
            client.id.clear();
        }
        client.phase = Phase::Out;
    }

    /// The broker is killed: what is in the log is all that is left.
    fn restart_coordinator(&mut self) {
        let delay = Duration::from_millis(1000);
        self.groups = Groups::new(limits(delay));
        let now = self.now();
        for stored in &self.log {
            let entry = record::decode(&stored.key, stored.value.as_deref()).expect("we wrote it");
            self.groups.load(entry, now);
        }
        self.groups.loaded();
        // Connections broke: nothing under way arrives, and everyone asks again.
        self.under_way.clear();
        for client in &mut self.clients {
            if matches!(client.phase, Phase::Joining(_) | Phase::Syncing(_)) {
                client.phase = Phase::Out;
            }
        }
        self.newest_generation = 0;
        // A generation that was never stored may be counted again, with others in it.
        let stored = self.groups.get("g").map_or(0, |group| group.generation);
        self.leaders.retain(|generation, _| *generation <= stored);
        self.owners.retain(|(generation, _), _| *generation <= stored);
    }

    /// Invariant: once all writes are heard of, memory holds the offsets that a restart would load.
    fn check_against_log(&mut self) {
        for (_, event) in std::mem::take(&mut self.under_way) {
            if let Event::Written(id, code) = event {
                self.step(Input::Written(id, code));
            }
        }
        let mut loaded = Groups::new(limits(Duration::ZERO));
        for stored in &self.log {
            let entry = record::decode(&stored.key, stored.value.as_deref()).expect("we wrote it");
            loaded.load(entry, self.now());
        }
        let offsets = |groups: &Groups| -> Vec<(String, i32, Committed)> {
            let offsets = groups.get("g").into_iter().flat_map(|group| group.offsets.iter());
            offsets.map(|(topic, number, it)| (topic.to_owned(), number, it.clone())).collect()
        };
        assert_eq!(offsets(&self.groups), offsets(&loaded), "memory and log differ");
    }

    fn check(&mut self) {
        let Some(group) = self.groups.get("g") else { return };
        assert!(group.generation >= self.newest_generation, "generation fell");
        self.newest_generation = group.generation;
        for (partition, offset) in &self.acknowledged {
            let committed =
                group.offsets.get("t", i32::from(*partition)).map(|committed| committed.offset);
            assert!(
                committed >= Some(*offset),
                "acknowledged offset {offset} of {partition} is lost: {committed:?}"
            );
        }
        if let Some(leader) = &group.leader {
            assert!(group.members.contains_key(leader), "the leader is no member");
        }
        for (instance, id) in &group.instances {
            assert_eq!(group.members[id].instance_id.as_ref(), Some(instance));
        }
        if group.state == State::Empty {
            assert!(group.members.is_empty(), "empty with members");
        }
    }
}

fn run(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..60_000 {
        world.advance();
    }
    world.calm = true;
    for client in &mut world.clients {
        if let Phase::Down(until) = &mut client.phase {
            *until = world.ms;
        }
    }
    // The longest wait is a lost join answer (30 s), after it one session and one rebalance.
    for _ in 0..60_000 {
        world.advance();
    }
    world.check_against_log();
    let group = world.groups.get("g").expect("the group exists");
    assert_eq!(group.state, State::Stable, "the group did not settle");
    let mut owned: Vec<u8> = Vec::new();
    for client in &world.clients {
        assert!(matches!(client.phase, Phase::Member { .. }), "{client:?} is not a member");
        assert_eq!(client.generation, group.generation, "{client:?} lives in the past");
        owned.extend(&client.assignment);
    }
    owned.sort_unstable();
    assert_eq!(owned, (0..PARTITIONS).collect::<Vec<_>>(), "each partition has its reader");
}

#[test]
fn group_heals_from_any_faults() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    if let Some(seed) = number("ELKFK_SEED") {
        return run(seed);
    }
    for seed in 0..number("ELKFK_SIMULATION_SEEDS").unwrap_or(30) {
        if let Err(panic) = std::panic::catch_unwind(|| run(seed)) {
            eprintln!("failed with ELKFK_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
