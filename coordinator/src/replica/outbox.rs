//! What this server's clients want in the log and do not have there yet.
//!
//! Commands go to the leader in their order, on a lane without gaps, so they are applied in that order
//! or from some point on not at all. Once an entry of a newer term is applied here, what was sent in
//! the older one and is not applied never will be: every leader to come has that entry, and nothing of
//! an older term after it. So when the leader changes nobody is told that a write may have been done
//! or not: what is left is told to the new one, once.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use crate::machine::Origin;
use crate::service::ConnectionId;

/// More than this is looked through for what nobody waits for any more.
const BYTES_MAX: usize = if cfg!(test) { 16 << 10 } else { 64 << 20 };

#[derive(Debug)]
pub(super) struct Outbox {
    /// Of this life of the server: its commands are known by it.
    boot: u64,
    /// Not sent yet.
    parked: VecDeque<Vec<u8>>,
    /// Sent and not applied, of clients only: what the ensemble itself wants is wanted again.
    sent: VecDeque<Bytes>,
    /// The newest term any of `sent` was sent in.
    term: u64,
    /// Since when something of `sent` may be lost.
    broken_ms: Option<u64>,
    /// Of both.
    bytes: usize,
    purged_bytes: usize,
}

impl Outbox {
    pub(super) fn new(boot: u64) -> Self {
        Self {
            boot,
            parked: VecDeque::new(),
            sent: VecDeque::new(),
            term: 0,
            broken_ms: None,
            bytes: 0,
            purged_bytes: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.parked.is_empty()
    }

    pub(super) fn park(&mut self, commands: Vec<Vec<u8>>) {
        self.bytes += commands.iter().map(Vec::len).sum::<usize>();
        self.parked.extend(commands);
    }

    /// The next to be sent; `None` while it is not known what of those before has arrived.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        if self.broken_ms.is_some() {
            return None;
        }
        let command = self.parked.pop_front()?;
        self.bytes -= command.len();
        Some(command)
    }

    /// What [`Self::next`] gave could not be sent.
    pub(super) fn give_back(&mut self, command: Vec<u8>) {
        self.bytes += command.len();
        self.parked.push_front(command);
    }

    pub(super) fn sent(&mut self, command: &Bytes, term: u64) {
        if self.client(command).is_some() {
            self.term = term;
            self.bytes += command.len();
            self.sent.push_back(command.clone());
        }
    }

    /// The client that waits for this command, if it is one of this server's.
    fn client(&self, command: &[u8]) -> Option<ConnectionId> {
        let origin = Origin::of(command)?;
        (origin.boot == self.boot && origin.connection != 0).then_some(origin.connection)
    }

    /// An entry with this command was applied.
    pub(super) fn applied(&mut self, command: &[u8]) {
        if let Some(first) = self.sent.front()
            && Origin::is_same_but_for_time(first, command)
        {
            self.bytes -= first.len();
            self.sent.pop_front();
            if self.sent.is_empty() {
                self.broken_ms = None;
            }
        }
    }

    /// The way to the leader, or the leader, may have lost something.
    pub(super) fn break_lane(&mut self, now_ms: u64) {
        if !self.sent.is_empty() {
            self.broken_ms.get_or_insert(now_ms);
        }
        // What this server decided as the leader it was is for the next one to decide.
        let boot = self.boot;
        self.retain_parked(|origin| origin.boot != boot || origin.connection != 0);
    }

    fn retain_parked(&mut self, is_kept: impl Fn(Origin) -> bool) {
        self.parked.retain(|command| Origin::of(command).is_none_or(&is_kept));
        let parked: usize = self.parked.iter().map(Vec::len).sum();
        self.bytes = parked + self.sent.iter().map(Bytes::len).sum::<usize>();
    }

    /// An entry of this term was applied. Those sent before and still not applied are to be sent anew,
    /// ahead of all others, where their clients are still there. Of a client that is not, nothing is
    /// sent any more: a later one of its commands must not be done without those before.
    pub(super) fn reached(&mut self, term: u64, is_there: impl Fn(ConnectionId) -> bool) {
        if self.broken_ms.is_none() || term <= self.term {
            return;
        }
        self.broken_ms = None;
        while let Some(command) = self.sent.pop_back() {
            match self.client(&command) {
                Some(client) if is_there(client) => self.parked.push_front(command.into()),
                _ => self.bytes -= command.len(),
            }
        }
        self.forget_those_gone(is_there);
    }

    /// What waits of clients that are not there is not sent.
    pub(super) fn forget_those_gone(&mut self, is_there: impl Fn(ConnectionId) -> bool) {
        let boot = self.boot;
        self.retain_parked(|origin| {
            origin.boot != boot || origin.connection == 0 || is_there(origin.connection)
        });
    }

    /// Whether for so long it is not known what the leader of this term, who still leads, has of it.
    pub(super) fn is_unclear(&self, term: u64, now_ms: u64, limit_ms: u64) -> bool {
        self.broken_ms.is_some_and(|since_ms| term == self.term && now_ms >= since_ms + limit_ms)
    }

    /// What was sent may have been done or not, and nobody will know; returns whose it was. Once they
    /// are cut off, [`Self::forget_those_gone`] is due.
    pub(super) fn give_up(&mut self) -> BTreeSet<ConnectionId> {
        let sent = std::mem::take(&mut self.sent);
        self.bytes -= sent.iter().map(Bytes::len).sum::<usize>();
        self.broken_ms = None;
        sent.iter().filter_map(|command| self.client(command)).collect()
    }

    /// Keeps within bounds: those who wait are bounded themselves, so what is beyond that is of clients
    /// that are gone.
    pub(super) fn purge(&mut self, is_there: impl Fn(ConnectionId) -> bool) {
        if self.bytes <= BYTES_MAX.max(2 * self.purged_bytes) {
            return;
        }
        self.forget_those_gone(is_there);
        self.purged_bytes = self.bytes;
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.parked.len(), self.sent.len())
    }
}

