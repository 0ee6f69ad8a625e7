//! The znode tree: pure state, without clock, disk or socket.
//!
//! Every change is made under the zxid and the time it is given, so equal changes in equal order
//! make equal trees. Changes are made one by one; a multi that fails halfway is taken back by the
//! [`Undo`]s of those before ([`Tree::roll_back`]).

mod acl;
mod children;
mod image;
mod node;
mod quota;
mod table;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use elkfk_wire::jute::{Acl, SessionId, Zxid};

pub(crate) use acl::{Identity, SUPER, digest_id, fix_acl, is_permitted, mask_digests};
pub use image::ImageError;
use image::ImageWriter;
pub(crate) use image::{PlainNode, TreeReader};
pub(crate) use node::{CONTAINER_OWNER, Node, PersistedStat, ttl_owner};
use node::{Keep, Text};
use table::Table;

/// Place of a znode in the table of them; stays its own as long as it lives.
pub(crate) type NodeId = u32;

/// An ACL, shared by all znodes that have the same.
pub(crate) type SharedAcl = Arc<Vec<Acl<'static>>>;

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
        text: Text,
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
        let node = |name: &str, parent, acl: &SharedAcl, aversion| {
            let stat = PersistedStat { aversion, ..PersistedStat::default() };
            Node::new(parent, Text::new(name, Some(&[])), acl.clone(), stat)
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
            if self.node(id).family().is_some() {
                self.keep_path_hash(id);
            }
            self.digest = self.digest.wrapping_add(self.hash(id));
            self.path_chars += self.chars_of_path(id);
            order.extend(self.children(id));
        }
        if order.len() != self.len() {
            return Err("a znode that does not hang from the root");
        }
        for id in order.into_iter().rev() {
            if id != ROOT {
                let (parent, below) = (self.node(id).parent, self.node(id).descendants() + 1);
                self.node_mut(parent).family_mut().descendants += below;
            }
        }
        self.quota = self.find("/zookeeper/quota");
        Ok(())
    }

    /// Adds to the children of `parent`; `false` where there is one of that name.
    fn link(&mut self, parent: NodeId, id: NodeId) -> bool {
        let mut children = std::mem::take(&mut self.node_mut(parent).family_mut().children);
        let is_new = children.insert(&self.nodes, self.node(id).name_bytes(), id);
        self.node_mut(parent).family_mut().children = children;
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
        self.digest = self.digest.wrapping_add(self.hash(id));
    }

    fn grow(&mut self, mut id: NodeId, by: i32) {
        loop {
            let node = self.node_mut(id);
            let family = node.family_mut();
            family.descendants = family.descendants.wrapping_add_signed(by);
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
        self.node(id).children()?.find(&self.nodes, name.as_bytes())
    }

    /// Places of a znode's children, in the order of their names.
    pub(crate) fn children(&self, id: NodeId) -> impl Iterator<Item = NodeId> {
        self.node(id).children().into_iter().flat_map(|children| children.iter())
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
            names.push(node.name());
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
        let stat = PersistedStat::created(change.zxid, change.time_ms, owner);
        let node = Node::new(parent, Text::new(name, data), self.share(acl), stat);
        let id = self.free.pop().unwrap_or(self.nodes.len() as NodeId);
        if let Some(image) = &mut self.image {
            image.skip(id);
        }
        self.nodes.put(id, node);
        if self.node(parent).family().is_none() {
            self.keep_path_hash(parent);
        }
        self.child_changed(change, parent, 1, undo);
        self.attach(parent, id);
        undo.push(Undo::Created(id));
        self.count_anew(id, undo);
        self.count(id, 1, data.map_or(0, |data| data.len() as i64), undo);
        id
    }

    /// Removes a znode without children.
    pub(crate) fn delete(&mut self, change: Change, id: NodeId, undo: &mut Vec<Undo>) {
        self.count(id, -1, -self.node(id).data_len(), undo);
        self.child_changed(change, self.node(id).parent, 0, undo);
        let node = self.take_out(id);
        undo.push(Undo::Deleted(id, Box::new(node)));
    }

    fn child_changed(&mut self, change: Change, id: NodeId, creations: i32, undo: &mut Vec<Undo>) {
        let node = self.node(id);
        undo.push(Undo::Parent(id, node.pzxid(), node.creations()));
        self.alter(id, |node| {
            let family = node.family_mut();
            family.creations = family.creations.wrapping_add(creations);
            family.pzxid = family.pzxid.max(change.zxid);
        });
    }

    fn take_out(&mut self, id: NodeId) -> Node {
        self.touch(id);
        self.digest = self.digest.wrapping_sub(self.hash(id));
        self.path_chars -= self.chars_of_path(id);
        let parent = self.node(id).parent;
        let mut children = std::mem::take(&mut self.node_mut(parent).family_mut().children);
        children.remove(&self.nodes, self.node(id).name_bytes());
        self.node_mut(parent).family_mut().children = children;
        self.grow(parent, -1);
        let node = self.nodes.take(id).expect("ids are of znodes that are there");
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
        self.replace_data(id, data, undo, |node| {
            node.version = node.version.wrapping_add(1);
            node.mzxid = change.zxid;
            node.mtime_ms = change.time_ms;
        });
        self.count(id, 0, growth, undo);
    }

    fn replace_data(
        &mut self,
        id: NodeId,
        data: Option<&[u8]>,
        undo: &mut Vec<Undo>,
        mark: impl FnOnce(&mut Node),
    ) {
        let node = self.node(id);
        let (mzxid, mtime_ms, version) = (node.mzxid, node.mtime_ms, node.version);
        let text = Text::new(node.name(), data);
        let text = self.swap_text(id, text, mark);
        undo.push(Undo::Data { id, text, mzxid, mtime_ms, version });
    }

    fn swap_text(&mut self, id: NodeId, text: Text, mark: impl FnOnce(&mut Node)) -> Text {
        let before = self.node(id).data_len() as u64;
        let old = self.alter(id, |node| {
            mark(node);
            node.swap_text(text)
        });
        self.data_bytes = self.data_bytes - before + self.node(id).data_len() as u64;
        old
    }

    pub(crate) fn set_acl(&mut self, id: NodeId, acl: Vec<Acl<'static>>, undo: &mut Vec<Undo>) {
        let acl = self.share(acl);
        let aversion = self.node(id).aversion;
        let acl = self.alter(id, |node| {
            node.aversion = aversion.wrapping_add(1);
            std::mem::replace(&mut node.acl, acl)
        });
        undo.push(Undo::Acl { id, acl, aversion });
    }

    /// Takes changes back, the last one first.
    pub(crate) fn roll_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::Created(id) => drop(self.take_out(id)),
                Undo::Deleted(id, node) => {
                    let parent = node.parent;
                    // Places are handed out last in, first out, so its own is the last one freed.
                    let freed = self.free.pop();
                    debug_assert_eq!(freed, Some(id));
                    self.nodes.put(id, *node);
                    self.attach(parent, id);
                }
                Undo::Parent(id, pzxid, creations) => self.alter(id, |node| {
                    let family = node.family_mut();
                    (family.pzxid, family.creations) = (pzxid, creations);
                }),
                Undo::Data { id, text, mzxid, mtime_ms, version } => {
                    self.swap_text(id, text, |node| {
                        (node.mzxid, node.mtime_ms, node.version) = (mzxid, mtime_ms, version);
                    });
                }
                Undo::Acl { id, acl, aversion } => {
                    self.alter(id, |node| (node.acl, node.aversion) = (acl, aversion));
                }
            }
        }
    }

    /// Every change of a znode that stays is made in here: an image being written gets it as it was,
    /// and the digest follows.
    fn alter<R>(&mut self, id: NodeId, change: impl FnOnce(&mut Node) -> R) -> R {
        self.touch(id);
        let before = self.hash(id);
        let node = self.node_mut(id);
        let result = change(node);
        node.forget_hash();
        let after = self.hash(id);
        self.node_mut(id).keep_hash(after);
        self.digest = self.digest.wrapping_sub(before).wrapping_add(after);
        result
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
            let name = node.name();
            let name_chars = if name.is_ascii() { name.len() } else { name.encode_utf16().count() };
            chars += 1 + name_chars as u64;
            id = node.parent;
        }
        chars
    }

    /// Of the whole path, so that a move between places in the table changes no digest.
    fn path_hash(&self, id: NodeId) -> u64 {
        let node = self.node(id);
        let mut hash = Fnv::new();
        if id != ROOT {
            let parent = self.node(node.parent).family().expect("a parent has a family");
            hash.number(parent.path_hash);
            hash.bytes(node.name_bytes());
        }
        hash.0
    }

    /// Makes a parent of a znode, as its children's hashes need it; to be called on parents first.
    fn keep_path_hash(&mut self, id: NodeId) {
        let hash = self.path_hash(id);
        self.node_mut(id).family_mut().path_hash = hash;
    }

    /// A znode's share of [`Tree::digest`].
    fn hash(&self, id: NodeId) -> u64 {
        let node = self.node(id);
        if let Some(hash) = node.family().and_then(|family| family.hash) {
            return hash;
        }
        let mut hash = Fnv::new();
        hash.number(self.path_hash(id));
        hash.bytes(node.data().unwrap_or(&[0xff]));
        for acl in node.acl.iter() {
            hash.number(acl.perms as u64);
            hash.bytes(acl.scheme.as_bytes());
            hash.bytes(acl.id.as_bytes());
        }
        for number in [
            node.czxid.0,
            node.mzxid.0,
            node.pzxid().0,
            node.ctime_ms,
            node.mtime_ms,
            node.version.into(),
            node.creations().into(),
            node.aversion.into(),
            node.owner.0,
        ] {
            hash.number(number as u64);
        }
        hash.0
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
