//! Watches as futures, and the table of those that wait.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use elkfk_wire::jute::{EventKind, EventState, Request, WatchedEvent, Zxid};
use tokio::sync::oneshot;

/// Resolves once, with what happened to the watched znode, or with an event of kind
/// [`EventKind::Session`] when the session ends first. To give a watch up, drop it.
#[derive(Debug)]
pub struct Watch {
    pub(crate) fired: oneshot::Receiver<WatchedEvent<'static>>,
}

impl Future for Watch {
    type Output = WatchedEvent<'static>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // The table drops its senders only when the session ends.
        Pin::new(&mut self.fired).poll(context).map(|event| {
            event.unwrap_or(WatchedEvent {
                kind: EventKind::Session,
                state: EventState::Closed,
                path: Cow::Borrowed(""),
            })
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum WatchKind {
    Data,
    /// Set by an exists that found nothing.
    Exist,
    Child,
}

type Sender = oneshot::Sender<WatchedEvent<'static>>;

/// The watches set on the server, by kind and full path (with the chroot).
#[derive(Debug, Default)]
pub(crate) struct Watches {
    waiting: HashMap<(WatchKind, String), Vec<Sender>>,
}

/// Java's client splits its setWatches at this size too, far below any server's jute.maxbuffer.
const SET_WATCHES_BYTES_MAX: usize = 128 << 10;

impl Watches {
    pub(crate) fn add(&mut self, kind: WatchKind, path: String, sender: Sender) {
        let senders = self.waiting.entry((kind, path)).or_default();
        // Whoever sets and drops watches in a loop must not fill the table.
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
    }

    /// Hands `event`, whose path is the full one, to those it concerns, with the path as they know it.
    pub(crate) fn fire(&mut self, event: &WatchedEvent<'_>, chroot: &str) {
        let kinds: &[WatchKind] = match event.kind {
            EventKind::Created | EventKind::DataChanged => &[WatchKind::Data, WatchKind::Exist],
            EventKind::ChildrenChanged => &[WatchKind::Child],
            EventKind::Deleted => &[WatchKind::Data, WatchKind::Exist, WatchKind::Child],
            EventKind::DataWatchRemoved => &[WatchKind::Data, WatchKind::Exist],
            EventKind::ChildWatchRemoved => &[WatchKind::Child],
            EventKind::Session | EventKind::PersistentWatchRemoved => &[],
        };
        let known = event.path.strip_prefix(chroot).unwrap_or(&event.path);
        let told = WatchedEvent {
            kind: event.kind,
            state: event.state,
            path: Cow::Owned(if known.is_empty() { "/" } else { known }.to_owned()),
        };
        for kind in kinds {
            let key = (*kind, event.path.clone().into_owned());
            for sender in self.waiting.remove(&key).into_iter().flatten() {
                // Whoever dropped the watch does not want to know.
                let _ = sender.send(told.clone());
            }
        }
    }

    /// Tells everyone that the session is over.
    pub(crate) fn end(&mut self, state: EventState) {
        for sender in self.waiting.drain().flat_map(|(_, senders)| senders) {
            let _ = sender.send(WatchedEvent {
                kind: EventKind::Session,
                state,
                path: Cow::Borrowed(""),
            });
        }
    }

    /// The requests that set all of this again on a server that has not seen it.
    pub(crate) fn set_again(&mut self, relative_zxid: Zxid) -> Vec<Request<'static>> {
        self.waiting.retain(|_, senders| {
            senders.retain(|sender| !sender.is_closed());
            !senders.is_empty()
        });
        let mut requests = Vec::new();
        let (mut data, mut exist, mut child) = (Vec::new(), Vec::new(), Vec::new());
        let mut bytes = 0;
        for (kind, path) in self.waiting.keys() {
            if bytes > 0 && bytes + path.len() > SET_WATCHES_BYTES_MAX {
                let (data, exist, child) =
                    (data.split_off(0), exist.split_off(0), child.split_off(0));
                requests.push(Request::SetWatches { relative_zxid, data, exist, child });
                bytes = 0;
            }
            bytes += path.len() + 4;
            match kind {
                WatchKind::Data => &mut data,
                WatchKind::Exist => &mut exist,
                WatchKind::Child => &mut child,
            }
            .push(Cow::Owned(path.clone()));
        }
        if bytes > 0 {
            requests.push(Request::SetWatches { relative_zxid, data, exist, child });
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind, path: &'static str) -> WatchedEvent<'static> {
        WatchedEvent { kind, state: EventState::SyncConnected, path: Cow::Borrowed(path) }
    }

    #[test]
    fn an_event_fires_each_watch_it_concerns_once() {
        let mut watches = Watches::default();
        let mut add = |kind, path: &str| {
            let (sender, receiver) = oneshot::channel();
            watches.add(kind, path.to_owned(), sender);
            receiver
        };
        let mut data = add(WatchKind::Data, "/root/a");
        let mut child = add(WatchKind::Child, "/root/a");
        let mut other = add(WatchKind::Data, "/root/b");
        watches.fire(&event(EventKind::ChildrenChanged, "/root/a"), "/root");
        assert_eq!(child.try_recv().unwrap().path, "/a");
        assert!(data.try_recv().is_err());
        watches.fire(&event(EventKind::Deleted, "/root/a"), "/root");
        assert_eq!(data.try_recv().unwrap().kind, EventKind::Deleted);
        watches.end(EventState::Expired);
        assert_eq!(other.try_recv().unwrap().state, EventState::Expired);
    }

    #[test]
    fn dropped_watches_are_not_set_again_and_many_are_split() {
        let mut watches = Watches::default();
        let mut kept = Vec::new();
        for i in 0..5000 {
            let (sender, receiver) = oneshot::channel();
            watches.add(WatchKind::Data, format!("/{i:060}"), sender);
            if i % 2 == 0 {
                kept.push(receiver);
            }
        }
        let requests = watches.set_again(Zxid(9));
        assert!(requests.len() > 1);
        let paths: usize = requests
            .iter()
            .map(|request| match request {
                Request::SetWatches { relative_zxid: Zxid(9), data, .. } => data.len(),
                other => panic!("{other:?}"),
            })
            .sum();
        assert_eq!(paths, kept.len());
    }
}
