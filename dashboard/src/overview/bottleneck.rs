//! What holds the line up, in one sentence that names the hop first, as the page calls it. Pure.

/// A backlog that is younger than this is none.
pub(super) const BEHIND_S: f64 = 5.0;
/// From this share of its time on it is the index that a sink waits for.
const BLOCKED_SHARE: f64 = 0.5;
/// Bytes of files that are not shipped yet, below which the shipper keeps up.
const UNSHIPPED_BYTES: f64 = (8 << 20) as f64;

/// What is known of the line; `None` where a part of it does not tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Line {
    /// Why the brokers do not answer.
    pub(super) broker_why: Option<String>,
    /// Why the index does not.
    pub(super) index_why: Option<String>,
    pub(super) offline: usize,
    pub(super) worst: Option<Worst>,
    /// A group that is none of the sinks' and makes no headway.
    pub(super) elsewhere: Option<Worst>,
    pub(super) in_rate: Option<f64>,
    pub(super) out_rate: Option<f64>,
    pub(super) is_index_away: bool,
    pub(super) blocked_share: Option<f64>,
    pub(super) workers: Option<u64>,
    pub(super) unshipped_bytes: Option<f64>,
    /// Whether they become more.
    pub(super) is_unshipped_growing: bool,
    pub(super) is_kafka_up: Option<bool>,
}

/// The group and topic that is furthest behind.
#[derive(Debug, Clone, Default)]
pub(super) struct Worst {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) lag: i64,
    pub(super) lag_seconds: f64,
    pub(super) state: String,
    pub(super) members: usize,
    pub(super) partitions: usize,
    /// At the present rates; `None`: never.
    pub(super) drain_s: Option<f64>,
}

/// The hop that holds the line up, as the page's list of hops names it, and the sentence.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bottleneck {
    pub(super) hop: &'static str,
    pub(super) sentence: String,
}

fn at(hop: &'static str, sentence: String) -> Option<Bottleneck> {
    Some(Bottleneck { hop, sentence })
}

pub(super) fn find(line: &Line) -> Option<Bottleneck> {
    if let Some(why) = &line.broker_why {
        return at("topics", format!("The topics cannot be asked for: {why}."));
    }
    let waits = match &line.worst {
        Some(worst) if worst.lag > 0 => {
            format!("; {} records of {} wait for {}", worst.lag, worst.topic, worst.group)
        }
        _ => String::new(),
    };
    if line.is_index_away {
        return at("indices", format!("The indices are away: the sink waits for them{waits}."));
    }
    if let Some(why) = &line.index_why {
        return at("indices", format!("The indices do not answer ({why}){waits}."));
    }
    if line.offline > 0 {
        let (count, has) = (line.offline, if line.offline == 1 { " has" } else { "s have" });
        return at(
            "topics",
            format!(
                "Of the topics {count} partition{has} no leader: nobody can write to or read from it{waits}."
            ),
        );
    }
    backlog(line).or_else(|| unshipped(line)).or_else(|| elsewhere(line))
}

/// The lines themselves flow.
fn elsewhere(line: &Line) -> Option<Bottleneck> {
    let Worst { group, topic, lag, members, state, .. } = line.elsewhere.as_ref()?;
    let (its, do_so) = match (*members, state.as_str()) {
        (1, "stalled") => ("member", "stands still"),
        (1, _) => ("member", "reads less than what arrives"),
        (_, "stalled") => ("members", "stand still"),
        _ => ("members", "read less than what arrives"),
    };
    at(
        "topics",
        format!(
            "Of the topics {topic} is not read by {group}, which is none of the sinks': {lag} records wait, and its {members} {its} {do_so}."
        ),
    )
}

fn backlog(line: &Line) -> Option<Bottleneck> {
    let worst = line.worst.as_ref().filter(|worst| worst.lag > 0)?;
    let Worst { group, topic, lag, members, partitions, .. } = worst;
    match worst.state.as_str() {
        "stopped" => {
            return at(
                "sink",
                format!(
                    "The sink is stopped: {group} has no members, and {lag} records of {topic} wait."
                ),
            );
        }
        "stalled" => {
            return at(
                "sink",
                format!(
                    "The sink stands still: {lag} records of {topic} wait for {group}, and no offset moves."
                ),
            );
        }
        _ if worst.lag_seconds < BEHIND_S => return None,
        _ => {}
    }
    if let Some(share) = line.blocked_share
        && share >= BLOCKED_SHARE
    {
        let percent = share * 100.0;
        return at(
            "indices",
            format!(
                "The indices are the bottleneck: the sink spends {percent:.0} % of its time waiting for them."
            ),
        );
    }
    if let Some(seconds) = worst.drain_s {
        return at(
            "sink",
            format!(
                "The sink catches up: {group} works off {lag} records of {topic}, empty in {}.",
                duration(seconds)
            ),
        );
    }
    let rates = match (line.out_rate, line.in_rate) {
        (Some(outward), Some(inward)) => {
            format!(" reads {outward:.0} records/s while {inward:.0}/s arrive")
        }
        _ => " reads less than what arrives".to_owned(),
    };
    let hint = match (members, partitions, line.workers) {
        (members, partitions, _) if members < partitions => {
            format!("; {members} of {partitions} possible consumers are there")
        }
        (_, partitions, Some(workers)) => {
            format!("; all {partitions} partitions have a consumer, with {workers} workers")
        }
        (_, partitions, None) => format!("; all {partitions} partitions have a consumer"),
    };
    at("sink", format!("The sink is the bottleneck: {group}{rates}{hint}."))
}

