//! Drops events, all or a share of them.

use rand::Rng;

use super::{Context, Filter, Verdict};
use crate::{config::Options, event::Event};

#[derive(Debug)]
pub(crate) struct Drop {
    /// Of 100 events, how many are dropped.
    percentage: f64,
}

impl Drop {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        Some(Self { percentage: options.number("percentage").unwrap_or(100.0) })
    }
}

impl Filter for Drop {
    fn apply(&self, _event: &mut Event, _context: &mut Context) -> Verdict {
        if self.percentage >= 100.0 || rand::rng().random::<f64>() * 100.0 < self.percentage {
            Verdict::Cancelled
        } else {
            Verdict::Unmatched
        }
    }
}
