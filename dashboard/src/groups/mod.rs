//! The consumer groups, as a table and one by one.

mod plan;
pub(crate) mod reset;
pub(crate) mod undo;

use std::collections::BTreeMap;
use std::time::Duration;

use elkfk_broker_client::GroupDescription;
use elkfk_broker_client::lag::{GroupLag, Snapshot};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{Answer, Problem};
use crate::ask::{Key, Page, Params};
use crate::lag::answers::{fields, key};
use crate::{Shared, hold};

/// The assignor of a group is remembered for this long.
const FRESH: Duration = Duration::from_secs(30);
/// Remembered groups; some 100 bytes each.
const KNOWN_MAX: usize = 2_000;
const ASKED_AT_ONCE: usize = 16;
/// What does not come within this is not in the table.
const PATIENCE: Duration = Duration::from_millis(700);
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(5);
const TOPICS_MAX: usize = 4;
const MEMBERS_MAX: usize = 500;
/// Partitions of all members of one answer.
const ASSIGNED_MAX: usize = 5_000;

/// Group → assignor, and when that was asked.
pub(crate) type Assignors = BTreeMap<String, (Instant, String)>;

pub(crate) async fn list(shared: &Shared, params: &Params) -> Answer {
    let page = params.page()?;
    let latest = shared.latest().ok_or_else(Problem::unmeasured)?;
    let mut answer = table(&latest.snapshot, &page);
    if let Some(rows) = answer["rows"].as_array_mut() {
        let names: Vec<String> =
            rows.iter().filter_map(|row| row["group"].as_str().map(str::to_owned)).collect();
        let assignors = assignors(shared, &names).await;
        for row in rows {
            let assignor = row["group"].as_str().and_then(|group| assignors.get(group)).cloned();
            row["assignor"] = assignor.filter(|name| !name.is_empty()).into();
        }
    }
    Ok(answer)
}

fn table(snapshot: &Snapshot, page: &Page) -> Value {
    let rows: Vec<&GroupLag> =
        snapshot.groups.iter().filter(|group| page.wants(&group.group)).collect();
    let sort = |group: &&GroupLag| match page.sort.as_str() {
        "members" => Key::Number(group.members as f64),
        "group_state" => Key::Text(group.state.clone()),
        other => key(&group.figures, other).unwrap_or_else(|| Key::Text(group.group.clone())),
    };
    page.cut(rows, sort, |group| {
        let names: Vec<&str> =
            group.topics.iter().take(TOPICS_MAX).map(|topic| topic.topic.as_str()).collect();
        let mut row = json!({
            "group": group.group,
            "group_state": group.state,
            "members": group.members,
            "topics": names,
            "topics_total": group.topics.len(),
            "assignor": null,
            "why": group.why,
        });
        if let Value::Object(row) = &mut row {
            row.extend(fields(&group.figures));
        }
        row
    })
}

