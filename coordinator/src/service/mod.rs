//! What a server does for its clients: sessions, requests in their order, watches.
//!
//! A core: it is told what came and what time it is, and what it wants done it leaves for the shell
//! to take: proposals for the log, bytes for connections. Two orders hold because everything here
//! happens one after another. A session's requests are answered in the order they came, a read
//! waiting for the writes before it. And an event is queued for a client before any answer that
//! shows a newer state.

mod handshake;
mod read;
mod report;
mod session;
mod standing;
mod watches;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;

use bytes::Bytes;
use elkfk_wire::jute::{
    ErrorCode, OpCode, Reader, ReplyHeader, Request, RequestHeader, Response, SessionId,
    WatchedEvent, Zxid, end_frame, frame_in, start_frame, xid,
};
use tracing::{debug, info, warn};

pub(crate) use report::{ConnectionFigures, Expiries, Sizes, VERSION};
pub(crate) use watches::{BYTES_MAX as WATCH_BYTES_MAX, ConnectionId};

use crate::consensus::Members;
use crate::machine::{Action, Answer, Command, Machine, Origin, Rules};
use crate::metrics;
use crate::tree::{Identity, SUPER, digest_id};
use crate::wal::LogEntry;
use session::Heard;
use watches::Watches;

/// What of the configuration concerns sessions and requests.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// This server among the others, never 0.
    pub(crate) server: u64,
    pub(crate) session_timeout_ms_min: i32,
    pub(crate) session_timeout_ms_max: i32,
    pub(crate) frame_bytes_max: usize,
    /// Reads see everything acknowledged anywhere before they were asked, at the price of a round
    /// trip to the other servers.
    pub(crate) has_linearizable_reads: bool,
    pub(crate) rules: Rules,
    /// `super:digest` of whom no ACL stops (`zookeeper.DigestAuthenticationProvider.superDigest`).
    pub(crate) super_digest: Option<String>,
    /// What watches may take of memory, those of all clients together ([`WATCH_BYTES_MAX`]).
    pub(crate) watch_bytes_max: usize,
}

/// The time, as the shell sees it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// Since some moment; never goes back.
    pub(crate) steady_ms: u64,
    /// Since 1970, for people; may jump.
    pub(crate) wall_ms: i64,
}

/// A write that cannot be taken now is answered after this long: to answer at once would have the
/// client try again at once.
const REFUSAL_DELAY_MS: u64 = 500;

/// Bytes of answers that may wait for a client to read them. Its requests after that wait in their
/// turn, here and then in its socket. Each client can have this much of our memory, and once more
/// what [`READS_WAITING_MAX`] answers take.
pub(crate) const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Reads of one client that may wait for a write before them: all are answered at once when it is
/// applied, as the next write may change what they are to see.
const READS_WAITING_MAX: usize = 16;
/// Znodes one sweep may delete; ZooKeeper takes as many a minute.
const SWEPT_AT_ONCE_MAX: usize = 10_000;
/// What one connection may authenticate as takes so many bytes in all: it goes into the log with each
/// of its writes.
const IDENTITIES_BYTES_MAX: usize = 512;
/// What a request counts for beside its own bytes: it is remembered until it is answered, and a write
/// goes its way with who asks for it, which takes up to twice as much and is far less as a rule.
const REQUEST_OVERHEAD_BYTES: usize = 256;

/// What the request in a frame counts for until it is answered.
pub(crate) fn cost_of(frame: &[u8]) -> usize {
    4 + frame.len() + REQUEST_OVERHEAD_BYTES
}

/// The same of whole frames, length prefixes included.
pub(crate) fn cost(mut frames: &[u8]) -> usize {
    let mut cost = 0;
    while let Ok(Some(frame)) = frame_in(frames, usize::MAX) {
        cost += cost_of(frame);
        frames = &frames[4 + frame.len()..];
    }
    cost
}

