//! What is answered from this server's own state.

use std::borrow::Cow;

use elkfk_wire::jute::{
    ErrorCode, EventKind, EventState, OpCode, Reader, Request, Response, WatchedEvent, Zxid,
    check_path, perms,
};

use super::Service;
use super::watches::{ConnectionId, WatchKind};
use crate::tree::{Identity, Node, Tree, is_permitted, mask_digests};

/// The kinds of removeWatches and checkWatches.
const CHILD_WATCHES: i32 = 1;
const DATA_WATCHES: i32 = 2;
const ANY_WATCHES: i32 = 3;

impl Service {
    pub(super) fn read(&mut self, id: ConnectionId, xid: i32, op: i32, body: &[u8]) {
        let request = match OpCode::from_code(op) {
            None => Err(ErrorCode::Unimplemented),
            // Refused whatever it says, as ZooKeeper does unless reconfigEnabled.
            Some(OpCode::Reconfig) => Err(ErrorCode::ReconfigDisabled),
            Some(op) => {
                Request::decode(op, &mut Reader::new(body)).map_err(|_| ErrorCode::MarshallingError)
            }
        };
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let identities = &connection.identities;
        let mut watch = None;
        let answer = request
            .as_ref()
            .map_err(|code| *code)
            .and_then(|request| answer(&self.machine.tree, identities, request, &mut watch));
        if let Some((kind, path)) = watch {
            self.watches.add(kind, path, id);
        }
        // The answer may borrow from the tree, so it is written out before anything else is touched.
        if let Some(answer) = answer.transpose() {
            let zxid = self.machine.zxid();
            super::put_reply(&mut connection.out, xid, zxid, answer.as_ref().map_err(|code| *code));
            connection.report.sent += 1;
            connection.report.last_zxid = zxid;
            self.report.sent += 1;
            crate::metrics::answered(op, answer.is_ok());
            self.mark_dirty(id);
            return;
        }
        let Ok(request) = request else { return };
        let answer = self.watch_request(id, &request);
        self.reply(id, xid, op, answer.as_ref().map(|()| &Response::Empty).map_err(|code| *code));
    }

    /// Requests about watches, which change nothing but this server's table of them.
    fn watch_request(&mut self, id: ConnectionId, request: &Request<'_>) -> Result<(), ErrorCode> {
        match request {
            Request::SetWatches { relative_zxid, data, exist, child } => {
                self.set_watches(id, *relative_zxid, [data, exist, child]);
                Ok(())
            }
            Request::CheckWatches { path, kind } => {
                let is_set = kinds(*kind)?.iter().any(|kind| self.watches.has(*kind, path, id));
                if is_set { Ok(()) } else { Err(ErrorCode::NoWatcher) }
            }
            Request::RemoveWatches { path, kind } => {
                let mut is_set = false;
                for kind in kinds(*kind)? {
                    is_set |= self.watches.has(*kind, path, id);
                    self.watches.remove(*kind, path, id);
                }
                if is_set { Ok(()) } else { Err(ErrorCode::NoWatcher) }
            }
            _ => Err(ErrorCode::Unimplemented),
        }
    }

    /// Sets a returning client's watches, or tells it at once of what it missed.
    fn set_watches(
        &mut self,
        id: ConnectionId,
        relative: Zxid,
        [data, exist, child]: [&[Cow<'_, str>]; 3],
    ) {
        let mut events: Vec<(EventKind, &str)> = Vec::new();
        let tree = &self.machine.tree;
        for path in data {
            match tree.get(path) {
                None => events.push((EventKind::Deleted, path)),
                Some(node) if node.mzxid > relative => {
                    events.push((EventKind::DataChanged, path));
                }
                Some(_) => self.watches.add(WatchKind::Data, path, id),
            }
        }
        for path in exist {
            match tree.get(path) {
                Some(_) => events.push((EventKind::Created, path)),
                None => self.watches.add(WatchKind::Data, path, id),
            }
        }
        for path in child {
            match tree.get(path) {
                None => events.push((EventKind::Deleted, path)),
                Some(node) if node.pzxid > relative => {
                    events.push((EventKind::ChildrenChanged, path));
                }
                Some(_) => self.watches.add(WatchKind::Child, path, id),
            }
        }
        for (kind, path) in events {
            let state = EventState::SyncConnected;
            self.notify(id, &WatchedEvent { kind, state, path: Cow::Borrowed(path) });
        }
    }
}

fn kinds(kind: i32) -> Result<&'static [WatchKind], ErrorCode> {
    match kind {
        CHILD_WATCHES => Ok(&[WatchKind::Child]),
        DATA_WATCHES => Ok(&[WatchKind::Data]),
        ANY_WATCHES => Ok(&[WatchKind::Child, WatchKind::Data]),
        _ => Err(ErrorCode::BadArguments),
    }
}

/// The answer to a read of the tree, and the watch it sets; `None` for what is no read of the tree.
fn answer<'t, 'r>(
    tree: &'t Tree,
    identities: &[Identity<'_>],
    request: &'r Request<'_>,
    watch: &mut Option<(WatchKind, &'r str)>,
) -> Result<Option<Response<'t>>, ErrorCode> {
    let found = |path: &str| {
        check_path(path).map_err(|_| ErrorCode::BadArguments)?;
        tree.get(path).ok_or(ErrorCode::NoNode)
    };
    let readable = |path: &str| {
        let node = found(path)?;
        match is_permitted(&node.acl, perms::READ, identities) {
            true => Ok(node),
            false => Err(ErrorCode::NoAuth),
        }
    };
    Ok(Some(match request {
        Request::Exists { path, watch: is_watched } => {
            check_path(path).map_err(|_| ErrorCode::BadArguments)?;
            // Set whether it exists or not.
            if *is_watched {
                *watch = Some((WatchKind::Data, path));
            }
            Response::Stat(found(path)?.stat())
        }
        Request::GetData { path, watch: is_watched } => {
            let node = readable(path)?;
            if *is_watched {
                *watch = Some((WatchKind::Data, path));
            }
            Response::Data(node.data.as_deref().map(Cow::Borrowed), node.stat())
        }
        Request::GetChildren { path, watch: is_watched } => {
            let node = readable(path)?;
            if *is_watched {
                *watch = Some((WatchKind::Child, path));
            }
            Response::Strings(children(node))
        }
        Request::GetChildren2 { path, watch: is_watched } => {
            let node = readable(path)?;
            if *is_watched {
                *watch = Some((WatchKind::Child, path));
            }
            Response::Children2(children(node), node.stat())
        }
        Request::GetAcl { path } => {
            let node = found(path)?;
            if !is_permitted(&node.acl, perms::READ | perms::ADMIN, identities) {
                return Err(ErrorCode::NoAuth);
            }
            Response::Acl(mask_digests(&node.acl, identities), node.stat())
        }
        // With one server everything acknowledged is applied here.
        Request::Sync { path } => Response::Path(Cow::Owned(path.clone().into_owned())),
        _ => return Ok(None),
    }))
}

fn children(node: &Node) -> Vec<Cow<'_, str>> {
    node.children.keys().map(|name| Cow::Borrowed(name.as_ref())).collect()
}
