//! The HTTP API from outside: what it answers, what it refuses, and that a stop does not wait for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use elkfk_sink::{Config, Running};
use serde_json::{Value, json};

const ANY_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A sink whose Kafka and Elasticsearch are not there.
async fn start(consumer_threads: usize) -> (Running, SocketAddr, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.conf");
    let text = format!(
        r#"input {{ kafka {{ bootstrap_servers => "127.0.0.1:1" topics => ["logs", "access"]
             group_id => "shop" consumer_threads => {consumer_threads} }} }}
           output {{ elasticsearch {{ hosts => ["127.0.0.1:1"] }} }}"#
    );
    std::fs::write(&file, text).unwrap();
    let config = Config { files: vec![file], workers: 2, api: Some(ANY_PORT), ..Config::default() };
    let running = elkfk_sink::start(config).await.unwrap();
    let api = running.api_addr().unwrap();
    (running, api, directory)
}

/// Sends one request as it stands; status, head and body of the answer.
fn send(api: SocketAddr, request: &str) -> (u16, String, String) {
    let mut socket = TcpStream::connect(api).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head.to_lowercase(), body.to_owned())
}

fn get(api: SocketAddr, path: &str) -> (u16, String, String) {
    send(api, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

fn get_json(api: SocketAddr, path: &str) -> Value {
    let (status, head, body) = get(api, path);
    assert_eq!(status, 200, "{path}: {body}");
    assert!(head.contains("content-type: application/json"), "{head}");
    serde_json::from_str(&body).unwrap()
}

fn put(api: SocketAddr, headers: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "PUT /_node/pipelines/main HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, _, body) = send(api, &request);
    (status, serde_json::from_str(&body).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_logstashs_clients_ask_for_is_answered() {
    let (running, api, _directory) = start(1).await;
    let root = get_json(api, "/");
    assert_eq!(root["http_address"], api.to_string());
    assert!(root["version"].as_str().unwrap().starts_with("8."), "{root}");
    let stats = get_json(api, "/_node/stats");
    assert_eq!(stats["pipelines"]["main"]["events"]["in"], 0);
    assert!(stats["process"]["open_file_descriptors"].as_u64().unwrap() > 0);
    let elkfk = &stats["elkfk"];
    assert_eq!((&elkfk["group"], &elkfk["topics"]), (&json!(["shop"]), &json!(["access", "logs"])));
    assert_eq!((&elkfk["consumers"], &elkfk["consumers_max"]), (&json!(1), &json!(32)));
    assert_eq!(get_json(api, "/_node/pipelines")["pipelines"]["main"]["workers"], 2);
    assert!(get(api, "/_node?pretty").2.contains("\n  \"host\": "));
    let (status, head, body) = get(api, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("\nelkfk_sink_workers "), "{body}");
    let (status, _, body) = get(api, "/_node/stats/jvm");
    assert_eq!(status, 404, "{body}");
    let head = "HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(send(api, head).2, "");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_are_changed_within_their_limits() {
    let (running, api, _directory) = start(2).await;
    let (status, answer) = put(api, "", r#"{"workers": 3, "consumers": 4}"#);
    let wanted = json!({"workers": 3, "workers_max": 32, "consumers": 4, "consumers_max": 32});
    assert_eq!((status, answer), (200, wanted));
    let now = running.status();
    assert_eq!((now.workers, now.consumers, now.inputs[0].consumers), (3, 4, 4));

    let (status, answer) = put(api, "", r#"{"consumers": 1}"#);
    assert_eq!((status, &answer["consumers"]), (200, &json!(2)), "{answer}");
    let remark = answer["remark"].as_str().unwrap();
    assert!(remark.contains("stay at 2, the consumer_threads of the input"), "{remark}");

    for (body, text) in [
        (r#"{"workers": 33}"#, "workers 33: there may be 1 to 32"),
        (r#"{"workers": 1, "consumers": 33}"#, "consumers 33: there may be 1 to 32"),
        (r#"{"consumers": 0}"#, "consumers 0: there may be 1 to 32"),
        ("workers=3", "the body is no JSON: "),
    ] {
        let (status, answer) = put(api, "", body);
        assert_eq!(status, 400, "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with(text), "{message}");
        assert_eq!(answer["in_force"]["workers"], 3, "nothing was changed");
    }
    assert_eq!(running.set_workers(1).unwrap().workers, 1);
    assert!(running.set_consumers(100).is_err());
    // They cannot leave a group that they have not reached.
    let (status, answer) = put(api, "", r#"{"workers": 9, "consumers": 3}"#);
    assert_eq!((status, &answer["in_force"]["workers"]), (503, &json!(1)), "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("have not left it yet (2); try again"), "{message}");
    let control = running.control();
    let asked = Instant::now();
    running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(control.set_workers(2).unwrap_err().to_string(), "the sink stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_sites_page_or_a_hostile_client_sends_changes_nothing() {
    let (running, api, _directory) = start(1).await;
    let wish = r#"{"workers": 5}"#;
    let (status, answer) = put(api, "Origin: https://evil.example\r\n", wish);
    assert_eq!(status, 403, "{answer}");
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n";
    assert_eq!(send(api, rebound).0, 403);
    let huge = format!("{{\"workers\": 5, \"x\": \"{}\"}}", "x".repeat(20_000));
    assert_eq!(put(api, "", &huge).0, 413);
    for (method, path, allowed) in [
        ("POST", "/_node/pipelines/main", "allow: get, head, put"),
        ("PUT", "/_node/stats", "allow: get, head\r"),
        ("DELETE", "/", "allow: get, head\r"),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        );
        let (status, head, _) = send(api, &request);
        assert_eq!(status, 405, "{method} {path}");
        assert!(format!("{head}\r").contains(allowed), "{head}");
    }
    assert_eq!(running.status().workers, 2);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_does_not_wait_for_clients_that_say_nothing() {
    let (running, api, _directory) = start(1).await;
    let idle = TcpStream::connect(api).unwrap();
    let mut slow = TcpStream::connect(api).unwrap();
    let head =
        "PUT /_node/pipelines/main HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{";
    slow.write_all(head.as_bytes()).unwrap();
    // It is answered only after the others were accepted.
    get_json(api, "/");
    let asked = Instant::now();
    running.stop().await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert!(TcpStream::connect(api).is_err());
    drop((idle, slow));
}

#[tokio::test]
async fn a_taken_port_is_named_and_nothing_is_started() {
    let held = std::net::TcpListener::bind(ANY_PORT).unwrap();
    let at = held.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.conf");
    std::fs::write(&file, "input { kafka { } } output { stdout { } }").unwrap();
    let config = Config { files: vec![file], api: Some(at), ..Config::default() };
    let error = elkfk_sink::start(config).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("listen on {at}: ")), "{error}");
    assert!(error.contains("api.http.port"), "{error}");
}
