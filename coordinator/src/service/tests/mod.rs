//! The service alone, with a log that takes everything at once.

use elkfk_wire::jute::{ConnectRequest, ConnectResponse};

use super::*;

const SETTINGS: Settings = Settings {
    server: 1,
    session_timeout_ms_min: 400,
    session_timeout_ms_max: 4000,
    frame_bytes_max: 1 << 20,
    has_linearizable_reads: false,
    rules: Rules { extended_types: false, enforce_quota: false, reconfig: false },
    super_digest: None,
    watch_bytes_max: WATCH_BYTES_MAX,
};

/// A service whose log takes everything at once.
struct Bench {
    service: Service,
    index: u64,
    now: Now,
}

impl Bench {
    fn new() -> Self {
        let now = Now { steady_ms: 1, wall_ms: 1_700_000_000_000 };
        let service = Service::new(Machine::new(), SETTINGS, 9, now);
        let mut bench = Self { service, index: 0, now };
        bench.apply(Vec::new());
        let command = Command {
            time_ms: 0,
            origin: Origin::default(),
            session: SessionId(0),
            action: Action::Secret([1; 32]),
        };
        bench.apply(command.encode());
        bench.service.set_leading(true);
        bench.service.start_serving();
        bench
    }

    fn apply(&mut self, data: Vec<u8>) {
        self.index += 1;
        let entry = LogEntry { term: 1, index: self.index, kind: 0, data: data.into() };
        self.service.apply(&entry);
    }

    fn apply_all(&mut self) {
        for proposal in self.service.take_proposals() {
            self.apply(proposal);
        }
        let barrier = self.service.ask_for_barrier();
        self.service.barrier_passed(barrier);
    }

    fn wait(&mut self, ms: u64) {
        // In steps, or it would count as a pause.
        for _ in 0..ms / 50 {
            self.now.steady_ms += 50;
            self.service.set_now(self.now);
            self.service.tick();
        }
        self.apply_all();
    }

    fn connect(&mut self, id: ConnectionId, session: SessionId, password: &[u8], seen: i64) {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: Zxid(seen),
            timeout_ms: 1000,
            session,
            password,
            read_only: Some(false),
        };
        self.service.connect(id, ([127, 0, 0, 1], 1).into(), &request);
    }

    fn new_session(&mut self, id: ConnectionId) -> SessionId {
        self.connect(id, SessionId(0), &[0; 16], 0);
        self.apply_all();
        let out = self.take(id);
        ConnectResponse::decode(&out.bytes[4..]).unwrap().session
    }

    fn send(&mut self, id: ConnectionId, xid: i32, request: &Request<'_>) {
        let mut out = Vec::new();
        let start = start_frame(&mut out);
        RequestHeader { xid, op: request.op().code() }.encode(&mut out);
        request.encode(&mut out);
        end_frame(&mut out, start);
        self.service.frames(id, out.into());
    }

    fn take(&mut self, id: ConnectionId) -> Delivery {
        let deliveries = self.service.take_deliveries();
        deliveries.into_iter().find(|delivery| delivery.connection == id).unwrap_or_default()
    }

    /// Number and error of each frame.
    fn answers(&mut self, id: ConnectionId) -> Vec<(i32, i32)> {
        let out = self.take(id).bytes;
        let mut rest = &out[..];
        let mut answers = Vec::new();
        while let Ok(Some(frame)) = frame_in(rest, 1 << 20) {
            let header = ReplyHeader::decode(&mut Reader::new(frame)).unwrap();
            answers.push((header.xid, header.error));
            rest = &rest[4 + frame.len()..];
        }
        answers
    }
}

fn create(path: &'static str) -> Request<'static> {
    Request::Create {
        kind: elkfk_wire::jute::CreateKind::Create,
        path: path.into(),
        data: None,
        acl: Some(vec![elkfk_wire::jute::Acl::OPEN]),
        flags: 1,
        ttl_ms: 0,
    }
}

fn exists(path: &'static str) -> Request<'static> {
    Request::Exists { path: path.into(), watch: true }
}

#[test]
fn a_read_waits_for_the_writes_before_it_and_others_do_not() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.new_session(2);
    bench.send(1, 1, &create("/a"));
    bench.send(1, 2, &exists("/a"));
    bench.send(1, 3, &create("/b"));
    bench.send(1, 4, &exists("/b"));
    bench.send(1, xid::PING, &Request::Ping);
    bench.send(2, 1, &exists("/a"));
    assert_eq!(bench.answers(2), [(1, -101)]);
    let mut proposals = bench.service.take_proposals().into_iter();
    bench.apply(proposals.next().unwrap());
    // The second session is told before it could see the new state.
    assert_eq!(bench.answers(2), [(-1, 0)]);
}

#[test]
fn answers_come_in_the_order_of_the_requests() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.send(1, 1, &create("/a"));
    bench.send(1, 2, &exists("/a"));
    bench.send(1, 3, &create("/a"));
    bench.send(1, 4, &exists("/nosuch"));
    bench.apply_all();
    assert_eq!(bench.answers(1), [(1, 0), (2, 0), (3, -110), (4, -101)]);
}

