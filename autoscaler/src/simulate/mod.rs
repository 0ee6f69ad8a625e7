//! The ladder in virtual time: the core that acts on a cluster, on a model of one.
//!
//! `run` lives through a [`Trace`] under a [`Policy`] and reports what became of it; `table` and
//! `decision_log` print that.

mod chance;
mod model;
mod policy;
mod print;
mod random;
mod recorded;
mod scenarios;
#[cfg(test)]
mod tests;
mod trace;

#[cfg(test)]
pub(crate) use chance::Chance;
pub use policy::Policy;
pub use print::{decision_log, table};
pub use random::random;
pub use recorded::recorded;
pub use scenarios::{SCENARIOS, scenario};
pub use trace::{Change, Pause, Stall, Trace};

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::ladder::{Event, Mode, Parameters};
use model::{Model, Step};
use policy::Decide;

/// Seconds at the beginning in which nobody decides.
const QUIET_S: u32 = 60;

/// What became of a load under a policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub trace: String,
    pub policy: Policy,
    /// Counts at the end.
    pub partitions: u32,
    pub consumers: u32,
    pub workers: u32,
    pub changes: u32,
    /// The longest that a record had waited at any second.
    pub worst_time_lag_s: u32,
    /// Seconds in which some record had waited longer than `hot_s`.
    pub hot_s: u32,
    pub lag_at_end: u64,
    /// Keys or files whose records were read out of order.
    pub order_broken: u64,
    pub alarms: BTreeSet<String>,
    /// Of the ladder; the others say nothing.
    pub events: Vec<Event>,
}

/// Parameters for a simulation: the defaults, acting.
pub fn acting() -> Parameters {
    Parameters { mode: Mode::Auto, ..Parameters::default() }
}

/// Lives through the trace. It must have no `mistakes()`.
pub fn run(trace: &Trace, policy: Policy, parameters: &Parameters) -> Report {
    let mut decider = policy.decider(parameters);
    let mut report = drive(trace, decider.as_mut(), parameters, &mut |_, _| {});
    report.policy = policy;
    report
}

/// Lives through the trace and shows each second to `watch`, before a step is performed.
fn drive<'a>(
    trace: &'a Trace,
    decider: &mut dyn Decide,
    parameters: &Parameters,
    watch: &mut dyn FnMut(&Model<'a>, &[Event]),
) -> Report {
    let mut model = Model::new(trace);
    let mut report = Report {
        trace: trace.name.clone(),
        policy: Policy::Ladder,
        partitions: 0,
        consumers: 0,
        workers: 0,
        changes: 0,
        worst_time_lag_s: 0,
        hot_s: 0,
        lag_at_end: 0,
        order_broken: 0,
        alarms: BTreeSet::new(),
        events: Vec::new(),
    };
    let interval_s = (parameters.interval_s as u32).max(1);
    while model.now_s < trace.seconds {
        model.tick();
        let time_lag_s = model.time_lag_s(true);
        report.worst_time_lag_s = report.worst_time_lag_s.max(time_lag_s);
        report.hot_s += u32::from(f64::from(time_lag_s) > parameters.hot_s);
        let is_asked = model.now_s > QUIET_S && model.now_s.is_multiple_of(interval_s);
        let (events, step) = if is_asked { decider.decide(&model) } else { (Vec::new(), None) };
        watch(&model, &events);
        if let Some(step) = step.filter(|step| *step != model.counts()) {
            report.changes += 1;
            model.apply(step);
        }
        for event in &events {
            if let Event::Decision(decision) = event {
                report.alarms.extend(decision.alarms.iter().map(|alarm| alarm.name().to_string()));
            }
        }
        report.events.extend(events);
    }
    let Step { partitions, consumers, workers } = model.counts();
    report.partitions = partitions;
    report.consumers = consumers;
    report.workers = workers;
    report.lag_at_end = model.lag() as u64;
    report.order_broken = model.order_broken;
    report
}
