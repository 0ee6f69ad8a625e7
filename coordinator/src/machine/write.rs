//! The changes a client can ask for, checked in ZooKeeper's order.

use std::borrow::Cow;

use elkfk_wire::jute::{
    CreateKind, ErrorCode, EventKind, OpCode, OpResult, Request, Response, SessionId, check_path,
    create_flags, parent_and_name, perms,
};

use super::{Event, Machine, Rules};
use crate::tree::{
    CONTAINER_OWNER, Change, Identity, NewNode, Node, NodeId, Tree, Undo, fix_acl, is_permitted,
    ttl_owner,
};

/// Everything a change needs to know beside the request.
struct Asked<'a> {
    change: Change,
    session: SessionId,
    rules: Rules,
    identities: &'a [Identity<'a>],
}

impl Machine {
    /// Makes the change, or none of it. Events are added only if it was made.
    pub(super) fn write(
        &mut self,
        change: Change,
        session: SessionId,
        rules: Rules,
        identities: &[Identity<'_>],
        request: &Request<'_>,
        events: &mut Vec<Event>,
    ) -> Result<Response<'static>, ErrorCode> {
        let asked = Asked { change, session, rules, identities };
        let mut undo = Vec::new();
        match request {
            Request::Multi(requests) => {
                Ok(Response::Multi(write_multi(&mut self.tree, &asked, requests, events)))
            }
            request => write_one(&mut self.tree, &asked, request, events, &mut undo),
        }
    }
}

fn write_multi(
    tree: &mut Tree,
    asked: &Asked<'_>,
    requests: &[Request<'_>],
    events: &mut Vec<Event>,
) -> Vec<OpResult<'static>> {
    let (mut undo, mut results) = (Vec::new(), Vec::with_capacity(requests.len()));
    let events_before = events.len();
    for (index, request) in requests.iter().enumerate() {
        match write_one(tree, asked, request, events, &mut undo) {
            // All that answer with a stat come as create2.
            Ok(made @ Response::PathAndStat(..)) => {
                results.push(OpResult::Ok(OpCode::Create2, made));
            }
            Ok(response) => results.push(OpResult::Ok(request.op(), response)),
            Err(code) => {
                tree.roll_back(undo);
                events.truncate(events_before);
                let error = |at: usize| match at.cmp(&index) {
                    std::cmp::Ordering::Less => 0,
                    std::cmp::Ordering::Equal => code.code(),
                    std::cmp::Ordering::Greater => ErrorCode::RuntimeInconsistency.code(),
                };
                return (0..requests.len()).map(|at| OpResult::Error(error(at))).collect();
            }
        }
    }
    results
}

fn write_one(
    tree: &mut Tree,
    asked: &Asked<'_>,
    request: &Request<'_>,
    events: &mut Vec<Event>,
    undo: &mut Vec<Undo>,
) -> Result<Response<'static>, ErrorCode> {
    match request {
        Request::Create { .. } => create(tree, asked, request, events, undo),
        Request::Delete { path, version } => {
            let (parent, id) = parent_and_node(tree, path)?;
            permit(tree.node(parent), perms::DELETE, asked)?;
            match_version(tree.node(id).version, *version)?;
            delete(tree, asked, id, path, events, undo)
        }
        // Nobody's rights are asked: it is the ensemble itself that tidies up. What was due when it
        // was found may have been used, or deleted and made anew, since.
        Request::DeleteContainer { path } => {
            let (_, id) = parent_and_node(tree, path)?;
            if !tree.node(id).is_due(asked.change.time_ms) {
                return Err(ErrorCode::BadVersion);
            }
            delete(tree, asked, id, path, events, undo)
        }
        Request::SetData { path, data, version } => {
            let id = existing(tree, path)?;
            permit(tree.node(id), perms::WRITE, asked)?;
            if asked.rules.enforce_quota {
                tree.permit_data(id, data.as_ref().map_or(0, |data| data.len()))?;
            }
            match_version(tree.node(id).version, *version)?;
            tree.set_data(asked.change, id, data.as_deref(), undo);
            let (path, acl) = (path.clone().into_owned(), tree.node(id).acl.clone());
            events.push(Event { kind: EventKind::DataChanged, path, acl });
            Ok(Response::Stat(tree.node(id).stat()))
        }
        Request::SetAcl { path, acl, version } => {
            check_path(path).map_err(|_| ErrorCode::BadArguments)?;
            let acl = fix_acl(acl.as_deref(), asked.identities)?;
            let id = tree.find(path).ok_or(ErrorCode::NoNode)?;
            permit(tree.node(id), perms::ADMIN, asked)?;
            match_version(tree.node(id).aversion, *version)?;
            tree.set_acl(id, acl, undo);
            Ok(Response::Stat(tree.node(id).stat()))
        }
        Request::Check { path, version } => {
            let id = existing(tree, path)?;
            permit(tree.node(id), perms::READ, asked)?;
            match_version(tree.node(id).version, *version)?;
            Ok(Response::Empty)
        }
        // Refused whatever it says, as ZooKeeper does unless reconfigEnabled.
        Request::Reconfig { .. } => Err(ErrorCode::ReconfigDisabled),
        _ => Err(ErrorCode::Unimplemented),
    }
}

