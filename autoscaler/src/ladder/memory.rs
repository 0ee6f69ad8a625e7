//! What outlives a step. All of it that a cooldown needs is a function of the events, so an instance
//! that takes over reads them and knows what the last one knew.

use super::event::{Action, Decision, Effect, Event, Verdict};
use super::parameters::Parameters;

#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Memory {
    /// The last step of workers or consumers, an expansion included.
    pub consumers_ms: Option<i64>,
    pub partitions_ms: Option<i64>,
    /// A step not yet judged.
    pub probe: Option<Probe>,
    pub no_gain_ms: Option<i64>,
    /// More parser threads did not help, so parsing is not what limits.
    pub is_parsing_acquitted: bool,
    pub consumer_capacity: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Probe {
    pub at_ms: i64,
    pub action: Action,
    pub consumed_before: f64,
}

impl Memory {
    /// Takes note of an event, as it is made or as it is read again.
    pub(super) fn take(&mut self, event: &Event) {
        match event {
            Event::Decision(decision) => self.on_decision(decision),
            Event::Effect(effect) => self.on_effect(effect),
        }
    }

    fn on_decision(&mut self, decision: &Decision) {
        if decision.inputs.consumer_capacity_per_s.is_some() {
            self.consumer_capacity = decision.inputs.consumer_capacity_per_s;
        }
        let Some(action) = decision.action else { return };
        self.consumers_ms = Some(decision.at_ms);
        if let Action::Partitions { .. } = action {
            self.partitions_ms = Some(decision.at_ms);
        }
        let consumed_before = decision.inputs.consumed_per_s;
        let probe = Probe { at_ms: decision.at_ms, action, consumed_before };
        self.probe = probe.action.expected_gain().is_some().then_some(probe);
    }

    fn on_effect(&mut self, effect: &Effect) {
        self.probe = self.probe.filter(|probe| probe.at_ms != effect.of_ms);
        match (effect.verdict, effect.action) {
            // It cost nobody a rebalance, so the next rung need not wait.
            (Verdict::NoGain, Action::Workers { .. }) => self.is_parsing_acquitted = true,
            (Verdict::NoGain, _) => self.no_gain_ms = Some(effect.at_ms),
            _ => {}
        }
    }

    /// Brings times from another machine's faster clock down to `now_ms`: a cooldown lasts at most once more.
    pub(super) fn no_later_than(&mut self, now_ms: i64) {
        for at in [&mut self.consumers_ms, &mut self.partitions_ms, &mut self.no_gain_ms] {
            *at = at.map(|at| at.min(now_ms));
        }
    }

    /// Seconds since a time in memory.
    pub(super) fn since_s(at_ms: Option<i64>, now_ms: i64) -> Option<f64> {
        Some(now_ms.saturating_sub(at_ms?).max(0) as f64 / 1000.0)
    }

    pub(super) fn pause_left_s(&self, now_ms: i64, parameters: &Parameters) -> f64 {
        Self::since_s(self.no_gain_ms, now_ms)
            .map_or(0.0, |since_s| (parameters.no_gain_pause_s - since_s).max(0.0))
    }
}

impl Action {
    /// What share of throughput a step up is to add, if what it adds is what limits. None: a step down.
    pub fn expected_gain(self) -> Option<f64> {
        let (from, to) = match self {
            Self::Workers { from, to } | Self::Consumers { from, to } => (from, to),
            Self::Partitions { consumers_from, consumers_to, .. } => (consumers_from, consumers_to),
        };
        (to > from).then(|| f64::from(to) / f64::from(from.max(1)) - 1.0)
    }
}