#[test]
fn a_silent_session_expires_and_a_heard_one_does_not() {
    let mut bench = Bench::new();
    let (silent, heard) = (bench.new_session(1), bench.new_session(2));
    bench.send(1, 1, &create("/silent"));
    bench.apply_all();
    for _ in 0..4 {
        bench.wait(300);
        bench.send(2, xid::PING, &Request::Ping);
    }
    assert!(bench.service.machine.session(silent).is_none());
    assert!(bench.service.machine.session(heard).is_some());
    assert!(bench.service.machine.tree.get("/silent").is_none());
    assert!(bench.take(1).is_last);
}

#[test]
fn a_pause_of_the_process_is_not_held_against_sessions() {
    let mut bench = Bench::new();
    let session = bench.new_session(1);
    bench.wait(100);
    bench.now.steady_ms += 60_000;
    bench.wait(500);
    assert!(bench.service.machine.session(session).is_some());
    bench.wait(1000);
    assert!(bench.service.machine.session(session).is_none());
}

#[test]
fn a_session_is_resumed_by_its_password_alone() {
    let mut bench = Bench::new();
    let session = bench.new_session(1);
    let password = bench.service.machine.password(session).unwrap();
    let answer = |bench: &mut Bench, id, session, password: &[u8]| {
        bench.connect(id, session, password, 0);
        let out = bench.take(id);
        let response = ConnectResponse::decode(&out.bytes[4..]).unwrap();
        (response.session, response.timeout_ms, out.is_last)
    };
    assert_eq!(answer(&mut bench, 2, session, &[1; 16]), (SessionId(0), 0, true));
    assert_eq!(answer(&mut bench, 3, session, &password[..3]), (SessionId(0), 0, true));
    assert_eq!(answer(&mut bench, 4, SessionId(5), &password), (SessionId(0), 0, true));
    assert_eq!(answer(&mut bench, 5, session, &password), (session, 1000, false));
    // The connection it had is closed, and what that still says goes nowhere.
    bench.send(1, 9, &create("/late"));
    assert!(bench.service.take_proposals().is_empty());
    bench.service.gone(1);
    bench.send(5, 1, &exists("/"));
    assert_eq!(bench.answers(5), [(1, 0)]);
}

#[test]
fn a_client_that_has_seen_more_is_sent_elsewhere() {
    let mut bench = Bench::new();
    bench.connect(1, SessionId(0), &[0; 16], i64::MAX);
    let out = bench.take(1);
    assert!(out.is_last && out.bytes.is_empty());
}

#[test]
fn while_writes_are_refused_reads_go_on_and_sessions_live() {
    let mut bench = Bench::new();
    let session = bench.new_session(1);
    bench.service.set_refusing(Some("the disk is full".into()));
    bench.send(1, 1, &create("/a"));
    bench.send(1, 2, &exists("/"));
    assert!(bench.service.take_proposals().is_empty());
    bench.wait(200);
    assert_eq!(bench.answers(1), []);
    bench.wait(400);
    assert_eq!(bench.answers(1), [(1, ErrorCode::ConnectionLoss.code()), (2, 0)]);
    bench.wait(5000);
    assert!(bench.service.machine.session(session).is_some());
    bench.service.set_refusing(None);
    bench.send(1, 3, &create("/a"));
    bench.apply_all();
    assert_eq!(bench.answers(1), [(3, 0)]);
}

#[test]
fn a_write_after_a_refused_one_is_refused_too() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.service.set_refusing(Some("the disk is full".into()));
    bench.send(1, 1, &create("/a"));
    bench.service.set_refusing(None);
    bench.send(1, 2, &create("/b"));
    assert!(bench.service.take_proposals().is_empty());
    bench.wait(600);
    bench.send(1, 3, &create("/c"));
    bench.apply_all();
    let refused = ErrorCode::ConnectionLoss.code();
    assert_eq!(bench.answers(1), [(1, refused), (2, refused), (3, 0)]);
}

