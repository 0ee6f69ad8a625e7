//! The watches of the clients connected here.
//!
//! They live on this server only: a client that comes back sets them again itself. A path that many
//! watch is kept once, and a client's watch of it is a few bytes; what all of them take is counted
//! and limited.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use elkfk_wire::jute::{EventKind, parent_and_name};

pub(crate) type ConnectionId = u64;

/// What the watches of all clients together may take, as a default: a million of them or more.
pub(crate) const BYTES_MAX: usize = 256 << 20;
/// One client may take this part of it.
const SHARE_OF_ONE: usize = 4;

/// What a watched path costs beside its text: two entries of tables, one of them hashed.
const PATH_BYTES: usize = 128;
/// What each who watches it costs: an entry with the path and one with the client.
const WATCH_BYTES: usize = 40;

/// In which ways one client watches one path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Modes(u8);

impl Modes {
    /// Set by getData and exists; used up by an event.
    pub(crate) const DATA: Self = Self(1);
    /// Set by getChildren; used up by an event.
    pub(crate) const CHILD: Self = Self(2);
    /// Set by addWatch: data and children, for every event.
    pub(crate) const PERSISTENT: Self = Self(4);
    /// Set by addWatch: the data of the path and all below it, for every event.
    pub(crate) const RECURSIVE: Self = Self(8);
    pub(crate) const ANY: Self = Self(15);

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// As ZooKeeper counts: what is watched of the data, and of the children.
    fn count(self) -> usize {
        usize::from(self.meets(DATA_MODES)) + usize::from(self.meets(CHILD_MODES))
    }
}

const DATA_MODES: Modes = Modes::DATA.with(Modes::PERSISTENT).with(Modes::RECURSIVE);
const CHILD_MODES: Modes = Modes::CHILD.with(Modes::PERSISTENT);

/// Whom an event is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) connection: ConnectionId,
    /// Only if it may read the znode: the watch is of a kind that asks for no right when it is set.
    pub(crate) if_permitted: bool,
}

/// A watch that would have been too many: what this client's take, and what all of them take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) own_bytes: usize,
    pub(crate) all_bytes: usize,
    pub(crate) limit_bytes: usize,
}

type PathId = u32;

#[derive(Debug, Default)]
enum Watchers {
    #[default]
    None,
    /// As most paths have it.
    One(ConnectionId, Modes),
    Many(BTreeMap<ConnectionId, Modes>),
}

impl Watchers {
    fn get(&self, connection: ConnectionId) -> Modes {
        match self {
            Self::One(one, modes) if *one == connection => *modes,
            Self::Many(many) => many.get(&connection).copied().unwrap_or_default(),
            Self::None | Self::One(..) => Modes::default(),
        }
    }

    /// No mode is no watcher.
    fn set(&mut self, connection: ConnectionId, modes: Modes) {
        let is_gone = modes == Modes::default();
        match self {
            Self::None if !is_gone => *self = Self::One(connection, modes),
            Self::None => {}
            Self::One(one, _) if *one == connection => {
                *self = if is_gone { Self::None } else { Self::One(connection, modes) };
            }
            Self::One(..) if is_gone => {}
            Self::One(one, known) => {
                *self = Self::Many([(*one, *known), (connection, modes)].into());
            }
            Self::Many(many) => {
                if is_gone {
                    many.remove(&connection);
                } else {
                    many.insert(connection, modes);
                }
                if many.is_empty() {
                    *self = Self::None;
                }
            }
        }
    }

    fn all(&self) -> Vec<(ConnectionId, Modes)> {
        match self {
            Self::None => Vec::new(),
            Self::One(connection, modes) => vec![(*connection, *modes)],
            Self::Many(many) => many.iter().map(|(id, modes)| (*id, *modes)).collect(),
        }
    }
}

#[derive(Debug)]
struct Watched {
    path: Arc<str>,
    watchers: Watchers,
}

