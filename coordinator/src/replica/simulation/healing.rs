//! After the faults everything works again: it must come to rest, with nothing lost.

use super::checks::{COUNTER, own_path};
use super::clients::CLIENTS;
use super::*;

/// Everything must work again after this long without faults.
const HEALED_WITHIN_MS: u64 = 15_000;
/// And from then on for so long no session may end whose client is there.
const WATCHED_FOR_MS: u64 = 5000;

impl World {
    pub(super) fn heal(&mut self) {
        // Nor does anybody end a session.
        self.faults = Faults { is_calm: true, ..Faults::default() };
        self.cuts.clear();
        for id in self.ids() {
            self.disks[id as usize - 1].set_capacity(u64::MAX);
            match self.server(id) {
                Some(server) => (server.paused_until_ms, server.slow_until_ms) = (0, 0),
                None => self.start(id),
            }
        }
        for at in 0..CLIENTS {
            self.clients[at].silent_until_ms = 0;
        }
        self.work_until(self.now_ms + HEALED_WITHIN_MS);
        for (at, client) in self.clients.iter().enumerate() {
            assert!(client.is_live, "client {at} has no session\n{}", self.standing());
            assert!(
                client.is_created,
                "client {at} on {} has written nothing, waits for {:?}\n{}",
                client.server,
                client.outstanding,
                self.standing()
            );
        }
        let sessions: Vec<_> = self.clients.iter().map(|client| client.session).collect();
        let terms = self.checks.terms();
        self.work_until(self.now_ms + WATCHED_FOR_MS);
        let after: Vec<_> = self.clients.iter().map(|client| client.session).collect();
        assert_eq!(sessions, after, "sessions end without a reason");
        assert_eq!(terms, self.checks.terms(), "leaders change without a reason");
        self.settle();
        for (at, client) in self.clients.iter().enumerate() {
            let waiting = &client.outstanding;
            assert!(waiting.is_empty(), "client {at} waits for {waiting:?}\n{}", self.standing());
        }
        self.all_have_it_all();
    }

    fn all_have_it_all(&mut self) {
        let newest = self.checks.newest();
        for id in self.ids() {
            let server = self.server(id).expect("all were started");
            assert!(
                server.replica.service.is_serving(),
                "server {id} serves: {:?}",
                server.replica.standing()
            );
            assert!(!server.replica.is_joining(), "server {id} is a member");
            assert_eq!(server.replica.service.machine.index(), newest, "server {id} has it all");
        }
        let tree = &self.servers[0].as_ref().expect("it was started").replica.service.machine.tree;
        for (at, client) in self.clients.iter().enumerate() {
            let node = tree.get(&own_path(at)).expect("it was acknowledged");
            let value = u64::from_be_bytes(node.data().unwrap().try_into().unwrap());
            assert!((client.acknowledged..=client.sent).contains(&value), "client {at}: {value}");
        }
        let counter = tree.get(COUNTER).map_or(0, |node| node.version);
        assert!(self.wins.last().is_none_or(|last| *last <= counter), "the counter goes back");
    }

    pub(super) fn standing(&self) -> String {
        let servers = self.servers.iter().flatten();
        servers.map(|server| server.replica.standing()).collect::<Vec<_>>().join("\n")
    }

    /// Clients go on meanwhile.
    pub(super) fn work_until(&mut self, until_ms: u64) {
        while self.now_ms < until_ms {
            self.work_for_10_ms();
            if self.random.random_bool(0.3) {
                let at = self.random.random_range(0..CLIENTS);
                self.act(at);
            }
        }
    }

    /// Nobody asks for anything more, until everything is everywhere.
    fn settle(&mut self) {
        let until_ms = self.now_ms + 3000;
        while self.now_ms < until_ms {
            self.work_for_10_ms();
        }
    }

    fn work_for_10_ms(&mut self) {
        self.pass(10);
        for id in self.ids() {
            self.persist(id);
            let wants = |server: &mut Server| {
                server.snapshot.is_some() || server.replica.consensus.wants_snapshot()
            };
            if self.server(id).is_some_and(wants) {
                self.snapshot(id);
            }
        }
        for _ in 0..self.servers.len() * 6 {
            self.deliver();
        }
    }
}
