//! What is answered under `/api/v1/`: one line per question, each answered by the file it names.

use std::sync::Arc;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};

use crate::ask::Params;
use crate::cluster::topics;
use crate::lag::heat::MINUTES_MAX;
use crate::lag::{answers, whatif};
use crate::{Shared, alerts, decisions, ensemble, groups, hold, overview};

/// Why there is no answer, told to the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) text: String,
}

impl Problem {
    /// The question cannot be answered as it is put.
    pub(crate) fn wrong(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    pub(crate) fn missing(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// Somebody else who would have to answer does not.
    pub(crate) fn away(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, text: text.into() }
    }

    pub(crate) fn unmeasured() -> Self {
        let text = "nothing is measured yet".to_owned();
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text }
    }
}

pub(crate) type Answer = Result<Value, Problem>;

/// `None` for a path that is no question.
pub(crate) async fn get(shared: &Arc<Shared>, path: &str, params: &Params) -> Option<Answer> {
    Some(match path.strip_prefix("/api/v1/")? {
        "lag" => whole(shared).await,
        "lag/partitions" => partitions(shared, params),
        "lag/history" => history(shared, params),
        "lag/heat" => heat(shared, params),
        "lag/whatif" => what_if(shared, params),
        "marks" => marks(shared, params),
        "overview" => Ok(overview::answer(shared)),
        "topics" => topics::list(shared, params),
        "topic" => topics::one(shared, params).await,
        "groups" => groups::list(shared, params).await,
        "group" => groups::one(shared, params).await,
        "decisions" => decisions::answer(shared, params),
        "alerts" => Ok(alerts::list(shared)),
        "ensemble" => Ok(ensemble::answer(shared)),
        "ensemble/znode" => ensemble::znode::answer(shared, params).await,
        _ => return None,
    })
}

/// A question with a body; most of these change something.
pub(crate) async fn change(
    shared: &Arc<Shared>,
    method: &Method,
    path: &str,
    params: &Params,
    body: Value,
) -> Option<Answer> {
    Some(match (method.as_str(), path.strip_prefix("/api/v1/")?) {
        ("POST", "group/reset") => groups::reset::reset(shared, body).await,
        ("POST", "group/undo") => groups::reset::undo(shared, body).await,
        ("PUT", "alerts/rule") => alerts::put_rule(shared, body).await,
        ("DELETE", "alerts/rule") => alerts::delete_rule(shared, params).await,
        ("POST", "alerts/preview") => alerts::preview(shared, body).await,
        ("POST", "alerts/silence") => alerts::silence(shared, body).await,
        ("PUT", "alerts/receiver") => alerts::put_receiver(shared, body).await,
        ("DELETE", "alerts/receiver") => alerts::delete_receiver(shared, params).await,
        _ => return None,
    })
}

/// With every partition: some megabytes in a large cluster, so apart from the runtime.
async fn whole(shared: &Shared) -> Answer {
    let latest = shared.latest().ok_or_else(Problem::unmeasured)?;
    let told =
        tokio::task::spawn_blocking(move || answers::whole(&latest.snapshot, &latest.told()));
    told.await.map_err(|error| Problem::away(error.to_string()))
}

fn partitions(shared: &Shared, params: &Params) -> Answer {
    let page = params.page()?;
    let latest = shared.latest().ok_or_else(Problem::unmeasured)?;
    let (group, topic) = (params.text("group"), params.text("topic"));
    let leaders = hold(&shared.cluster).leaders(topic);
    Ok(answers::partitions(latest.topic(group, topic), &leaders, &page))
}

/// From and to before when, in milliseconds; everything where it is not said.
fn span(params: &Params) -> Result<(i64, i64), Problem> {
    let (from_ms, to_ms) = (params.time_ms("from_ms")?, params.time_ms("to_ms")?);
    Ok((from_ms.unwrap_or(i64::MIN), to_ms.unwrap_or(i64::MAX)))
}

fn history(shared: &Shared, params: &Params) -> Answer {
    let (group, topic) = (params.text("group"), params.text("topic"));
    let span = span(params)?;
    Ok(json!({ "points": hold(&shared.memory).histories.points(group, topic, span) }))
}

fn heat(shared: &Shared, params: &Params) -> Answer {
    let minutes = params.number("minutes", 1..=MINUTES_MAX)?.unwrap_or(MINUTES_MAX);
    Ok(hold(&shared.memory).heat.strip(params.text("group"), params.text("topic"), minutes))
}

fn what_if(shared: &Shared, params: &Params) -> Answer {
    let count = |name: &str| params.number(name, 1..=whatif::COUNT_MAX);
    let (partitions, consumers) = (count("partitions")?, count("consumers")?);
    let latest = shared.latest().ok_or_else(Problem::unmeasured)?;
    let (group, topic) = (params.text("group"), params.text("topic"));
    let topic = latest
        .topic(group, topic)
        .ok_or_else(|| Problem::missing(format!("the group {group:?} reads no topic {topic:?}")))?;
    Ok(whatif::answer(topic, partitions, consumers))
}

fn marks(shared: &Shared, params: &Params) -> Answer {
    let (from_ms, to_ms) = span(params)?;
    Ok(json!({ "marks": hold(&shared.marks).between(from_ms, to_ms) }))
}
