use elkfk_wire::jute::{Acl, CreateKind, OpResult, Stat, create_flags};

use super::*;

/// A machine with a session, and what was told of its changes.
struct Bench {
    machine: Machine,
    events: Vec<(EventKind, String)>,
    rules: Rules,
    identities: Vec<Identity<'static>>,
}

const SESSION: SessionId = SessionId(0x77);

impl Bench {
    fn new() -> Self {
        let mut bench = Self {
            machine: Machine::new(),
            events: Vec::new(),
            rules: Rules::default(),
            identities: Vec::new(),
        };
        bench.apply(1, &[]);
        bench.command(SESSION, Action::Secret([7; 32]));
        bench.command(SESSION, Action::CreateSession { timeout_ms: 4000, server: 1 });
        bench
    }

    fn apply(&mut self, term: u64, data: &[u8]) -> Answer {
        let applied = self.machine.apply(term, self.machine.index() + 1, data);
        self.events.extend(applied.events.into_iter().map(|event| (event.kind, event.path)));
        applied.answer
    }

    fn command(&mut self, session: SessionId, action: Action<'_>) -> Answer {
        let command = Command { time_ms: 5, origin: Origin::default(), session, action };
        self.apply(self.machine.term().max(1), &command.encode())
    }

    fn request(&mut self, request: &Request<'_>) -> Result<Response<'static>, ErrorCode> {
        self.request_from(1, SESSION, request)
    }

    fn request_from(
        &mut self,
        server: u64,
        session: SessionId,
        request: &Request<'_>,
    ) -> Result<Response<'static>, ErrorCode> {
        let mut body = Vec::new();
        request.encode(&mut body);
        let op = request.op().code();
        let (identities, rules) = (self.identities.clone(), self.rules);
        let action = Action::Request { server, rules, identities, op, body: body.into() };
        match self.command(session, action) {
            Answer::Request(answer) => answer,
            other => panic!("{other:?}"),
        }
    }

