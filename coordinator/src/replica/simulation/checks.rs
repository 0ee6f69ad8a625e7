//! What must hold at every moment, whatever happens: an entry does the same everywhere and for
//! ever, each term has one leader, the trees agree, no ephemeral outlives its session.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;

/// What a server looked like after an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    index: u64,
    digest: u64,
    sessions: Vec<SessionId>,
    ephemeral_owners: Vec<SessionId>,
    /// When the clients' znodes were changed last.
    changed: [Option<i64>; clients::CLIENTS],
}

impl Note {
    pub(crate) fn of(machine: &Machine) -> Self {
        let changed = |at| machine.tree.get(&format!("/client{at}")).map(|node| node.mzxid.0);
        Self {
            index: machine.index(),
            digest: digest(machine),
            sessions: machine.sessions().map(|(session, _)| session).collect(),
            ephemeral_owners: machine.tree.ephemeral_owners(),
            changed: std::array::from_fn(changed),
        }
    }
}

fn digest(machine: &Machine) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&machine.tree.digest().to_be_bytes());
    hasher.update(&machine.zxid().0.to_be_bytes());
    for (id, session) in machine.sessions() {
        hasher.update(&id.0.to_be_bytes());
        hasher.update(&session.server.to_be_bytes());
    }
    hasher.finalize().into()
}

#[derive(Default)]
pub(super) struct Checks {
    /// After each index, from whoever applied it first.
    digests: HashMap<u64, u64>,
    leaders: BTreeMap<u64, u64>,
    /// Sessions that were, and those that are over.
    known: HashSet<SessionId>,
    pub(super) closed: HashSet<SessionId>,
    /// The newest index anybody has applied.
    newest: u64,
    pub(super) wiped: u64,
    pub(super) restored: u64,
    /// Of each client's znode, the zxids that changed it.
    pub(super) changes: [Vec<i64>; clients::CLIENTS],
}

impl Checks {
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// A machine that was read back, or came from another server, is one that was.
    pub(super) fn is_one_that_was(&self, machine: &Machine) {
        if let Some(known) = self.digests.get(&machine.index()) {
            assert_eq!(digest(machine), *known, "state up to entry {}", machine.index());
        }
    }

    /// After a server has applied what was committed.
    pub(super) fn advanced<C: Consensus>(&mut self, id: u64, replica: &mut Replica<C>) {
        for note in std::mem::take(&mut replica.notes) {
            let Note { index, digest, sessions, ephemeral_owners, changed } = note;
            let first = *self.digests.entry(index).or_insert(digest);
            assert_eq!(digest, first, "server {id} has another entry {index}");
            for owner in ephemeral_owners {
                assert!(sessions.contains(&owner), "entry {index}: an ephemeral outlives {owner}");
            }
            if index > self.newest {
                self.newest = index;
                let sessions: HashSet<_> = sessions.into_iter().collect();
                self.closed.extend(self.known.difference(&sessions));
                self.known.extend(sessions);
                for (changes, changed) in self.changes.iter_mut().zip(changed) {
                    changes.extend(changed.filter(|zxid| changes.last() < Some(zxid)));
                }
            }
        }
        if replica.consensus.is_leader() {
            let term = replica.consensus.term();
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
        }
    }
}
