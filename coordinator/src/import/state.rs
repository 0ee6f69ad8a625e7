//! The tree and the sessions as ZooKeeper had them, and its transactions done again.
//!
//! A transaction holds what was decided when it was logged, so nothing is decided here. Those that a
//! snapshot already has in part are done again without harm: what is there stays, what is gone is
//! gone, and a parent's count of creations and pzxid only rise.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use elkfk_wire::jute::{Acl, OpCode, Reader, SessionId, Zxid, check_path, perms};

use super::Malformed;
use super::log::Header;
use crate::tree::{CONTAINER_OWNER, PersistedStat, PlainNode};

/// The type of a transaction that failed.
const ERROR: i32 = -1;
/// The highest byte of the owner of a znode with a time to live; the rest is that time.
const TTL_OWNER: i64 = 0xff << 56;

#[derive(Debug)]
pub(super) struct State {
    /// By path; the root's is empty, so that every parent's is what stands before the last slash.
    pub(super) nodes: BTreeMap<String, PlainNode>,
    /// Timeouts in milliseconds.
    pub(super) sessions: BTreeMap<SessionId, i32>,
    pub(super) ephemerals: HashMap<SessionId, BTreeSet<String>>,
    pub(super) zxid: Zxid,
    /// Changes that the snapshot had already.
    pub(super) ignored: u64,
}

/// The znodes that ZooKeeper makes itself, and their ACLs where those are not open.
const OWN: [(&str, bool); 4] =
    [("", true), ("/zookeeper", true), ("/zookeeper/quota", true), ("/zookeeper/config", false)];

impl State {
    /// What a ZooKeeper begins with.
    pub(super) fn new() -> Self {
        let mut state = Self {
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            ephemerals: HashMap::new(),
            zxid: Zxid(0),
            ignored: 0,
        };
        state.add_own();
        state
    }

    /// Adds those of its own znodes that are not there: older ZooKeepers have fewer.
    pub(super) fn add_own(&mut self) {
        for (path, is_open) in OWN {
            let perms = if is_open { perms::ALL } else { perms::READ };
            self.nodes.entry(path.to_owned()).or_insert_with(|| PlainNode {
                data: Some(Box::default()),
                acl: Arc::from([Acl { perms, ..Acl::OPEN }]),
                stat: PersistedStat {
                    aversion: if is_open { 0 } else { -1 },
                    ..PersistedStat::default()
                },
            });
        }
    }

    /// No zxid may come again that another server of the old ensemble may have given out.
    pub(super) fn raise_epoch(&mut self, epoch: i64) {
        self.zxid = self.zxid.max(Zxid(epoch << 32));
    }

    /// Adds a znode whose parent is there.
    pub(super) fn put(&mut self, path: &str, node: PlainNode) -> Result<(), String> {
        if !path.is_empty() {
            check_path(path).map_err(|why| format!("{path:?}: {why}"))?;
            let parent = parent(path);
            if !self.nodes.contains_key(parent) {
                return Err(format!("{path:?} has no parent {parent:?}"));
            }
        }
        if is_session(node.stat.owner) {
            self.ephemerals.entry(node.stat.owner).or_default().insert(path.to_owned());
        }
        self.nodes.insert(path.to_owned(), node);
        Ok(())
    }

    pub(super) fn apply(&mut self, header: &Header<'_>) -> Result<(), Malformed> {
        let mut reader = Reader::new(header.body);
        match header.kind {
            kind if kind == OpCode::CreateSession.code() => {
                self.sessions.insert(header.session, reader.i32()?);
            }
            kind if kind == OpCode::CloseSession.code() => {
                self.sessions.remove(&header.session);
                for path in self.ephemerals.remove(&header.session).unwrap_or_default() {
                    self.delete(&path, header.zxid);
                }
            }
            kind if kind == OpCode::Multi.code() => {
                let parts = reader
                    .vector(8, |reader| Ok((reader.i32()?, reader.buffer()?.unwrap_or_default())))?
                    .unwrap_or_default();
                // One that failed has the others not done.
                if !parts.iter().any(|(kind, _)| *kind == ERROR) {
                    for (kind, body) in parts {
                        self.change(&Header { kind, body, ..header.clone() })?;
                    }
                }
            }
            _ => self.change(header)?,
        }
        self.zxid = header.zxid;
        Ok(())
    }

