//! What strangers do is told in the log, but they must not fill it.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

/// So many complaints are logged in this time; the rest is counted.
const TOLD_MAX: u32 = 20;
const WINDOW: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<Option<Window>>);

#[derive(Debug)]
struct Window {
    begun: Instant,
    told: u32,
    untold: u64,
}

impl Complaints {
    /// Whether one more is to be logged at `now`. Says how many were not, once there is time for it.
    pub(super) fn may_tell(&self, now: Instant) -> bool {
        let mut window = self.0.lock().expect("no panic while held");
        let is_over = window.as_ref().is_none_or(|window| now >= window.begun + WINDOW);
        if is_over {
            let before = window.replace(Window { begun: now, told: 0, untold: 0 });
            if let Some(connections) = before.map(|window| window.untold).filter(|count| *count > 0)
            {
                warn!(connections, "more were refused than are told here one by one");
            }
        }
        let Some(window) = window.as_mut() else { return true };
        let may = window.told < TOLD_MAX;
        match may {
            true => window.told += 1,
            false => window.untold += 1,
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_a_second_are_told() {
        let (complaints, begun) = (Complaints::default(), Instant::now());
        let told = |after_ms| {
            let now = begun + Duration::from_millis(after_ms);
            (0..100).filter(|_| complaints.may_tell(now)).count()
        };
        assert_eq!((told(0), told(900), told(1000), told(5000)), (20, 0, 20, 20));
    }
}
