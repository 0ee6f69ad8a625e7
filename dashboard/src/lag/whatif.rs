//! How long a backlog would take with other numbers of partitions and consumers. Pure.

use std::collections::BTreeSet;

use elkfk_broker_client::lag::{Drain, TopicLag, UNDER_WAY_SECONDS};
use serde_json::{Value, json};

/// Beyond this nobody asks in earnest.
pub(crate) const COUNT_MAX: u32 = 100_000;

/// With `partitions` partitions and `consumers` consumers, at the rate that each consumer reads now.
pub(crate) fn answer(topic: &TopicLag, partitions: Option<u32>, consumers: Option<u32>) -> Value {
    let present = topic.partitions.len() as u32;
    let readers: BTreeSet<&str> =
        topic.partitions.iter().filter_map(|partition| partition.member.as_deref()).collect();
    // Members of one client share a name; a topic without any is read by one at least if it moves.
    let readers_now = (readers.len() as u32).max(1);
    let partitions = partitions.unwrap_or(present).clamp(1, COUNT_MAX);
    let consumers = consumers.unwrap_or(readers_now).clamp(1, COUNT_MAX);
    let figures = &topic.figures;
    let unknown = |why: &str| json!({"drain": null, "why": why});
    if partitions < present {
        return unknown("A topic never has fewer partitions than before.");
    }
    let (Some(lag), Some(inward), Some(outward)) = (figures.lag, figures.in_1m, figures.out_1m)
    else {
        return unknown("The rates are not known yet.");
    };
    if lag == 0 {
        return json!({"drain": Drain::Seconds(0.0), "why": "Nothing waits to be read."});
    }
    if let Some(Drain::Seconds(_)) = figures.drain
        && lag as f64 <= inward * UNDER_WAY_SECONDS
        && consumers >= readers_now
    {
        let why = "It keeps up as it is; what a consumer can take shows only once it does not.";
        return json!({"drain": figures.drain, "why": why});
    }
    if outward <= 0.0 {
        return unknown("Nothing is read at present, so what a consumer can take is not known.");
    }
    let each = outward / f64::from(readers_now);
    let working = consumers.min(partitions);
    // What waits stays where it is: only what arrives spreads over new partitions.
    let old = consumers.min(present);
    let arriving_old = inward * f64::from(present) / f64::from(partitions);
    let net = each * f64::from(working) - inward;
    let net_old = each * f64::from(old) - arriving_old;
    let mut why = format!(
        "{working} consumer{} at {} records/s each read {}/s, {}/s arrive",
        if working == 1 { "" } else { "s" },
        short(each),
        short(each * f64::from(working)),
        short(inward),
    );
    if consumers > partitions {
        why.push_str(&format!("; {} of {consumers} get no partition", consumers - partitions));
    }
    if partitions > present && consumers > present {
        why.push_str(&format!("; what waits stays in the {present} old partitions"));
    }
    let slowest = net.min(net_old);
    let drain = if slowest > 0.0 { Drain::Seconds(lag as f64 / slowest) } else { Drain::Never };
    if drain == Drain::Never {
        let wanted = (inward / each).floor() as u64 + 1;
        why.push_str(&format!("; at least {wanted} working consumers are needed"));
    }
    why.push('.');
    json!({"drain": drain, "why": why})
}

fn short(rate: f64) -> String {
    if rate >= 10.0 { format!("{rate:.0}") } else { format!("{rate:.1}") }
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{Figures, PartitionLag};

    use super::*;

    /// Four partitions, two consumers of 100/s each, 250/s arrive, 9,000 wait.
    fn topic() -> TopicLag {
        let partition = |partition| PartitionLag {
            partition,
            member: Some(format!("client-{}", partition % 2)),
            committed: None,
            start: None,
            end: None,
            figures: Figures::default(),
            moved_ms: None,
            retention: None,
            why: None,
        };
        let figures = Figures {
            lag: Some(9_000),
            in_1m: Some(250.0),
            out_1m: Some(200.0),
            ..Figures::default()
        };
        TopicLag { topic: "logs".into(), figures, partitions: (0..4).map(partition).collect() }
    }

    fn drain(partitions: u32, consumers: u32) -> Value {
        answer(&topic(), Some(partitions), Some(consumers))["drain"].clone()
    }

    #[test]
    fn consumers_help_up_to_the_partitions() {
        assert_eq!(drain(4, 2), "never");
        assert_eq!(drain(4, 4)["seconds"], 60.0);
        assert_eq!(drain(4, 9)["seconds"], 60.0);
        let idle = answer(&topic(), Some(4), Some(9))["why"].as_str().unwrap().to_owned();
        assert!(idle.contains("5 of 9 get no partition"), "{idle}");
        let never = answer(&topic(), None, None)["why"].as_str().unwrap().to_owned();
        assert!(never.contains("at least 3 working consumers"), "{never}");
    }

    #[test]
    fn new_partitions_do_not_move_what_waits() {
        // 800 − 250 in all, but the old four lose 400 a second and get 125.
        let seconds = drain(8, 8)["seconds"].as_f64().unwrap();
        assert!((seconds - 9_000.0 / 275.0).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        assert_eq!(drain(2, 2), Value::Null);
        let still = TopicLag { figures: Figures { lag: Some(1), ..Figures::default() }, ..topic() };
        assert_eq!(answer(&still, None, None)["drain"], Value::Null);
        let empty = TopicLag {
            figures: Figures { lag: Some(0), ..topic().figures },
            ..TopicLag::default()
        };
        assert_eq!(answer(&empty, Some(1), Some(1))["drain"]["seconds"], 0.0);
    }
}
