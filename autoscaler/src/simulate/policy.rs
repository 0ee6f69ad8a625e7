//! The ladder, and two policies that are common elsewhere.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::model::{Model, Step};
use crate::ladder::{Action, Event, Ladder, Parameters};

/// Records of lag from which the naive policy acts.
const NAIVE_LAG: f64 = 1e6;
/// KEDA's `lagThreshold`, for the rates of the scenarios, and the stabilisation window of the
/// horizontal autoscaler beneath it, in seconds.
const KEDA_LAG: f64 = 1e5;
const KEDA_DOWN_S: u32 = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Policy {
    /// Lag above a threshold: two more partitions, two more consumers.
    Naive,
    /// Consumers by lag, never above the partitions; down by the most asked for in five minutes.
    Keda,
    /// The real core.
    Ladder,
}

impl Policy {
    pub const ALL: [Self; 3] = [Self::Naive, Self::Keda, Self::Ladder];

    pub fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Keda => "keda",
            Self::Ladder => "ladder",
        }
    }

    pub(super) fn decider(self, parameters: &Parameters) -> Box<dyn Decide> {
        match self {
            Self::Naive => Box::new(Naive { parameters: parameters.clone() }),
            Self::Keda => {
                Box::new(Keda { parameters: parameters.clone(), wanted: VecDeque::new() })
            }
            Self::Ladder => Box::new(Ladder::new("sink", "logs", parameters.clone())),
        }
    }
}

/// Asked every interval.
pub(crate) trait Decide {
    fn decide(&mut self, model: &Model<'_>) -> (Vec<Event>, Option<Step>);
}

#[derive(Debug)]
struct Naive {
    parameters: Parameters,
}

impl Decide for Naive {
    fn decide(&mut self, model: &Model<'_>) -> (Vec<Event>, Option<Step>) {
        let counts = model.counts();
        let step = (model.lag() > NAIVE_LAG).then(|| Step {
            partitions: (counts.partitions + 2).min(self.parameters.partitions_max),
            consumers: (counts.consumers + 2).min(self.parameters.consumers_max),
            ..counts
        });
        (Vec::new(), step)
    }
}

#[derive(Debug)]
struct Keda {
    parameters: Parameters,
    wanted: VecDeque<(u32, u32)>,
}

impl Decide for Keda {
    fn decide(&mut self, model: &Model<'_>) -> (Vec<Event>, Option<Step>) {
        let counts = model.counts();
        let most = self.parameters.consumers_max.min(counts.partitions);
        let wanted = ((model.lag() / KEDA_LAG).ceil() as u32).clamp(1, most.max(1));
        self.wanted.push_back((model.now_s, wanted));
        self.wanted.retain(|(at_s, _)| model.now_s - at_s <= KEDA_DOWN_S);
        let lately = self.wanted.iter().map(|(_, wanted)| *wanted).max().unwrap_or(wanted);
        let consumers = if wanted > counts.consumers { wanted } else { lately };
        (Vec::new(), Some(Step { consumers, ..counts }))
    }
}

impl Decide for Ladder {
    fn decide(&mut self, model: &Model<'_>) -> (Vec<Event>, Option<Step>) {
        let interval_s = self.parameters().interval_s as usize;
        let events = self.step(model.now_ms(), &model.observe(interval_s));
        let step =
            events.iter().find_map(Event::action).map(|action| asked(model.counts(), action));
        (events, step)
    }
}

/// The counts after an action.
pub(crate) fn asked(counts: Step, action: Action) -> Step {
    match action {
        Action::Workers { to, .. } => Step { workers: to, ..counts },
        Action::Consumers { to, .. } => Step { consumers: to, ..counts },
        Action::Partitions { to, consumers_to, .. } => {
            Step { partitions: to, consumers: consumers_to, ..counts }
        }
    }
}
