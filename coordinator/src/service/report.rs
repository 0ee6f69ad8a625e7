//! What the four-letter words and the AdminServer tell of the service: figures, not words.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use elkfk_wire::jute::{OpCode, SessionId, Zxid};

use super::{ConnectionId, Service};

/// Shortest, longest and sum of what requests took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latency {
    count: u64,
    sum_ms: u64,
    pub(crate) min_ms: u64,
    pub(crate) max_ms: u64,
}

impl Latency {
    pub(super) fn add(&mut self, latency_ms: u64) {
        self.min_ms = if self.count == 0 { latency_ms } else { self.min_ms.min(latency_ms) };
        self.max_ms = self.max_ms.max(latency_ms);
        self.sum_ms += latency_ms;
        self.count += 1;
    }

    pub(crate) fn average_ms(&self) -> u64 {
        self.sum_ms.checked_div(self.count).unwrap_or(0)
    }
}

/// The last, the smallest and the largest of some sizes in bytes; -1 where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) last: i64,
    pub(crate) min: i64,
    pub(crate) max: i64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { last: -1, min: -1, max: -1 }
    }
}

impl Sizes {
    pub(crate) fn add(&mut self, bytes: usize) {
        let bytes = bytes as i64;
        self.min = if self.last == -1 { bytes } else { self.min.min(bytes) };
        self.max = self.max.max(bytes);
        self.last = bytes;
    }
}

/// ZooKeeper's default; nothing here is traced by it.
const TRACE_MASK: i64 = 306;

#[derive(Debug)]
pub(super) struct Report {
    pub(super) latency: Latency,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) outstanding: u64,
    pub(super) last_tick_ms: u64,
    /// Of the answers to clients, without their length.
    pub(super) answers: Sizes,
    trace_mask: i64,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            latency: Latency::default(),
            received: 0,
            sent: 0,
            outstanding: 0,
            last_tick_ms: 0,
            answers: Sizes::default(),
            trace_mask: TRACE_MASK,
        }
    }
}

#[derive(Debug)]
pub(super) struct ConnectionReport {
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) timeout_ms: i32,
    pub(super) last_op: i32,
    last_xid: i32,
    pub(super) last_zxid: Zxid,
    since_wall_ms: i64,
    last_answer_ms: u64,
    last_latency_ms: u64,
    latency: Latency,
}

impl ConnectionReport {
    pub(super) fn new(since_wall_ms: i64) -> Self {
        Self {
            // The handshake.
            received: 1,
            sent: 0,
            timeout_ms: 0,
            last_op: 0,
            last_xid: 0,
            last_zxid: Zxid(-1),
            since_wall_ms,
            last_answer_ms: 0,
            last_latency_ms: 0,
            latency: Latency::default(),
        }
    }

    pub(super) fn answered(&mut self, xid: i32, op: i32, latency_ms: u64, now_ms: u64) {
        // Those below number no request.
        if xid >= 0 {
            self.last_xid = xid;
        }
        (self.last_op, self.last_latency_ms, self.last_answer_ms) = (op, latency_ms, now_ms);
        self.latency.add(latency_ms);
    }
}

/// ZooKeeper's version, in whose place we stand: clients and scripts look for it.
pub(crate) const VERSION: &str =
    concat!("3.5.7-elkfk-", env!("CARGO_PKG_VERSION"), ", built on 02/10/2020 11:30 GMT");

/// Of the whole server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) latency: Latency,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    pub(crate) outstanding: u64,
    pub(crate) zxid: Zxid,
    pub(crate) znodes: usize,
    pub(crate) watches: usize,
    pub(crate) ephemerals: usize,
    /// Of paths and data.
    pub(crate) data_bytes: u64,
    pub(crate) answers: Sizes,
    pub(crate) sessions: usize,
    pub(crate) digest: u64,
}

