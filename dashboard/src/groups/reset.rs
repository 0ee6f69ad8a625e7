//! Shell: putting a group elsewhere, after a look at where, and back again for ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use elkfk_broker_client::{ClientError, OffsetAt, TopicPartition};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::plan::{self, Known, Row, To};
use super::undo::{self, UNDO_MS};
use crate::api::{Answer, Problem};
use crate::marks::{Kind, Mark};
use crate::{Shared, hold, now_ms};

/// Rows that are told; `rows_total` says how many there are.
const ROWS_MAX: usize = 1_000;
const PARTITIONS_MAX: usize = 20_000;

#[derive(Debug, Deserialize)]
struct Wanted {
    group: String,
    topics: Vec<WantedTopic>,
    to: To,
    #[serde(default)]
    execute: bool,
}

#[derive(Debug, Deserialize)]
struct WantedTopic {
    topic: String,
    /// `None`: all.
    partitions: Option<Vec<i32>>,
}

pub(crate) async fn reset(shared: &Arc<Shared>, body: Value) -> Answer {
    let wanted: Wanted = serde_json::from_value(body)
        .map_err(|error| Problem::wrong(format!("this is no reset: {error}")))?;
    if wanted.group.is_empty() || wanted.topics.is_empty() {
        return Err(Problem::wrong("name a group and at least one topic"));
    }
    let places = places(shared, &wanted.topics).await?;
    let client = &shared.client;
    let committed = committed(shared, &wanted.group).await?;
    let starts = client.list_offsets(&places, OffsetAt::Start).await.map_err(away)?;
    let ends = client.list_offsets(&places, OffsetAt::End).await.map_err(away)?;
    let asked = match wanted.to.question() {
        Some(question) => client.list_offsets(&places, question).await.map_err(away)?,
        None => Default::default(),
    };
    let known = Known { committed: &committed, starts: &starts, ends: &ends, asked: &asked };
    let mut rows = plan::rows(&places, wanted.to, &known);
    let refused = refusal(shared, &wanted.group).await?;
    if !wanted.execute || refused.is_some() {
        return Ok(told(&rows, false, refused, None));
    }
    let before: BTreeMap<_, _> =
        rows.iter().filter(|row| row.to.is_some()).map(|row| (row.place(), row.from)).collect();
    let now_ms = now_ms();
    // Before it is written: the answer may get lost, and the way back must not.
    let had_undo = {
        let mut undos = hold(&shared.undos);
        let had_undo = undos.before(&wanted.group, now_ms).is_some();
        undos.keep(&wanted.group, before, now_ms);
        had_undo
    };
    let unkept = undo::save(shared).await.err();
    let written = write(shared, &wanted.group, &mut rows).await?;
    if written == 0 {
        if !had_undo {
            hold(&shared.undos).leave(&wanted.group, BTreeMap::new());
            let _ = undo::save(shared).await;
        }
        let refused = Some("none of the partitions could be set".to_owned());
        return Ok(told(&rows, false, refused, None));
    }
    let text = format!("{written} partitions of {} were reset", wanted.group);
    info!(group = %wanted.group, partitions = written, "offsets were reset");
    hold(&shared.marks).add(Mark::new(now_ms, Kind::Reset, text).of_group(&wanted.group));
    let mut answer = told(&rows, true, None, Some(now_ms + UNDO_MS));
    answer["undo_why"] = unkept.into();
    Ok(answer)
}

pub(crate) async fn undo(shared: &Arc<Shared>, body: Value) -> Answer {
    let group = body["group"].as_str().unwrap_or_default().to_owned();
    let before = hold(&shared.undos).before(&group, now_ms()).cloned();
    let Some(before) = before else {
        return Err(Problem::missing(format!("there is no reset of {group:?} to undo")));
    };
    let committed = committed(shared, &group).await?;
    let mut rows: Vec<Row> = before
        .iter()
        .map(|(place, to)| Row::new(place, committed.get(place).copied(), *to))
        .collect();
    let refused = refusal(shared, &group).await?;
    if refused.is_some() || body["execute"] == false {
        return Ok(told(&rows, false, refused, None));
    }
    let mut undone = write(shared, &group, &mut rows).await?;
    let uncommitted: Vec<TopicPartition> =
        before.iter().filter(|(_, to)| to.is_none()).map(|(place, _)| place.clone()).collect();
    if !uncommitted.is_empty() {
        match shared.client.delete_offsets(&group, &uncommitted).await.map_err(away)? {
            Ok(results) => {
                for row in rows.iter_mut().filter(|row| row.to.is_none()) {
                    match results.get(&row.place()) {
                        Some(Err(refused)) => row.why = Some(refused.to_string()),
                        _ => undone += 1,
                    }
                }
            }
            Err(refused) => {
                for row in rows.iter_mut().filter(|row| row.to.is_none()) {
                    row.why = Some(refused.to_string());
                }
            }
        }
    }
    if undone == 0 {
        return Ok(told(&rows, false, Some("none of the partitions could be set".into()), None));
    }
    // What was refused can be tried again.
    let left: BTreeMap<_, _> = rows
        .iter()
        .filter(|row| row.why.is_some())
        .filter_map(|row| Some((row.place(), *before.get(&row.place())?)))
        .collect();
    hold(&shared.undos).leave(&group, left);
    // Should it stay on disk: undone once more it moves nothing.
    let _ = undo::save(shared).await;
    info!(%group, partitions = undone, "a reset of offsets was undone");
    let text = format!("{undone} partitions of {group} were put back");
    hold(&shared.marks).add(Mark::new(now_ms(), Kind::Reset, text).of_group(&group));
    Ok(told(&rows, true, None, None))
}

