//! How long to wait before trying again.

use std::time::Duration;

/// Doubles from `first` to `longest`; each wait is drawn between half and all of that, so that
/// many waiters do not come back at the same moment.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    pub first: Duration,
    pub longest: Duration,
}

impl Backoff {
    /// The wait after `failures` failures in a row (at least one); `chance` is in 0..1.
    pub fn after(self, failures: u32, chance: f64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        doubled.min(self.longest).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
    }
}

/// Chance from a seed (splitmix64): the same seed gives the same waits.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// Evenly spread over 0..1.
    pub fn draw(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff =
            Backoff { first: Duration::from_millis(250), longest: Duration::from_secs(30) };
        for (failures, full_ms) in [(1, 250), (2, 500), (3, 1000), (8, 30_000), (4000, 30_000)] {
            let full = Duration::from_millis(full_ms);
            assert_eq!(backoff.after(failures, 1.0), full);
            assert_eq!(backoff.after(failures, 0.0), full / 2);
        }
    }
}
