//! What is told of a snapshot: whole for programs, bounded for pages. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use elkfk_broker_client::lag::{Drain, Figures, GroupLag, PartitionLag, Snapshot, TopicLag};
use serde::Serialize;
use serde_json::{Value, json};

use crate::Health;
use crate::ask::{Key, Page};

/// Of one event of the stream: it is sent once a second to every open page.
const BRIEF_BYTES_MAX: usize = 256 << 10;
const BRIEF_GROUPS_MAX: usize = 1_000;
const BRIEF_TOPICS_MAX: usize = 20;

/// How the answers that a snapshot rests on are.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    pub(crate) sent_ms: i64,
    pub(crate) broker: &'a Health,
    pub(crate) store: Option<&'a Health>,
}

impl Told<'_> {
    fn head(&self, now_ms: i64) -> Value {
        let health = |health: &Health| match health {
            Ok(text) => json!({"ok": true, "text": text}),
            Err(text) => json!({"ok": false, "text": text}),
        };
        json!({
            "now_ms": now_ms,
            "sent_ms": self.sent_ms,
            "stale": self.broker.is_err(),
            "broker": health(self.broker),
            "store": self.store.map(health),
        })
    }
}

/// Everything, with the rows of all partitions.
pub(crate) fn whole(snapshot: &Snapshot, told: &Told<'_>) -> Value {
    let mut json = told.head(snapshot.now_ms);
    json["groups"] = serde_json::to_value(&snapshot.groups).unwrap_or_default();
    json
}

#[derive(Serialize)]
struct BriefGroup<'a> {
    group: &'a str,
    group_state: &'a str,
    members: usize,
    why: Option<&'a str>,
    #[serde(flatten)]
    figures: Figures,
    topics_total: usize,
    topics: Vec<BriefTopic<'a>>,
}

#[derive(Serialize)]
struct BriefTopic<'a> {
    topic: &'a str,
    partitions: usize,
    #[serde(flatten)]
    figures: Figures,
}

/// Groups and topics without their partitions, the worst first, as far as there is room.
pub(crate) fn brief(snapshot: &Snapshot, told: &Told<'_>) -> String {
    let mut groups: Vec<&GroupLag> = snapshot.groups.iter().collect();
    groups.sort_by(|a, b| worse(&a.figures, &b.figures).then_with(|| a.group.cmp(&b.group)));
    let mut text = told.head(snapshot.now_ms).to_string();
    text.pop();
    let _ = write!(text, ",\"groups_total\":{},\"groups\":[", groups.len());
    let mut comma = "";
    for group in groups.into_iter().take(BRIEF_GROUPS_MAX) {
        let row = serde_json::to_string(&brief_group(group)).unwrap_or_default();
        if row.is_empty() || text.len() + row.len() + 3 > BRIEF_BYTES_MAX {
            break;
        }
        text.push_str(comma);
        text.push_str(&row);
        comma = ",";
    }
    text.push_str("]}");
    text
}

fn brief_group(group: &GroupLag) -> BriefGroup<'_> {
    let mut topics: Vec<&TopicLag> = group.topics.iter().collect();
    topics.sort_by(|a, b| worse(&a.figures, &b.figures).then_with(|| a.topic.cmp(&b.topic)));
    BriefGroup {
        group: &group.group,
        group_state: &group.state,
        members: group.members,
        why: group.why.as_deref(),
        figures: rounded(&group.figures),
        topics_total: topics.len(),
        topics: topics
            .into_iter()
            .take(BRIEF_TOPICS_MAX)
            .map(|topic| BriefTopic {
                topic: &topic.topic,
                partitions: topic.partitions.len(),
                figures: rounded(&topic.figures),
            })
            .collect(),
    }
}

/// The worse comes first: by seconds, then by records, then by state.
fn worse(a: &Figures, b: &Figures) -> std::cmp::Ordering {
    let seconds = |figures: &Figures| figures.lag_seconds.unwrap_or(-1.0);
    seconds(b).total_cmp(&seconds(a)).then(b.lag.cmp(&a.lag)).then(b.state.cmp(&a.state))
}

