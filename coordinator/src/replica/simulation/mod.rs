//! An ensemble, its disks, its network and its clients, with everything that can go wrong: crashes,
//! torn writes, disks that fill up, are slow, rot or are lost, servers that stand still, connections
//! that break, servers that are cut off in one direction or both, and clocks that jump.
//!
//! All chance comes from the seed: the same seed gives the same bytes to the same clients. Which
//! faults a run has, and how many servers, is drawn too. What is checked stands in [`checks`] and
//! [`clients`].
//!
//! Which guards were broken to see whether it notices stands in `mutations.md`.
//!
//! `ELKFK_SIMULATION_SEEDS=N` runs so many seeds in place of the usual few, `FROM..TO` those.

mod answers;
mod checks;
mod clients;
mod healing;
mod runs;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use elkfk_wire::jute::SessionId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::consensus::{Members, RaftConsensus};
use crate::machine::Rules;
use crate::recovery::{Recovered, forget_joining, mark_repairing, recover};
use crate::service::{ConnectionId, Settings, WATCH_BYTES_MAX};
use crate::snapshots::{self, SnapshotReceiver, SnapshotWriter};
use crate::wal::disk::Disk;
use crate::wal::simulated::SimulatedDisk;
use crate::wal::{AppendError, Wal};

pub(crate) use checks::Note;

use checks::Checks;
use clients::Client;

/// Small, so that segments are rolled and purged.
const SEGMENT_BYTES: u64 = 16 << 10;
const TICK_MS: u64 = 50;
const SESSION_TIMEOUT_MS: i32 = 4000;
const CONTACT_LIMIT_MS: u64 = 3000;
/// What a clock that is right shows in the beginning, since 1970.
const WALL_MS: i64 = 1_700_000_000_000;

/// What goes from one server to another, in its order, until the connection breaks.
enum Parcel {
    Message(Bytes),
    Snapshot { message: Message, file: Vec<u8> },
}

struct Server {
    replica: Replica<RaftConsensus>,
    wal: Wal<SimulatedDisk>,
    /// Not yet durable.
    log: VecDeque<LogWork>,
    snapshot: Option<(SnapshotWriter<SimulatedDisk>, u64, Members)>,
    next_tick_ms: u64,
    /// It does nothing before.
    paused_until_ms: u64,
    /// Nothing becomes durable before.
    slow_until_ms: u64,
}

/// Which faults a run has.
#[derive(Debug, Clone, Copy, Default)]
struct Faults {
    crashes: bool,
    wipes: bool,
    cuts: bool,
    pauses: bool,
    full_disks: bool,
    slow_disks: bool,
    /// Bits of what was durable flip, on one server that has whole peers.
    rots: bool,
    clocks: bool,
    /// Clients stay where they are, and time passes faster.
    is_calm: bool,
}

struct World {
    random: StdRng,
    faults: Faults,
    members: Members,
    now_ms: u64,
    disks: Vec<SimulatedDisk>,
    /// What each server's clock was ahead, in turn; the last holds, across restarts.
    clocks: Vec<Vec<i64>>,
    /// `None` while it is down.
    servers: Vec<Option<Server>>,
    /// From and to: what is on its way; `None` where there is no connection.
    channels: BTreeMap<(u64, u64), Option<VecDeque<Parcel>>>,
    /// From and to: nothing arrives until then.
    cuts: BTreeMap<(u64, u64), u64>,
    lives: u64,
    next_connection: ConnectionId,
    clients: Vec<Client>,
    /// Versions of the counter that were won, and the newest of them.
    wins: BTreeSet<i32>,
    won: i32,
    /// The newest of a write that anybody was answered.
    acknowledged_zxid: i64,
    /// Sessions that clients ended.
    ended: u64,
    /// Everything any client was sent.
    trace: crc32fast::Hasher,
    checks: Checks,
    /// The bit that was flipped on the disk of a server that is down.
    rotten: Option<(String, usize)>,
    /// A server whose tree is known to be damaged, and what it says of that.
    silenced: Option<u64>,
    /// The run has disks that fill up or are slow.
    are_writes_held_up: bool,
    failure: Option<String>,
}

