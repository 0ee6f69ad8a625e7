//! The znode tree: pure state, without clock, disk or socket.
//!
//! Every change is made under the zxid and the time it is given, so equal changes in equal order
//! make equal trees. Changes are made one by one; a multi that fails halfway is taken back by the
//! [`Undo`]s of those before ([`Tree::roll_back`]).

mod acl;
mod children;
mod image;
mod quota;
mod table;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use elkfk_wire::jute::{Acl, SessionId, Stat, Zxid};

pub(crate) use acl::{Identity, SUPER, digest_id, fix_acl, is_permitted, mask_digests};
use children::Children;
pub use image::ImageError;
use image::ImageWriter;
pub(crate) use image::PlainNode;
use table::Table;

/// Place of a znode in the table of them; stays its own as long as it lives.
pub(crate) type NodeId = u32;

/// An ACL, shared by all znodes that have the same.
pub(crate) type SharedAcl = Arc<Vec<Acl<'static>>>;

/// `ephemeral_owner` of a container, as ZooKeeper marks it.
pub(crate) const CONTAINER_OWNER: SessionId = SessionId(i64::MIN);

/// The longest time to live a znode may have: some 34 years.
pub(crate) const TTL_MS_MAX: i64 = (1 << 40) - 1;

/// `ephemeral_owner` of a znode with a time to live, as ZooKeeper marks it since 3.5.4.
///
/// `None` for what is no time to live.
pub(crate) fn ttl_owner(ttl_ms: i64) -> Option<SessionId> {
    (1..=TTL_MS_MAX).contains(&ttl_ms).then_some(SessionId((0xff_u64 << 56) as i64 | ttl_ms))
}

/// The time to live that an owner stands for, if it does.
fn ttl_ms(owner: SessionId) -> Option<i64> {
    // A session of server 255 starts with the same byte; the 16 bits after it are of a time then.
    (owner.0 as u64 >> 40 == 0xff_0000).then_some(owner.0 & TTL_MS_MAX)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Empty for the root.
    pub(crate) name: Box<str>,
    pub(crate) parent: NodeId,
    /// All that is below it, to any depth.
    pub(crate) descendants: u32,
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
    /// 0 for a persistent znode, [`CONTAINER_OWNER`] for a container, [`ttl_owner`].
    pub(crate) owner: SessionId,
    /// `None` where there is none.
    children: Option<Box<Children>>,
    /// Of the whole path, so that a move between places in the table changes no digest.
    path_hash: u64,
    /// This znode's share of [`Tree::digest`].
    hash: u64,
}

impl Node {
    pub(crate) fn stat(&self) -> Stat {
        let num_children = self.children_len() as i32;
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime_ms: self.ctime_ms,
            mtime_ms: self.mtime_ms,
            version: self.version,
            // Only creations are stored; ZooKeeper's DataNode.copyStat works out the deletions so.
            cversion: self.creations.wrapping_mul(2).wrapping_sub(num_children),
            aversion: self.aversion,
            // Only a session is told: what else the owner says is the ensemble's own affair.
            ephemeral_owner: if self.is_ephemeral() { self.owner } else { SessionId(0) },
            data_length: self.data.as_ref().map_or(0, |data| data.len() as i32),
            num_children,
            pzxid: self.pzxid,
        }
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        Keep::of(self.owner) == Keep::Ephemeral
    }

    pub(crate) fn children_len(&self) -> usize {
        self.children.as_ref().map_or(0, |children| children.len())
    }

    fn data_len(&self) -> i64 {
        self.data.as_ref().map_or(0, |data| data.len() as i64)
    }

    /// Whether it is a container that had children and has none, or its time to live was over at
    /// `now_ms`; with children it stays in any case.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.children_len() == 0
            && match Keep::of(self.owner) {
                Keep::Container => self.creations > 0,
                Keep::Ttl(ttl_ms) => now_ms.saturating_sub(self.mtime_ms) > ttl_ms,
                Keep::Persistent | Keep::Ephemeral => false,
            }
    }
}

/// How long a znode is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Persistent,
    Ephemeral,
    Container,
    Ttl(i64),
}

