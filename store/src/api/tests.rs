//! Calls as they come, without HTTP around them.

use std::time::Duration;

use elkfk_base::durable::DataDirectory;

use super::*;
use crate::Config;

struct Store {
    engine: Arc<Engine>,
    _directory: tempfile::TempDir,
}

impl Store {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        change(&mut config);
        let data = DataDirectory::open(directory.path(), 1).unwrap();
        Self { engine: Arc::new(Engine::open(config, data).unwrap()), _directory: directory }
    }

    fn call(&self, method: &str, uri: &str, body: impl Into<Bytes>) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let mut call = Call::new(&method, &uri.parse().unwrap()).unwrap();
        call.body = body.into();
        let answer = answer(&self.engine, call);
        (answer.status, serde_json::from_slice(&answer.body).unwrap_or(Value::Null))
    }

    #[track_caller]
    fn ok(&self, method: &str, uri: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = self.call(method, uri, body);
        assert!(status < 300, "{status} {answer}");
        answer
    }

    #[track_caller]
    fn bulk(&self, documents: impl Iterator<Item = (String, String, Value)>) {
        let mut body = String::new();
        for (index, id, document) in documents {
            let action = json!({"create": {"_index": index, "_id": id}});
            body.push_str(&format!("{action}\n{document}\n"));
        }
        let (status, answer) = self.call("POST", "/_bulk?filter_path=errors", body);
        assert_eq!((status, &answer["errors"]), (200, &Value::from(false)), "{answer}");
    }
}

fn ids(page: &Value) -> Vec<String> {
    let hits = page["hits"]["hits"].as_array().unwrap();
    hits.iter().map(|hit| hit["_id"].as_str().unwrap().to_owned()).collect()
}

/// Three days of 25 lines each, whose sequence numbers and levels are the same in each.
fn three_days() -> Store {
    let store = Store::new(|_| {});
    store.bulk((0..75).map(|n| {
        let day = n % 3;
        let document = json!({"n": n, "level": if n / 3 % 2 == 0 { "info" } else { "warn" }});
        (format!("logs-2026.03.0{}", day + 1), format!("id-{n}"), document)
    }));
    store
}

#[track_caller]
fn is_complete(mut found: Vec<String>, what: &str) {
    let count = found.len();
    found.sort();
    found.dedup();
    assert_eq!((count, found.len()), (75, 75), "{what}: hits and distinct hits");
}

#[test]
fn a_scroll_over_several_indices_loses_no_hit_between_its_pages() {
    let store = three_days();
    for sort in [json!(["_doc"]), json!([{"level": "desc"}]), json!([{"_doc": "desc"}]), json!([])]
    {
        let mut body = json!({"size": 7, "sort": sort});
        if sort.as_array().unwrap().is_empty() {
            body.as_object_mut().unwrap().remove("sort");
        } else if sort != json!(["_doc"]) && sort != json!([{"_doc": "desc"}]) {
            body["sort"] = json!([{"level.keyword": "desc"}]);
        }
        let mut page = store.ok("POST", "/logs-*/_search?scroll=1m", &body);
        let mut found = Vec::new();
        while !ids(&page).is_empty() {
            found.extend(ids(&page));
            let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]});
            page = store.ok("POST", "/_search/scroll", &next);
        }
        is_complete(found, &format!("scroll by {sort}"));
    }
}

#[test]
fn pages_of_a_point_in_time_over_several_indices_lose_no_hit() {
    let store = three_days();
    let pit = store.ok("POST", "/logs-*/_pit?keep_alive=1m", &Value::Null);
    for sort in [
        json!([{"level.keyword": "asc"}]),
        json!([{"level.keyword": "desc"}, {"_shard_doc": "desc"}]),
        json!([{"_shard_doc": "asc"}]),
        json!(["_doc"]),
    ] {
        let (mut found, mut after) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"size": 7, "sort": sort, "pit": {"id": pit["id"]}});
            if !after.is_null() {
                body["search_after"] = after;
            }
            let page = store.ok("POST", "/_search", &body);
            let Some(last) = page["hits"]["hits"].as_array().unwrap().last() else { break };
            after = last["sort"].clone();
            found.extend(ids(&page));
        }
        is_complete(found, &format!("point in time by {sort}"));
    }
}

