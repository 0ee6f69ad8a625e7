//! What the autoscaler decided: the tail of its topic, as it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use elkfk_broker_client::{OffsetAt, TopicPartition};
use elkfk_wire::kafka::ErrorCode;
use serde_json::{Value, json};
use tracing::debug;

use crate::api::Answer;
use crate::ask::Params;
use crate::{Shared, hold};

const EVERY: Duration = Duration::from_secs(3);
/// Of each partition, at the start.
const TAIL_RECORDS: i64 = 2_000;
/// Remembered events, and their bytes.
const EVENTS_MAX: usize = 2_000;
const BYTES_MAX: usize = 4 << 20;
/// A longer record is no event.
const RECORD_BYTES_MAX: usize = 64 << 10;
const FETCH_BYTES: i32 = 1 << 20;
/// Fetches of one round; what is left is read in the next.
const FETCHES_MAX: usize = 20;
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The newest events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    events: VecDeque<(usize, Value)>,
    bytes: usize,
    /// Why there are none, or none newer.
    why: Option<String>,
}

impl Decisions {
    fn add(&mut self, bytes: usize, event: Value) {
        let at_ms = |event: &Value| event["at_ms"].as_i64().unwrap_or(i64::MIN);
        // Of several partitions they come nearly in order.
        let time = at_ms(&event);
        let at = self.events.iter().rposition(|(_, one)| at_ms(one) <= time).map_or(0, |at| at + 1);
        self.events.insert(at, (bytes, event));
        self.bytes += bytes;
        while self.events.len() > EVENTS_MAX || self.bytes > BYTES_MAX {
            let Some((bytes, _)) = self.events.pop_front() else { return };
            self.bytes -= bytes;
        }
    }

    /// The newest first.
    pub(crate) fn newest(&self, limit: usize, is_wanted: impl Fn(&Value) -> bool) -> Vec<&Value> {
        let mut room = ANSWER_BYTES_MAX;
        let wanted = self.events.iter().rev().filter(|(_, event)| is_wanted(event));
        wanted
            .take(limit)
            .map_while(|(bytes, event)| {
                room = room.checked_sub(*bytes)?;
                Some(event)
            })
            .collect()
    }
}

/// A record that is an event; whatever else is in the topic is left out.
fn event(record: &[u8]) -> Option<Value> {
    if record.len() > RECORD_BYTES_MAX {
        return None;
    }
    let event: Value = serde_json::from_slice(record).ok()?;
    (event["event"].is_string() && event["at_ms"].is_i64()).then_some(event)
}

pub(crate) fn answer(shared: &Shared, params: &Params) -> Answer {
    let limit = params.limit()?;
    let (topic, group, acted) =
        (params.text("topic"), params.text("group"), params.is_set("acted"));
    let is = |event: &Value, field: &str, wanted: &str| wanted.is_empty() || event[field] == wanted;
    let decisions = hold(&shared.decisions);
    let found = decisions.newest(limit, |event| {
        is(event, "topic", topic) && is(event, "group", group) && (!acted || has_acted(event))
    });
    let why = match (&decisions.why, found.is_empty(), decisions.events.is_empty()) {
        (Some(why), ..) => Some(why.clone()),
        (None, true, true) => Some("The autoscaler has not decided anything yet.".to_owned()),
        (None, true, false) => Some("No decision is as asked for.".to_owned()),
        _ => None,
    };
    Ok(json!({"decisions": found, "why": why}))
}

/// Something was done, would have been done, or what came of it.
fn has_acted(event: &Value) -> bool {
    event["event"] == "effect" || event["action"].is_object() || event["advised"].is_object()
}

