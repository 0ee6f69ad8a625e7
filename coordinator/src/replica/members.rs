//! Who is in the ensemble, and whether this server is a full member of it.

use tracing::{error, info};

use super::{Hello, LogWork, NEW_ENSEMBLE_AFTER_MS, OBJECTIONS_MAX, PeerMessage, Replica};
use crate::consensus::{Consensus, Message};
use crate::ensemble::within_reach;
use crate::machine::{Action, Command, Ensemble, Origin};
use crate::wal::LogEntry;
use elkfk_wire::jute::SessionId;

impl<C: Consensus> Replica<C> {
    /// Between equal logs the larger id wins, as ZooKeeper's election has it. One that objects and
    /// then does not win must not object for ever.
    pub(super) fn is_better_than(&self, candidate: &Message) -> bool {
        self.following.0.is_none()
            && self.objections < OBJECTIONS_MAX
            && !self.is_joining
            && !self.service.is_refusing()
            && self.consensus.outranks(candidate)
    }

    pub(super) fn hello(&self) -> Hello {
        Hello {
            is_empty: self.has_empty_log,
            is_joining: self.is_joining,
            ensemble: self.service.machine.ensemble_id(),
            term: self.consensus.term(),
            last_index: self.consensus.last_index(),
        }
    }

    pub(super) fn send_hello(&mut self) {
        let hello = PeerMessage::Hello(self.hello());
        let up: Vec<_> =
            self.peers.iter().filter(|(_, peer)| peer.is_up).map(|(id, _)| *id).collect();
        for id in up {
            self.send(id, hello.clone());
        }
    }

    pub(super) fn take_hello(&mut self, from: u64, hello: Hello) {
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.hello = Some(hello);
            peer.ensemble = hello.ensemble;
        }
        if self.is_foreign(from) {
            return self.meet_foreigner(from);
        }
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.term = Some(hello.term);
        }
        self.consensus.ends_at(from, hello.last_index);
        if self.is_joining && self.knows_the_term() {
            let newest = self.peers.values().filter_map(|peer| peer.term).max();
            self.consensus.raise_term(newest.unwrap_or(0));
        }
        self.begin_ensemble();
    }

    /// Whether this server has a history that is not ours: nothing it says fits in.
    pub(super) fn is_foreign(&self, id: u64) -> bool {
        let ours = self.service.machine.ensemble_id();
        let theirs = self.peers.get(&id).map_or(0, |peer| peer.ensemble);
        ours != 0 && theirs != 0 && ours != theirs
    }

    /// This server has come to belong to an ensemble, or to another one: the others are to know, and
    /// what they have told may be another history.
    pub(super) fn tell_ensemble(&mut self) {
        let ensemble = self.service.machine.ensemble_id();
        if ensemble == self.told_ensemble {
            return;
        }
        self.told_ensemble = ensemble;
        self.send_hello();
        let foreign: Vec<_> =
            self.peers.keys().copied().filter(|id| self.is_foreign(*id)).collect();
        for id in foreign {
            self.meet_foreigner(id);
        }
    }

    /// The majority is the ensemble; who is not of it cannot go on.
    fn meet_foreigner(&mut self, id: u64) {
        error!(
            server = id,
            "server belongs to another ensemble: it has a history of its own, and is not listened to"
        );
        let members = self.consensus.members();
        let foreign: Vec<_> =
            members.voters.iter().copied().filter(|id| self.is_foreign(*id)).collect();
        if foreign.len() >= members.quorum() {
            self.work.failure = Some(format!(
                "servers {foreign:?} have begun another ensemble, with a history of their own, while this server was away: \
                 where theirs is the right one, move dataDir of this server away and start it again, it is then copied \
                 from them; where this server's is, move theirs away and start all of them"
            ));
        }
    }

    /// Whether nobody can have promised anything yet.
    pub(super) fn begin_ensemble(&mut self) {
        if !self.is_joining || !self.has_empty_log {
            return;
        }
        let members = self.consensus.members();
        let heard = (self.peers.iter())
            .filter(|(id, _)| members.voters.contains(id))
            .filter_map(|(_, peer)| peer.hello);
        let (empty, others): (Vec<_>, Vec<_>) = heard.partition(|hello| hello.is_empty);
        let is_patient = self.now.steady_ms < self.started_ms + NEW_ENSEMBLE_AFTER_MS;
        let needed = if is_patient { members.voters.len() } else { members.quorum() };
        if others.is_empty() && empty.len() + 1 >= needed {
            info!(
                servers = empty.len() + 1,
                "a new ensemble begins: the logs of its servers are empty"
            );
            self.join();
        }
    }

    /// Whether one of those heard from must know of whatever this server has promised.
    pub(super) fn knows_the_term(&self) -> bool {
        let members = self.consensus.members();
        let heard = self
            .peers
            .iter()
            .filter(|(id, peer)| members.voters.contains(id) && peer.term.is_some());
        heard.count() > members.voters.len() - members.quorum()
    }

    pub(super) fn join(&mut self) {
        self.is_joining = false;
        self.work.log.push(LogWork::Joined);
        self.send_hello();
    }

    pub(super) fn members_changed(&mut self, entry: &LogEntry) {
        let members = self.consensus.members_changed(&entry.data);
        let (voters, observers) = (&members.voters, &members.learners);
        info!(?voters, ?observers, "the ensemble has other members");
        self.service.apply_members(entry.term, entry.index, members);
        self.meet_members();
    }

    /// From now on there are connections to those who are members now.
    pub(super) fn meet_members(&mut self) {
        let members = self.consensus.members();
        self.peers.retain(|id, _| members.voters.contains(id) || members.learners.contains(id));
        for id in members.others(self.terms.id) {
            self.peers.entry(id).or_default();
        }
        if let Some(ensemble) = self.service.machine.ensemble() {
            self.servers = within_reach(ensemble.servers.clone(), &self.servers, &members);
            self.work.servers = Some(self.servers.clone());
        }
    }

    /// A leader sees to it that the members are those that `/zookeeper/config` lists.
    pub(super) fn follow_config(&mut self) {
        if !self.service.is_leading() || self.is_alone() {
            return;
        }
        let Some(ensemble) = self.service.machine.ensemble() else {
            return self.list_servers();
        };
        if ensemble.version == 0 && ensemble.servers != self.terms.servers {
            return self.list_servers();
        }
        let (members, wanted) = (self.consensus.members(), ensemble.members());
        if members == wanted {
            return;
        }
        let is_own_end = members.others(self.terms.id).eq(wanted.others(self.terms.id));
        if is_own_end && !wanted.voters.contains(&self.terms.id) {
            // Whoever leads next removes this server.
            self.hand_over();
        } else {
            let _ = self.consensus.propose_members(&wanted);
        }
    }

    pub(super) fn list_servers(&mut self) {
        let servers = Ensemble::text(&self.terms.servers, 0).into();
        let (origin, session) = (Origin::default(), SessionId(0));
        let action = Action::Ensemble { servers };
        let command = Command { time_ms: self.now.wall_ms, origin, session, action };
        let _ = self.consensus.propose(command.encode().into());
    }

    /// Who has asked for a change of the ensemble is answered when the agreement has followed.
    pub(super) fn answer_reconfigs(&mut self) {
        if self.service.has_reconfigs()
            && let Some(ensemble) = self.service.machine.ensemble()
            && ensemble.members() == self.consensus.members()
        {
            self.service.reconfigured();
        }
    }
}
