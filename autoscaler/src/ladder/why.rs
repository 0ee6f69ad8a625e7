//! Each decision in one sentence, for the person who asks why the backlog got nothing, or got this.

use super::event::{Action, Decision, Effect, Rule, Verdict};
use super::observation::Observation;
use super::parameters::Parameters;

/// The sentence of a decision.
pub(super) fn of_decision(
    decision: &Decision,
    parameters: &Parameters,
    observation: &Observation,
) -> String {
    let inputs = &decision.inputs;
    let wait = seconds(inputs.time_lag_s);
    let arrival = number(inputs.arrival_per_s);
    let consumed = number(inputs.consumed_per_s);
    let rates = format!("{arrival}/s arrive and {consumed}/s are consumed");
    let partitions = inputs.partitions;
    let act = match decision.action.or(decision.advised) {
        Some(action) if decision.action.is_none() => format!("{} (advice)", of_action(action)),
        Some(action) => of_action(action),
        None => String::new(),
    };
    match decision.rule {
        Rule::Watching => {
            format!("Rates are not known yet: they are taken over {}.", seconds(parameters.window_s))
        }
        Rule::NotHot => format!("Records wait {wait}, which is no backlog."),
        Rule::Draining => {
            let drain = inputs.drain_s.map_or_else(|| "soon".into(), |s| format!("in {}", seconds(s)));
            format!("Records wait {wait}, and the backlog is worked off {drain}: {rates}.")
        }
        Rule::ScaleIn => format!(
            "Calm for {}, and the busiest minute of it had {}/s, which fewer consumers take: {act}.",
            seconds(inputs.calm_for_s),
            number(inputs.peak_arrival_per_s)
        ),
        // Where those that stand still are all that waits, the rest waits for nothing.
        Rule::Holding if inputs.stalled > 0 && inputs.hot_for_s <= 0.0 => format!(
            "What waits is in {} of {partitions} partitions whose offset does not move; it counts once that has lasted {}.",
            inputs.stalled,
            seconds(parameters.hold_s)
        ),
        Rule::Holding => format!(
            "Records wait {wait}; a step is taken only once that has lasted {}.",
            seconds(parameters.hold_s)
        ),
        Rule::SinkBlocked => match &observation.sink {
            Some(sink) if sink.is_elasticsearch_away => {
                "Elasticsearch does not answer, so more readers would only wait with the others.".into()
            }
            _ => format!(
                "The sink waited for Elasticsearch {:.0} % of the time, so more readers would only wait too.",
                inputs.blocked_share * 100.0
            ),
        },
        Rule::NoConsumers => "Nobody reads this topic in this group: start the sink.".into(),
        Rule::Stopped => format!(
            "No partition's committed offset has moved for {}: the {} consumers stand still.",
            seconds(parameters.window_s),
            inputs.consumers
        ),
        Rule::Stalled => format!(
            "What waits is in {} of {partitions} partitions whose offset does not move: look at the record there; more readers do not free it.",
            inputs.stalled
        ),
        Rule::Rebalancing => "The group rebalances, and a step now would start that over.".into(),
        Rule::NoGain => format!(
            "The last step did not raise consumption, so something else limits: nothing is added for {}.",
            seconds(inputs.pause_left_s)
        ),
        Rule::ConsumerCooldown => format!(
            "Records wait {wait}, but the last step is {} old and shows its effect after {}.",
            seconds(inputs.since_consumers_s.unwrap_or_default()),
            seconds(parameters.consumer_cooldown_s)
        ),
        Rule::Workers | Rule::Consumers => format!("Records wait {wait}, {rates}: {act}."),
        Rule::Maximum => format!(
            "Records wait {wait}, {rates}, and all is at its maximum: {} of {} consumers, {partitions} of {} partitions.",
            inputs.consumers, inputs.consumers_max, inputs.partitions_max
        ),
        Rule::ArrivalLow => format!(
            "New partitions take new records only, and those are few: {rates}; the old backlog stays where it is."
        ),
        Rule::RefusedCompacted => {
            "The topic is compacted: another count of partitions would part the versions of a key.".into()
        }
        Rule::RefusedForeignKeys => {
            "The topic has keys that elkfk did not write: new partitions would break their order; allow it if order per key does not matter.".into()
        }
        Rule::RefusedHotFile => {
            let file = observation.topic.hottest_file.as_ref();
            let path = file.map_or("one file", |file| file.path.as_str());
            let share = file.map_or(0.0, |file| file.share) * 100.0;
            format!(
                "{share:.0} % of the records come from {path}, and a file keeps its partition so that its lines keep their order: new partitions would stay empty."
            )
        }
        Rule::RefusedHotPartition => format!(
            "One of {partitions} partitions gets {:.0} % of the records and holds {:.0} % of the lag: new ones would not relieve it.",
            inputs.hottest_partition_share * 100.0,
            inputs.fullest_partition_share * 100.0
        ),
        Rule::RefusedIdlePartitions => format!(
            "{} of {partitions} partitions get next to nothing: producers would not use more of them.",
            inputs.idle_partitions
        ),
        Rule::RefusedTooFewBrokers => format!(
            "{} brokers are alive, and each partition needs {} replicas.",
            observation.cluster.brokers, observation.topic.replication_factor
        ),
        Rule::RefusedReplicas => format!(
            "The cluster holds {} replicas on {} brokers, and would have more than {} on each.",
            observation.cluster.replicas,
            observation.cluster.brokers,
            parameters.replicas_per_broker_max
        ),
        Rule::PartitionCooldown => format!(
            "Every partition has its consumer and records wait {wait}, but an expansion waits until {} after the last and {} after consumers were added.",
            seconds(parameters.partition_cooldown_s),
            seconds(parameters.partitions_after_consumers_s)
        ),
        Rule::Disturbed => format!(
            "Every partition has its consumer and records wait {wait}, but reading was interrupted within the last {}: an expansion waits for undisturbed rates.",
            seconds(parameters.window_s)
        ),
        Rule::Partitions => {
            format!("Every partition has its consumer, records wait {wait}, {rates}: {act}.")
        }
    }
}

