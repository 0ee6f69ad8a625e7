//! Discover: from what a person asks to a search of the index, and from its answer to what the page draws.

use serde_json::{Value, json};

/// Marks around matched words; control characters, so that no text of a log line can be taken for one.
const MARK_START: &str = "\u{1}";
const MARK_END: &str = "\u{2}";
/// About how many columns a histogram has.
const COLUMNS: i64 = 60;

/// What the page asks for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ask {
    /// Lucene's query syntax; empty matches everything.
    pub(crate) query: String,
    /// Milliseconds since 1970, inclusive.
    pub(crate) from_ms: Option<i64>,
    /// Milliseconds since 1970, exclusive.
    pub(crate) to_ms: Option<i64>,
    pub(crate) size: usize,
    /// Sort values of the last line already shown.
    pub(crate) after: Option<Value>,
}

/// Why a question cannot be asked; names the parameter and what it accepts.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value:?} is not {expected}")]
pub(crate) struct AskError {
    name: &'static str,
    value: String,
    expected: &'static str,
}

impl Ask {
    /// Reads the parameters of a request made at `now_ms`.
    pub(crate) fn from_params(params: &[(String, String)], now_ms: i64) -> Result<Self, AskError> {
        let mut ask = Self { size: 100, ..Self::default() };
        for (name, value) in params.iter().filter(|(_, value)| !value.is_empty()) {
            let wrong = |name, expected| AskError { name, value: value.clone(), expected };
            let millis = |name| {
                value.parse::<i64>().map_err(|_| wrong(name, "a time in milliseconds since 1970"))
            };
            match name.as_str() {
                "q" => ask.query = value.clone(),
                "from" => ask.from_ms = Some(millis("from")?),
                "to" => ask.to_ms = Some(millis("to")?),
                "range" => {
                    let length =
                        elkfk_base::units::parse_duration(value, std::time::Duration::from_secs(1));
                    let length = length
                        .ok_or_else(|| wrong("range", "a duration such as 15m, 24h or 7d"))?;
                    ask.from_ms = Some(
                        now_ms
                            .saturating_sub(i64::try_from(length.as_millis()).unwrap_or(i64::MAX)),
                    );
                }
                "size" => {
                    let size = value.parse().ok().filter(|size| *size <= 1000);
                    ask.size = size.ok_or_else(|| wrong("size", "a number up to 1000"))?;
                }
                "after" => {
                    let after = serde_json::from_str(value).ok().filter(Value::is_array);
                    ask.after =
                        Some(after.ok_or_else(|| wrong("after", "the sort values of a line"))?);
                }
                _ => {}
            }
        }
        Ok(ask)
    }

    fn filter(&self) -> Value {
        let mut range = json!({"format": "epoch_millis"});
        if let Some(from) = self.from_ms {
            range["gte"] = json!(from);
        }
        if let Some(to) = self.to_ms {
            range["lt"] = json!(to);
        }
        let mut filter = vec![];
        if self.from_ms.is_some() || self.to_ms.is_some() {
            filter.push(json!({"range": {"@timestamp": range}}));
        }
        if !self.query.trim().is_empty() {
            filter.push(json!({"query_string": {"query": self.query, "default_field": "message", "default_operator": "AND"}}));
        }
        json!({"bool": {"filter": filter}})
    }

    /// Asks for the ends of the time that matches, which the histogram needs first.
    pub(crate) fn span(&self) -> Value {
        json!({
            "size": 0, "track_total_hits": false, "query": self.filter(),
            "aggs": {"first": {"min": {"field": "@timestamp"}}, "last": {"max": {"field": "@timestamp"}}},
        })
    }

    /// Asks for the newest lines only.
    pub(crate) fn newest(&self) -> Value {
        let mut body = self.lines(1);
        if let Some(body) = body.as_object_mut() {
            body.remove("aggs");
        }
        body
    }

    /// Asks for lines, newest first, and the histogram in columns of `interval_ms`.
    pub(crate) fn lines(&self, interval_ms: i64) -> Value {
        let mut body = json!({
            "size": self.size, "track_total_hits": self.after.is_none(), "query": self.filter(),
            "sort": [{"@timestamp": {"order": "desc", "unmapped_type": "date"}}, {"_doc": {"order": "desc"}}],
            "highlight": {"fields": {"message": {}}, "pre_tags": [MARK_START], "post_tags": [MARK_END],
                "fragment_size": 2_147_483_647, "number_of_fragments": 1},
        });
        match &self.after {
            Some(after) => body["search_after"] = after.clone(),
            None => {
                body["aggs"] = json!({"columns": {"date_histogram":
                    {"field": "@timestamp", "fixed_interval": format!("{interval_ms}ms"), "min_doc_count": 0}}});
            }
        }
        body
    }
}

/// The matching time in milliseconds, from the answer to [`Ask::span`].
pub(crate) fn read_span(answer: &Value) -> Option<(i64, i64)> {
    let end = |name: &str| {
        answer["aggregations"][name]["value"]
            .as_f64()
            .filter(|ms| ms.is_finite())
            .map(|ms| ms as i64)
    };
    end("first").zip(end("last"))
}

/// How many lines match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) lines: u64,
    /// False: there are at least so many.
    pub(crate) is_exact: bool,
}

impl Total {
    pub(crate) fn exact(self) -> Option<u64> {
        self.is_exact.then_some(self.lines)
    }
}

