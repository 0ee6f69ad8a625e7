//! The topics, as a table and one by one.

use std::collections::BTreeMap;
use std::time::Duration;

use elkfk_broker_client::lag::{Snapshot, TopicLag};
use elkfk_broker_client::{ConfigEntry, Resource};
use serde_json::{Value, json};

use super::{Facts, TopicFacts};
use crate::api::{Answer, Problem};
use crate::ask::{Key, Page, Params};
use crate::lag::answers::fields;
use crate::{Shared, hold};

/// Groups of one row, the worst first: five hundred rows must stay a small answer.
const GROUPS_MAX: usize = 4;
const PARTITIONS_MAX: usize = 500;
const CONFIGS_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) fn list(shared: &Shared, params: &Params) -> Answer {
    let facts = facts(shared)?;
    let snapshot = shared.latest().map(|latest| latest.snapshot.clone()).unwrap_or_default();
    Ok(table(&facts, &snapshot, &params.page()?))
}

/// What is known of the cluster; that nothing is known yet is a problem told.
pub(crate) fn facts(shared: &Shared) -> Result<std::sync::Arc<Facts>, Problem> {
    let facts = hold(&shared.cluster).clone();
    if facts.at_ms > 0 {
        return Ok(facts);
    }
    let why = facts.why.clone().unwrap_or_else(|| "the cluster is being asked".to_owned());
    Err(Problem::away(why))
}

type Readers<'a> = BTreeMap<&'a str, Vec<(&'a str, &'a TopicLag)>>;

/// Groups by topic, the worst first.
fn readers(snapshot: &Snapshot) -> Readers<'_> {
    let mut readers = Readers::new();
    for group in &snapshot.groups {
        for topic in &group.topics {
            readers.entry(&topic.topic).or_default().push((&group.group, topic));
        }
    }
    for groups in readers.values_mut() {
        groups.sort_by(|(_, a), (_, b)| {
            let seconds = |topic: &TopicLag| topic.figures.lag_seconds.unwrap_or(-1.0);
            seconds(b).total_cmp(&seconds(a)).then(b.figures.lag.cmp(&a.figures.lag))
        });
    }
    readers
}

fn table(facts: &Facts, snapshot: &Snapshot, page: &Page) -> Value {
    let readers = readers(snapshot);
    let rows: Vec<&TopicFacts> =
        facts.topics.iter().filter(|topic| page.wants(&topic.name)).collect();
    let groups =
        |topic: &TopicFacts| readers.get(topic.name.as_str()).map_or(&[][..], Vec::as_slice);
    let key = |topic: &&TopicFacts| match page.sort.as_str() {
        "partitions" => Key::Number(topic.partitions.len() as f64),
        "in_rate" => topic.in_rate.into(),
        "size" | "size_bytes" => topic.size_bytes().map(|bytes| bytes as f64).into(),
        "records" => topic.records().map(|records| records as f64).into(),
        "lag" => {
            let worst = groups(topic).iter().filter_map(|(_, lag)| lag.figures.lag).max();
            worst.map(|lag| lag as f64).into()
        }
        _ => Key::Text(topic.name.clone()),
    };
    let mut answer = page.cut(rows, key, |topic| {
        let groups = groups(topic);
        json!({
            "topic": topic.name,
            "internal": topic.is_internal,
            "partitions": topic.partitions.len(),
            "replication_factor": topic.replication_factor(),
            "isr_ok": topic.under_replicated() == 0,
            "under_replicated": topic.under_replicated(),
            "offline": topic.offline(),
            "in_rate": topic.in_rate.map(|rate| (rate * 1000.0).round() / 1000.0),
            "size_bytes": topic.size_bytes(),
            "records": topic.records(),
            "groups": groups.iter().take(GROUPS_MAX).map(|(name, lag)| chip(name, lag)).collect::<Vec<_>>(),
            "groups_total": groups.len(),
        })
    });
    answer["at_ms"] = facts.at_ms.into();
    answer["why"] = facts.why.clone().into();
    answer
}

fn chip(group: &str, topic: &TopicLag) -> Value {
    let figures = &topic.figures;
    json!({
        "group": group,
        "lag": figures.lag,
        "lag_seconds": figures.lag_seconds.map(|seconds| (seconds * 10.0).round() / 10.0),
        "state": figures.state,
    })
}

