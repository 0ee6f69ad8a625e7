//! Laws over random loads, bounds on the seven scenarios, and proof that both would notice.
//!
//! `ELKFK_SIMULATION_SEEDS=N` runs N seeds in place of the usual share; `ELKFK_SIMULATION_SEED=S` one.
//!
//! `each_broken_guard_is_noticed` breaks, one at a time, every guard of the ladder: acting in advise
//! mode; not holding; acting on lag alone; not waiting for a backlog that drains by itself; acting
//! while Elasticsearch blocks; counting stalled partitions; acting in a rebalance; no pause after a step
//! without gain; no cooldown of consumers, of partitions, or between the two; expanding on disturbed
//! rates; consumers beyond partitions, beyond their maximum, or more than doubled; partitions before
//! consumers, where little arrives, beyond their maximum, on compacted topics, with foreign
//! keys, for a hot file, for a hot partition, with partitions idle, with too few brokers, beyond what
//! brokers hold; scale-in without calm, or without a fit; forgetting at a take-over; offering a retention
//! below the slowest commit; telling the same each time; keeping every sample.

mod bounds;

use std::collections::VecDeque;

use self::bounds::scenario_mistakes;
use super::chance::Chance;
use super::model::BLOCKED_S;
use super::policy::asked;
use super::*;
use crate::ladder::{Action, DRAIN_TARGET_S, Decision, Guard, HOT_SHARE, Ladder, Verdict};

const SEEDS: u64 = 1200;
/// Seeds that each broken guard gets to be noticed in.
const SEEDS_BROKEN: u64 = 400;

/// The ladder in one process after another: each may die, and the next reads what the last one wrote.
struct Instances {
    ladder: Ladder,
    parameters: Parameters,
    guard: Option<Guard>,
    /// What is in the topic.
    written: Vec<Event>,
    /// Seconds of deaths, and seconds until the next takes over; the first to come is last.
    deaths: Vec<(u32, u32)>,
    away_until_s: u32,
}

impl Instances {
    fn new(parameters: &Parameters, guard: Option<Guard>, mut deaths: Vec<(u32, u32)>) -> Self {
        let mut ladder = Ladder::new("sink", "logs", parameters.clone());
        ladder.break_guard(guard);
        deaths.sort_by(|a, b| b.cmp(a));
        let parameters = parameters.clone();
        Self { ladder, parameters, guard, written: Vec::new(), deaths, away_until_s: 0 }
    }
}

impl Decide for Instances {
    fn decide(&mut self, model: &Model<'_>) -> (Vec<Event>, Option<Step>) {
        if model.now_s < self.away_until_s {
            return (Vec::new(), None);
        }
        let is_dying = self.deaths.last().is_some_and(|(at_s, _)| *at_s <= model.now_s);
        let (events, step) = self.ladder.decide(model);
        self.written.extend(events.iter().cloned());
        if !is_dying {
            return (events, step);
        }
        let (_, seconds) = self.deaths.pop().expect("one is due");
        self.away_until_s = model.now_s + seconds;
        self.ladder = Ladder::new("sink", "logs", self.parameters.clone());
        self.ladder.break_guard(self.guard);
        self.ladder.remember(&self.written);
        // It died between writing an event and doing what that says.
        let is_done = seconds % 2 == 0;
        (events, step.filter(|_| is_done))
    }
}

/// A stretch in which records wait longer than `hot_s`, stalled partitions apart.
struct Episode<'a> {
    from_s: u32,
    model: Model<'a>,
    consumers_at_s: Option<u32>,
    partitions_at_s: Option<u32>,
    is_sink_limiting: bool,
}

/// Holds every event and every step against what the model knows to be true.
struct Checker<'a> {
    trace: &'a Trace,
    parameters: &'a Parameters,
    wrong: Option<String>,
    /// An episode that took longer than twice the optimum.
    slow: Option<String>,
    consumers_at_s: Option<u32>,
    partitions_at_s: Option<u32>,
    no_gain_at_s: Option<u32>,
    /// At the last asks: seconds that records had waited, of all partitions and of those not stalled.
    waits: VecDeque<(u32, u32)>,
    /// Arrival and consumption, second by second, for half an hour.
    flow: VecDeque<(f64, f64)>,
    lag: VecDeque<f64>,
    /// The last ask at which records had waited too long.
    hot_at_s: u32,
    told: Option<Decision>,
    steps_up: Vec<(u32, u32)>,
    partitions: usize,
    episode: Option<Episode<'a>>,
    /// Durations of judged episodes beside their optimum.
    drained: Vec<(u32, u32)>,
    deaths: Vec<(u32, u32)>,
}

