//! What clients may and may not be told.
//!
//! - Every read shows exactly the state of the zxid it is answered with, and no client is shown an
//!   older state than before, on whatever server.
//! - Every write has a zxid of its own, has done at it what it was answered, and comes after all that
//!   anybody was answered before it was asked. So does what is read after a sync. Together: writes are
//!   linearizable, reads sequential, and linearizable after a sync.
//! - Time in the tree is the leader's.
//! - A watch is told of once, before any answer that shows what it is about or anything newer, across
//!   connections too; and of nothing else.
//! - Nobody is told that a session is over which is not; none ends while its client is heard.

use std::collections::HashSet;

use elkfk_wire::jute::{
    ConnectResponse, ErrorCode, EventKind, OpCode, OpResult, Reader, ReplyHeader, Response, Stat,
    WatchedEvent, frame_in, xid,
};

use super::checks::{COUNTER, PAIR, ephemeral_path, number, own_path};
use super::clients::{CLIENTS, Outstanding, Sent, Watch};
use super::*;

/// Whose client was heard for so long without a gap, and answered so recently, is not over. An end
/// that was decided before the client was heard again may take its time on a slow network (7 s were
/// seen), so it is long.
const HEARD_FOR_MS: u64 = SESSION_TIMEOUT_MS as u64 + 8000;
const ANSWERED_WITHIN_MS: u64 = 700;

impl World {
    pub(super) fn deliver_to_clients(&mut self, id: u64) {
        let Some(server) = self.server(id) else { return };
        for delivery in server.replica.service.take_deliveries() {
            self.trace.update(&delivery.connection.to_be_bytes());
            self.trace.update(&delivery.bytes);
            let at = (self.clients.iter())
                .position(|client| client.connection == Some(delivery.connection));
            if let Some(at) = at {
                let mut rest = &delivery.bytes[..];
                while let Ok(Some(frame)) = frame_in(rest, 1 << 20) {
                    rest = &rest[4 + frame.len()..];
                    self.received(at, frame);
                }
            }
            if delivery.is_last {
                if let Some(at) = at {
                    self.forget_connection(at);
                }
                if let Some(server) = self.server(id) {
                    server.replica.service.gone(delivery.connection);
                }
            }
        }
    }

    /// To be told after each look at what was applied.
    pub(super) fn sessions_closed(&mut self) {
        for session in std::mem::take(&mut self.checks.just_closed) {
            for (at, client) in self.clients.iter().enumerate() {
                // On a disk that holds writes up, an end that was due may come long after its client
                // is heard again.
                let is_heard = client.is_live
                    && !self.are_writes_held_up
                    && self.now_ms >= client.steady_since_ms + HEARD_FOR_MS
                    && self.now_ms <= client.answered_ms + ANSWERED_WITHIN_MS;
                assert!(
                    client.session != session || client.ended == session || !is_heard,
                    "{session} is over at {}, though its client {at} is heard on server {} since {}, answered at {}\n{}",
                    self.now_ms,
                    client.server,
                    client.steady_since_ms,
                    client.answered_ms,
                    self.standing()
                );
            }
        }
    }

    fn received(&mut self, at: usize, frame: &[u8]) {
        let now_ms = self.now_ms;
        let client = &mut self.clients[at];
        if !client.is_live {
            let response = ConnectResponse::decode(frame).unwrap();
            if response.session == SessionId(0) {
                let session = client.session;
                assert!(self.checks.closed.contains(&session), "{session} is said to be over");
            } else {
                client.is_live = true;
            }
            if response.session != client.session {
                client.watches = [None; 2];
            }
            client.must_set_watches = client.watches.iter().any(Option::is_some);
            client.session = response.session;
            client.password = response.password.to_vec();
            return;
        }
        let mut reader = Reader::new(frame);
        let header = ReplyHeader::decode(&mut reader).unwrap();
        if header.xid == xid::NOTIFICATION {
            return self.told(at, &WatchedEvent::decode(&mut reader).unwrap());
        }
        let asked = client.outstanding.pop_front().expect("answers answer");
        assert_eq!(header.xid, asked.xid, "answers come in order");
        let zxid = header.zxid.0;
        assert!(zxid >= client.last_zxid, "the state goes back");
        client.last_zxid = zxid;
        client.answered_ms = now_ms;
        self.no_event_is_due(at, zxid);
        let error = ErrorCode::from_code(header.error);
        // Its session was moved, or ended, by nobody but itself: the connection would be closed.
        assert!(
            !matches!(error, Some(ErrorCode::SessionMoved | ErrorCode::SessionExpired)),
            "client {at} on server {} is told {error:?}",
            self.clients[at].server
        );
        if error == Some(ErrorCode::ConnectionLoss) {
            return;
        }
        self.clients[at].all_acknowledged += 1;
        self.answered(at, &asked, header, &mut reader);
    }

