//! Clients, and what they may and may not be shown.
//!
//! Each owns a znode that it alone writes, with rising numbers: what it reads there must be what it
//! wrote, at least what was acknowledged. All count in one znode by compare-and-set: each
//! version is won once, and those won later in time are larger. After a sync a client must see
//! what others were acknowledged before it asked. Nobody is shown an older state than before, on
//! whatever server, nor a newer one before the event that tells of it; and nobody is told that a
//! session is over which is not.

use std::collections::VecDeque;

use elkfk_wire::jute::{
    Acl, ConnectRequest, ConnectResponse, CreateKind, ErrorCode, EventKind, OpCode, Reader,
    ReplyHeader, Request, RequestHeader, Response, WatchedEvent, Zxid, create_flags, end_frame,
    frame_in, start_frame, xid,
};

use super::*;

pub(super) const CLIENTS: usize = 4;
const COUNTER: &str = "/counter";

#[derive(Debug, Clone, PartialEq)]
enum Sent {
    Create,
    Set(u64),
    Get,
    Ephemeral,
    /// Sets a watch on the next client's znode.
    Watch,
    Sync,
    /// Reads the next client's znode after a sync; at least this was acknowledged when it asked.
    GetOther(u64),
    CreateCounter,
    ReadCounter,
    /// Adds one where the version is still this; what was won before it was asked.
    Count {
        won: i32,
    },
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) connection: Option<ConnectionId>,
    pub(super) server: u64,
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
    /// Where a watch on the next one's znode is set: the state it was set in.
    watch: Option<i64>,
    pub(super) events: u64,
    /// It does nothing before.
    silent_until_ms: u64,
    /// The counter's version as read last.
    counter: Option<i32>,
    pub(super) all_acknowledged: u64,
    pub(super) refused_sessions: u64,
}

fn create(path: String, flags: i32) -> Request<'static> {
    Request::Create {
        kind: CreateKind::Create,
        path: path.into(),
        data: Some(0u64.to_be_bytes().to_vec().into()),
        acl: Some(vec![Acl::OPEN]),
        flags,
        ttl_ms: 0,
    }
}

impl World {
    pub(super) fn act(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if self.now_ms < client.silent_until_ms {
            return;
        }
        if client.connection.is_none() {
            let id = self.any_server();
            return self.connect(at, id);
        }
        let (is_live, server) = (client.is_live, client.server);
        if !is_live || client.outstanding.len() > 5 || !self.is_awake(server) {
            return;
        }
        let choice = self.random.random_range(0..16);
        let next = (at + 1) % CLIENTS;
        let (path, other) = (format!("/client{at}"), format!("/client{next}"));
        let others_acknowledged = self.clients[next].acknowledged;
        let won = self.won;
        let client = &mut self.clients[at];
        let get = |path: &str| Request::GetData { path: path.to_owned().into(), watch: false };
        let requests = match choice {
            _ if !client.is_created => {
                vec![(Sent::Create, create(path, create_flags::PERSISTENT))]
            }
            0 => vec![(Sent::Ephemeral, create(format!("/e{at}"), create_flags::EPHEMERAL))],
            1..3 => vec![(Sent::Get, get(&path))],
            3 => vec![(Sent::Watch, Request::Exists { path: other.into(), watch: true })],
            4..6 => {
                let sync = Request::Sync { path: "/".into() };
                let read = Sent::GetOther(others_acknowledged);
                vec![(Sent::Sync, sync), (read, get(&other))]
            }
            6..11 => match client.counter.take() {
                Some(version) => {
                    let data = Some(Vec::new().into());
                    let set = Request::SetData { path: COUNTER.into(), data, version };
                    vec![(Sent::Count { won }, set)]
                }
                None if choice == 6 => {
                    vec![(
                        Sent::CreateCounter,
                        create(COUNTER.to_owned(), create_flags::PERSISTENT),
                    )]
                }
                None => {
                    let path = COUNTER.into();
                    vec![(Sent::ReadCounter, Request::Exists { path, watch: false })]
                }
            },
            _ => {
                client.sent += 1;
                let data = Some(client.sent.to_be_bytes().to_vec().into());
                let request = Request::SetData { path: path.into(), data, version: -1 };
                vec![(Sent::Set(client.sent), request)]
            }
        };
        let mut frames = Vec::new();
        for (sent, request) in requests {
            client.next_xid += 1;
            client.outstanding.push_back((client.next_xid, sent));
            let start = start_frame(&mut frames);
            RequestHeader { xid: client.next_xid, op: request.op().code() }.encode(&mut frames);
            request.encode(&mut frames);
            end_frame(&mut frames, start);
        }
        let (connection, now) = (client.connection.unwrap_or_default(), self.now_of(server));
        if let Some(server) = self.server(server) {
            server.replica.set_now(now);
            server.replica.service.frames(connection, frames.into());
        }
        self.advance(server);
    }