#[cfg(test)]
mod tests {
    use elkfk_wire::jute::SessionId;

    use super::*;
    use crate::machine::{Action, Command};

    const BOOT: u64 = 7;

    fn command(boot: u64, connection: u64, xid: i32) -> Vec<u8> {
        let action = Action::CreateSession { timeout_ms: xid, server: 1 };
        let origin = Origin { boot, connection };
        Command { time_ms: 1, origin, session: SessionId(1), action }.encode()
    }

    /// The commands that can be sent now, sent in this term.
    fn send_all(outbox: &mut Outbox, term: u64) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(command) = outbox.next() {
            outbox.sent(&command.clone().into(), term);
            all.push(command);
        }
        all
    }

    /// Three commands of three clients, sent in term 2, of which the first was applied; then the way
    /// broke, and a fourth came.
    fn broken() -> Outbox {
        let mut outbox = Outbox::new(BOOT);
        outbox.park((1..=3).map(|client| command(BOOT, client, 0)).collect());
        assert_eq!(send_all(&mut outbox, 2).len(), 3);
        let mut stamped = command(BOOT, 1, 0);
        Command::stamp(&mut stamped, 99);
        outbox.applied(&stamped);
        outbox.break_lane(1000);
        outbox.park(vec![command(BOOT, 4, 0)]);
        outbox
    }

    #[test]
    fn what_is_left_is_sent_anew_in_its_order_in_a_newer_term_only() {
        let mut outbox = broken();
        outbox.reached(2, |_| true);
        assert_eq!(outbox.next(), None, "the old leader may have it");
        outbox.reached(3, |_| true);
        assert_eq!(send_all(&mut outbox, 3), [2, 3, 4].map(|client| command(BOOT, client, 0)));
        (2..=4).for_each(|client| outbox.applied(&command(BOOT, client, 0)));
        assert_eq!((outbox.len(), outbox.bytes), ((0, 0), 0));
    }

    #[test]
    fn what_is_applied_meanwhile_is_not_sent_anew() {
        let mut outbox = broken();
        outbox.applied(&command(BOOT, 2, 0));
        // Another server's, and a second one of the same client.
        outbox.applied(&command(BOOT + 1, 3, 0));
        outbox.applied(&command(BOOT, 3, 5));
        outbox.reached(3, |_| true);
        assert_eq!(send_all(&mut outbox, 3), [3, 4].map(|client| command(BOOT, client, 0)));
    }

    #[test]
    fn what_nobody_waits_for_is_not_sent_anew() {
        let mut outbox = broken();
        outbox.park(vec![command(BOOT, 2, 1)]);
        outbox.reached(3, |client| client != 2);
        assert_eq!(send_all(&mut outbox, 3), [3, 4].map(|client| command(BOOT, client, 0)));
    }

    #[test]
    fn what_a_leader_decided_is_left_to_the_next() {
        let mut outbox = Outbox::new(BOOT);
        let other = command(0, 0, 0);
        outbox.park(vec![command(BOOT, 0, 0), other.clone(), command(BOOT, 1, 0)]);
        outbox.break_lane(1000);
        assert_eq!(send_all(&mut outbox, 2), [other, command(BOOT, 1, 0)]);
        // Nobody waits for those without a client, so they are not remembered.
        assert_eq!(outbox.len(), (0, 1));
    }

    #[test]
    fn what_the_same_leader_may_have_is_given_up_after_a_while() {
        let mut outbox = broken();
        assert!(!outbox.is_unclear(2, 1299, 300));
        assert!(!outbox.is_unclear(3, 1300, 300), "another leads");
        assert!(outbox.is_unclear(2, 1300, 300));
        outbox.park(vec![command(BOOT, 3, 1)]);
        assert_eq!(outbox.give_up(), BTreeSet::from([2, 3]));
        outbox.forget_those_gone(|client| client == 4);
        assert_eq!(send_all(&mut outbox, 2), [command(BOOT, 4, 0)], "not the later one of 3 alone");
    }

    #[test]
    fn clients_that_are_gone_take_no_room_for_ever() {
        let mut outbox = broken();
        for client in 5..5000 {
            outbox.park(vec![command(BOOT, client, 0)]);
            outbox.purge(|there| there + 10 > client);
            assert!(outbox.bytes < BYTES_MAX + 100, "{} bytes", outbox.bytes);
        }
        let (parked, sent) = outbox.len();
        assert!(parked >= 9 && sent == 2);
    }
}