fn create(
    tree: &mut Tree,
    asked: &Asked<'_>,
    request: &Request<'_>,
    events: &mut Vec<Event>,
    undo: &mut Vec<Undo>,
) -> Result<Response<'static>, ErrorCode> {
    let Request::Create { kind, path, data, acl, flags, ttl_ms } = request else {
        return Err(ErrorCode::Unimplemented);
    };
    let (owner, is_sequential) = owner_and_sequence(*kind, *flags, *ttl_ms, asked)?;
    let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
    if path.contains('\0') {
        return Err(ErrorCode::BadArguments);
    }
    let acl = fix_acl(acl.as_deref(), asked.identities)?;
    let parent = if slash == 0 { "/" } else { &path[..slash] };
    let parent = tree.find(parent).ok_or(ErrorCode::NoNode)?;
    permit(tree.node(parent), perms::CREATE, asked)?;
    let path = match is_sequential {
        true => Cow::Owned(format!("{path}{:010}", tree.node(parent).creations())),
        false => Cow::Borrowed(path.as_ref()),
    };
    check_path(&path).map_err(|_| ErrorCode::BadArguments)?;
    if tree.find(&path).is_some() {
        return Err(ErrorCode::NodeExists);
    }
    if tree.node(parent).is_ephemeral() {
        return Err(ErrorCode::NoChildrenForEphemerals);
    }
    let name = &path[slash + 1..];
    if asked.rules.enforce_quota {
        tree.permit_creation(parent, name, data.as_ref().map_or(0, |data| data.len()))?;
    }
    let new = NewNode { name, data: data.as_deref(), acl, owner };
    let id = tree.create(asked.change, parent, new, undo);
    let acl = tree.node(id).acl.clone();
    events.push(Event { kind: EventKind::Created, path: path.clone().into_owned(), acl });
    let acl = tree.node(parent).acl.clone();
    events.push(Event { kind: EventKind::ChildrenChanged, path: parent_path(&path), acl });
    let path = Cow::Owned(path.into_owned());
    Ok(match kind {
        CreateKind::Create => Response::Path(path),
        _ => Response::PathAndStat(path, tree.node(id).stat()),
    })
}

