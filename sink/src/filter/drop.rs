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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Timestamp;
    use crate::pipeline::{Outcome, Pipeline};

    /// How many of a thousand events are dropped.
    fn dropped(filters: &str) -> usize {
        let text = format!("filter {{ {filters} }}");
        let pipeline = Pipeline::parse("a.conf", &text, &|_| None).unwrap();
        let mut context = Context::default();
        let mut is_dropped = |n: usize| {
            let event = Event::from_message(&format!("{n}"), Timestamp::default());
            matches!(pipeline.filter(event, &mut context), Outcome::Drop)
        };
        (0..1000).filter(|n| is_dropped(*n)).count()
    }

    #[test]
    fn events_are_dropped_all_or_by_their_share() {
        assert_eq!(dropped("drop {}"), 1000);
        assert_eq!(dropped("drop { percentage => 0 }"), 0);
        assert_eq!(dropped("if [message] == \"7\" { drop {} }"), 1);
        // Ten standard deviations to both sides.
        let half = dropped("drop { percentage => 50 }");
        assert!((342..658).contains(&half), "{half} of 1000");
    }
}
