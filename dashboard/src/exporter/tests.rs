//! What is served is what the shipped dashboard and rules name.

use std::collections::BTreeSet;

use elkfk_broker_client::lag::{PartitionLag, TopicLag};
use elkfk_broker_client::{Broker, LogDir};

use super::*;
use crate::cluster::TopicFacts;

fn snapshot(partitions: i32) -> Snapshot {
    let figures = Figures {
        lag: Some(7),
        lag_seconds: Some(1.5),
        in_rate: Some(1.0),
        out_rate: Some(2.0),
        drain: Some(Drain::Never),
        retention_used: Some(0.5),
        state: State::Stalled,
        ..Figures::default()
    };
    let partition = |partition| PartitionLag {
        partition,
        member: Some("till @ 10.0.0.1".into()),
        committed: Some(3),
        start: Some(0),
        end: Some(10),
        figures: figures.clone(),
        moved_ms: None,
        retention: None,
        why: None,
    };
    let topic = TopicLag {
        topic: "logs".into(),
        figures: figures.clone(),
        partitions: (0..partitions).map(partition).collect(),
    };
    let group = GroupLag {
        group: "a\"b\\c\nd".into(),
        state: "Stable".into(),
        members: 1,
        figures: figures.clone(),
        topics: vec![topic],
        why: None,
    };
    Snapshot { now_ms: 1_500, groups: vec![group] }
}

fn facts() -> Facts {
    let partition = PartitionFacts {
        leader: Some(1),
        replicas: vec![1, 2],
        isr: vec![1],
        start: Some(0),
        end: Some(10),
        size_bytes: Some(99),
        ..PartitionFacts::default()
    };
    Facts {
        at_ms: 1,
        cluster_id: "c1".into(),
        brokers: vec![Broker { id: 1, host: "kafka".into(), port: 9092, rack: None }],
        topics: vec![TopicFacts {
            name: "logs".into(),
            partitions: vec![partition],
            in_rate: Some(5.0),
            ..TopicFacts::default()
        }],
        directories: vec![LogDir {
            broker: 1,
            path: "/data".into(),
            total_bytes: Some(100),
            usable_bytes: Some(25),
            replicas: 1,
        }],
        ..Facts::default()
    }
}

#[test]
fn every_name_is_served_once_and_labels_are_escaped() {
    let text = text(Some(&snapshot(1)), &facts());
    let types: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let named: BTreeSet<&str> = types.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!((types.len(), &named), (NAMES.len(), &NAMES.into_iter().collect()));
    for name in NAMES {
        let is_there = |line: &str| {
            line.starts_with(&format!("{name}{{")) || line.starts_with(&format!("{name} "))
        };
        assert!(text.lines().any(is_there), "{name}");
    }
    for line in [
        "kafka_brokers 1",
        r#"kafka_topic_partition_current_offset{topic="logs",partition="0"} 10"#,
        r#"kafka_topic_partition_under_replicated_partition{topic="logs",partition="0"} 1"#,
        r#"kafka_consumergroup_lag{consumergroup="a\"b\\c\nd",topic="logs",partition="0"} 7"#,
        r#"kafka_consumergroup_group_lag_seconds{cluster_name="c1",group="a\"b\\c\nd",topic="logs",partition="0",member_host="10.0.0.1",consumer_id="",client_id="till"} 1.5"#,
        r#"elkfk_group_drain_eta_seconds{group="a\"b\\c\nd",topic="logs"} +Inf"#,
        r#"elkfk_group_state{group="a\"b\\c\nd",topic="logs",state="stalled"} 1"#,
        r#"elkfk_broker_disk_used_ratio{broker="1",path="/data"} 0.75"#,
        "elkfk_dashboard_metrics_left_out 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}\n{text}");
    }
}

#[test]
fn a_huge_cluster_is_cut_and_says_so() {
    let text = text(Some(&snapshot(30_000)), &Facts::default());
    let lags = text.lines().filter(|line| line.starts_with("kafka_consumergroup_lag{")).count();
    assert_eq!(lags, LINES_MAX);
    // Five metrics have a line for each partition.
    assert!(
        text.ends_with("elkfk_dashboard_metrics_left_out 50000\n"),
        "{}",
        &text[text.len() - 200..]
    );
}

/// The metrics that a file names: words that begin as ours do.
fn named(text: &str) -> BTreeSet<&str> {
    text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '_'))
        .filter(|word| {
            word.starts_with("kafka_")
                || word.starts_with("elkfk_group_")
                || word.starts_with("elkfk_topic_")
                || word.starts_with("elkfk_dashboard_")
                || word.starts_with("elkfk_broker_disk")
        })
        .collect()
}

#[test]
fn the_shipped_dashboard_and_rules_name_only_what_is_served() {
    let compose = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose");
    for file in ["grafana/elkfk-lag.json", "prometheus/elkfk-rules.yml"] {
        let text = std::fs::read_to_string(compose.join(file)).unwrap();
        let named = named(&text);
        assert!(named.len() >= 6, "{file} names {named:?}");
        for name in named {
            assert!(NAMES.contains(&name), "{file} names {name}, which is not served");
        }
    }
    let text = std::fs::read_to_string(compose.join("grafana/elkfk-lag.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    assert!(panels.len() >= 8);
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        assert!(panel["targets"][0]["expr"].is_string(), "{panel}");
    }
    assert!(dashboard["uid"].is_string() && dashboard["__inputs"].is_array());
}