    /// A change of one znode.
    fn change(&mut self, header: &Header<'_>) -> Result<(), Malformed> {
        let mut reader = Reader::new(header.body);
        let unknown = || Malformed::Other(format!("type {} is not known", header.kind));
        if header.kind == ERROR {
            return Ok(());
        }
        match OpCode::from_code(header.kind).ok_or_else(unknown)? {
            op @ (OpCode::Create
            | OpCode::Create2
            | OpCode::CreateTtl
            | OpCode::CreateContainer) => self.create(header, op, &mut reader),
            OpCode::Delete | OpCode::DeleteContainer => {
                let path = reader.string()?;
                self.delete(path, header.zxid);
                Ok(())
            }
            OpCode::SetData | OpCode::Reconfig => {
                let (path, data, version) = (reader.string()?, reader.buffer()?, reader.i32()?);
                match self.nodes.get_mut(stored(path)) {
                    Some(node) => {
                        node.data = data.map(Box::from);
                        (node.stat.version, node.stat.mzxid) = (version, header.zxid);
                        node.stat.mtime_ms = header.time_ms;
                    }
                    None => self.ignored += 1,
                }
                Ok(())
            }
            OpCode::SetAcl => {
                let path = reader.string()?;
                let acl = read_acl(&mut reader)?;
                let version = reader.i32()?;
                match self.nodes.get_mut(stored(path)) {
                    Some(node) => (node.acl, node.stat.aversion) = (acl, version),
                    None => self.ignored += 1,
                }
                Ok(())
            }
            OpCode::Check => Ok(()),
            _ => Err(unknown()),
        }
    }

    fn create(
        &mut self,
        header: &Header<'_>,
        op: OpCode,
        reader: &mut Reader<'_>,
    ) -> Result<(), Malformed> {
        let path = reader.string()?;
        let data = reader.buffer()?.map(Box::from);
        let acl = read_acl(reader)?;
        let owner = match op {
            OpCode::CreateContainer => CONTAINER_OWNER,
            OpCode::CreateTtl => SessionId(0),
            _ if reader.bool()? => header.session,
            _ => SessionId(0),
        };
        // ZooKeeper 3.3 wrote none.
        let creations = match op {
            OpCode::Create if reader.rest().len() < 4 => None,
            _ => Some(reader.i32()?),
        };
        let owner = match op {
            OpCode::CreateTtl => SessionId(TTL_OWNER | reader.i64()?),
            _ => owner,
        };
        let Some(above) = self.nodes.get_mut(parent(path)) else {
            self.ignored += 1;
            return Ok(());
        };
        let creations =
            creations.filter(|count| *count != -1).unwrap_or(above.stat.creations.wrapping_add(1));
        if creations > above.stat.creations {
            above.stat.creations = creations;
            above.stat.pzxid = above.stat.pzxid.max(header.zxid);
        }
        if self.nodes.contains_key(path) {
            self.ignored += 1;
            return Ok(());
        }
        let stat = PersistedStat::created(header.zxid, header.time_ms, owner);
        let node = PlainNode { data, acl, stat };
        self.put(path, node).map_err(Malformed::Other)
    }

    fn delete(&mut self, path: &str, zxid: Zxid) {
        if let Some(above) = self.nodes.get_mut(parent(path)) {
            above.stat.pzxid = above.stat.pzxid.max(zxid);
        }
        let Some(node) = self.nodes.remove(path) else {
            self.ignored += 1;
            return;
        };
        if let Some(paths) = self.ephemerals.get_mut(&node.stat.owner) {
            paths.remove(path);
            if paths.is_empty() {
                self.ephemerals.remove(&node.stat.owner);
            }
        }
    }
}

/// Whether an owner is a session, and not a mark of a container or a time to live.
pub(super) fn is_session(owner: SessionId) -> bool {
    let is_mark = owner == CONTAINER_OWNER || owner.0 & (0xff << 56) == TTL_OWNER;
    owner != SessionId(0) && !is_mark
}

/// What stands before the last slash.
pub(super) fn parent(path: &str) -> &str {
    path.rfind('/').map_or("", |slash| &path[..slash])
}

/// Transactions name the root by its slash.
fn stored(path: &str) -> &str {
    if path == "/" { "" } else { path }
}

fn read_acl(reader: &mut Reader<'_>) -> Result<Arc<[Acl<'static>]>, Malformed> {
    let list = reader.vector(12, Acl::decode)?.unwrap_or_default();
    Ok(list.into_iter().map(Acl::into_owned).collect())
}
