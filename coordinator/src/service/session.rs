//! Which sessions are alive.
//!
//! The log knows that a session is; only the server its client talks to knows that it lives, and
//! tells the leader, who decides. A new leader has heard of none yet, so each gets its whole timeout
//! anew.

use elkfk_wire::jute::SessionId;
use tracing::{info, warn};

use super::Service;
use crate::machine::{Action, Origin};

/// When something was heard of a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) last_ms: u64,
    pub(super) timeout_ms: i32,
    /// Its end is on its way through the log.
    pub(super) is_closing: bool,
}

/// A gap this long between two ticks was a pause of this process or its machine. What clients sent
/// meanwhile waits in the sockets, so the gap is not held against them.
const PAUSE_MS: u64 = 1000;

impl Service {
    /// From now on each has its whole timeout.
    pub(crate) fn hear_of_all(&mut self) {
        let last_ms = self.now.steady_ms;
        let heard = |timeout_ms| Heard { last_ms, timeout_ms, is_closing: false };
        self.heard =
            self.machine.sessions().map(|(id, session)| (id, heard(session.timeout_ms))).collect();
    }

    pub(super) fn hear_of(&mut self, session: SessionId) {
        if !self.is_leading && session != SessionId(0) {
            self.touched.insert(session);
        }
        if let Some(heard) = self.heard.get_mut(&session) {
            heard.last_ms = self.now.steady_ms;
        }
    }

    pub(super) fn start_hearing(&mut self, session: SessionId, timeout_ms: i32) {
        let last_ms = self.now.steady_ms;
        self.heard.insert(session, Heard { last_ms, timeout_ms, is_closing: false });
    }

    pub(super) fn expire_sessions(&mut self) {
        let now_ms = self.now.steady_ms;
        let gap_ms = now_ms.saturating_sub(self.report.last_tick_ms);
        if self.report.last_tick_ms > 0 && gap_ms > PAUSE_MS {
            warn!(gap_ms, "this process was paused, sessions get that time back");
            for heard in self.heard.values_mut() {
                heard.last_ms = (heard.last_ms + gap_ms).min(now_ms);
            }
        }
        self.report.last_tick_ms = now_ms;
        if self.is_refusing() || !self.is_leading {
            return;
        }
        let mut over = Vec::new();
        for (session, heard) in &mut self.heard {
            let silent_ms = now_ms.saturating_sub(heard.last_ms);
            if !heard.is_closing && silent_ms > heard.timeout_ms.unsigned_abs().into() {
                heard.is_closing = true;
                over.push((*session, heard.timeout_ms));
            }
        }
        for (session, timeout_ms) in over {
            info!(%session, timeout_ms, "session expired");
            let action = Action::CloseSession { is_expiry: true };
            self.propose(Origin { boot: self.boot, connection: 0 }, session, action);
        }
    }
}