    fn told(&mut self, at: usize, event: &WatchedEvent<'_>) {
        let client = &mut self.clients[at];
        let other = own_path((at + 1) % CLIENTS);
        let (watch, kind) = match &*event.path {
            "/" => (Watch::Children, EventKind::ChildrenChanged),
            path => {
                assert_eq!(path, other);
                let was_there = client.watches[0].is_some_and(|(_, was_there)| was_there);
                let kind = if was_there { EventKind::DataChanged } else { EventKind::Created };
                (Watch::Data, kind)
            }
        };
        assert_eq!(event.kind, kind, "{}", event.path);
        assert!(client.watches[watch as usize].take().is_some(), "an event of no watch");
        client.events += 1;
    }

    fn no_event_is_due(&self, at: usize, zxid: i64) {
        let other = own_path((at + 1) % CLIENTS);
        for (set, path) in self.clients[at].watches.iter().zip([Some(&*other), None]) {
            let Some((set, _)) = *set else { continue };
            let change = self.checks.change_after(set, path);
            assert!(
                change.is_none_or(|change| zxid < change),
                "client {at} is shown {zxid:x} before the event of {change:x?} at {path:?}"
            );
        }
    }

    fn answered(
        &mut self,
        at: usize,
        asked: &Outstanding,
        header: ReplyHeader,
        reader: &mut Reader<'_>,
    ) {
        let (zxid, error) = (header.zxid.0, ErrorCode::from_code(header.error));
        let next = (at + 1) % CLIENTS;
        match &asked.sent {
            Sent::Get(..) | Sent::GetOther(_) | Sent::Watch(_) | Sent::ReadCounter => {}
            Sent::Sync | Sent::SetWatches => {}
            _ => self.write_answered(asked, zxid),
        }
        let state = self.checks.state(zxid);
        let (own, ephemeral) = (state.znode(&own_path(at)), state.znode(&ephemeral_path(at)));
        match &asked.sent {
            Sent::Create => {
                assert!(matches!(error, None | Some(ErrorCode::NodeExists)), "{error:?}");
                assert!(own.is_some());
                self.clients[at].is_created = true;
            }
            Sent::Set(value) => {
                assert_eq!(error, None);
                let own = own.expect("it is there");
                assert_eq!((number(&own.value), own.mzxid), (*value, zxid));
                self.is_leaders_time(asked, zxid, &stat(OpCode::SetData, reader));
                self.clients[at].acknowledged = *value;
            }
            Sent::Get(least, most) => {
                let value = number(&self.data(zxid, &own_path(at), error, reader));
                assert!(
                    (*least..=*most).contains(&value),
                    "client {at} reads {value}, not {least} to {most}"
                );
            }
            Sent::GetOther(least) => {
                assert!(zxid >= asked.after, "a sync of {:x} shows {zxid:x}", asked.after);
                if error == Some(ErrorCode::NoNode) {
                    assert!(state.znode(&own_path(next)).is_none() && *least == 0);
                    return;
                }
                let value = number(&self.data(zxid, &own_path(next), error, reader));
                let most = self.clients[next].sent;
                assert!((*least..=most).contains(&value), "{value} is read, not {least} to {most}");
            }
            Sent::Ephemeral => {
                let ephemeral = ephemeral.expect("it is there");
                match error {
                    None => {
                        assert_eq!(ephemeral.mzxid, zxid);
                        assert_eq!(ephemeral.owner, self.clients[at].session);
                    }
                    error => assert_eq!(error, Some(ErrorCode::NodeExists)),
                }
            }
            Sent::DeleteEphemeral => {
                assert!(matches!(error, None | Some(ErrorCode::NoNode)), "{error:?}");
                assert!(ephemeral.is_none(), "it was deleted");
            }
            Sent::Watch(watch @ Watch::Data) => {
                assert_eq!(
                    error,
                    state.znode(&own_path(next)).is_none().then_some(ErrorCode::NoNode)
                );
                self.clients[at].watches[*watch as usize] = Some((zxid, error.is_none()));
            }
            Sent::Watch(watch @ Watch::Children) => {
                let Ok(Response::Children2(names, _)) =
                    Response::decode(OpCode::GetChildren2, reader)
                else {
                    panic!("no children")
                };
                let names: HashSet<_> = names.iter().map(|name| &**name).collect();
                assert_eq!(names, state.children.iter().map(|name| &**name).collect());
                self.clients[at].watches[*watch as usize] = Some((zxid, true));
            }
            Sent::ReadCounter => {
                let counter = state.znode(COUNTER);
                assert_eq!(error, counter.is_none().then_some(ErrorCode::NoNode));
                if let Some(counter) = counter {
                    assert_eq!(stat(OpCode::Exists, reader).version, counter.version);
                    self.clients[at].counter = Some(counter.version);
                }
            }
            Sent::Count { won } => {
                if error == Some(ErrorCode::BadVersion) {
                    return;
                }
                assert_eq!(error, None);
                let version = stat(OpCode::SetData, reader).version;
                assert!(self.wins.insert(version), "version {version} is won twice");
                assert!(version > *won, "{version} is won after {won}");
                self.won = self.won.max(version);
            }
            Sent::Pair(value, must_fail) => {
                let Ok(Response::Multi(results)) = Response::decode(OpCode::Multi, reader) else {
                    panic!("no results")
                };
                let is_done = results.iter().all(|one| matches!(one, OpResult::Ok(..)));
                assert!(!is_done || !must_fail, "it was made to fail");
                for path in PAIR {
                    let is_there = state.znode(path).is_some_and(|znode| {
                        znode.mzxid == zxid && znode.value == value.to_be_bytes()
                    });
                    assert_eq!(is_there, is_done, "{path}");
                }
            }
            Sent::CloseSession => {
                let session = self.clients[at].session;
                assert!(self.checks.closed.contains(&session), "{session} is not over");
                assert!(ephemeral.is_none_or(|ephemeral| ephemeral.owner != session));
                self.ended += 1;
            }
            Sent::CreateShared | Sent::Sync | Sent::SetWatches => {}
        }
    }

