//! The replicated state: the tree, the sessions and the zxid, changed by nothing but the log.
//!
//! A command is decided here, when it is applied, by what the commands before it have made; equal
//! logs make equal machines. Commands that fail count too: each takes the next zxid. Only what a
//! client cannot see takes none: the secret, and a session that moves.

mod command;
mod image;
mod reconfig;
mod write;

use std::collections::BTreeMap;

use elkfk_wire::jute::{ErrorCode, EventKind, OpCode, Reader, Request, Response, SessionId, Zxid};
use hmac::{Hmac, Mac};
use sha2::Sha256;

pub(crate) use command::{Action, Command, Origin, Rules};
pub(crate) use image::MachineReader;
pub(crate) use reconfig::Ensemble;

use crate::consensus::Members;
use crate::tree::{Change, Identity, SharedAcl, Tree};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) timeout_ms: i32,
    /// Where its client is connected, or was last.
    pub(crate) server: u64,
}

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) tree: Tree,
    sessions: BTreeMap<SessionId, Session>,
    secret: Option<[u8; 32]>,
    /// What [`Self::ensemble_id`] says; follows from the secret.
    ensemble_id: u64,
    /// Who takes part in the agreement, where that was ever changed; zoo.cfg says it else.
    members: Option<Members>,
    /// The servers as `/zookeeper/config` has them.
    servers: Option<Ensemble>,
    zxid: Zxid,
    /// Term and index of the entry applied last.
    term: u64,
    index: u64,
}

/// A znode that watchers may have to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) path: String,
    /// Of the znode, when it happened.
    pub(crate) acl: SharedAcl,
}

