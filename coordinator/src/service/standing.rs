//! Whether this server may serve, and what it knows of the others: told by the core around it.

use std::collections::BTreeSet;

use super::{Connection, ConnectionId, Service};
use crate::machine::Machine;
use elkfk_wire::jute::SessionId;

impl Service {
    pub(crate) fn is_serving(&self) -> bool {
        self.is_serving
    }

    pub(crate) fn is_leading(&self) -> bool {
        self.is_leading
    }

    /// From now on clients are taken.
    pub(crate) fn start_serving(&mut self) {
        self.is_serving = true;
    }

    /// What this server knows may be out of date: its clients are to look for another.
    pub(crate) fn stop_serving(&mut self) {
        self.is_serving = false;
        self.close_those(|_, _| true);
    }

    /// This server has been without a leader for so long: those whose sessions could be over for the
    /// others before long are to look for another server. That is after half a timeout, as the
    /// leader may have heard nothing of a client for a third of it before, between two pings.
    pub(crate) fn send_away(&mut self, silent_ms: u64) {
        self.close_those(|_, connection| {
            let timeout_ms = u64::from(connection.report.timeout_ms.unsigned_abs());
            connection.session != SessionId(0) && silent_ms > timeout_ms / 2
        });
    }

    /// What these have asked may be in the log or not: to be cut off says just that.
    pub(crate) fn cut_off(&mut self, those: &BTreeSet<ConnectionId>) {
        self.close_those(|id, _| those.contains(&id));
    }

    /// Whether somebody waits for answers on this connection.
    pub(crate) fn is_connected(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(|connection| !connection.is_last)
    }

    fn close_those(&mut self, is_concerned: impl Fn(ConnectionId, &Connection) -> bool) {
        let mut concerned: Vec<_> = (self.connections.iter())
            .filter(|(id, connection)| !connection.is_last && is_concerned(**id, connection))
            .map(|(id, _)| *id)
            .collect();
        // In the same order in every run of a simulation.
        concerned.sort_unstable();
        for id in concerned {
            self.close(id);
        }
    }

    /// The state of another server takes the place of this one's. Watchers have missed what lies
    /// between; their clients come back and ask again.
    pub(crate) fn install(&mut self, machine: Machine) {
        self.stop_serving();
        self.machine = machine;
        self.hear_of_all();
    }

    /// From now on this server decides which sessions are over, or no longer.
    pub(crate) fn set_leading(&mut self, is_leading: bool) {
        if is_leading && !self.is_leading {
            // Nothing is known of what others have heard.
            self.hear_of_all();
        }
        self.is_leading = is_leading;
    }

    /// What the leader was told of sessions may be lost: those whose clients are here count again.
    pub(crate) fn touch_attached(&mut self) {
        if !self.is_leading {
            self.touched.extend(self.attached.keys().copied());
        }
    }

    /// Sessions the leader is to be told of.
    pub(crate) fn take_touched(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.touched).into_iter().collect()
    }

    /// Another server has heard of these.
    pub(crate) fn touch(&mut self, sessions: &[SessionId]) {
        sessions.iter().for_each(|session| self.hear_of(*session));
    }

    /// Whether changes of the ensemble wait for the agreement to follow.
    pub(crate) fn has_reconfigs(&self) -> bool {
        !self.reconfigs.is_empty()
    }

    /// The members are those that `/zookeeper/config` lists.
    pub(crate) fn reconfigured(&mut self) {
        for (id, answer) in std::mem::take(&mut self.reconfigs) {
            self.answer_write(id, Ok(&answer));
        }
    }

    /// Whether reads wait for a barrier that nobody has asked for.
    pub(crate) fn wants_barrier(&self) -> bool {
        self.barriers.is_wanted
    }

    /// The number of the barrier that is asked for now.
    pub(crate) fn ask_for_barrier(&mut self) -> u64 {
        self.barriers.is_wanted = false;
        self.barriers.asked += 1;
        self.barriers.asked
    }

    /// This server has everything acknowledged before the barrier was asked for.
    pub(crate) fn barrier_passed(&mut self, barrier: u64) {
        self.barriers.passed = barrier;
        for id in std::mem::take(&mut self.barriers.waiting) {
            self.drain(id);
            self.take_held(id);
        }
    }
}