#[derive(Debug, Default)]
struct Held {
    paths: HashSet<PathId>,
    /// As if nobody else watched the same paths.
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Watches {
    ids: HashMap<Arc<str>, PathId>,
    /// By their ids; those in `free` are empty.
    watched: Vec<Watched>,
    free: Vec<PathId>,
    by_connection: HashMap<ConnectionId, Held>,
    /// Watches of the recursive kind: without any, an event need not look at what is above its path.
    recursive: usize,
    watches: usize,
    bytes: usize,
    bytes_max: usize,
}

impl Watches {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            ids: HashMap::new(),
            watched: Vec::new(),
            free: Vec::new(),
            by_connection: HashMap::new(),
            recursive: 0,
            watches: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// Adds to the ways in which `connection` watches `path`.
    pub(crate) fn add(
        &mut self,
        modes: Modes,
        path: &str,
        connection: ConnectionId,
    ) -> Result<(), TooMany> {
        let known = self.ids.get(path).copied();
        let before = known.map_or(Modes::default(), |id| self.modes(id, connection));
        if before == Modes::default() {
            let path_bytes = PATH_BYTES + path.len();
            let own_bytes = self.by_connection.get(&connection).map_or(0, |held| held.bytes)
                + WATCH_BYTES
                + path_bytes;
            let all_bytes = self.bytes + WATCH_BYTES + known.map_or(path_bytes, |_| 0);
            let limit_bytes = self.bytes_max;
            if all_bytes > limit_bytes || own_bytes > limit_bytes / SHARE_OF_ONE {
                return Err(TooMany { own_bytes, all_bytes, limit_bytes });
            }
        }
        let id = known.unwrap_or_else(|| self.intern(path));
        self.change(id, connection, before.with(modes));
        Ok(())
    }

    fn modes(&self, id: PathId, connection: ConnectionId) -> Modes {
        self.watched[id as usize].watchers.get(connection)
    }

    fn intern(&mut self, path: &str) -> PathId {
        let path: Arc<str> = path.into();
        self.bytes += PATH_BYTES + path.len();
        let watched = Watched { path: path.clone(), watchers: Watchers::None };
        let id = match self.free.pop() {
            Some(id) => {
                self.watched[id as usize] = watched;
                id
            }
            None => {
                self.watched.push(watched);
                self.watched.len() as PathId - 1
            }
        };
        self.ids.insert(path, id);
        id
    }

    /// Sets how a connection watches a path, and counts.
    fn change(&mut self, id: PathId, connection: ConnectionId, modes: Modes) {
        let watched = &mut self.watched[id as usize];
        let before = watched.watchers.get(connection);
        watched.watchers.set(connection, modes);
        self.watches = self.watches - before.count() + modes.count();
        let is_recursive = |modes: Modes| usize::from(modes.meets(Modes::RECURSIVE));
        self.recursive = self.recursive - is_recursive(before) + is_recursive(modes);
        let own_bytes = WATCH_BYTES + PATH_BYTES + watched.path.len();
        match (before == Modes::default(), modes == Modes::default()) {
            (true, false) => {
                self.bytes += WATCH_BYTES;
                let held = self.by_connection.entry(connection).or_default();
                held.paths.insert(id);
                held.bytes += own_bytes;
            }
            (false, true) => {
                self.bytes -= WATCH_BYTES;
                if let Some(held) = self.by_connection.get_mut(&connection) {
                    held.paths.remove(&id);
                    held.bytes -= own_bytes;
                    if held.paths.is_empty() {
                        self.by_connection.remove(&connection);
                    }
                }
            }
            _ => {}
        }
        let watched = &mut self.watched[id as usize];
        if matches!(watched.watchers, Watchers::None) {
            let path = std::mem::replace(&mut watched.path, Arc::from(""));
            self.bytes -= PATH_BYTES + path.len();
            self.ids.remove(&path);
            self.free.push(id);
        }
    }

    /// Whether `connection` watches `path` in one of `modes`.
    pub(crate) fn has(&self, modes: Modes, path: &str, connection: ConnectionId) -> bool {
        self.ids.get(path).is_some_and(|id| self.modes(*id, connection).meets(modes))
    }

    /// Gives those `modes` up; `false` where there was none of them.
    pub(crate) fn remove(&mut self, modes: Modes, path: &str, connection: ConnectionId) -> bool {
        let Some(id) = self.ids.get(path).copied() else { return false };
        let before = self.modes(id, connection);
        if before.meets(modes) {
            self.change(id, connection, before.without(modes));
        }
        before.meets(modes)
    }

    pub(crate) fn remove_connection(&mut self, connection: ConnectionId) {
        let held = self.by_connection.get_mut(&connection);
        for id in held.map(|held| std::mem::take(&mut held.paths)).into_iter().flatten() {
            self.change(id, connection, Modes::default());
        }
        self.by_connection.remove(&connection);
    }