fn unshipped(line: &Line) -> Option<Bottleneck> {
    let bytes = line.unshipped_bytes.filter(|bytes| *bytes >= UNSHIPPED_BYTES)?;
    let mebibytes = bytes / f64::from(1 << 20);
    match line.is_kafka_up {
        Some(false) => at(
            "shipper",
            format!("The shipper does not reach the brokers: {mebibytes:.0} MiB of files wait."),
        ),
        _ if line.is_unshipped_growing => at(
            "shipper",
            format!(
                "The shipper is the bottleneck: {mebibytes:.0} MiB of files wait, and it becomes more."
            ),
        ),
        _ => None,
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> Line {
        let worst = Worst {
            group: "sink".into(),
            topic: "logs".into(),
            lag: 5_000,
            lag_seconds: 60.0,
            state: "ok".into(),
            members: 2,
            partitions: 6,
            drain_s: None,
        };
        Line {
            worst: Some(worst),
            in_rate: Some(300.0),
            out_rate: Some(200.0),
            blocked_share: Some(0.1),
            ..Line::default()
        }
    }

    fn check(change: impl Fn(&mut Line), expected: Option<&str>) {
        let mut line = line();
        change(&mut line);
        let found = find(&line);
        // Who reads the sentence sees the hop in it.
        let names_it = |it: &Bottleneck| it.sentence.contains(&format!("he {} ", it.hop));
        assert!(found.as_ref().is_none_or(names_it), "{found:?}");
        assert_eq!(found.as_ref().map(|it| it.sentence.as_str()), expected);
    }

    #[test]
    fn the_first_thing_that_explains_it_is_named() {
        check(
            |_| {},
            Some(
                "The sink is the bottleneck: sink reads 200 records/s while 300/s arrive; 2 of 6 possible consumers are there.",
            ),
        );
        check(
            |line| line.blocked_share = Some(0.96),
            Some(
                "The indices are the bottleneck: the sink spends 96 % of its time waiting for them.",
            ),
        );
        check(
            |line| line.worst.as_mut().unwrap().state = "stopped".into(),
            Some("The sink is stopped: sink has no members, and 5000 records of logs wait."),
        );
        check(
            |line| line.worst.as_mut().unwrap().drain_s = Some(90.0),
            Some("The sink catches up: sink works off 5000 records of logs, empty in 90 s."),
        );
        check(
            |line| line.is_index_away = true,
            Some(
                "The indices are away: the sink waits for them; 5000 records of logs wait for sink.",
            ),
        );
        check(
            |line| line.broker_why = Some("no answer".into()),
            Some("The topics cannot be asked for: no answer."),
        );
    }

    #[test]
    fn a_group_beside_the_line_that_stands_still_is_named_while_the_line_flows() {
        let other = |members, state: &str| {
            let worst = line().worst.unwrap();
            Some(Worst { group: "billing".into(), members, state: state.into(), ..worst })
        };
        check(
            |line| {
                line.worst = None;
                line.elsewhere = other(2, "stalled");
            },
            Some(
                "Of the topics logs is not read by billing, which is none of the sinks': 5000 records wait, and its 2 members stand still.",
            ),
        );
        check(
            |line| {
                line.worst = None;
                line.elsewhere = other(1, "behind");
            },
            Some(
                "Of the topics logs is not read by billing, which is none of the sinks': 5000 records wait, and its 1 member reads less than what arrives.",
            ),
        );
        // What holds the line itself up comes first.
        check(
            |line| {
                line.worst.as_mut().unwrap().drain_s = Some(90.0);
                line.elsewhere = other(2, "stalled");
            },
            Some("The sink catches up: sink works off 5000 records of logs, empty in 90 s."),
        );
    }

    #[test]
    fn a_line_that_flows_has_none() {
        check(|line| line.worst.as_mut().unwrap().lag_seconds = 1.0, None);
        check(|line| line.worst = None, None);
        check(
            |line| {
                line.worst = None;
                line.unshipped_bytes = Some(64.0 * 1024.0 * 1024.0);
                line.is_unshipped_growing = true;
            },
            Some("The shipper is the bottleneck: 64 MiB of files wait, and it becomes more."),
        );
    }
}
