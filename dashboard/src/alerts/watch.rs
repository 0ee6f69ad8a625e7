//! Which rules hold, since when, and what has just begun or ended. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::measure::Target;
use super::rule::Rule;
use crate::lag::history::Values;

/// Targets of all rules that are remembered; some 200 bytes each.
const HELD_MAX: usize = 10_000;

/// A rule that holds of something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Held {
    pub(crate) since_ms: i64,
    pub(crate) is_firing: bool,
    pub(crate) value: f64,
}

/// What has just begun or ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) rule: Rule,
    pub(crate) target: Target,
    pub(crate) held: Held,
    pub(crate) is_over: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// (rule id, target)
    held: BTreeMap<(String, Target), Held>,
}

impl Watch {
    /// Takes in the values that a rule looks at now. A value that is not known leaves things as they are;
    /// a target that is gone is over.
    pub(crate) fn step(
        &mut self,
        now_ms: i64,
        rule: &Rule,
        values: Vec<(Target, Option<f64>)>,
        changes: &mut Vec<Change>,
    ) {
        let mut seen = BTreeSet::new();
        for (target, value) in values {
            let key = (rule.id.clone(), target.clone());
            seen.insert(target.clone());
            let Some(value) = value else { continue };
            if !rule.holds(value) {
                if let Some(held) = self.held.remove(&key) {
                    end(rule, target, Held { value, ..held }, changes);
                }
                continue;
            }
            if self.held.len() >= HELD_MAX && !self.held.contains_key(&key) {
                continue;
            }
            let held =
                self.held.entry(key).or_insert(Held { since_ms: now_ms, is_firing: false, value });
            held.value = value;
            let for_ms = i64::try_from(rule.for_s).unwrap_or(i64::MAX).saturating_mul(1000);
            if !held.is_firing && now_ms - held.since_ms >= for_ms {
                held.is_firing = true;
                let (rule, held) = (rule.clone(), held.clone());
                changes.push(Change { rule, target, held, is_over: false });
            }
        }
        let gone: Vec<Target> = self
            .of(&rule.id)
            .map(|(target, _)| target.clone())
            .filter(|one| !seen.contains(one))
            .collect();
        for target in gone {
            if let Some(held) = self.held.remove(&(rule.id.clone(), target.clone())) {
                end(rule, target, held, changes);
            }
        }
    }

    /// Where a rule holds.
    pub(crate) fn of(&self, id: &str) -> impl Iterator<Item = (&Target, &Held)> {
        let first = (id.to_owned(), Target::new("", ""));
        self.held
            .range(first..)
            .take_while(move |((rule, _), _)| rule == id)
            .map(|((_, target), held)| (target, held))
    }

    /// A rule that was changed or removed begins anew: what fired is over.
    pub(crate) fn forget(&mut self, rule: &Rule, changes: &mut Vec<Change>) {
        let targets: Vec<Target> = self.of(&rule.id).map(|(target, _)| target.clone()).collect();
        for target in targets {
            if let Some(held) = self.held.remove(&(rule.id.clone(), target.clone())) {
                end(rule, target, held, changes);
            }
        }
    }
}

fn end(rule: &Rule, target: Target, held: Held, changes: &mut Vec<Change>) {
    if held.is_firing {
        changes.push(Change { rule: rule.clone(), target, held, is_over: true });
    }
}

/// When `rule` would have fired over a series of the past: from the moment it had held for long enough.
pub(crate) fn spans(rule: &Rule, points: &[(i64, Values)]) -> Vec<(i64, i64)> {
    let for_ms = i64::try_from(rule.for_s).unwrap_or(i64::MAX).saturating_mul(1000);
    let mut spans = Vec::new();
    let (mut since, mut last) = (None, 0);
    for (at_ms, values) in points {
        // Where nothing is known it stays as it was.
        let Some(value) = rule.metric.of_point(values) else { continue };
        if rule.holds(value) {
            since.get_or_insert(*at_ms);
        } else if let Some(since) = since.take()
            && *at_ms - since >= for_ms
        {
            spans.push((since.saturating_add(for_ms), *at_ms));
        }
        last = *at_ms;
    }
    if let Some(since) = since
        && last - since >= for_ms
    {
        spans.push((since.saturating_add(for_ms), last));
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::super::measure::Metric;
    use super::super::rule::shipped;
    use super::*;

    /// More than five minutes behind, for five minutes.
    fn rule() -> Rule {
        shipped().into_iter().find(|rule| rule.metric == Metric::LagSeconds).unwrap()
    }

    fn step(watch: &mut Watch, second: i64, value: Option<f64>) -> Vec<bool> {
        let mut changes = Vec::new();
        watch.step(
            second * 1000,
            &rule(),
            vec![(Target::new("sink", "logs"), value)],
            &mut changes,
        );
        changes.into_iter().map(|change| change.is_over).collect()
    }

    #[test]
    fn it_fires_once_after_its_time_and_ends_once() {
        let mut watch = Watch::default();
        assert!(step(&mut watch, 0, Some(400.0)).is_empty());
        assert!(step(&mut watch, 299, Some(400.0)).is_empty());
        assert_eq!(step(&mut watch, 300, Some(400.0)), [false]);
        assert!(step(&mut watch, 301, Some(500.0)).is_empty());
        // Not known is neither better nor worse.
        assert!(step(&mut watch, 302, None).is_empty());
        assert_eq!(watch.of(&rule().id).next().unwrap().1.value, 500.0);
        assert_eq!(step(&mut watch, 303, Some(10.0)), [true]);
        assert!(step(&mut watch, 304, Some(10.0)).is_empty());
    }

    #[test]
    fn a_short_peak_is_not_told_and_what_is_gone_is_over() {
        let mut watch = Watch::default();
        step(&mut watch, 0, Some(400.0));
        step(&mut watch, 200, Some(1.0));
        assert!(step(&mut watch, 400, Some(400.0)).is_empty());
        assert_eq!(step(&mut watch, 700, Some(400.0)), [false]);
        let mut changes = Vec::new();
        watch.step(701_000, &rule(), vec![], &mut changes);
        assert!(changes[0].is_over && watch.held.is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut watch = Watch::default();
        let many =
            (0..HELD_MAX + 5).map(|n| (Target::new(&n.to_string(), ""), Some(1e9))).collect();
        watch.step(0, &rule(), many, &mut Vec::new());
        assert_eq!(watch.held.len(), HELD_MAX);
        let mut over = Vec::new();
        watch.forget(&rule(), &mut over);
        assert!(watch.held.is_empty() && over.is_empty(), "nothing had fired yet");
    }

    #[test]
    fn the_past_is_judged_as_the_present_is() {
        let points: Vec<(i64, Values)> = (0..2_000)
            .map(|second| {
                let seconds = match second {
                    600 => f32::NAN,
                    100..200 | 500..900 | 1_500.. => 400.0,
                    _ => 0.0,
                };
                (second * 1000, [1.0, seconds, 1.0, 1.0])
            })
            .collect();
        assert_eq!(spans(&rule(), &points), [(800_000, 900_000), (1_800_000, 1_999_000)]);
        let mut watch = Watch::default();
        let mut begun = Vec::new();
        for (at_ms, values) in &points {
            let mut changes = Vec::new();
            let value = rule().metric.of_point(values);
            watch.step(*at_ms, &rule(), vec![(Target::new("sink", "logs"), value)], &mut changes);
            begun.extend(changes.iter().filter(|change| !change.is_over).map(|_| *at_ms));
        }
        assert_eq!(begun, [800_000, 1_800_000]);
    }
}