    /// Whom an event is to be told, once each, in the order of their ids. Watches that are for one
    /// event are used up.
    pub(crate) fn fire(&mut self, kind: EventKind, path: &str) -> Vec<Told> {
        let concerned = match kind {
            EventKind::Created | EventKind::DataChanged => DATA_MODES,
            EventKind::ChildrenChanged => CHILD_MODES,
            EventKind::Deleted => Modes::ANY,
            _ => return Vec::new(),
        };
        let once = Modes::DATA.with(Modes::CHILD);
        let mut told = Vec::new();
        if let Some(id) = self.ids.get(path).copied() {
            for (connection, modes) in self.watched[id as usize].watchers.all() {
                if !modes.meets(concerned) {
                    continue;
                }
                let used = Modes(modes.0 & concerned.0 & once.0);
                told.push(Told { connection, if_permitted: used == Modes::default() });
                if used != Modes::default() {
                    self.change(id, connection, modes.without(used));
                }
            }
        }
        let is_of_data = concerned.meets(Modes::RECURSIVE);
        let mut above = parent_and_name(path).filter(|_| is_of_data && self.recursive > 0);
        while let Some((path, _)) = above {
            if let Some(id) = self.ids.get(path) {
                let recursive = self.watched[*id as usize].watchers.all().into_iter();
                told.extend(
                    recursive
                        .filter(|(_, modes)| modes.meets(Modes::RECURSIVE))
                        .map(|(connection, _)| Told { connection, if_permitted: true }),
                );
            }
            above = parent_and_name(path);
        }
        // Where one watch asks for the right to read and another does not, the other holds.
        told.sort_unstable_by_key(|told| (told.connection, told.if_permitted));
        told.dedup_by_key(|told| told.connection);
        told
    }

    /// Connections with watches, watched paths, watches.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        (self.by_connection.len(), self.ids.len(), self.watches)
    }

