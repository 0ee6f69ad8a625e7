//! The bulk core against a cluster that does its worst, in virtual time.
//!
//! All chance from one seed: requests are lost, answered late, throttled whole or in part, refused
//! for their size, their credentials or one bad document; indices block; nodes go away. Then calm,
//! in which everything must be delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::acks::{Acks, TopicPartition};
use super::backoff::Chance;
use super::bulk::{Bulk, BulkOptions, Input, Output, Request};
use super::chunk::tests::chunk_of;

const INDICES: [&str; 3] = ["a", "b", "c"];
/// The cluster's `http.max_content_length`; a few documents.
const CONTENT_MAX: usize = 4000;
/// Of each of the two nodes.
const CONCURRENCY_MAX: usize = 4;

struct Cluster {
    chance: Chance,
    is_calm: bool,
    /// Ids that were indexed, per index; a repeat is a 409.
    indexed: BTreeMap<String, BTreeSet<u64>>,
    blocked: Option<&'static str>,
    is_unauthorised: bool,
    away: Vec<bool>,
}

impl Cluster {
    fn one_in(&mut self, n: u64) -> bool {
        self.chance.bits().is_multiple_of(n)
    }

    fn answer(&mut self, request: &Request) -> Result<(u16, bytes::Bytes), String> {
        if !self.is_calm {
            if self.away[request.node] {
                return Err("connection refused".into());
            }
            if self.is_unauthorised {
                return Ok((401, bytes::Bytes::new()));
            }
            match self.chance.bits() % 20 {
                0 => return Ok((429, bytes::Bytes::new())),
                1 => return Ok((503, bytes::Bytes::new())),
                2 => return Ok((200, bytes::Bytes::from_static(b"{\"errors\":tr"))),
                _ => {}
            }
        }
        if request.body_bytes > CONTENT_MAX {
            return Ok((413, bytes::Bytes::new()));
        }
        let items: Vec<Value> = request
            .slices
            .iter()
            .flat_map(|slice| {
                let lines = slice.body();
                let index = slice.index().to_string();
                lines
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                    .map(|line| serde_json::from_slice::<Value>(line).expect("bulk lines are JSON"))
                    .collect::<Vec<_>>()
                    .chunks(2)
                    .map(|pair| self.index(&index, pair))
                    .collect::<Vec<_>>()
            })
            .collect();
        // Done, but the answer is lost on its way: the repeat must be harmless.
        if !self.is_calm && self.one_in(15) {
            return Err("timed out".into());
        }
        let errors = items.iter().any(|item| item["create"]["status"] != 201);
        Ok((200, json!({ "errors": errors, "items": items }).to_string().into()))
    }

    fn index(&mut self, index: &str, pair: &[Value]) -> Value {
        let id: u64 = pair[0]["create"]["_id"].as_str().unwrap().parse().unwrap();
        let item = |status: u16, kind: &str, reason: &str| json!({"create": {"status": status, "error": {"type": kind, "reason": reason}}});
        if self.blocked == Some(index) && !self.is_calm {
            return item(403, "cluster_block_exception", "blocked");
        }
        if !self.is_calm && self.one_in(10) {
            return item(429, "es_rejected_execution_exception", "queue is full");
        }
        if id.is_multiple_of(23) && !pair[1]["n"].is_null() {
            return item(
                400,
                "document_parsing_exception",
                "failed to parse field [n] of type [long]",
            );
        }
        if id.is_multiple_of(46) {
            return item(400, "document_parsing_exception", "hopeless");
        }
        match self.indexed.entry(index.into()).or_default().insert(id) {
            true => json!({"create": {"status": 201}}),
            false => item(409, "version_conflict_engine_exception", "exists"),
        }
    }
}