/// The assignors of these groups, as far as they are known or come soon.
async fn assignors(shared: &Shared, names: &[String]) -> BTreeMap<String, String> {
    let mut known = BTreeMap::new();
    let mut missing = Vec::new();
    {
        let mut remembered = hold(&shared.assignors);
        remembered.retain(|_, (at, _)| at.elapsed() < FRESH);
        for name in names {
            match remembered.get(name) {
                Some((_, assignor)) => drop(known.insert(name.clone(), assignor.clone())),
                None => missing.push(name.clone()),
            }
        }
    }
    let ask = async {
        for some in missing.chunks(ASKED_AT_ONCE) {
            let mut asked = JoinSet::new();
            for name in some {
                let (client, name) = (shared.client.clone(), name.clone());
                asked.spawn(async move { client.describe_group(&name).await });
            }
            while let Some(answer) = asked.join_next().await {
                let Ok(Ok(described)) = answer else { continue };
                let mut remembered = hold(&shared.assignors);
                if remembered.len() < KNOWN_MAX {
                    let entry = (Instant::now(), described.protocol.clone());
                    remembered.insert(described.group.clone(), entry);
                }
                known.insert(described.group, described.protocol);
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, ask).await;
    known
}

pub(crate) async fn one(shared: &Shared, params: &Params) -> Answer {
    let name = params.text("group");
    if name.is_empty() {
        return Err(Problem::wrong("name a group"));
    }
    let latest = shared.latest();
    let measured = latest.as_ref().and_then(|latest| latest.group(name));
    let described = describe(shared, name).await;
    let is_dead = described.as_ref().is_ok_and(|group| group.state == "Dead");
    if measured.is_none() && is_dead {
        return Err(Problem::missing(format!("there is no group {name:?}")));
    }
    let mut answer = told(name, measured, described);
    answer["undo"] = hold(&shared.undos).offer(name, crate::now_ms());
    Ok(answer)
}

async fn describe(shared: &Shared, name: &str) -> Result<GroupDescription, String> {
    match tokio::time::timeout(DESCRIBE_TIMEOUT, shared.client.describe_group(name)).await {
        Ok(Ok(described)) => Ok(described),
        Ok(Err(error)) => Err(error.in_one_line()),
        Err(_) => Err(format!("no answer in {} s", DESCRIBE_TIMEOUT.as_secs())),
    }
}

fn told(
    name: &str,
    measured: Option<&GroupLag>,
    described: Result<GroupDescription, String>,
) -> Value {
    let topics: Vec<Value> = measured
        .into_iter()
        .flat_map(|group| &group.topics)
        .take(MEMBERS_MAX)
        .map(|topic| {
            let mut row = json!({"topic": topic.topic, "partitions": topic.partitions.len()});
            if let Value::Object(row) = &mut row {
                row.extend(fields(&topic.figures));
            }
            row
        })
        .collect();
    let mut json = json!({
        "group": name,
        "group_state": measured.map(|group| group.state.as_str()),
        "members": [],
        "members_total": 0,
        "assignor": null,
        "coordinator": null,
        "topics": topics,
        "topics_total": measured.map_or(0, |group| group.topics.len()),
        "why": measured.and_then(|group| group.why.as_deref()),
    });
    if let (Value::Object(json), Some(group)) = (&mut json, measured) {
        json.extend(fields(&group.figures));
    }
    let group = match described {
        Ok(group) => group,
        Err(why) => {
            json["why"] = why.into();
            return json;
        }
    };
    let mut room = ASSIGNED_MAX;
    let members = group.members.iter().take(MEMBERS_MAX).map(|member| {
        let all = member.assignment.iter().flat_map(|(topic, partitions)| {
            partitions.iter().map(move |partition| (topic, *partition))
        });
        let total = all.clone().count();
        let partitions: Vec<Value> = all
            .take(room)
            .map(|(topic, partition)| json!({"topic": topic, "partition": partition}))
            .collect();
        room -= partitions.len();
        json!({
            "member_id": member.id,
            "client_id": member.client_id,
            "host": member.host.trim_start_matches('/'),
            "instance_id": member.instance_id,
            "partitions": partitions,
            "partitions_total": total,
            "idle": total == 0,
        })
    });
    json["members"] = members.collect::<Vec<_>>().into();
    json["members_total"] = group.members.len().into();
    let idle = group.members.iter().filter(|member| member.assignment.is_empty()).count();
    json["idle_members"] = idle.into();
    json["group_state"] = group.state.into();
    json["assignor"] = Some(group.protocol).filter(|name| !name.is_empty()).into();
    json["coordinator"] =
        format!("{} ({})", group.coordinator.id, group.coordinator.address()).into();
    json
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::{Figures, State, TopicLag};
    use elkfk_broker_client::{Broker, Member};

    use super::*;

    fn group(n: usize, lag: i64) -> GroupLag {
        let figures = Figures { lag: Some(lag), state: State::Stopped, ..Figures::default() };
        GroupLag {
            group: format!("group-{n:04}"),
            state: "Empty".into(),
            members: n,
            figures: figures.clone(),
            topics: vec![TopicLag { topic: "logs".into(), figures, ..TopicLag::default() }],
            why: None,
        }
    }

    #[test]
    fn groups_are_sorted_searched_and_paged_here() {
        let groups = (0..500).map(|n| group(n, 1_000 - n as i64)).collect();
        let snapshot = Snapshot { now_ms: 1, groups };
        let page = |query: &str| table(&snapshot, &Params::of(query).page().unwrap());
        let all = page("sort=lag&desc=1&limit=500");
        assert!(all.to_string().len() < 300_000, "{}", all.to_string().len());
        assert_eq!((&all["total"], &all["rows"][0]["group"]), (&500.into(), &"group-0000".into()));
        assert_eq!(page("sort=members&desc=1")["rows"][0]["members"], 499);
        let row = &page("q=GROUP-0007")["rows"][0];
        assert_eq!((&row["state"], &row["group_state"]), (&"stopped".into(), &"Empty".into()));
    }

    #[test]
    fn idle_members_are_told() {
        let member = |id: &str, partitions: &[i32]| Member {
            id: id.into(),
            instance_id: None,
            client_id: "<b>x</b>".into(),
            host: "/10.0.0.1".into(),
            assignment: [("logs".to_owned(), partitions.to_vec())]
                .into_iter()
                .filter(|(_, partitions)| !partitions.is_empty())
                .collect(),
        };
        let described = GroupDescription {
            group: "sink".into(),
            state: "Stable".into(),
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![member("a", &[0, 1]), member("b", &[])],
            coordinator: Broker { id: 3, host: "kafka".into(), port: 9092, rack: None },
        };
        let json = told("sink", Some(&group(1, 5)), Ok(described));
        assert_eq!((&json["idle_members"], &json["members"][1]["idle"]), (&1.into(), &true.into()));
        assert_eq!(
            (&json["coordinator"], &json["assignor"]),
            (&"3 (kafka:9092)".into(), &"range".into())
        );
        assert_eq!((&json["members"][0]["host"], &json["lag"]), (&"10.0.0.1".into(), &5.into()));
        let away = told("sink", None, Err("no answer".into()));
        assert_eq!(away["why"], "no answer");
    }
}
