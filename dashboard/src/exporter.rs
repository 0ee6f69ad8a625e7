//! The cluster in Prometheus' text format, under the names that existing dashboards and rules use: those
//! of kafka_exporter (danielqsj) and of kafka-lag-exporter (seglo), and a few of our own. Pure: of the last
//! snapshot and the last look at the topics.

use std::fmt::Write as _;

use elkfk_broker_client::lag::{Drain, Figures, GroupLag, Snapshot, State};

use crate::cluster::{Facts, PartitionFacts};

/// Lines of one metric; a cluster larger than this is left out from here on, and
/// `elkfk_dashboard_metrics_left_out` says how much.
const LINES_MAX: usize = 20_000;

/// Every metric there is, for the tests of the dashboards and rules that use them.
#[cfg(test)]
pub(crate) const NAMES: [&str; 36] = [
    "kafka_brokers",
    "kafka_broker_info",
    "kafka_topic_partitions",
    "kafka_topic_partition_current_offset",
    "kafka_topic_partition_oldest_offset",
    "kafka_topic_partition_leader",
    "kafka_topic_partition_leader_is_preferred",
    "kafka_topic_partition_replicas",
    "kafka_topic_partition_in_sync_replica",
    "kafka_topic_partition_under_replicated_partition",
    "kafka_consumergroup_current_offset",
    "kafka_consumergroup_current_offset_sum",
    "kafka_consumergroup_lag",
    "kafka_consumergroup_lag_sum",
    "kafka_consumergroup_members",
    "kafka_partition_latest_offset",
    "kafka_partition_earliest_offset",
    "kafka_consumergroup_group_offset",
    "kafka_consumergroup_group_lag",
    "kafka_consumergroup_group_lag_seconds",
    "kafka_consumergroup_group_max_lag",
    "kafka_consumergroup_group_max_lag_seconds",
    "kafka_consumergroup_group_sum_lag",
    "kafka_consumergroup_group_topic_sum_lag",
    "elkfk_group_drain_eta_seconds",
    "elkfk_group_retention_used_ratio",
    "elkfk_group_lost_records",
    "elkfk_group_in_records_per_second",
    "elkfk_group_out_records_per_second",
    "elkfk_group_state",
    "elkfk_topic_in_records_per_second",
    "elkfk_topic_size_bytes",
    "elkfk_topic_offline_partitions",
    "elkfk_broker_disk_used_ratio",
    "elkfk_dashboard_snapshot_timestamp_seconds",
    "elkfk_dashboard_metrics_left_out",
];

/// `snapshot` is none before the first measurement.
pub(crate) fn text(snapshot: Option<&Snapshot>, facts: &Facts) -> String {
    let mut out = Text::default();
    if facts.at_ms > 0 {
        topics(&mut out, facts);
    }
    if let Some(snapshot) = snapshot {
        groups(&mut out, snapshot, &facts.cluster_id);
    }
    out.metric("elkfk_dashboard_metrics_left_out", "Lines that the bound of a metric left out.");
    let left_out = out.left_out as f64;
    out.line(&[], left_out);
    out.text
}

/// The text so far, one metric after the other.
#[derive(Debug, Default)]
struct Text {
    text: String,
    name: &'static str,
    lines: usize,
    left_out: usize,
}