impl Keep {
    fn of(owner: SessionId) -> Self {
        match (owner, ttl_ms(owner)) {
            (SessionId(0), _) => Self::Persistent,
            (CONTAINER_OWNER, _) => Self::Container,
            (_, Some(ttl_ms)) => Self::Ttl(ttl_ms),
            _ => Self::Ephemeral,
        }
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

#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Table,
    free: Vec<NodeId>,
    ephemerals: HashMap<SessionId, BTreeSet<NodeId>>,
    /// Containers and znodes with a time to live.
    transient: BTreeSet<NodeId>,
    /// `/zookeeper/quota`.
    quota: Option<NodeId>,
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
        let mut tree = Self::default();
        let open = tree.share(vec![Acl::OPEN]);
        let node = |name: &str, parent, acl: &SharedAcl, aversion| Node {
            name: name.into(),
            parent,
            descendants: 0,
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
            children: None,
            path_hash: 0,
            hash: 0,
        };
        tree.nodes.put(0, node("", ROOT, &open, 0));
        tree.nodes.put(1, node("zookeeper", ROOT, &open, 0));
        tree.nodes.put(2, node("quota", 1, &open, 0));
        let read = Acl { perms: elkfk_wire::jute::perms::READ, ..Acl::OPEN };
        let read = tree.share(vec![read]);
        tree.nodes.put(3, node("config", 1, &read, -1));
        tree.link_all().expect("the first znodes make a tree");
        tree
    }

