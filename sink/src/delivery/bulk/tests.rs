use std::sync::Mutex;

use super::super::acks::{Acks, TopicPartition};
use super::super::chunk::tests::chunk_of;
use super::*;

fn chunk(index: &str, count: usize) -> Arc<Chunk> {
    let acks = Arc::new(Mutex::new(Acks::default()));
    let epoch = acks.lock().unwrap().assign(TopicPartition { topic: "logs".into(), partition: 0 });
    chunk_of(&acks, epoch, index, count)
}

fn step(bulk: &mut Bulk, now: Instant, input: Input) -> Vec<Output> {
    let mut outputs = Vec::new();
    bulk.step(now, input, &mut outputs);
    outputs
}

fn requests(outputs: &[Output]) -> Vec<&Request> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(request) => Some(request),
            _ => None,
        })
        .collect()
}

fn answer(bulk: &mut Bulk, now: Instant, request: RequestId, reply: (u16, &str)) -> Vec<Output> {
    let reply = Ok((reply.0, bytes::Bytes::copy_from_slice(reply.1.as_bytes())));
    step(bulk, now, Input::Answered { request, reply })
}

#[test]
fn full_node_and_hanging_probe_leave_nothing_to_wake_for() {
    let (mut bulk, now) = (Bulk::new(BulkOptions::default()), Instant::now());
    let first = step(&mut bulk, now, Input::Documents(chunk("a", 1)));
    // The node starts with one request at a time, so the second index has to wait.
    assert_eq!(requests(&first).len(), 1);
    assert!(step(&mut bulk, now, Input::Documents(chunk("b", 1))).is_empty());
    assert_eq!(bulk.next_wake(), None, "the answer wakes");

    let reply = Err("connection refused".into());
    step(&mut bulk, now, Input::Answered { request: requests(&first)[0].id, reply });
    let probe_at = bulk.next_wake().expect("the node is probed");
    assert!(probe_at > now);
    assert_eq!(requests(&step(&mut bulk, probe_at, Input::Tick)).len(), 1);
    assert_eq!(bulk.next_wake(), None, "the probe's answer wakes");
}

#[test]
fn halves_of_a_refused_request_keep_to_the_limits_and_apart() {
    let (mut bulk, now) = (Bulk::new(BulkOptions::default()), Instant::now());
    let mut under_way: VecDeque<RequestId> = VecDeque::new();
    let (mut asked, mut dead) = (0, 0);
    let mut outputs = step(&mut bulk, now, Input::Documents(chunk("a", 8)));
    loop {
        under_way.extend(requests(&outputs).iter().map(|request| request.id));
        dead += outputs.iter().filter(|o| matches!(o, Output::DeadLetter { .. })).count();
        assert!(bulk.requests_in_flight() <= 4, "{} at once", bulk.requests_in_flight());
        let Some(request) = under_way.pop_front() else { break };
        asked += 1;
        assert!(asked <= 16, "halves were joined again");
        // Now and then the node is busy, which must not join the halves either.
        let is_busy = asked == 4;
        let reply = if is_busy { (429, "") } else { (400, "") };
        outputs = answer(&mut bulk, now, request, reply);
        if let Some(wake) = bulk.next_wake() {
            outputs.extend(step(&mut bulk, wake, Input::Tick));
        }
    }
    assert_eq!(dead, 8, "each document was found guilty alone");
    assert!(bulk.is_idle());
    // 1 + 2 + 4 + 8 requests, and the one that met the busy node again.
    assert_eq!(asked, 16);
}

#[test]
fn blocked_lane_becomes_dead_letters_once_patience_is_over() {
    let blocked = r#"{"errors":true,"items":[{"create":{"status":403,"error":{"type":"cluster_block_exception","reason":"read-only"}}}]}"#;
    let run = |lane_patience| {
        let options = BulkOptions { lane_patience, ..BulkOptions::default() };
        let (mut bulk, mut now) = (Bulk::new(options), Instant::now());
        let mut outputs = step(&mut bulk, now, Input::Documents(chunk("a", 1)));
        let mut dead_after = None;
        for _ in 0..20 {
            let request = requests(&outputs)[0].id;
            outputs = answer(&mut bulk, now, request, (200, blocked));
            if outputs.iter().any(|output| matches!(output, Output::DeadLetter { .. })) {
                dead_after = Some(now);
                break;
            }
            now = bulk.next_wake().expect("the lane is tried again");
            outputs = step(&mut bulk, now, Input::Tick);
        }
        (dead_after.is_some(), bulk.is_idle())
    };
    assert_eq!(run(None), (false, false), "waits for ever unless told otherwise");
    assert_eq!(run(Some(Duration::from_secs(600))), (true, true));
}
