//! `_delete_by_query` and `_update_by_query`: a search, then a write for each hit.

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Value, json};
use tantivy::DocAddress;

use crate::api::Call;
use crate::engine::Engine;
use crate::error::EsError;
use crate::http::Answer;
use crate::index::{Op, OpResult, parse};
use crate::search::request::{self, SortSpec, Track};
use crate::search::{View, execute, fetch};

/// Documents at a time.
const PAGE: usize = 1000;

#[derive(Debug, Default)]
struct Done {
    total: u64,
    done: u64,
    conflicts: u64,
    batches: u64,
    /// A search did not come to its end, so there may be documents that were not met.
    is_timed_out: bool,
}

fn run(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
    deletes: bool,
) -> Result<Done, EsError> {
    let body = call.json()?.unwrap_or(Value::Null);
    let source = String::from_utf8_lossy(&call.body);
    if body.get("script").is_some() {
        return Err(EsError::illegal_argument("scripts are not supported by this store"));
    }
    let query = body.get("query").filter(|query| !query.is_null());
    if deletes && query.is_none() && call.parameter("q").is_none() {
        return Err(EsError::new(
            400,
            "action_request_validation_exception",
            "Validation Failed: 1: query is missing;",
        ));
    }
    let mut request = request::parse(
        &json!({"query": query.cloned().unwrap_or(json!({"match_all": {}}))}),
        &source,
    )?;
    request.take_parameters(|key| call.parameter(key).filter(|_| key == "q").map(str::to_owned))?;
    request.sort = vec![SortSpec {
        field: "_seq_no".into(),
        is_descending: false,
        missing_first: false,
        format: None,
        has_unmapped_type: true,
    }];
    (request.size, request.track) = (PAGE, Track::All);
    let mut sum = Done::default();
    for index in engine.resolve(expression, call.options())? {
        let view = View::open(&index)?;
        let views = [view];
        request.search_after = None;
        loop {
            let found = execute(engine, &views, &request)?;
            if request.search_after.is_none() {
                sum.total += found.total;
            }
            sum.is_timed_out |= found.is_timed_out;
            let Some(last) = found.last.clone() else { break };
            sum.batches += 1;
            let mut ops = Vec::new();
            let mut mapping = index.mapping.get();
            for hit in &found.hits {
                let stored = fetch::load(
                    &views[0],
                    DocAddress::new(hit.candidate.segment, hit.candidate.doc),
                )?;
                // What was changed since it was found may not be meant any more.
                let expects = Some(hit.candidate.seq_no);
                ops.push(if deletes {
                    Op::Delete { id: stored.id.into(), expects }
                } else {
                    let text = Arc::new(stored.source);
                    let document = parse::parse(
                        &text,
                        0..text.len(),
                        &index.mapping,
                        &mut mapping,
                        index.fields,
                        &stored.id,
                    )?;
                    Op::Put {
                        document: Box::new(document),
                        is_create: false,
                        is_auto_id: false,
                        expects,
                    }
                });
            }
            for outcome in index.apply(ops, 0)? {
                match outcome.result {
                    OpResult::Deleted | OpResult::Updated | OpResult::Created => sum.done += 1,
                    OpResult::NotFound | OpResult::Conflict => sum.conflicts += 1,
                }
            }
            if sum.is_timed_out {
                return Ok(sum);
            }
            request.search_after = Some(last);
        }
    }
    Ok(sum)
}

fn answer(
    call: &Call,
    expression: &str,
    engine: &Arc<Engine>,
    deletes: bool,
) -> Result<Answer, EsError> {
    let started = Instant::now();
    let Done { total, done, conflicts, batches, is_timed_out } =
        run(engine, call, expression, deletes)?;
    let verb = if deletes { "deleted" } else { "updated" };
    Ok(Answer::json(
        200,
        &json!({
            "took": started.elapsed().as_millis() as u64, "timed_out": is_timed_out, "total": total, verb: done, "batches": batches,
            "version_conflicts": conflicts, "noops": 0, "retries": {"bulk": 0, "search": 0}, "throttled_millis": 0,
            "requests_per_second": -1.0, "throttled_until_millis": 0, "failures": [],
        }),
    ))
}

pub(super) fn delete_by_query(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    answer(call, expression, engine, true)
}

pub(super) fn update_by_query(
    engine: &Arc<Engine>,
    call: &Call,
    expression: &str,
) -> Result<Answer, EsError> {
    answer(call, expression, engine, false)
}