/// Sets what `rows` say and writes refusals into them; answers how many were set.
async fn write(shared: &Shared, group: &str, rows: &mut [Row]) -> Result<usize, Problem> {
    let offsets: BTreeMap<TopicPartition, i64> =
        rows.iter().filter_map(|row| Some((row.place(), row.to?))).collect();
    if offsets.is_empty() {
        return Ok(0);
    }
    let results = shared.client.commit_offsets(group, &offsets).await.map_err(away)?;
    let mut written = 0;
    for row in rows.iter_mut().filter(|row| row.to.is_some()) {
        match results.get(&row.place()) {
            Some(Ok(())) => written += 1,
            Some(Err(refused)) => row.why = Some(refused.to_string()),
            None => row.why = Some("the broker did not answer for it".to_owned()),
        }
    }
    Ok(written)
}

/// The partitions that are meant: those that exist.
async fn places(shared: &Shared, topics: &[WantedTopic]) -> Result<Vec<TopicPartition>, Problem> {
    let names: Vec<&str> = topics.iter().map(|topic| topic.topic.as_str()).collect();
    let cluster = shared.client.metadata(Some(&names)).await.map_err(away)?;
    let mut places = Vec::new();
    for wanted in topics {
        let found = cluster.topic(&wanted.topic).filter(|topic| !topic.partitions.is_empty());
        let Some(topic) = found else {
            return Err(Problem::missing(format!("there is no topic {:?}", wanted.topic)));
        };
        let some: Option<BTreeSet<i32>> =
            wanted.partitions.as_ref().map(|partitions| partitions.iter().copied().collect());
        let has = |partition: &i32| topic.partitions.iter().any(|one| one.index == *partition);
        if let Some(unknown) = some.iter().flatten().find(|partition| !has(partition)) {
            let text = format!("topic {:?} has no partition {unknown}", wanted.topic);
            return Err(Problem::missing(text));
        }
        let is_wanted = |partition: i32| some.as_ref().is_none_or(|some| some.contains(&partition));
        let indices = topic.partitions.iter().map(|partition| partition.index);
        let indices = indices.filter(|partition| is_wanted(*partition));
        places.extend(indices.map(|partition| TopicPartition::new(topic.name.as_str(), partition)));
    }
    places.sort();
    places.dedup();
    match places.len() {
        0 => Err(Problem::missing("there is no such partition")),
        count if count > PARTITIONS_MAX => {
            Err(Problem::wrong(format!("no more than {PARTITIONS_MAX} partitions at once")))
        }
        _ => Ok(places),
    }
}

async fn committed(shared: &Shared, group: &str) -> Result<BTreeMap<TopicPartition, i64>, Problem> {
    let committed = shared.client.committed_offsets(group).await.map_err(away)?;
    Ok(committed.into_iter().map(|(place, committed)| (place, committed.offset)).collect())
}

/// Why the group may not be moved now: what it reads next would be committed over it.
async fn refusal(shared: &Shared, group: &str) -> Result<Option<String>, Problem> {
    let described = shared.client.describe_group(group).await.map_err(away)?;
    let members = described.members.len();
    let is_free = matches!(described.state.as_str(), "Empty" | "Dead");
    Ok((!is_free).then(|| {
        format!(
            "The group is {} with {members} member{}: stop its consumers first.",
            described.state,
            if members == 1 { "" } else { "s" }
        )
    }))
}

fn told(
    rows: &[Row],
    executed: bool,
    refused: Option<String>,
    undo_until_ms: Option<i64>,
) -> Value {
    json!({
        "rows": rows.iter().take(ROWS_MAX).collect::<Vec<_>>(),
        "rows_total": rows.len(),
        "executed": executed,
        "refused": refused,
        "undo_until_ms": undo_until_ms,
    })
}

fn away(error: ClientError) -> Problem {
    Problem::away(error.in_one_line())
}