/// What the shell has to do for a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) connection: ConnectionId,
    pub(crate) bytes: Vec<u8>,
    /// Bytes of requests that are done with, so that more may be read.
    pub(crate) released_bytes: usize,
    /// Requests wait until the client has read more: [`Service::room`] is to be told then.
    pub(crate) is_awaited: bool,
    /// Close it once `bytes` are sent.
    pub(crate) is_last: bool,
}

#[derive(Debug)]
struct Connection {
    peer: SocketAddr,
    /// 0 before the handshake is answered.
    session: SessionId,
    identities: Vec<Identity<'static>>,
    /// Requests without an answer, in their order.
    pending: VecDeque<Pending>,
    /// How many of `pending` are refused. While there are, so is every write after them: one that
    /// went into the log could be applied before its turn to be answered has come.
    refused: usize,
    /// How many of `pending` are reads, and how many of those wait for a barrier.
    reads: usize,
    late_reads: usize,
    /// It has asked for a change of the ensemble, which is answered when it is done.
    is_reconfiguring: bool,
    /// Frames that nobody has looked at yet: the handshake is not answered, or there is no room for
    /// their answers. What may be unanswered in all bounds them.
    held: VecDeque<Bytes>,
    handshake: handshake::Handshake,
    out: Vec<u8>,
    /// What the shell has of earlier `out`s.
    unsent_bytes: usize,
    released_bytes: usize,
    is_last: bool,
    is_dirty: bool,
    report: report::ConnectionReport,
}

impl Connection {
    /// Whether answers wait for the client to read them.
    fn is_full(&self) -> bool {
        self.out.len() + self.unsent_bytes >= ANSWER_BYTES_MAX
    }

    fn takes_frames(&self) -> bool {
        // Behind a read that waits for a barrier nothing is looked at: a write after it could be
        // applied before it is answered, and show in it.
        self.session != SessionId(0)
            && !self.is_full()
            && self.reads < READS_WAITING_MAX
            && self.late_reads == 0
            && !self.is_reconfiguring
    }
}

#[derive(Debug)]
struct Pending {
    xid: i32,
    op: i32,
    bytes: usize,
    since_ms: u64,
    kind: PendingKind,
}

#[derive(Debug)]
enum PendingKind {
    /// In the log, or on its way there.
    Proposed,
    /// Not taken; to be answered so when its time has come.
    Refused { due_ms: u64 },
    Read {
        /// The record of the request.
        body: Bytes,
        /// This barrier must have passed; 0 always has.
        barrier: u64,
    },
}

impl PendingKind {
    fn is_late_read(&self) -> bool {
        matches!(self, Self::Read { barrier: 1.., .. })
    }
}

/// Reads that wait until this server is known to have everything acknowledged before them.
///
/// The barriers are numbered. A read waits for the next that will be asked for, as one that is
/// under way may have been asked for too early.
#[derive(Debug, Default)]
struct Barriers {
    asked: u64,
    passed: u64,
    /// Connections with such reads; some may have none left.
    waiting: BTreeSet<ConnectionId>,
    is_wanted: bool,
}

#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) machine: Machine,
    settings: Settings,
    boot: u64,
    now: Now,
    connections: HashMap<ConnectionId, Connection>,
    /// Which connection a session has now.
    attached: HashMap<SessionId, ConnectionId>,
    /// Of every session: when something was heard of it.
    heard: BTreeMap<SessionId, Heard>,
    next_session: i64,
    /// Sessions heard of since the leader was told.
    touched: BTreeSet<SessionId>,
    watches: Watches,
    barriers: Barriers,
    /// Changes of the ensemble that were decided and are not done yet, with their answers.
    reconfigs: Vec<(ConnectionId, Response<'static>)>,
    /// Whether clients are taken: this server knows what the ensemble knows.
    is_serving: bool,
    /// Whether this server leads, and so decides which sessions are over.
    is_leading: bool,
    /// Why writes are refused, if they are.
    refusing: Option<String>,
    proposals: Vec<Vec<u8>>,
    dirty: Vec<ConnectionId>,
    report: report::Report,
}

