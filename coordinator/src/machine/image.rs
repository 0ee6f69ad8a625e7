//! The machine as bytes: what is not of the tree first, then the tree.

use std::collections::BTreeMap;

use elkfk_wire::jute::{Reader, SessionId, Zxid, put_buffer, put_i32, put_i64};

use super::reconfig::Ensemble;
use super::{Machine, Session};
use crate::consensus::Members;
use crate::tree::{ImageError, Tree, TreeReader};

/// In place of the count of sessions, where the members were ever changed.
const MEMBERS_FOLLOW: i32 = i32::MIN;

impl Machine {
    /// The state another program had, as if one entry of the log had made it.
    pub(crate) fn imported(
        tree: Tree,
        sessions: BTreeMap<SessionId, Session>,
        zxid: Zxid,
        term: u64,
        index: u64,
    ) -> Self {
        Self { tree, sessions, zxid, term, index, ..Self::new() }
    }

    /// Starts an image of this moment and returns its first piece; the tree has the others
    /// ([`Tree::next_image_piece`]).
    pub(crate) fn start_image(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        put_i64(&mut out, self.term as i64);
        put_i64(&mut out, self.index as i64);
        put_i64(&mut out, self.zxid.0);
        put_buffer(&mut out, self.secret.as_ref().map(|secret| &secret[..]));
        if let Some(members) = &self.members {
            put_i32(&mut out, MEMBERS_FOLLOW);
            for ids in [&members.voters, &members.learners] {
                put_i32(&mut out, ids.len() as i32);
                ids.iter().for_each(|id| put_i64(&mut out, *id as i64));
            }
        }
        put_i32(&mut out, self.sessions.len() as i32);
        for (id, session) in &self.sessions {
            put_i64(&mut out, id.0);
            put_i32(&mut out, session.timeout_ms);
            put_i64(&mut out, session.server as i64);
        }
        self.tree.start_image();
        out
    }

    /// Of an image in one piece.
    #[cfg(test)]
    pub(crate) fn from_image(bytes: &[u8]) -> Result<Self, ImageError> {
        let mut image = MachineReader::new();
        image.piece(bytes)?;
        image.finish()
    }

    /// All but the tree.
    fn read_head(reader: &mut Reader<'_>) -> Result<Self, ImageError> {
        let (term, index) = (reader.i64()? as u64, reader.i64()? as u64);
        let zxid = Zxid(reader.i64()?);
        let secret = match reader.buffer()? {
            Some(secret) => {
                Some(secret.try_into().map_err(|_| ImageError::NoTree("a secret cut short"))?)
            }
            None => None,
        };
        let mut members = None;
        if reader.rest().starts_with(&MEMBERS_FOLLOW.to_be_bytes()) {
            reader.i32()?;
            let mut ids = || {
                let ids = reader.vector(8, |reader| reader.i64().map(|id| id as u64))?;
                Ok::<_, ImageError>(ids.unwrap_or_default())
            };
            members = Some(Members { voters: ids()?, learners: ids()? });
        }
        let sessions = reader.vector(20, |reader| {
            let id = SessionId(reader.i64()?);
            let timeout_ms = reader.i32()?;
            Ok((id, Session { timeout_ms, server: reader.i64()? as u64 }))
        })?;
        let sessions = BTreeMap::from_iter(sessions.unwrap_or_default());
        let mut machine = Self { sessions, zxid, term, index, members, ..Self::new() };
        if let Some(secret) = secret {
            machine.set_secret(secret);
        }
        Ok(machine)
    }
}

/// Makes a machine of an image's pieces, as they were written: none is kept.
#[derive(Debug)]
pub(crate) struct MachineReader {
    /// Still without its tree; of the first piece.
    machine: Option<Machine>,
    tree: TreeReader,
}

impl MachineReader {
    pub(crate) fn new() -> Self {
        Self { machine: None, tree: TreeReader::new() }
    }

    pub(crate) fn piece(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        let mut reader = Reader::new(bytes);
        if self.machine.is_none() {
            self.machine = Some(Machine::read_head(&mut reader)?);
        }
        self.tree.piece(reader.rest())
    }

    pub(crate) fn finish(self) -> Result<Machine, ImageError> {
        let mut machine = self.machine.ok_or(ImageError::NoTree("no beginning"))?;
        let tree = self.tree.finish()?;
        machine.servers = Ensemble::of(&tree);
        machine.tree = tree;
        Ok(machine)
    }
}