fn settings(server: u64) -> Settings {
    Settings {
        server,
        session_timeout_ms_min: SESSION_TIMEOUT_MS,
        session_timeout_ms_max: SESSION_TIMEOUT_MS,
        frame_bytes_max: 1 << 20,
        has_linearizable_reads: false,
        rules: Rules { extended_types: false, enforce_quota: false, reconfig: false },
        super_digest: None,
        watch_bytes_max: WATCH_BYTES_MAX,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let count = [1, 3, 3, 3, 3, 5][random.random_range(0..6)];
        let faults = Faults {
            crashes: random.random_bool(0.7),
            wipes: count > 1 && random.random_bool(0.3),
            cuts: random.random_bool(0.6),
            pauses: random.random_bool(0.4),
            full_disks: random.random_bool(0.3),
            slow_disks: random.random_bool(0.4),
            rots: count > 1 && random.random_bool(0.3),
            clocks: random.random_bool(0.3),
            is_calm: random.random_bool(0.3),
        };
        let learners = if count == 3 && random.random_bool(0.2) { vec![4] } else { vec![] };
        Self::with(seed, random, faults, Members { voters: (1..=count).collect(), learners })
    }

    fn without_faults(seed: u64, count: u64) -> Self {
        let members = Members { voters: (1..=count).collect(), learners: vec![] };
        let faults = Faults { is_calm: true, ..Faults::default() };
        Self::with(seed, StdRng::seed_from_u64(seed), faults, members)
    }

    /// A server that does not lead.
    fn follower(&self) -> u64 {
        let follows = |id: &u64| {
            let server = self.servers[*id as usize - 1].as_ref();
            server.is_some_and(|server| !server.replica.consensus.is_leader())
        };
        self.ids().find(follows).expect("one leads at most")
    }

    fn with(seed: u64, random: StdRng, faults: Faults, members: Members) -> Self {
        let ids: Vec<_> = members.voters.iter().chain(&members.learners).copied().collect();
        let pairs = ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to)));
        let mut world = Self {
            faults,
            now_ms: 1,
            disks: ids.iter().map(|id| SimulatedDisk::new(seed ^ (0xd15c + id))).collect(),
            clocks: ids.iter().map(|_| vec![0]).collect(),
            servers: ids.iter().map(|_| None).collect(),
            channels: pairs.filter(|(from, to)| from != to).map(|pair| (pair, None)).collect(),
            cuts: BTreeMap::new(),
            lives: 0,
            next_connection: 1,
            clients: (0..clients::CLIENTS).map(|_| Client::default()).collect(),
            wins: BTreeSet::new(),
            won: 0,
            acknowledged_zxid: 0,
            ended: 0,
            trace: crc32fast::Hasher::new(),
            checks: Checks::new(),
            rotten: None,
            silenced: None,
            are_writes_held_up: faults.full_disks || faults.slow_disks,
            failure: None,
            random,
            members,
        };
        for id in ids {
            world.start(id);
        }
        world
    }

    fn ids(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.servers.len() as u64
    }

    fn server(&mut self, id: u64) -> Option<&mut Server> {
        self.servers[id as usize - 1].as_mut()
    }

    fn now_of(&self, id: u64) -> Now {
        let offset_ms = self.clocks[id as usize - 1].last().copied().unwrap_or(0);
        Now { steady_ms: self.now_ms, wall_ms: WALL_MS + self.now_ms as i64 + offset_ms }
    }

    fn start(&mut self, id: u64) {
        self.lives += 1;
        if self.faults.clocks && self.random.random_bool(0.3) {
            // A clock without a battery: at every start it is the same time.
            self.clocks[id as usize - 1].push(-(self.now_ms as i64));
        }
        // Files of the snapshots and of the log have names of their own, so one directory does.
        let read = |disk: &SimulatedDisk| {
            recover(disk.clone(), disk.clone(), id, &self.members, SEGMENT_BYTES)
        };
        let disk = &mut self.disks[id as usize - 1];
        let recovered = match (read(disk), self.rotten.take()) {
            (Err(error), Some(_)) if error.is_damage() => {
                // As the shell does: what is there is set aside.
                *disk = SimulatedDisk::new(self.random.random());
                mark_repairing(disk).expect("there is room");
                self.checks.repaired += 1;
                read(disk)
            }
            (recovered, rotten) => {
                // What nobody has read yet could be found when others cannot help.
                if let Some((name, offset)) = rotten {
                    disk.rot(&name, offset);
                }
                recovered
            }
        };
        let Recovered { machine, wal, consensus, has_empty_log, is_joining, .. } =
            recovered.expect("a crash leaves nothing damaged");
        self.checks.is_one_that_was(&machine);
        let now = self.now_of(id);
        let service = Service::new(machine, settings(id), self.random.random(), now);
        let mut secret = [0; 32];
        self.random.fill(&mut secret);
        let terms = Terms {
            id,
            contact_limit_ms: CONTACT_LIMIT_MS,
            secret,
            servers: servers(&self.members),
        };
        let replica = Replica::new(service, consensus, terms, now, has_empty_log, is_joining);
        self.servers[id as usize - 1] = Some(Server {
            replica,
            wal,
            log: VecDeque::new(),
            snapshot: None,
            next_tick_ms: self.now_ms,
            paused_until_ms: 0,
            slow_until_ms: 0,
        });
    }

    /// Does what has to be done after a server was told something.
    fn advance(&mut self, id: u64) {
        let Some(server) = self.servers[id as usize - 1].as_mut() else { return };
        let work = server.replica.advance();
        if self.silenced == Some(id) {
            self.failure = self.failure.take().or(work.failure);
            server.replica.notes.clear();
        } else {
            assert_eq!(work.failure, None, "server {id}");
        }
        for task in work.log {
            if let LogWork::Append { batch, .. } = &task
                && batch.restored.is_some()
            {
                server.snapshot = None;
            }
            server.log.push_back(task);
        }
        self.checks.advanced(id, &mut server.replica);
        self.sessions_closed();
        let Some(server) = self.servers[id as usize - 1].as_mut() else { return };
        for (to, message) in work.messages {
            let parcel = match message {
                PeerMessage::Raft(message) if message.snapshot_index().is_some() => {
                    let index = message.snapshot_index().unwrap_or(0);
                    match snapshots::read_file(&self.disks[id as usize - 1], index) {
                        Ok(file) => Parcel::Snapshot { message, file },
                        Err(_) => {
                            server.replica.snapshot_sent(to, false);
                            continue;
                        }
                    }
                }
                message => {
                    let mut bytes = Vec::new();
                    message.encode(&mut bytes);
                    Parcel::Message(bytes.into())
                }
            };
            match self.channels.get_mut(&(id, to)) {
                Some(Some(channel)) => channel.push_back(parcel),
                _ if matches!(parcel, Parcel::Snapshot { .. }) => {
                    server.replica.snapshot_sent(to, false);
                }
                _ => {}
            }
        }
        self.deliver_to_clients(id);
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..200 => {
                let client = self.random.random_range(0..clients::CLIENTS);
                self.act(client);
            }
            200..380 => {
                let id = self.any_server();
                self.persist(id);
            }
            380..780 => self.deliver(),
            780..900 => {
                let most = if self.faults.is_calm { 120 } else { 40 };
                let ms = self.random.random_range(1..most);
                self.pass(ms);
            }
            900..960 => {
                let id = self.any_server();
                self.snapshot(id);
            }
            960..980 => {
                let client = self.random.random_range(0..clients::CLIENTS);
                self.drop_client(client);
            }
            _ => self.fault(),
        }
    }

    fn any_server(&mut self) -> u64 {
        self.random.random_range(1..=self.servers.len() as u64)
    }

    fn is_awake(&self, id: u64) -> bool {
        let server = self.servers[id as usize - 1].as_ref();
        server.is_some_and(|server| server.paused_until_ms <= self.now_ms)
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        for id in self.ids() {
            if !self.is_awake(id) {
                continue;
            }
            let (now, now_ms) = (self.now_of(id), self.now_ms);
            let Some(server) = self.server(id) else { continue };
            if server.next_tick_ms <= now_ms {
                server.next_tick_ms = now_ms + TICK_MS;
                server.replica.set_now(now);
                server.replica.tick();
                self.advance(id);
            }
        }
        self.connect_servers();
    }

    /// Servers that can reach each other and have no connection make one.
    fn connect_servers(&mut self) {
        self.cuts.retain(|_, until_ms| *until_ms > self.now_ms);
        let down = self.channels.iter().filter(|(_, channel)| channel.is_none());
        let down: Vec<_> = down.map(|(pair, _)| *pair).collect();
        for (from, to) in down {
            let is_cut = self.cuts.contains_key(&(from, to)) || self.cuts.contains_key(&(to, from));
            if !is_cut && self.is_awake(from) && self.is_awake(to) && self.random.random_bool(0.3) {
                self.channels.insert((from, to), Some(VecDeque::new()));
                if let Some(server) = self.server(from) {
                    server.replica.peer_up(to);
                }
                self.advance(from);
            }
        }
    }

    /// Takes some of what is on its way to where it goes.
    fn deliver(&mut self) {
        let now_ms = self.now_ms;
        let full: Vec<_> = (self.channels.iter())
            .filter(|(pair, _)| self.cuts.get(pair).is_none_or(|until_ms| *until_ms <= now_ms))
            .filter(|(_, channel)| channel.as_ref().is_some_and(|channel| !channel.is_empty()))
            .map(|(pair, _)| *pair)
            .filter(|(_, to)| self.is_awake(*to))
            .collect();
        if full.is_empty() {
            return;
        }
        let (from, to) = full[self.random.random_range(0..full.len())];
        for _ in 0..self.random.random_range(1..8) {
            let Some(Some(channel)) = self.channels.get_mut(&(from, to)) else { return };
            let Some(parcel) = channel.pop_front() else { break };
            let now = self.now_of(to);
            let disk = self.disks[to as usize - 1].clone();
            let Some(server) = self.server(to) else { return };
            server.replica.set_now(now);
            match parcel {
                Parcel::Message(bytes) => {
                    let message = PeerMessage::decode(bytes).expect("it was encoded");
                    server.replica.message(from, message);
                }
                Parcel::Snapshot { message, file } => {
                    let received = receive(disk, &message, &file);
                    let is_whole = received.is_some();
                    if let Some(machine) = received {
                        self.checks.is_one_that_was(&machine);
                        self.checks.restored += 1;
                        let Some(server) = self.server(to) else { return };
                        server.replica.restore(from, message, machine);
                    }
                    if let Some(sender) = self.server(from) {
                        sender.replica.snapshot_sent(to, is_whole);
                    }
                    // Before anything of it counts.
                    if self.faults.crashes && self.random.random_bool(0.1) {
                        self.advance(to);
                        return self.crash(to);
                    }
                }
            }
            self.advance(to);
        }
    }

    /// Makes some of what waits durable.
    fn persist(&mut self, id: u64) {
        let slow_until_ms = self.server(id).map_or(0, |server| server.slow_until_ms);
        if !self.is_awake(id) || self.now_ms < slow_until_ms {
            return;
        }
        let now = self.now_of(id);
        let mut disk = self.disks[id as usize - 1].clone();
        let count = self.random.random_range(1..6);
        let Some(server) = self.server(id) else { return };
        server.replica.set_now(now);
        if server.log.is_empty() {
            let is_full = server.wal.keep_room().is_err();
            server.refuse(is_full);
        }
        for _ in 0..count {
            let Some(task) = server.log.pop_front() else { break };
            let LogWork::Append { number, batch } = task else {
                forget_joining(&mut disk);
                continue;
            };
            match server.wal.append(std::slice::from_ref(&batch)) {
                Ok(()) => {
                    if let Some(index) = batch.restored {
                        snapshots::take_over(&mut disk, index).expect("a rename needs no room");
                    }
                    server.replica.persisted(number);
                    server.refuse(false);
                }
                Err(AppendError::Full(_)) => {
                    server.log.push_front(LogWork::Append { number, batch });
                    server.refuse(true);
                    break;
                }
                Err(AppendError::Failed(error)) => panic!("{error}"),
            }
        }
        self.advance(id);
    }

    fn snapshot(&mut self, id: u64) {
        let (mut disk, is_awake) = (self.disks[id as usize - 1].clone(), self.is_awake(id));
        let Some(server) = self.server(id).filter(|_| is_awake) else { return };
        // What came from another server has its snapshot already.
        let is_restored = |work: &LogWork| matches!(work, LogWork::Append { batch, .. } if batch.restored.is_some());
        if server.log.iter().any(is_restored) {
            return;
        }
        if server.continue_snapshot(&disk).is_err() {
            // The disk is full.
            snapshots::remove_given_up(&mut disk);
            server.snapshot = None;
            server.replica.service.machine.tree.abandon_image();
        }
    }

    fn fault(&mut self) {
        let id = self.any_server();
        let is_majority_up =
            self.ids().filter(|id| self.is_awake(*id)).count() * 2 > self.servers.len();
        match self.random.random_range(0..22) {
            0..3 if self.faults.crashes => self.crash(id),
            3..7 if self.servers[id as usize - 1].is_none() => {
                self.start(id);
                self.advance(id);
            }
            7 if self.faults.wipes && is_majority_up => self.wipe(id),
            8..11 if self.faults.cuts => {
                let other = self.any_server();
                let until_ms = self.now_ms + self.random.random_range(10..6000);
                self.cuts.insert((id, other), until_ms);
                if self.random.random_bool(0.7) {
                    self.cuts.insert((other, id), until_ms);
                }
            }
            11..14 if self.faults.cuts => {
                let other = self.any_server();
                self.break_connection(id, other);
            }
            14..16 if self.faults.pauses => {
                let until_ms = self.now_ms + self.random.random_range(10..9000);
                if let Some(server) = self.server(id) {
                    server.paused_until_ms = until_ms;
                }
            }
            16..18 if self.faults.full_disks => {
                let is_filled = self.random.random_bool(0.3);
                self.disks[id as usize - 1].set_capacity(if is_filled { 0 } else { u64::MAX });
            }
            18 if self.faults.clocks => {
                let offset_ms = self.random.random_range(-3_600_000..3_600_000);
                self.clocks[id as usize - 1].push(offset_ms);
            }
            20 if self.faults.rots && is_majority_up => self.rot(id),
            21 if self.faults.slow_disks => {
                let until_ms = self.now_ms + self.random.random_range(10..6000);
                if let Some(server) = self.server(id) {
                    server.slow_until_ms = until_ms;
                }
            }
            19 => {
                let now = self.now_of(id);
                if let Some(server) = self.server(id) {
                    server.replica.set_now(now);
                    server.replica.hand_over();
                    self.advance(id);
                }
            }
            _ => {}
        }
    }

    fn break_connection(&mut self, from: u64, to: u64) {
        let Some(channel) = self.channels.get_mut(&(from, to)) else { return };
        let Some(lost) = channel.take() else { return };
        let is_gone = self.servers[to as usize - 1].is_none();
        if let Some(server) = self.server(from) {
            for parcel in &lost {
                if matches!(parcel, Parcel::Snapshot { .. }) {
                    server.replica.snapshot_sent(to, false);
                }
            }
            server.replica.peer_down(to, is_gone);
            self.advance(from);
        }
    }

    fn crash(&mut self, id: u64) {
        let Some(mut server) = self.servers[id as usize - 1].take() else { return };
        let disk = self.disks[id as usize - 1].clone();
        // A batch on its way may be written in part.
        let is_begun = self.random.random_bool(0.7);
        if let Some(LogWork::Append { batch, .. }) = server.log.pop_front()
            && is_begun
        {
            disk.fail_sync_after(0);
            let _ = server.wal.append(std::slice::from_ref(&batch));
            disk.fail_sync_after(u32::MAX);
        }
        disk.lose_power();
        for other in self.ids().filter(|other| *other != id) {
            self.break_connection(other, id);
            self.channels.insert((id, other), None);
        }
        for at in 0..clients::CLIENTS {
            if self.clients[at].server == id {
                self.forget_connection(at);
            }
        }
    }

    /// A disk is lost, where everybody else has what was on it.
    fn wipe(&mut self, id: u64) {
        if self.have_whole_others(id) {
            self.crash(id);
            self.disks[id as usize - 1] = SimulatedDisk::new(self.random.random());
            self.rotten = None;
            self.checks.wiped += 1;
        }
    }

    /// A bit flips in what was durable, and the server is started again. Not in the end of the log:
    /// that could as well have been torn by the crash.
    fn rot(&mut self, id: u64) {
        if !self.have_whole_others(id) {
            return;
        }
        self.crash(id);
        let disk = self.disks[id as usize - 1].clone();
        let names: Vec<_> = disk.list().expect("a list").into_iter().collect();
        let last_log = names.iter().rfind(|name| name.starts_with("log-")).cloned();
        let mut places = Vec::new();
        for name in names {
            let bytes = disk.read(&name).expect("it is there");
            let end = match name {
                _ if Some(&name) == last_log.as_ref() => end_of_whole_records(&bytes),
                _ if name.starts_with("log-") => {
                    bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0)
                }
                _ if name.starts_with("snapshot-") => bytes.len(),
                _ => 0,
            };
            if end > 0 {
                places.push((name, end));
            }
        }
        if !places.is_empty() {
            let (name, end) = places.swap_remove(self.random.random_range(0..places.len()));
            let offset = self.random.random_range(0..end);
            disk.rot(&name, offset);
            self.rotten = Some((name, offset));
        }
        self.start(id);
        self.advance(id);
    }

    fn have_whole_others(&self, id: u64) -> bool {
        let is_whole = |other: &u64| {
            let server = self.servers[*other as usize - 1].as_ref();
            server.is_some_and(|server| {
                !server.replica.is_joining()
 && !server.replica.has_empty_log
 // In what is durable, too.
 && server.log.is_empty()
            })
        };
        self.ids().all(|other| other == id || is_whole(&other))
    }
}