    fn connect(&mut self, at: usize, server: u64) {
        if !self.is_awake(server) {
            return;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let now = self.now_of(server);
        let client = &mut self.clients[at];
        client.connection = Some(id);
        client.server = server;
        client.is_live = false;
        client.outstanding.clear();
        client.counter = None;
        let password = client.password.clone();
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(client.last_zxid),
            timeout_ms: SESSION_TIMEOUT_MS,
            session: client.session,
            password: &password,
            read_only: Some(false),
        };
        if let Some(one) = self.servers[server as usize - 1].as_mut() {
            one.replica.set_now(now);
            one.replica.service.connect(id, ([127, 0, 0, 1], id as u16).into(), &request);
        }
        self.advance(server);
    }

    /// The connection ends, as the client sees it.
    pub(super) fn forget_connection(&mut self, at: usize) {
        // A watch goes with its connection.
        self.clients[at].watch = None;
        self.clients[at].connection = None;
        self.clients[at].is_live = false;
    }

    pub(super) fn drop_client(&mut self, at: usize) {
        if let Some(id) = self.clients[at].connection {
            let server = self.clients[at].server;
            self.forget_connection(at);
            if let Some(server) = self.server(server) {
                server.replica.service.gone(id);
            }
            if self.random.random_bool(0.2) {
                self.clients[at].silent_until_ms = self.now_ms + 6000;
            }
        }
    }

    pub(super) fn deliver_to_clients(&mut self, id: u64) {
        let Some(server) = self.server(id) else { return };
        for delivery in server.replica.service.take_deliveries() {
            self.trace.update(&delivery.connection.to_be_bytes());
            self.trace.update(&delivery.bytes);
            let at = (self.clients.iter())
                .position(|client| client.connection == Some(delivery.connection));
            let Some(at) = at else { continue };
            let mut rest = &delivery.bytes[..];
            while let Ok(Some(frame)) = frame_in(rest, 1 << 20) {
                rest = &rest[4 + frame.len()..];
                self.received(at, frame);
            }
            if delivery.is_last {
                self.forget_connection(at);
                if let Some(server) = self.server(id) {
                    server.replica.service.gone(delivery.connection);
                }
            }
        }
    }

    fn received(&mut self, at: usize, frame: &[u8]) {
        let client = &mut self.clients[at];
        if !client.is_live {
            let response = ConnectResponse::decode(frame).unwrap();
            if response.session == SessionId(0) {
                let session = client.session;
                assert!(self.checks.closed.contains(&session), "{session} is said to be over");
                client.refused_sessions += 1;
            } else {
                client.is_live = true;
            }
            client.session = response.session;
            client.password = response.password.to_vec();
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
            let changes = &self.checks.changes[(at + 1) % CLIENTS];
            let change = changes.iter().find(|zxid| **zxid > set);
            assert!(
                change.is_none_or(|zxid| header.zxid.0 < *zxid),
                "client {at} is shown {} before the event of {change:?}",
                header.zxid
            );
        }
        let is_lost =
            [ErrorCode::ConnectionLoss, ErrorCode::SessionMoved, ErrorCode::SessionExpired]
                .into_iter()
                .any(|code| header.error == code.code());
        if is_lost {
            return;
        }
        client.all_acknowledged += 1;
        match sent {
            Sent::Create => {
                assert!(header.error == 0 || header.error == ErrorCode::NodeExists.code());
                client.is_created = true;
            }
            Sent::Set(value) => {
                assert_eq!(header.error, 0);
                client.acknowledged = value;
            }
            Sent::Get | Sent::GetOther(_) => {
                if let Sent::GetOther(_) = sent
                    && header.error == ErrorCode::NoNode.code()
                {
                    assert!(
                        !self.clients[(at + 1) % CLIENTS].is_created || sent == Sent::GetOther(0)
                    );
                    return;
                }
                assert_eq!(header.error, 0);
                let Ok(Response::Data(Some(data), _)) =
                    Response::decode(OpCode::GetData, &mut reader)
                else {
                    panic!("no data")
                };
                let value = u64::from_be_bytes(data.as_ref().try_into().unwrap());
                let (least, most) = match sent {
                    Sent::GetOther(least) => (least, self.clients[(at + 1) % CLIENTS].sent),
                    _ => (client.acknowledged, client.sent),
                };
                assert!(
                    (least..=most).contains(&value),
                    "client {at} reads {value}, not {least} to {most}"
                );
            }
            Sent::Watch => client.watch = Some(header.zxid.0),
            Sent::ReadCounter => {
                if header.error == 0
                    && let Ok(Response::Stat(stat)) = Response::decode(OpCode::Exists, &mut reader)
                {
                    client.counter = Some(stat.version);
                }
            }
            Sent::Count { won } => {
                if header.error == ErrorCode::BadVersion.code() {
                    return;
                }
                assert_eq!(header.error, 0);
                let Ok(Response::Stat(stat)) = Response::decode(OpCode::SetData, &mut reader)
                else {
                    panic!("no stat")
                };
                assert!(self.wins.insert(stat.version), "version {} is won twice", stat.version);
                assert!(stat.version > won, "{} is won after {won}", stat.version);
                self.won = self.won.max(stat.version);
            }
            Sent::CreateCounter | Sent::Sync | Sent::Ephemeral => {}
        }
    }