macro_rules! law {
    ($checker:expr, $holds:expr, $($text:tt)+) => {
        let holds: bool = $holds;
        if !holds && $checker.wrong.is_none() {
            $checker.wrong = Some(format!($($text)+));
        }
    };
}

impl<'a> Checker<'a> {
    fn new(trace: &'a Trace, parameters: &'a Parameters, deaths: Vec<(u32, u32)>) -> Self {
        Self {
            trace,
            parameters,
            wrong: None,
            slow: None,
            consumers_at_s: None,
            partitions_at_s: None,
            no_gain_at_s: None,
            waits: VecDeque::new(),
            flow: VecDeque::new(),
            lag: VecDeque::new(),
            hot_at_s: 0,
            told: None,
            steps_up: Vec::new(),
            partitions: trace.partitions as usize,
            episode: None,
            drained: Vec::new(),
            deaths,
        }
    }

    fn second(&mut self, model: &Model<'a>, events: &[Event]) {
        let now_s = model.now_s;
        push(&mut self.flow, (model.arrival_per_s, model.consumed_per_s), 1800);
        push(&mut self.lag, model.lag(), 121);
        if now_s.is_multiple_of(15) {
            let waits = (model.time_lag_s(true), model.time_lag_s(false));
            push(&mut self.waits, waits, 5);
            // The ladder believes an age only as far as the flow bears it out.
            if f64::from(waits.0) > 2.0 * self.parameters.hot_s {
                self.hot_at_s = now_s;
            }
        }
        law!(self, model.partitions.len() >= self.partitions, "{now_s} s: partitions shrank");
        self.partitions = model.partitions.len();
        law!(self, model.order_broken == 0, "{now_s} s: a file's records were read out of order");
        for partition in &model.partitions {
            law!(
                self,
                partition.committed <= partition.end,
                "{now_s} s: read what was not written"
            );
        }
        self.follow_episode(model);
        let decisions = events.iter().filter(|e| matches!(e, Event::Decision(_))).count();
        law!(self, decisions <= 1, "{now_s} s: {decisions} decisions at once");
        for event in events {
            law!(self, self.parameters.mode != Mode::Off, "{now_s} s: an event in mode off");
            match event {
                Event::Decision(decision) => self.decision(model, decision),
                Event::Effect(effect) => {
                    let of_s = ((effect.of_ms - model::EPOCH_MS) / 1000) as u32;
                    for (at_s, effects) in &mut self.steps_up {
                        *effects += u32::from(*at_s == of_s);
                    }
                    let is_pause = !matches!(effect.action, Action::Workers { .. });
                    if effect.verdict == Verdict::NoGain && is_pause {
                        self.no_gain_at_s = Some(now_s);
                    }
                }
            }
        }
    }

