//! Watches as futures, and the table of those that wait.

use std::borrow::Cow;
use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use elkfk_wire::jute::{EventKind, EventState, Request, WatchedEvent, Zxid, parent_and_name};
use tokio::sync::{mpsc, oneshot};

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

/// What a [`PersistentWatch`] is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WatchMode {
    /// Creation, deletion and data of the path itself, and its children coming and going.
    Persistent,
    /// Creation, deletion and data of the path and of all below it, and no change of children.
    Recursive,
}

impl WatchMode {
    /// As addWatch has it.
    pub(crate) fn code(self) -> i32 {
        match self {
            Self::Persistent => 0,
            Self::Recursive => 1,
        }
    }

    /// As removeWatches has it.
    pub(crate) fn removal(self) -> i32 {
        match self {
            Self::Persistent => 4,
            Self::Recursive => 5,
        }
    }
}

/// Events that may wait for a [`PersistentWatch`] to be read; more end it.
pub(crate) const EVENTS_QUEUED_MAX: usize = 4096;

/// A watch that stays. To give it up here, drop it; on the server too, [`Client::forget_watch`].
///
/// [`Client::forget_watch`]: crate::Client::forget_watch
#[derive(Debug)]
pub struct PersistentWatch {
    pub(crate) events: mpsc::Receiver<WatchedEvent<'static>>,
}

impl PersistentWatch {
    /// The next event. One of kind [`EventKind::Session`] says that the connection was another for a
    /// while, and what happened meanwhile is not told: look again. `None` once the session is over,
    /// the watch was forgotten, or more events waited than are kept (4096).
    pub async fn next(&mut self) -> Option<WatchedEvent<'static>> {
        self.events.recv().await
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
type EachSender = mpsc::Sender<WatchedEvent<'static>>;

/// What an answer does to the table.
#[derive(Debug)]
pub(crate) enum Change {
    Once(WatchKind, Sender),
    Each(WatchMode, EachSender),
    Forget(WatchMode),
}

/// The watches set on the server, by kind and full path (with the chroot).
#[derive(Debug, Default)]
pub(crate) struct Watches {
    waiting: HashMap<(WatchKind, String), Vec<Sender>>,
    staying: HashMap<(WatchMode, String), Vec<EachSender>>,
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

    pub(crate) fn add_each(&mut self, mode: WatchMode, path: String, sender: EachSender) {
        let senders = self.staying.entry((mode, path)).or_default();
        senders.retain(|sender| !sender.is_closed());
        senders.push(sender);
    }

    pub(crate) fn forget(&mut self, mode: WatchMode, path: String) {
        self.staying.remove(&(mode, path));
    }

    fn fire_staying(&mut self, event: &WatchedEvent<'_>, told: &WatchedEvent<'static>) {
        let mut modes = vec![(WatchMode::Persistent, event.path.clone().into_owned())];
        if event.kind != EventKind::ChildrenChanged {
            let mut above = Some(event.path.as_ref());
            while let Some(path) = above {
                modes.push((WatchMode::Recursive, path.to_owned()));
                above = parent_and_name(path).map(|(parent, _)| parent);
            }
        }
        for key in modes {
            if let Some(senders) = self.staying.get_mut(&key) {
                // One that is full has missed this, so it ends: its reader looks again.
                senders.retain(|sender| sender.try_send(told.clone()).is_ok());
            }
        }
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
        if !matches!(
            event.kind,
            EventKind::Session | EventKind::DataWatchRemoved | EventKind::ChildWatchRemoved
        ) {
            self.fire_staying(event, &told);
        }
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
        self.staying.clear();
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
        let mut requests = self.stay_again(relative_zxid);
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

impl Watches {
    fn stay_again(&mut self, relative_zxid: Zxid) -> Vec<Request<'static>> {
        self.staying.retain(|_, senders| {
            let again = WatchedEvent {
                kind: EventKind::Session,
                state: EventState::SyncConnected,
                path: Cow::Borrowed(""),
            };
            senders.retain(|sender| sender.try_send(again.clone()).is_ok());
            !senders.is_empty()
        });
        let mut requests = Vec::new();
        let mut keys = self.staying.keys().peekable();
        while keys.peek().is_some() {
            let (mut persistent, mut persistent_recursive, mut bytes) = (vec![], vec![], 0);
            while let Some((mode, path)) =
                keys.next_if(|(_, path)| bytes == 0 || bytes + path.len() <= SET_WATCHES_BYTES_MAX)
            {
                bytes += path.len() + 4;
                match mode {
                    WatchMode::Persistent => &mut persistent,
                    WatchMode::Recursive => &mut persistent_recursive,
                }
                .push(Cow::Owned(path.clone()));
            }
            let (data, exist, child) = (vec![], vec![], vec![]);
            requests.push(Request::SetWatches2 {
                relative_zxid,
                data,
                exist,
                child,
                persistent,
                persistent_recursive,
            });
        }
        requests
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_stays_is_told_each_time_until_nobody_reads_it() {
        let mut watches = Watches::default();
        let mut add = |mode, path: &str, room| {
            let (sender, receiver) = mpsc::channel(room);
            watches.add_each(mode, path.to_owned(), sender);
            receiver
        };
        let mut one = add(WatchMode::Persistent, "/root/a", 9);
        let mut all = add(WatchMode::Recursive, "/root", 9);
        let mut slow = add(WatchMode::Recursive, "/root", 1);
        for (kind, path) in [
            (EventKind::Created, "/root/a"),
            (EventKind::ChildrenChanged, "/root/a"),
            (EventKind::DataChanged, "/root/a/b"),
        ] {
            watches.fire(&event(kind, path), "/root");
        }
        let told = |receiver: &mut mpsc::Receiver<WatchedEvent<'static>>| {
            std::iter::from_fn(|| receiver.try_recv().ok())
                .map(|event| format!("{:?} {}", event.kind, event.path))
                .collect::<Vec<_>>()
        };
        assert_eq!(told(&mut one), ["Created /a", "ChildrenChanged /a"]);
        assert_eq!(told(&mut all), ["Created /a", "DataChanged /a/b"]);
        assert_eq!(told(&mut slow), ["Created /a"]);
        assert!(slow.try_recv().is_err_and(|why| why == mpsc::error::TryRecvError::Disconnected));
        let requests = watches.set_again(Zxid(9));
        assert!(matches!(
            &requests[..],
            [Request::SetWatches2 { persistent, persistent_recursive, .. }]
                if persistent[..] == ["/root/a"] && persistent_recursive[..] == ["/root"]
        ));
        assert_eq!(told(&mut all), ["Session "]);
        watches.forget(WatchMode::Recursive, "/root".to_owned());
        drop(one);
        assert_eq!(watches.set_again(Zxid(9)), []);
    }

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