pub(crate) async fn run(shared: Arc<Shared>) {
    let mut next: BTreeMap<TopicPartition, i64> = BTreeMap::new();
    loop {
        let read = tokio::select! {
            () = shared.tasks.stopping() => return,
            read = read(&shared, &mut next) => read,
        };
        hold(&shared.decisions).why = read.err();
        tokio::select! {
            () = shared.tasks.stopping() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// Takes in what is new; the error is for the page.
async fn read(shared: &Shared, next: &mut BTreeMap<TopicPartition, i64>) -> Result<(), String> {
    let (client, name) = (&shared.client, shared.config.decisions_topic.as_str());
    let away = |error: elkfk_broker_client::ClientError| {
        debug!(%error, "the decisions cannot be read");
        format!("The decisions cannot be read: {}.", error.in_one_line())
    };
    let cluster = client.metadata(Some(&[name])).await.map_err(away)?;
    let topic = cluster.topic(name).filter(|topic| !topic.partitions.is_empty());
    let Some(topic) = topic else {
        next.clear();
        return Err(format!("No autoscaler has run: there is no topic {name}."));
    };
    let places: Vec<TopicPartition> =
        topic.partitions.iter().map(|one| TopicPartition::new(name, one.index)).collect();
    let unknown: Vec<_> = places.iter().filter(|one| !next.contains_key(*one)).cloned().collect();
    if !unknown.is_empty() {
        let starts = client.list_offsets(&unknown, OffsetAt::Start).await.map_err(away)?;
        let ends = client.list_offsets(&unknown, OffsetAt::End).await.map_err(away)?;
        for place in unknown {
            let known = |offsets: &elkfk_broker_client::ListedOffsets| {
                offsets.get(&place)?.as_ref().ok()?.offset
            };
            if let (Some(start), Some(end)) = (known(&starts), known(&ends)) {
                next.insert(place, start.max(end - TAIL_RECORDS));
            }
        }
    }
    let mut fetches = 0;
    for (place, offset) in next.iter_mut() {
        while fetches < FETCHES_MAX {
            fetches += 1;
            let fetched = client.fetch_records(place, *offset, FETCH_BYTES, Duration::ZERO).await;
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) if error.code() == Some(ErrorCode::OFFSET_OUT_OF_RANGE) => {
                    // Deleted or recreated meanwhile: begin anew, next time.
                    *offset = i64::MIN;
                    break;
                }
                Err(error) => return Err(away(error)),
            };
            let found = fetched.records.iter().filter_map(|record| {
                let value = record.value.as_deref()?;
                Some((value.len(), event(value)?))
            });
            for (bytes, event) in found {
                hold(&shared.marks).see_decision(&event);
                hold(&shared.decisions).add(bytes, event);
            }
            let is_over =
                fetched.next_offset <= *offset || fetched.next_offset >= fetched.high_watermark;
            *offset = fetched.next_offset.max(*offset);
            if is_over {
                break;
            }
        }
    }
    next.retain(|_, offset| *offset != i64::MIN);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_are_taken_and_they_are_bounded() {
        let mut decisions = Decisions::default();
        for record in ["", "x", "{}", r#"{"event":"decision"}"#, r#"{"event":3,"at_ms":1}"#] {
            assert_eq!(event(record.as_bytes()), None, "{record}");
        }
        assert_eq!(event(&vec![b' '; RECORD_BYTES_MAX + 1]), None);
        for at_ms in (0..5_000).rev() {
            let why = "x".repeat(2_000);
            let record = json!({"event": "decision", "at_ms": at_ms, "why": why}).to_string();
            decisions.add(record.len(), event(record.as_bytes()).unwrap());
        }
        assert!(decisions.bytes <= BYTES_MAX && decisions.events.len() <= EVENTS_MAX);
        let newest = decisions.newest(500, |_| true);
        assert_eq!(newest[0]["at_ms"], 4_999);
        let bytes: usize = newest.iter().map(|event| event.to_string().len()).sum();
        assert!((100_000..300_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_was_done_or_advised_has_acted() {
        assert!(has_acted(&json!({"event": "effect"})));
        assert!(has_acted(&json!({"event": "decision", "advised": {"do": "workers"}})));
        assert!(!has_acted(&json!({"event": "decision", "rule": "not-hot"})));
    }
}
