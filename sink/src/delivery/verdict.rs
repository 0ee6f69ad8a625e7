//! What an answer to a bulk request means: the table of docs/sink-delivery.md.
//!
//! Elasticsearch judges each document apart, and so does the sink: one bad document or one blocked
//! index never stops the others, and nothing is dropped.

use serde::Deserialize;
use serde_json::Value;

/// What becomes of one document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Indexed,
    /// 409: a delivery before this one had arrived.
    AlreadyThere,
    /// The cluster is overloaded: this document again, later.
    Retry {
        reason: String,
    },
    /// The document does not fit the mapping. The field at fault, where the answer names it.
    Conflict {
        reason: String,
        field: Option<String>,
    },
    /// No later try can succeed.
    Dead {
        reason: String,
    },
    /// The index refuses writes for now: its lane waits.
    Blocked {
        reason: String,
    },
}

/// What becomes of a whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestVerdict {
    /// Every document was indexed.
    AllIndexed,
    /// One verdict for each document, in order.
    Items(Vec<Verdict>),
    /// 429: the same again, later, and less at a time.
    Throttled { reason: String },
    /// 413: in halves.
    TooLarge,
    /// 400: one of the documents spoils the request; in halves until it is found.
    Malformed { reason: String },
    /// 401, 403: nothing is read any more until this is repaired.
    Unauthorised { reason: String },
    /// Anything else: the same again, elsewhere or later.
    Unavailable { reason: String },
}

/// Judges an HTTP answer to a request with `documents` documents.
pub fn judge(status: u16, body: &[u8], documents: usize) -> RequestVerdict {
    match status {
        200..=299 => judge_body(body, documents),
        400 => RequestVerdict::Malformed { reason: reason_of(status, body) },
        401 | 403 => RequestVerdict::Unauthorised { reason: reason_of(status, body) },
        413 => RequestVerdict::TooLarge,
        429 => RequestVerdict::Throttled { reason: reason_of(status, body) },
        _ => RequestVerdict::Unavailable { reason: reason_of(status, body) },
    }
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    errors: bool,
    #[serde(default)]
    items: Vec<Item>,
}

/// `{"create":{"status":201}}`
#[derive(Deserialize)]
struct Item {
    #[serde(alias = "create", alias = "index", alias = "update", alias = "delete")]
    result: ItemResult,
}

#[derive(Deserialize)]
struct ItemResult {
    status: u16,
    #[serde(default)]
    error: Value,
}

fn judge_body(body: &[u8], documents: usize) -> RequestVerdict {
    // The answer to nearly every request; its items need not be looked at.
    if body.starts_with(br#"{"errors":false"#) {
        return RequestVerdict::AllIndexed;
    }
    let unavailable = |reason: String| RequestVerdict::Unavailable { reason };
    let reply: Reply = match serde_json::from_slice(body) {
        Ok(reply) => reply,
        Err(error) => return unavailable(format!("answered what is not a bulk answer: {error}")),
    };
    if !reply.errors && reply.items.is_empty() && documents > 0 {
        return unavailable("answered without items: is this Elasticsearch?".into());
    }
    if reply.items.len() != documents {
        let items = reply.items.len();
        return unavailable(format!("answered {items} items to {documents} documents"));
    }
    RequestVerdict::Items(
        reply.items.iter().map(|item| judge_item(item.result.status, &item.result.error)).collect(),
    )
}