    /// Everything works again: it must come to rest, with nothing lost.
    pub(super) fn heal(&mut self) {
        self.faults = Faults {
            crashes: false,
            wipes: false,
            cuts: false,
            pauses: false,
            full_disks: false,
            clocks: false,
        };
        self.cuts.clear();
        for id in self.ids() {
            self.disks[id as usize - 1].set_capacity(u64::MAX);
            match self.server(id) {
                Some(server) => server.paused_until_ms = 0,
                None => self.start(id),
            }
        }
        for at in 0..CLIENTS {
            self.clients[at].silent_until_ms = 0;
        }
        let until_ms = self.now_ms + HEALED_WITHIN_MS;
        while self.now_ms < until_ms {
            self.work_for_5_ms();
            if self.random.random_bool(0.3) {
                let at = self.random.random_range(0..CLIENTS);
                self.act(at);
            }
        }
        for (at, client) in self.clients.iter().enumerate() {
            let standing = || {
                let servers = self.servers.iter().flatten();
                servers.map(|server| server.replica.standing()).collect::<Vec<_>>().join("\n")
            };
            assert!(client.is_live, "client {at} has no session\n{}", standing());
            assert!(
                client.is_created,
                "client {at} on {} at {:?} has written nothing, waits for {:?}\n{}",
                client.server,
                client.connection,
                client.outstanding,
                standing()
            );
        }
        self.settle();
        let newest = self.checks.newest();
        for id in self.ids() {
            let server = self.server(id).expect("all were started");
            assert!(
                server.replica.service.is_serving(),
                "server {id} serves: {:?}",
                server.replica.standing()
            );
            assert!(!server.replica.is_joining(), "server {id} is a member");
            assert_eq!(server.replica.service.machine.index(), newest, "server {id} has it all");
        }
        let tree = &self.servers[0].as_ref().expect("it was started").replica.service.machine.tree;
        for (at, client) in self.clients.iter().enumerate() {
            let node = tree.get(&format!("/client{at}")).expect("it was acknowledged");
            let value = u64::from_be_bytes(node.data.as_deref().unwrap().try_into().unwrap());
            assert!((client.acknowledged..=client.sent).contains(&value), "client {at}: {value}");
        }
        let counter = tree.get(COUNTER).map_or(0, |node| node.version);
        assert!(self.wins.last().is_none_or(|last| *last <= counter), "the counter goes back");
    }

    /// Nobody asks for anything more, until everything is everywhere.
    fn settle(&mut self) {
        let until_ms = self.now_ms + 3000;
        while self.now_ms < until_ms {
            self.work_for_5_ms();
        }
    }

    fn work_for_5_ms(&mut self) {
        self.pass(5);
        for id in self.ids() {
            self.persist(id);
            let wants = |server: &mut Server| {
                server.snapshot.is_some() || server.replica.consensus.wants_snapshot()
            };
            if self.server(id).is_some_and(wants) {
                self.snapshot(id);
            }
        }
        for _ in 0..self.servers.len() * 4 {
            self.deliver();
        }
    }
}

/// Everything must work again after this long without faults.
const HEALED_WITHIN_MS: u64 = 15_000;
