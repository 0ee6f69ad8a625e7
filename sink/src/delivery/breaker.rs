//! Keeps a lane or a node from being tried while it is known to refuse.

use std::time::Instant;

use super::backoff::Backoff;

/// Closed: all may pass. Open: none until the wait is over, then one; its answer closes or opens.
#[derive(Debug)]
pub struct Breaker {
    backoff: Backoff,
    failures: u32,
    open_until: Option<Instant>,
    is_probing: bool,
}

impl Breaker {
    pub fn new(backoff: Backoff) -> Self {
        Self { backoff, failures: 0, open_until: None, is_probing: false }
    }

    pub fn is_closed(&self) -> bool {
        self.open_until.is_none()
    }

    /// Whether a request may pass now.
    pub fn allows(&self, now: Instant) -> bool {
        self.open_until.is_none_or(|until| now >= until && !self.is_probing)
    }

    /// When the next probe is due, where one is waited for.
    pub fn due(&self) -> Option<Instant> {
        self.open_until.filter(|_| !self.is_probing)
    }

    pub fn on_sent(&mut self) {
        self.is_probing = self.open_until.is_some();
    }

    /// The probe came back without a word on what this breaker stands for: the next may probe.
    pub fn on_unanswered(&mut self) {
        self.is_probing = false;
    }

    /// Returns whether this closed an open breaker.
    pub fn on_success(&mut self) -> bool {
        self.failures = 0;
        self.is_probing = false;
        self.open_until.take().is_some()
    }

    /// Returns whether this opened a closed breaker. While it is open, answers to requests from
    /// before do not lengthen the wait: only the probe's does.
    pub fn on_failure(&mut self, now: Instant, chance: f64) -> bool {
        let was_closed = self.open_until.is_none();
        if was_closed || self.is_probing {
            self.failures += 1;
            self.is_probing = false;
            self.open_until = Some(now + self.backoff.after(self.failures, chance));
        }
        was_closed
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_probe_after_the_wait_decides() {
        let backoff = Backoff { first: Duration::from_secs(1), longest: Duration::from_secs(4) };
        let (mut breaker, now) = (Breaker::new(backoff), Instant::now());
        assert!(breaker.allows(now));
        assert!(breaker.on_failure(now, 1.0));
        assert!(!breaker.on_failure(now, 1.0), "the wait is not lengthened by stragglers");
        assert!(!breaker.allows(now + Duration::from_millis(999)));
        let later = now + Duration::from_secs(1);
        assert!(breaker.allows(later));
        breaker.on_sent();
        assert!(!breaker.allows(later), "one probe at a time");
        assert!(!breaker.on_failure(later, 1.0));
        assert_eq!(breaker.due(), Some(later + Duration::from_secs(2)));
        breaker.on_sent();
        assert!(breaker.on_success());
        assert!(breaker.allows(later) && breaker.is_closed());
    }
}
