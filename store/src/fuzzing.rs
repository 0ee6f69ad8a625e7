//! Ways in for the fuzz targets in `store/fuzz`, and their twins for the stable compiler.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use elkfk_base::durable::DataDirectory;
use hyper::{Method, Uri};
use serde_json::json;

use crate::api::{self, Call};
use crate::engine::Engine;
use crate::error::EsError;
use crate::index::document;
use crate::index::parse::{self, SharedMapping};
use crate::mapping::Mapping;
use crate::{Config, FORMAT_VERSION};

/// Takes the body of a `_bulk` apart and reads its documents, without writing them; returns how many
/// could be read.
pub fn read_bulk(body: &[u8]) -> Result<usize, EsError> {
    let call = Call::new(&Method::POST, &Uri::from_static("/logs/_bulk"))?;
    let text = String::from_utf8(body.to_vec())
        .map_err(|_| EsError::illegal_argument("body is not UTF-8"))?;
    let text = Arc::new(text);
    let shared = SharedMapping::new(Mapping::default());
    let mut mapping = shared.get();
    let fields = document::schema().1;
    let sources = api::bulk::sources(&text, &call)?;
    let read = sources
        .into_iter()
        .filter(|source| {
            parse::parse(&text, source.clone(), &shared, &mut mapping, fields, "id").is_ok()
        })
        .count();
    Ok(read)
}

/// A store with a few documents to search.
#[derive(Debug)]
pub struct Sample(Arc<Engine>);

impl Sample {
    /// # Panics
    /// `directory` cannot be written to.
    pub fn new(directory: &Path) -> Self {
        let data = DataDirectory::open(directory, FORMAT_VERSION).expect("open the directory");
        // Short, so that a search that takes long is not taken for one that hangs.
        let config = Config { search_timeout: Duration::from_millis(500), ..Config::default() };
        let sample = Self(Arc::new(Engine::open(config, data).expect("open a store")));
        let mapping = json!({"mappings": {"properties": {
            "ip": {"type": "ip"}, "level": {"type": "keyword"}, "text": {"type": "text"}}}});
        sample.call(Method::PUT, "/logs", mapping.to_string().into());
        let mut body = String::new();
        for n in 0..20 {
            let document = json!({
                "@timestamp": format!("2026-03-01T00:00:{n:02}Z"), "message": format!("GET /{n} quick brown fox"),
                "text": "the quick fox", "level": if n % 2 == 0 { "info" } else { "warn" }, "ip": format!("10.0.0.{n}"),
                "n": n, "f": n as f64 / 3.0, "b": n % 2 == 0, "short": "a few words", "o": {"k": [n, n + 1]},
            });
            body.push_str(&format!("{{\"index\":{{}}}}\n{document}\n"));
        }
        sample.call(Method::POST, "/logs/_bulk", body.into());
        sample
    }

    /// Runs a search; returns its status.
    pub fn search(&self, body: &[u8]) -> u16 {
        self.call(Method::POST, "/logs/_search", Bytes::copy_from_slice(body))
    }

    /// Runs a `query_string`; returns its status.
    pub fn query_string(&self, text: &str) -> u16 {
        let query =
            json!({"query": {"query_string": {"query": text}}, "highlight": {"fields": {"*": {}}}});
        self.search(query.to_string().as_bytes())
    }

