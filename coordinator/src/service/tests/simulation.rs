//! Clients, a server and its disk, with crashes, torn writes and a disk that fills up.
//!
//! All chance comes from the seed: the same seed gives the same bytes to the same clients. Checked:
//! nothing acknowledged is lost, no client sees the state go back or a newer state before the event
//! that tells of it, no session expires early, no ephemeral outlives its session, and what is
//! replayed after a crash is what was applied before it.
//!
//! `ELKFK_SIMULATION_SEEDS=N` runs so many seeds in place of the usual few, `FROM..TO` those.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Range;

use elkfk_wire::jute::{
    Acl, ConnectRequest, ConnectResponse, CreateKind, ErrorCode, EventKind, create_flags,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::consensus::{Consensus, RaftConsensus};
use crate::recovery::{Recovered, recover};
use crate::snapshots::{self, SnapshotWriter};
use crate::wal::simulated::SimulatedDisk;
use crate::wal::{AppendError, Batch, Wal};

const CLIENTS: usize = 4;
const STEPS: usize = 3000;
/// Small, so that segments are rolled and purged.
const SEGMENT_BYTES: u64 = 16 << 10;

struct Server {
    service: Service,
    consensus: RaftConsensus,
    wal: Wal<SimulatedDisk>,
    /// Not yet durable.
    batch: Option<(u64, Batch)>,
    snapshot: Option<SnapshotWriter<SimulatedDisk>>,
}

#[derive(Debug, PartialEq)]
enum Sent {
    Create,
    Set(u64),
    Get,
    Ephemeral,
    /// Sets a watch on the other's znode.
    Watch,
}

#[derive(Default)]
struct Client {
    connection: Option<ConnectionId>,
    /// The handshake is answered.
    is_live: bool,
    session: SessionId,
    password: Vec<u8>,
    outstanding: VecDeque<(i32, Sent)>,
    next_xid: i32,
    last_zxid: i64,
    /// Whether its znode was ever acknowledged.
    is_created: bool,
    sent: u64,
    acknowledged: u64,
    /// Where a watch on the other's znode is set: the state it was set in.
    watch: Option<i64>,
    /// Events of those watches.
    events: u64,
    /// It does not come back before.
    silent_until_ms: u64,
}

struct World {
    random: StdRng,
    disk: SimulatedDisk,
    now: Now,
    server: Server,
    clients: Vec<Client>,
    next_connection: ConnectionId,
    lives: u64,
    /// Digest of the tree after each index, from the life that applied it first.
    digests: HashMap<u64, u64>,
    /// Everything any client was sent.
    trace: crc32fast::Hasher,
    acknowledged: u64,
    /// Of each client's znode, all that changed it.
    changes: [Vec<i64>; CLIENTS],
    /// When each session was heard of last.
    heard: HashMap<SessionId, u64>,
    expired: u64,
}

/// What a run has seen, to be sure that it has seen enough.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    trace: u32,
    acknowledged: u64,
    lives: u64,
    events: u64,
    expired: u64,
}

fn start(disk: &SimulatedDisk, life: u64, now: Now) -> Server {
    // Files of the snapshots and of the log have names of their own, so one directory does.
    let Recovered { machine, wal, consensus, .. } =
        recover(disk.clone(), disk.clone(), 1, SEGMENT_BYTES)
            .expect("a crash leaves nothing damaged");
    let service = Service::new(machine, SETTINGS, life, now);
    Server { service, consensus, wal, batch: None, snapshot: None }
}

impl World {
    fn new(seed: u64) -> Self {
        let disk = SimulatedDisk::new(seed ^ 0xd15c);
        let now = Now { steady_ms: 1, wall_ms: 1_700_000_000_000 };
        let server = start(&disk, 1, now);
        Self {
            random: StdRng::seed_from_u64(seed),
            disk,
            now,
            server,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            next_connection: 1,
            lives: 1,
            digests: HashMap::new(),
            trace: crc32fast::Hasher::new(),
            acknowledged: 0,
            changes: Default::default(),
            heard: HashMap::new(),
            expired: 0,
        }
    }

    fn is_ready(&self) -> bool {
        let machine = &self.server.service.machine;
        machine.has_secret() && machine.term() == self.server.consensus.term()
    }

    fn step(&mut self) {
        match self.random.random_range(0..1000) {
            0..450 => {
                let client = self.random.random_range(0..CLIENTS);
                self.act(client);
            }
            450..800 => self.persist(),
            800..900 => {
                let ms = self.random.random_range(1..60);
                self.pass(ms);
            }
            900..980 => self.snapshot(),
            980..985 => self.fill_or_empty_the_disk(),
            985..990 => {
                let client = self.random.random_range(0..CLIENTS);
                self.drop_connection(client);
                if self.random.random_bool(0.3) {
                    self.clients[client].silent_until_ms = self.now.steady_ms + 2000;
                }
            }
            _ => self.crash(),
        }
        self.advance();
        self.deliver();
    }

