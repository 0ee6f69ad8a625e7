//! The tree as bytes, taken at one moment while changes go on.
//!
//! The writer walks the table of znodes a piece at a time. A znode about to change that it has not
//! reached is saved first as it was ([`ImageWriter::save`]), and places filled since the start are
//! passed over. So the image is of the moment it was started at, nothing is copied that does not
//! change, and nobody waits longer than for one piece.

use std::collections::HashSet;
use std::sync::Arc;

use elkfk_wire::jute::{
    Acl, DecodeError, Reader, SessionId, Zxid, put_buffer, put_i32, put_i64, put_string,
};

use super::node::{Node, PersistedStat, Text};
use super::{NodeId, ROOT, Tree};

/// Why bytes are no image of a tree.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("image is malformed")]
    Decode(#[from] DecodeError),
    #[error("image holds {0}")]
    NoTree(&'static str),
    #[error(
        "image holds {found} znodes with digest {found_digest:016x}, it was written with {written} and {written_digest:016x}"
    )]
    Digest { found: usize, found_digest: u64, written: usize, written_digest: u64 },
}

/// A znode by itself, for [`Tree::assemble`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlainNode {
    pub(crate) data: Option<Box<[u8]>>,
    pub(crate) acl: Arc<[Acl<'static>]>,
    pub(crate) stat: PersistedStat,
}

/// An image being written.
#[derive(Debug)]
pub(crate) struct ImageWriter {
    /// Places below are done.
    next: NodeId,
    /// Places from here on were not there when the image was started.
    end: NodeId,
    /// Places at or above `next` that are done, or were free.
    done: HashSet<NodeId>,
    bytes: Vec<u8>,
    count: usize,
    digest: u64,
}

impl ImageWriter {
    /// Saves a znode as it is, unless that was done.
    pub(super) fn save(&mut self, tree: &Tree, id: NodeId) {
        if id >= self.next && id < self.end && self.done.insert(id) {
            self.put(id, tree.node(id));
        }
    }

    /// Marks a place that was free when the image was started.
    pub(super) fn skip(&mut self, id: NodeId) {
        if id >= self.next && id < self.end {
            self.done.insert(id);
        }
    }

    fn put(&mut self, id: NodeId, node: &Node) {
        self.count += 1;
        let out = &mut self.bytes;
        put_i32(out, id as i32);
        put_i32(out, node.parent as i32);
        put_string(out, node.name());
        put_buffer(out, node.data());
        put_i32(out, node.acl.len() as i32);
        node.acl.iter().for_each(|acl| acl.encode(out));
        let stat = node.persisted();
        for zxid in [stat.czxid, stat.mzxid, stat.pzxid] {
            put_i64(out, zxid.0);
        }
        put_i64(out, stat.ctime_ms);
        put_i64(out, stat.mtime_ms);
        put_i32(out, stat.version);
        put_i32(out, stat.creations);
        put_i32(out, stat.aversion);
        put_i64(out, stat.owner.0);
    }
}

/// Places looked at for one piece, at most: about a millisecond.
const PLACES_PER_PIECE: NodeId = 1 << 16;

/// The last record of an image has this in place of a znode's id.
const END: i32 = -1;

impl Tree {
    /// Starts an image of the tree as it is now; one that was under way is given up.
    pub(crate) fn start_image(&mut self) {
        self.image = Some(ImageWriter {
            next: 0,
            end: self.nodes.len() as NodeId,
            done: HashSet::new(),
            bytes: Vec::new(),
            count: 0,
            digest: self.digest,
        });
    }

    /// The next piece, at least `piece_bytes` unless it is the last; the flag says that it is. Where
    /// most places are free it is smaller, even empty: nobody is to wait for a walk through them all.
    ///
    /// `None` where no image is under way.
    pub(crate) fn next_image_piece(&mut self, piece_bytes: usize) -> Option<(Vec<u8>, bool)> {
        let mut image = self.image.take()?;
        let stop = image.end.min(image.next.saturating_add(PLACES_PER_PIECE));
        while image.next < stop && image.bytes.len() < piece_bytes {
            let id = image.next;
            image.next += 1;
            if !image.done.remove(&id)
                && let Some(node) = self.nodes.get(id)
            {
                image.put(id, node);
            }
        }
        let mut piece = std::mem::take(&mut image.bytes);
        let is_last = image.next >= image.end;
        if is_last {
            put_i32(&mut piece, END);
            put_i64(&mut piece, image.count as i64);
            put_i64(&mut piece, image.digest as i64);
        } else {
            self.image = Some(image);
        }
        Some((piece, is_last))
    }

