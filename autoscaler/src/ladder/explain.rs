//! A decision told rung by rung: what was asked before, with its numbers, and where it stopped.

use super::event::{Decision, Rule};
use super::parameters::HOT_SHARE;
use super::why::{number, seconds};

/// A rung that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// What it is about.
    pub rung: &'static str,
    /// It had the last word; the others let the next one be asked.
    pub is_last: bool,
    pub text: String,
}

/// Every rung that was asked for this decision, in order; the last one decided.
pub fn explain(decision: &Decision) -> Vec<Asked> {
    let mut asked = Vec::new();
    for (rung, rules, passed) in rungs(decision) {
        let is_last = rules.contains(&decision.rule);
        let text = if is_last { decision.why.clone() } else { passed };
        asked.push(Asked { rung, is_last, text });
        if is_last {
            break;
        }
    }
    asked
}

/// Name, the rules it may answer with here, and what it means that it did not.
type Rung = (&'static str, Vec<Rule>, String);

fn rungs(decision: &Decision) -> Vec<Rung> {
    let (inputs, parameters) = (&decision.inputs, &decision.parameters);
    let wait = seconds(inputs.time_lag_s);
    let rates = format!(
        "{}/s arrive, {}/s are consumed",
        number(inputs.arrival_per_s),
        number(inputs.consumed_per_s)
    );
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let since = |since_s: Option<f64>| match since_s {
        Some(since_s) => format!("{} ago", seconds(since_s)),
        None => "never".to_owned(),
    };
    let first_hold = inputs.all_hot_for_s < parameters.hold_s;
    let holding = |is_here: bool| if is_here { vec![Rule::Holding] } else { vec![] };
    let cooled = |is_here: bool, step: Rule| {
        if is_here { vec![Rule::ConsumerCooldown, step] } else { vec![step] }
    };
    let has_workers = inputs.workers < inputs.workers_max && !inputs.is_parsing_acquitted;
    let consumers_room = inputs.consumers_max.min(inputs.partitions);
    let drain = match inputs.drain_s {
        Some(drain_s) => format!("gone in {} at these rates", seconds(drain_s)),
        None => "not gone at these rates".to_owned(),
    };
    vec![
        (
            "rates known",
            vec![Rule::Watching],
            format!("Rates are known over {}: {rates}.", seconds(parameters.window_s)),
        ),
        (
            "hot",
            vec![Rule::NotHot, Rule::Draining, Rule::ScaleIn],
            format!(
                "{} records wait, the oldest for {wait}, more than {}; they are {drain}, and {} are allowed for that.",
                number(inputs.lag_records as f64),
                seconds(parameters.hot_s),
                seconds(parameters.drain_target_s)
            ),
        ),
        (
            "for long enough",
            holding(first_hold),
            format!(
                "It has been so for {}, more than {}.",
                seconds(inputs.all_hot_for_s),
                seconds(parameters.hold_s)
            ),
        ),
        (
            "Elasticsearch takes more",
            vec![Rule::SinkBlocked],
            format!(
                "The sink waited for Elasticsearch {} of the time, not more than {}.",
                percent(inputs.blocked_share),
                percent(parameters.blocked_max)
            ),
        ),
        ("no rebalance", vec![Rule::Rebalancing], "The group does not rebalance.".to_owned()),
        (
            "somebody reads",
            vec![Rule::NoConsumers],
            format!("{} consumers read.", inputs.consumers),
        ),
        (
            "offsets move",
            vec![Rule::Stopped],
            format!("{}/s are consumed.", number(inputs.consumed_per_s)),
        ),
        (
            "not only stalled partitions",
            vec![Rule::Stalled],
            format!(
                "{} of {} partitions are left out as stalled; {} records wait in the others.",
                inputs.stalled,
                inputs.partitions,
                number(inputs.counted_lag_records as f64)
            ),
        ),
        (
            "for long enough, without the stalled",
            holding(!first_hold),
            format!("It has been so for {}.", seconds(inputs.hot_for_s)),
        ),
        (
            "the last step helped",
            vec![Rule::NoGain],
            "No step without gain is too recent.".to_owned(),
        ),
        (
            "workers",
            if has_workers { cooled(true, Rule::Workers) } else { vec![Rule::Workers] },
            match (inputs.is_parsing_acquitted, inputs.workers_max) {
                (_, 0) => "No sink tells of its parser threads.".to_owned(),
                (true, _) => "More parser threads brought nothing before.".to_owned(),
                (false, max) => {
                    format!("{} of {max} parser threads run in each sink.", inputs.workers)
                }
            },
        ),
        (
            "consumers",
            cooled(!has_workers, Rule::Consumers),
            format!(
                "{} consumers read {} partitions, and {consumers_room} is the most that helps.",
                inputs.consumers, inputs.partitions
            ),
        ),
        (
            "room",
            vec![Rule::Maximum],
            format!(
                "{} of {} consumers, {} of {} partitions.",
                inputs.consumers, inputs.consumers_max, inputs.partitions, inputs.partitions_max
            ),
        ),
        ("not compacted", vec![Rule::RefusedCompacted], "The topic is not compacted.".to_owned()),
        (
            "keys",
            vec![Rule::RefusedForeignKeys],
            match parameters.is_foreign_keys_allowed {
                true => "Keys that elkfk did not write may lose their order here.".to_owned(),
                false => "No keys were seen that elkfk did not write.".to_owned(),
            },
        ),
        (
            "no hot file",
            vec![Rule::RefusedHotFile],
            format!(
                "The largest share that one file was seen to have is {}, less than {}.",
                percent(inputs.hottest_file_share),
                percent(HOT_SHARE)
            ),
        ),
        (
            "brokers",
            vec![Rule::RefusedTooFewBrokers],
            format!(
                "{} brokers are alive for {} replicas of a partition.",
                inputs.brokers, inputs.replication_factor
            ),
        ),
        (
            "replicas",
            vec![Rule::RefusedReplicas],
            format!(
                "The cluster holds {} replicas; {} on each broker are allowed.",
                number(inputs.replicas as f64),
                number(parameters.replicas_per_broker_max as f64)
            ),
        ),
        (
            "cooled down",
            vec![Rule::PartitionCooldown],
            format!(
                "The last expansion was {}, the last step of consumers {}.",
                since(inputs.since_partitions_s),
                since(inputs.since_consumers_s)
            ),
        ),
        (
            "undisturbed",
            vec![Rule::Disturbed],
            format!(
                "Nothing interrupted reading within the last {}.",
                seconds(parameters.window_s)
            ),
        ),
        (
            "enough arrives",
            vec![Rule::ArrivalLow],
            format!(
                "{rates}; at least {} must arrive, so that new partitions fill.",
                percent(parameters.arrival_min)
            ),
        ),
        (
            "no hot partition",
            vec![Rule::RefusedHotPartition],
            format!(
                "One partition gets at most {} of the records and holds at most {} of the lag.",
                percent(inputs.hottest_partition_share),
                percent(inputs.fullest_partition_share)
            ),
        ),
        (
            "partitions in use",
            vec![Rule::RefusedIdlePartitions],
            format!(
                "{} of {} partitions get next to nothing.",
                inputs.idle_partitions, inputs.partitions
            ),
        ),
        ("partitions", vec![Rule::Partitions], String::new()),
    ]
}