#[test]
fn sort_by_doc_goes_on_after_a_hit_of_any_index() {
    let store = three_days();
    let (mut found, mut after) = (Vec::new(), Value::Null);
    loop {
        let mut body = json!({"size": 8, "sort": ["_doc"]});
        if !after.is_null() {
            body["search_after"] = after;
        }
        let page = store.ok("POST", "/logs-*/_search", &body);
        let Some(last) = page["hits"]["hits"].as_array().unwrap().last() else { break };
        after = last["sort"].clone();
        found.extend(ids(&page));
    }
    is_complete(found, "search_after by _doc");
}

#[test]
fn a_query_that_expands_without_end_is_refused() {
    let store = Store::new(|_| {});
    let fields: Value =
        (0..400).map(|n| (format!("f{n}"), json!("x"))).collect::<serde_json::Map<_, _>>().into();
    store.bulk([("logs".to_owned(), "1".to_owned(), fields)].into_iter());
    let words = |count: usize| (0..count).map(|n| format!("w{n} ")).collect::<String>();
    for query in [
        json!({"multi_match": {"query": words(100), "fields": ["*"]}}),
        json!({"query_string": {"query": words(100)}}),
        json!({"match": {"f1": words(20_000)}}),
        json!({"bool": {"filter": {"bool": {"should": vec![json!({"exists": {"field": "f*"}}); 100]}}}}),
    ] {
        let (status, answer) =
            store.call("POST", "/logs/_search", json!({"query": query}).to_string());
        let text = answer.to_string();
        assert_eq!(status, 400, "{text:.200}");
        assert!(text.contains("too_many_nested_clauses"), "{text:.200}");
    }
    let few = json!({"query": {"multi_match": {"query": "x y", "fields": ["*"]}}});
    assert_eq!(store.ok("POST", "/logs/_search", &few)["hits"]["total"]["value"], 1);
    let (status, _) = store.call(
        "POST",
        "/logs/_search",
        json!({"query": {"ids": {"values": vec!["a"; 70_000]}}}).to_string(),
    );
    assert_eq!(status, 400);
}

#[test]
fn a_bulk_request_of_too_many_items_is_refused_whole() {
    let store = Store::new(|_| {});
    let (status, _) =
        store.call("POST", "/logs/_bulk", "{\"delete\":{\"_id\":\"1\"}}\n".repeat(100_001));
    assert_eq!(status, 413);
    assert!(store.engine.names().is_empty());
}

#[test]
fn a_body_that_is_not_json_is_not_sent_back_whole() {
    let store = Store::new(|_| {});
    let (status, answer) = store.call("POST", "/_search", format!("[{}", "1,".repeat(1 << 20)));
    assert_eq!(status, 400);
    assert!(answer.to_string().len() < 20_000, "{} bytes", answer.to_string().len());
}

#[test]
fn an_answer_has_a_largest_size() {
    let store = Store::new(|_| {});
    store.ok("PUT", "/logs", &json!({"mappings": {"dynamic": false}}));
    let long = "x".repeat(1_000_000);
    for part in 0..7 {
        store.bulk(
            (0..10).map(|n| ("logs".to_owned(), format!("{part}-{n}"), json!({"text": long}))),
        );
    }
    let (status, answer) = store.call("POST", "/logs/_search", json!({"size": 100}).to_string());
    assert_eq!((status, &answer["error"]["type"]), (429, &json!("circuit_breaking_exception")));
    let all: Vec<String> = (0..70).map(|n| format!("{}-{}", n / 10, n % 10)).collect();
    let (status, _) = store.call("POST", "/logs/_mget", json!({"ids": all}).to_string());
    assert_eq!(status, 429);
    let page = store.ok("POST", "/logs/_search", &json!({"size": 100, "_source": false}));
    assert_eq!(ids(&page).len(), 70);
}