pub(super) fn of_effect(effect: &Effect, parameters: &Parameters) -> String {
    let before = number(effect.consumed_before_per_s);
    let after = number(effect.consumed_after_per_s);
    let act = of_action(effect.action);
    let rates = format!("{before}/s were consumed before, {after}/s {} later", {
        seconds(effect.at_ms.saturating_sub(effect.of_ms) as f64 / 1000.0)
    });
    match effect.verdict {
        Verdict::Gained => format!("After {act}: {rates}."),
        Verdict::NoGain => match effect.action {
            Action::Workers { .. } => {
                format!("After {act}: {rates}, so parsing is not what limits.")
            }
            _ => format!(
                "After {act}: {rates}, too little: nothing is added for {}.",
                seconds(parameters.no_gain_pause_s)
            ),
        },
        Verdict::Drained => format!("After {act}: {rates}, and the backlog is no longer hot."),
        Verdict::Blocked => {
            format!(
                "After {act}: {rates}, while Elasticsearch limits, so its gain can not be told."
            )
        }
        Verdict::NotCarriedOut => {
            format!("After {act}: {rates}, but the cluster does not have these counts.")
        }
        Verdict::Overtaken => {
            format!("After {act}: {rates}, and another step comes before its gain can be told.")
        }
        Verdict::Unseen => format!("After {act}: nobody looked in time, so its gain is not known."),
    }
}

/// What a step does: `2 consumers become 4`.
pub fn of_action(action: Action) -> String {
    match action {
        Action::Workers { from, to } => format!("{from} parser threads become {to}"),
        Action::Consumers { from, to } => format!("{from} consumers become {to}"),
        Action::Partitions { from, to, consumers_from, consumers_to } => {
            format!("{from} partitions become {to} and {consumers_from} consumers {consumers_to}")
        }
    }
}

/// As people say it: `94 s`, `15 min`, `3.0 h`.
pub fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

/// With thousands parted: `1,104,980,000`.
pub fn number(number: f64) -> String {
    let digits = format!("{:.0}", number.max(0.0));
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [0.0, 999.4, 1000.0, 1_104_980_000.0].map(number),
            ["0", "999", "1,000", "1,104,980,000"]
        );
        assert_eq!([94.2, 900.0, 10_800.0].map(seconds), ["94 s", "15 min", "3.0 h"]);
    }
}