/// Of one client.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionFigures {
    pub(crate) peer: SocketAddr,
    /// Requests without an answer.
    pub(crate) queued: usize,
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// 0 before it has one.
    pub(crate) session: SessionId,
    /// The last request answered, in ZooKeeper's four letters.
    pub(crate) last_op: &'static str,
    pub(crate) since_wall_ms: i64,
    pub(crate) timeout_ms: i32,
    pub(crate) last_xid: i32,
    pub(crate) last_zxid: Zxid,
    /// On the service's clock.
    pub(crate) last_answer_ms: u64,
    pub(crate) last_latency_ms: u64,
    pub(crate) latency: Latency,
}

/// By the moment on the service's clock at which they end, if nothing more is heard of them.
pub(crate) type Expiries<T> = BTreeMap<u64, Vec<T>>;

/// ZooKeeper gives a connection without a session so long, and counts all of them in such steps.
const CONNECTION_STEP_MS: u64 = 10_000;

/// The end of the step that a moment is in: ZooKeeper looks at its sessions that often.
fn step_end(ms: u64, step_ms: u64) -> u64 {
    (ms / step_ms.max(1) + 1) * step_ms.max(1)
}

impl Service {
    pub(crate) fn figures(&self) -> Figures {
        let tree = &self.machine.tree;
        Figures {
            latency: self.report.latency,
            received: self.report.received,
            sent: self.report.sent,
            outstanding: self.report.outstanding,
            zxid: self.machine.zxid(),
            // ZooKeeper counts the root twice, under its name and without.
            znodes: tree.len() + 1,
            watches: self.watches.counts().2,
            ephemerals: tree.ephemeral_count(),
            data_bytes: tree.data_bytes() + tree.path_chars(),
            answers: self.report.answers,
            sessions: self.heard.len(),
            digest: tree.digest(),
        }
    }

    /// Those with a session or on the way to one, in the order they came.
    pub(crate) fn connection_figures(&self) -> Vec<ConnectionFigures> {
        let mut connections: Vec<_> = self.connections.iter().collect();
        connections.sort_unstable_by_key(|(id, _)| **id);
        let figures = connections.into_iter().map(|(_, connection)| {
            let report = &connection.report;
            ConnectionFigures {
                peer: connection.peer,
                queued: connection.pending.len(),
                received: report.received,
                sent: report.sent,
                session: connection.session,
                last_op: four_letters(report.last_op),
                since_wall_ms: report.since_wall_ms,
                timeout_ms: report.timeout_ms,
                last_xid: report.last_xid,
                last_zxid: report.last_zxid,
                last_answer_ms: report.last_answer_ms,
                last_latency_ms: report.last_latency_ms,
                latency: report.latency,
            }
        });
        figures.collect()
    }

    /// Timeouts of all sessions, in milliseconds.
    pub(crate) fn session_timeouts(&self) -> impl Iterator<Item = (SessionId, i32)> {
        self.heard.iter().map(|(session, heard)| (*session, heard.timeout_ms))
    }

    pub(crate) fn session_expiries(&self, tick_ms: u64) -> Expiries<SessionId> {
        let mut expiries = Expiries::new();
        for (session, heard) in &self.heard {
            let end_ms = heard.last_ms + u64::from(heard.timeout_ms.unsigned_abs());
            expiries.entry(step_end(end_ms, tick_ms)).or_insert_with(Vec::new).push(*session);
        }
        expiries
    }

    /// `asker` has none of the service's connections.
    pub(crate) fn connection_expiries(
        &self,
        asker: SocketAddr,
    ) -> Expiries<(SocketAddr, SessionId)> {
        let mut expiries = Expiries::new();
        let end_ms = step_end(self.now.steady_ms + CONNECTION_STEP_MS, CONNECTION_STEP_MS);
        expiries.entry(end_ms).or_insert_with(Vec::new).push((asker, SessionId(0)));
        for connection in self.connections.values() {
            let heard = self.heard.get(&connection.session);
            let end_ms = heard.map_or(self.now.steady_ms + CONNECTION_STEP_MS, |heard| {
                heard.last_ms + u64::from(heard.timeout_ms.unsigned_abs())
            });
            let end_ms = step_end(end_ms, CONNECTION_STEP_MS);
            let entry = (connection.peer, connection.session);
            expiries.entry(end_ms).or_insert_with(Vec::new).push(entry);
        }
        expiries.values_mut().for_each(|connections| connections.sort_unstable());
        expiries
    }