    fn pass(&mut self, ms: u64) {
        self.now.steady_ms += ms;
        self.now.wall_ms += ms as i64;
        self.server.service.set_now(self.now);
        let closing = |server: &Server| -> BTreeSet<SessionId> {
            let heard = server.service.heard.iter();
            heard.filter(|(_, heard)| heard.is_closing).map(|(session, _)| *session).collect()
        };
        let before = closing(&self.server);
        self.server.service.tick();
        for session in closing(&self.server).difference(&before) {
            let timeout_ms = self.server.service.heard[session].timeout_ms;
            let silent_ms = self.now.steady_ms - self.heard[session];
            assert!(silent_ms > timeout_ms as u64, "{session} is over after {silent_ms} ms");
            self.expired += 1;
        }
        self.server.consensus.tick();
    }

    fn act(&mut self, at: usize) {
        if !self.is_ready() {
            return;
        }
        let client = &mut self.clients[at];
        if self.now.steady_ms < client.silent_until_ms {
            return;
        }
        let Some(id) = client.connection else {
            let id = self.next_connection;
            self.next_connection += 1;
            client.connection = Some(id);
            client.is_live = false;
            client.outstanding.clear();
            let request = ConnectRequest {
                protocol_version: 0,
                last_zxid_seen: Zxid(client.last_zxid),
                timeout_ms: 1000,
                session: client.session,
                password: &client.password,
                read_only: Some(false),
            };
            self.server.service.connect(id, ([127, 0, 0, 1], id as u16).into(), &request);
            return;
        };
        if !client.is_live || client.outstanding.len() > 5 {
            return;
        }
        let choice = self.random.random_range(0..10);
        let path = format!("/client{at}");
        let create = |path: String, flags| Request::Create {
            kind: CreateKind::Create,
            path: path.into(),
            data: Some(0u64.to_be_bytes().to_vec().into()),
            acl: Some(vec![Acl::OPEN]),
            flags,
            ttl_ms: 0,
        };
        let other = format!("/client{}", (at + 1) % CLIENTS);
        let (sent, request) = match choice {
            _ if !client.is_created => (Sent::Create, create(path, create_flags::PERSISTENT)),
            0 => (Sent::Ephemeral, create(format!("/e{at}"), create_flags::EPHEMERAL)),
            1..4 => (Sent::Get, Request::GetData { path: path.into(), watch: false }),
            4 => (Sent::Watch, Request::Exists { path: other.into(), watch: true }),
            _ => {
                client.sent += 1;
                let data = Some(client.sent.to_be_bytes().to_vec().into());
                let request = Request::SetData { path: path.into(), data, version: -1 };
                (Sent::Set(client.sent), request)
            }
        };
        client.next_xid += 1;
        client.outstanding.push_back((client.next_xid, sent));
        let mut frame = Vec::new();
        let start = start_frame(&mut frame);
        RequestHeader { xid: client.next_xid, op: request.op().code() }.encode(&mut frame);
        request.encode(&mut frame);
        end_frame(&mut frame, start);
        self.heard.insert(client.session, self.now.steady_ms);
        self.server.service.frames(id, frame.into());
    }

    fn persist(&mut self) {
        let Some((number, batch)) = self.server.batch.take() else {
            let result = self.server.wal.keep_room();
            self.refuse(result.is_err());
            return;
        };
        match self.server.wal.append(std::slice::from_ref(&batch)) {
            Ok(()) => self.server.consensus.persisted(number),
            Err(AppendError::Full(_)) => {
                self.server.batch = Some((number, batch));
                self.refuse(true);
            }
            Err(AppendError::Failed(error)) => panic!("{error}"),
        }
    }

    fn refuse(&mut self, is_full: bool) {
        self.server.service.set_refusing(is_full.then(|| "full".to_owned()));
    }

    fn fill_or_empty_the_disk(&mut self) {
        let is_filled = self.random.random_bool(0.3);
        self.disk.set_capacity(if is_filled { 0 } else { u64::MAX });
    }

    fn snapshot(&mut self) {
        if self.continue_snapshot().is_err() {
            // The disk is full.
            snapshots::remove_unfinished(&mut self.disk);
            self.server.service.machine.tree.abandon_image();
        }
    }