pub(crate) async fn one(shared: &Shared, params: &Params) -> Answer {
    let name = params.text("topic");
    let facts = facts(shared)?;
    let topic =
        facts.topic(name).ok_or_else(|| Problem::missing(format!("there is no topic {name:?}")))?;
    let (configs, why) = configs(shared, name).await;
    let snapshot = shared.latest().map(|latest| latest.snapshot.clone()).unwrap_or_default();
    let readers = readers(&snapshot);
    let groups = readers.get(name).map_or(&[][..], Vec::as_slice);
    let groups_of_it = groups.iter().take(PARTITIONS_MAX).map(|(group, lag)| {
        let mut row = json!({"group": group});
        if let Value::Object(row) = &mut row {
            row.extend(fields(&lag.figures));
        }
        row
    });
    let partitions = topic.partitions.iter().take(PARTITIONS_MAX).map(|one| {
        json!({
            "partition": one.index,
            "leader": one.leader,
            "replicas": one.replicas,
            "isr": one.isr,
            "start": one.start,
            "end": one.end,
            "size_bytes": one.size_bytes,
        })
    });
    Ok(json!({
        "topic": topic.name,
        "internal": topic.is_internal,
        "replication_factor": topic.replication_factor(),
        "offline": topic.offline(),
        "under_replicated": topic.under_replicated(),
        "in_rate": topic.in_rate,
        "size_bytes": topic.size_bytes(),
        "records": topic.records(),
        "partitions": partitions.collect::<Vec<_>>(),
        "partitions_total": topic.partitions.len(),
        "configs": configs,
        "configs_why": why,
        "groups": groups_of_it.collect::<Vec<_>>(),
        "at_ms": facts.at_ms,
    }))
}

/// The topic's settings, or why they are not known.
async fn configs(shared: &Shared, name: &str) -> (Vec<Value>, Option<String>) {
    let resources = [Resource::topic(name)];
    let asked = shared.client.describe_configs(&resources);
    let described = match tokio::time::timeout(CONFIGS_TIMEOUT, asked).await {
        Ok(Ok(described)) => described,
        Ok(Err(error)) => return (Vec::new(), Some(error.in_one_line())),
        Err(_) => return (Vec::new(), Some("the settings did not come in time".to_owned())),
    };
    match described.into_iter().next().map(|one| one.configs) {
        Some(Ok(entries)) => (entries.iter().map(config).collect(), None),
        Some(Err(refused)) => (Vec::new(), Some(refused.to_string())),
        None => (Vec::new(), None),
    }
}

fn config(entry: &ConfigEntry) -> Value {
    // Kafka's number 5: what is in force where nothing is set.
    let default = entry.synonyms.iter().rev().find(|synonym| synonym.source == 5);
    let default = default.and_then(|synonym| synonym.value.clone());
    let is_default = entry.source == 5;
    json!({
        "name": entry.name,
        "value": entry.value,
        "source": ConfigEntry::source_name(entry.source),
        "default": default.or_else(|| entry.value.clone().filter(|_| is_default)),
        "is_default": is_default,
        "is_sensitive": entry.is_sensitive,
    })
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{Figures, GroupLag};

    use super::*;
    use crate::cluster::PartitionFacts;

    fn facts(topics: usize, partitions: i32) -> Facts {
        let partition = |index| PartitionFacts {
            index,
            leader: Some(1),
            replicas: vec![1, 2, 3],
            isr: vec![1, 2, 3],
            start: Some(0),
            end: Some(1_000_000_000),
            size_bytes: Some(1_000_000_000),
        };
        let topics = (0..topics).map(|n| TopicFacts {
            name: format!("a-topic-with-a-long-name-{n:05}"),
            partitions: (0..partitions).map(partition).collect(),
            in_rate: Some(n as f64 / 3.0),
            ..TopicFacts::default()
        });
        Facts { at_ms: 1, topics: topics.collect(), ..Facts::default() }
    }

    fn snapshot(groups: usize, topics: usize) -> Snapshot {
        let groups = (0..groups).map(|group| GroupLag {
            group: format!("a-group-with-a-long-name-{group:05}"),
            state: "Stable".into(),
            members: 1,
            figures: Figures::default(),
            topics: (0..topics)
                .map(|n| TopicLag {
                    topic: format!("a-topic-with-a-long-name-{n:05}"),
                    figures: Figures {
                        lag: Some((group + n) as i64),
                        lag_seconds: Some(group as f64),
                        ..Figures::default()
                    },
                    partitions: vec![],
                })
                .collect(),
            why: None,
        });
        Snapshot { now_ms: 1, groups: groups.collect() }
    }

    #[test]
    fn ten_thousand_topics_are_a_small_answer() {
        let (facts, snapshot) = (facts(10_000, 1), snapshot(20, 1_000));
        let page = |query: &str| table(&facts, &snapshot, &Params::of(query).page().unwrap());
        let answer = page("sort=lag&desc=1&limit=500");
        assert!(answer.to_string().len() < 400_000, "{}", answer.to_string().len());
        let first = &answer["rows"][0];
        assert_eq!(first["topic"], "a-topic-with-a-long-name-00999");
        assert_eq!(
            (first["groups"].as_array().unwrap().len(), &first["groups_total"]),
            (GROUPS_MAX, &20.into())
        );
        assert_eq!(first["groups"][0]["group"], "a-group-with-a-long-name-00019");
        assert!(page("sort=in_rate&desc=1").to_string().len() < 100_000);
        assert_eq!(page("q=LONG-NAME-00007")["rows"][0]["records"], 1_000_000_000);
    }
}