    fn decision(&mut self, model: &Model<'a>, decision: &Decision) {
        let now_s = model.now_s;
        let Some(action) = decision.action else {
            if let Some(told) = self.told.replace(decision.clone()) {
                let is_same = told.rule == decision.rule
                    && told
                        .alarms
                        .iter()
                        .map(|a| a.name())
                        .eq(decision.alarms.iter().map(|a| a.name()));
                let ago_s = (decision.at_ms - told.at_ms) / 1000;
                let died = self.deaths.iter().any(|(at_s, _)| now_s.abs_diff(*at_s) < 400);
                law!(
                    self,
                    !is_same || ago_s >= 300 || died,
                    "{now_s} s: told again after {ago_s} s"
                );
            }
            return;
        };
        self.told = Some(decision.clone());
        let mode = self.parameters.mode;
        law!(self, mode == Mode::Auto, "{now_s} s: {action:?} in mode {mode:?}");
        let before = model.counts();
        let after = asked(before, action);
        let is_up = action.expected_gain().is_some();
        let is_expansion = after.partitions != before.partitions;

        law!(
            self,
            after.partitions >= before.partitions
                && after.partitions <= self.parameters.partitions_max,
            "{now_s} s: {} partitions become {}",
            before.partitions,
            after.partitions
        );
        let consumers_max = after.partitions.min(self.parameters.consumers_max);
        law!(
            self,
            after.consumers <= consumers_max.max(before.consumers),
            "{now_s} s: {} consumers of {consumers_max}",
            after.consumers
        );
        law!(
            self,
            after.consumers <= 2 * before.consumers.max(1)
                && after.partitions <= 2 * before.partitions
                && after.workers
                    <= (2 * before.workers).min(self.trace.workers_max.max(before.workers)),
            "{now_s} s: more than doubled: {before:?} {after:?}"
        );
        let ago_s = |at_s: Option<u32>| at_s.map_or(u32::MAX, |at_s| now_s - at_s);
        let (consumers_ago_s, partitions_ago_s) =
            (ago_s(self.consumers_at_s), ago_s(self.partitions_at_s));
        law!(self, consumers_ago_s >= 120, "{now_s} s: a step {consumers_ago_s} s after the last");
        law!(
            self,
            !is_expansion || (partitions_ago_s >= 600 && consumers_ago_s >= 180),
            "{now_s} s: expanded {partitions_ago_s} s after an expansion, {consumers_ago_s} s after consumers"
        );
        law!(self, !model.is_stopped(), "{now_s} s: a step within a rebalance");
        if is_up {
            let blocked = model.blocked.iter().filter(|&&is| is).count();
            law!(
                self,
                blocked * 2 <= BLOCKED_S,
                "{now_s} s: a step while blocked for {blocked} s of 120"
            );
            let pause_s = ago_s(self.no_gain_at_s);
            law!(self, pause_s >= 900, "{now_s} s: a step {pause_s} s after one without gain");
            // Offsets are whole, so the ladder may see a record as read a second early.
            let hot_s = self.parameters.hot_s as u32 - 1;
            law!(
                self,
                self.waits.len() == 5 && self.waits.iter().all(|(all, _)| *all >= hot_s),
                "{now_s} s: a step for a backlog not hot for long: {:?}",
                self.waits
            );
            law!(
                self,
                self.waits.iter().any(|(_, rest)| *rest >= hot_s),
                "{now_s} s: a step for a stalled partition: {:?}",
                self.waits
            );
            self.law_of_draining(now_s);
            self.steps_up.push((now_s, 0));
        } else {
            self.laws_of_scale_in(model, after, consumers_ago_s);
        }
        if is_expansion {
            self.laws_of_expansion(model, after);
        }
        self.consumers_at_s = Some(now_s);
        if is_expansion {
            self.partitions_at_s = Some(now_s);
        }
    }

    /// Arrival and consumption per second over the last two minutes.
    fn rates(&self) -> (f64, f64) {
        let (mut arrived, mut consumed) = (0.0, 0.0);
        for (p, c) in self.flow.iter().rev().take(120) {
            arrived += p;
            consumed += c;
        }
        let seconds = self.flow.len().min(120) as f64;
        (arrived / seconds, consumed / seconds)
    }

    fn law_of_draining(&mut self, now_s: u32) {
        let (arrival, consumed) = self.rates();
        let lag = *self.lag.back().expect("a second has passed");
        let is_shrinking = lag <= 0.99 * self.lag[0];
        let drains_s = lag / (consumed - arrival).max(1e-9);
        let is_draining = is_shrinking && drains_s < 0.9 * self.parameters.drain_target_s;
        let any_stalled = !self.trace.stalls.is_empty();
        law!(
            self,
            !is_draining || any_stalled,
            "{now_s} s: a step for a backlog that drains in {drains_s:.0} s"
        );
    }

