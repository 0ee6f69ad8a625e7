//! The znode tree: pure state, without clock, disk or socket.
//!
//! Every change is made under the zxid and the time it is given, so equal changes in equal order
//! make equal trees. Changes are made one by one; a multi that fails halfway is taken back by the
//! [`Undo`]s of those before ([`Tree::roll_back`]).

mod acl;
mod image;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use elkfk_wire::jute::{Acl, SessionId, Stat, Zxid};

pub(crate) use acl::{Identity, digest_id, fix_acl, is_permitted, mask_digests};
pub use image::ImageError;
use image::ImageWriter;
pub(crate) use image::PlainNode;

/// Place of a znode in the table of them; stays its own as long as it lives.
pub(crate) type NodeId = u32;

/// An ACL, shared by all znodes that have the same.
pub(crate) type SharedAcl = Arc<[Acl<'static>]>;

/// `ephemeral_owner` of a container, as ZooKeeper marks it.
pub(crate) const CONTAINER_OWNER: SessionId = SessionId(i64::MIN);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Empty for the root.
    pub(crate) name: Arc<str>,
    pub(crate) parent: NodeId,
    /// `None` is Java's null.
    pub(crate) data: Option<Box<[u8]>>,
    pub(crate) acl: SharedAcl,
    pub(crate) czxid: Zxid,
    pub(crate) mzxid: Zxid,
    pub(crate) pzxid: Zxid,
    pub(crate) ctime_ms: i64,
    pub(crate) mtime_ms: i64,
    pub(crate) version: i32,
    /// Children ever created here: the number of the next sequential name.
    pub(crate) creations: i32,
    pub(crate) aversion: i32,
    /// 0 for a persistent znode, [`CONTAINER_OWNER`] for a container.
    pub(crate) owner: SessionId,
    pub(crate) children: BTreeMap<Arc<str>, NodeId>,
    /// Of the whole path, so that a move between places in the table changes no digest.
    path_hash: u64,
    /// This znode's share of [`Tree::digest`].
    hash: u64,
}

impl Node {
    pub(crate) fn stat(&self) -> Stat {
        let num_children = self.children.len() as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            // Only creations are stored; ZooKeeper's DataNode.copyStat works out the deletions so.
            cversion: self.creations.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            ephemeral_owner: self.owner,
            data_length: self.data.as_ref().map_or(0, |data| data.len() as i32),
            num_children,
            pzxid: self.pzxid,
        }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.owner != SessionId(0) && self.owner != CONTAINER_OWNER
    }
}

/// What a creation asks for.
#[derive(Debug)]
pub(crate) struct NewNode<'a> {
    pub(crate) name: &'a str,
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) acl: Vec<Acl<'static>>,
    pub(crate) owner: SessionId,
}

/// The change that is being made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) zxid: Zxid,
    pub(crate) time_ms: i64,
}

/// How to take one change back. To be used in reverse order.
#[derive(Debug)]
pub(crate) enum Undo {
    Created(NodeId),
    Deleted(NodeId, Box<Node>),
    /// The parent's own fields before a child came or went.
    Parent(NodeId, Zxid, i32),
    Data {
        id: NodeId,
        data: Option<Box<[u8]>>,
        mzxid: Zxid,
        mtime_ms: i64,
        version: i32,
    },
    Acl {
        id: NodeId,
        acl: SharedAcl,
        aversion: i32,
    },
}

#[derive(Debug)]
pub(crate) struct Tree {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    ephemerals: HashMap<SessionId, BTreeSet<NodeId>>,
    containers: BTreeSet<NodeId>,
    acls: HashSet<SharedAcl>,
    /// Sum of the hashes of all znodes: equal trees have equal digests.
    digest: u64,
    data_bytes: u64,
    /// Of all paths together, in Java's characters.
    path_chars: u64,
    image: Option<ImageWriter>,
}

const ROOT: NodeId = 0;

/// The znodes that always are. They cannot be deleted.
const SPECIAL_PATHS: [&str; 4] = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"];

impl Tree {
    /// The tree of a new ensemble: the root and `/zookeeper` with what ZooKeeper keeps there.
    pub(crate) fn new() -> Self {
        let mut tree = Self::empty();
        let open = tree.share(vec![Acl::OPEN]);
        let node = |name: &str, parent, acl: &SharedAcl, aversion| Node {
            name: name.into(),
            parent,
            data: Some(Box::default()),
            acl: acl.clone(),
            czxid: Zxid(0),
            mzxid: Zxid(0),
            pzxid: Zxid(0),
            ctime_ms: 0,
            mtime_ms: 0,
            version: 0,
            creations: 0,
            aversion,
            owner: SessionId(0),
            children: BTreeMap::new(),
            path_hash: 0,
            hash: 0,
        };
        tree.place(0, node("", ROOT, &open, 0));
        tree.place(1, node("zookeeper", ROOT, &open, 0));
        tree.place(2, node("quota", 1, &open, 0));
        let read = Acl { perms: elkfk_wire::jute::perms::READ, ..Acl::OPEN };
        let read = tree.share(vec![read]);
        tree.place(3, node("config", 1, &read, -1));
        tree.link_all().expect("the first znodes make a tree");
        tree
    }

