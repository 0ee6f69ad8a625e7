//! The children of one znode: their places, in the order of their names.
//!
//! The names stand in the table of znodes and nowhere else, so a child costs its parent four bytes
//! and a bit. The list is cut into chunks: what a change moves is bounded by a chunk, however many
//! siblings there are.

use super::NodeId;
use super::table::Table;

/// A full chunk is halved; one appended to in order stays full, as sequential names are.
const CHUNK_MAX: usize = 512;
/// A chunk this small joins a neighbour that has room.
const CHUNK_MIN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Children {
    /// None is empty.
    chunks: Vec<Vec<NodeId>>,
    len: usize,
}

fn name(table: &Table, id: NodeId) -> &[u8] {
    table.get(id).map_or(b"", |node| node.name_bytes())
}

impl Children {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = NodeId> {
        self.chunks.iter().flatten().copied()
    }

    /// The chunk a name belongs to, and its place there or where it would be.
    fn search(&self, table: &Table, wanted: &[u8]) -> (usize, Result<usize, usize>) {
        let after = self.chunks.partition_point(|chunk| name(table, chunk[0]) <= wanted);
        let at = after.saturating_sub(1);
        let place = self
            .chunks
            .get(at)
            .map_or(Err(0), |chunk| chunk.binary_search_by(|id| name(table, *id).cmp(wanted)));
        (at, place)
    }

    pub(super) fn find(&self, table: &Table, wanted: &[u8]) -> Option<NodeId> {
        let (chunk, place) = self.search(table, wanted);
        place.ok().map(|place| self.chunks[chunk][place])
    }

    /// `false` where the name is taken.
    pub(super) fn insert(&mut self, table: &Table, wanted: &[u8], id: NodeId) -> bool {
        let (at, place) = self.search(table, wanted);
        let Err(place) = place else { return false };
        self.len += 1;
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(vec![id]);
            return true;
        };
        if chunk.len() < CHUNK_MAX {
            chunk.insert(place, id);
        } else if place == chunk.len() {
            self.chunks.insert(at + 1, vec![id]);
        } else {
            let mut upper = chunk.split_off(CHUNK_MAX / 2);
            match place.checked_sub(CHUNK_MAX / 2) {
                Some(place) if place > 0 => upper.insert(place, id),
                _ => chunk.insert(place, id),
            }
            chunk.shrink_to_fit();
            self.chunks.insert(at + 1, upper);
        }
        true
    }

    pub(super) fn remove(&mut self, table: &Table, wanted: &[u8]) {
        let (at, Ok(place)) = self.search(table, wanted) else { return };
        self.len -= 1;
        let chunk = &mut self.chunks[at];
        chunk.remove(place);
        if self.len == 0 {
            self.chunks = Vec::new();
        } else if chunk.is_empty() {
            self.chunks.remove(at);
        } else if chunk.len() < CHUNK_MIN {
            let has_room = |chunk: Option<&Vec<_>>| chunk.is_some_and(|c| c.len() < CHUNK_MAX / 2);
            if has_room(self.chunks.get(at + 1)) {
                let next = self.chunks.remove(at + 1);
                self.chunks[at].extend(next);
            } else if at > 0 && has_room(self.chunks.get(at - 1)) {
                let last = self.chunks.remove(at);
                self.chunks[at - 1].extend(last);
            }
        }
    }
}
