//! How a connection gets its session: a new one, or the one it had.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::SocketAddr;

use elkfk_wire::jute::{
    ConnectRequest, ConnectResponse, OpCode, SessionId, end_frame, start_frame,
};
use tracing::{debug, info, warn};

use super::watches::ConnectionId;
use super::{Connection, Service, report};
use crate::machine::{Action, Origin, PASSWORD_BYTES};
use crate::tree::Identity;

#[derive(Debug, Clone, Copy)]
pub(super) struct Handshake {
    /// Whether the client knows of read-only servers, and so of the last byte.
    has_read_only: bool,
}

/// Compares in a time that does not tell how much of it was right.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).fold(0, |difference, (left, right)| difference | (left ^ right))
            == 0
}

impl Service {
    /// Takes a connection's first frame.
    pub(crate) fn connect(
        &mut self,
        id: ConnectionId,
        peer: SocketAddr,
        request: &ConnectRequest<'_>,
    ) {
        let identity =
            Identity { scheme: Cow::Borrowed("ip"), id: Cow::Owned(peer.ip().to_string()) };
        let connection = Connection {
            peer,
            session: SessionId(0),
            identities: vec![identity],
            pending: VecDeque::new(),
            refused: 0,
            reads: 0,
            late_reads: 0,
            is_reconfiguring: false,
            held: VecDeque::new(),
            handshake: Handshake { has_read_only: request.read_only.is_some() },
            out: Vec::new(),
            unsent_bytes: 0,
            released_bytes: 0,
            is_last: false,
            is_dirty: false,
            report: report::ConnectionReport::new(self.now.wall_ms),
        };
        self.connections.insert(id, connection);
        self.report.received += 1;
        if !self.is_serving {
            debug!(%peer, "no client is taken while the ensemble has no leader in reach");
            return self.close(id);
        }
        if request.last_zxid_seen > self.machine.zxid() {
            // Its session must not go back in time.
            warn!(%peer, seen = %request.last_zxid_seen, ours = %self.machine.zxid(), "client has seen a newer state, it must try another server");
            return self.close(id);
        }
        if request.session == SessionId(0) {
            self.ask_for_session(id, request.timeout_ms);
        } else {
            self.resume(id, request.session, request.password);
        }
    }

    fn ask_for_session(&mut self, id: ConnectionId, timeout_ms: i32) {
        if self.is_refusing() {
            return self.close(id);
        }
        let settings = &self.settings;
        let timeout_ms =
            timeout_ms.clamp(settings.session_timeout_ms_min, settings.session_timeout_ms_max);
        let session = loop {
            let session = SessionId(self.next_session);
            self.next_session = self.next_session.wrapping_add(1);
            if session != SessionId(0) && self.machine.session(session).is_none() {
                break session;
            }
        };
        let server = settings.server;
        let origin = Origin { boot: self.boot, connection: id };
        self.propose(origin, session, Action::CreateSession { timeout_ms, server });
    }

    fn resume(&mut self, id: ConnectionId, session: SessionId, password: &[u8]) {
        let known = self.machine.session(session);
        let is_closing = self.heard.get(&session).is_some_and(|heard| heard.is_closing);
        let is_right =
            self.machine.password(session).is_some_and(|right| is_equal(&right, password));
        if !is_right {
            let peer = self.connections.get(&id).map(|connection| connection.peer);
            info!(%session, ?peer, "session is not resumed: its password is wrong");
            return self.refuse_session(id);
        }
        match known {
            Some(known) if known.server == self.settings.server && !is_closing => {
                self.attach(id, session, known.timeout_ms);
            }
            // Its beginning, or its end, may not have come here yet: the log knows.
            _ if self.is_refusing() => self.close(id),
            _ => {
                let origin = Origin { boot: self.boot, connection: id };
                let server = self.settings.server;
                self.propose(origin, session, Action::MoveSession { server });
            }
        }
    }

    pub(super) fn session_created(
        &mut self,
        session: SessionId,
        timeout_ms: i32,
        origin: Option<ConnectionId>,
    ) {
        self.start_hearing(session, timeout_ms);
        // Where the client has gone meanwhile, the session waits for it until it expires.
        if let Some(id) = origin {
            self.attach(id, session, timeout_ms);
        }
    }

    pub(super) fn session_moved(
        &mut self,
        session: SessionId,
        is_known: bool,
        origin: Option<ConnectionId>,
    ) {
        match (origin, self.machine.session(session)) {
            (Some(id), Some(known)) if is_known => {
                self.start_hearing(session, known.timeout_ms);
                self.attach(id, session, known.timeout_ms);
            }
            (Some(id), _) => {
                info!(%session, "session is not resumed: it is over");
                self.refuse_session(id);
            }
            // It has gone to another server: what it left here is of no use to anyone.
            (None, _) => {
                if let Some(old) = self.attached.remove(&session) {
                    self.close(old);
                }
            }
        }
    }

    pub(super) fn session_closed(&mut self, session: SessionId, origin: Option<ConnectionId>) {
        self.heard.remove(&session);
        let Some(id) = self.attached.get(&session).copied() else { return };
        if origin == Some(id) {
            self.answer_write(id, Ok(&elkfk_wire::jute::Response::Empty));
        }
        self.close(id);
    }

    /// Joins the session and the connection, answers the handshake, takes what came meanwhile.
    fn attach(&mut self, id: ConnectionId, session: SessionId, timeout_ms: i32) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.session = session;
        connection.report.timeout_ms = timeout_ms;
        connection.report.sent += 1;
        connection.report.last_zxid = self.machine.zxid();
        self.report.sent += 1;
        let peer = connection.peer;
        let password = self.machine.password(session).unwrap_or_default();
        self.put_connect_response(id, timeout_ms, session, &password);
        self.answered_at_once(id, 0, OpCode::CreateSession);
        if let Some(old) = self.attached.insert(session, id)
            && old != id
        {
            debug!(%session, "its client came back on another connection");
            self.close(old);
            self.attached.insert(session, id);
        }
        self.hear_of(session);
        debug!(%session, %peer, timeout_ms, "session has a connection");
        self.take_held(id);
    }

    /// Tells the client that its session is over.
    fn refuse_session(&mut self, id: ConnectionId) {
        self.put_connect_response(id, 0, SessionId(0), &[0; PASSWORD_BYTES]);
        self.close(id);
    }

    fn put_connect_response(
        &mut self,
        id: ConnectionId,
        timeout_ms: i32,
        session: SessionId,
        password: &[u8],
    ) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let start = start_frame(&mut connection.out);
        ConnectResponse {
            protocol_version: 0,
            timeout_ms,
            session,
            password,
            read_only: connection.handshake.has_read_only.then_some(false),
        }
        .encode(&mut connection.out);
        end_frame(&mut connection.out, start);
        self.mark_dirty(id);
    }
}
