//! What the store refuses, and that it stays well while it does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use the rest")]
mod store_support;

use store_support::{Store, call};

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

fn packed(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("pack");
    encoder.finish().expect("pack")
}

#[test]
fn bodies_beyond_the_limits_are_refused_and_the_rest_goes_on() {
    let store = Store::start(|config| {
        config.body_bytes_max = 1 << 20;
        config.document_bytes_max = 1000;
    });
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        call(store.address, "POST", "/logs/_bulk", headers, body).expect("an answer")
    };
    // Too large as announced, and too large once unpacked: 413 without a body.
    let large = "x".repeat(2 << 20);
    let answer = post(&NDJSON, large.as_bytes());
    assert_eq!((answer.status, answer.body.as_slice(), answer.product), (413, &b""[..], None));
    let gzip = [NDJSON[0], ("content-encoding", "gzip")];
    assert_eq!(post(&gzip, &packed(large.as_bytes())).status, 413);
    assert_eq!(post(&gzip, b"not gzip").status, 400);

    // One item too large, one nested too deep, one broken; their neighbours are taken.
    let deep = format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100));
    let long = json!({"message": "y".repeat(2000)}).to_string();
    let lines = ["{\"message\":\"one\"}", &long, &deep, "{broken}", "{\"message\":\"two\"}"];
    let body: String = lines.iter().map(|line| format!("{{\"index\":{{}}}}\n{line}\n")).collect();
    let answer = post(&gzip, &packed(body.as_bytes())).json();
    let statuses: Vec<&Value> = answer["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| &item["index"]["status"])
        .collect();
    assert_eq!(statuses, [201, 413, 400, 400, 201]);
    let found = call(store.address, "GET", "/logs/_count", &[], b"").expect("a count").json();
    assert_eq!(found["count"], 2);
}

#[test]
fn bulk_requests_beyond_the_memory_get_429() {
    let store = Store::start(|config| config.memory_bytes = 1000);
    let body = format!("{{\"index\":{{}}}}\n{}\n", json!({"message": "z".repeat(3000)}));
    // One alone is let in, however large: it could never be taken otherwise.
    assert_eq!(
        call(store.address, "POST", "/logs/_bulk", &NDJSON, body.as_bytes()).unwrap().status,
        200
    );
    // A request that is announced and never sent holds its memory.
    let mut waiting = TcpStream::connect(store.address).expect("connect");
    let head = "POST /logs/_bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-ndjson\r\ncontent-length: 5000\r\n\r\n{";
    waiting.write_all(head.as_bytes()).expect("send");
    let refused = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        let answer = call(store.address, "POST", "/logs/_bulk", &NDJSON, body.as_bytes())
            .expect("an answer");
        answer.status == 429 && answer.json()["error"]["type"] == "es_rejected_execution_exception"
    });
    assert!(refused, "no request was refused");
    drop(waiting);
    let accepted = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        call(store.address, "POST", "/logs/_bulk", &NDJSON, body.as_bytes())
            .expect("an answer")
            .status
            == 200
    });
    assert!(accepted, "the memory was not given back");
}

