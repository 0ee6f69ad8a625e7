//! The backlog ladder: which remedy, if any, a growing backlog gets.
//!
//! It acts on how long records wait, not on how many wait. Remedies come in the order of what they
//! cost: parser threads, consumers, partitions; each step is probed for its gain before the next, and
//! what scale can not help (Elasticsearch, a stalled partition, one hot file) is said instead.
//! Pure state: no socket, no clock. One ladder for each group and topic.

mod event;
mod explain;
mod guard;
mod memory;
mod observation;
mod parameters;
mod retention;
#[cfg(test)]
pub(crate) mod tests;
mod why;
mod window;

pub use event::{Action, Advice, Alarm, Decision, Effect, Event, Inputs, Rule, Verdict};
pub use explain::{Asked, explain};
pub use observation::{Cluster, HotFile, Observation, Partition, Retention, Sink, TopicFacts};
pub use parameters::*;
pub use why::{number, of_action, seconds};

pub(crate) use guard::Guard;
use guard::Guards;
use memory::{Memory, Probe};
use window::{SATURATED_S, Signals, Window};

/// Stalled partitions named in an alarm; the rest are counted.
const STALLED_NAMED: usize = 16;
/// Share of their fair share of the arrival from which new partitions count as filled.
const FILLED_SHARE: f64 = 0.75;
/// Seconds over which a saturated consumer's rate is taken.
const CAPACITY_RATE_S: f64 = 60.0;
/// How fast a capacity seen once is forgotten, each time less is seen.
const CAPACITY_KEPT: f64 = 0.98;

/// Decides for one group and topic.
#[derive(Debug)]
pub struct Ladder {
    group: String,
    topic: String,
    parameters: Parameters,
    window: Window,
    memory: Memory,
    /// Since when the backlog is hot, with and without stalled partitions.
    all_hot_since_ms: Option<i64>,
    hot_since_ms: Option<i64>,
    /// Since when nothing has waited.
    calm_since_ms: Option<i64>,
    /// What was last told, and when.
    told: Option<(Told, i64)>,
    guards: Guards,
}

#[derive(Debug, Clone, PartialEq)]
struct Told {
    rule: Rule,
    alarms: Vec<&'static str>,
}

/// What a rung says: its rule, and what is to be done.
#[derive(Debug)]
struct Rung {
    rule: Rule,
    action: Option<Action>,
}

impl From<Rule> for Rung {
    fn from(rule: Rule) -> Self {
        Self { rule, action: None }
    }
}

impl Ladder {
    /// What one holds at most, of a topic with so many partitions: its window, and some kilobytes of texts.
    pub fn bytes_max(partitions: usize) -> usize {
        const TEXTS: usize = 4 << 10;
        Window::bytes_max(partitions) + size_of::<Self>() + TEXTS
    }

    pub fn new(group: impl Into<String>, topic: impl Into<String>, parameters: Parameters) -> Self {
        Self {
            group: group.into(),
            topic: topic.into(),
            parameters,
            window: Window::default(),
            memory: Memory::default(),
            all_hot_since_ms: None,
            hot_since_ms: None,
            calm_since_ms: None,
            told: None,
            guards: Guards::default(),
        }
    }

