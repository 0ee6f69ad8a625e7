//! Contact with the leader: what this server is known to have, and until when its clients may stay.

use tracing::{info, warn};

use super::{ANSWER_LIMIT_MS, CONTACT_INTERVAL_MS, QUESTIONS_MAX, Question, Replica};
use crate::consensus::Consensus;

impl<C: Consensus> Replica<C> {
    pub(super) fn send_away_in_time(&mut self) {
        let silent_ms = self.now.steady_ms.saturating_sub(self.contact_ms);
        if silent_ms > self.terms.contact_limit_ms {
            warn!(silent_ms, "no contact with a leader: clients are sent away for now");
            self.service.stop_serving();
        } else if silent_ms > CONTACT_INTERVAL_MS + ANSWER_LIMIT_MS {
            self.service.send_away(silent_ms);
        }
    }

    pub(super) fn ask(&mut self) {
        if self.following.0.is_none() {
            // Asked as soon as there is one.
            return self.questions.clear();
        }
        if self.questions.len() == QUESTIONS_MAX {
            self.questions.pop_front();
        }
        let barrier = match self.questions.back() {
            // Nobody was promised more than that.
            Some(question) if !self.service.wants_barrier() => question.barrier,
            _ => self.service.ask_for_barrier(),
        };
        self.next_context += 1;
        let context = self.next_context;
        let asked_ms = self.now.steady_ms;
        self.questions.push_back(Question { context, asked_ms, barrier });
        self.consensus.read_index(context);
    }

    pub(super) fn take_answer(&mut self, context: u64, index: u64) {
        let place = self.questions.iter().position(|question| question.context == context);
        let Some(place) = place else { return };
        // Those asked before need no answer any more.
        self.answered =
            self.questions.drain(..=place).next_back().map(|question| (question, index));
    }

    pub(super) fn pass_barrier(&mut self) {
        if let Some((question, index)) = self.answered
            && self.service.machine.index() >= index
            && self.service.machine.has_secret()
        {
            self.answered = None;
            self.contact_ms = question.asked_ms;
            if self.is_joining {
                info!("everything that was committed is here: this server votes from now on");
                self.join();
            }
            if !self.service.is_serving() {
                let role = if self.consensus.is_leader() { "leader" } else { "follower" };
                info!(role, zxid = %self.service.machine.zxid(), "clients are served");
                self.service.start_serving();
            }
            self.service.barrier_passed(question.barrier);
        }
        if self.service.wants_barrier() && self.questions.is_empty() && self.answered.is_none() {
            self.ask();
        }
    }
}