#[test]
fn odd_requests_get_answers_and_do_no_harm() {
    let store = Store::start(|_| {});
    let doc = "{\"index\":{}}\n{\"message\":\"here\",\"n\":1}\n";
    assert_eq!(
        call(store.address, "POST", "/logs/_bulk", &NDJSON, doc.as_bytes()).unwrap().status,
        200
    );
    for garbage in [
        &b"\x00\x01\x02\xff\xfe"[..],
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /\r\n\r\n",
        b"\x7f\xff\xff\xff",
    ] {
        let mut socket = TcpStream::connect(store.address).expect("connect");
        socket.write_all(garbage).expect("send");
    }
    let nested =
        format!("{}{{\"match_all\":{{}}}}{}", "{\"bool\":{\"must\":".repeat(100), "}}".repeat(100));
    let searches = [
        json!({"query": {"query_string": {"query": "(".repeat(10_000)}}}).to_string(),
        format!("{{\"query\":{nested}}}"),
        json!({"query": {"regexp": {"message": "(a{1000}){1000}"}}}).to_string(),
        json!({"size": 100_000}).to_string(),
        json!({"aggs": {"h": {"date_histogram": {"field": "n", "fixed_interval": "0s"}}}}).to_string(),
        json!({"aggs": {"h": {"histogram": {"field": "n", "interval": 1e-9, "extended_bounds": {"min": 0, "max": 1e9}}}}}).to_string(),
        "[".repeat(100_000),
    ];
    for search in searches {
        let answer = call(store.address, "POST", "/logs/_search", &[], search.as_bytes())
            .expect("an answer");
        assert_eq!(answer.status, 400, "{search:.100}: {}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.product.as_deref(), Some("Elasticsearch"));
    }
    for path in ["/%2e%2e%2fetc/_doc/1", "/..%2f..%2fx", "/a%00b/_doc/1"] {
        let answer = call(store.address, "PUT", path, &[], b"{\"a\":1}").expect("an answer");
        assert_eq!(answer.status, 400, "{path}");
    }
    let found =
        call(store.address, "GET", "/logs/_search?q=here", &[], b"").expect("an answer").json();
    assert_eq!(found["hits"]["total"]["value"], 1);
}

#[test]
fn a_search_past_its_time_answers_with_what_it_has() {
    let store = Store::start(|config| config.search_timeout = std::time::Duration::ZERO);
    let docs: String =
        (0..20_000).map(|n| format!("{{\"index\":{{}}}}\n{{\"n\":{n}}}\n")).collect();
    assert_eq!(
        call(store.address, "POST", "/logs/_bulk", &NDJSON, docs.as_bytes()).unwrap().status,
        200
    );
    let found = call(
        store.address,
        "POST",
        "/logs/_search",
        &[],
        json!({"sort": ["n"]}).to_string().as_bytes(),
    );
    let found = found.expect("an answer").json();
    assert_eq!(found["timed_out"], true);
    assert!(found["hits"]["total"]["value"].as_u64() < Some(20_000));
}

#[test]
fn pages_of_other_sites_are_refused_and_programs_are_not() {
    let store = Store::start(|_| {});
    let doc = "{\"index\":{}}\n{\"message\":\"here\"}\n";
    let put = call(store.address, "POST", "/logs/_bulk", &NDJSON, doc.as_bytes()).unwrap();
    assert_eq!(put.status, 200);
    let delete = "/logs/_delete_by_query?q=*";
    for headers in [
        [("origin", "https://evil.example")],
        [("origin", "null")],
        [("sec-fetch-site", "cross-site")],
        [("host", "evil.example:9200")],
    ] {
        let answer = call(store.address, "POST", delete, &headers, b"").expect("an answer");
        assert_eq!(answer.status, 403, "{headers:?}");
        let answer = call(store.address, "GET", "/logs/_search", &headers, b"").expect("an answer");
        assert_eq!(answer.status, 403, "{headers:?}");
    }
    let count = call(store.address, "GET", "/logs/_count", &[], b"").expect("a count").json();
    assert_eq!(count["count"], 1);
    for headers in [&[("host", "localhost:9200")][..], &[("origin", "http://localhost:3000")], &[]]
    {
        let answer = call(store.address, "GET", "/logs/_search", headers, b"").expect("an answer");
        assert_eq!(answer.status, 200, "{headers:?}");
    }
}

/// Sends the head of a request and the first byte of its body, and no more.
fn stalled(store: &Store, path: &str) -> TcpStream {
    let mut socket = TcpStream::connect(store.address).expect("connect");
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 500000\r\n\r\n{{"
    );
    socket.write_all(head.as_bytes()).expect("send");
    socket
}

#[test]
fn a_client_that_stops_sending_is_let_go() {
    let store = Store::start(|config| {
        config.memory_bytes = 1000;
        config.body_timeout = Duration::from_millis(300);
    });
    for path in ["/logs/_bulk", "/logs/_search"] {
        let mut socket = stalled(&store, path);
        let mut answer = String::new();
        socket.set_read_timeout(Some(Duration::from_secs(30))).expect("set a timeout");
        let _ = socket.read_to_string(&mut answer);
        assert!(answer.starts_with("HTTP/1.1 408"), "{path}: {answer}");
    }
    // What they held is given back.
    let body = format!("{{\"index\":{{}}}}\n{}\n", json!({"message": "z".repeat(3000)}));
    let answer = call(store.address, "POST", "/logs/_bulk", &NDJSON, body.as_bytes()).unwrap();
    assert_eq!(answer.status, 200);
}

#[test]
fn a_stop_does_not_wait_for_a_client_that_stopped_sending() {
    let store = Store::start(|_| {});
    let _socket = stalled(&store, "/logs/_search");
    let search = call(store.address, "GET", "/_search", &[], b"").expect("an answer");
    assert_eq!(search.status, 200);
    let started = std::time::Instant::now();
    drop(store);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn bodies_of_every_kind_count_as_memory_before_they_are_unpacked() {
    let store = Store::start(|config| config.memory_bytes = 200_000);
    let held = stalled(&store, "/logs/_bulk");
    let document = json!({"message": "m".repeat(900_000)}).to_string();
    let gzip = [("content-type", "application/json"), ("content-encoding", "gzip")];
    let refused = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        let packed = packed(document.as_bytes());
        call(store.address, "PUT", "/logs/_doc/1", &gzip, &packed).expect("an answer").status == 429
    });
    assert!(refused, "a packed document was unpacked beyond the memory");
    let plain = [("content-type", "application/json")];
    let answer = call(store.address, "PUT", "/logs/_doc/1", &plain, document.as_bytes()).unwrap();
    assert_eq!(answer.status, 429);
    // Small ones are let in all the same.
    let answer = call(store.address, "PUT", "/logs/_doc/2", &plain, b"{\"a\":1}").unwrap();
    assert_eq!(answer.status, 201);
    drop(held);
}

#[test]
fn a_body_that_is_no_bulk_request_has_a_lower_limit() {
    let store = Store::start(|_| {});
    let large = " ".repeat(11 << 20);
    let answer = call(store.address, "POST", "/_search", &[], large.as_bytes()).unwrap();
    assert_eq!(answer.status, 413);
}
