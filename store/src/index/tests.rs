//! One index under requests that meet: the same id twice, panics, failed commits.

use std::sync::mpsc;

use elkfk_wire::source_id::{Generation, SourceId};

use super::builder::{BUILDER_BYTES_MAX, WEIGHED_EVERY_BYTES};
use super::*;

struct Fixture {
    index: Arc<Index>,
    directory: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let info = IndexInfo {
        uuid: "uuid".into(),
        created_ms: 0,
        settings: Map::new(),
        aliases: Map::new(),
        is_closed: false,
        data_stream: None,
    };
    let path = directory.path().join("logs");
    let index = Index::create(&path, "logs", info, Mapping::default()).unwrap();
    Fixture { index: Arc::new(index), directory }
}

fn create(index: &Index, id: &str) -> Op {
    let body = Arc::new(json!({"message": id}).to_string());
    let mut mapping = index.mapping.get();
    let document =
        parse::parse(&body, 0..body.len(), &index.mapping, &mut mapping, index.fields, id).unwrap();
    Op::Put { document: Box::new(document), is_create: true, is_auto_id: false, expects: None }
}

/// Ids by source and by offset in turn: they are looked for in different ways.
fn id(n: u64) -> String {
    if n.is_multiple_of(2) {
        format!("logs+0+{n}")
    } else {
        let generation = Generation::new(1_772_323_200_000, 7);
        SourceId { generation, position: n * 100 }.to_string()
    }
}

fn results(outcomes: &[Outcome], wanted: OpResult) -> usize {
    outcomes.iter().filter(|outcome| outcome.result == wanted).count()
}

#[test]
fn an_id_that_another_request_commits_meanwhile_is_refused() {
    let Fixture { index, directory: _directory } = fixture();
    const IDS: u64 = 500;
    // Far enough that the first request has begun to decide when the other comes.
    const PAUSE: u64 = 2 * DECIDE_AT_ONCE as u64;
    for round in 0..3 {
        let ids = move || (0..IDS).map(move |n| id(round * IDS + n));
        let (paused, is_paused) = mpsc::channel();
        let (go, goes_on) = mpsc::channel::<()>();
        let slow = {
            let index = index.clone();
            std::thread::spawn(move || {
                let ops = ids().enumerate().map(|(n, id)| {
                    if n as u64 == PAUSE {
                        paused.send(()).unwrap();
                        goes_on.recv().unwrap();
                    }
                    create(&index, &id)
                });
                index.apply(ops, 1000).unwrap()
            })
        };
        is_paused.recv().unwrap();
        // It takes another builder and commits without the request that is still being read.
        let rest: Vec<Op> = ids().skip(PAUSE as usize).map(|id| create(&index, &id)).collect();
        let fast = index.apply(rest, 1000).unwrap();
        go.send(()).unwrap();
        let slow = slow.join().unwrap();
        assert_eq!(results(&fast, OpResult::Created) as u64, IDS - PAUSE, "round {round}");
        assert_eq!(results(&slow, OpResult::Created) as u64, PAUSE, "round {round}");
        assert_eq!(results(&slow, OpResult::Conflict) as u64, IDS - PAUSE, "round {round}");
        assert_eq!(index.searcher().unwrap().num_docs(), (round + 1) * IDS);
    }
}

#[test]
fn the_same_ids_from_two_requests_at_once_are_taken_once() {
    let Fixture { index, directory: _directory } = fixture();
    const IDS: u64 = 400;
    for round in 0..10 {
        let senders: Vec<_> = (0..3)
            .map(|_| {
                let index = index.clone();
                std::thread::spawn(move || {
                    let ops = (0..IDS).map(|n| create(&index, &id(round * IDS + n)));
                    results(&index.apply(ops, 1000).unwrap(), OpResult::Created)
                })
            })
            .collect();
        let created: usize = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        assert_eq!(created as u64, IDS, "round {round}");
        assert_eq!(index.searcher().unwrap().num_docs(), (round + 1) * IDS);
    }
}

/// Runs `work` on a thread of its own; a hang is a failure.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || done.send(work()));
    is_done.recv_timeout(Duration::from_secs(60)).expect("hangs")
}

#[test]
fn a_request_that_panics_leaves_the_index_usable() {
    let Fixture { index, directory: _directory } = fixture();
    for round in 0..=BUILDERS_MAX as u64 {
        let panicking = index.clone();
        let ops = (0..1000).map(move |n| {
            assert!(n < 500, "as told");
            create(&panicking, &id(n))
        });
        let result = {
            let index = index.clone();
            in_time(move || catch_unwind(AssertUnwindSafe(|| index.apply(ops, 1000))).is_err())
        };
        assert!(result, "round {round}");
    }
    let after = index.clone();
    let outcomes =
        in_time(move || after.apply((0..1000).map(|n| create(&after, &id(n))), 1000).unwrap());
    assert_eq!(results(&outcomes, OpResult::Created), 1000);
    assert_eq!(index.searcher().unwrap().num_docs(), 1000);
}

#[test]
fn a_commit_that_panics_fails_its_documents_and_the_next_one_works() {
    let Fixture { index, directory: _directory } = fixture();
    *lock(&index.before_publish) = Some(Box::new(|| panic!("as told")));
    let (failing, after) = (index.clone(), index.clone());
    let error = in_time(move || failing.apply([create(&failing, "a")], 10).unwrap_err());
    assert_eq!(error.status, 503, "{error:?}");
    // Its rename may have been done and not be on disk.
    assert!(!index.is_synced.load(Ordering::Acquire));
    let outcomes = in_time(move || after.apply([create(&after, "a")], 10).unwrap());
    assert_eq!(results(&outcomes, OpResult::Created), 1);
}

#[test]
fn large_documents_are_weighed_before_many_of_them_are_held() {
    let Fixture { index, directory: _directory } = fixture();
    let mut builder = Builder::new();
    let words: String = (0..60_000).map(|n| format!("word{n} ")).collect();
    for n in 0..100 {
        let body = Arc::new(json!({"message": format!("{n} {words}")}).to_string());
        let mut mapping = index.mapping.get();
        let document =
            parse::parse(&body, 0..body.len(), &index.mapping, &mut mapping, index.fields, "x")
                .unwrap();
        builder.add(&index.tantivy, document, body.len()).unwrap();
        let held = builder.writer.as_ref().map_or(0, |(_, writer)| writer.mem_usage());
        assert!(held < BUILDER_BYTES_MAX + 3 * WEIGHED_EVERY_BYTES, "{held} bytes after {n}");
    }
    assert!(!builder.sealed.is_empty(), "100 documents of half a megabyte were held in memory");
}

#[test]
fn what_a_killed_process_left_is_synced_before_it_is_told() {
    let Fixture { index, directory } = fixture();
    index.apply([create(&index, "a")], 10).unwrap();
    let path = directory.path().join("logs");
    let opened = Index::open(&path, "logs").unwrap();
    assert!(!opened.is_synced.load(Ordering::Acquire));
    opened.searcher().unwrap();
    assert!(opened.is_synced.load(Ordering::Acquire));
}

#[test]
fn ids_are_forgotten_and_found_again() {
    let Fixture { index, directory: _directory } = fixture();
    index.apply((0..10).map(|n| create(&index, &id(n))), 100).unwrap();
    index.forget_ids();
    let again = index.apply((0..10).map(|n| create(&index, &id(n))), 100).unwrap();
    assert_eq!(results(&again, OpResult::Conflict), 10);
}
