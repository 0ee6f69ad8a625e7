//! Clients: what they ask, on whatever server they come to. What they may be told stands in
//! [`answers`](super::answers).
//!
//! Each owns a znode that it alone writes, with rising numbers, and an ephemeral; all count in one
//! znode by compare-and-set, and write a pair of znodes by multi, which now and then must fail. They
//! watch each other's znodes and the children of the root, and set their watches again when they come
//! back. Some end their session, some leave without a word, some are silent until it is over.

use std::collections::VecDeque;

use elkfk_wire::jute::{
    Acl, ConnectRequest, CreateKind, Request, RequestHeader, Zxid, create_flags, end_frame,
    start_frame, xid,
};

use super::checks::{COUNTER, PAIR, ephemeral_path, own_path};
use super::*;

pub(super) const CLIENTS: usize = 4;
/// One that sends something this often at least is heard of.
const STEADY_GAP_MS: u64 = 600;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Sent {
    Create,
    Set(u64),
    /// What the own znode holds at least and at most, by what was asked before.
    Get(u64, u64),
    Ephemeral,
    DeleteEphemeral,
    /// Sets a watch on the next client's znode, or on the children of the root.
    Watch(Watch),
    SetWatches,
    Sync,
    /// Reads the next client's znode after a sync; at least this was acknowledged when it asked.
    GetOther(u64),
    CreateShared,
    ReadCounter,
    /// Adds one where the version is still this; what was won before it was asked.
    Count {
        won: i32,
    },
    /// Both of the pair, or neither.
    Pair(u64, bool),
    CloseSession,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Watch {
    Data,
    Children,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outstanding {
    pub(super) xid: i32,
    pub(super) sent: Sent,
    pub(super) sent_ms: u64,
    /// The newest zxid of a write that anybody was answered when it was asked.
    pub(super) after: i64,
}

#[derive(Default)]
pub(super) struct Client {
    pub(super) connection: Option<ConnectionId>,
    pub(super) server: u64,
    /// The handshake is answered.
    pub(super) is_live: bool,
    pub(super) session: SessionId,
    pub(super) password: Vec<u8>,
    pub(super) outstanding: VecDeque<Outstanding>,
    next_xid: i32,
    pub(super) last_zxid: i64,
    /// Whether its znode was ever acknowledged.
    pub(super) is_created: bool,
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// The state the watch was set in, and whether there was anything to watch.
    pub(super) watches: [Option<(i64, bool)>; 2],
    pub(super) must_set_watches: bool,
    pub(super) events: u64,
    /// It does nothing before.
    pub(super) silent_until_ms: u64,
    /// Since when it has been heard of, on one connection, without a gap.
    pub(super) steady_since_ms: u64,
    sent_ms: u64,
    pub(super) answered_ms: u64,
    /// The counter's version as read last.
    pub(super) counter: Option<i32>,
    pub(super) all_acknowledged: u64,
    pub(super) is_closing: bool,
    /// It has asked for the end of this one, be it on an earlier connection.
    pub(super) ended: SessionId,
}

fn create(path: &str, flags: i32, data: &[u8]) -> Request<'static> {
    Request::Create {
        kind: CreateKind::Create,
        path: path.to_owned().into(),
        data: Some(data.to_vec().into()),
        acl: Some(vec![Acl::OPEN]),
        flags,
        ttl_ms: 0,
    }
}

fn get(path: &str) -> Request<'static> {
    Request::GetData { path: path.to_owned().into(), watch: false }
}

fn set(path: &str, data: &[u8], version: i32) -> Request<'static> {
    Request::SetData { path: path.to_owned().into(), data: Some(data.to_vec().into()), version }
}