    /// The wall clock's time of a moment on the service's.
    pub(crate) fn wall_ms(&self, steady_ms: u64) -> i64 {
        self.now
            .wall_ms
            .saturating_add_unsigned(steady_ms)
            .saturating_sub_unsigned(self.now.steady_ms)
    }

    /// Every session with ephemerals, and their paths.
    pub(crate) fn ephemerals(&self) -> Vec<(SessionId, Vec<String>)> {
        let tree = &self.machine.tree;
        tree.ephemeral_owners().into_iter().map(|owner| (owner, tree.ephemerals(owner))).collect()
    }

    /// The sessions that watch a path's data or existence: ZooKeeper tells of no others.
    pub(crate) fn watchers_by_path(&self) -> BTreeMap<&str, Vec<SessionId>> {
        let mut paths = BTreeMap::new();
        for (path, watchers) in self.watches.data() {
            let sessions = watchers.iter().filter_map(|id| Some(self.connections.get(id)?.session));
            let mut sessions: Vec<_> = sessions.collect();
            sessions.sort_unstable();
            paths.insert(path, sessions);
        }
        paths
    }

    /// The same the other way round.
    pub(crate) fn watched_by_session(&self) -> BTreeMap<SessionId, Vec<&str>> {
        let mut sessions = BTreeMap::new();
        for (path, watchers) in self.watchers_by_path() {
            for session in watchers {
                sessions.entry(session).or_insert_with(Vec::new).push(path);
            }
        }
        sessions
    }

    pub(crate) fn trace_mask(&self) -> i64 {
        self.report.trace_mask
    }

    pub(crate) fn set_trace_mask(&mut self, mask: i64) {
        self.report.trace_mask = mask;
    }

    /// ZooKeeper counts a word among the requests.
    pub(crate) fn word_came(&mut self) {
        self.report.received += 1;
    }

    pub(crate) fn word_was_answered(&mut self) {
        self.report.sent += 1;
    }

    /// A request that waited for nothing was answered.
    pub(super) fn answered_at_once(&mut self, id: ConnectionId, xid: i32, op: OpCode) {
        self.report.latency.add(0);
        let now_ms = self.now.steady_ms;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.report.answered(xid, op.code(), 0, now_ms);
        }
    }

    pub(crate) fn reset_connection_reports(&mut self) {
        for connection in self.connections.values_mut() {
            let report = &mut connection.report;
            (report.received, report.sent) = (0, 0);
            (report.last_op, report.last_zxid, report.last_xid) = (0, Zxid(-1), -1);
            (report.last_answer_ms, report.last_latency_ms) = (0, 0);
            report.latency = Latency::default();
        }
    }

    pub(crate) fn reset_report(&mut self) {
        self.report.latency = Latency::default();
        (self.report.received, self.report.sent) = (0, 0);
        self.report.answers = Sizes::default();
    }
}

/// What ZooKeeper calls an operation in a report of connections.
fn four_letters(op: i32) -> &'static str {
    use OpCode::*;
    let Some(op) = OpCode::from_code(op) else { return "NA" };
    match op {
        Ping => "PING",
        CreateSession => "SESS",
        CloseSession => "CLOS",
        Multi | MultiRead => "MULT",
        Create | Create2 | CreateTtl | CreateContainer => "CREA",
        Delete | DeleteContainer => "DELE",
        SetData => "SETD",
        Reconfig => "RECO",
        SetAcl => "SETA",
        Sync => "SYNC",
        Check => "CHEC",
        Exists => "EXIS",
        GetData => "GETD",
        SetWatches | SetWatches2 => "SETW",
        GetAcl => "GETA",
        GetChildren | GetChildren2 => "GETC",
        CheckWatches => "CHKW",
        RemoveWatches => "REMW",
        _ => "NA",
    }
}