    fn laws_of_expansion(&mut self, model: &Model<'a>, after: Step) {
        let now_s = model.now_s;
        let trace = self.trace;
        let before = model.counts();
        law!(
            self,
            before.consumers >= before.partitions,
            "{now_s} s: {} partitions expanded with {} consumers",
            before.partitions,
            before.consumers
        );
        let (arrival, consumed) = self.rates();
        law!(
            self,
            arrival >= 0.45 * consumed || !trace.stalls.is_empty(),
            "{now_s} s: expanded at an arrival of {arrival:.0}/s, consumption of {consumed:.0}/s"
        );
        law!(self, !trace.is_compacted, "{now_s} s: a compacted topic expanded");
        law!(self, !trace.is_keyed, "{now_s} s: a topic with foreign keys expanded");
        let is_hot = trace.is_hot_file_told && trace.hot_file_share >= HOT_SHARE;
        law!(self, !is_hot, "{now_s} s: expanded for a hot file");
        law!(self, trace.brokers >= trace.replication_factor, "{now_s} s: too few brokers");
        let replicas =
            trace.other_replicas + u64::from(after.partitions * trace.replication_factor);
        law!(self, replicas <= 2000 * u64::from(trace.brokers), "{now_s} s: {replicas} replicas");
        let blocked = model.blocked.iter().filter(|&&is| is).count();
        law!(
            self,
            blocked <= BLOCKED_S / 10,
            "{now_s} s: expanded, blocked for {blocked} s of 120"
        );
    }

    fn laws_of_scale_in(&mut self, model: &Model<'a>, after: Step, consumers_ago_s: u32) {
        let now_s = model.now_s;
        let calm_s = now_s - self.hot_at_s;
        law!(self, calm_s > 1800, "{now_s} s: consumers taken away after {calm_s} s of calm");
        law!(
            self,
            consumers_ago_s >= 1800,
            "{now_s} s: taken away {consumers_ago_s} s after a step"
        );
        law!(self, after.consumers >= 2, "{now_s} s: {} consumers left", after.consumers);
        let arrived: Vec<f64> = self.flow.iter().map(|(arrived, _)| *arrived).collect();
        // Of whole minutes as the ladder sees them, those that begin at its observations.
        let from = (15 - (now_s as usize % 15 + 15 - arrived.len() % 15) % 15) % 15;
        let minutes = arrived[from..].windows(60).step_by(15);
        let peak = minutes.map(|minute| minute.iter().sum::<f64>() / 60.0).fold(0.0, f64::max);
        let odd =
            f64::from(after.partitions.div_ceil(after.consumers)) / f64::from(after.partitions);
        let capacity = model.consumer_rate();
        law!(
            self,
            odd * peak <= 0.6 * capacity * 1.1,
            "{now_s} s: {peak:.0}/s left to {} consumers of {capacity:.0}/s",
            after.consumers
        );
    }

    fn follow_episode(&mut self, model: &Model<'a>) {
        let is_hot = f64::from(model.time_lag_s(false)) > self.parameters.hot_s;
        let is_blocked = model.blocked.iter().any(|&is| is);
        match &mut self.episode {
            None if is_hot => {
                self.episode = Some(Episode {
                    from_s: model.now_s,
                    model: model.clone(),
                    consumers_at_s: self.consumers_at_s,
                    partitions_at_s: self.partitions_at_s,
                    is_sink_limiting: is_blocked,
                });
            }
            Some(episode) if is_hot => episode.is_sink_limiting |= is_blocked,
            Some(_) => {
                let episode = self.episode.take().expect("matched");
                self.judge_episode(episode, model.now_s);
            }
            None => {}
        }
    }