impl World {
    pub(super) fn act(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if self.now_ms < client.silent_until_ms || client.is_closing {
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
        let requests = match self.clients[at].must_set_watches {
            true => vec![self.watches_again(at)],
            false => self.requests(at),
        };
        let (after, now_ms) = (self.acknowledged_zxid, self.now_ms);
        let client = &mut self.clients[at];
        if now_ms > client.sent_ms + STEADY_GAP_MS {
            client.steady_since_ms = now_ms;
        }
        client.sent_ms = now_ms;
        let mut frames = Vec::new();
        for (sent, request) in requests {
            client.next_xid += 1;
            let xid = if sent == Sent::SetWatches { xid::SET_WATCHES } else { client.next_xid };
            if let (Sent::Set(value), Some(connection)) = (&sent, client.connection) {
                self.checks.asked.insert((at, *value), connection);
            }
            client.outstanding.push_back(Outstanding { xid, sent, sent_ms: now_ms, after });
            let start = start_frame(&mut frames);
            RequestHeader { xid, op: request.op().code() }.encode(&mut frames);
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

    /// What one thinks of next; some of it only makes sense together.
    fn requests(&mut self, at: usize) -> Vec<(Sent, Request<'static>)> {
        let mut choice = self.random.random_range(0..24);
        let next = (at + 1) % CLIENTS;
        let others_acknowledged = self.clients[next].acknowledged;
        let won = self.won;
        let client = &mut self.clients[at];
        if choice == 23 && self.faults.is_calm {
            choice = 0;
        }
        match choice {
            _ if !client.is_created => {
                let data = 0u64.to_be_bytes();
                vec![(Sent::Create, create(&own_path(at), create_flags::PERSISTENT, &data))]
            }
            0 => {
                let request = create(&ephemeral_path(at), create_flags::EPHEMERAL, b"here");
                vec![(Sent::Ephemeral, request)]
            }
            1 => {
                let path = ephemeral_path(at).into();
                vec![(Sent::DeleteEphemeral, Request::Delete { path, version: -1 })]
            }
            2..4 => {
                vec![(Sent::Get(client.acknowledged, client.sent), get(&own_path(at)))]
            }
            4 => {
                let request = Request::Exists { path: own_path(next).into(), watch: true };
                vec![(Sent::Watch(Watch::Data), request)]
            }
            5 => {
                let request = Request::GetChildren2 { path: "/".into(), watch: true };
                vec![(Sent::Watch(Watch::Children), request)]
            }
            6..8 => {
                let sync = Request::Sync { path: "/".into() };
                let mut all = vec![(Sent::Sync, sync)];
                all.push((Sent::GetOther(others_acknowledged), get(&own_path(next))));
                if choice == 7 {
                    // A write right behind them, which they must not see.
                    all.push((Sent::Get(client.acknowledged, client.sent), get(&own_path(at))));
                    client.sent += 1;
                    let data = client.sent.to_be_bytes();
                    all.push((Sent::Set(client.sent), set(&own_path(at), &data, -1)));
                }
                all
            }
            8..13 => match client.counter.take() {
                Some(version) => vec![(Sent::Count { won }, set(COUNTER, b"", version))],
                None if choice == 8 => {
                    let shared = [COUNTER, PAIR[0], PAIR[1]].map(|path| create(path, 0, b""));
                    vec![(Sent::CreateShared, Request::Multi(shared.to_vec()))]
                }
                None => {
                    let path = COUNTER.into();
                    vec![(Sent::ReadCounter, Request::Exists { path, watch: false })]
                }
            },
            13..16 => {
                client.sent += 1;
                let value = (at as u64) << 32 | client.sent;
                let data = value.to_be_bytes();
                let must_fail = choice == 15;
                let mut all = vec![set(PAIR[0], &data, -1), set(PAIR[1], &data, -1)];
                if must_fail {
                    all.insert(1, set(PAIR[1], &data, i32::MAX));
                }
                vec![(Sent::Pair(value, must_fail), Request::Multi(all))]
            }
            23 => {
                (client.is_closing, client.ended) = (true, client.session);
                vec![(Sent::CloseSession, Request::CloseSession)]
            }
            _ => {
                client.sent += 1;
                let data = client.sent.to_be_bytes();
                vec![(Sent::Set(client.sent), set(&own_path(at), &data, -1))]
            }
        }
    }

    /// First of all on a new connection, as ZooKeeper's clients do.
    fn watches_again(&mut self, at: usize) -> (Sent, Request<'static>) {
        let other = own_path((at + 1) % CLIENTS);
        let client = &mut self.clients[at];
        client.must_set_watches = false;
        let [data, children] = client.watches;
        let paths = |is_set: bool, path: &str| match is_set {
            true => vec![path.to_owned().into()],
            false => Vec::new(),
        };
        let request = Request::SetWatches {
            relative_zxid: Zxid(client.last_zxid),
            data: paths(data.is_some_and(|(_, was_there)| was_there), &other),
            exist: paths(data.is_some_and(|(_, was_there)| !was_there), &other),
            child: paths(children.is_some(), "/"),
        };
        (Sent::SetWatches, request)
    }

    fn connect(&mut self, at: usize, server: u64) {
        if !self.is_awake(server) {
            return;
        }
        let id = self.next_connection;
        self.next_connection += 1;
        let (now, now_ms) = (self.now_of(server), self.now_ms);
        let client = &mut self.clients[at];
        client.connection = Some(id);
        client.server = server;
        client.is_live = false;
        client.outstanding.clear();
        client.counter = None;
        (client.steady_since_ms, client.sent_ms) = (now_ms, now_ms);
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
        let client = &mut self.clients[at];
        client.connection = None;
        client.is_live = false;
        client.is_closing = false;
        client.must_set_watches = false;
    }

    pub(super) fn drop_client(&mut self, at: usize) {
        if self.faults.is_calm && self.random.random_bool(0.95) {
            return;
        }
        if let Some(id) = self.clients[at].connection {
            let server = self.clients[at].server;
            self.forget_connection(at);
            // Now and then the server does not hear of it.
            let is_noticed = self.random.random_bool(0.7);
            if let Some(server) = self.server(server).filter(|_| is_noticed) {
                server.replica.service.gone(id);
            }
            if self.random.random_bool(0.2) {
                self.clients[at].silent_until_ms = self.now_ms + 6000;
            }
        }
    }
}