    fn continue_snapshot(&mut self) -> std::io::Result<()> {
        let machine = &mut self.server.service.machine;
        let Some(mut writer) = self.server.snapshot.take() else {
            let mut writer = SnapshotWriter::start(self.disk.clone(), machine.index())?;
            writer.write(&machine.start_image())?;
            self.server.snapshot = Some(writer);
            return Ok(());
        };
        let (piece, is_last) = machine.tree.next_image_piece(100).expect("an image is under way");
        writer.write(&piece)?;
        if is_last {
            writer.finish()?;
            let oldest = snapshots::purge(&mut self.disk, 2).unwrap();
            self.server.wal.purge(oldest)?;
        } else {
            self.server.snapshot = Some(writer);
        }
        Ok(())
    }

    fn drop_connection(&mut self, at: usize) {
        // A watch goes with its connection.
        self.clients[at].watch = None;
        if let Some(id) = self.clients[at].connection.take() {
            self.server.service.gone(id);
        }
    }

    fn crash(&mut self) {
        // A batch on its way may be written in part.
        if let Some((_, batch)) = self.server.batch.take() {
            self.disk.fail_sync_after(0);
            let _ = self.server.wal.append(std::slice::from_ref(&batch));
            self.disk.fail_sync_after(u32::MAX);
        }
        self.disk.lose_power();
        self.lives += 1;
        for client in &mut self.clients {
            (client.connection, client.watch) = (None, None);
        }
        self.server = start(&self.disk, self.lives, self.now);
        let sessions = self.server.service.machine.sessions();
        self.heard.extend(sessions.map(|(session, _)| (session, self.now.steady_ms)));
        let machine = &self.server.service.machine;
        if let Some(digest) = self.digests.get(&machine.index()) {
            assert_eq!(machine.tree.digest(), *digest, "replay of index {}", machine.index());
        }
    }

    fn advance(&mut self) {
        let server = &mut self.server;
        loop {
            if !server.service.machine.has_secret()
                && server.consensus.is_leader()
                && server.service.machine.term() == server.consensus.term()
            {
                let secret = self.random.random();
                let command = Command {
                    time_ms: self.now.wall_ms,
                    origin: Origin::default(),
                    session: SessionId(0),
                    action: Action::Secret(secret),
                };
                server.consensus.propose(command.encode()).unwrap();
            }
            for proposal in server.service.take_proposals() {
                server.consensus.propose(proposal).expect("the only voter leads");
            }
            if server.batch.is_some() {
                return;
            }
            let Some(ready) = server.consensus.ready() else { return };
            for entry in &ready.committed {
                server.service.apply(entry);
                let machine = &server.service.machine;
                let digest = machine.tree.digest();
                let first = *self.digests.entry(entry.index).or_insert(digest);
                assert_eq!(digest, first, "index {} was applied in two ways", entry.index);
                for (at, changes) in self.changes.iter_mut().enumerate() {
                    let changed =
                        machine.tree.get(&format!("/client{at}")).map(|node| node.mzxid.0);
                    changes.extend(changed.filter(|zxid| changes.last() < Some(zxid)));
                }
                for (session, _) in machine.sessions() {
                    self.heard.entry(session).or_insert(self.now.steady_ms);
                }
                for owner in machine.tree.ephemeral_owners() {
                    assert!(machine.session(owner).is_some(), "{owner} is over");
                }
            }
            if let Some(last) = ready.committed.last() {
                server.consensus.applied(last.index);
            }
            if let Some(batch) = ready.batch {
                // What was never durable may be replaced by other entries after a crash.
                for entry in &batch.entries {
                    assert!(!self.digests.contains_key(&entry.index), "a committed entry changes");
                }
                server.batch = Some((ready.number, batch));
            }
        }
    }

    fn deliver(&mut self) {
        for delivery in self.server.service.take_deliveries() {
            self.trace.update(&delivery.connection.to_be_bytes());
            self.trace.update(&delivery.bytes);
            let at = self
                .clients
                .iter()
                .position(|client| client.connection == Some(delivery.connection));
            let Some(at) = at else { continue };
            let mut rest = &delivery.bytes[..];
            while let Ok(Some(frame)) = frame_in(rest, 1 << 20) {
                rest = &rest[4 + frame.len()..];
                self.received(at, frame);
            }
            if delivery.is_last {
                let client = &self.clients[at];
                assert!(
                    client.is_live
                        || !delivery.bytes.is_empty()
                        || self.server.service.is_refusing(),
                    "client {at} has seen what the server has not"
                );
                self.drop_connection(at);
            }
        }
    }

