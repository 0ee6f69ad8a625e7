//! Each rung by a steady load that meets it. `rungs` is also run with each guard broken.

use super::*;

const START_MS: i64 = 1_700_000_000_000;

/// A topic with steady rates, whatever is decided about it.
#[derive(Debug, Clone)]
struct Load {
    parameters: Parameters,
    observation: Observation,
    /// Records per second, by partition.
    arrival: Vec<f64>,
    consumed: Vec<f64>,
    lag: f64,
    /// Added to the age of records.
    age_s: f64,
    seconds: u32,
}

impl Load {
    /// Four partitions, four consumers, twice as much coming as is consumed.
    fn hot() -> Self {
        Self {
            parameters: Parameters { mode: Mode::Auto, ..Parameters::default() },
            observation: Observation {
                consumers: 4,
                sink: Some(Sink {
                    workers: 2,
                    workers_max: 2,
                    processes: 4,
                    processes_max: 64,
                    ..Sink::default()
                }),
                cluster: Cluster { brokers: 3, replicas: 8 },
                topic: TopicFacts { replication_factor: 2, ..TopicFacts::default() },
                ..Observation::default()
            },
            arrival: vec![10e3; 4],
            consumed: vec![5e3; 4],
            lag: 1e6,
            age_s: 0.0,
            seconds: 400,
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn observed(&self, at_s: u32) -> Observation {
        let mut observation = self.observation.clone();
        let now_ms = START_MS + i64::from(at_s) * 1000;
        for (arrival, consumed) in self.arrival.iter().zip(&self.consumed) {
            let end = self.lag + arrival * f64::from(at_s);
            let committed = (consumed * f64::from(at_s)).min(end);
            let age_s = (end - committed) / arrival.max(1.0) + self.age_s;
            observation.partitions.push(Partition {
                end: end as i64,
                committed: Some(committed as i64),
                committed_record_ms: Some(now_ms - (age_s * 1000.0) as i64),
                ..Partition::default()
            });
        }
        observation
    }

    /// Decisions until the first action, or all of them.
    fn decide(&self, guard: Option<Guard>) -> Vec<Decision> {
        let mut ladder = Ladder::new("sink", "logs", self.parameters.clone());
        ladder.break_guard(guard);
        let mut decisions = Vec::new();
        for at_s in (0..=self.seconds).step_by(15) {
            let now_ms = START_MS + i64::from(at_s) * 1000;
            for event in ladder.step(now_ms, &self.observed(at_s)) {
                let Event::Decision(decision) = event else { continue };
                let is_over = decision.action.is_some();
                decisions.push(*decision);
                if is_over {
                    return decisions;
                }
            }
        }
        decisions
    }
}

/// Loads by name, with the rule that must have the last word and what it does.
fn rungs() -> Vec<(&'static str, Load, Rule, Option<Action>)> {
    let hot = Load::hot;
    let partitions = Action::Partitions { from: 4, to: 8, consumers_from: 4, consumers_to: 8 };
    let mut cases = vec![
        ("plain", hot(), Rule::Partitions, Some(partitions)),
        (
            "fewer consumers than partitions",
            hot().with(|l| l.observation.consumers = 1),
            Rule::Consumers,
            Some(Action::Consumers { from: 1, to: 2 }),
        ),
        (
            "as many consumers as are needed, not twice as many",
            hot().with(|l| {
                l.observation.consumers = 2;
                l.consumed = vec![9.9e3; 4];
            }),
            Rule::Consumers,
            Some(Action::Consumers { from: 2, to: 4 }),
        ),
        (
            "never more consumers than partitions",
            hot().with(|l| l.observation.consumers = 3),
            Rule::Consumers,
            Some(Action::Consumers { from: 3, to: 4 }),
        ),
        (
            "the sink's own maximum of processes",
            hot().with(|l| {
                l.observation.consumers = 2;
                l.observation.sink.as_mut().unwrap().processes_max = 3;
            }),
            Rule::Consumers,
            Some(Action::Consumers { from: 2, to: 3 }),
        ),
        (
            "workers first",
            hot().with(|l| {
                l.observation.consumers = 1;
                l.observation.sink.as_mut().unwrap().workers_max = 8;
            }),
            Rule::Workers,
            Some(Action::Workers { from: 2, to: 4 }),
        ),
        (
            "foreign keys where they are allowed",
            hot().with(|l| {
                l.observation.topic.has_foreign_keys = true;
                l.parameters.is_foreign_keys_allowed = true;
            }),
            Rule::Partitions,
            Some(partitions),
        ),
        (
            "consumers of another make are not asked for workers",
            hot().with(|l| l.observation.sink = None),
            Rule::Partitions,
            Some(partitions),
        ),
        (
            "the maximum is met, not passed",
            hot().with(|l| l.parameters.partitions_max = 6),
            Rule::Partitions,
            Some(Action::Partitions { from: 4, to: 6, consumers_from: 4, consumers_to: 6 }),
        ),
        (
            "the minimum is reached at once",
            hot().with(|l| l.parameters.partitions_min = 12),
            Rule::Partitions,
            Some(Action::Partitions { from: 4, to: 12, consumers_from: 4, consumers_to: 8 }),
        ),
    ];
    type Change = fn(&mut Load);
    let refusals: [(&str, Change, Rule); 25] = [
        ("off by one second: not a window yet", |l| l.seconds = 100, Rule::Watching),
        ("hot for half a minute", |l| l.seconds = 150, Rule::Holding),
        ("compacted", |l| l.observation.topic.is_compacted = true, Rule::RefusedCompacted),
        ("foreign keys", |l| l.observation.topic.has_foreign_keys = true, Rule::RefusedForeignKeys),
        (
            "hot file",
            |l| {
                let hottest = HotFile { path: "/var/log/a.log".into(), share: 0.8 };
                l.observation.topic.hottest_file = Some(hottest);
            },
            Rule::RefusedHotFile,
        ),
        ("hot partition", |l| l.arrival = vec![1.0, 90e3, 3e3, 3e3], Rule::RefusedHotPartition),
        (
            "idle partitions",
            |l| l.arrival = vec![0.0, 0.0, 30e3, 30e3],
            Rule::RefusedIdlePartitions,
        ),
        ("too few brokers", |l| l.observation.cluster.brokers = 1, Rule::RefusedTooFewBrokers),
        ("too many replicas", |l| l.observation.cluster.replicas = 5993, Rule::RefusedReplicas),
        ("rebalance", |l| l.observation.is_rebalancing = true, Rule::Rebalancing),
        (
            "blocked",
            |l| l.observation.sink.as_mut().unwrap().blocked_share = 0.6,
            Rule::SinkBlocked,
        ),
        (
            "a little blocked",
            |l| l.observation.sink.as_mut().unwrap().blocked_share = 0.2,
            Rule::Disturbed,
        ),
        (
            "away",
            |l| l.observation.sink.as_mut().unwrap().is_elasticsearch_away = true,
            Rule::SinkBlocked,
        ),
        ("nobody reads", |l| l.observation.consumers = 0, Rule::NoConsumers),
        ("all stand still", |l| l.consumed = vec![0.0; 4], Rule::Stopped),
        ("one stands still", |l| l.consumed = vec![0.0, 12e3, 12e3, 12e3], Rule::Stalled),
        ("partitions at maximum", |l| l.parameters.partitions_max = 4, Rule::Maximum),
        ("consumers at maximum", |l| l.parameters.consumers_max = 4, Rule::Maximum),
        (
            "a large old backlog, little new",
            |l| {
                l.lag = 20e6;
                l.arrival = vec![1e3; 4];
                l.consumed = vec![3e3; 4];
            },
            Rule::ArrivalLow,
        ),
        (
            "worked off in ten minutes",
            |l| {
                l.lag = 6e6;
                l.consumed = vec![20e3; 4];
                l.seconds = 300;
            },
            Rule::Draining,
        ),
        (
            "many records, no wait",
            |l| {
                l.lag = 1e6;
                l.arrival = vec![100e3; 4];
                l.consumed = vec![100e3; 4];
            },
            Rule::NotHot,
        ),
        (
            "last week's files, read now, no backlog",
            |l| {
                l.lag = 5e3;
                l.age_s = 604_800.0;
                l.consumed = vec![10e3; 4];
            },
            Rule::NotHot,
        ),
        ("nothing at all", |l| (l.lag, l.arrival) = (0.0, vec![0.0; 4]), Rule::NotHot),
        ("no partitions", |l| (l.arrival, l.consumed) = (vec![], vec![]), Rule::NotHot),
        ("advice only", |l| l.parameters.mode = Mode::Advise, Rule::Partitions),
    ];
    cases.extend(refusals.map(|(name, change, rule)| (name, hot().with(change), rule, None)));
    cases
}

/// What is not as it must be.
pub(crate) fn mistakes(guard: Option<Guard>) -> Vec<String> {
    let mut mistakes = Vec::new();
    for (name, load, rule, action) in rungs() {
        let decisions = load.decide(guard);
        let last = decisions.last().expect("each load gets a decision");
        if (last.rule, last.action) != (rule, action) {
            mistakes.push(format!("{name}: {:?} {:?}", last.rule, last.action));
        }
        let is_repeated = decisions
            .windows(2)
            .any(|two| two[0].rule == two[1].rule && two[1].at_ms - two[0].at_ms < 300_000);
        if is_repeated {
            mistakes.push(format!("{name}: the same is told again and again"));
        }
        if decisions.iter().any(|d| !d.why.ends_with('.') || d.why.contains("NaN")) {
            mistakes.push(format!("{name}: no sentence"));
        }
    }
    // A day's worth of observations is not kept.
    let mut ladder = Ladder::new("sink", "logs", Parameters::default());
    ladder.break_guard(guard);
    let load = Load::hot();
    for at_s in (0..86_400).step_by(15) {
        ladder.step(START_MS + at_s as i64 * 1000, &load.observed(at_s));
    }
    let (samples, sums) = ladder.window.held();
    if samples > window::SAMPLES_MAX || sums > window::SUMS_MAX {
        mistakes.push(format!("{samples} samples and {sums} sums are held"));
    }
    let mut full = load.observed(400);
    full.retention = Retention {
        retention_ms: Some(7 * 86_400_000),
        disk_used_share: Some(0.95),
        slowest_group: Some("audit".into()),
    };
    let now_ms = START_MS + 400_000;
    for partition in &mut full.partitions {
        (partition.slowest_committed, partition.slowest_record_ms) =
            (Some(0), Some(now_ms - 5 * 86_400_000));
    }
    let advice = retention::advice(now_ms, &full, ladder.guards);
    let is_safe = matches!(advice, Some(Advice::Retention { retention_ms, .. })
        if (5 * 86_400_000..7 * 86_400_000).contains(&retention_ms));
    if !is_safe {
        mistakes.push(format!("retention is offered below the slowest commit: {advice:?}"));
    }
    mistakes
}

#[test]
fn each_rung_answers_its_load() {
    assert_eq!(mistakes(None), Vec::<String>::new());
}

#[test]
fn advice_says_what_auto_would_do() {
    let load = Load::hot().with(|l| l.parameters.mode = Mode::Advise);
    let decisions = load.decide(None);
    let last = decisions.last().unwrap();
    let acted = Load::hot().decide(None);
    assert_eq!((last.action, last.advised), (None, acted.last().unwrap().action));
    let off = Load::hot().with(|l| l.parameters.mode = Mode::Off);
    assert!(off.decide(None).is_empty());
}

#[test]
fn rates_do_not_span_a_reset_of_offsets_or_a_new_topic() {
    let load = Load::hot();
    let mut ladder = Ladder::new("sink", "logs", load.parameters.clone());
    let rule = |events: Vec<Event>| match events.last() {
        Some(Event::Decision(decision)) => Some(decision.rule),
        _ => None,
    };
    for at_s in (0..=135).step_by(15) {
        ladder.step(START_MS + i64::from(at_s) * 1000, &load.observed(at_s));
    }
    let mut reset = load.observed(150);
    reset.partitions[2].committed = Some(0);
    assert_eq!(rule(ladder.step(START_MS + 150_000, &reset)), Some(Rule::Watching));
    let mut remade = load.observed(300);
    remade.partitions.truncate(2);
    ladder.step(START_MS + 165_000, &reset);
    ladder.step(START_MS + 180_000, &remade);
    assert!(!ladder.window.is_full(&load.parameters));
    // A clock set back, and one that jumped.
    ladder.step(START_MS, &remade);
    ladder.step(START_MS + 86_400_000, &remade);
    assert_eq!(ladder.window.held(), (1, 0));
}

#[test]
fn a_group_that_never_committed_reads_from_the_beginning() {
    let mut partition = Partition { log_start: 40, end: 100, ..Partition::default() };
    assert_eq!(partition.lag(), 60);
    // Deleted before it was read; and a commit that overtook the end by a race.
    partition.committed = Some(10);
    assert_eq!((partition.position(), partition.lag()), (40, 60));
    partition.committed = Some(120);
    assert_eq!(partition.lag(), 0);
    partition.end = i64::MIN;
    assert_eq!(partition.lag(), 0);
}

#[test]
fn a_faster_clock_of_the_last_instance_costs_one_cooldown() {
    let load = Load::hot();
    let acted = load.decide(None).pop().unwrap();
    let future = Event::Decision(Box::new(Decision { at_ms: START_MS + 86_400_000, ..acted }));
    let mut ladder = Ladder::resume("sink", "logs", load.parameters.clone(), [&future]);
    let mut first = None;
    for at_s in (0..1200).step_by(15) {
        let events = ladder.step(START_MS + i64::from(at_s) * 1000, &load.observed(at_s));
        first = first.or(events.iter().any(|event| event.action().is_some()).then_some(at_s));
    }
    assert_eq!(first, Some(600));
    // Another topic's steps are not this one's.
    let other = Ladder::resume("sink", "other", load.parameters.clone(), [&future]);
    assert_eq!(other.memory, Memory::default());
}

#[test]
fn events_survive_their_way_through_a_topic() {
    let mut decisions = Load::hot().decide(None);
    let stalled = Load::hot().with(|l| l.consumed = vec![0.0, 12e3, 12e3, 12e3]);
    decisions.extend(stalled.decide(None));
    for decision in decisions {
        let event = Event::Decision(Box::new(decision));
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        let rule = match &event {
            Event::Decision(decision) => decision.rule.name(),
            Event::Effect(_) => continue,
        };
        assert!(text.contains(&format!("\"rule\":\"{rule}\"")), "{text}");
    }
}

/// Offsets and timestamps are whatever a broker and its producers say.
#[test]
fn no_observation_and_no_event_makes_it_panic_or_say_nonsense() {
    let mut chance = crate::simulate::Chance::new(7);
    let number = |chance: &mut crate::simulate::Chance| match chance.count(0..6) {
        0 => i64::MIN,
        1 => i64::MAX,
        2 => -1,
        3 => START_MS + i64::from(chance.count(0..1000)),
        4 => chance.bits() as i64,
        _ => i64::from(chance.count(0..1000)),
    };
    let mut ladder = Ladder::new("sink", "logs", Load::hot().parameters);
    for round in 0..20_000_i64 {
        let mut observation = Load::hot().observation;
        observation.consumers = chance.count(0..5);
        observation.cluster = Cluster { brokers: chance.count(0..3), replicas: chance.bits() };
        observation.topic.replication_factor = chance.bits() as u32;
        observation.sink.as_mut().unwrap().blocked_share =
            [f64::NAN, -1.0, 9.0, 0.0][chance.count(0..4) as usize];
        observation.retention = Retention {
            retention_ms: Some(number(&mut chance)),
            disk_used_share: Some(0.9),
            slowest_group: Some("audit".into()),
        };
        for _ in 0..chance.count(0..4) {
            let mut some = || chance.is(0.8).then(|| number(&mut chance));
            observation.partitions.push(Partition {
                committed: some(),
                committed_record_ms: some(),
                slowest_committed: some(),
                slowest_record_ms: some(),
                log_start: some().unwrap_or(0),
                end: some().unwrap_or(0),
            });
        }
        for event in ladder.step(START_MS + round * 15_000, &observation) {
            let text = serde_json::to_string(&event).unwrap();
            assert!(!text.contains("null") || text.contains("\"drain_s\":null"), "{text}");
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap().at_ms(), event.at_ms());
        }
        if round % 500 == 0 {
            let mut decision = Load::hot().decide(None).pop().unwrap();
            decision.at_ms = number(&mut chance);
            ladder.remember([&Event::Decision(Box::new(decision))]);
        }
    }
}

#[test]
fn every_decision_is_told_to_the_rung_that_decided() {
    for (name, load, ..) in rungs() {
        for decision in load.decide(None) {
            let asked = explain(&decision);
            let last = asked.last().expect("a rung is asked");
            assert!(last.is_last && last.text == decision.why, "{name}: {asked:?}");
            assert!(asked.iter().all(|rung| !rung.text.is_empty()), "{name}: {asked:?}");
        }
    }
}

#[test]
fn a_step_that_failed_is_told_and_keeps_its_cooldown() {
    let load = Load::hot();
    let mut ladder = Ladder::new("sink", "logs", load.parameters.clone());
    let mut acted = None;
    for at_s in (0..=600).step_by(15) {
        let now_ms = START_MS + i64::from(at_s) * 1000;
        for event in ladder.step(now_ms, &load.observed(at_s)) {
            let Event::Decision(decision) = event else {
                panic!("what was concluded once is not judged again: {event:?}");
            };
            if decision.action.is_none() {
                continue;
            }
            assert!(acted.is_none(), "again after {at_s} s");
            let event = ladder.not_carried_out(now_ms, &decision, "no controller").unwrap();
            let Event::Effect(effect) = &event else { panic!("{event:?}") };
            assert_eq!((effect.verdict, effect.of_ms), (Verdict::NotCarriedOut, decision.at_ms));
            assert!(effect.why.ends_with("8: no controller."), "{}", effect.why);
            acted = Some(event);
        }
    }
    assert!(acted.is_some());
}

#[test]
fn parameters_travel_with_a_decision_unless_they_are_the_defaults() {
    let mut load = Load::hot();
    let plain = serde_json::to_string(&load.decide(None).pop().unwrap()).unwrap();
    assert!(plain.contains(r#""parameters":{"mode":"auto"}"#), "{plain}");
    load.parameters.hold_s = 30.0;
    let decision = load.decide(None).pop().unwrap();
    let text = serde_json::to_string(&decision).unwrap();
    assert_eq!(serde_json::from_str::<Decision>(&text).unwrap(), decision);
    assert_eq!(decision.parameters.hold_s, 30.0);
}

#[test]
fn a_window_shorter_than_the_probe_tells_what_it_saw() {
    let mut load = Load::hot();
    load.parameters = Parameters { interval_s: 1.0, window_s: 4.0, ..load.parameters };
    let mut ladder = Ladder::new("sink", "logs", load.parameters.clone());
    for at_s in 0..10 {
        ladder.step(START_MS + i64::from(at_s) * 1000, &load.observed(at_s));
    }
    assert_eq!(ladder.window.consumed_lately(PROBE_RATE_S), 20e3);
}

#[test]
fn a_hold_for_partitions_that_stand_still_says_so() {
    let load = Load::hot().with(|l| (l.consumed, l.seconds) = (vec![0.0; 4], 150));
    let last = load.decide(None).pop().unwrap();
    assert_eq!(last.rule, Rule::Holding);
    // Without them nothing waits, and that would be no reason to hold anything.
    assert!(last.why.starts_with("What waits is in 4 of 4 partitions"), "{}", last.why);
}