/// Judges one item of a bulk answer; `error` is its error object, null where it has none.
pub fn judge_item(status: u16, error: &Value) -> Verdict {
    let kind = error["type"].as_str().unwrap_or_default();
    let reason = || describe(status, error);
    match (status, kind) {
        (200..=299, _) => Verdict::Indexed,
        (409, _) => Verdict::AlreadyThere,
        // Comes with 403, and with 429 for a full disk: here it means an index, not load.
        (_, "cluster_block_exception" | "index_closed_exception" | "security_exception") => {
            Verdict::Blocked { reason: reason() }
        }
        // `cluster.max_shards_per_node` reached: no new index, the others go on.
        (400, "validation_exception" | "illegal_argument_exception")
            if error["reason"]
                .as_str()
                .is_some_and(|text| text.contains("maximum") && text.contains("shards")) =>
        {
            Verdict::Blocked { reason: reason() }
        }
        (429 | 500 | 502..=504, _) | (_, "es_rejected_execution_exception") => {
            Verdict::Retry { reason: reason() }
        }
        (
            400,
            "document_parsing_exception"
            | "mapper_parsing_exception"
            | "illegal_argument_exception",
        ) => Verdict::Conflict { reason: reason(), field: field_at_fault(error) },
        _ => Verdict::Dead { reason: reason() },
    }
}

/// `400 document_parsing_exception: [1:9] failed to parse field [n] …: For input string: "x"`
fn describe(status: u16, error: &Value) -> String {
    let mut text = status.to_string();
    match error {
        Value::Object(_) => {
            for part in ["type", "reason"] {
                if let Some(part) = error[part].as_str() {
                    text.push_str(if text.contains(' ') { ": " } else { " " });
                    text.push_str(part);
                }
            }
            if let Some(cause) = error["caused_by"]["reason"].as_str() {
                text.push_str(": ");
                text.push_str(cause);
            }
        }
        Value::String(error) => {
            text.push(' ');
            text.push_str(error);
        }
        _ => {}
    }
    cut(text, 2000)
}

/// The words before the name of a field in Elasticsearch's and OpenSearch's reasons, the more
/// telling first: of `mapping for field [a.b]. Existing mapping for [a]` it is `a` that conflicts.
const BEFORE_FIELD: [(&str, char); 9] = [
    ("Existing mapping for [", ']'),
    ("object mapping for [", ']'),
    ("failed to parse field [", ']'),
    ("mapper [", ']'),
    ("non object mapping [", ']'),
    ("immense term in field=\"", '"'),
    ("object field [", ']'),
    ("makes object resolution ambiguous: [", ']'),
    ("field [", ']'),
];

fn field_at_fault(error: &Value) -> Option<String> {
    let reasons = [error["reason"].as_str(), error["caused_by"]["reason"].as_str()];
    for reason in reasons.into_iter().flatten() {
        for (before, end) in BEFORE_FIELD {
            if let Some((_, after)) = reason.split_once(before)
                && let Some((field, _)) = after.split_once(end)
                && !field.is_empty()
            {
                return Some(field.into());
            }
        }
    }
    None
}

fn reason_of(status: u16, body: &[u8]) -> String {
    match serde_json::from_slice::<Value>(body) {
        Ok(body) if !body["error"].is_null() => describe(status, &body["error"]),
        _ if body.is_empty() => status.to_string(),
        _ => cut(format!("{status} {}", String::from_utf8_lossy(body).trim()), 300),
    }
}

