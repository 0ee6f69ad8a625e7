//! What is answered from this server's own state.

use std::borrow::Cow;

use elkfk_wire::jute::{
    ErrorCode, EventKind, EventState, OpCode, OpResult, Reader, Request, Response, SessionId,
    WatchedEvent, Zxid, perms,
};
use tracing::warn;

use super::Service;
use super::watches::{ConnectionId, Modes, TooMany};
use crate::machine::Event;
use crate::tree::{Identity, Node, NodeId, Tree, is_permitted, mask_digests};

/// Together the answers of a multiRead may be this large, or as large as a frame where that is more: as
/// much as ZooKeeper's clients take unless they are told otherwise.
const MULTI_READ_BYTES_MIN: usize = 4 << 20;

impl Service {
    pub(super) fn read(&mut self, id: ConnectionId, xid: i32, op: i32, body: &[u8]) {
        let request = match OpCode::from_code(op) {
            None => {
                // As ZooKeeper: whoever sends this speaks another protocol from here on.
                self.reply(id, xid, op, Err(ErrorCode::Unimplemented));
                return self.close(id);
            }
            Some(op) => {
                Request::decode(op, &mut Reader::new(body)).map_err(|_| ErrorCode::MarshallingError)
            }
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let asker = Asker {
            tree: &self.machine.tree,
            session: connection.session,
            identities: &connection.identities,
            multi_read_bytes_max: self.settings.frame_bytes_max.max(MULTI_READ_BYTES_MIN),
        };
        let mut watched = Vec::new();
        let answer = request
            .as_ref()
            .map_err(|code| *code)
            .and_then(|request| asker.answer(request, &mut watched));
        for (modes, path) in watched {
            if let Err(too_many) = self.watches.add(modes, path, id) {
                return self.refuse_watches(id, too_many);
            }
        }
        // The answer may borrow from the tree, so it is written out before anything else is touched.
        if let Some(answer) = answer.transpose() {
            let zxid = self.machine.zxid();
            let before = connection.out.len();
            let answer = answer.as_ref().map_err(|code| *code);
            let is_done = super::put_reply(&mut connection.out, xid, zxid, answer);
            self.report.answers.add(connection.out.len() - before - 4);
            connection.report.sent += 1;
            connection.report.last_zxid = zxid;
            self.report.sent += 1;
            crate::metrics::answered(op, is_done);
            self.mark_dirty(id);
            return;
        }
        let Ok(request) = request else { return };
        match self.watch_request(id, &request) {
            Ok(answer) => {
                self.reply(id, xid, op, answer.as_ref().map_err(|code| *code));
            }
            Err(too_many) => self.refuse_watches(id, too_many),
        }
    }

    /// A client that is not told what it watches would wait for ever, so it is not left to believe
    /// that it watches.
    fn refuse_watches(&mut self, id: ConnectionId, too_many: TooMany) {
        if let Some(connection) = self.connections.get(&id) {
            let TooMany { own_bytes, all_bytes, limit_bytes } = too_many;
            warn!(
                session = %connection.session, peer = %connection.peer, own_bytes, all_bytes,
                limit_bytes, "client watches too much, closing; watch fewer paths, or one recursively"
            );
        }
        self.close(id);
    }

    /// Requests about watches, which change nothing but this server's table of them.
    fn watch_request(
        &mut self,
        id: ConnectionId,
        request: &Request<'_>,
    ) -> Result<Result<Response<'static>, ErrorCode>, TooMany> {
        match request {
            Request::SetWatches { relative_zxid, data, exist, child } => {
                self.set_watches(id, *relative_zxid, [data, exist, child])?;
                Ok(Ok(Response::Empty))
            }
            Request::SetWatches2 {
                relative_zxid,
                data,
                exist,
                child,
                persistent,
                persistent_recursive,
            } => {
                self.set_watches(id, *relative_zxid, [data, exist, child])?;
                for path in persistent {
                    self.watches.add(Modes::PERSISTENT, path, id)?;
                }
                for path in persistent_recursive {
                    self.watches.add(Modes::RECURSIVE, path, id)?;
                }
                Ok(Ok(Response::Empty))
            }
            // Neither path nor rights are looked at; events are held back from who may not read.
            Request::AddWatch { path, mode } => {
                let modes = match mode {
                    0 => Modes::PERSISTENT,
                    1 => Modes::RECURSIVE,
                    _ => return Ok(Err(ErrorCode::MarshallingError)),
                };
                self.watches.add(modes, path, id)?;
                Ok(Ok(Response::Number(0)))
            }
            Request::CheckWatches { path, kind } => Ok(modes_of(*kind).and_then(|modes| {
                let is_set = self.watches.has(modes, path, id);
                if is_set { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) }
            })),
            Request::RemoveWatches { path, kind } => Ok(modes_of(*kind).and_then(|modes| {
                let was_set = self.watches.remove(modes, path, id);
                if was_set { Ok(Response::Empty) } else { Err(ErrorCode::NoWatcher) }
            })),
            _ => Ok(Err(ErrorCode::Unimplemented)),
        }
    }

    /// Sets a returning client's watches, or tells it at once of what it missed.
    fn set_watches(
        &mut self,
        id: ConnectionId,
        relative: Zxid,
        [data, exist, child]: [&[Cow<'_, str>]; 3],
    ) -> Result<(), TooMany> {
        let mut events: Vec<(EventKind, &str)> = Vec::new();
        let tree = &self.machine.tree;
        for path in data {
            match tree.get(path) {
                None => events.push((EventKind::Deleted, path)),
                Some(node) if node.mzxid > relative => {
                    events.push((EventKind::DataChanged, path));
                }
                Some(_) => self.watches.add(Modes::DATA, path, id)?,
            }
        }
        for path in exist {
            match tree.get(path) {
                Some(_) => events.push((EventKind::Created, path)),
                None => self.watches.add(Modes::DATA, path, id)?,
            }
        }
        for path in child {
            match tree.get(path) {
                None => events.push((EventKind::Deleted, path)),
                Some(node) if node.pzxid() > relative => {
                    events.push((EventKind::ChildrenChanged, path));
                }
                Some(_) => self.watches.add(Modes::CHILD, path, id)?,
            }
        }
        for (kind, path) in events {
            let state = EventState::SyncConnected;
            self.notify(id, &WatchedEvent { kind, state, path: Cow::Borrowed(path) });
        }
        Ok(())
    }

    /// Tells the watchers of what an entry has changed.
    pub(super) fn tell_watchers(&mut self, events: &[Event]) {
        for Event { kind, path, acl } in events {
            for told in self.watches.fire(*kind, path) {
                let may_read = || {
                    let connection = self.connections.get(&told.connection);
                    connection.is_some_and(|connection| {
                        is_permitted(acl, perms::READ, &connection.identities)
                    })
                };
                if !told.if_permitted || may_read() {
                    let state = EventState::SyncConnected;
                    let event = WatchedEvent { kind: *kind, state, path: Cow::Borrowed(path) };
                    self.notify(told.connection, &event);
                }
            }
        }
    }
}

/// What removeWatches and checkWatches mean by a number.
fn modes_of(kind: i32) -> Result<Modes, ErrorCode> {
    match kind {
        1 => Ok(Modes::CHILD),
        2 => Ok(Modes::DATA),
        3 => Ok(Modes::ANY),
        4 => Ok(Modes::PERSISTENT),
        5 => Ok(Modes::RECURSIVE),
        _ => Err(ErrorCode::MarshallingError),
    }
}

/// Who reads, and what.
struct Asker<'t> {
    tree: &'t Tree,
    session: SessionId,
    identities: &'t [Identity<'static>],
    /// A small request can ask for one large znode many times over.
    multi_read_bytes_max: usize,
}