/// Three decimals are what is shown; sixteen are what is sent otherwise.
pub(crate) fn rounded(figures: &Figures) -> Figures {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let maybe = |value: Option<f64>| value.map(round);
    Figures {
        lag: figures.lag,
        lag_seconds: maybe(figures.lag_seconds),
        in_rate: maybe(figures.in_rate),
        out_rate: maybe(figures.out_rate),
        in_1m: maybe(figures.in_1m),
        out_1m: maybe(figures.out_1m),
        in_10m: maybe(figures.in_10m),
        out_10m: maybe(figures.out_10m),
        drain: figures.drain.map(|drain| match drain {
            Drain::Seconds(seconds) => Drain::Seconds(round(seconds)),
            Drain::Never => Drain::Never,
        }),
        retention_used: figures.retention_used.map(|used| (used * 1e5).round() / 1e5),
        lost: figures.lost,
        state: figures.state,
    }
}

/// The figures as fields of an object.
pub(crate) fn fields(figures: &Figures) -> serde_json::Map<String, Value> {
    match serde_json::to_value(rounded(figures)) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

/// What a row of figures is sorted by; `None` for a name that is no figure.
pub(crate) fn key(figures: &Figures, sort: &str) -> Option<Key> {
    Some(match sort {
        "lag" => figures.lag.map(|lag| lag as f64).into(),
        "lag_seconds" => figures.lag_seconds.into(),
        "in_rate" => figures.in_rate.into(),
        "out_rate" => figures.out_rate.into(),
        "retention_used" => figures.retention_used.into(),
        "lost" => Key::Number(figures.lost as f64),
        "state" => Key::Number(f64::from(figures.state as u8)),
        "drain" => match figures.drain {
            Some(Drain::Seconds(seconds)) => Key::Number(seconds),
            Some(Drain::Never) => Key::Number(f64::INFINITY),
            None => Key::Unknown,
        },
        _ => return None,
    })
}

/// One page of the partitions of a topic as a group sees it.
pub(crate) fn partitions(
    topic: Option<&TopicLag>,
    leaders: &BTreeMap<i32, i32>,
    page: &Page,
) -> Value {
    let rows: Vec<&PartitionLag> = topic
        .iter()
        .flat_map(|topic| &topic.partitions)
        .filter(|row| {
            page.wanted.is_empty()
                || row.partition.to_string() == page.wanted
                || row.figures.state.name() == page.wanted
                || row.member.as_deref().is_some_and(|member| page.wants(member))
        })
        .collect();
    let sort = |row: &&PartitionLag| match page.sort.as_str() {
        "member" => row.member.clone().map_or(Key::Unknown, Key::Text),
        "leader" => leaders.get(&row.partition).map(|leader| f64::from(*leader)).into(),
        other => key(&row.figures, other).unwrap_or(Key::Number(f64::from(row.partition))),
    };
    page.cut(rows, sort, |row| {
        let mut json = json!({
            "partition": row.partition,
            "leader": leaders.get(&row.partition),
            "member": row.member,
            "committed": row.committed,
            "start": row.start,
            "end": row.end,
            "moved_ms": row.moved_ms,
            "retention": row.retention,
            "why": row.why,
        });
        if let Value::Object(json) = &mut json {
            json.extend(fields(&row.figures));
        }
        json
    })
}

#[cfg(test)]
mod tests {
    use elkfk_broker_client::lag::State;

    use super::*;
    use crate::ask::Params;

    pub(super) fn partition(partition: i32, lag: Option<i64>) -> PartitionLag {
        let figures = Figures {
            lag,
            lag_seconds: lag.map(|lag| lag as f64 / 3.0),
            in_rate: Some(1_234.567_890_123),
            out_rate: Some(1_234.567_890_123),
            in_1m: Some(1_234.567_890_123),
            out_1m: Some(1_234.567_890_123),
            in_10m: Some(1_234.567_890_123),
            out_10m: Some(1_234.567_890_123),
            drain: Some(Drain::Seconds(1.0 / 3.0)),
            retention_used: Some(1.0 / 3.0),
            lost: 0,
            state: State::Behind,
        };
        PartitionLag {
            partition,
            member: Some(format!("client-{} @ 10.0.0.1", partition % 10)),
            committed: Some(1),
            start: Some(0),
            end: Some(2),
            figures,
            moved_ms: Some(1),
            retention: None,
            why: None,
        }
    }

    fn snapshot(groups: usize, topics: usize, partitions: i32) -> Snapshot {
        let groups = (0..groups).map(|group| {
            let topics = (0..topics).map(|topic| TopicLag {
                topic: format!("a-topic-with-a-long-name-{topic:05}"),
                figures: partition(0, Some(group as i64)).figures,
                partitions: (0..partitions).map(|p| partition(p, Some(i64::from(p)))).collect(),
            });
            GroupLag {
                group: format!("a-group-with-a-long-name-{group:05}"),
                state: "Stable".into(),
                members: 3,
                figures: partition(0, Some(group as i64)).figures,
                topics: topics.collect(),
                why: None,
            }
        });
        Snapshot { now_ms: 1, groups: groups.collect() }
    }

    #[test]
    fn an_event_is_bounded_whatever_there_is_and_begins_with_the_worst() {
        let broker = Ok("answers".to_owned());
        let told = Told { sent_ms: 2, broker: &broker, store: None };
        for (groups, topics) in [(500, 1), (3, 5000), (5000, 3), (0, 0)] {
            let text = brief(&snapshot(groups, topics, 2), &told);
            assert!(text.len() <= BRIEF_BYTES_MAX, "{}", text.len());
            let json: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(json["groups_total"], groups);
            let rows = json["groups"].as_array().unwrap();
            assert!(groups == 0 || !rows.is_empty());
            if let Some(row) = rows.first() {
                assert_eq!(row["lag"], groups - 1);
                assert_eq!(row["topics_total"], topics);
                assert_eq!(
                    (&row["state"], &row["group_state"]),
                    (&"behind".into(), &"Stable".into())
                );
                assert_eq!(row["topics"][0]["partitions"], 2);
            }
        }
    }

    #[test]
    fn partitions_are_sorted_and_paged_here() {
        let snapshot = snapshot(1, 1, 10_000);
        let topic = &snapshot.groups[0].topics[0];
        let leaders = BTreeMap::from([(9_999, 7)]);
        let page =
            |query: &str| partitions(Some(topic), &leaders, &Params::of(query).page().unwrap());
        let worst = page("sort=lag&desc=1&limit=500");
        assert!(worst.to_string().len() < 300_000, "{}", worst.to_string().len());
        let first = &worst["rows"][0];
        assert_eq!(
            (&worst["total"], &first["partition"], &first["leader"]),
            (&10_000.into(), &9_999.into(), &7.into())
        );
        assert_eq!(first["drain"]["seconds"], 0.333);
        assert_eq!(page("q=client-3&limit=1")["total"], 1_000);
        assert_eq!(page("q=17")["rows"][0]["partition"], 17);
        assert_eq!(page("offset=9990")["rows"].as_array().unwrap().len(), 10);
        assert_eq!(partitions(None, &leaders, &Params::of("").page().unwrap())["total"], 0);
    }

    #[test]
    fn the_whole_has_both_states_and_every_partition() {
        let broker = Err("away".to_owned());
        let told = Told { sent_ms: 2, broker: &broker, store: None };
        let json = whole(&snapshot(1, 1, 3), &told);
        let group = &json["groups"][0];
        assert_eq!((&group["state"], &group["group_state"]), (&"behind".into(), &"Stable".into()));
        assert_eq!(group["topics"][0]["partitions"].as_array().unwrap().len(), 3);
        assert_eq!((&json["stale"], &json["broker"]["text"]), (&true.into(), &"away".into()));
    }
}