impl Service {
    /// `boot` must differ from that of every earlier life of this server.
    pub(crate) fn new(machine: Machine, settings: Settings, boot: u64, now: Now) -> Self {
        let watch_bytes_max = settings.watch_bytes_max;
        let mut service = Self {
            machine,
            boot,
            now,
            connections: HashMap::new(),
            attached: HashMap::new(),
            heard: BTreeMap::new(),
            // As ZooKeeper numbers them: server, milliseconds, and room to count. With some chance
            // in it, or a clock that begins anew with each start would give numbers out again.
            next_session: ((settings.server as i64 & 0xff) << 56)
                | (((now.wall_ms << 24) as u64 >> 8) ^ (boot & 0xff_ffff_ffff)) as i64,
            settings,
            touched: BTreeSet::new(),
            watches: Watches::new(watch_bytes_max),
            barriers: Barriers::default(),
            reconfigs: Vec::new(),
            is_serving: false,
            is_leading: false,
            refusing: None,
            proposals: Vec::new(),
            dirty: Vec::new(),
            report: report::Report::default(),
        };
        service.hear_of_all();
        service
    }

    pub(crate) fn set_now(&mut self, now: Now) {
        self.now = now;
    }

    /// Commands for the log, in the order they are to have there.
    pub(crate) fn take_proposals(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.proposals)
    }

    /// What is to be sent, one delivery for each connection concerned.
    pub(crate) fn take_deliveries(&mut self) -> Vec<Delivery> {
        let mut deliveries = Vec::with_capacity(self.dirty.len());
        for id in std::mem::take(&mut self.dirty) {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.is_dirty = false;
                let is_awaited = !connection.held.is_empty() && connection.is_full();
                deliveries.push(Delivery {
                    connection: id,
                    bytes: std::mem::take(&mut connection.out),
                    released_bytes: std::mem::take(&mut connection.released_bytes),
                    is_awaited,
                    is_last: connection.is_last,
                });
            }
        }
        deliveries
    }

    /// From now on writes are refused, for the reason given, or taken again.
    pub(crate) fn set_refusing(&mut self, refusing: Option<String>) {
        match (&self.refusing, &refusing) {
            (None, Some(why)) => warn!(why, "writes are refused, reads go on"),
            (Some(_), None) => info!("writes are taken again"),
            _ => {}
        }
        metrics::REFUSING.set(i64::from(refusing.is_some()));
        self.refusing = refusing;
    }

    pub(crate) fn is_refusing(&self) -> bool {
        self.refusing.is_some()
    }

    /// The members of the ensemble have changed.
    pub(crate) fn apply_members(&mut self, term: u64, index: u64, members: Members) {
        self.machine.apply_members(term, index, members);
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    #[cfg(test)]
    pub(crate) fn standing(&self) -> String {
        let connections = self.connections.iter().map(|(id, connection)| {
            format!(
                "{id}: {} pending {:?}, held {}, unsent {}, late {}",
                connection.session,
                connection.pending,
                connection.held.len(),
                connection.unsent_bytes,
                connection.late_reads
            )
        });
        format!(
            "barriers {:?}, refusing {}, {:?}",
            self.barriers,
            self.is_refusing(),
            connections.collect::<Vec<_>>()
        )
    }

    fn propose(&mut self, origin: Origin, session: SessionId, action: Action<'_>) {
        let command = Command { time_ms: self.now.wall_ms, origin, session, action };
        self.proposals.push(command.encode());
    }

    /// The connection is gone. Its session waits for the client to come back.
    pub(crate) fn gone(&mut self, id: ConnectionId) {
        self.watches.remove_connection(id);
        let gone = self.connections.remove(&id);
        if let Some(connection) = &gone {
            let unanswered = connection.pending.len() as u64;
            self.report.outstanding = self.report.outstanding.saturating_sub(unanswered);
        }
        if let Some(connection) = gone
            && self.attached.get(&connection.session) == Some(&id)
        {
            self.attached.remove(&connection.session);
            debug!(session = %connection.session, peer = %connection.peer, "client gone");
        }
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.is_dirty
        {
            connection.is_dirty = true;
            self.dirty.push(id);
        }
    }

    /// Closes a connection once what is queued for it is sent.
    fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.is_last = true;
            self.report.outstanding =
                self.report.outstanding.saturating_sub(connection.pending.len() as u64);
            let pending: usize = connection.pending.drain(..).map(|pending| pending.bytes).sum();
            let held: usize = connection.held.drain(..).map(|frames| cost(&frames)).sum();
            connection.released_bytes += pending + held;
            (connection.refused, connection.reads, connection.late_reads) = (0, 0, 0);
            let session = connection.session;
            if self.attached.get(&session) == Some(&id) {
                self.attached.remove(&session);
            }
            self.watches.remove_connection(id);
            self.mark_dirty(id);
        }
    }

    /// Takes whole frames, length prefixes included, in the order they came.
    pub(crate) fn frames(&mut self, id: ConnectionId, frames: Bytes) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.is_last {
            return self.release(id, cost(&frames));
        }
        connection.held.push_back(frames);
        let session = connection.session;
        self.hear_of(session);
        self.take_held(id);
        self.mark_dirty(id);
    }

    /// So many bytes are with the shell, or on their way to the client.
    pub(crate) fn set_unsent(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.unsent_bytes = bytes;
        }
    }

    /// The client has read what it was sent: it lives, and what it asked after that gets its turn.
    pub(crate) fn room(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id) else { return };
        self.hear_of(connection.session);
        self.take_held(id);
        self.mark_dirty(id);
    }

    /// Looks at what is held, as far as there is room for the answers.
    fn take_held(&mut self, id: ConnectionId) {
        let limit = self.settings.frame_bytes_max;
        while let Some(connection) = self.connections.get_mut(&id)
            && connection.takes_frames()
            && let Some(frames) = connection.held.front_mut()
        {
            let frame = match frame_in(frames, limit) {
                Ok(Some(frame)) => frames.slice_ref(frame),
                // All of it was looked at.
                _ => {
                    connection.held.pop_front();
                    continue;
                }
            };
            let _ = frames.split_to(4 + frame.len());
            if !self.frame(id, &frame) {
                return;
            }
        }
    }

    /// `false` once the connection takes no more requests.
    fn frame(&mut self, id: ConnectionId, frame: &Bytes) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.is_last {
            return false;
        }
        self.report.received += 1;
        connection.report.received += 1;
        let mut reader = Reader::new(frame);
        let Ok(header) = RequestHeader::decode(&mut reader) else {
            warn!(peer = %connection.peer, bytes = frame.len(), "frame is too short for a request, closing");
            self.close(id);
            return false;
        };
        let body = frame.slice_ref(reader.rest());
        let bytes = cost_of(frame);
        match OpCode::from_code(header.op) {
            Some(OpCode::Ping) => {
                // Ahead of everything that waits: it says that this server is there.
                self.reply(id, header.xid, header.op, Ok(&Response::Empty));
                self.answered_at_once(id, header.xid, OpCode::Ping);
                self.release(id, bytes);
            }
            Some(OpCode::Auth) => {
                self.release(id, bytes);
                return self.auth(id, header, &body);
            }
            Some(
                OpCode::Create
                | OpCode::Create2
                | OpCode::CreateContainer
                | OpCode::CreateTtl
                | OpCode::Delete
                | OpCode::SetData
                | OpCode::SetAcl
                | OpCode::Check
                | OpCode::Multi
                | OpCode::Reconfig
                | OpCode::CloseSession,
            ) => self.write(id, header, &body, bytes),
            _ => {
                let is_late = header.op == OpCode::Sync.code();
                let barrier = match is_late || self.settings.has_linearizable_reads {
                    true => self.barriers.asked + 1,
                    false => 0,
                };
                if barrier > 0 {
                    self.barriers.is_wanted = true;
                    self.barriers.waiting.insert(id);
                }
                let kind = PendingKind::Read { body, barrier };
                self.enqueue(id, header, bytes, kind);
                self.drain(id);
            }
        }
        true
    }

    fn enqueue(
        &mut self,
        id: ConnectionId,
        header: RequestHeader,
        bytes: usize,
        kind: PendingKind,
    ) {
        let since_ms = self.now.steady_ms;
        if let Some(connection) = self.connections.get_mut(&id) {
            let RequestHeader { xid, op } = header;
            connection.refused += usize::from(matches!(kind, PendingKind::Refused { .. }));
            connection.reads += usize::from(matches!(kind, PendingKind::Read { .. }));
            connection.late_reads += usize::from(kind.is_late_read());
            connection.pending.push_back(Pending { xid, op, bytes, since_ms, kind });
            self.report.outstanding += 1;
        }
    }

    fn write(&mut self, id: ConnectionId, header: RequestHeader, body: &Bytes, bytes: usize) {
        let Some(connection) = self.connections.get(&id) else { return };
        if self.refusing.is_some() || connection.refused > 0 {
            let due_ms = self.now.steady_ms + REFUSAL_DELAY_MS;
            self.enqueue(id, header, bytes, PendingKind::Refused { due_ms });
            return;
        }
        let session = connection.session;
        let origin = Origin { boot: self.boot, connection: id };
        let action = if header.op == OpCode::CloseSession.code() {
            Action::CloseSession { is_expiry: false }
        } else {
            Action::Request {
                server: self.settings.server,
                rules: self.settings.rules,
                identities: connection.identities.clone(),
                op: header.op,
                body: Cow::Borrowed(body),
            }
        };
        let command = Command { time_ms: self.now.wall_ms, origin, session, action };
        self.proposals.push(command.encode());
        self.enqueue(id, header, bytes, PendingKind::Proposed);
        if header.op == OpCode::Reconfig.code()
            && let Some(connection) = self.connections.get_mut(&id)
        {
            connection.is_reconfiguring = true;
        }
    }

    fn auth(&mut self, id: ConnectionId, header: RequestHeader, body: &Bytes) -> bool {
        let request = Request::decode(OpCode::Auth, &mut Reader::new(body));
        let identity = match &request {
            Ok(Request::Auth { scheme, auth }) => match scheme.as_ref() {
                "digest" => auth
                    .as_deref()
                    .and_then(|auth| str::from_utf8(auth).ok())
                    .map(digest_id)
                    .map(|id| Some(("digest", id))),
                // The address is known without asking.
                "ip" => Some(None),
                _ => None,
            },
            _ => None,
        };
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        // As a command has them, with their lengths.
        let size = |scheme: &str, id: &str| 8 + scheme.len() + id.len();
        let known = &connection.identities;
        let has_room = |identity: &Option<(&str, String)>| {
            let Some((scheme, id)) = identity else { return true };
            let taken: usize = known.iter().map(|known| size(&known.scheme, &known.id)).sum();
            known.iter().any(|known| known.scheme == *scheme && known.id == *id)
                || taken + size(scheme, id) <= IDENTITIES_BYTES_MAX
        };
        let Some(identity) = identity.filter(has_room) else {
            let peer = connection.peer;
            warn!(%peer, "authentication of an unknown scheme, without a password, too long or once too often, closing");
            self.reply(id, header.xid, header.op, Err(ErrorCode::AuthFailed));
            self.close(id);
            return false;
        };
        if let Some((scheme, user)) = identity {
            let is_super = self.settings.super_digest.as_ref() == Some(&user);
            let identity = Identity { scheme: Cow::Borrowed(scheme), id: Cow::Owned(user) };
            if !connection.identities.contains(&identity) {
                connection.identities.push(identity);
            }
            let name = Identity { scheme: Cow::Borrowed(SUPER), id: Cow::Borrowed("") };
            if is_super && !connection.identities.contains(&name) {
                connection.identities.push(name);
            }
        }
        self.reply(id, header.xid, header.op, Ok(&Response::Empty));
        true
    }

    /// Answers what is at the front and waits for nothing.
    fn drain(&mut self, id: ConnectionId) {
        loop {
            let Some(connection) = self.connections.get_mut(&id) else { return };
            let is_ready = match connection.pending.front().map(|pending| &pending.kind) {
                Some(PendingKind::Read { barrier, .. }) => {
                    let has_passed = *barrier <= self.barriers.passed;
                    if !has_passed {
                        self.barriers.waiting.insert(id);
                    }
                    has_passed
                }
                // Once writes are taken again nothing speaks for a delay, and a client that always
                // has something under way would be refused for ever.
                Some(PendingKind::Refused { due_ms }) => {
                    self.refusing.is_none() || *due_ms <= self.now.steady_ms
                }
                Some(PendingKind::Proposed) | None => false,
            };
            if !is_ready {
                return;
            }
            let Some(pending) = connection.pending.pop_front() else { return };
            connection.refused -= usize::from(matches!(pending.kind, PendingKind::Refused { .. }));
            connection.reads -= usize::from(matches!(pending.kind, PendingKind::Read { .. }));
            connection.late_reads -= usize::from(pending.kind.is_late_read());
            match &pending.kind {
                PendingKind::Read { body, .. } => self.read(id, pending.xid, pending.op, body),
                // The code that has every client look again before it goes on.
                _ => self.reply(id, pending.xid, pending.op, Err(ErrorCode::ConnectionLoss)),
            }
            self.done_with(id, &pending);
        }
    }

    fn done_with(&mut self, id: ConnectionId, pending: &Pending) {
        let latency_ms = self.now.steady_ms.saturating_sub(pending.since_ms);
        self.report.outstanding = self.report.outstanding.saturating_sub(1);
        self.report.latency.add(latency_ms);
        if let Some(connection) = self.connections.get_mut(&id) {
            let now_ms = self.now.steady_ms;
            connection.report.answered(pending.xid, pending.op, latency_ms, now_ms);
        }
        self.release(id, pending.bytes);
    }

    fn release(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.released_bytes += bytes;
            self.mark_dirty(id);
        }
    }

    fn reply(
        &mut self,
        id: ConnectionId,
        xid: i32,
        op: i32,
        answer: Result<&Response<'_>, ErrorCode>,
    ) {
        // Authentication is of the connection, not of a moment of the tree.
        let zxid = if xid == xid::AUTH { Zxid(0) } else { self.machine.zxid() };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let before = connection.out.len();
        let is_done = put_reply(&mut connection.out, xid, zxid, answer);
        self.report.answers.add(connection.out.len() - before - 4);
        connection.report.sent += 1;
        connection.report.last_zxid = zxid;
        self.report.sent += 1;
        metrics::answered(op, is_done);
        self.mark_dirty(id);
    }

    /// Applies an entry of the log and tells everyone it concerns.
    pub(crate) fn apply(&mut self, entry: &LogEntry) {
        let applied = self.machine.apply(entry.term, entry.index, &entry.data);
        self.tell_watchers(&applied.events);
        let origin = (applied.origin.boot == self.boot).then_some(applied.origin.connection);
        match applied.answer {
            Answer::None => {}
            Answer::Request(answer) => {
                let is_reconfig = |id: &ConnectionId| {
                    self.connections.get(id).is_some_and(|it| it.is_reconfiguring)
                };
                match (origin, answer) {
                    (Some(id), Ok(Response::Data(data, stat))) if is_reconfig(&id) => {
                        self.reconfigs.push((id, Response::Data(data, stat)));
                    }
                    (Some(id), answer) => {
                        self.answer_write(id, answer.as_ref().map_err(|code| *code));
                    }
                    (None, _) => {}
                }
            }
            Answer::SessionCreated { timeout_ms } => {
                self.session_created(applied.session, timeout_ms, origin);
            }
            Answer::SessionMoved(is_known) => {
                self.session_moved(applied.session, is_known, origin);
            }
            Answer::SessionClosed => self.session_closed(applied.session, origin),
        }
    }

    fn answer_write(&mut self, id: ConnectionId, answer: Result<&Response<'_>, ErrorCode>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        // Reads at the front would have been answered, so this is the write; a connection that is
        // closing has forgotten what it waited for.
        if !matches!(connection.pending.front(), Some(Pending { kind: PendingKind::Proposed, .. }))
        {
            return;
        }
        let Some(pending) = connection.pending.pop_front() else { return };
        connection.is_reconfiguring &= pending.op != OpCode::Reconfig.code();
        self.reply(id, pending.xid, pending.op, answer);
        self.done_with(id, &pending);
        self.drain(id);
        self.take_held(id);
    }

    fn notify(&mut self, id: ConnectionId, event: &WatchedEvent<'_>) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let start = start_frame(&mut connection.out);
        ReplyHeader { xid: xid::NOTIFICATION, zxid: Zxid(-1), error: 0 }
            .encode(&mut connection.out);
        event.encode(&mut connection.out);
        end_frame(&mut connection.out, start);
        connection.report.sent += 1;
        self.report.sent += 1;
        metrics::EVENTS.inc();
        self.mark_dirty(id);
    }

    /// Time has passed: sessions may be over, refusals due.
    pub(crate) fn tick(&mut self) {
        self.expire_sessions();
        let mut waiting: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                matches!(
                    connection.pending.front(),
                    Some(Pending { kind: PendingKind::Refused { .. }, .. })
                )
            })
            .map(|(id, _)| *id)
            .collect();
        waiting.sort_unstable();
        for id in waiting {
            self.drain(id);
            self.take_held(id);
        }
        metrics::ZNODES.set(self.machine.tree.len() as i64);
        metrics::SESSIONS.set(self.heard.len() as i64);
        metrics::CONNECTIONS.set(self.connections.len() as i64);
        metrics::WATCHES.set(self.watches.counts().2 as i64);
    }

    /// Proposes to delete containers that had children and have none, and znodes whose time to live
    /// is over.
    pub(crate) fn delete_empty_containers(&mut self) {
        if self.refusing.is_none() {
            for path in self.machine.tree.due(self.now.wall_ms, SWEPT_AT_ONCE_MAX) {
                let action = Action::DeleteContainer { path: path.into() };
                self.propose(Origin::default(), SessionId(0), action);
            }
        }
    }
}

/// One frame: a reply with its record, or with its error. Whether it tells of success.
fn put_reply(
    out: &mut Vec<u8>,
    xid: i32,
    zxid: Zxid,
    answer: Result<&Response<'_>, ErrorCode>,
) -> bool {
    let start = start_frame(out);
    let error = answer.err().map_or(0, ErrorCode::code);
    ReplyHeader { xid, zxid, error }.encode(out);
    if let Ok(response) = answer {
        response.encode(out);
    }
    // A length beyond this cannot be told: as where a request cannot be read.
    let is_sayable = i32::try_from(out.len() - start).is_ok();
    if !is_sayable {
        out.truncate(start);
        ReplyHeader { xid, zxid, error: ErrorCode::MarshallingError.code() }.encode(out);
    }
    end_frame(out, start);
    is_sayable && answer.is_ok()
}

#[cfg(test)]
mod tests;
