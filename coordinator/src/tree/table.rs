//! The table of znodes: grows by pages, so that no znode ever moves and none is copied to make room.

use super::{Node, NodeId};

/// Znodes of one page. A page is what the table grows by, some 22 KiB.
const PAGE: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Table {
    pages: Vec<Box<[Option<Node>]>>,
    /// Places handed out so far; those beyond are not free but not there.
    len: usize,
}

impl Table {
    /// How many places there are, free ones too.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        let at = id as usize;
        self.pages.get(at / PAGE)?[at % PAGE].as_ref()
    }

    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let at = id as usize;
        self.pages.get_mut(at / PAGE)?[at % PAGE].as_mut()
    }

    /// Fills a place, making it and those before it if need be.
    pub(super) fn put(&mut self, id: NodeId, node: Node) {
        let at = id as usize;
        while self.pages.len() <= at / PAGE {
            self.pages.push(std::iter::repeat_with(|| None).take(PAGE).collect());
        }
        self.len = self.len.max(at + 1);
        self.pages[at / PAGE][at % PAGE] = Some(node);
    }

    pub(super) fn take(&mut self, id: NodeId) -> Option<Node> {
        let at = id as usize;
        self.pages.get_mut(at / PAGE)?[at % PAGE].take()
    }
}
