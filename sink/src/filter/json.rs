//! Reads a field that holds JSON into fields.
//!
//! Texts of the parsed value stay where they are in the field's text. Differs: JSON nested deeper
//! than 128 is refused.

use super::{Context, Filter, Verdict, tag_all};
use crate::{
    config::Options,
    event::{Datum, Event, FieldRef, KeyIndex, ROOT, TIMESTAMP, Timestamp},
};

#[derive(Debug)]
pub(crate) struct Json {
    source: FieldRef,
    target: Option<FieldRef>,
    tags_on_failure: Vec<String>,
    skips_invalid: bool,
}

impl Json {
    pub(crate) fn read(options: &mut Options<'_>) -> Option<Self> {
        options.ignored(&["ecs_compatibility"]);
        if !options.has("source") {
            options.missing("source");
        }
        let tags = options.list("tag_on_failure");
        let tags_on_failure = if options.has("tag_on_failure") {
            tags.into_iter().map(|tag| tag.value).collect()
        } else {
            vec!["_jsonparsefailure".to_owned()]
        };
        let target = options.field("target");
        let skips_invalid = options.boolean("skip_on_invalid_json", false);
        Some(Self { source: options.field("source")?, target, tags_on_failure, skips_invalid })
    }

    /// Puts the fields of an object at the top of the event.
    fn spread(&self, event: &mut Event, parsed: Datum, context: &Context) -> bool {
        let Datum::Object(list) = parsed else { return false };
        let mut fields = KeyIndex::new(ROOT);
        let mut at = list.first;
        while at != 0 {
            let node = event.nodes[at as usize];
            at = node.next;
            let key = event.str_at(node.key);
            match (key, node.datum) {
                (TIMESTAMP, datum) => set_time(event, datum, context),
                // Logstash reads each key as a field reference.
                (key, datum) if key.contains(['[', ']']) => {
                    let Ok(field) = FieldRef::parse(key) else { return false };
                    if event.set(&field, datum).is_err() {
                        return false;
                    }
                }
                (_, datum) => match fields.find(event, node.key) {
                    Some(id) => event.nodes[id as usize].datum = datum,
                    None => {
                        event.append(ROOT, node.key, datum);
                    }
                },
            }
        }
        true
    }
}

/// The time from the JSON; one that is none moves to `_@timestamp`.
fn set_time(event: &mut Event, datum: Datum, context: &Context) {
    let time = match datum {
        Datum::Text(span) => Timestamp::parse_iso8601(event.str_at(span)),
        _ => None,
    };
    match time {
        Some(time) => event.set_timestamp(time),
        None if datum == Datum::Null => {}
        None => {
            event.set_timestamp(context.received);
            event.tag("_timestampparsefailure");
            let text = match datum {
                Datum::Text(span) => Datum::Text(span),
                other => {
                    let id = event.set_child(ROOT, "_@timestamp", other);
                    Datum::Text(event.span_of_text(id))
                }
            };
            event.set_child(ROOT, "_@timestamp", text);
        }
    }
}

impl Filter for Json {
    fn apply(&self, event: &mut Event, context: &mut Context) -> Verdict {
        let Some(id) = event.find(&self.source) else { return Verdict::Unmatched };
        let parsed = match event.datum(id) {
            Datum::Null | Datum::Bool(false) => return Verdict::Unmatched,
            Datum::Text(span) => event.parse_span(span).ok(),
            _ => None,
        };
        let Some(parsed) = parsed else {
            if !self.skips_invalid {
                tag_all(event, &self.tags_on_failure);
            }
            return Verdict::Unmatched;
        };
        let is_set = match &self.target {
            Some(target) => event.set(target, parsed).is_ok(),
            None => self.spread(event, parsed, context),
        };
        if is_set {
            Verdict::Matched
        } else {
            tag_all(event, &self.tags_on_failure);
            Verdict::Unmatched
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::filter::testing::check;

    #[test]
    fn objects_spread_over_the_event_or_go_to_a_target() {
        check(
            "json { source => m }",
            r#"{"m":"{\"a\":1,\"b\":{\"c\":[true,null]},\"m\":\"new\"}"}"#,
            r#"{"m":"new","a":1,"b":{"c":[true,null]}}"#,
        );
        check(
            "json { source => m target => t }",
            r#"{"m":"{\"a\":1}","t":"old"}"#,
            r#"{"m":"{\"a\":1}","t":{"a":1}}"#,
        );
        check(
            "json { source => m target => \"[t][u]\" remove_field => m }",
            r#"{"m":"[1,\"x\\ny\"]"}"#,
            r#"{"t":{"u":[1,"x\ny"]}}"#,
        );
        check(
            "json { source => \"[o][m]\" add_tag => done }",
            r#"{"o":{"m":"{}"}}"#,
            r#"{"o":{"m":"{}"},"tags":["done"]}"#,
        );
        check(
            "json { source => m }",
            r#"{"m":"{\"[x][y]\":1}"}"#,
            r#"{"m":"{\"[x][y]\":1}","x":{"y":1}}"#,
        );
    }

    #[test]
    fn what_is_no_json_is_tagged() {
        for m in [r#""{broken""#, r#""[1]""#, r#""3""#, r#""null""#, "5", r#"["{}"]"#, r#""""#] {
            let json = format!("{{\"m\":{m}}}");
            check(
                "json { source => m add_tag => done }",
                &json,
                &format!("{{\"m\":{m},\"tags\":[\"_jsonparsefailure\"]}}"),
            );
        }
        check(
            "json { source => m tag_on_failure => [bad1, bad2] }",
            r#"{"m":"{"}"#,
            r#"{"m":"{","tags":["bad1","bad2"]}"#,
        );
        check(
            "json { source => m skip_on_invalid_json => true add_tag => done }",
            r#"{"m":"{"}"#,
            r#"{"m":"{"}"#,
        );
        check("json { source => nope add_tag => done }", r#"{"m":"{"}"#, r#"{"m":"{"}"#);
    }

    #[test]
    fn a_time_in_the_json_becomes_the_events() {
        let source = crate::filter::testing::run(
            "json { source => m remove_field => m }",
            r#"{"m":"{\"@timestamp\":\"2026-01-02T03:04:05+01:00\"}"}"#,
        );
        assert_eq!(source["@timestamp"], "2026-01-02T02:04:05.000Z");
        check(
            "json { source => m remove_field => m }",
            r#"{"m":"{\"@timestamp\":\"soon\"}"}"#,
            r#"{"tags":["_timestampparsefailure"],"_@timestamp":"soon"}"#,
        );
    }
}