impl Text {
    fn metric(&mut self, name: &'static str, help: &str) {
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} gauge\n");
        (self.name, self.lines) = (name, 0);
    }

    fn line(&mut self, labels: &[(&str, &str)], value: f64) {
        if self.lines == LINES_MAX {
            self.left_out += 1;
            return;
        }
        self.lines += 1;
        self.text.push_str(self.name);
        for (at, (name, value)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            for char in value.chars() {
                match char {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        let _ = match value {
            _ if value.is_nan() => writeln!(self.text, "{}NaN", close(labels)),
            f64::INFINITY => writeln!(self.text, "{}+Inf", close(labels)),
            // Offsets are whole numbers, which f64 holds exactly up to 2^53.
            _ => writeln!(self.text, "{}{value}", close(labels)),
        };
    }
}

fn close(labels: &[(&str, &str)]) -> &'static str {
    if labels.is_empty() { " " } else { "} " }
}

fn topics(out: &mut Text, facts: &Facts) {
    out.metric("kafka_brokers", "Brokers of the cluster.");
    out.line(&[], facts.brokers.len() as f64);
    out.metric("kafka_broker_info", "1 for each broker.");
    for broker in &facts.brokers {
        out.line(&[("id", &broker.id.to_string()), ("address", &broker.address())], 1.0);
    }
    out.metric("kafka_topic_partitions", "Partitions of a topic.");
    for topic in &facts.topics {
        out.line(&[("topic", &topic.name)], topic.partitions.len() as f64);
    }
    let number = |value: Option<i64>| value.map(|value| value as f64);
    partitions(
        out,
        facts,
        "kafka_topic_partition_current_offset",
        "Offset after the last record.",
        |p| number(p.end),
    );
    partitions(out, facts, "kafka_topic_partition_oldest_offset", "First offset.", |p| {
        number(p.start)
    });
    let leader = |p: &PartitionFacts| Some(f64::from(p.leader.unwrap_or(-1)));
    partitions(
        out,
        facts,
        "kafka_topic_partition_leader",
        "Broker that leads it, -1: none.",
        leader,
    );
    let is_preferred = |p: &PartitionFacts| {
        Some(f64::from(u8::from(p.leader.is_some() && p.leader == p.replicas.first().copied())))
    };
    partitions(
        out,
        facts,
        "kafka_topic_partition_leader_is_preferred",
        "1 where the first replica leads.",
        is_preferred,
    );
    partitions(out, facts, "kafka_topic_partition_replicas", "Replicas.", |p| {
        Some(p.replicas.len() as f64)
    });
    partitions(out, facts, "kafka_topic_partition_in_sync_replica", "In-sync replicas.", |p| {
        Some(p.isr.len() as f64)
    });
    let is_under = |p: &PartitionFacts| Some(f64::from(u8::from(p.is_under_replicated())));
    partitions(
        out,
        facts,
        "kafka_topic_partition_under_replicated_partition",
        "1 where a replica is missing.",
        is_under,
    );
    for (name, help, is_end) in [
        ("kafka_partition_latest_offset", "Offset after the last record.", true),
        ("kafka_partition_earliest_offset", "First offset.", false),
    ] {
        out.metric(name, help);
        for topic in &facts.topics {
            for one in &topic.partitions {
                let Some(value) = number(if is_end { one.end } else { one.start }) else {
                    continue;
                };
                let index = one.index.to_string();
                let labels = [
                    ("cluster_name", facts.cluster_id.as_str()),
                    ("topic", &topic.name),
                    ("partition", &index),
                ];
                out.line(&labels, value);
            }
        }
    }
    out.metric("elkfk_topic_in_records_per_second", "Records that arrive.");
    for topic in &facts.topics {
        if let Some(rate) = topic.in_rate {
            out.line(&[("topic", &topic.name)], rate);
        }
    }
    out.metric(
        "elkfk_topic_size_bytes",
        "Bytes on disk, of the largest replica of each partition.",
    );
    for topic in &facts.topics {
        if let Some(bytes) = topic.size_bytes() {
            out.line(&[("topic", &topic.name)], bytes as f64);
        }
    }
    out.metric("elkfk_topic_offline_partitions", "Partitions without a leader.");
    for topic in &facts.topics {
        out.line(&[("topic", &topic.name)], topic.offline() as f64);
    }
    out.metric("elkfk_broker_disk_used_ratio", "Used share of the file system of a log directory.");
    for directory in &facts.directories {
        if let Some(used) = directory.used_share() {
            out.line(&[("broker", &directory.broker.to_string()), ("path", &directory.path)], used);
        }
    }
}

/// A metric of each partition in kafka_exporter's way.
fn partitions(
    out: &mut Text,
    facts: &Facts,
    name: &'static str,
    help: &str,
    value: impl Fn(&PartitionFacts) -> Option<f64>,
) {
    out.metric(name, help);
    for topic in &facts.topics {
        for one in &topic.partitions {
            if let Some(value) = value(one) {
                out.line(&[("topic", &topic.name), ("partition", &one.index.to_string())], value);
            }
        }
    }
}

fn groups(out: &mut Text, snapshot: &Snapshot, cluster: &str) {
    let number = |value: Option<i64>| value.map(|value| value as f64);
    out.metric("kafka_consumergroup_members", "Members of a group.");
    for group in &snapshot.groups {
        out.line(&[("consumergroup", &group.group)], group.members as f64);
    }
    // In kafka_exporter a partition without a commit has lag -1; here it is left out, as no lag is known.
    for (name, help, is_lag) in [
        ("kafka_consumergroup_current_offset", "Committed offset.", false),
        ("kafka_consumergroup_lag", "Records from the committed offset to the end.", true),
    ] {
        out.metric(name, help);
        for_partitions(snapshot, |group, topic, one| {
            let value = number(if is_lag { one.figures.lag } else { one.committed });
            if let Some(value) = value {
                let index = one.partition.to_string();
                let labels = [("consumergroup", group), ("topic", topic), ("partition", &index)];
                out.line(&labels, value);
            }
        });
    }
    out.metric("kafka_consumergroup_current_offset_sum", "Committed offsets of all partitions.");
    for_topics(snapshot, |group, topic| {
        let sum: i64 = topic.partitions.iter().filter_map(|one| one.committed).sum();
        out.line(&[("consumergroup", &group.group), ("topic", &topic.topic)], sum as f64);
    });
    out.metric("kafka_consumergroup_lag_sum", "Lag of all partitions.");
    for_topics(snapshot, |group, topic| {
        if let Some(lag) = topic.figures.lag {
            out.line(&[("consumergroup", &group.group), ("topic", &topic.topic)], lag as f64);
        }
    });
    lag_exporter(out, snapshot, cluster);
    own(out, snapshot);
}

/// seglo's names; a member is told as `client id @ host`.
fn lag_exporter(out: &mut Text, snapshot: &Snapshot, cluster: &str) {
    type Value = fn(&elkfk_broker_client::lag::PartitionLag) -> Option<f64>;
    let metrics: [(&str, &str, Value); 3] = [
        ("kafka_consumergroup_group_offset", "Committed offset.", |one| {
            one.committed.map(|offset| offset as f64)
        }),
        ("kafka_consumergroup_group_lag", "Records behind.", |one| {
            one.figures.lag.map(|lag| lag as f64)
        }),
        ("kafka_consumergroup_group_lag_seconds", "Seconds behind.", |one| one.figures.lag_seconds),
    ];
    for (name, help, value) in metrics {
        out.metric(name, help);
        for_partitions(snapshot, |group, topic, one| {
            let Some(value) = value(one) else { return };
            let index = one.partition.to_string();
            let member = one.member.as_deref().unwrap_or_default();
            let (client, host) = member.split_once(" @ ").unwrap_or((member, ""));
            let labels = [
                ("cluster_name", cluster),
                ("group", group),
                ("topic", topic),
                ("partition", &index),
                ("member_host", host),
                ("consumer_id", ""),
                ("client_id", client),
            ];
            out.line(&labels, value);
        });
    }
    type OfGroup = fn(&GroupLag) -> Option<f64>;
    let metrics: [(&str, &str, OfGroup); 3] = [
        ("kafka_consumergroup_group_max_lag", "Records behind, of the worst partition.", |group| {
            let lags = group.topics.iter().flat_map(|topic| &topic.partitions);
            lags.filter_map(|one| one.figures.lag).max().map(|lag| lag as f64)
        }),
        ("kafka_consumergroup_group_max_lag_seconds", "Seconds behind, of the worst.", |group| {
            group.figures.lag_seconds
        }),
        ("kafka_consumergroup_group_sum_lag", "Records behind, of all.", |group| {
            group.figures.lag.map(|lag| lag as f64)
        }),
    ];
    for (name, help, value) in metrics {
        out.metric(name, help);
        for group in &snapshot.groups {
            if let Some(value) = value(group) {
                out.line(&[("cluster_name", cluster), ("group", &group.group)], value);
            }
        }
    }
    out.metric("kafka_consumergroup_group_topic_sum_lag", "Records behind, of a topic.");
    for_topics(snapshot, |group, topic| {
        if let Some(lag) = topic.figures.lag {
            let labels =
                [("cluster_name", cluster), ("group", &group.group), ("topic", &topic.topic)];
            out.line(&labels, lag as f64);
        }
    });
}

fn own(out: &mut Text, snapshot: &Snapshot) {
    type OfFigures = fn(&Figures) -> Option<f64>;
    let metrics: [(&str, &str, OfFigures); 5] = [
        (
            "elkfk_group_drain_eta_seconds",
            "Until nothing is left to read; +Inf: never.",
            |figures| {
                figures.drain.map(|drain| match drain {
                    Drain::Seconds(seconds) => seconds,
                    Drain::Never => f64::INFINITY,
                })
            },
        ),
        (
            "elkfk_group_retention_used_ratio",
            "Share of the retention, by age or bytes, that the oldest unread record has used; from 1 on it may be deleted.",
            |figures| figures.retention_used,
        ),
        ("elkfk_group_lost_records", "Records deleted before they were read.", |figures| {
            Some(figures.lost as f64)
        }),
        ("elkfk_group_in_records_per_second", "Records that arrive.", |figures| figures.in_rate),
        ("elkfk_group_out_records_per_second", "Records that are read.", |figures| {
            figures.out_rate
        }),
    ];
    for (name, help, value) in metrics {
        out.metric(name, help);
        for_topics(snapshot, |group, topic| {
            if let Some(value) = value(&topic.figures) {
                out.line(&[("group", &group.group), ("topic", &topic.topic)], value);
            }
        });
    }
    out.metric("elkfk_group_state", "1 for the state that a group is in; of ok ones none is told.");
    for_topics(snapshot, |group, topic| {
        let state = topic.figures.state;
        if state != State::Ok {
            let labels =
                [("group", group.group.as_str()), ("topic", &topic.topic), ("state", state.name())];
            out.line(&labels, 1.0);
        }
    });
    out.metric("elkfk_dashboard_snapshot_timestamp_seconds", "When the figures were measured.");
    out.line(&[], snapshot.now_ms as f64 / 1000.0);
}

fn for_topics<'a>(
    snapshot: &'a Snapshot,
    mut each: impl FnMut(&'a GroupLag, &'a elkfk_broker_client::lag::TopicLag),
) {
    for group in &snapshot.groups {
        group.topics.iter().for_each(|topic| each(group, topic));
    }
}

fn for_partitions<'a>(
    snapshot: &'a Snapshot,
    mut each: impl FnMut(&'a str, &'a str, &'a elkfk_broker_client::lag::PartitionLag),
) {
    for_topics(snapshot, |group, topic| {
        topic.partitions.iter().for_each(|one| each(&group.group, &topic.topic, one));
    });
}

#[cfg(test)]
mod tests;