#[test]
fn memory_of_long_keys_top_hits_and_filters_counts_as_that_of_aggregations() {
    let store = Store::new(|config| config.aggregation_bytes_max = 200_000);
    let mapping =
        json!({"mappings": {"properties": {"k": {"type": "keyword"}, "b": {"type": "keyword"}}}});
    store.ok("PUT", "/logs", &mapping);
    store.bulk((0..5000).map(|n| {
        let long = format!("{}{}", "k".repeat(2000), n % 100);
        ("logs".to_owned(), format!("{n}"), json!({"k": long, "b": format!("b{}", n % 50)}))
    }));
    let ask = |aggs: Value| {
        store.call("POST", "/logs/_search", json!({"size": 0, "aggs": aggs}).to_string()).0
    };
    assert_eq!(ask(json!({"b": {"terms": {"field": "b", "size": 100}}})), 200);
    assert_eq!(ask(json!({"k": {"terms": {"field": "k", "size": 100}}})), 429);
    let top = json!({"top_hits": {"size": 100}});
    assert_eq!(ask(json!({"b": {"terms": {"field": "b", "size": 100}, "aggs": {"t": top}}})), 429);
    let filter = json!({"exists": {"field": "b"}});
    let filters: serde_json::Map<_, _> =
        (0..400).map(|n| (format!("f{n}"), filter.clone())).collect();
    assert_eq!(ask(json!({"f": {"filters": {"filters": filters}}})), 429);
}

#[test]
fn a_count_that_is_a_part_is_an_error_and_other_answers_say_so() {
    let store = Store::new(|config| config.search_timeout = Duration::ZERO);
    store.bulk((0..20_000).map(|n| ("logs".to_owned(), format!("a{n}"), json!({"n": n}))));
    let (status, answer) = store.call("GET", "/logs/_count", "");
    assert_eq!((status, &answer["error"]["type"]), (504, &json!("search_timeout_exception")));
    let query = json!({"query": {"match_all": {}}}).to_string();
    let (status, answer) = store.call("POST", "/logs/_delete_by_query", query);
    assert_eq!((status, &answer["timed_out"]), (200, &json!(true)));
    assert!(answer["deleted"].as_u64() < Some(20_000), "{answer}");
}

#[test]
fn searches_of_one_request_share_one_deadline() {
    let store = Store::new(|config| config.search_timeout = Duration::from_millis(300));
    store.bulk(
        (0..20_000).map(|n| ("logs".to_owned(), format!("a{n}"), json!({"k": format!("key {n}")}))),
    );
    // Each of them takes a good part of the time that all together have.
    let search = json!({"query": {"regexp": {"k": ".*(x|y)+z"}}, "aggs": {"k": {"cardinality": {"field": "k.keyword"}}}});
    let started = std::time::Instant::now();
    let (status, answer) =
        store.call("POST", "/logs/_msearch", format!("{{}}\n{search}\n").repeat(100));
    assert_eq!(status, 200);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(answer["responses"][99]["timed_out"], true, "{:?}", started.elapsed());
}

#[test]
fn updates_at_once_all_arrive() {
    let store = Arc::new(Store::new(|_| {}));
    store.bulk([("logs".to_owned(), "1".to_owned(), json!({"text": "x"}))].into_iter());
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let store = store.clone();
            std::thread::spawn(move || {
                for n in 0..10 {
                    let key = format!("w{writer}_{n}");
                    let body = json!({"doc": {key: n}}).to_string();
                    // As Elasticsearch: who is overtaken too often tries again.
                    while store.call("POST", "/logs/_update/1", body.clone()).0 != 200 {}
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let (_, found) = store.call("GET", "/logs/_doc/1", "");
    assert_eq!(found["_source"].as_object().unwrap().len(), 31, "{found}");
}

#[test]
fn filter_path_keeps_what_is_named() {
    let value =
        json!({"took": 1, "errors": true, "items": [{"create": {"status": 201, "_id": "1"}}]});
    let check = |filter: &str, expected: Value| {
        assert_eq!(filter_path(value.clone(), filter), expected, "{filter}")
    };
    check("errors,items.*.status", json!({"errors": true, "items": [{"create": {"status": 201}}]}));
    check("items.*.error", json!({}));
    check("-items", json!({"took": 1, "errors": true}));
    check("**._id", json!({"items": [{"create": {"_id": "1"}}]}));
    check("t*", json!({"took": 1}));
}

#[test]
fn paths_and_parameters_are_decoded() {
    let uri: Uri = "/a%2Fb/_search?q=x%3Ay+z&pretty&filter_path=items.%2A.error".parse().unwrap();
    let call = Call::new(&Method::GET, &uri).unwrap();
    assert_eq!(call.parts, ["a/b", "_search"]);
    assert_eq!(call.parameter("q"), Some("x:y z"));
    assert_eq!(call.parameter("filter_path"), Some("items.*.error"));
    assert!(call.is_pretty());
    assert!(Call::new(&Method::GET, &"/%zz".parse().unwrap()).is_err());
}