fn run(seed: u64) {
    let mut chance = Chance(seed);
    let mut cluster = Cluster {
        chance: Chance(seed ^ 1),
        is_calm: false,
        indexed: BTreeMap::new(),
        blocked: None,
        is_unauthorised: false,
        away: vec![false; 2],
    };
    let options = BulkOptions {
        target_bytes: 8000,
        bytes_max: 20_000,
        concurrency_max: CONCURRENCY_MAX,
        nodes: 2,
        seed,
        ..BulkOptions::default()
    };
    let mut bulk = Bulk::new(options);
    let acks = Arc::new(Mutex::new(Acks::default()));
    let epoch = acks.lock().unwrap().assign(TopicPartition { topic: "logs".into(), partition: 0 });
    let mut now = Instant::now();
    let faults_end = now + Duration::from_secs(120);
    let deadline = faults_end + Duration::from_secs(1200);
    let (mut under_way, mut next_request): (BTreeMap<(Instant, u64), Request>, u64) =
        (BTreeMap::new(), 0);
    let (mut next_chunk, mut taken_in) = (now, 0);
    let (mut done, mut dead) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let mut outputs = Vec::new();
        cluster.is_calm = now >= faults_end;
        if now >= next_chunk && now < faults_end {
            let index = INDICES[(chance.bits() % 3) as usize];
            let count = 1 + (chance.bits() % 60) as usize;
            taken_in += count as u64;
            let chunk = chunk_of(&acks, epoch, index, count);
            bulk.step(now, Input::Documents(chunk), &mut outputs);
            next_chunk = now + Duration::from_millis(chance.bits() % 4000);
            match chance.bits() % 12 {
                0 => cluster.blocked = Some(index),
                1 => cluster.is_unauthorised = true,
                2 => cluster.away[0] = true,
                3 => cluster.away = vec![true; 2],
                4..8 => {
                    cluster.blocked = None;
                    cluster.is_unauthorised = false;
                    cluster.away = vec![false; 2];
                }
                _ => {}
            }
        }
        while let Some(entry) = under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let request = entry.remove();
            let reply = cluster.answer(&request);
            bulk.step(now, Input::Answered { request: request.id, reply }, &mut outputs);
        }
        bulk.step(now, Input::Tick, &mut outputs);
        // Everything that is due was sent: a wake that is due already would be a busy loop.
        assert!(bulk.next_wake().is_none_or(|wake| wake > now), "wakes for nothing: {bulk:?}");
        assert!(bulk.requests_in_flight() <= 2 * CONCURRENCY_MAX, "beyond the nodes' limits");
        for output in outputs {
            match output {
                Output::Send(request) => {
                    assert!(!request.slices.is_empty());
                    let index = request.slices[0].index().clone();
                    assert!(request.slices.iter().all(|slice| *slice.index() == index));
                    next_request += 1;
                    let takes = Duration::from_millis(1 + chance.bits() % 400);
                    under_way.insert((now + takes, next_request), request);
                }
                Output::Acknowledge { slice, .. } => {
                    for record in slice.records() {
                        let id = slice.batch().first + u64::from(record);
                        assert!(
                            cluster.indexed[&**slice.index()].contains(&id),
                            "{id} is not indexed"
                        );
                        assert!(done.insert(id), "{id} acknowledged twice");
                    }
                    slice.acknowledge();
                }
                Output::DeadLetter { slice, reason, .. } => {
                    assert_eq!(slice.len(), 1);
                    let id = slice.batch().first + u64::from(slice.records().next().unwrap());
                    assert!(id.is_multiple_of(46), "{id} is dead: {reason}");
                    assert!(dead.insert(id), "{id} died twice");
                    slice.acknowledge();
                }
                Output::Notice(_) => {}
            }
        }
        if now >= faults_end && bulk.is_idle() {
            break;
        }
        // To the next thing that happens, and no further: a wake that is missing would show as
        // work that is never done.
        let wakes = [
            bulk.next_wake(),
            under_way.first_key_value().map(|((at, _), _)| *at),
            (now < faults_end).then_some(next_chunk.min(faults_end)),
        ];
        let wake =
            wakes.into_iter().flatten().min().expect("there is work and nothing to wait for");
        assert!(wake < deadline, "not delivered in time: {bulk:?}");
        now = wake;
    }
    assert_eq!((done.len() + dead.len()) as u64, taken_in);
    assert!(dead.len() as u64 <= taken_in / 46 + 1);
    let committable = acks.lock().unwrap().take_committable();
    // `chunk_of` numbers the offsets of each batch from 0; what counts is that all are acknowledged.
    assert_eq!(acks.lock().unwrap().in_flight(epoch), 0);
    assert_eq!(committable.len(), 1);
}

#[test]
fn every_document_ends_once_whatever_the_cluster_does() {
    // `ELKFK_SEED` runs one seed alone, `ELKFK_SIMULATION_SEEDS` that many instead of a short share.
    let number =
        |name| std::env::var(name).ok().map(|text| text.parse().expect("a number of seeds"));
    let seeds = match number("ELKFK_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ELKFK_SIMULATION_SEEDS").unwrap_or(30),
    };
    for seed in seeds {
        println!("ELKFK_SEED={seed}");
        run(seed);
    }
}