    /// Works out all that follows from the znodes themselves; says what keeps them from being a tree.
    fn link_all(&mut self) -> Result<(), &'static str> {
        if self.nodes.get(ROOT).is_none() {
            return Err("no root");
        }
        for id in 0..self.nodes.len() as NodeId {
            let Some(node) = self.nodes.get(id) else {
                self.free.push(id);
                continue;
            };
            let (parent, owner) = (node.parent, node.owner);
            self.data_bytes += node.data_len() as u64;
            self.mark_owner(id, owner);
            if id == ROOT {
                continue;
            }
            if self.nodes.get(parent).is_none() {
                return Err("a znode without its parent");
            }
            if !self.link(parent, id) {
                return Err("two znodes of one path");
            }
        }
        // Everything must hang from the root, or a path could run in a circle.
        let mut order = vec![ROOT];
        let mut at = 0;
        while let Some(id) = order.get(at).copied() {
            at += 1;
            self.hash_path(id);
            self.path_chars += self.chars_of_path(id);
            order.extend(self.children(id));
        }
        if order.len() != self.len() {
            return Err("a znode that does not hang from the root");
        }
        for id in order.into_iter().rev() {
            self.rehash(id);
            if id != ROOT {
                let (parent, below) = (self.node(id).parent, self.node(id).descendants + 1);
                self.node_mut(parent).descendants += below;
            }
        }
        self.quota = self.find("/zookeeper/quota");
        Ok(())
    }

    /// Adds to the children of `parent`; `false` where there is one of that name.
    fn link(&mut self, parent: NodeId, id: NodeId) -> bool {
        let mut children = self.node_mut(parent).children.take().unwrap_or_default();
        let is_new = children.insert(&self.nodes, &self.node(id).name, id);
        self.node_mut(parent).children = Some(children);
        is_new
    }

    /// Adds a znode that is already in the table to all that knows of it.
    fn attach(&mut self, parent: NodeId, id: NodeId) {
        let owner = self.node(id).owner;
        self.mark_owner(id, owner);
        self.data_bytes += self.node(id).data_len() as u64;
        self.link(parent, id);
        self.path_chars += self.chars_of_path(id);
        self.grow(parent, 1);
    }

    fn grow(&mut self, mut id: NodeId, by: i32) {
        loop {
            let node = self.node_mut(id);
            node.descendants = node.descendants.wrapping_add_signed(by);
            if id == ROOT {
                return;
            }
            id = node.parent;
        }
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
            id = self.child(id, name)?;
        }
        Some(id)
    }

    fn child(&self, id: NodeId, name: &str) -> Option<NodeId> {
        self.node(id).children.as_ref()?.find(&self.nodes, name)
    }

    /// Places of a znode's children, in the order of their names.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.node(id).children.iter().flat_map(|children| children.iter())
    }

    /// # Panics
    /// Where no znode has this place.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id).expect("ids are handed out for znodes that are there")
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes.get_mut(id).expect("ids are handed out for znodes that are there")
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
        let node = Node {
            name: name.into(),
            parent,
            descendants: 0,
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
            children: None,
            path_hash: 0,
            hash: 0,
        };
        let id = self.free.pop().unwrap_or(self.nodes.len() as NodeId);
        if let Some(image) = &mut self.image {
            image.skip(id);
        }
        self.nodes.put(id, node);
        let above = self.node_mut(parent);
        undo.push(Undo::Parent(parent, above.pzxid, above.creations));
        above.creations = above.creations.wrapping_add(1);
        above.pzxid = above.pzxid.max(change.zxid);
        self.attach(parent, id);
        self.rehash(parent);
        self.hash_path(id);
        self.rehash(id);
        undo.push(Undo::Created(id));
        self.count_anew(id, undo);
        self.count(id, 1, data.map_or(0, |data| data.len() as i64), undo);
        id
    }

    /// Removes a znode without children.
    pub(crate) fn delete(&mut self, change: Change, id: NodeId, undo: &mut Vec<Undo>) {
        self.count(id, -1, -self.node(id).data_len(), undo);
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
        let (parent, name) = (self.node(id).parent, self.node(id).name.clone());
        if let Some(mut children) = self.node_mut(parent).children.take() {
            children.remove(&self.nodes, &name);
            self.node_mut(parent).children = (children.len() > 0).then_some(children);
        }
        self.grow(parent, -1);
        let node = self.nodes.take(id).expect("ids are of znodes that are there");
        self.digest = self.digest.wrapping_sub(node.hash);
        self.data_bytes -= node.data_len() as u64;
        self.free.push(id);
        self.transient.remove(&id);
        if let Some(ids) = self.ephemerals.get_mut(&node.owner) {
            ids.remove(&id);
            if ids.is_empty() {
                self.ephemerals.remove(&node.owner);
            }
        }
        node
    }

    pub(crate) fn set_data(
        &mut self,
        change: Change,
        id: NodeId,
        data: Option<&[u8]>,
        undo: &mut Vec<Undo>,
    ) {
        let growth = data.map_or(0, |data| data.len() as i64) - self.node(id).data_len();
        self.replace_data(id, data.map(Box::from), undo);
        let node = self.node_mut(id);
        node.version = node.version.wrapping_add(1);
        node.mzxid = change.zxid;
        node.mtime_ms = change.time_ms;
        self.rehash(id);
        self.count(id, 0, growth, undo);
    }

    /// Nothing of the stat but the length tells of it.
    fn replace_data(&mut self, id: NodeId, data: Option<Box<[u8]>>, undo: &mut Vec<Undo>) {
        self.touch(id);
        let node = self.node_mut(id);
        let (mzxid, mtime_ms, version) = (node.mzxid, node.mtime_ms, node.version);
        let old = self.swap_data(id, data);
        undo.push(Undo::Data { id, data: old, mzxid, mtime_ms, version });
        self.rehash(id);
    }

    fn swap_data(&mut self, id: NodeId, data: Option<Box<[u8]>>) -> Option<Box<[u8]>> {
        let node = self.node_mut(id);
        let before = node.data_len() as u64;
        let old = std::mem::replace(&mut node.data, data);
        let after = node.data_len() as u64;
        self.data_bytes = self.data_bytes - before + after;
        old
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
                    let parent = node.parent;
                    let mut node = *node;
                    node.hash = 0;
                    // Places are handed out last in, first out, so its own is the last one freed.
                    let freed = self.free.pop();
                    debug_assert_eq!(freed, Some(id));
                    self.nodes.put(id, node);
                    self.attach(parent, id);
                    self.rehash(id);
                }
                Undo::Parent(id, pzxid, creations) => {
                    let node = self.node_mut(id);
                    node.pzxid = pzxid;
                    node.creations = creations;
                    self.rehash(id);
                }
                Undo::Data { id, data, mzxid, mtime_ms, version } => {
                    self.swap_data(id, data);
                    let node = self.node_mut(id);
                    (node.mzxid, node.mtime_ms, node.version) = (mzxid, mtime_ms, version);
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
        match Keep::of(owner) {
            Keep::Persistent => {}
            Keep::Container | Keep::Ttl(_) => drop(self.transient.insert(id)),
            Keep::Ephemeral => drop(self.ephemerals.entry(owner).or_default().insert(id)),
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

    /// Paths of what is to go by itself ([`Node::is_due`]), `count_max` of them at most.
    pub(crate) fn due(&self, now_ms: i64, count_max: usize) -> Vec<String> {
        let is_due = |id: &&NodeId| self.node(**id).is_due(now_ms);
        self.transient.iter().filter(is_due).take(count_max).map(|id| self.path(*id)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len() - self.free.len()
    }

    /// Bytes of data, for people.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data_bytes
    }

    /// Characters of all paths together: ZooKeeper counts them as data.
    pub(crate) fn path_chars(&self) -> u64 {
        self.path_chars
    }

    /// Roughly what an image of the tree takes.
    pub(crate) fn approximate_bytes(&self) -> u64 {
        const FIELDS_BYTES: u64 = 96;
        self.data_bytes + self.path_chars + self.len() as u64 * FIELDS_BYTES
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// The one copy of this ACL.
    fn share(&mut self, acl: Vec<Acl<'static>>) -> SharedAcl {
        if let Some(shared) = self.acls.get(&acl) {
            return shared.clone();
        }
        // What only this table still holds is dropped now and then, when it would grow anyway.
        if self.acls.len() == self.acls.capacity() {
            self.acls.retain(|shared| Arc::strong_count(shared) > 1);
        }
        let shared: SharedAcl = Arc::new(acl);
        self.acls.insert(shared.clone());
        shared
    }

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

    /// To be called on a parent before its children.
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