fn cut(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(status: u16, kind: &str, reason: &str) -> Verdict {
        judge_item(status, &serde_json::json!({ "type": kind, "reason": reason }))
    }

    fn conflict(kind: &str, reason: &str, expected: Option<&str>) {
        match item(400, kind, reason) {
            Verdict::Conflict { field, .. } => assert_eq!(field.as_deref(), expected, "{reason}"),
            other => panic!("{reason}: {other:?}"),
        }
    }

    #[test]
    fn good_items_and_repeats_are_done() {
        assert_eq!(judge_item(201, &Value::Null), Verdict::Indexed);
        assert_eq!(judge_item(200, &Value::Null), Verdict::Indexed);
        let reason = "[1]: version conflict, document already exists (current version [1])";
        assert_eq!(item(409, "version_conflict_engine_exception", reason), Verdict::AlreadyThere);
    }

    #[test]
    fn overload_is_put_off_and_blocks_wait() {
        let rejected = "es_rejected_execution_exception";
        assert!(matches!(item(429, rejected, "queue full"), Verdict::Retry { .. }));
        assert!(matches!(item(503, "unavailable_shards_exception", ""), Verdict::Retry { .. }));
        for status in [403, 429] {
            let reason = "index [a] blocked by: [TOO_MANY_REQUESTS/12/disk usage exceeded \
                          flood-stage watermark, index has read-only-allow-delete block];";
            let verdict = item(status, "cluster_block_exception", reason);
            assert!(matches!(verdict, Verdict::Blocked { .. }));
        }
        let shards = "Validation Failed: 1: this action would add [2] shards, but this cluster \
                      currently has [1000]/[1000] maximum normal shards open;";
        assert!(matches!(item(400, "validation_exception", shards), Verdict::Blocked { .. }));
    }

    #[test]
    fn conflicts_name_the_field() {
        let parsing = "document_parsing_exception";
        conflict(
            parsing,
            "[1:22] failed to parse field [status] of type [long] in document with id '1'. Preview of field's value: 'abc'",
            Some("status"),
        );
        conflict(
            parsing,
            "[1:9] object mapping for [host] tried to parse field [host] as object, but found a concrete value",
            Some("host"),
        );
        conflict(
            "illegal_argument_exception",
            "mapper [a.b] cannot be changed from type [long] to [keyword]",
            Some("a.b"),
        );
        conflict(
            "illegal_argument_exception",
            "Could not dynamically add mapping for field [a.b]. Existing mapping for [a] must be of type object but found [keyword].",
            Some("a"),
        );
        conflict(
            "illegal_argument_exception",
            "Document contains at least one immense term in field=\"x\" (whose UTF8 encoding is longer",
            Some("x"),
        );
        conflict(parsing, "[1:3] Unexpected character", None);
    }

    #[test]
    fn what_cannot_succeed_is_dead() {
        assert!(matches!(
            item(400, "invalid_index_name_exception", "Invalid index name [A]"),
            Verdict::Dead { .. }
        ));
        assert!(matches!(
            item(404, "index_not_found_exception", "no such index [a]"),
            Verdict::Dead { .. }
        ));
        assert!(matches!(
            item(400, "strict_dynamic_mapping_exception", "mapping set to strict"),
            Verdict::Dead { .. }
        ));
    }

    #[test]
    fn reason_carries_type_text_and_cause() {
        let error = serde_json::json!({"type": "t", "reason": "r", "caused_by": {"reason": "c"}});
        assert_eq!(describe(400, &error), "400 t: r: c");
        assert_eq!(describe(500, &Value::Null), "500");
    }

    #[test]
    fn whole_answers_are_judged_by_their_status() {
        use RequestVerdict::*;
        assert_eq!(judge(200, br#"{"errors":false,"items":[]}"#, 3), AllIndexed);
        let mixed = br#"{"errors":true,"items":[{"create":{"status":201}},{"create":{"status":409,"error":{"type":"x"}}}]}"#;
        assert_eq!(judge(200, mixed, 2), Items(vec![Verdict::Indexed, Verdict::AlreadyThere]));
        for (status, body, documents) in [
            (200, &mixed[..], 3),
            (200, b"<html>", 1),
            (200, b"{}", 1),
            (404, b"", 1),
            (502, b"bad gateway", 1),
            (504, b"", 1),
        ] {
            assert!(matches!(judge(status, body, documents), Unavailable { .. }), "{status}");
        }
        assert_eq!(judge(413, b"", 1), TooLarge);
        let body =
            br#"{"error":{"type":"es_rejected_execution_exception","reason":"full"},"status":429}"#;
        assert_eq!(
            judge(429, body, 1),
            Throttled { reason: "429 es_rejected_execution_exception: full".into() }
        );
        assert!(matches!(judge(401, b"", 1), Unauthorised { .. }));
        assert!(matches!(judge(400, b"", 1), Malformed { .. }));
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(status: u16, body: Vec<u8>, documents in 0usize..5) {
            judge(status, &body, documents);
        }
    }
}