    fn write_answered(&mut self, asked: &Outstanding, zxid: i64) {
        self.checks.write_answered(zxid);
        assert!(zxid > asked.after, "{zxid:x} is done after {:x} was answered", asked.after);
        self.acknowledged_zxid = self.acknowledged_zxid.max(zxid);
    }

    fn data(
        &self,
        zxid: i64,
        path: &str,
        error: Option<ErrorCode>,
        reader: &mut Reader<'_>,
    ) -> Vec<u8> {
        assert_eq!(error, None, "{path}");
        let Ok(Response::Data(Some(data), found)) = Response::decode(OpCode::GetData, reader)
        else {
            panic!("no data")
        };
        let known = self.checks.state(zxid).znode(path).expect("it is there");
        assert_eq!((&*data, found.mzxid.0), (&known.value[..], known.mzxid), "{path} at {zxid:x}");
        data.into_owned()
    }

    /// Whether the clock of the leader, as it stood once, showed this while the write was under way.
    fn is_leaders_time(&self, asked: &Outstanding, zxid: i64, stat: &Stat) {
        let Some(leader) = self.checks.leader_at(zxid) else { return };
        let during = asked.sent_ms as i64..=self.now_ms as i64;
        let mut offsets = self.clocks[leader as usize - 1].iter();
        assert!(
            offsets.any(|offset| during.contains(&(stat.mtime_ms - WALL_MS - offset))),
            "{} is no time of server {leader}, which led",
            stat.mtime_ms
        );
    }
}

fn stat(op: OpCode, reader: &mut Reader<'_>) -> Stat {
    match Response::decode(op, reader) {
        Ok(Response::Stat(stat)) => stat,
        other => panic!("no stat: {other:?}"),
    }
}
