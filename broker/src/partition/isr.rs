//! How far a partition may be read.
//!
//! The high watermark is the first offset not yet held by every in-sync replica; consumers read
//! strictly below it. Pure state: no disk, no socket, no clock.

use std::collections::BTreeMap;

use elkfk_wire::kafka::records::Offset;

/// The number of a broker, `broker.id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

/// The leader's view of its in-sync replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InSyncReplicas {
    local: BrokerId,
    /// Log end (exclusive) of each member, the leader included. Never empty.
    ///
    /// That of the leader is what it holds as safely as it promises: what is synced, where
    /// appends are synced before they are acknowledged.
    log_ends: BTreeMap<BrokerId, Offset>,
    /// Invariant: never decreases while this leader leads.
    high_watermark: Offset,
}

impl InSyncReplicas {
    /// The view of a leader that has just become one; of its followers it knows nothing yet.
    pub fn new(
        local: BrokerId,
        log_end: Offset,
        followers: impl IntoIterator<Item = BrokerId>,
        high_watermark: Offset,
    ) -> Self {
        let mut log_ends: BTreeMap<_, _> =
            followers.into_iter().map(|follower| (follower, Offset::ZERO)).collect();
        log_ends.insert(local, log_end);
        let mut isr = Self { local, log_ends, high_watermark };
        isr.advance();
        isr
    }

    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    pub fn len(&self) -> usize {
        self.log_ends.len()
    }

    /// Never true: the leader is in sync with itself.
    pub fn is_empty(&self) -> bool {
        self.log_ends.is_empty()
    }

    pub fn members(&self) -> impl Iterator<Item = BrokerId> + '_ {
        self.log_ends.keys().copied()
    }

    /// Records that the leader itself holds everything below `log_end`.
    ///
    /// Returns the high watermark if it rose.
    pub fn on_local_end(&mut self, log_end: Offset) -> Option<Offset> {
        self.log_ends.insert(self.local, log_end);
        self.advance()
    }

    /// Records that `follower` holds everything below `log_end`.
    ///
    /// Returns the high watermark if it rose, so that waiting fetches can be woken.
    pub fn on_follower_fetch(&mut self, follower: BrokerId, log_end: Offset) -> Option<Offset> {
        *self.log_ends.get_mut(&follower)? = log_end;
        self.advance()
    }

    /// Replaces the followers in sync, as the controller agreed; known ends are kept.
    ///
    /// Returns the high watermark if it rose: one slow follower less may be all it waited for.
    pub fn set_followers(
        &mut self,
        followers: impl IntoIterator<Item = (BrokerId, Offset)>,
    ) -> Option<Offset> {
        let local = self.log_ends[&self.local];
        let known = std::mem::take(&mut self.log_ends);
        for (follower, log_end) in followers {
            let log_end = known.get(&follower).copied().unwrap_or(log_end);
            self.log_ends.insert(follower, log_end);
        }
        self.log_ends.insert(self.local, local);
        self.advance()
    }

    fn advance(&mut self) -> Option<Offset> {
        let committed = self.log_ends.values().copied().min()?;
        // A follower that came back with a truncated log must not pull the watermark down:
        // consumers have already read up to it.
        if committed <= self.high_watermark {
            return None;
        }
        self.high_watermark = committed;
        Some(committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: BrokerId = BrokerId(1);
    const FOLLOWER: BrokerId = BrokerId(2);

    #[test]
    fn alone_the_leader_commits_by_itself() {
        let mut isr = InSyncReplicas::new(LOCAL, Offset(5), [], Offset(3));
        assert_eq!(isr.high_watermark(), Offset(5));
        assert_eq!(isr.on_local_end(Offset(9)), Some(Offset(9)));
    }

    #[test]
    fn the_slowest_member_sets_the_high_watermark() {
        let mut isr = InSyncReplicas::new(LOCAL, Offset(10), [FOLLOWER], Offset(3));
        assert_eq!(isr.high_watermark(), Offset(3));
        assert_eq!(isr.on_follower_fetch(FOLLOWER, Offset(7)), Some(Offset(7)));
        assert_eq!(isr.on_local_end(Offset(20)), None);
        assert_eq!(isr.on_follower_fetch(BrokerId(3), Offset(20)), None);
        assert_eq!(isr.set_followers([]), Some(Offset(20)));
    }

    #[test]
    fn rejoining_follower_never_lowers_high_watermark() {
        let mut isr = InSyncReplicas::new(LOCAL, Offset(10), [FOLLOWER], Offset(0));
        isr.on_follower_fetch(FOLLOWER, Offset(10));
        assert_eq!(isr.on_follower_fetch(FOLLOWER, Offset(2)), None);
        assert_eq!(isr.high_watermark(), Offset(10));
    }
}
