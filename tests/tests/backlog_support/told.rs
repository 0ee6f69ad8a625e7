//! What the autoscaler said, and that it kept to its own rules.

use std::time::{Duration, Instant};

use elkfk_autoscaler::ladder::{Action, Decision, Effect, Rule, Verdict};
use elkfk_autoscaler::shell::Decisions;
use elkfk_autoscaler::{Event, Parameters};
use elkfk_broker_client::Client;

const PATIENCE: Duration = Duration::from_secs(120);

/// Every event of a topic of decisions.
pub(crate) struct Told {
    decisions: Decisions,
}

impl Told {
    pub(crate) fn new(client: Client, topic: &str) -> Self {
        Self { decisions: Decisions::new(client, topic) }
    }

    pub(crate) async fn events(&self) -> Vec<Event> {
        if !self.decisions.exists().await.unwrap() {
            return vec![];
        }
        let (mut all, mut offset) = (Vec::new(), self.decisions.offset_since(0).await.unwrap());
        loop {
            let page = self.decisions.read(offset, Duration::ZERO).await.unwrap();
            let is_last = page.is_last();
            offset = page.next_offset;
            all.extend(page.events);
            if is_last {
                return all;
            }
        }
    }

    /// Waits until the events are as `is_wanted`.
    pub(crate) async fn until(
        &self,
        what: &str,
        is_wanted: impl Fn(&[Event]) -> bool,
    ) -> Vec<Event> {
        let begun = Instant::now();
        loop {
            let events = self.events().await;
            if is_wanted(&events) {
                return events;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: not yet: {}", in_words(&events));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }
}

pub(crate) fn in_words(events: &[Event]) -> String {
    let Some(first_ms) = events.first().map(Event::at_ms) else { return String::new() };
    let line = |event: &Event| {
        let at_s = (event.at_ms() - first_ms) as f64 / 1000.0;
        match event {
            Event::Decision(decision) => {
                let alarms: Vec<_> = decision.alarms.iter().map(|alarm| alarm.name()).collect();
                let (rule, why) = (decision.rule.name(), &decision.why);
                format!("\n{at_s:6.1} s  {rule} {alarms:?} {why}")
            }
            Event::Effect(Effect { verdict, why, .. }) => {
                format!("\n{at_s:6.1} s  effect: {} {why}", verdict.name())
            }
        }
    };
    events.iter().map(line).collect()
}

pub(crate) fn decisions(events: &[Event]) -> impl Iterator<Item = &Decision> {
    events.iter().filter_map(|event| match event {
        Event::Decision(decision) => Some(&**decision),
        Event::Effect(_) => None,
    })
}

pub(crate) fn actions(events: &[Event]) -> Vec<Action> {
    events.iter().filter_map(Event::action).collect()
}

/// Whether the last thing that was said is that there is no backlog to act on.
pub(crate) fn is_calm(events: &[Event]) -> bool {
    let last = decisions(events).last();
    last.is_some_and(|last| matches!(last.rule, Rule::NotHot | Rule::Draining))
}

pub(crate) fn has_said(events: &[Event], rule: Rule) -> bool {
    decisions(events).any(|decision| decision.rule == rule)
}

/// What the effect of each step was, in the order of the steps.
pub(crate) fn verdicts(events: &[Event]) -> Vec<Verdict> {
    let effects = events.iter().filter_map(|event| match event {
        Event::Effect(effect) => Some(effect.verdict),
        Event::Decision(_) => None,
    });
    effects.collect()
}

/// Holds every step against the rules that no step may break, whatever the scenario.
pub(crate) fn check_rules(events: &[Event], parameters: &Parameters) {
    let (mut consumers_ms, mut partitions_ms, mut no_gain_ms) = (None, None, None);
    let since_s = |at_ms: Option<i64>, now_ms: i64| {
        at_ms.map_or(f64::INFINITY, |at_ms| (now_ms - at_ms) as f64 / 1000.0)
    };
    for event in events {
        if let Event::Effect(effect) = event {
            let steps = decisions(events).filter(|d| d.at_ms == effect.of_ms && d.action.is_some());
            assert_eq!(steps.count(), 1, "an effect of a step: {effect:?}");
            assert!(effect.at_ms > effect.of_ms, "{effect:?}");
            if effect.verdict == Verdict::NoGain {
                no_gain_ms = Some(effect.at_ms);
            }
            continue;
        }
        let (Event::Decision(decision), Some(action)) = (event, event.action()) else { continue };
        let (inputs, at_ms) = (&decision.inputs, decision.at_ms);
        let why = || format!("{decision:?}: {}", in_words(events));
        assert!(inputs.blocked_share <= parameters.blocked_max, "while blocked: {}", why());
        assert!(!inputs.is_rebalancing, "while the group rebalances: {}", why());
        let pause_s = since_s(no_gain_ms, at_ms);
        let cooled = since_s(consumers_ms, at_ms) >= parameters.consumer_cooldown_s;
        match action {
            Action::Consumers { from, to } if to < from => {
                assert!(inputs.calm_for_s >= parameters.calm_s, "before calm: {}", why());
                assert!(to >= parameters.consumers_min, "{}", why());
            }
            Action::Workers { .. } | Action::Consumers { .. } => {
                assert!(cooled, "within a cooldown: {}", why());
                assert!(pause_s >= parameters.no_gain_pause_s, "within a pause: {}", why());
            }
            Action::Partitions { from, to, consumers_to, .. } => {
                assert!(from < to && to <= parameters.partitions_max, "{}", why());
                assert!(consumers_to <= to, "{}", why());
                let after_consumers_s = since_s(consumers_ms, at_ms);
                assert!(after_consumers_s >= parameters.partitions_after_consumers_s, "{}", why());
                let after_partitions_s = since_s(partitions_ms, at_ms);
                assert!(after_partitions_s >= parameters.partition_cooldown_s, "{}", why());
                assert!(pause_s >= parameters.no_gain_pause_s, "within a pause: {}", why());
                assert_eq!(inputs.consumers, inputs.partitions, "consumers first: {}", why());
                partitions_ms = Some(at_ms);
            }
        }
        if let Action::Consumers { to, .. } = action {
            assert!(to <= inputs.partitions && to <= parameters.consumers_max, "{}", why());
        }
        consumers_ms = Some(at_ms);
    }
}