    /// The ladder drains in at most twice the optimum: `slow` where not, `wrong` beyond three times.
    ///
    /// An episode lasts from the first second in which some record of a partition not stalled has
    /// waited longer than `hot_s` until none has. Its *optimum* is the larger of
    ///
    /// - the drain target (900 s): what drains within it by itself is left alone on purpose, and
    /// - the fewest seconds that records wait so long between the episode's first second and its last,
    ///   from the same state of the same model under the same load, under any of three clairvoyants:
    ///   one that never steps; one that doubles workers and consumers; one that doubles partitions
    ///   as well. (Not the time to its first calm second: where the load stays at what the maxima
    ///   allow, calm comes and goes, and its first second says nothing.) They know from the first second that
    ///   the backlog will last, neither hold nor probe, and step whenever a step is allowed: they keep
    ///   to the cooldowns, to doubling at most, to every maximum, and to the refusals that are no
    ///   matter of judgement (compaction, foreign keys, a hot file, brokers).
    ///
    /// Not judged: where Elasticsearch limited at any second of the episode or of the two minutes
    /// before, or a partition was stalled in the trace; where one file alone makes half of what a
    /// consumer takes, for then it is luck which other files share its partition; and where the
    /// ladder may not act.
    fn judge_episode(&mut self, episode: Episode<'a>, now_s: u32) {
        let took_s = now_s - episode.from_s;
        let is_judged = self.parameters.mode == Mode::Auto
            && !episode.is_sink_limiting
            && self.trace.stalls.is_empty()
            && !self.has_overwhelming_file();
        if !is_judged || f64::from(took_s) <= DRAIN_TARGET_S {
            return;
        }
        let optimum_s = [(false, false), (true, false), (true, true)]
            .into_iter()
            .map(|(steps, expands)| self.clairvoyant(&episode, steps, expands, took_s))
            .min()
            .expect("three of them");
        let bound_s = 2 * optimum_s.max(DRAIN_TARGET_S as u32);
        self.drained.push((took_s, optimum_s));
        let from_s = episode.from_s;
        if took_s > bound_s && self.slow.is_none() {
            self.slow = Some(format!("{from_s} s: took {took_s} s, {optimum_s} s were enough"));
        }
        law!(
            self,
            took_s <= bound_s * 3 / 2,
            "{from_s} s: took {took_s} s to drain, {optimum_s} s were enough"
        );
    }

    fn has_overwhelming_file(&self) -> bool {
        let trace = self.trace;
        let peak = trace.arrival.iter().map(|change| change.per_s).fold(0.0, f64::max);
        trace.hot_file_share * peak > 0.5 * trace.consumer_rate()
    }

    /// Hot seconds of the `most_s` that the episode lasted.
    fn clairvoyant(&self, episode: &Episode<'a>, steps: bool, expands: bool, most_s: u32) -> u32 {
        let mut model = episode.model.clone();
        let (mut consumers_at_s, mut partitions_at_s) =
            (episode.consumers_at_s, episode.partitions_at_s);
        let trace = self.trace;
        let is_refused = trace.is_compacted
            || trace.is_keyed
            || (trace.is_hot_file_told && trace.hot_file_share >= HOT_SHARE)
            || trace.brokers < trace.replication_factor;
        let mut hot_s = 0;
        while model.now_s - episode.from_s < most_s {
            model.tick();
            hot_s += u32::from(f64::from(model.time_lag_s(false)) > self.parameters.hot_s);
            let now_s = model.now_s;
            let ago_s = |at_s: Option<u32>| at_s.map_or(u32::MAX, |at_s| now_s - at_s);
            let before = model.counts();
            if !steps || !now_s.is_multiple_of(15) || ago_s(consumers_at_s) < 120 {
                continue;
            }
            let mut after = before;
            let room = self.parameters.consumers_max;
            if before.workers < trace.workers_max {
                after.workers = (2 * before.workers).min(trace.workers_max);
            } else if before.consumers < room.min(before.partitions) {
                after.consumers = (2 * before.consumers).min(room).min(before.partitions);
            } else if expands && before.consumers < room && !is_refused {
                let partitions = (2 * before.partitions).min(self.parameters.partitions_max);
                let replicas =
                    trace.other_replicas + u64::from(partitions * trace.replication_factor);
                let is_cool = ago_s(partitions_at_s) >= 600 && ago_s(consumers_at_s) >= 180;
                if is_cool && replicas <= 2000 * u64::from(trace.brokers) {
                    after.partitions = partitions;
                    after.consumers = (2 * before.consumers).min(room).min(partitions);
                }
            }
            if after == before {
                continue;
            }
            consumers_at_s = Some(now_s);
            if after.partitions != before.partitions {
                partitions_at_s = Some(now_s);
            }
            model.apply(after);
        }
        hot_s
    }

    fn end(&mut self) {
        let seconds = self.trace.seconds;
        if let Some(episode) = self.episode.take() {
            self.judge_episode(episode, seconds);
        }
        // Enough for new partitions to fill, a death, and the window of the next instance.
        for (at_s, effects) in self.steps_up.clone() {
            law!(
                self,
                effects == 1 || at_s + 1000 > seconds,
                "{at_s} s: the step has {effects} effects"
            );
        }
    }
}