impl<'t> Asker<'t> {
    fn found(&self, path: &str) -> Result<(NodeId, &'t Node), ErrorCode> {
        let id = self.tree.find(path).ok_or(ErrorCode::NoNode)?;
        Ok((id, self.tree.node(id)))
    }

    fn readable(&self, path: &str) -> Result<(NodeId, &'t Node), ErrorCode> {
        let (id, node) = self.found(path)?;
        match is_permitted(&node.acl, perms::READ, self.identities) {
            true => Ok((id, node)),
            false => Err(ErrorCode::NoAuth),
        }
    }

    fn children(&self, id: NodeId) -> Vec<Cow<'t, str>> {
        self.tree.children(id).map(|id| Cow::Borrowed(self.tree.node(id).name())).collect()
    }

    /// The answer to a read of the tree, with the watches it sets; `None` for what is no such read.
    fn answer<'r>(
        &self,
        request: &'r Request<'_>,
        watched: &mut Vec<(Modes, &'r str)>,
    ) -> Result<Option<Response<'t>>, ErrorCode> {
        let mut watch = |is_watched: &bool, modes, path: &'r str| {
            if *is_watched {
                watched.push((modes, path));
            }
        };
        Ok(Some(match request {
            Request::Exists { path, watch: is_watched } => {
                if path.contains('\0') {
                    return Err(ErrorCode::BadArguments);
                }
                // Set whether it exists or not.
                watch(is_watched, Modes::DATA, path);
                Response::Stat(self.found(path)?.1.stat())
            }
            Request::GetData { path, watch: is_watched } => {
                let (_, node) = self.readable(path)?;
                watch(is_watched, Modes::DATA, path);
                Response::Data(node.data().map(Cow::Borrowed), node.stat())
            }
            Request::GetChildren { path, watch: is_watched } => {
                let (id, _) = self.readable(path)?;
                watch(is_watched, Modes::CHILD, path);
                Response::Strings(self.children(id))
            }
            Request::GetChildren2 { path, watch: is_watched } => {
                let (id, node) = self.readable(path)?;
                watch(is_watched, Modes::CHILD, path);
                Response::Children2(self.children(id), node.stat())
            }
            Request::GetAcl { path } => {
                let (_, node) = self.found(path)?;
                if !is_permitted(&node.acl, perms::READ | perms::ADMIN, self.identities) {
                    return Err(ErrorCode::NoAuth);
                }
                Response::Acl(mask_digests(&node.acl, self.identities), node.stat())
            }
            Request::GetAllChildrenNumber { path } => {
                Response::Number(self.readable(path)?.1.descendants() as i32)
            }
            // By the text of the path, whatever that cuts through, as ZooKeeper does.
            Request::GetEphemerals { prefix } => {
                let is_wanted = |path: &String| match prefix.trim() {
                    "" | "/" => true,
                    _ => path.starts_with(prefix.as_ref()),
                };
                let paths = self.tree.ephemerals(self.session).into_iter().filter(is_wanted);
                Response::Strings(paths.map(Cow::Owned).collect())
            }
            Request::WhoAmI => Response::Identities(self.identities.iter().map(user).collect()),
            // Each by itself: one that fails tells nothing of the others. None sets a watch, whatever
            // it says, as ZooKeeper has it.
            Request::MultiRead(requests) => {
                let mut results = Vec::with_capacity(requests.len());
                let mut bytes = 0;
                for request in requests {
                    results.push(match self.answer(request, &mut Vec::new()) {
                        Ok(Some(response)) => {
                            bytes += bytes_of(&response);
                            if bytes > self.multi_read_bytes_max {
                                return Err(ErrorCode::MarshallingError);
                            }
                            OpResult::Ok(request.op(), response)
                        }
                        Ok(None) => OpResult::Error(ErrorCode::Unimplemented.code()),
                        Err(code) => OpResult::Error(code.code()),
                    });
                }
                Response::Multi(results)
            }
            // Whatever it is to wait for, it has waited for by now.
            Request::Sync { path } => Response::Path(Cow::Owned(path.clone().into_owned())),
            // As a server without SASL answers, before it hears no more of it.
            Request::Sasl { .. } => Response::Token(None),
            _ => return Ok(None),
        }))
    }
}

/// Roughly what an answer of a multiRead takes.
fn bytes_of(response: &Response<'_>) -> usize {
    const REST_BYTES: usize = 80;
    let names = |names: &[Cow<'_, str>]| names.iter().map(|name| name.len() + 4).sum::<usize>();
    REST_BYTES
        + match response {
            Response::Data(data, _) => data.as_ref().map_or(0, |data| data.len()),
            Response::Strings(all) | Response::Children2(all, _) => names(all),
            _ => 0,
        }
}

/// Scheme and name of an identity, without what proves it.
fn user<'t>(identity: &'t Identity<'static>) -> (Cow<'t, str>, Cow<'t, str>) {
    let user = match identity.scheme.as_ref() {
        "digest" => identity.id.split(':').next().unwrap_or_default(),
        _ => &identity.id,
    };
    (Cow::Borrowed(&identity.scheme), Cow::Borrowed(user))
}