    fn received(&mut self, at: usize, frame: &[u8]) {
        let client = &mut self.clients[at];
        if !client.is_live {
            let response = ConnectResponse::decode(frame).unwrap();
            client.is_live = true;
            client.session = response.session;
            client.password = response.password.to_vec();
            self.heard.insert(client.session, self.now.steady_ms);
            return;
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        if header.xid == xid::NOTIFICATION {
            let event = WatchedEvent::decode(&mut reader).unwrap();
            assert!(matches!(event.kind, EventKind::Created | EventKind::DataChanged));
            assert!(client.watch.take().is_some(), "an event of no watch");
            client.events += 1;
            return;
        }
        let (xid, sent) = client.outstanding.pop_front().expect("answers answer");
        assert_eq!(header.xid, xid, "answers come in order");
        assert!(header.zxid.0 >= client.last_zxid, "the state goes back");
        client.last_zxid = header.zxid.0;
        if let Some(set) = client.watch {
            let changes = &self.changes[(at + 1) % CLIENTS];
            let change = changes.iter().find(|zxid| **zxid > set);
            assert!(
                change.is_none_or(|zxid| header.zxid.0 < *zxid),
                "client {at} is shown {} before the event of {change:?}",
                header.zxid
            );
        }
        if header.error == ErrorCode::ConnectionLoss.code() {
            return;
        }
        match sent {
            Sent::Create => {
                assert!(header.error == 0 || header.error == ErrorCode::NodeExists.code());
                client.is_created = true;
            }
            Sent::Set(value) => {
                assert_eq!(header.error, 0);
                client.acknowledged = value;
                self.acknowledged += 1;
            }
            Sent::Get => {
                assert_eq!(header.error, 0);
                let Ok(Response::Data(Some(data), _)) =
                    Response::decode(OpCode::GetData, &mut reader)
                else {
                    panic!("no data")
                };
                let value = u64::from_be_bytes(data.as_ref().try_into().unwrap());
                assert!(
                    (client.acknowledged..=client.sent).contains(&value),
                    "client {at} reads {value}, of {} {} are acknowledged",
                    client.sent,
                    client.acknowledged
                );
            }
            Sent::Watch => client.watch = Some(header.zxid.0),
            Sent::Ephemeral => {}
        }
    }

    /// Everything works again: it must come to rest, with nothing lost.
    fn heal(&mut self) {
        self.disk.set_capacity(u64::MAX);
        self.crash();
        for _ in 0..400 {
            self.persist();
            self.advance();
            self.deliver();
            self.pass(10);
            for at in 0..CLIENTS {
                self.act(at);
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            assert!(client.is_live, "client {at} has no session");
            assert!(client.is_created);
            let node = self.server.service.machine.tree.get(&format!("/client{at}")).unwrap();
            let value = u64::from_be_bytes(node.data.as_deref().unwrap().try_into().unwrap());
            assert!((client.acknowledged..=client.sent).contains(&value), "client {at}: {value}");
        }
    }
}

fn run(seed: u64) -> Seen {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.heal();
    Seen {
        trace: world.trace.finalize(),
        acknowledged: world.acknowledged,
        lives: world.lives,
        events: world.clients.iter().map(|client| client.events).sum(),
        expired: world.expired,
    }
}

fn parse_seeds(text: &str) -> Option<Range<u64>> {
    let seeds = match text.split_once("..") {
        Some((from, to)) => from.parse().ok()?..to.parse().ok()?,
        None => 0..text.parse().ok()?,
    };
    (!seeds.is_empty()).then_some(seeds)
}

fn seeds() -> Range<u64> {
    match std::env::var("ELKFK_SIMULATION_SEEDS") {
        Err(_) => 0..20,
        Ok(text) => parse_seeds(&text).unwrap_or_else(|| {
            panic!("ELKFK_SIMULATION_SEEDS={text}: give a number of seeds, or FROM..TO")
        }),
    }
}

#[test]
fn seeds_are_a_number_or_a_range() {
    assert_eq!(parse_seeds("10000"), Some(0..10000));
    assert_eq!(parse_seeds("7..9"), Some(7..9));
    for text in ["", "0", "9..7", "7..", "many"] {
        assert_eq!(parse_seeds(text), None, "{text}");
    }
}

#[test]
fn nothing_acknowledged_is_lost_whatever_happens() {
    let mut all = Seen::default();
    for seed in seeds() {
        let result = std::panic::catch_unwind(|| run(seed));
        let Ok(seen) = result else { panic!("seed {seed} failed") };
        all.acknowledged += seen.acknowledged;
        all.lives += seen.lives;
        all.events += seen.events;
        all.expired += seen.expired;
    }
    // Or the simulation would prove nothing.
    let count = seeds().count() as u64;
    assert!(all.acknowledged > count * 100 && all.lives > count * 5, "{all:?}");
    assert!(all.events > count * 10 && all.expired * 10 > count, "{all:?}");
    println!("{all:?}");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let seed = seeds().start;
    assert_eq!(run(seed), run(seed));
    assert_ne!(run(seed).trace, run(seed + 1).trace);
}
