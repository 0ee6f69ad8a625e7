//! What must hold at every moment, whatever happens: an entry does the same everywhere and for
//! ever, each term has one leader, the trees agree, no ephemeral outlives its session, an entry takes
//! one zxid at most, a session number is given out once, a multi is done as a whole or not at all, and
//! no write is done twice, after one that its client asked for later, or without one that it asked for
//! before on the same connection.
//!
//! What the tree was at each zxid is kept, so that every answer can be held against it.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;

/// The znodes that clients write.
pub(super) const COUNTER: &str = "/counter";
/// Both are only ever written together.
pub(super) const PAIR: [&str; 2] = ["/left", "/right"];

pub(super) fn own_path(client: usize) -> String {
    format!("/client{client}")
}

pub(super) fn ephemeral_path(client: usize) -> String {
    format!("/e{client}")
}

pub(super) fn number(value: &[u8]) -> u64 {
    u64::from_be_bytes(value.try_into().expect("eight bytes"))
}

fn paths() -> impl Iterator<Item = String> {
    let own = (0..clients::CLIENTS).flat_map(|at| [own_path(at), ephemeral_path(at)]);
    own.chain([COUNTER, PAIR[0], PAIR[1]].map(str::to_owned))
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Znode {
    pub(super) value: Vec<u8>,
    pub(super) version: i32,
    pub(super) mzxid: i64,
    pub(super) owner: SessionId,
}

/// What clients can see of a state.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct State {
    znodes: BTreeMap<String, Znode>,
    pub(super) children: Vec<String>,
    /// When those of the root changed last.
    children_zxid: i64,
}

impl State {
    fn of(machine: &Machine) -> Self {
        let tree = &machine.tree;
        let znode = |path: String| {
            let node = tree.get(&path)?;
            let znode = Znode {
                value: node.data().unwrap_or_default().to_vec(),
                version: node.version,
                mzxid: node.mzxid.0,
                owner: node.stat().ephemeral_owner,
            };
            Some((path, znode))
        };
        let root = tree.find("/").expect("a tree has a root");
        let mut children: Vec<_> =
            tree.children(root).map(|id| tree.node(id).name().to_owned()).collect();
        children.sort();
        let children_zxid = tree.node(root).pzxid().0;
        Self { znodes: paths().filter_map(znode).collect(), children, children_zxid }
    }

    pub(super) fn znode(&self, path: &str) -> Option<&Znode> {
        self.znodes.get(path)
    }

    /// When what is watched changed last; `None` for the children of the root.
    pub(super) fn changed(&self, path: Option<&str>) -> i64 {
        match path {
            Some(path) => self.znode(path).map_or(0, |znode| znode.mzxid),
            None => self.children_zxid,
        }
    }
}

thread_local! {
    /// The newest index that is known: only who applies it first need look at all of the state.
    static NEWEST: Cell<u64> = const { Cell::new(0) };
}

/// What a server looked like after an entry.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Note {
    index: u64,
    zxid: i64,
    digest: u64,
    sessions: Vec<SessionId>,
    ephemeral_owners: Vec<SessionId>,
    /// Of who applied it first.
    state: Option<State>,
}