    pub(crate) fn abandon_image(&mut self) {
        self.image = None;
    }

    /// A tree made whole of znodes that were read elsewhere, the root first, each after its parent and
    /// with that one's place in the list; the root's is its own.
    pub(crate) fn assemble(
        nodes: impl IntoIterator<Item = (usize, String, PlainNode)>,
    ) -> Result<Self, ImageError> {
        let mut tree = Self::default();
        for (id, (parent, name, node)) in nodes.into_iter().enumerate() {
            let acl = tree.share(node.acl.to_vec());
            let text = Text::new(&name, node.data.as_deref());
            let node = Node::new(parent as NodeId, text, acl, node.stat);
            tree.nodes.put(id as NodeId, node);
        }
        tree.link_all().map_err(ImageError::NoTree)?;
        Ok(tree)
    }
}

/// Makes a tree of an image's pieces, each of whole znodes, as they were written.
///
/// Places that were free are not left free: a tree that has shrunk takes less room than before.
#[derive(Debug)]
pub(crate) struct TreeReader {
    tree: Tree,
    /// Where a znode stood, and where it stands now.
    places: Vec<(NodeId, NodeId)>,
    /// What the last record says: how many znodes there are, and their digest.
    end: Option<(usize, u64)>,
}

impl TreeReader {
    pub(crate) fn new() -> Self {
        Self { tree: Tree::default(), places: Vec::new(), end: None }
    }

    pub(crate) fn piece(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let mut reader = Reader::new(bytes);
        while !reader.rest().is_empty() {
            if self.end.is_some() {
                return Err(ImageError::NoTree("more than its end"));
            }
            let id = reader.i32()?;
            if id == END {
                self.end = Some((reader.i64()? as usize, reader.i64()? as u64));
                continue;
            }
            let node = read_node(&mut self.tree, &mut reader)?;
            // The root keeps its place, whenever it comes.
            let next = self.tree.nodes.len().max(1) as NodeId;
            let place = if id == ROOT as i32 { ROOT } else { next };
            self.places.push((id as NodeId, place));
            self.tree.nodes.put(place, node);
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Tree, ImageError> {
        let Self { mut tree, mut places, end } = self;
        let (written, written_digest) = end.ok_or(ImageError::NoTree("no end"))?;
        let found = places.len();
        places.sort_unstable();
        if places.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(ImageError::NoTree("two znodes in one place"));
        }
        let place_of = |id: NodeId| {
            // Where no place was free, it is found at once.
            let at = match places.get(id as usize) {
                Some((known, _)) if *known == id => id as usize,
                _ => places.binary_search_by_key(&id, |(known, _)| *known).ok()?,
            };
            Some(places[at].1)
        };
        for place in 0..tree.nodes.len() as NodeId {
            if let Some(node) = tree.nodes.get_mut(place) {
                node.parent = place_of(node.parent)
                    .ok_or(ImageError::NoTree("a znode without its parent"))?;
            }
        }
        tree.link_all().map_err(ImageError::NoTree)?;
        if (found, tree.digest) != (written, written_digest) {
            let found_digest = tree.digest;
            return Err(ImageError::Digest { found, found_digest, written, written_digest });
        }
        Ok(tree)
    }
}

fn read_node(tree: &mut Tree, reader: &mut Reader<'_>) -> Result<Node, ImageError> {
    let parent = reader.i32()? as NodeId;
    let name = reader.string()?;
    let text = Text::new(name, reader.buffer()?);
    let acl = reader.vector(12, Acl::decode)?.unwrap_or_default();
    let acl = tree.share(acl.into_iter().map(Acl::into_owned).collect());
    let mut zxid = || reader.i64().map(Zxid);
    let (czxid, mzxid, pzxid) = (zxid()?, zxid()?, zxid()?);
    let stat = PersistedStat {
        czxid,
        mzxid,
        pzxid,
        ctime_ms: reader.i64()?,
        mtime_ms: reader.i64()?,
        version: reader.i32()?,
        creations: reader.i32()?,
        aversion: reader.i32()?,
        owner: SessionId(reader.i64()?),
    };
    Ok(Node::new(parent, text, acl, stat))
}