#[test]
fn requests_sent_with_the_handshake_wait_for_it() {
    let mut bench = Bench::new();
    bench.connect(1, SessionId(0), &[0; 16], 0);
    bench.send(1, 1, &create("/early"));
    bench.send(1, 2, &exists("/early"));
    bench.apply_all();
    bench.apply_all();
    let out = bench.take(1).bytes;
    let response = frame_in(&out, 1 << 20).unwrap().unwrap();
    assert!(ConnectResponse::decode(response).unwrap().timeout_ms > 0);
    assert!(bench.service.machine.tree.get("/early").is_some());
}

#[test]
fn what_is_answered_is_released_to_the_byte() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.send(1, 1, &create("/a"));
    bench.send(1, 2, &exists("/a"));
    bench.send(1, xid::PING, &Request::Ping);
    let ping = bench.take(1).released_bytes;
    assert_eq!(ping, bench_bytes(&Request::Ping));
    bench.apply_all();
    let sent = [create("/a"), exists("/a")].iter().map(bench_bytes).sum::<usize>();
    assert_eq!(bench.take(1).released_bytes, sent);
    // As the shell counts it.
    let mut frames = Vec::new();
    for request in [create("/a"), exists("/a")] {
        let start = start_frame(&mut frames);
        RequestHeader { xid: 1, op: request.op().code() }.encode(&mut frames);
        request.encode(&mut frames);
        end_frame(&mut frames, start);
    }
    assert_eq!(cost(&frames), sent);
}

#[test]
fn an_event_comes_before_any_answer_that_shows_the_newer_state() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.send(1, 1, &exists("/a"));
    bench.send(1, 2, &create("/a"));
    bench.apply_all();
    assert_eq!(bench.answers(1), [(1, -101), (-1, 0), (2, 0)]);
    // What was missed while away is told before the answer to setWatches itself.
    let path = || vec![Cow::Borrowed("/a")];
    let watches = |relative, data, exist, child| Request::SetWatches {
        relative_zxid: Zxid(relative),
        data,
        exist,
        child,
    };
    bench.send(1, 3, &watches(0, path(), path(), Vec::new()));
    assert_eq!(bench.answers(1), [(-1, 0), (-1, 0), (3, 0)]);
    let seen = bench.service.machine.zxid().0;
    bench.send(1, 4, &watches(seen, path(), Vec::new(), path()));
    bench.send(1, 5, &Request::Delete { path: "/a".into(), version: -1 });
    bench.apply_all();
    assert_eq!(bench.answers(1), [(4, 0), (-1, 0), (5, 0)]);
}

const LARGE: usize = 1_000_000;

fn get_large() -> Request<'static> {
    Request::GetData { path: "/large".into(), watch: false }
}

/// A session on connection 1 and a znode of a megabyte.
fn bench_with_large() -> Bench {
    let mut bench = Bench::new();
    bench.new_session(1);
    let Request::Create { kind, path: _, data: _, acl, flags: _, ttl_ms } = create("/large") else {
        unreachable!("a create");
    };
    let (path, data) = ("/large".into(), Some(vec![7; LARGE].into()));
    bench.send(1, 0, &Request::Create { kind, path, data, acl, flags: 0, ttl_ms });
    bench.apply_all();
    bench.take(1);
    bench
}

/// Reads like a client that takes one delivery after another; returns the numbers of all answers.
fn read_all(bench: &mut Bench, bytes_max: usize) -> Vec<i32> {
    let mut xids = Vec::new();
    loop {
        let delivery = bench.take(1);
        assert!(delivery.bytes.len() <= bytes_max, "{} bytes at once", delivery.bytes.len());
        let mut rest = &delivery.bytes[..];
        while let Ok(Some(frame)) = frame_in(rest, 2 << 20) {
            xids.push(ReplyHeader::decode(&mut Reader::new(frame)).unwrap().xid);
            rest = &rest[4 + frame.len()..];
        }
        if !delivery.is_awaited {
            return xids;
        }
        // Nothing more comes before it was read.
        bench.service.set_unsent(1, delivery.bytes.len());
        bench.service.room(1);
        assert!(bench.take(1).bytes.is_empty());
        bench.service.set_unsent(1, 0);
        bench.service.room(1);
    }
}

#[test]
fn a_client_that_does_not_read_is_answered_no_further() {
    let mut bench = bench_with_large();
    for xid in 1..=3000 {
        bench.send(1, xid, &get_large());
    }
    bench.send(1, xid::PING, &Request::Ping);
    let expected: Vec<_> = (1..=3000).chain([xid::PING]).collect();
    assert_eq!(read_all(&mut bench, ANSWER_BYTES_MAX + 2 * LARGE), expected);
}