impl Note {
    pub(crate) fn of(machine: &Machine) -> Self {
        Self {
            index: machine.index(),
            zxid: machine.zxid().0,
            digest: digest(machine),
            sessions: machine.sessions().map(|(session, _)| session).collect(),
            ephemeral_owners: machine.tree.ephemeral_owners(),
            state: (machine.index() > NEWEST.get()).then(|| State::of(machine)),
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
    /// Those that ended with the entries looked at last.
    pub(super) just_closed: Vec<SessionId>,
    /// The newest index anybody has applied, and its zxid.
    newest: u64,
    newest_zxid: i64,
    /// A full disk has refused writes.
    was_refused: bool,
    /// Which numbers clients have asked for, and on which connection.
    pub(super) asked: HashMap<(usize, u64), ConnectionId>,
    states: BTreeMap<i64, State>,
    /// Of answered writes.
    writes: HashSet<i64>,
    pub(super) wiped: u64,
    pub(super) repaired: u64,
    pub(super) restored: u64,
}

impl Checks {
    pub(super) fn new() -> Self {
        NEWEST.set(0);
        Self::default()
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }

    /// Of the term that a zxid is of.
    pub(super) fn leader_at(&self, zxid: i64) -> Option<u64> {
        self.leaders.get(&((zxid >> 32) as u64)).copied()
    }

    /// What everybody has seen at this zxid.
    pub(super) fn state(&self, zxid: i64) -> &State {
        let (_, state) = self.states.range(..=zxid).next_back().expect("somebody was there");
        state
    }

    /// The first change after `zxid` of what is watched.
    pub(super) fn change_after(&self, zxid: i64, path: Option<&str>) -> Option<i64> {
        let later = self.states.range(zxid + 1..);
        later.map(|(_, state)| state.changed(path)).find(|changed| *changed > zxid)
    }

    pub(super) fn write_answered(&mut self, zxid: i64) {
        assert!(self.writes.insert(zxid), "two writes were given {zxid:x}");
    }

    /// A machine that was read back, or came from another server, is one that was.
    pub(super) fn is_one_that_was(&self, machine: &Machine) {
        if let Some(known) = self.digests.get(&machine.index()) {
            assert_eq!(digest(machine), *known, "state up to entry {}", machine.index());
        }
    }

    /// After a server has applied what was committed.
    pub(super) fn advanced<C: Consensus>(&mut self, id: u64, replica: &mut Replica<C>) {
        self.was_refused |= replica.service.is_refusing();
        if replica.consensus.is_leader() {
            let term = replica.consensus.term();
            let leader = *self.leaders.entry(term).or_insert(id);
            assert_eq!(leader, id, "two leaders in term {term}");
        }
        for note in std::mem::take(&mut replica.notes) {
            let first = *self.digests.entry(note.index).or_insert(note.digest);
            assert_eq!(note.digest, first, "server {id} has another entry {}", note.index);
            if note.index > self.newest {
                self.first_applied(note);
            }
        }
    }

    fn first_applied(&mut self, note: Note) {
        let Note { index, zxid, sessions, ephemeral_owners, state, .. } = note;
        let state = state.expect("it is the first");
        for owner in ephemeral_owners {
            assert!(sessions.contains(&owner), "entry {index}: an ephemeral outlives {owner}");
        }
        let is_next = zxid - self.newest_zxid <= 1 || zxid as u32 <= 1;
        assert!(
            zxid >= self.newest_zxid && is_next,
            "entry {index} goes from {:x} to {zxid:x}",
            self.newest_zxid
        );
        let [left, right] = PAIR.map(|path| state.znode(path).map(|znode| &znode.value));
        assert_eq!(left, right, "entry {index}: half of a multi");
        if let Some((_, before)) = self.states.last_key_value() {
            for client in 0..clients::CLIENTS {
                let path = own_path(client);
                let [before, after] = [before, &state].map(|state| state.znode(&path));
                if before.map(|znode| znode.mzxid) == after.map(|znode| znode.mzxid) {
                    continue;
                }
                // Numbers rise in the order they are asked for: none comes twice, or too late, and none
                // without those before it on its connection, unless a full disk had them refused.
                let number = |znode: &Znode| number(&znode.value);
                let [before, after] = [before.map(number), after.map(number)];
                let asked = |number| self.asked.get(&(client, number));
                let skipped = before.unwrap_or(0) + 1..after.unwrap_or(0);
                assert!(
                    before < after
                        && (self.was_refused
                            || !skipped.into_iter().any(|number| {
                                let on = asked(number);
                                on.is_some() && on == after.and_then(asked)
                            })),
                    "entry {index}: {path} goes from {before:?} to {after:?}"
                );
            }
        }
        let sessions: HashSet<_> = sessions.into_iter().collect();
        let over: Vec<_> = self.known.difference(&sessions).copied().collect();
        // What an earlier leader had decided may take effect long after, when nobody would any more.
        let newest_term = self.leaders.keys().next_back().copied().unwrap_or(0);
        let is_late = ((zxid >> 32) as u64) < newest_term;
        for session in over {
            if self.closed.insert(session) && !is_late {
                self.just_closed.push(session);
            }
        }
        for session in &sessions {
            assert!(!self.closed.contains(session), "entry {index}: {session} is there again");
        }
        self.known.extend(sessions);
        (self.newest, self.newest_zxid) = (index, zxid);
        NEWEST.set(index);
        self.states.insert(zxid, state);
    }
}