/// The number of matching lines. An answer that ran out of time, lacks shards or stopped counting holds a
/// lower bound.
pub(crate) fn total(answer: &Value) -> Total {
    let total = &answer["hits"]["total"];
    let is_whole =
        answer["timed_out"] != true && answer["_shards"]["failed"].as_u64().unwrap_or(0) == 0;
    Total {
        lines: total["value"].as_u64().unwrap_or(0),
        is_exact: is_whole && total["relation"] == "eq",
    }
}

/// The width of a histogram's column over `span`, a round one, and its name.
pub(crate) fn interval(span: Option<(i64, i64)>) -> (i64, &'static str) {
    const ROUND: [(i64, &str); 18] = [
        (1_000, "second"),
        (5_000, "5 seconds"),
        (10_000, "10 seconds"),
        (30_000, "30 seconds"),
        (60_000, "minute"),
        (300_000, "5 minutes"),
        (600_000, "10 minutes"),
        (1_800_000, "30 minutes"),
        (3_600_000, "hour"),
        (10_800_000, "3 hours"),
        (43_200_000, "12 hours"),
        (86_400_000, "day"),
        (3 * 86_400_000, "3 days"),
        (7 * 86_400_000, "week"),
        (30 * 86_400_000, "30 days"),
        (90 * 86_400_000, "90 days"),
        (365 * 86_400_000, "365 days"),
        (3_650 * 86_400_000, "3650 days"),
    ];
    let wanted = span.map_or(0, |(first, last)| last.saturating_sub(first) / COLUMNS);
    *ROUND.iter().find(|(width, _)| *width >= wanted).unwrap_or(&ROUND[ROUND.len() - 1])
}

/// A line as the page draws it.
fn line(hit: &Value) -> Value {
    json!({
        "id": hit["_id"], "index": hit["_index"], "source": hit["_source"], "sort": hit["sort"],
        "highlight": hit["highlight"]["message"][0],
    })
}

pub(crate) fn lines(answer: &Value) -> Vec<Value> {
    answer["hits"]["hits"].as_array().into_iter().flatten().map(line).collect()
}

/// What the page draws, from the answer to [`Ask::lines`]. Total, histogram and lines are of one search, so
/// that they agree while lines arrive.
pub(crate) fn page(
    ask: &Ask,
    answer: &Value,
    (width_ms, interval): (i64, &str),
    took_ms: u64,
) -> Value {
    let columns = answer["aggregations"]["columns"]["buckets"].as_array();
    let histogram: Vec<_> = columns
        .into_iter()
        .flatten()
        .map(|column| json!([column["key"], column["doc_count"]]))
        .collect();
    let Total { lines: total, is_exact } = total(answer);
    json!({
        "total": total, "exact": is_exact, "timed_out": answer["timed_out"] == true, "took": took_ms,
        "from": ask.from_ms, "interval": interval, "interval_ms": width_ms, "histogram": histogram, "hits": lines(answer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_range_counts_back_from_now() {
        let ask =
            Ask::from_params(&params(&[("range", "15m"), ("q", "error")]), 1_000_000).unwrap();
        assert_eq!(
            ask,
            Ask { query: "error".into(), from_ms: Some(100_000), size: 100, ..Ask::default() }
        );
    }

    #[test]
    fn wrong_parameters_are_named() {
        for (name, value) in
            [("from", "yesterday"), ("size", "5000"), ("range", "soon"), ("after", "{}")]
        {
            let error = Ask::from_params(&params(&[(name, value)]), 0).unwrap_err();
            assert!(error.to_string().starts_with(&format!("{name}={value:?} is not")), "{error}");
        }
    }

    #[test]
    fn a_histogram_has_a_readable_number_of_columns() {
        for days in [0, 1, 2, 9, 40, 400, 4000, 40_000] {
            let span = days * 86_400_000;
            let (width, _) = interval(Some((0, span)));
            assert!(span / width <= COLUMNS, "{days} days give {} columns", span / width);
        }
        assert_eq!(interval(Some((i64::MIN, i64::MAX))).1, "3650 days");
    }

    #[test]
    fn a_total_that_may_be_too_small_is_not_called_exact() {
        let check = |answer: Value, lines, is_exact| {
            assert_eq!(total(&answer), Total { lines, is_exact }, "{answer}");
        };
        let hits = |relation| json!({"total": {"value": 7, "relation": relation}});
        check(json!({"timed_out": false, "hits": hits("eq")}), 7, true);
        check(json!({"timed_out": true, "hits": hits("eq")}), 7, false);
        check(json!({"timed_out": false, "hits": hits("gte")}), 7, false);
        check(json!({"_shards": {"failed": 1}, "hits": hits("eq")}), 7, false);
        check(json!({}), 0, false);
    }

    #[test]
    fn an_answer_cut_at_its_deadline_says_so() {
        let answer = json!({"timed_out": true, "hits": {"total": {"value": 3, "relation": "eq"}, "hits": []}});
        let page = page(&Ask::default(), &answer, (1_000, "second"), 1);
        assert_eq!((&page["exact"], &page["timed_out"]), (&json!(false), &json!(true)));
    }

    #[test]
    fn an_empty_query_has_no_clause() {
        assert_eq!(Ask::default().filter(), json!({"bool": {"filter": []}}));
    }
}
