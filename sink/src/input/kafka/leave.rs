//! How a consumer leaves its group: in its turn, with what it has read acknowledged and committed, and
//! by word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use tracing::debug;

use super::{Connected, DRAIN_PATIENCE, POLL};
use crate::delivery::acks::Epoch;

/// As long for a stop, which is to take less than five seconds in all; what is not acknowledged by
/// then is read again after the next start.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// How long a consumer whose turn it is to leave reads on until the group has settled, see
/// [`Connected::leaves_now`]; then it leaves all the same.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
/// It asks this often, and waits so long for an answer.
const SETTLE_LOOK: Duration = Duration::from_millis(250);
const SETTLE_ANSWER: Duration = Duration::from_secs(1);
/// Without a rebalance for so long after it was, it has.
const SETTLE_QUIET: Duration = Duration::from_millis(100);
/// How long a consumer waits for its group to say that it has left; less while the sink stops.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
const LEAVE_PATIENCE_STOPPING: Duration = Duration::from_millis(500);
/// It looks this often.
const LEAVE_LOOK: Duration = Duration::from_millis(20);
/// A coordinator that moves refuses a commit for a moment.
const LAST_COMMITS_MAX: u32 = 3;

/// One consumer leaves a group at a time.
#[derive(Debug, Default)]
pub struct Turn {
    is_taken: AtomicBool,
}

/// Holds the turn until dropped.
#[derive(Debug)]
pub(super) struct Taken(Arc<Turn>);

impl Turn {
    fn take(self: &Arc<Self>) -> Option<Taken> {
        (!self.is_taken.swap(true, Relaxed)).then(|| Taken(self.clone()))
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Relaxed);
    }
}

impl Connected {
    /// Whether to leave the group now.
    ///
    /// Who leaves while a round of the group is under way is not heard before it ends: a broker reads
    /// nothing further from a connection while a JoinGroup waits on it. librdkafka gives up after
    /// five seconds, and of a member that has only just been given its id it says nothing at all.
    /// The group would wait for the gone one until its session ends. So consumers leave one after
    /// the other, and each reads on until no round is under way; a stop of the sink has no time for
    /// that.
    pub(super) fn leaves_now(&mut self) -> bool {
        if !self.reader.leave.is_cancelled() {
            return false;
        }
        if self.reader.stop.is_cancelled() {
            return true;
        }
        let now = Instant::now();
        if now < self.next_look {
            return false;
        }
        self.next_look = now + SETTLE_LOOK;
        if self.turn.is_none() {
            self.turn = self.reader.turn.take().map(|taken| (taken, now));
        }
        let Some((_, since)) = &self.turn else { return false };
        now >= *since + SETTLE_PATIENCE || self.is_settled()
    }

    /// Whether this consumer has its place in the group, and nobody's is being changed.
    fn is_settled(&self) -> bool {
        if self.consumer.context().rebalances.load(Relaxed) == 0 {
            return false;
        }
        self.group_state().is_some_and(|(state, _)| state == "Stable")
    }

    /// What the group's coordinator says of it: its state, and the `client_id` of each member.
    fn group_state(&self) -> Option<(String, Vec<String>)> {
        let name = &self.reader.options.group;
        match self.consumer.fetch_group_list(Some(name), SETTLE_ANSWER) {
            Ok(list) => {
                let group = list.groups().iter().find(|group| group.name() == name)?;
                let members = group.members().iter().map(|member| member.client_id().to_owned());
                Some((group.state().to_owned(), members.collect()))
            }
            Err(error) => {
                debug!(%error, "the group's state is not known");
                None
            }
        }
    }

    /// Waits for what is under way, polling on, and commits.
    pub(super) fn drain(mut self) {
        self.open.clear();
        self.set_paused(true);
        let mut deadline = Instant::now() + DRAIN_PATIENCE;
        let mut is_stopping = false;
        while !self.reader.meters.is_away.load(Relaxed) {
            if !is_stopping && self.reader.stop.is_cancelled() {
                is_stopping = true;
                deadline = deadline.min(Instant::now() + STOP_PATIENCE);
            }
            if Instant::now() >= deadline {
                break;
            }
            let epochs: Vec<Epoch> = self.consumer.context().assignment().into_values().collect();
            let acks = self.reader.acks.lock().expect("no holder of this lock panics");
            if epochs.iter().all(|epoch| acks.in_flight(*epoch) == 0) {
                break;
            }
            drop(acks);
            self.poll_away(Duration::from_millis(5));
        }
        // A round may have begun meanwhile, or its result may wait to be served: closed before it
        // is, librdkafka leaves without a word to us, or hangs.
        while !self.reader.stop.is_cancelled() && Instant::now() < deadline {
            let rounds = self.consumer.context().rebalances.load(Relaxed);
            let is_settled = self.is_settled();
            let quiet = Instant::now() + SETTLE_QUIET;
            while let Some(left) = quiet.checked_duration_since(Instant::now()) {
                self.poll_away(left);
            }
            if is_settled && rounds == self.consumer.context().rebalances.load(Relaxed) {
                break;
            }
        }
        // Whatever becomes of the partitions from here on, they have waited.
        self.consumer.context().hurry.cancel();
        for _ in 0..LAST_COMMITS_MAX {
            if self.commit_last() {
                break;
            }
            self.poll_away(POLL);
        }
        self.leave_group();
    }

    /// Leaves the group by word, so that others need not wait for its session to end; unless it has a
    /// `group_instance_id`: then the group waits for it to come back.
    ///
    /// The consumer's own end is not enough: where partitions are given away one by one (cooperative), a
    /// consumer that has none at that moment is closed without a word to the group (librdkafka 2.12), which
    /// then stands in `PreparingRebalance` with the next who comes, on every broker. Without a subscription
    /// it says so, and its end waits for the answer.
    fn leave_group(&mut self) {
        if self.reader.options.instance_id_of(self.reader.consumer).is_some() {
            return;
        }
        // A stop has no time to ask: while no round is under way there is no need to.
        let before = match self.reader.stop.is_cancelled() {
            true => None,
            false => self.namesakes(),
        };
        self.consumer.unsubscribe();
        // In the middle of a round librdkafka only takes note of the wish: it is served after it.
        let begun = Instant::now();
        loop {
            self.poll_away(LEAVE_LOOK);
            let is_stopping = self.reader.stop.is_cancelled();
            let has_left = match before {
                Some(before) if !is_stopping => {
                    self.namesakes().is_some_and(|now| now < before.max(1))
                }
                _ => self.consumer.context().assignment().is_empty(),
            };
            let patience = if is_stopping { LEAVE_PATIENCE_STOPPING } else { LEAVE_PATIENCE };
            if has_left || begun.elapsed() >= patience {
                break;
            }
        }
    }

    /// Members of the group with this consumer's `client_id`, others than itself perhaps among them.
    fn namesakes(&self) -> Option<usize> {
        let client_id = self.reader.options.client_id_of(self.reader.consumer);
        let members = self.group_state()?.1;
        Some(members.iter().filter(|member| **member == client_id).count())
    }
}