    fn call(&self, method: Method, path: &'static str, body: Bytes) -> u16 {
        let Ok(mut call) = Call::new(&method, &Uri::from_static(path)) else { return 400 };
        call.body = body;
        api::answer(&self.0, call).status
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn leaf() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            "[a-z0-9*?~^()/.:+-]{0,12}".prop_map(Value::from),
            prop::sample::select(vec![
                "10.0.0.0/4294967295",
                "now-1d/d",
                "2026-03-01",
                "level",
                "n",
                "f",
                "message",
                "short",
                "ip",
                "1d",
                "month",
                "desc",
                "_doc",
                "_score",
                "9223372036854775807",
                "75%",
                "quick fox",
            ])
            .prop_map(Value::from),
        ]
    }

    /// Keys that the DSL knows, in places where they may or may not belong.
    fn body() -> impl Strategy<Value = Value> {
        let key = prop::sample::select(vec![
            "query",
            "bool",
            "must",
            "filter",
            "should",
            "must_not",
            "match",
            "match_phrase",
            "term",
            "terms",
            "range",
            "exists",
            "field",
            "prefix",
            "wildcard",
            "regexp",
            "fuzzy",
            "ids",
            "values",
            "query_string",
            "minimum_should_match",
            "gte",
            "lt",
            "format",
            "aggs",
            "a",
            "date_histogram",
            "histogram",
            "interval",
            "calendar_interval",
            "fixed_interval",
            "offset",
            "cardinality",
            "percentiles",
            "percents",
            "top_hits",
            "composite",
            "sources",
            "size",
            "from",
            "sort",
            "order",
            "missing",
            "search_after",
            "fields",
            "n",
            "f",
            "b",
            "level",
            "message",
            "ip",
            "short",
            "@timestamp",
            "o.k",
            "value",
            "slop",
            "fuzziness",
            "highlight",
            "_source",
            "filters",
            "ranges",
            "to",
            "extended_bounds",
            "min",
            "max",
            "include",
            "script",
        ]);
        leaf().prop_recursive(6, 40, 4, move |inner| {
            prop_oneof![
                3 => prop::collection::vec((key.clone(), inner.clone()), 0..4).prop_map(|pairs| {
                    Value::Object(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
                }),
                1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
            ]
        })
    }

    #[test]
    fn no_bulk_body_panics() {
        proptest!(|(lines in prop::collection::vec(prop_oneof![
            Just("{\"index\":{}}".to_owned()), Just("{\"create\":{\"_id\":\"\\ud800\"}}".to_owned()),
            "\\PC{0,30}", body().prop_map(|value| value.to_string()),
        ], 0..8), end in any::<bool>())| {
            let mut text = lines.join("\n");
            if end { text.push('\n'); }
            let _ = read_bulk(text.as_bytes());
        });
        assert!(read_bulk(b"\xff\n").is_err());
        assert_eq!(read_bulk(b"{\"index\":{}}\n{\"a\":1}\n{\"index\":{}}\n{\n").unwrap_or(0), 1);
    }

    #[test]
    fn no_search_body_panics() {
        let directory = tempfile::tempdir().unwrap();
        let sample = Sample::new(directory.path());
        assert_eq!(sample.query_string("quick AND level:info"), 200);
        let clauses = prop::sample::select(vec![
            "match",
            "match_phrase",
            "term",
            "terms",
            "range",
            "prefix",
            "wildcard",
            "regexp",
            "fuzzy",
            "exists",
            "bool",
            "query_string",
            "ids",
            "multi_match",
        ]);
        let aggs = prop::sample::select(vec![
            "terms",
            "date_histogram",
            "histogram",
            "range",
            "cardinality",
            "percentiles",
            "top_hits",
            "composite",
            "filters",
            "auto_date_histogram",
            "stats",
            "rare_terms",
        ]);
        proptest!(|(body in body(), clause in clauses, agg in aggs, sort in body(), size in any::<u64>())| {
            let searches = [
                body.clone(),
                json!({"query": {clause: body.clone()}}),
                json!({"query": {clause: {"n": body.clone()}}}),
                json!({"query": {clause: {"ip": body.clone()}}}),
                json!({"size": 0, "aggs": {"a": {agg: body.clone()}}}),
                json!({"sort": sort, "from": size, "size": size, "search_after": body}),
            ];
            for search in searches {
                let status = sample.search(search.to_string().as_bytes());
                prop_assert!(status < 500, "{} for {}", status, search);
            }
        });
    }

    #[test]
    fn no_query_string_panics() {
        let directory = tempfile::tempdir().unwrap();
        let sample = Sample::new(directory.path());
        proptest!(|(text in "([a-z*?]{1,4}|n|ip|level|[0-9]{1,20}|[:()\\[\\]{}~^/\\\\\"<>=+! -]|AND|OR|NOT|TO){0,16}")| {
            let status = sample.query_string(&text);
            prop_assert!(status < 500, "{} for {}", status, text);
        });
    }
}
