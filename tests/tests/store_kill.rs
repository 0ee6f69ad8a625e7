//! kill -9 during bulk requests: what was acknowledged is there, once, and neither a resend nor the
//! same lines from two senders at once add anything.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elkfk_wire::source_id::{Generation, SourceId};
use rand::Rng;
use serde_json::{Value, json};

#[expect(dead_code, reason = "other tests use the rest")]
mod store_support;

use store_support::{Answer, call, serve_if_told, start_killable};

/// Not a test of its own: what the store's child process runs.
#[test]
fn serves_when_told_to() {
    serve_if_told();
}

const FILES: u64 = 4;
const LINES_PER_FILE: u64 = 6000;
const LINES_PER_BULK: u64 = 250;
const LINE_BYTES: u64 = 120;

/// The id of a line, some by source and some as a topic's offset.
fn id(file: u64, line: u64) -> String {
    if file == 0 {
        return format!("logs+{file}+{line}");
    }
    let generation = Generation::new(1_772_323_200_000 + file, file * 7919);
    SourceId { generation, position: line * LINE_BYTES }.to_string()
}

/// Lines of one file from `first`, over two days so that two indices are written.
fn bulk(file: u64, first: u64) -> (String, Vec<String>) {
    let (mut body, mut ids) = (String::new(), Vec::new());
    for line in first..(first + LINES_PER_BULK).min(LINES_PER_FILE) {
        let (id, day) = (id(file, line), 1 + line % 2);
        let action = json!({"create": {"_index": format!("logs-2026.03.{day:02}"), "_id": id}});
        let document = json!({
            "@timestamp": format!("2026-03-{day:02}T00:00:{:02}Z", line % 60),
            "message": format!("file {file} line {line} GET /index.html"), "file": file, "line": line,
        });
        body.push_str(&format!("{action}\n{document}\n"));
        ids.push(id);
    }
    (body, ids)
}

fn statuses(answer: &Answer) -> Vec<u64> {
    let json = answer.json();
    let items = json["items"].as_array().expect("items").clone();
    items.iter().map(|item| item["create"]["status"].as_u64().expect("a status")).collect()
}

const BULK: &str = "/_bulk?filter_path=errors,items.*.status,items.*.error";
const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];

#[test]
fn every_acknowledged_document_survives_kill_9_once() {
    let directory = tempfile::tempdir().expect("make a directory");
    let acknowledged: Arc<Mutex<HashSet<String>>> = Arc::default();
    let mut rng = rand::rng();
    // Where each file's sender goes on, as a shipper's registry would have it.
    let next = Arc::new(Mutex::new(vec![0u64; FILES as usize]));
    for _ in 0..5 {
        let (mut process, address) = start_killable(directory.path());
        let is_dead = Arc::new(AtomicBool::new(false));
        let senders: Vec<_> = (0..FILES)
            .map(|file| {
                let (acknowledged, next, is_dead) =
                    (acknowledged.clone(), next.clone(), is_dead.clone());
                std::thread::spawn(move || {
                    while !is_dead.load(Ordering::Relaxed) {
                        let first = next.lock().unwrap()[file as usize];
                        if first >= LINES_PER_FILE {
                            break;
                        }
                        let (body, ids) = bulk(file, first);
                        // Twice at once, as after a timeout whose request goes on all the same.
                        let send = || call(address, "POST", BULK, &NDJSON, body.as_bytes());
                        let (one, other) = std::thread::scope(|scope| {
                            let twin = scope.spawn(send);
                            (send(), twin.join().expect("a sender"))
                        });
                        let answers: Vec<_> = one.into_iter().chain(other).collect();
                        for answer in &answers {
                            for status in statuses(answer) {
                                assert!(matches!(status, 201 | 409), "{status}");
                            }
                        }
                        if answers.is_empty() {
                            break;
                        }
                        acknowledged.lock().unwrap().extend(ids);
                        next.lock().unwrap()[file as usize] = first + LINES_PER_BULK;
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(rng.random_range(100..700)));
        process.kill();
        is_dead.store(true, Ordering::Relaxed);
        senders.into_iter().for_each(|sender| sender.join().expect("a sender"));
    }

    let (mut process, address) = start_killable(directory.path());
    let acknowledged = acknowledged.lock().unwrap();
    assert!(!acknowledged.is_empty(), "nothing was acknowledged before the kills");
    let present = all_ids(address);
    let distinct: HashSet<&String> = present.iter().collect();
    assert_eq!(distinct.len(), present.len(), "some document is there twice");
    let lost: Vec<_> = acknowledged.iter().filter(|id| !distinct.contains(id)).take(5).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");

    // Everything sent again: what is there is refused, the rest is taken, and nothing is doubled.
    let mut created = 0;
    for file in 0..FILES {
        for first in (0..LINES_PER_FILE).step_by(LINES_PER_BULK as usize) {
            let (body, ids) = bulk(file, first);
            let answer = call(address, "POST", BULK, &NDJSON, body.as_bytes()).expect("a bulk");
            for (status, id) in statuses(&answer).into_iter().zip(ids) {
                let expected = if distinct.contains(&id) { 409 } else { 201 };
                assert_eq!(status, expected, "{id}");
                created += u64::from(status == 201);
            }
        }
    }
    assert_eq!(created + present.len() as u64, FILES * LINES_PER_FILE);
    let count = call(address, "GET", "/logs-*/_count", &[], b"").expect("a count").json();
    assert_eq!(count["count"], json!(FILES * LINES_PER_FILE));
    process.stop(Duration::from_secs(20)).ok();
}

/// The id of every document, read page after page.
fn all_ids(address: std::net::SocketAddr) -> Vec<String> {
    let mut ids = Vec::new();
    let first = json!({"size": 5000, "_source": false, "sort": ["_doc"]}).to_string();
    let mut page = call(address, "POST", "/logs-*/_search?scroll=1m", &[], first.as_bytes())
        .expect("a search")
        .json();
    loop {
        let hits: Vec<Value> = page["hits"]["hits"].as_array().expect("hits").clone();
        if hits.is_empty() {
            return ids;
        }
        ids.extend(hits.iter().map(|hit| hit["_id"].as_str().expect("an id").to_owned()));
        let next = json!({"scroll": "1m", "scroll_id": page["_scroll_id"]}).to_string();
        page =
            call(address, "POST", "/_search/scroll", &[], next.as_bytes()).expect("a page").json();
    }
}
