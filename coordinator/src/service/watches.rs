//! The watches of the clients connected here.
//!
//! They live on this server only: a client that comes back sets them again itself.

use std::collections::{BTreeSet, HashMap, HashSet};

use elkfk_wire::jute::EventKind;

pub(crate) type ConnectionId = u64;

/// What the watches of all clients together may take, as a default: a million of them or more.
pub(crate) const BYTES_MAX: usize = 256 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WatchKind {
    /// Set by getData and exists.
    Data,
    /// Set by getChildren.
    Child,
}

#[derive(Debug, Default)]
pub(crate) struct Watches {
    data: HashMap<String, BTreeSet<ConnectionId>>,
    child: HashMap<String, BTreeSet<ConnectionId>>,
    by_connection: HashMap<ConnectionId, HashSet<(WatchKind, String)>>,
}

impl Watches {
    fn table(&mut self, kind: WatchKind) -> &mut HashMap<String, BTreeSet<ConnectionId>> {
        match kind {
            WatchKind::Data => &mut self.data,
            WatchKind::Child => &mut self.child,
        }
    }

    pub(crate) fn add(&mut self, kind: WatchKind, path: &str, connection: ConnectionId) {
        let watchers = self.table(kind).entry(path.to_owned()).or_default();
        if watchers.insert(connection) {
            self.by_connection.entry(connection).or_default().insert((kind, path.to_owned()));
        }
    }

    pub(crate) fn has(&self, kind: WatchKind, path: &str, connection: ConnectionId) -> bool {
        self.by_connection
            .get(&connection)
            .is_some_and(|watches| watches.contains(&(kind, path.to_owned())))
    }

    pub(crate) fn remove(&mut self, kind: WatchKind, path: &str, connection: ConnectionId) {
        if let Some(watches) = self.by_connection.get_mut(&connection) {
            watches.remove(&(kind, path.to_owned()));
        }
        self.unlist(kind, path, connection);
    }

    fn unlist(&mut self, kind: WatchKind, path: &str, connection: ConnectionId) {
        let table = self.table(kind);
        if let Some(watchers) = table.get_mut(path) {
            watchers.remove(&connection);
            if watchers.is_empty() {
                table.remove(path);
            }
        }
    }

    pub(crate) fn remove_connection(&mut self, connection: ConnectionId) {
        for (kind, path) in self.by_connection.remove(&connection).into_iter().flatten() {
            self.unlist(kind, &path, connection);
        }
    }

    /// Whom an event is to be told, once each. Their watches are used up.
    pub(crate) fn fire(&mut self, kind: EventKind, path: &str) -> BTreeSet<ConnectionId> {
        let kinds: &[WatchKind] = match kind {
            EventKind::Created | EventKind::DataChanged => &[WatchKind::Data],
            EventKind::ChildrenChanged => &[WatchKind::Child],
            EventKind::Deleted => &[WatchKind::Data, WatchKind::Child],
            _ => &[],
        };
        let mut told = BTreeSet::new();
        for kind in kinds {
            for connection in self.table(*kind).remove(path).into_iter().flatten() {
                if let Some(watches) = self.by_connection.get_mut(&connection) {
                    watches.remove(&(*kind, path.to_owned()));
                }
                told.insert(connection);
            }
        }
        told
    }

    /// Connections with watches, watched paths, watches.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let connections = self.by_connection.values().filter(|watches| !watches.is_empty()).count();
        let paths: HashSet<_> = self.data.keys().chain(self.child.keys()).collect();
        let watches = self.by_connection.values().map(HashSet::len).sum();
        (connections, paths.len(), watches)
    }

    /// Whose data or existence is watched, and by whom.
    pub(crate) fn data(&self) -> impl Iterator<Item = (&str, &BTreeSet<ConnectionId>)> {
        self.data.iter().map(|(path, watchers)| (path.as_str(), watchers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_fires_once_and_a_deletion_tells_each_watcher_once() {
        let mut watches = Watches::default();
        watches.add(WatchKind::Data, "/a", 1);
        watches.add(WatchKind::Child, "/a", 1);
        watches.add(WatchKind::Child, "/a", 2);
        assert_eq!(watches.counts(), (2, 1, 3));
        assert_eq!(watches.fire(EventKind::DataChanged, "/a"), BTreeSet::from([1]));
        assert_eq!(watches.fire(EventKind::DataChanged, "/a"), BTreeSet::new());
        watches.add(WatchKind::Data, "/a", 1);
        assert_eq!(watches.fire(EventKind::Deleted, "/a"), BTreeSet::from([1, 2]));
        assert_eq!(watches.counts(), (0, 0, 0));
    }

    #[test]
    fn a_connection_takes_its_watches_with_it() {
        let mut watches = Watches::default();
        watches.add(WatchKind::Data, "/a", 1);
        watches.add(WatchKind::Data, "/a", 2);
        watches.remove_connection(1);
        assert!(!watches.has(WatchKind::Data, "/a", 1));
        watches.remove(WatchKind::Data, "/a", 2);
        assert_eq!(watches.counts(), (0, 0, 0));
        assert!(watches.data.is_empty());
    }
}