/// Where the last two records of a segment begin: what is before them is followed by whole ones.
fn end_of_whole_records(bytes: &[u8]) -> usize {
    let mut begins = (0..bytes.len()).step_by(8).filter(|at| bytes[*at..].starts_with(b"elkW"));
    begins.by_ref().rev().nth(1).unwrap_or(0)
}

/// As a zoo.cfg lists them.
fn servers(members: &Members) -> Vec<crate::ensemble::Server> {
    let mut ids: Vec<_> = members.voters.iter().chain(&members.learners).copied().collect();
    ids.sort_unstable();
    let server = |id: u64| {
        let role = if members.learners.contains(&id) { ":observer" } else { "" };
        crate::ensemble::Server::parse(id, &format!("zoo{id}:2888:3888{role}"))
    };
    ids.into_iter().map(|id| server(id).expect("a line of zoo.cfg")).collect()
}

fn receive(disk: SimulatedDisk, message: &Message, file: &[u8]) -> Option<Machine> {
    let mut receiver = SnapshotReceiver::start(disk, message.snapshot_index()?).ok()?;
    for piece in file.chunks(100) {
        receiver.write(piece).ok()?;
    }
    receiver.finish().ok()
}

impl Replica<RaftConsensus> {
    /// For the message of an assertion.
    fn standing(&self) -> String {
        format!(
            "following {:?}, leads {}, joining {}, empty {}, question {:?}, answered {:?}, in flight {:?}, index {}, outbox {:?}, peers {:?}, progress {:?}, {}",
            self.following,
            self.consensus.is_leader(),
            self.is_joining,
            self.has_empty_log,
            self.questions,
            self.answered,
            self.batches_in_flight,
            self.service.machine.index(),
            self.outbox.len(),
            self.peers,
            self.consensus.progress(),
            self.service.standing()
        )
    }
}

impl Server {
    fn refuse(&mut self, is_full: bool) {
        if is_full != self.replica.service.is_refusing() {
            self.replica.set_refusing(is_full.then(|| "full".to_owned()));
        }
    }

    fn continue_snapshot(&mut self, disk: &SimulatedDisk) -> std::io::Result<()> {
        let Some((mut writer, term, members)) = self.snapshot.take() else {
            let (term, members) =
                (self.replica.service.machine.term(), self.replica.consensus.members());
            let machine = &mut self.replica.service.machine;
            let mut writer = SnapshotWriter::start(disk.clone(), machine.index())?;
            writer.write(&machine.start_image())?;
            self.snapshot = Some((writer, term, members));
            return Ok(());
        };
        let machine = &mut self.replica.service.machine;
        let (piece, is_last) = machine.tree.next_image_piece(400).expect("an image is under way");
        writer.write(&piece)?;
        if is_last {
            let index = writer.index();
            writer.finish()?;
            self.replica.consensus.offer_snapshot(index, term, members);
            let oldest = snapshots::purge(&mut disk.clone(), 2).unwrap();
            self.wal.purge(oldest)?;
        } else {
            self.snapshot = Some((writer, term, members));
        }
        Ok(())
    }
}