/// What an entry has done.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// Whom to answer; the default where nobody waits.
    pub(crate) origin: Origin,
    pub(crate) session: SessionId,
    /// To be told to watchers before the answer, in this order.
    pub(crate) events: Vec<Event>,
    pub(crate) answer: Answer,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Answer {
    #[default]
    None,
    SessionCreated {
        timeout_ms: i32,
    },
    /// `false` where it was gone already.
    SessionMoved(bool),
    SessionClosed,
    Request(Result<Response<'static>, ErrorCode>),
}

/// Bytes of a session's password on the wire.
pub(crate) const PASSWORD_BYTES: usize = 16;

impl Machine {
    /// The state of a new ensemble.
    pub(crate) fn new() -> Self {
        Self {
            tree: Tree::new(),
            sessions: BTreeMap::new(),
            secret: None,
            ensemble_id: 0,
            members: None,
            servers: None,
            zxid: Zxid(0),
            term: 0,
            index: 0,
        }
    }

    /// The newest zxid.
    pub(crate) fn zxid(&self) -> Zxid {
        self.zxid
    }

    pub(crate) fn index(&self) -> u64 {
        self.index
    }

    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    pub(crate) fn has_secret(&self) -> bool {
        self.secret.is_some()
    }

    pub(crate) fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// The servers as clients see them; `None` where there is one.
    pub(crate) fn ensemble(&self) -> Option<&Ensemble> {
        self.servers.as_ref()
    }

    /// The same on all servers of an ensemble; 0 before there is one.
    pub(crate) fn ensemble_id(&self) -> u64 {
        self.ensemble_id
    }

    fn set_secret(&mut self, secret: [u8; 32]) {
        self.secret = Some(secret);
        let mut mac = Hmac::<Sha256>::new_from_slice(&secret).expect("any key will do");
        mac.update(b"ensemble");
        let code = mac.finalize().into_bytes();
        // 0 stands for none.
        self.ensemble_id = code.first_chunk().map_or(1, |it| u64::from_be_bytes(*it).max(1));
    }

    pub(crate) fn session(&self, session: SessionId) -> Option<Session> {
        self.sessions.get(&session).copied()
    }

    pub(crate) fn sessions(&self) -> impl Iterator<Item = (SessionId, Session)> {
        self.sessions.iter().map(|(id, session)| (*id, *session))
    }

    /// Nothing that was given out tells the next one, and every server makes the same.
    ///
    /// `None` before the ensemble has its secret.
    pub(crate) fn password(&self, session: SessionId) -> Option<[u8; PASSWORD_BYTES]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret?).expect("any key will do");
        mac.update(&session.0.to_be_bytes());
        let mut password = [0; PASSWORD_BYTES];
        password.copy_from_slice(&mac.finalize().into_bytes()[..PASSWORD_BYTES]);
        Some(password)
    }

    /// Applies an entry that made these the members. No client can see it, so it takes no zxid.
    pub(crate) fn apply_members(&mut self, term: u64, index: u64, members: Members) {
        self.apply(term, index, &[]);
        self.members = Some(members);
    }

    /// Applies the entry after [`Machine::index`]. An entry without data begins a term.
    pub(crate) fn apply(&mut self, term: u64, index: u64, data: &[u8]) -> Applied {
        debug_assert_eq!(index, self.index + 1, "entries are applied one after another");
        self.index = index;
        if term > self.term {
            self.term = term;
            // As in ZooKeeper the high half counts leaderships. It runs ahead of the term where the
            // low half ran full, and must not fall back then.
            let epoch = (self.zxid.0 >> 32).max(term as i64 - 1) + 1;
            self.zxid = Zxid(epoch << 32);
        }
        if data.is_empty() {
            return Applied::default();
        }
        let Ok(command) = Command::decode(data) else {
            // The log's checksums hold, so a newer program wrote this: all we can do is what every
            // other server of this version does too.
            self.next_zxid();
            return Applied::default();
        };
        let mut applied =
            Applied { origin: command.origin, session: command.session, ..Applied::default() };
        self.apply_command(&command, &mut applied);
        applied
    }

    fn next_zxid(&mut self) -> Zxid {
        self.zxid.0 += 1;
        self.zxid
    }

    fn apply_command(&mut self, command: &Command<'_>, applied: &mut Applied) {
        let session = command.session;
        match &command.action {
            Action::Secret(secret) => {
                if self.secret.is_none() {
                    self.set_secret(*secret);
                }
            }
            Action::CreateSession { timeout_ms, server } => {
                self.next_zxid();
                let made = Session { timeout_ms: *timeout_ms, server: *server };
                self.sessions.insert(session, made);
                applied.answer = Answer::SessionCreated { timeout_ms: *timeout_ms };
            }
            Action::MoveSession { server } => {
                let found = self.sessions.get_mut(&session);
                applied.answer = Answer::SessionMoved(found.is_some());
                if let Some(session) = found {
                    session.server = *server;
                }
            }
            Action::CloseSession { .. } => {
                let zxid = self.next_zxid();
                applied.answer = Answer::SessionClosed;
                if self.sessions.remove(&session).is_some() {
                    let change = Change { zxid, time_ms: command.time_ms };
                    self.delete_ephemerals(change, session, &mut applied.events);
                }
            }
            Action::DeleteContainer { path } => {
                let change = Change { zxid: self.next_zxid(), time_ms: command.time_ms };
                let request = Request::DeleteContainer { path: path.clone() };
                let rules = Rules::default();
                let _ = self.write(change, session, rules, &[], &request, &mut applied.events);
            }
            Action::Ensemble { servers } => {
                let change = Change { zxid: self.next_zxid(), time_ms: command.time_ms };
                self.list_servers(change, servers, &mut applied.events);
            }
            Action::Request { server, rules, identities, op, body } => {
                let rules = *rules;
                let change = Change { zxid: self.next_zxid(), time_ms: command.time_ms };
                let answer = match self.sessions.get(&session) {
                    None => Err(ErrorCode::SessionExpired),
                    Some(known) if known.server != *server => Err(ErrorCode::SessionMoved),
                    Some(_) => {
                        let events = &mut applied.events;
                        self.request(change, session, rules, identities, *op, body, events)
                    }
                };
                applied.answer = Answer::Request(answer);
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all of one command, taken apart")]
    fn request(
        &mut self,
        change: Change,
        session: SessionId,
        rules: Rules,
        identities: &[Identity<'_>],
        op: i32,
        body: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<Response<'static>, ErrorCode> {
        let op = OpCode::from_code(op).ok_or(ErrorCode::Unimplemented)?;
        let request =
            Request::decode(op, &mut Reader::new(body)).map_err(|_| ErrorCode::MarshallingError)?;
        if let Request::Reconfig { .. } = request {
            return self.reconfigure(change, rules, identities, &request, events);
        }
        self.write(change, session, rules, identities, &request, events)
    }

    fn delete_ephemerals(&mut self, change: Change, session: SessionId, events: &mut Vec<Event>) {
        let mut undo = Vec::new();
        for path in self.tree.ephemerals(session) {
            if let Some(id) = self.tree.find(&path) {
                write::delete_znode(&mut self.tree, change, id, path, events, &mut undo);
            }
        }
    }
}

#[cfg(test)]
mod tests;