    fn create(&mut self, path: &'static str, flags: i32) -> Result<Response<'static>, ErrorCode> {
        self.request(&create(path, flags))
    }

    fn stat(&self, path: &str) -> Stat {
        self.machine.tree.get(path).unwrap().stat()
    }
}

fn create(path: &'static str, flags: i32) -> Request<'static> {
    let acl = Some(vec![Acl::OPEN]);
    let kind = CreateKind::Create;
    Request::Create { kind, path: path.into(), data: None, acl, flags, ttl_ms: 0 }
}

fn set(path: &'static str, version: i32) -> Request<'static> {
    Request::SetData { path: path.into(), data: None, version }
}

fn delete(path: &'static str) -> Request<'static> {
    Request::Delete { path: path.into(), version: -1 }
}

#[test]
fn every_change_takes_the_next_zxid_and_a_term_begins_anew() {
    let mut bench = Bench::new();
    assert_eq!(bench.machine.zxid(), Zxid(0x1_0000_0001));
    bench.create("/a", 0).unwrap();
    assert_eq!(bench.create("/a", 0), Err(ErrorCode::NodeExists));
    assert_eq!(bench.machine.zxid(), Zxid(0x1_0000_0003));
    // What clients do not see takes none.
    bench.command(SESSION, Action::MoveSession { server: 1 });
    bench.command(SESSION, Action::Secret([8; 32]));
    assert_eq!(bench.machine.zxid(), Zxid(0x1_0000_0003));
    bench.apply(3, &[]);
    assert_eq!(bench.machine.zxid(), Zxid(0x3_0000_0000));
    // Where the counter ran full, the next term's zxids are larger all the same.
    bench.machine.zxid = Zxid(0x3_ffff_ffff);
    bench.create("/b", 0).unwrap();
    assert_eq!(bench.machine.zxid(), Zxid(0x4_0000_0000));
    bench.apply(4, &[]);
    assert_eq!(bench.machine.zxid(), Zxid(0x5_0000_0000));
}

#[test]
fn the_first_secret_holds() {
    let mut bench = Bench::new();
    let password = bench.machine.password(SESSION);
    bench.command(SESSION, Action::Secret([9; 32]));
    assert_eq!(bench.machine.password(SESSION), password);
    assert_ne!(bench.machine.password(SessionId(0x78)), password);
    assert_eq!(Machine::new().password(SESSION), None);
}

#[test]
fn a_multi_that_fails_changes_nothing_and_tells_nobody() {
    let mut bench = Bench::new();
    bench.create("/a", 0).unwrap();
    let (before, digest) = (bench.stat("/a"), bench.machine.tree.digest());
    bench.events.clear();
    let multi = |last| {
        Request::Multi(vec![
            create("/a/s", create_flags::PERSISTENT_SEQUENTIAL),
            create("/a/e", create_flags::EPHEMERAL),
            set("/a", 0),
            delete("/a/e"),
            last,
        ])
    };
    let answer = bench.request(&multi(set("/a", 0)));
    let results = [0, 0, 0, 0, ErrorCode::BadVersion.code()].map(OpResult::Error);
    assert_eq!(answer, Ok(Response::Multi(results.to_vec())));
    assert_eq!((bench.stat("/a"), bench.machine.tree.digest()), (before, digest));
    assert_eq!(bench.events, []);
    let Ok(Response::Multi(results)) = bench.request(&multi(set("/a", 1))) else { panic!() };
    assert_eq!(results[0], OpResult::Ok(OpCode::Create, Response::Path("/a/s0000000000".into())));
    assert_eq!(bench.events.len(), 2 + 2 + 1 + 2 + 1);
    let stat = bench.stat("/a");
    assert_eq!((stat.version, stat.num_children, stat.cversion), (2, 1, 3));
    assert_eq!((stat.mzxid, stat.pzxid), (bench.machine.zxid(), bench.machine.zxid()));
}

#[test]
fn an_expiry_removes_all_ephemerals_under_one_zxid() {
    let mut bench = Bench::new();
    for path in ["/b", "/a", "/c"] {
        bench.create(path, create_flags::EPHEMERAL).unwrap();
    }
    bench.events.clear();
    let before = bench.machine.zxid();
    let close = Action::CloseSession { is_expiry: true };
    assert_eq!(bench.command(SESSION, close.clone()), Answer::SessionClosed);
    assert_eq!(bench.machine.zxid().0, before.0 + 1);
    let deleted: Vec<_> = bench
        .events
        .iter()
        .filter(|(kind, _)| *kind == EventKind::Deleted)
        .map(|(_, path)| path.as_str())
        .collect();
    assert_eq!(deleted, ["/a", "/b", "/c"]);
    assert_eq!(bench.stat("/").pzxid, bench.machine.zxid());
    // What it still had on the way comes too late.
    assert_eq!(bench.create("/late", create_flags::EPHEMERAL), Err(ErrorCode::SessionExpired));
    assert_eq!(bench.command(SESSION, close), Answer::SessionClosed);
}

#[test]
fn writes_through_the_server_a_session_has_left_are_refused() {
    let mut bench = Bench::new();
    let moved = bench.command(SESSION, Action::MoveSession { server: 2 });
    assert_eq!(moved, Answer::SessionMoved(true));
    assert_eq!(bench.create("/a", 0), Err(ErrorCode::SessionMoved));
    assert!(bench.request_from(2, SESSION, &create("/a", 0)).is_ok());
    let moved = bench.command(SessionId(1), Action::MoveSession { server: 2 });
    assert_eq!(moved, Answer::SessionMoved(false));
}

#[test]
fn containers_go_when_their_children_have_gone() {
    let mut bench = Bench::new();
    let acl = Some(vec![Acl::OPEN]);
    let (kind, flags) = (CreateKind::Container, create_flags::CONTAINER);
    let made = Request::Create { kind, path: "/c".into(), data: None, acl, flags, ttl_ms: 0 };
    bench.request(&made).unwrap();
    assert_eq!(bench.machine.tree.due(0, 9), Vec::<String>::new());
    bench.create("/c/a", 0).unwrap();
    assert_eq!(bench.machine.tree.due(0, 9), Vec::<String>::new());
    bench.request(&delete("/c/a")).unwrap();
    assert_eq!(bench.machine.tree.due(0, 9), ["/c"]);
    // A child that came meanwhile saves it; a znode that is none is left alone.
    bench.create("/c/b", 0).unwrap();
    bench.create("/plain", 0).unwrap();
    for path in ["/c", "/plain"] {
        bench.command(SessionId(0), Action::DeleteContainer { path: path.into() });
        assert!(bench.machine.tree.get(path).is_some(), "{path}");
    }
    bench.request(&delete("/c/b")).unwrap();
    bench.command(SessionId(0), Action::DeleteContainer { path: "/c".into() });
    assert!(bench.machine.tree.get("/c").is_none());
}

#[test]
fn what_zookeeper_keeps_cannot_be_deleted() {
    let mut bench = Bench::new();
    for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
        assert_eq!(bench.request(&delete(path)), Err(ErrorCode::BadArguments), "{path}");
    }
    assert_eq!(bench.request(&set("/zookeeper/config", -1)), Err(ErrorCode::NoAuth));
    for (path, code) in [
        ("", ErrorCode::BadArguments),
        ("a", ErrorCode::BadArguments),
        ("/a/", ErrorCode::NoNode),
        ("/zookeeper//a", ErrorCode::NoNode),
        ("/zookeeper/..", ErrorCode::BadArguments),
        ("/a\0", ErrorCode::BadArguments),
    ] {
        assert_eq!(bench.create(path, 0), Err(code), "{path:?}");
    }
    assert_eq!(bench.create("/a", 99), Err(ErrorCode::BadArguments));
}

#[test]
fn a_machine_survives_its_image() {
    let mut bench = Bench::new();
    bench.create("/e", create_flags::EPHEMERAL).unwrap();
    let mut bytes = bench.machine.start_image();
    bytes.extend(bench.machine.tree.next_image_piece(usize::MAX).unwrap().0);
    let mut loaded = Machine::from_image(&bytes).unwrap();
    let machine = &mut bench.machine;
    assert_eq!((loaded.zxid(), loaded.index()), (machine.zxid(), machine.index()));
    assert_eq!(loaded.term(), machine.term());
    assert_eq!(loaded.password(SESSION), machine.password(SESSION));
    assert_eq!(loaded.session(SESSION), Some(Session { timeout_ms: 4000, server: 1 }));
    // And goes on as the other does.
    let (term, index) = (machine.term(), machine.index() + 1);
    let action = Action::CloseSession { is_expiry: true };
    let command = Command { time_ms: 5, origin: Origin::default(), session: SESSION, action };
    machine.apply(term, index, &command.encode());
    loaded.apply(term, index, &command.encode());
    assert_eq!(loaded.tree.digest(), machine.tree.digest());
    for end in 0..bytes.len() {
        assert!(Machine::from_image(&bytes[..end]).is_err(), "{end}");
    }
}

fn create_ttl(path: &'static str, flags: i32, ttl_ms: i64) -> Request<'static> {
    let acl = Some(vec![Acl::OPEN]);
    Request::Create { kind: CreateKind::Ttl, path: path.into(), data: None, acl, flags, ttl_ms }
}

#[test]
fn a_time_to_live_is_over_when_nothing_was_set_for_that_long() {
    let mut bench = Bench::new();
    let ttl = create_flags::PERSISTENT_WITH_TTL;
    assert_eq!(bench.request(&create_ttl("/t", ttl, 10)), Err(ErrorCode::Unimplemented));
    bench.rules.extended_types = true;
    for (flags, ttl_ms) in [(ttl, 0), (ttl, -1), (ttl, 1 << 40), (0, 10), (0, -1)] {
        let answer = bench.request(&create_ttl("/t", flags, ttl_ms));
        assert_eq!(answer, Err(ErrorCode::BadArguments), "{flags} {ttl_ms}");
    }
    assert_eq!(bench.create("/t", ttl), Err(ErrorCode::BadArguments));
    bench.request(&create_ttl("/t", ttl, 10)).unwrap();
    let owner = bench.machine.tree.get("/t").unwrap().owner;
    assert_eq!((owner.0 as u64, bench.stat("/t").ephemeral_owner.0), (0xff00_0000_0000_000a, 0));
    let sequential = create_flags::PERSISTENT_SEQUENTIAL_WITH_TTL;
    bench.request(&create_ttl("/s", sequential, (1 << 40) - 1)).unwrap();
    // Benches create at 5.
    let due = |bench: &Bench, now_ms| bench.machine.tree.due(now_ms, 9);
    assert_eq!(due(&bench, 15), Vec::<String>::new());
    assert_eq!(due(&bench, 16), ["/t"]);
    // A child keeps it; and it is no ephemeral, so it may have one.
    bench.create("/t/c", 0).unwrap();
    assert_eq!(due(&bench, 1000), Vec::<String>::new());
    bench.request(&delete("/t/c")).unwrap();
    let sweep = |bench: &mut Bench, time_ms| {
        let action = Action::DeleteContainer { path: "/t".into() };
        let origin = Origin::default();
        let command = Command { time_ms, origin, session: SessionId(0), action };
        bench.apply(1, &command.encode());
        bench.machine.tree.get("/t").is_some()
    };
    // Decided by the time of the entry: what was set since it was found due stays.
    assert!(sweep(&mut bench, 15));
    assert!(!sweep(&mut bench, 16));
    // A container that nobody has used yet stays too, even where one of that name was due before.
    bench.create("/t", create_flags::PERSISTENT).unwrap();
    assert!(sweep(&mut bench, 1000));
    bench.request(&delete("/t")).unwrap();
    let acl = Some(vec![Acl::OPEN]);
    let kind = CreateKind::Container;
    let flags = create_flags::CONTAINER;
    let made = Request::Create { kind, path: "/t".into(), data: None, acl, flags, ttl_ms: 0 };
    bench.request(&made).unwrap();
    assert!(sweep(&mut bench, 1000));
}

#[test]
fn a_quota_counts_what_is_below_it_and_refuses_where_it_is_enforced() {
    let mut bench = Bench::new();
    let make = |bench: &mut Bench, path: &'static str, data: &'static str| {
        let acl = Some(vec![Acl::OPEN]);
        let (kind, data) = (CreateKind::Create, Some(data.as_bytes().into()));
        let path = path.into();
        bench.request(&Request::Create { kind, path, data, acl, flags: 0, ttl_ms: 0 })
    };
    let used = |bench: &Bench| {
        let stats = bench.machine.tree.get("/zookeeper/quota/a/zookeeper_stats").unwrap();
        String::from_utf8(stats.data().unwrap().to_vec()).unwrap()
    };
    make(&mut bench, "/a", "123").unwrap();
    make(&mut bench, "/a/b", "45").unwrap();
    make(&mut bench, "/ab", "not counted").unwrap();
    make(&mut bench, "/zookeeper/quota/a", "").unwrap();
    let limits = "count=3,bytes=100=;byteHardLimit=10;countHardLimit=4";
    make(&mut bench, "/zookeeper/quota/a/zookeeper_limits", limits).unwrap();
    make(&mut bench, "/zookeeper/quota/a/zookeeper_stats", "count=0,bytes=0").unwrap();
    assert_eq!(used(&bench), "count=2,bytes=5");
    let version = bench.stat("/zookeeper/quota/a/zookeeper_stats").version;
    make(&mut bench, "/a/b/c", "6789").unwrap();
    bench.create("/a/e", create_flags::EPHEMERAL).unwrap();
    assert_eq!(used(&bench), "count=4,bytes=9");
    assert_eq!(bench.stat("/zookeeper/quota/a/zookeeper_stats").version, version);
    // Taken back with the multi that failed.
    let digest = bench.machine.tree.digest();
    let failing = Request::Multi(vec![create("/a/x", 0), delete("/a/b/c"), delete("/nosuch")]);
    assert!(matches!(bench.request(&failing), Ok(Response::Multi(_))));
    assert_eq!(bench.machine.tree.digest(), digest);
    bench.rules.enforce_quota = true;
    assert_eq!(bench.create("/a/f", 0), Err(ErrorCode::QuotaExceeded));
    let data = |path: &'static str, bytes: usize| {
        let data = Some(vec![1; bytes].into());
        Request::SetData { path: path.into(), data, version: -1 }
    };
    assert_eq!(bench.request(&data("/a", 5)), Err(ErrorCode::QuotaExceeded));
    bench.request(&data("/a", 4)).unwrap();
    assert_eq!(used(&bench), "count=4,bytes=10");
    bench.request(&delete("/a/b/c")).unwrap();
    bench.command(SESSION, Action::CloseSession { is_expiry: true });
    assert_eq!(used(&bench), "count=2,bytes=6");
}

#[test]
fn a_count_that_a_client_has_written_does_not_run_over() {
    let mut bench = Bench::new();
    bench.create("/a", 0).unwrap();
    bench.create("/zookeeper/quota/a", 0).unwrap();
    for (path, data) in [
        (
            "/zookeeper/quota/a/zookeeper_limits",
            "count=3,bytes=100=;byteHardLimit=10;countHardLimit=4",
        ),
        ("/zookeeper/quota/a/zookeeper_stats", "count=0,bytes=0"),
    ] {
        bench.create(path, 0).unwrap();
        let data = Some(data.as_bytes().into());
        bench.request(&Request::SetData { path: path.into(), data, version: -1 }).unwrap();
    }
    let data = Some(b"count=9223372036854775807,bytes=9223372036854775807"[..].into());
    let path = "/zookeeper/quota/a/zookeeper_stats".into();
    bench.request(&Request::SetData { path, data, version: -1 }).unwrap();
    bench.rules.enforce_quota = true;
    assert_eq!(bench.create("/a/f", 0), Err(ErrorCode::QuotaExceeded));
    bench.rules.enforce_quota = false;
    bench.create("/a/f", 0).unwrap();
}

fn reconfig(joining: &'static str, leaving: &'static str, version: i64) -> Request<'static> {
    let some = |text: &'static str| (!text.is_empty()).then_some(text.into());
    let (joining, leaving) = (some(joining), some(leaving));
    Request::Reconfig { joining, leaving, members: None, config_version: version }
}

#[test]
fn the_ensemble_is_changed_through_its_znode() {
    let mut bench = Bench::new();
    assert_eq!(bench.request(&reconfig("", "3", -1)), Err(ErrorCode::ReconfigDisabled));
    bench.rules.reconfig = true;
    assert_eq!(bench.request(&reconfig("", "3", -1)), Err(ErrorCode::Unimplemented));

    let servers = "server.1=a:1:2:participant\nserver.2=b:1:2:participant\nserver.3=c:1:2:participant\nversion=0";
    bench.command(SessionId(0), Action::Ensemble { servers: servers.into() });
    assert_eq!(bench.machine.ensemble().unwrap().servers.len(), 3);
    // Nobody may write it until somebody with the right to says so.
    assert_eq!(bench.request(&reconfig("", "3", -1)), Err(ErrorCode::NoAuth));
    let acl = Some(vec![Acl::OPEN]);
    let open = Request::SetAcl { path: "/zookeeper/config".into(), acl, version: -1 };
    bench.identities = vec![Identity { scheme: "super".into(), id: "".into() }];
    bench.request(&open).unwrap();
    bench.identities.clear();
    assert_eq!(bench.request(&reconfig("", "x", -1)), Err(ErrorCode::BadArguments));
    assert_eq!(bench.request(&reconfig("server.4=a:1:9", "", -1)), Err(ErrorCode::BadArguments));
    assert_eq!(bench.request(&reconfig("", "3", 77)), Err(ErrorCode::BadVersion));
    assert_eq!(bench.request(&reconfig("", "1,2", -1)), Err(ErrorCode::NewConfigNoQuorum));
    let answer = bench.request(&reconfig("server.4=d:1:2:observer;2181", "1", 0)).unwrap();
    let version = bench.machine.zxid().0;
    let expected = format!(
        "server.2=b:1:2:participant\nserver.3=c:1:2:participant\nserver.4=d:1:2:observer;0.0.0.0:2181\nversion={version:x}"
    );
    let Response::Data(Some(data), _) = answer else { panic!("{answer:?}") };
    assert_eq!(String::from_utf8_lossy(&data), expected);
    // zoo.cfg has no say any more, and the next change waits for the agreement.
    bench.command(SessionId(0), Action::Ensemble { servers: servers.into() });
    assert_eq!(bench.machine.ensemble().unwrap().version, version);
    assert_eq!(bench.request(&reconfig("", "4", -1)), Err(ErrorCode::ReconfigInProgress));
    let (term, index) = (bench.machine.term(), bench.machine.index() + 1);
    let members = Members { voters: vec![2, 3], learners: vec![] };
    bench.machine.apply_members(term, index, members);
    assert_eq!(bench.request(&reconfig("", "4", -1)), Err(ErrorCode::ReconfigInProgress));
    let members = Members { voters: vec![2, 3], learners: vec![4] };
    bench.machine.apply_members(term, index + 2, members);
    bench.request(&reconfig("", "4", version)).unwrap();

    let mut image = bench.machine.start_image();
    while let Some((piece, is_last)) = bench.machine.tree.next_image_piece(1000) {
        image.extend(piece);
        if is_last {
            break;
        }
    }
    let read = Machine::from_image(&image).unwrap();
    assert_eq!(read.members(), bench.machine.members());
    assert_eq!(read.ensemble(), bench.machine.ensemble());
}