/// Whose a znode is to be, and whether its name gets a number.
fn owner_and_sequence(
    kind: CreateKind,
    flags: i32,
    ttl_ms: i64,
    asked: &Asked<'_>,
) -> Result<(SessionId, bool), ErrorCode> {
    use create_flags::{
        CONTAINER, EPHEMERAL, EPHEMERAL_SEQUENTIAL, PERSISTENT, PERSISTENT_SEQUENTIAL,
        PERSISTENT_SEQUENTIAL_WITH_TTL, PERSISTENT_WITH_TTL,
    };
    let is_sequential = match flags {
        PERSISTENT | EPHEMERAL | CONTAINER | PERSISTENT_WITH_TTL => false,
        PERSISTENT_SEQUENTIAL | EPHEMERAL_SEQUENTIAL | PERSISTENT_SEQUENTIAL_WITH_TTL => true,
        _ => return Err(ErrorCode::BadArguments),
    };
    let has_ttl = matches!(flags, PERSISTENT_WITH_TTL | PERSISTENT_SEQUENTIAL_WITH_TTL);
    if has_ttl && !asked.rules.extended_types {
        return Err(ErrorCode::Unimplemented);
    }
    // A time to live without the operation for it, or the other way round, is refused.
    let owner = match (kind, flags) {
        (CreateKind::Ttl, _) if has_ttl => ttl_owner(ttl_ms).ok_or(ErrorCode::BadArguments)?,
        (CreateKind::Ttl, _) => return Err(ErrorCode::BadArguments),
        _ if has_ttl => return Err(ErrorCode::BadArguments),
        // It is the operation that makes a container; the flag alone makes a persistent znode.
        (CreateKind::Container, _) => CONTAINER_OWNER,
        (_, EPHEMERAL | EPHEMERAL_SEQUENTIAL) => asked.session,
        _ => SessionId(0),
    };
    Ok((owner, is_sequential))
}

fn delete(
    tree: &mut Tree,
    asked: &Asked<'_>,
    id: NodeId,
    path: &str,
    events: &mut Vec<Event>,
    undo: &mut Vec<Undo>,
) -> Result<Response<'static>, ErrorCode> {
    if tree.node(id).children_len() > 0 {
        return Err(ErrorCode::NotEmpty);
    }
    delete_znode(tree, asked.change, id, path.to_owned(), events, undo);
    Ok(Response::Empty)
}

/// Deletes a znode without children; its events come before those of its parent.
pub(super) fn delete_znode(
    tree: &mut Tree,
    change: Change,
    id: NodeId,
    path: String,
    events: &mut Vec<Event>,
    undo: &mut Vec<Undo>,
) {
    let node = tree.node(id);
    let (acl, above) = (node.acl.clone(), tree.node(node.parent).acl.clone());
    tree.delete(change, id, undo);
    let parent = parent_path(&path);
    events.push(Event { kind: EventKind::Deleted, path, acl });
    events.push(Event { kind: EventKind::ChildrenChanged, path: parent, acl: above });
}

fn parent_path(path: &str) -> String {
    parent_and_name(path).map_or("/", |(parent, _)| parent).to_owned()
}

/// Both of a path that may be deleted.
fn parent_and_node(tree: &Tree, path: &str) -> Result<(NodeId, NodeId), ErrorCode> {
    let slash = path.rfind('/').ok_or(ErrorCode::BadArguments)?;
    if path.contains('\0') || Tree::is_special(path) {
        return Err(ErrorCode::BadArguments);
    }
    let parent = if slash == 0 { "/" } else { &path[..slash] };
    let parent = tree.find(parent).ok_or(ErrorCode::NoNode)?;
    Ok((parent, tree.find(path).ok_or(ErrorCode::NoNode)?))
}

fn existing(tree: &Tree, path: &str) -> Result<NodeId, ErrorCode> {
    check_path(path).map_err(|_| ErrorCode::BadArguments)?;
    tree.find(path).ok_or(ErrorCode::NoNode)
}

fn permit(node: &Node, perm: i32, asked: &Asked<'_>) -> Result<(), ErrorCode> {
    match is_permitted(&node.acl, perm, asked.identities) {
        true => Ok(()),
        false => Err(ErrorCode::NoAuth),
    }
}

/// -1 matches any version.
fn match_version(found: i32, expected: i32) -> Result<(), ErrorCode> {
    if expected == -1 || expected == found { Ok(()) } else { Err(ErrorCode::BadVersion) }
}