    /// A ladder that knows of the steps in `events`, in the order they were written, so that it
    /// keeps to the cooldowns of the instance before. Events of other groups and topics are passed over.
    pub fn resume<'a>(
        group: impl Into<String>,
        topic: impl Into<String>,
        parameters: Parameters,
        events: impl IntoIterator<Item = &'a Event>,
    ) -> Self {
        let mut ladder = Self::new(group, topic, parameters);
        ladder.remember(events);
        ladder
    }

    pub(crate) fn remember<'a>(&mut self, events: impl IntoIterator<Item = &'a Event>) {
        for event in events {
            let (group, topic) = event.of();
            if group == self.group && topic == self.topic && self.guards.stands(Guard::Resume) {
                self.memory.take(event);
            }
        }
    }

    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// Takes other parameters; what is remembered of steps stays.
    pub fn set_parameters(&mut self, parameters: Parameters) {
        self.parameters = parameters;
    }

    #[cfg(test)]
    pub(crate) fn break_guard(&mut self, guard: Option<Guard>) {
        self.guards.broken = guard;
    }

    /// Advances by one observation, to be made every `interval_s`.
    ///
    /// The events are to be written before their actions are performed: who takes over in between
    /// then takes the action for done, which costs a cooldown, instead of doing it twice.
    /// Returns at most one decision, and before it the effect of the last step if that is now known.
    pub fn step(&mut self, now_ms: i64, observation: &Observation) -> Vec<Event> {
        let mut events = Vec::new();
        if let Some(last_ms) = self.window.last_at_ms() {
            let since_ms = now_ms - last_ms;
            if since_ms < 0 {
                // The clock was set back.
                self.forget_rates();
            } else if since_ms < ms(self.parameters.interval_s / 2.0) {
                return events;
            } else if since_ms > ms(self.parameters.window_s) {
                // Nobody looked for a while, say the process was stopped: the time in between may
                // have been anything.
                self.forget_rates();
            }
        }
        self.memory.no_later_than(now_ms);
        let is_bounded = self.guards.stands(Guard::SamplesBounded);
        if !self.window.push(now_ms, observation, &self.parameters, is_bounded) {
            self.forget_times();
        }
        if self.parameters.mode == Mode::Off && self.guards.stands(Guard::Mode) {
            return events;
        }

        let all =
            self.window.signals(now_ms, observation, &vec![false; observation.partitions.len()]);
        // Half a window of standing still is enough to be left out, the whole is an alarm: a partition
        // may be hot, and that for long enough, before it has stood still for all of the window.
        let window_s = self.parameters.window_s;
        let standing = |seconds| match self.guards.stands(Guard::Stalled) {
            true => self.window.stalled(observation, seconds),
            false => vec![false; observation.partitions.len()],
        };
        let (is_left_out, is_stalled) = (standing(window_s / 2.0), standing(window_s));
        let rest = self.window.signals(now_ms, observation, &is_left_out);
        self.learn_capacity(now_ms, observation, &rest);
        if let Some(verdict) = self.judge_last_step(now_ms, observation, &rest) {
            self.conclude_last_step(now_ms, verdict, &mut events);
        }

        let is_full = self.window.is_full(&self.parameters);
        let is_all_hot = is_full && self.is_hot(&all);
        let is_hot = is_full && self.is_hot(&rest);
        set_since(&mut self.all_hot_since_ms, is_all_hot, now_ms);
        set_since(&mut self.hot_since_ms, is_hot, now_ms);
        let is_calm = is_full && !is_all_hot && all.time_lag_s <= self.parameters.hot_s;
        set_since(&mut self.calm_since_ms, is_calm, now_ms);

        let inputs = self.inputs(now_ms, observation, &all, &rest, &is_left_out);
        if inputs.calm_for_s >= self.parameters.calm_s {
            self.memory.is_parsing_acquitted = false;
        }
        let decided = self.decide(observation, &all, &inputs);
        let alarms = self.alarms(now_ms, observation, &decided, &rest, &is_stalled);
        let mut advice: Vec<Advice> =
            retention::advice(now_ms, observation, self.guards).into_iter().collect();
        if decided.rule == Rule::SinkBlocked {
            advice.push(Advice::BulkConcurrency);
        }

        let is_acting = self.parameters.mode == Mode::Auto || !self.guards.stands(Guard::Mode);
        let action = decided.action.filter(|_| is_acting);
        if action.is_some() {
            self.conclude_last_step(now_ms, Verdict::Overtaken, &mut events);
        }
        let told = Told { rule: decided.rule, alarms: alarms.iter().map(Alarm::name).collect() };
        let is_new = self.told.as_ref().is_none_or(|(last, at_ms)| {
            *last != told || now_ms - at_ms >= ms(REPEAT_S) || now_ms < *at_ms
        });
        if action.is_some() || is_new || !self.guards.stands(Guard::QuietUnlessChanged) {
            self.told = Some((told, now_ms));
            let mut decision = Decision {
                at_ms: now_ms,
                group: self.group.clone(),
                topic: self.topic.clone(),
                mode: self.parameters.mode,
                rule: decided.rule,
                action,
                advised: decided.action.filter(|_| !is_acting),
                alarms,
                advice,
                inputs,
                parameters: self.parameters.clone(),
                why: String::new(),
            };
            decision.why = why::of_decision(&decision, &self.parameters, observation);
            let event = Event::Decision(Box::new(decision));
            self.memory.take(&event);
            events.push(event);
        }
        events
    }

    /// Takes note that the action of `decision` could not be performed, for the reason `why`.
    ///
    /// Returns its effect, to be written. Its cooldown stays, so that it is not tried again at once.
    pub fn not_carried_out(
        &mut self,
        now_ms: i64,
        decision: &Decision,
        why: &str,
    ) -> Option<Event> {
        let action = decision.action?;
        let consumed = decision.inputs.consumed_per_s;
        let event = Event::Effect(Effect {
            at_ms: now_ms,
            of_ms: decision.at_ms,
            group: self.group.clone(),
            topic: self.topic.clone(),
            action,
            consumed_before_per_s: consumed,
            consumed_after_per_s: consumed,
            expected_gain: action.expected_gain().unwrap_or(0.0),
            gain: 0.0,
            verdict: Verdict::NotCarriedOut,
            why: format!("It was not done that {}: {why}.", why::of_action(action)),
        });
        self.memory.take(&event);
        Some(event)
    }

    fn forget_rates(&mut self) {
        self.window.clear();
        self.forget_times();
    }

    fn forget_times(&mut self) {
        self.all_hot_since_ms = None;
        self.hot_since_ms = None;
        self.calm_since_ms = None;
    }

    /// Records wait too long, and not for a backlog that is being worked off in time.
    fn is_hot(&self, signals: &Signals) -> bool {
        let waits = match self.guards.stands(Guard::TimeLag) {
            true => signals.time_lag_s > self.parameters.hot_s,
            false => signals.lag > 0.0,
        };
        let drains = signals.growth <= 0.0
            && signals.drain_s.is_some_and(|s| s <= self.parameters.drain_target_s);
        waits && !(drains && self.guards.stands(Guard::DrainTarget))
    }

    /// The ladder itself, rung by rung.
    fn decide(&self, observation: &Observation, all: &Signals, inputs: &Inputs) -> Rung {
        let parameters = &self.parameters;
        let stands = |guard| self.guards.stands(guard);
        if !self.window.is_full(parameters) {
            return Rule::Watching.into();
        }
        if self.all_hot_since_ms.is_none() {
            if let Some(action) = self.scale_in(observation, inputs) {
                return Rung { rule: Rule::ScaleIn, action: Some(action) };
            }
            return if all.time_lag_s > parameters.hot_s { Rule::Draining } else { Rule::NotHot }
                .into();
        }
        if inputs.all_hot_for_s < parameters.hold_s && stands(Guard::Hold) {
            return Rule::Holding.into();
        }
        let is_away = observation.sink.as_ref().is_some_and(|sink| sink.is_elasticsearch_away);
        if (is_away || inputs.blocked_share > parameters.blocked_max) && stands(Guard::Blocked) {
            return Rule::SinkBlocked.into();
        }
        if observation.is_rebalancing && stands(Guard::Rebalance) {
            return Rule::Rebalancing.into();
        }
        if inputs.consumers == 0 {
            return Rule::NoConsumers.into();
        }
        if all.consumed <= 0.0 && stands(Guard::Stalled) {
            return Rule::Stopped.into();
        }
        if self.hot_since_ms.is_none() {
            return Rule::Stalled.into();
        }
        // Stalled partitions were hot before the others.
        if inputs.hot_for_s < parameters.hold_s && stands(Guard::Hold) {
            return Rule::Holding.into();
        }
        if inputs.pause_left_s > 0.0 && stands(Guard::NoGainPause) {
            return Rule::NoGain.into();
        }
        self.step_up(observation, inputs)
    }

    /// Workers, then consumers, then partitions.
    fn step_up(&self, observation: &Observation, inputs: &Inputs) -> Rung {
        let parameters = &self.parameters;
        let stands = |guard| self.guards.stands(guard);
        let is_cool =
            |since_s: Option<f64>, cooldown_s: f64| since_s.is_none_or(|s| s >= cooldown_s);
        let cooled = is_cool(inputs.since_consumers_s, parameters.consumer_cooldown_s)
            || !stands(Guard::ConsumerCooldown);

        if inputs.workers < inputs.workers_max && !self.memory.is_parsing_acquitted {
            if !cooled {
                return Rule::ConsumerCooldown.into();
            }
            let to = self.wanted(inputs.workers, inputs).min(inputs.workers_max);
            let action = Action::Workers { from: inputs.workers, to };
            return Rung { rule: Rule::Workers, action: Some(action) };
        }

        let consumers_max = match stands(Guard::ConsumersMax) {
            true => inputs.consumers_max,
            false => u32::MAX,
        };
        let consumers_room = match stands(Guard::ConsumersUpToPartitions) {
            true => consumers_max.min(inputs.partitions),
            false => consumers_max,
        };
        if inputs.consumers < consumers_room && stands(Guard::ConsumersFirst) {
            if !cooled {
                return Rule::ConsumerCooldown.into();
            }
            let to = self.consumers_wanted(inputs.partitions, inputs).min(consumers_room);
            let action = Action::Consumers { from: inputs.consumers, to };
            return Rung { rule: Rule::Consumers, action: Some(action) };
        }
        if inputs.consumers >= consumers_max
            || (inputs.partitions >= inputs.partitions_max && stands(Guard::PartitionsMax))
        {
            return Rule::Maximum.into();
        }

        if let Some(refusal) = self.refusal(observation, inputs) {
            return refusal.into();
        }
        let is_cooled = (is_cool(inputs.since_partitions_s, parameters.partition_cooldown_s)
            || !stands(Guard::PartitionCooldown))
            && (is_cool(inputs.since_consumers_s, parameters.partitions_after_consumers_s)
                || !stands(Guard::PartitionsAfterConsumers));
        if !is_cooled {
            return Rule::PartitionCooldown.into();
        }
        // Rates across an outage or a rebalance are too low, and this step can not be undone.
        if self.window.is_disturbed() && stands(Guard::Undisturbed) {
            return Rule::Disturbed.into();
        }
        if let Some(futility) = self.futility(inputs) {
            return futility.into();
        }
        let to = self.partitions_wanted(inputs);
        let consumers_to = self.consumers_wanted(to, inputs).min(consumers_max).min(to);
        let action = Action::Partitions {
            from: inputs.partitions,
            to,
            consumers_from: inputs.consumers,
            // Those that a person started beyond the partitions stay.
            consumers_to: consumers_to.max(inputs.consumers.min(to)),
        };
        Rung { rule: Rule::Partitions, action: Some(action) }
    }

    /// Doubling keeps the place of half of the keys, and the partitions a multiple of the consumers.
    fn partitions_wanted(&self, inputs: &Inputs) -> u32 {
        let to = inputs.partitions.saturating_mul(2).max(self.parameters.partitions_min);
        match self.guards.stands(Guard::PartitionsMax) {
            true => to.min(inputs.partitions_max),
            false => to,
        }
    }

    /// Enough consumers, and as many more as it takes for none to have a partition more than others:
    /// with 11 consumers for 14 partitions, three would have twice the work, and the backlog is theirs.
    fn consumers_wanted(&self, partitions: u32, inputs: &Inputs) -> u32 {
        let wanted = self.wanted(inputs.consumers, inputs);
        let each = (partitions / wanted.max(1)).max(1);
        let even = partitions.div_ceil(each);
        even.min(self.most(inputs.consumers)).max(wanted)
    }

    /// How many of what limits are needed to catch up: one more at least, twice as many at most.
    fn wanted(&self, count: u32, inputs: &Inputs) -> u32 {
        let share =
            self.parameters.catch_up * inputs.arrival_per_s / inputs.consumed_per_s.max(1.0);
        // A float beyond u32 saturates.
        let wanted = (f64::from(count) * share).ceil() as u32;
        wanted.max(count + 1).min(self.most(count))
    }

    fn most(&self, count: u32) -> u32 {
        match self.guards.stands(Guard::AtMostDouble) {
            true => count.saturating_mul(2).max(count + 1),
            false => u32::MAX,
        }
    }

    /// Why partitions would not help or would do harm.
    fn refusal(&self, observation: &Observation, inputs: &Inputs) -> Option<Rule> {
        let stands = |guard| self.guards.stands(guard);
        let facts = &observation.topic;
        if facts.is_compacted && stands(Guard::Compacted) {
            return Some(Rule::RefusedCompacted);
        }
        let is_foreign = facts.has_foreign_keys && !self.parameters.is_foreign_keys_allowed;
        if is_foreign && stands(Guard::ForeignKeys) {
            return Some(Rule::RefusedForeignKeys);
        }
        let is_hot = facts.hottest_file.as_ref().is_some_and(|file| file.share >= HOT_SHARE);
        if is_hot && stands(Guard::HotFile) {
            return Some(Rule::RefusedHotFile);
        }
        let cluster = &observation.cluster;
        let factor = facts.replication_factor.max(1);
        if cluster.brokers < factor && stands(Guard::TooFewBrokers) {
            return Some(Rule::RefusedTooFewBrokers);
        }
        let added = u64::from(self.partitions_wanted(inputs).saturating_sub(inputs.partitions))
            * u64::from(factor);
        let room = self.parameters.replicas_per_broker_max.saturating_mul(cluster.brokers.into());
        if cluster.replicas.saturating_add(added) > room && stands(Guard::Replicas) {
            return Some(Rule::RefusedReplicas);
        }
        None
    }

    /// Why new partitions would stay as good as empty.
    fn futility(&self, inputs: &Inputs) -> Option<Rule> {
        let stands = |guard| self.guards.stands(guard);
        if inputs.arrival_per_s < self.parameters.arrival_min * inputs.consumed_per_s
            && stands(Guard::ArrivalLow)
        {
            return Some(Rule::ArrivalLow);
        }
        // Three times its fair share, so that one of two partitions is not called hot for half.
        let fair = 3.0 / f64::from(inputs.partitions.max(1));
        // What waits in one partition waits there whatever is added beside it.
        let share = inputs.hottest_partition_share.max(inputs.fullest_partition_share);
        let is_hot = share >= HOT_SHARE.max(fair.min(0.99));
        if inputs.partitions > 1 && is_hot && stands(Guard::HotPartition) {
            return Some(Rule::RefusedHotPartition);
        }
        // Who does not use the partitions there are will not use more.
        if inputs.idle_partitions * 4 > inputs.partitions && stands(Guard::IdlePartitions) {
            return Some(Rule::RefusedIdlePartitions);
        }
        None
    }

    /// Fewer consumers, if long calm says that fewer do. Partitions never shrink.
    fn scale_in(&self, observation: &Observation, inputs: &Inputs) -> Option<Action> {
        let parameters = &self.parameters;
        let stands = |guard| self.guards.stands(guard);
        let is_long_calm = inputs.calm_for_s >= parameters.calm_s
            && inputs.since_consumers_s.is_none_or(|s| s >= parameters.calm_s)
            && self.window.remembered_s() >= parameters.calm_s - 2.0 * parameters.interval_s;
        if (!is_long_calm && stands(Guard::Calm)) || observation.is_rebalancing {
            return None;
        }
        // A capacity never seen is not guessed.
        let capacity = inputs.consumer_capacity_per_s?;
        let partitions = inputs.partitions.max(1);
        let peak = inputs.peak_arrival_per_s;
        let fits = |consumers: u32| {
            // Some consumer has the odd partition, some has the hottest.
            let odd = f64::from(partitions.div_ceil(consumers)) / f64::from(partitions);
            let share = odd.max(inputs.hottest_partition_share);
            share * peak < parameters.scale_in_fit * capacity
        };
        let to = match stands(Guard::Fit) {
            true => (parameters.consumers_min.max(1)..inputs.consumers).find(|&n| fits(n))?,
            false => parameters.consumers_min,
        };
        (to < inputs.consumers).then_some(Action::Consumers { from: inputs.consumers, to })
    }

    /// What a consumer takes is known only while it has all it could take.
    fn learn_capacity(&mut self, now_ms: i64, observation: &Observation, signals: &Signals) {
        let since_s = Memory::since_s(self.memory.consumers_ms, now_ms);
        if !self.window.is_full(&self.parameters)
            || observation.consumers == 0
            || since_s.is_some_and(|s| s < CAPACITY_RATE_S + self.parameters.interval_s)
            || self.window.blocked_share() > 0.1
            || signals.time_lag_s < SATURATED_S
        {
            return;
        }
        let rate = self.window.consumed_lately(CAPACITY_RATE_S);
        // While old partitions drain and new ones are empty, some consumers have little to do.
        let partitions = observation.partitions.len() as u32;
        let in_use = partitions - signals.idle_partitions.min(partitions);
        let needed = (in_use * 4 / 5).max(observation.consumers.min(partitions));
        if signals.saturated_partitions < needed || rate <= 0.0 {
            return;
        }
        let seen = rate / f64::from(observation.consumers.min(partitions).max(1));
        let kept = self.memory.consumer_capacity.map_or(0.0, |kept| kept * CAPACITY_KEPT);
        self.memory.consumer_capacity = Some(seen.max(kept));
    }

    /// What the last step brought, once that can be known.
    fn judge_last_step(
        &self,
        now_ms: i64,
        observation: &Observation,
        signals: &Signals,
    ) -> Option<Verdict> {
        let Probe { at_ms, action, consumed_before } = self.memory.probe?;
        let expected_gain = action.expected_gain()?;
        let since_ms = now_ms.saturating_sub(at_ms);
        if since_ms < ms(self.parameters.probe_s) || !self.window.is_full(&self.parameters) {
            return None;
        }
        let after = self.window.consumed_lately(PROBE_RATE_S);
        let gain = after / consumed_before.max(1.0) - 1.0;
        let workers = observation.sink.as_ref().map_or(0, |sink| sink.workers);
        let is_carried_out = match action {
            Action::Workers { to, .. } => workers >= to,
            Action::Consumers { to, .. } => observation.consumers >= to,
            Action::Partitions { to, consumers_to, .. } => {
                observation.partitions.len() as u32 >= to && observation.consumers >= consumers_to
            }
        };
        let is_late = since_ms
            > ms(self.parameters.probe_s.max(self.parameters.partition_cooldown_s)
                + 3.0 * self.parameters.window_s);
        Some(if is_late {
            Verdict::Unseen
        } else if self.window.blocked_share() > self.parameters.blocked_max {
            Verdict::Blocked
        } else if !self.is_hot(signals) {
            Verdict::Drained
        } else if gain >= self.parameters.gain_min * expected_gain {
            Verdict::Gained
        } else if is_carried_out
            && (self.is_filling(now_ms, at_ms, action)
                // A consumer died just now: what is consumed says nothing of the step.
                || self.window.is_interrupted(PROBE_RATE_S + self.parameters.interval_s))
        {
            return None;
        } else if is_carried_out {
            Verdict::NoGain
        } else {
            Verdict::NotCarriedOut
        })
    }

    fn conclude_last_step(&mut self, now_ms: i64, verdict: Verdict, events: &mut Vec<Event>) {
        let Some(Probe { at_ms, action, consumed_before }) = self.memory.probe else { return };
        let after = self.window.consumed_lately(PROBE_RATE_S);
        let mut effect = Effect {
            at_ms: now_ms,
            of_ms: at_ms,
            group: self.group.clone(),
            topic: self.topic.clone(),
            action,
            consumed_before_per_s: consumed_before,
            consumed_after_per_s: after,
            expected_gain: action.expected_gain().unwrap_or(0.0),
            gain: after / consumed_before.max(1.0) - 1.0,
            verdict,
            why: String::new(),
        };
        effect.why = why::of_effect(&effect, &self.parameters);
        let event = Event::Effect(effect);
        self.memory.take(&event);
        events.push(event);
    }

    /// New partitions fill as files rotate. Until then nothing can be gained, and until the next
    /// expansion may come there is time to wait for it.
    fn is_filling(&self, now_ms: i64, step_ms: i64, action: Action) -> bool {
        let Action::Partitions { from, to, .. } = action else { return false };
        let fair = f64::from(to.saturating_sub(from)) / f64::from(to.max(1));
        let share = self.window.arrival_share_from(from, PROBE_RATE_S);
        share < FILLED_SHARE * fair
            && now_ms.saturating_sub(step_ms) < ms(self.parameters.partition_cooldown_s)
    }

    fn inputs(
        &self,
        now_ms: i64,
        observation: &Observation,
        all: &Signals,
        rest: &Signals,
        is_stalled: &[bool],
    ) -> Inputs {
        let parameters = &self.parameters;
        let since_s = |at_ms| Memory::since_s(at_ms, now_ms).unwrap_or(0.0);
        let sink = observation.sink.as_ref();
        Inputs {
            arrival_per_s: rest.arrival,
            consumed_per_s: rest.consumed,
            lag_records: all.lag as u64,
            counted_lag_records: rest.lag as u64,
            time_lag_s: rest.time_lag_s,
            growth_per_s: rest.growth,
            drain_s: rest.drain_s,
            all_hot_for_s: since_s(self.all_hot_since_ms),
            hot_for_s: since_s(self.hot_since_ms),
            calm_for_s: since_s(self.calm_since_ms),
            blocked_share: self.window.blocked_share(),
            stalled: is_stalled.iter().filter(|&&is| is).count() as u32,
            workers: sink.map_or(0, |sink| sink.workers),
            workers_max: sink.map_or(0, |sink| sink.workers_max.min(parameters.workers_max)),
            consumers: observation.consumers,
            consumers_max: sink.map_or(parameters.consumers_max, |s| {
                s.processes_max.min(parameters.consumers_max)
            }),
            partitions: observation.partitions.len() as u32,
            partitions_max: parameters.partitions_max,
            since_consumers_s: Memory::since_s(self.memory.consumers_ms, now_ms),
            since_partitions_s: Memory::since_s(self.memory.partitions_ms, now_ms),
            pause_left_s: self.memory.pause_left_s(now_ms, parameters),
            consumer_capacity_per_s: self.memory.consumer_capacity,
            peak_arrival_per_s: self.window.peak_arrival(),
            hottest_partition_share: rest
                .hottest
                .map_or(0.0, |(_, rate)| rate / rest.arrival.max(1e-9)),
            fullest_partition_share: rest.fullest.map_or(0.0, |(_, lag)| lag / rest.lag.max(1.0)),
            idle_partitions: rest.idle_partitions,
            is_rebalancing: observation.is_rebalancing,
            is_parsing_acquitted: self.memory.is_parsing_acquitted,
            hottest_file_share: observation.topic.hottest_file.as_ref().map_or(0.0, |f| f.share),
            replication_factor: observation.topic.replication_factor,
            brokers: observation.cluster.brokers,
            replicas: observation.cluster.replicas,
        }
    }

    fn alarms(
        &self,
        now_ms: i64,
        observation: &Observation,
        decided: &Rung,
        rest: &Signals,
        is_stalled: &[bool],
    ) -> Vec<Alarm> {
        let mut alarms = Vec::new();
        alarms.extend(match decided.rule {
            Rule::SinkBlocked => Some(Alarm::Sink),
            Rule::NoConsumers => Some(Alarm::NoConsumers),
            Rule::Stopped => Some(Alarm::Stopped),
            Rule::NoGain => Some(Alarm::NoGain),
            Rule::Maximum => Some(Alarm::Maximum),
            Rule::RefusedHotFile => {
                let file = observation.topic.hottest_file.as_ref();
                file.map(|file| Alarm::HotFile { path: file.path.clone() })
            }
            Rule::RefusedHotPartition => {
                let fullest = rest.fullest.or(rest.hottest);
                fullest.map(|(partition, _)| Alarm::HotPartition { partition })
            }
            _ => None,
        });
        let count = is_stalled.iter().filter(|&&is| is).count() as u32;
        // While Elasticsearch blocks, or nobody reads, nothing moves: that is not the partitions' doing.
        let is_their_own = rest.consumed > 0.0
            && self.window.blocked_share() <= self.parameters.blocked_max
            && !matches!(decided.rule, Rule::NoConsumers | Rule::Rebalancing);
        if count > 0 && is_their_own && self.all_hot_since_ms.is_some() {
            let stalled = is_stalled.iter().enumerate().filter(|(_, is)| **is);
            let partitions = stalled.map(|(at, _)| at as u32).take(STALLED_NAMED).collect();
            alarms.push(Alarm::Stalled { partitions, count });
        }
        alarms.extend(retention::alarm(now_ms, observation));
        alarms
    }
}

/// Keeps the moment since when something `is` so.
fn set_since(since_ms: &mut Option<i64>, is: bool, now_ms: i64) {
    *since_ms = if is { since_ms.or(Some(now_ms)) } else { None };
}

fn ms(seconds: f64) -> i64 {
    parameters::ms(seconds)
}