#[test]
fn reads_that_wait_for_a_write_are_answered_in_order_and_not_all_at_once() {
    let mut bench = bench_with_large();
    let mut expected = Vec::new();
    for round in 0..3 {
        bench.send(1, round * 1000, &create("/once"));
        for xid in 1..=100 {
            bench.send(1, round * 1000 + xid, &get_large());
        }
        expected.extend(round * 1000..=round * 1000 + 100);
    }
    let mut xids = Vec::new();
    for _ in 0..3 {
        bench.apply_all();
        xids.extend(read_all(&mut bench, ANSWER_BYTES_MAX + (READS_WAITING_MAX + 1) * LARGE));
    }
    assert_eq!(xids, expected);
}

#[test]
fn what_a_closed_connection_had_waiting_is_released_to_the_byte() {
    let mut bench = bench_with_large();
    bench.send(1, 1, &create("/a"));
    let mut sent = bench_bytes(&create("/a"));
    for xid in 0..100 {
        bench.send(1, xid, &get_large());
        sent += bench_bytes(&get_large());
    }
    assert_eq!(bench.take(1).released_bytes, 0);
    bench.service.close(1);
    let closed = bench.take(1);
    assert!(closed.is_last);
    assert_eq!(closed.released_bytes, sent);
    bench.send(1, 1, &get_large());
    assert_eq!(bench.take(1).released_bytes, bench_bytes(&get_large()));
}

fn bench_bytes(request: &Request<'_>) -> usize {
    let mut body = Vec::new();
    request.encode(&mut body);
    12 + body.len() + REQUEST_OVERHEAD_BYTES
}

#[test]
fn identities_are_limited_in_all() {
    let mut bench = Bench::new();
    let auth = |user: &str| Request::Auth {
        scheme: "digest".into(),
        auth: Some(format!("{user}:pw").into_bytes().into()),
    };
    bench.new_session(1);
    let refused = ErrorCode::AuthFailed.code();
    let mut taken = 0;
    let answer = loop {
        bench.send(1, xid::AUTH, &auth(&format!("name{taken}")));
        let answer = bench.take(1);
        if answer.is_last {
            break answer;
        }
        taken += 1;
    };
    assert!((8..20).contains(&taken), "{taken}");
    assert!(answer.bytes.ends_with(&refused.to_be_bytes()));
    bench.new_session(2);
    bench.send(2, xid::AUTH, &auth(&"x".repeat(IDENTITIES_BYTES_MAX)));
    assert_eq!(bench.answers(2), [(xid::AUTH, refused)]);
}

#[test]
fn a_client_that_watches_too_much_is_cut_off_and_its_session_stays() {
    let mut bench = Bench::new();
    bench.service.watches = Watches::new(64 << 10);
    let session = bench.new_session(1);
    bench.new_session(2);
    let watch = |i: i32| Request::AddWatch { path: format!("/{i:0200}").into(), mode: 1 };
    let refused = (1..).find(|i| {
        bench.send(1, *i, &watch(*i));
        let answer = bench.take(1);
        assert_eq!(answer.bytes.is_empty(), answer.is_last, "answered, or closed");
        answer.is_last
    });
    assert!(refused.is_some_and(|i| (20..60).contains(&i)), "{refused:?}");
    assert_eq!(bench.service.watches.counts(), (0, 0, 0));
    assert!(bench.service.machine.session(session).is_some());
    // Another is not concerned.
    bench.send(2, 1, &watch(1));
    assert_eq!(bench.answers(2), [(1, 0)]);
}

#[test]
fn a_recursive_watch_is_told_what_its_client_may_read_and_nothing_else() {
    let mut bench = Bench::new();
    bench.new_session(1);
    bench.new_session(2);
    bench.send(2, 1, &Request::AddWatch { path: "/".into(), mode: 1 });
    let auth = Request::Auth { scheme: "digest".into(), auth: Some(b"user:pw"[..].into()) };
    bench.send(1, xid::AUTH, &auth);
    let private = Request::Create {
        kind: elkfk_wire::jute::CreateKind::Create,
        path: "/private".into(),
        data: None,
        acl: Some(vec![elkfk_wire::jute::Acl::CREATOR]),
        flags: 0,
        ttl_ms: 0,
    };
    bench.send(1, 1, &private);
    bench.send(1, 2, &create("/open"));
    bench.apply_all();
    assert_eq!(bench.answers(2), [(1, 0), (xid::NOTIFICATION, 0)]);
    bench.send(2, xid::AUTH, &auth);
    bench.send(1, 3, &Request::Delete { path: "/private".into(), version: -1 });
    bench.apply_all();
    assert_eq!(bench.answers(2), [(xid::AUTH, 0), (xid::NOTIFICATION, 0)]);
}