    fn empty() -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            ephemerals: HashMap::new(),
            containers: BTreeSet::new(),
            acls: HashSet::new(),
            digest: 0,
            data_bytes: 0,
            path_chars: 0,
            image: None,
        }
    }

    /// Puts a znode at a place of the caller's choice, unlinked: for building a tree whole.
    fn place(&mut self, id: NodeId, node: Node) {
        let at = id as usize;
        if self.nodes.len() <= at {
            self.nodes.resize_with(at + 1, || None);
        }
        self.nodes[at] = Some(node);
    }

    /// Works out all that follows from the znodes themselves; says what keeps them from being a tree.
    fn link_all(&mut self) -> Result<(), &'static str> {
        if self.nodes.first().is_none_or(Option::is_none) {
            return Err("no root");
        }
        for id in 0..self.nodes.len() as NodeId {
            let Some(node) = &self.nodes[id as usize] else {
                self.free.push(id);
                continue;
            };
            let (name, parent, owner) = (node.name.clone(), node.parent, node.owner);
            self.data_bytes += node.data.as_ref().map_or(0, |data| data.len() as u64);
            if owner == CONTAINER_OWNER {
                self.containers.insert(id);
            } else if owner != SessionId(0) {
                self.ephemerals.entry(owner).or_default().insert(id);
            }
            if id == ROOT {
                continue;
            }
            let Some(Some(parent)) = self.nodes.get_mut(parent as usize) else {
                return Err("a znode without its parent");
            };
            if parent.children.insert(name, id).is_some() {
                return Err("two znodes of one path");
            }
        }
        // Everything must hang from the root, or a path could run in a circle.
        let mut seen = 0;
        let mut below = vec![ROOT];
        while let Some(id) = below.pop() {
            seen += 1;
            self.hash_path(id);
            self.path_chars += self.chars_of_path(id);
            below.extend(self.node(id).children.values());
        }
        if seen + self.free.len() != self.nodes.len() {
            return Err("a znode that does not hang from the root");
        }
        for id in 0..self.nodes.len() as NodeId {
            if self.nodes[id as usize].is_some() {
                self.rehash(id);
            }
        }
        Ok(())
    }

    pub(crate) fn is_special(path: &str) -> bool {
        SPECIAL_PATHS.contains(&path)
    }

    pub(crate) fn find(&self, path: &str) -> Option<NodeId> {
        let mut id = ROOT;
        for name in path.strip_prefix('/')?.split('/') {
            if name.is_empty() {
                return (path.len() == 1).then_some(ROOT);
            }
            id = *self.node(id).children.get(name)?;
        }
        Some(id)
    }

    /// # Panics
    /// Where no znode has this place.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes[id as usize].as_ref().expect("ids are handed out for znodes that are there")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes[id as usize].as_mut().expect("ids are handed out for znodes that are there")
    }

    pub(crate) fn get(&self, path: &str) -> Option<&Node> {
        self.find(path).map(|id| self.node(id))
    }

    pub(crate) fn path(&self, mut id: NodeId) -> String {
        let mut names = Vec::new();
        while id != ROOT {
            let node = self.node(id);
            names.push(&node.name);
            id = node.parent;
        }
        if names.is_empty() {
            return "/".to_owned();
        }
        let mut path = String::with_capacity(names.iter().map(|name| name.len() + 1).sum());
        for name in names.into_iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        path
    }

    /// Adds a znode that is not there yet below `parent`.
    pub(crate) fn create(
        &mut self,
        change: Change,
        parent: NodeId,
        new: NewNode<'_>,
        undo: &mut Vec<Undo>,
    ) -> NodeId {
        let NewNode { name, data, acl, owner } = new;
        self.touch(parent);
        let name: Arc<str> = name.into();
        let node = Node {
            name: name.clone(),
            parent,
            data: data.map(Box::from),
            acl: self.share(acl),
            czxid: change.zxid,
            mzxid: change.zxid,
            pzxid: change.zxid,
            ctime_ms: change.time_ms,
            mtime_ms: change.time_ms,
            version: 0,
            creations: 0,
            aversion: 0,
            owner,
            children: BTreeMap::new(),
            path_hash: 0,
            hash: 0,
        };
        let id = self.free.pop().unwrap_or(self.nodes.len() as NodeId);
        if let Some(image) = &mut self.image {
            image.skip(id);
        }
        self.data_bytes += data.map_or(0, |data| data.len() as u64);
        self.place(id, node);
        self.mark_owner(id, owner);
        let above = self.node_mut(parent);
        undo.push(Undo::Parent(parent, above.pzxid, above.creations));
        above.creations = above.creations.wrapping_add(1);
        above.pzxid = above.pzxid.max(change.zxid);
        above.children.insert(name, id);
        self.rehash(parent);
        self.hash_path(id);
        self.path_chars += self.chars_of_path(id);
        self.rehash(id);
        undo.push(Undo::Created(id));
        id
    }

    /// Removes a znode without children.
    pub(crate) fn delete(&mut self, change: Change, id: NodeId, undo: &mut Vec<Undo>) {
        let parent = self.node(id).parent;
        self.touch(parent);
        let above = self.node_mut(parent);
        undo.push(Undo::Parent(parent, above.pzxid, above.creations));
        above.pzxid = above.pzxid.max(change.zxid);
        let node = self.take_out(id);
        self.rehash(parent);
        undo.push(Undo::Deleted(id, Box::new(node)));
    }

    fn take_out(&mut self, id: NodeId) -> Node {
        self.touch(id);
        self.path_chars -= self.chars_of_path(id);
        let node = self.nodes[id as usize].take().expect("ids are of znodes that are there");
        self.digest = self.digest.wrapping_sub(node.hash);
        self.data_bytes -= node.data.as_ref().map_or(0, |data| data.len() as u64);
        self.free.push(id);
        self.containers.remove(&id);
        if let Some(ids) = self.ephemerals.get_mut(&node.owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.ephemerals.remove(&node.owner);
            }
        }
        self.node_mut(node.parent).children.remove(&node.name);
        node
    }

    pub(crate) fn set_data(
        &mut self,
        change: Change,
        id: NodeId,
        data: Option<&[u8]>,
        undo: &mut Vec<Undo>,
    ) {
        self.touch(id);
        self.data_bytes += data.map_or(0, |data| data.len() as u64);
        let node = self.node_mut(id);
        let old = std::mem::replace(&mut node.data, data.map(Box::from));
        let old_bytes = old.as_ref().map_or(0, |data| data.len() as u64);
        undo.push(Undo::Data {
            id,
            data: old,
            mzxid: node.mzxid,
            mtime_ms: node.mtime_ms,
            version: node.version,
        });
        node.version = node.version.wrapping_add(1);
        node.mzxid = change.zxid;
        node.mtime_ms = change.time_ms;
        self.data_bytes -= old_bytes;
        self.rehash(id);
    }

    pub(crate) fn set_acl(&mut self, id: NodeId, acl: Vec<Acl<'static>>, undo: &mut Vec<Undo>) {
        self.touch(id);
        let acl = self.share(acl);
        let node = self.node_mut(id);
        let old = std::mem::replace(&mut node.acl, acl);
        undo.push(Undo::Acl { id, acl: old, aversion: node.aversion });
        node.aversion = node.aversion.wrapping_add(1);
        self.rehash(id);
    }

    /// Takes changes back, the last one first.
    pub(crate) fn roll_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::Created(id) => drop(self.take_out(id)),
                Undo::Deleted(id, node) => {
                    self.data_bytes += node.data.as_ref().map_or(0, |data| data.len() as u64);
                    let (name, parent, owner) = (node.name.clone(), node.parent, node.owner);
                    let mut node = *node;
                    node.hash = 0;
                    // Places are handed out last in, first out, so its own is the last one freed.
                    let freed = self.free.pop();
                    debug_assert_eq!(freed, Some(id));
                    self.place(id, node);
                    self.mark_owner(id, owner);
                    self.node_mut(parent).children.insert(name, id);
                    self.path_chars += self.chars_of_path(id);
                    self.rehash(id);
                }
                Undo::Parent(id, pzxid, creations) => {
                    let node = self.node_mut(id);
                    node.pzxid = pzxid;
                    node.creations = creations;
                    self.rehash(id);
                }
                Undo::Data { id, data, mzxid, mtime_ms, version } => {
                    self.data_bytes += data.as_ref().map_or(0, |data| data.len() as u64);
                    let node = self.node_mut(id);
                    let newer = std::mem::replace(&mut node.data, data);
                    (node.mzxid, node.mtime_ms, node.version) = (mzxid, mtime_ms, version);
                    self.data_bytes -= newer.as_ref().map_or(0, |data| data.len() as u64);
                    self.rehash(id);
                }
                Undo::Acl { id, acl, aversion } => {
                    let node = self.node_mut(id);
                    (node.acl, node.aversion) = (acl, aversion);
                    self.rehash(id);
                }
            }
        }
    }

    fn mark_owner(&mut self, id: NodeId, owner: SessionId) {
        if owner == CONTAINER_OWNER {
            self.containers.insert(id);
        } else if owner != SessionId(0) {
            self.ephemerals.entry(owner).or_default().insert(id);
        }
    }

    /// Sorted paths of a session's ephemerals.
    pub(crate) fn ephemerals(&self, session: SessionId) -> Vec<String> {
        let ids = self.ephemerals.get(&session);
        let mut paths: Vec<_> = ids.into_iter().flatten().map(|id| self.path(*id)).collect();
        paths.sort_unstable();
        paths
    }

    /// Sessions with ephemerals, sorted.
    pub(crate) fn ephemeral_owners(&self) -> Vec<SessionId> {
        let mut owners: Vec<_> = self.ephemerals.keys().copied().collect();
        owners.sort_unstable();
        owners
    }

    pub(crate) fn ephemeral_count(&self) -> usize {
        self.ephemerals.values().map(BTreeSet::len).sum()
    }

    /// Containers that had children and have none any more.
    pub(crate) fn empty_containers(&self) -> Vec<String> {
        let is_done = |id: &&NodeId| {
            let node = self.node(**id);
            node.children.is_empty() && node.creations > 0
        };
        self.containers.iter().filter(is_done).map(|id| self.path(*id)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Bytes of data and of paths' last names, for people.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Characters of all paths together: ZooKeeper counts them as data.
    pub(crate) fn path_chars(&self) -> u64 {
        self.path_chars
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The one copy of this ACL.
    fn share(&mut self, acl: Vec<Acl<'static>>) -> SharedAcl {
        if let Some(shared) = self.acls.get(acl.as_slice()) {
            return shared.clone();
        }
        // What only this table still holds is dropped now and then, when it would grow anyway.
        if self.acls.len() == self.acls.capacity() {
            self.acls.retain(|shared| Arc::strong_count(shared) > 1);
        }
        let shared: SharedAcl = acl.into();
        self.acls.insert(shared.clone());
        shared
    }

    /// To be called on a parent before its children.
    /// Of a path's length, as Java counts it; the root's is its slash.
    fn chars_of_path(&self, mut id: NodeId) -> u64 {
        let mut chars = u64::from(id == ROOT);
        while id != ROOT {
            let node = self.node(id);
            let name = &node.name;
            let name_chars = if name.is_ascii() { name.len() } else { name.encode_utf16().count() };
            chars += 1 + name_chars as u64;
            id = node.parent;
        }
        chars
    }

    fn hash_path(&mut self, id: NodeId) {
        let node = self.node(id);
        let mut hash = Fnv::new();
        if id != ROOT {
            hash.number(self.node(node.parent).path_hash);
            hash.bytes(node.name.as_bytes());
        }
        self.node_mut(id).path_hash = hash.0;
    }

    fn rehash(&mut self, id: NodeId) {
        let mut hash = Fnv::new();
        let node = self.node(id);
        hash.number(node.path_hash);
        hash.bytes(node.data.as_deref().unwrap_or(&[0xff]));
        for acl in node.acl.iter() {
            hash.number(acl.perms as u64);
            hash.bytes(acl.scheme.as_bytes());
            hash.bytes(acl.id.as_bytes());
        }
        for number in [
            node.czxid.0,
            node.mzxid.0,
            node.pzxid.0,
            node.ctime_ms,
            node.mtime_ms,
            node.version.into(),
            node.creations.into(),
            node.aversion.into(),
            node.owner.0,
        ] {
            hash.number(number as u64);
        }
        let node = self.node_mut(id);
        let old = std::mem::replace(&mut node.hash, hash.0);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(hash.0);
    }

    /// To be called before a znode changes, so that an image being written gets it as it was.
    fn touch(&mut self, id: NodeId) {
        if let Some(mut image) = self.image.take() {
            image.save(self, id);
            self.image = Some(image);
        }
    }
}

/// A hash that is the same on every machine and for ever; data goes in by its CRC, for speed.
struct Fnv(u64);

impl Fnv {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn number(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.number(crc32fast::hash(bytes).into());
    }
}

#[cfg(test)]
mod tests;