    /// Whose data or existence is watched, and by whom.
    pub(crate) fn data(&self) -> impl Iterator<Item = (&str, Vec<ConnectionId>)> {
        self.watched.iter().filter_map(|watched| {
            let all = watched.watchers.all().into_iter();
            let of_data = all.filter(|(_, modes)| modes.meets(DATA_MODES));
            let connections: Vec<_> = of_data.map(|(connection, _)| connection).collect();
            (!connections.is_empty()).then_some((&*watched.path, connections))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watches() -> Watches {
        Watches::new(BYTES_MAX)
    }

    /// Whom an event reaches; those who must be permitted to read as negative numbers.
    fn fire(watches: &mut Watches, kind: EventKind, path: &str) -> Vec<i64> {
        let sign = |told: Told| {
            let id = told.connection as i64;
            if told.if_permitted { -id } else { id }
        };
        watches.fire(kind, path).into_iter().map(sign).collect()
    }

    #[test]
    fn a_watch_fires_once_and_a_deletion_tells_each_watcher_once() {
        let mut watches = watches();
        for (modes, connection) in [(Modes::DATA, 1), (Modes::CHILD, 1), (Modes::CHILD, 2)] {
            watches.add(modes, "/a", connection).unwrap();
        }
        assert_eq!(watches.counts(), (2, 1, 3));
        assert_eq!(fire(&mut watches, EventKind::DataChanged, "/a"), [1]);
        assert_eq!(fire(&mut watches, EventKind::DataChanged, "/a"), [0_i64; 0]);
        watches.add(Modes::DATA, "/a", 1).unwrap();
        assert_eq!(fire(&mut watches, EventKind::Deleted, "/a"), [1, 2]);
        assert_eq!((watches.counts(), watches.bytes), ((0, 0, 0), 0));
    }

    #[test]
    fn a_persistent_watch_fires_each_time_and_a_recursive_one_for_all_below() {
        let mut watches = watches();
        watches.add(Modes::PERSISTENT, "/a", 1).unwrap();
        watches.add(Modes::RECURSIVE, "/a", 2).unwrap();
        watches.add(Modes::RECURSIVE, "/", 3).unwrap();
        watches.add(Modes::DATA, "/a/b", 2).unwrap();
        let all_of = |watches: &mut Watches| {
            [
                (EventKind::DataChanged, "/a", vec![-1, -2, -3]),
                (EventKind::ChildrenChanged, "/a", vec![-1]),
                (EventKind::Created, "/a/b/c", vec![-2, -3]),
                (EventKind::ChildrenChanged, "/a/b", vec![]),
                (EventKind::Deleted, "/ab", vec![-3]),
                (EventKind::DataChanged, "/", vec![-3]),
            ]
            .map(|(kind, path, expected)| assert_eq!(fire(watches, kind, path), expected, "{path}"))
        };
        all_of(&mut watches);
        all_of(&mut watches);
        // Once as a plain watch, which needs no right; from then on as the recursive one.
        assert_eq!(fire(&mut watches, EventKind::DataChanged, "/a/b"), [2, -3]);
        assert_eq!(fire(&mut watches, EventKind::DataChanged, "/a/b"), [-2, -3]);
        assert!(!watches.remove(Modes::PERSISTENT, "/a", 2));
        assert!(watches.remove(Modes::RECURSIVE, "/a", 2));
        assert!(watches.remove(Modes::ANY, "/", 3));
        assert_eq!(watches.recursive, 0);
        assert_eq!(fire(&mut watches, EventKind::Deleted, "/a"), [-1]);
        assert!(watches.has(Modes::PERSISTENT, "/a", 1));
    }

    #[test]
    fn a_connection_takes_its_watches_with_it() {
        let mut watches = watches();
        for connection in [1, 2, 3] {
            watches.add(Modes::DATA, "/a", connection).unwrap();
            watches.add(Modes::RECURSIVE, "/b", connection).unwrap();
        }
        watches.remove_connection(1);
        watches.remove_connection(3);
        assert!(!watches.has(Modes::DATA, "/a", 1));
        let mut data: Vec<_> = watches.data().collect();
        data.sort();
        assert_eq!(data, [("/a", vec![2]), ("/b", vec![2])]);
        watches.remove(Modes::DATA, "/a", 2);
        watches.remove_connection(2);
        assert_eq!(watches.counts(), (0, 0, 0));
        assert_eq!((watches.bytes, watches.recursive, watches.ids.len()), (0, 0, 0));
        assert!(watches.by_connection.is_empty());
    }

    #[test]
    fn neither_one_nor_all_may_watch_without_end() {
        let mut watches = Watches::new(64 << 10);
        let fill = |watches: &mut Watches, connection| {
            (0..).find(|i| watches.add(Modes::DATA, &format!("/{i:0100}"), connection).is_err())
        };
        let most = fill(&mut watches, 1).unwrap();
        assert!((50..100).contains(&most), "{most}");
        // Another way to watch the same path costs nothing.
        watches.add(Modes::CHILD, &format!("/{:0100}", 0), 1).unwrap();
        // The paths are there already, so others cost little.
        assert_eq!(fill(&mut watches, 2), Some(most));
        for connection in 3..100 {
            fill(&mut watches, connection);
        }
        assert!(watches.bytes <= 64 << 10);
        let refused = watches.add(Modes::DATA, "/another", 200).unwrap_err();
        assert!(refused.all_bytes > refused.limit_bytes, "{refused:?}");
        watches.remove_connection(1);
        watches.remove_connection(2);
        watches.add(Modes::DATA, "/another", 200).unwrap();
    }

    #[test]
    #[ignore = "measures memory and time, for people: cargo test --release -p elkfk-coordinator -- --ignored --nocapture million"]
    fn a_million_watches() {
        for is_shared in [true, false] {
            let before = resident_bytes();
            let mut watches = Watches::new(usize::MAX);
            let path = |session: u64, i: u64| match is_shared {
                true => format!("/brokers/topics/some-topic-name-{i:05}/partitions"),
                false => format!("/brokers/topics/some-topic-{session:04}-{i:05}/partitions"),
            };
            let started = std::time::Instant::now();
            for session in 0..5000 {
                for i in 0..200 {
                    watches.add(Modes::DATA, &path(session, i), session).unwrap();
                }
            }
            let added = started.elapsed();
            let bytes = resident_bytes() - before;
            let started = std::time::Instant::now();
            for i in 0..100 {
                watches.fire(EventKind::DataChanged, &path(7, i));
            }
            let fired = started.elapsed();
            let started = std::time::Instant::now();
            for session in 0..5000 {
                watches.remove_connection(session);
            }
            println!(
                "shared paths {is_shared}: {} B each by RSS, counted {}; added in {added:?}, 100 fired in {fired:?}, gone in {:?}",
                bytes / 1_000_000,
                watches.bytes,
                started.elapsed(),
            );
        }
    }

    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    }
}