fn push<T>(ring: &mut VecDeque<T>, value: T, most: usize) {
    if ring.len() == most {
        ring.pop_front();
    }
    ring.push_back(value);
}

/// What a seed came to.
#[derive(Debug, PartialEq)]
struct Outcome {
    report: Report,
    drained: Vec<(u32, u32)>,
    wrong: Option<String>,
    slow: Option<String>,
}

fn live(seed: u64, guard: Option<Guard>) -> Outcome {
    let (trace, parameters) = random(seed);
    assert_eq!((trace.mistakes(), parameters.mistakes()), (vec![], vec![]), "seed {seed}");
    let mut chance = Chance::new(seed ^ 0x5eed);
    let deaths: Vec<(u32, u32)> = (0..chance.count(0..4))
        .map(|_| (chance.count(60..trace.seconds), chance.count(0..90)))
        .collect();
    let mut instances = Instances::new(&parameters, guard, deaths.clone());
    let mut checker = Checker::new(&trace, &parameters, deaths);
    let report = drive(&trace, &mut instances, &parameters, &mut |model, events| {
        checker.second(model, events);
    });
    checker.end();
    Outcome { report, drained: checker.drained, wrong: checker.wrong, slow: checker.slow }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn laws_hold_for_every_random_load() {
    if let Some(seed) = number("ELKFK_SIMULATION_SEED") {
        let outcome = live(seed, None);
        println!("{:#?}\n{}", random(seed).1, table([&outcome.report]));
        println!("{}", decision_log(&outcome.report, false));
        assert_eq!(outcome.wrong, None);
        return;
    }
    let mut drained = Vec::new();
    let (mut wrong, mut slow) = (Vec::new(), Vec::new());
    let mut steps = 0;
    let seeds = number("ELKFK_SIMULATION_SEEDS").unwrap_or(SEEDS);
    for seed in 0..seeds {
        let outcome = live(seed, None);
        wrong.extend(outcome.wrong.map(|law| format!("ELKFK_SIMULATION_SEED={seed}: {law}")));
        slow.extend(outcome.slow.map(|law| format!("ELKFK_SIMULATION_SEED={seed}: {law}")));
        drained.extend(outcome.drained);
        steps += outcome.report.changes;
    }
    let mut shares: Vec<f64> = drained
        .iter()
        .map(|(took, optimum)| f64::from(*took) / f64::from((*optimum).max(1)))
        .collect();
    shares.sort_by(f64::total_cmp);
    let share = |percent: usize| shares.get(shares.len() * percent / 100).copied().unwrap_or(0.0);
    println!(
        "{steps} steps, {} long episodes; of the clairvoyant's time: median {:.2}, 95 % {:.2}, most {:.2}",
        shares.len(),
        share(50),
        share(95),
        shares.last().copied().unwrap_or(0.0)
    );
    assert!(wrong.is_empty(), "{} seeds:\n{}", wrong.len(), wrong.join("\n"));
    // A probe judges by 30 s of consumption, and can be wrong about a step whose gain comes later.
    // None of the usual seeds is such; of many, one in a thousand may be, and never beyond 3 times.
    let most_slow = if seeds <= SEEDS { 0 } else { seeds as usize / 1000 };
    assert!(slow.len() <= most_slow, "{} slow seeds:\n{}", slow.len(), slow.join("\n"));
    println!("{} of {seeds} seeds above twice the optimum", slow.len());
    // Laws over loads that never call for a step would say nothing.
    assert!(u64::from(steps) > seeds / 2 && shares.len() as u64 > seeds / 20, "{steps} steps");
}

#[test]
fn a_seed_decides_everything() {
    for seed in 0..20 {
        assert_eq!(random(seed), random(seed), "seed {seed}");
        assert_eq!(live(seed, None), live(seed, None), "seed {seed}");
    }
}

#[test]
fn each_broken_guard_is_noticed() {
    let guards = [
        Guard::Mode,
        Guard::Hold,
        Guard::TimeLag,
        Guard::DrainTarget,
        Guard::Blocked,
        Guard::Stalled,
        Guard::Rebalance,
        Guard::NoGainPause,
        Guard::ConsumerCooldown,
        Guard::PartitionCooldown,
        Guard::PartitionsAfterConsumers,
        Guard::Undisturbed,
        Guard::ConsumersUpToPartitions,
        Guard::ConsumersMax,
        Guard::AtMostDouble,
        Guard::ConsumersFirst,
        Guard::ArrivalLow,
        Guard::PartitionsMax,
        Guard::Compacted,
        Guard::ForeignKeys,
        Guard::HotFile,
        Guard::HotPartition,
        Guard::IdlePartitions,
        Guard::TooFewBrokers,
        Guard::Replicas,
        Guard::Calm,
        Guard::Fit,
        Guard::Resume,
        Guard::RetentionFloor,
        Guard::QuietUnlessChanged,
        Guard::SamplesBounded,
    ];
    let mut unnoticed = Vec::new();
    for guard in guards {
        let noticed = crate::ladder::tests::mistakes(Some(guard))
            .into_iter()
            .next()
            .or_else(|| {
                (0..SEEDS_BROKEN).find_map(|seed| {
                    Some(format!("seed {seed}, {}", live(seed, Some(guard)).wrong?))
                })
            })
            .or_else(|| scenario_mistakes(Some(guard)).into_iter().next());
        println!("{guard:?}: {noticed:?}");
        if noticed.is_none() {
            unnoticed.push(guard);
        }
    }
    assert_eq!(unnoticed, []);
}

#[test]
fn a_shrinking_topic_is_noticed() {
    let (trace, parameters) = (Trace::default(), acting());
    let mut checker = Checker::new(&trace, &parameters, Vec::new());
    let mut model = Model::new(&trace);
    model.tick();
    checker.second(&model, &[]);
    model.apply(Step { partitions: 3, ..model.counts() });
    model.tick();
    checker.second(&model, &[]);
    assert!(checker.wrong.is_some_and(|wrong| wrong.contains("shrank")));
}

#[test]
fn the_model_breaks_the_order_of_hashed_keys_and_never_of_files() {
    let trace = Trace {
        arrival: vec![Change { at_s: 0, per_s: 60e3 }],
        is_keyed: true,
        seconds: 900,
        ..Trace::default()
    };
    assert!(run(&trace, Policy::Naive, &acting()).order_broken > 0);
    let files = Trace { is_keyed: false, ..trace };
    let report = run(&files, Policy::Naive, &acting());
    assert!(report.partitions > 4);
    assert_eq!(report.order_broken, 0);
}

#[test]
fn a_trace_is_read_from_json_and_judged() {
    let text = r#"{"name": "monday", "seconds": 600, "arrival": [{"at_s": 0, "per_s": 5000}]}"#;
    let trace: Trace = serde_json::from_str(text).unwrap();
    assert_eq!((trace.partitions, trace.mistakes()), (4, vec![]));
    let report = run(&trace, Policy::Ladder, &acting());
    assert_eq!((report.changes, report.lag_at_end), (0, 0));
    assert!(decision_log(&report, false).contains("not-hot"), "{}", decision_log(&report, false));
    let text = r#"{"partitions": 0, "per_consumer": -1, "hot_file_share": 2,
        "arrival": [{"at_s": 9, "per_s": 1}, {"at_s": 3, "per_s": -1}]}"#;
    let trace: Trace = serde_json::from_str(text).unwrap();
    assert_eq!(trace.mistakes().len(), 5, "{:?}", trace.mistakes());
    assert!(serde_json::from_str::<Trace>(r#"{"partition": 3}"#).is_err());
}

/// The table and log of `docs/autoscaler.md`.
#[test]
fn the_page_shows_what_the_simulation_prints() {
    let page = include_str!("../../../docs/autoscaler.md");
    let mut printed = String::new();
    for (name, _) in SCENARIOS {
        let trace = scenario(name).expect("it is one of the seven");
        printed += &table(&Policy::ALL.map(|policy| run(&trace, policy, &acting())));
    }
    assert!(page.contains(&printed), "docs/autoscaler.md has another table than:\n{printed}");
}
