//! One suite for every ZooKeeper: what our client asks, a server must answer.
//!
//! Each function takes the address of a server with tickTime=200 and works below a znode of its own.

use std::time::Duration;

use anyhow::{Result, ensure};
use elkfk_coordinator_client::{
    Acl, Client, Config, CreateMode, Error, ErrorCode, EventKind, EventState, Op, OpResult,
    PersistentWatch, Read, ReadResult, SessionState, WatchMode,
};
use tokio::time::timeout;

use super::coordinator_proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn connect(addr: &str) -> Result<Client> {
    connect_for(addr, Duration::from_secs(4)).await
}

pub(crate) async fn connect_for(addr: &str, session_timeout: Duration) -> Result<Client> {
    let mut config = Config::parse(addr)?.with_session_timeout(session_timeout);
    config.connect_timeout = PATIENCE;
    Ok(Client::connect(config).await?)
}

/// All of it that any ZooKeeper answers.
pub(crate) async fn run(addr: &str) -> Result<()> {
    macro_rules! all {
        ($($name:ident),*) => {
            $(
                let started = std::time::Instant::now();
                $name(addr).await.map_err(|error| error.context(stringify!($name)))?;
                println!("{} {:?}", stringify!($name), started.elapsed());
            )*
        };
    }
    all!(
        znodes_are_created_read_set_and_deleted,
        errors_have_zookeepers_codes,
        stats_count_as_zookeepers,
        sequential_names_count_creations,
        a_multi_is_done_whole_or_not_at_all,
        watches_fire_once_before_newer_answers,
        acls_are_enforced,
        a_chroot_is_put_before_and_taken_off,
        a_session_resumes_and_its_watches_with_it,
        an_abandoned_session_expires_with_its_ephemerals,
        a_closed_session_takes_its_ephemerals_at_once,
        a_wrong_password_resumes_nothing,
        containers_and_quotas_are_made_and_counted,
        a_large_list_of_children_is_answered_whole
    );
    Ok(())
}

/// What came with 3.6 and 3.7, and TTL znodes, which must be enabled.
#[allow(dead_code, reason = "a server of 3.5 has none of it")]
pub(crate) async fn run_later(addr: &str) -> Result<()> {
    watches_that_stay_are_told_each_time(addr).await?;
    reads_come_together_each_by_itself(addr).await?;
    names_and_counts_are_told(addr).await
}

async fn znodes_are_created_read_set_and_deleted(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    assert_eq!(client.create("/basic", "one", CreateMode::Persistent).await?, "/basic");
    let (data, stat) = client.get("/basic").await?;
    assert_eq!((&data[..], stat.version, stat.data_length), (&b"one"[..], 0, 3));
    assert_eq!(client.set("/basic", "two!", Some(0)).await?.version, 1);
    assert_eq!(&client.get("/basic").await?.0[..], b"two!");
    let (path, stat) =
        client.create_with("/basic/null", None, &[Acl::OPEN], CreateMode::Persistent).await?;
    assert_eq!((path.as_str(), stat.data_length), ("/basic/null", 0));
    assert!(client.get("/basic/null").await?.0.is_empty());
    client.create("/basic/ü b", [], CreateMode::Persistent).await?;
    let (mut children, stat) = client.children("/basic").await?;
    children.sort();
    assert_eq!((children, stat.num_children), (vec!["null".to_owned(), "ü b".to_owned()], 2));
    client.delete("/basic/null", Some(0)).await?;
    assert_eq!(client.exists("/basic/null").await?, None);
    client.create_all("/basic/a/b/c").await?;
    client.create_all("/basic/a/b/c").await?;
    client.sync("/basic").await?;
    client.check("/basic", Some(1)).await?;
    assert!(client.check("/basic", Some(0)).await.unwrap_err().is_bad_version());
    client.close().await;
    assert_eq!(client.get("/basic").await, Err(Error::Closed));
    Ok(())
}

async fn errors_have_zookeepers_codes(addr: &str) -> Result<()> {
    use ErrorCode::*;
    let client = connect(addr).await?;
    client.create("/errors", [], CreateMode::Persistent).await?;
    client.create("/errors/e", [], CreateMode::Ephemeral).await?;
    let code = |result: Result<String, Error>| result.unwrap_err().code().unwrap();
    let create = |path| client.create(path, [], CreateMode::Persistent);
    assert_eq!(code(create("/errors").await), NodeExists);
    assert_eq!(code(create("/nosuch/a").await), NoNode);
    assert_eq!(code(create("/errors/e/a").await), NoChildrenForEphemerals);
    assert_eq!(code(create("/").await), NodeExists);
    let code = |result: Result<(), Error>| result.unwrap_err().code().unwrap();
    assert_eq!(code(client.delete("/errors", None).await), NotEmpty);
    assert_eq!(code(client.delete("/nosuch", None).await), NoNode);
    assert_eq!(code(client.delete("/errors/e", Some(3)).await), BadVersion);
    assert_eq!(code(client.delete("/", None).await), BadArguments);
    assert_eq!(client.get("/nosuch").await.unwrap_err().code(), Some(NoNode));
    assert_eq!(client.children("/nosuch").await.unwrap_err().code(), Some(NoNode));
    assert_eq!(client.get_acl("/nosuch").await.unwrap_err().code(), Some(NoNode));
    assert_eq!(client.set("/nosuch", [], None).await.unwrap_err().code(), Some(NoNode));
    assert_eq!(client.set("/errors", [], Some(4)).await.unwrap_err().code(), Some(BadVersion));
    assert!(matches!(client.get("errors").await, Err(Error::Path { .. })));
    let bad: [&[Acl<'static>]; 4] = [
        &[],
        &[Acl { perms: 31, scheme: "world".into(), id: "someone".into() }],
        &[Acl { perms: 31, scheme: "nosuch".into(), id: "anyone".into() }],
        &[Acl::CREATOR],
    ];
    for acl in bad {
        let create = client.create_with("/errors/acl", None, acl, CreateMode::Persistent).await;
        assert_eq!(create.unwrap_err().code(), Some(InvalidAcl), "{acl:?}");
    }
    client.close().await;
    Ok(())
}

async fn stats_count_as_zookeepers(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    client.create("/stat", "x", CreateMode::Persistent).await?;
    let born = client.exists("/stat").await?.unwrap();
    assert_eq!((born.czxid, born.mzxid, born.pzxid), (born.czxid, born.czxid, born.czxid));
    assert_eq!(born.ctime_ms, born.mtime_ms);
    let now_ms = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_millis() as i64;
    ensure!((now_ms - born.ctime_ms).abs() < 60_000, "ctime {}", born.ctime_ms);
    for name in ["a", "b", "c"] {
        client.create(&format!("/stat/{name}"), [], CreateMode::Persistent).await?;
    }
    client.delete("/stat/b", None).await?;
    client.set("/stat", "xyz", None).await?;
    let stat = client.set_acl("/stat", &[Acl::OPEN], Some(0)).await?;
    assert_eq!(stat.aversion, 1);
    assert_eq!((stat.cversion, stat.num_children, stat.version, stat.data_length), (4, 2, 1, 3));
    ensure!(stat.pzxid > born.czxid && stat.mzxid > stat.pzxid, "{stat:?}");
    // A failed change takes a zxid too, and changes nothing.
    let before = client.last_zxid();
    client.set("/stat", [], Some(7)).await.unwrap_err();
    assert_eq!(client.last_zxid().0, before.0 + 1);
    let (_, stat) =
        client.create_with("/stat/e", None, &[Acl::OPEN], CreateMode::Ephemeral).await?;
    assert_eq!(stat.ephemeral_owner, client.session_id());
    assert_eq!(stat.czxid.0, before.0 + 2);
    client.close().await;
    Ok(())
}

async fn sequential_names_count_creations(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    client.create("/seq", [], CreateMode::Persistent).await?;
    let next = |prefix| client.create(prefix, [], CreateMode::PersistentSequential);
    assert_eq!(next("/seq/n-").await?, "/seq/n-0000000000");
    client.create("/seq/other", [], CreateMode::Persistent).await?;
    assert_eq!(next("/seq/n-").await?, "/seq/n-0000000002");
    // Deletions do not count: a name never comes twice.
    client.delete("/seq/n-0000000002", None).await?;
    assert_eq!(next("/seq/n-").await?, "/seq/n-0000000003");
    assert_eq!(next("/seq/").await?, "/seq/0000000004");
    let path = client.create("/seq/e", [], CreateMode::EphemeralSequential).await?;
    assert_eq!(path, "/seq/e0000000005");
    let (path, _) =
        client.create_with("/seq/x", None, &[Acl::OPEN], CreateMode::EphemeralSequential).await?;
    assert_eq!(path, "/seq/x0000000006");
    client.close().await;
    Ok(())
}

async fn a_multi_is_done_whole_or_not_at_all(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    let before =
        client.create("/multi", "0", CreateMode::Persistent).await.map(|_| client.last_zxid())?;
    let results = client
        .multi(&[
            Op::check("/multi", Some(0)),
            Op::create("/multi/a", "1", CreateMode::Persistent),
            Op::set("/multi/a", "2", Some(0)),
            Op::create("/multi/s-", "", CreateMode::EphemeralSequential),
            Op::delete("/multi/a", Some(1)),
        ])
        .await?;
    assert_eq!(client.last_zxid().0, before.0 + 1);
    assert_eq!(results[0], OpResult::Checked);
    assert!(matches!(&results[1], OpResult::Created { path } if path == "/multi/a"));
    assert!(
        matches!(&results[2], OpResult::Set(stat) if stat.version == 1 && stat.mzxid.0 == before.0 + 1)
    );
    assert!(matches!(&results[3], OpResult::Created { path } if path == "/multi/s-0000000001"));
    assert_eq!(results[4], OpResult::Deleted);

    let failed = client
        .multi(&[
            Op::create("/multi/b", "1", CreateMode::Persistent),
            Op::check("/multi", Some(9)),
            Op::create("/multi/c", "1", CreateMode::Persistent),
        ])
        .await
        .unwrap_err();
    assert!(
        matches!(&failed, Error::Multi { index: 1, path, code: ErrorCode::BadVersion, .. } if path == "/multi"),
        "{failed:?}"
    );
    assert_eq!(client.exists("/multi/b").await?, None);
    assert_eq!(client.children("/multi").await?.0, ["s-0000000001"]);
    // The counter of names is as if nothing had been tried.
    let next = client.create("/multi/n", [], CreateMode::PersistentSequential).await?;
    assert_eq!(next, "/multi/n0000000002");
    assert_eq!(client.multi(&[]).await?, []);
    client.close().await;
    Ok(())
}

async fn watches_fire_once_before_newer_answers(addr: &str) -> Result<()> {
    let (client, other) = (connect(addr).await?, connect(addr).await?);
    client.create("/watch", "0", CreateMode::Persistent).await?;
    let (_, data) = client.exists_watch("/watch").await?;
    let (_, _, get) = client.get_watch("/watch").await?;
    let (_, _, children) = client.children_watch("/watch").await?;
    let (none, mut born) = client.exists_watch("/watch/child").await?;
    assert_eq!(none, None);
    other.create("/watch/child", [], CreateMode::Persistent).await?;
    client.sync("/watch").await?;
    // An answer newer than the change came, so the events are here already.
    let event = futures_now(&mut born).expect("told before the newer answer");
    assert_eq!((event.kind, event.path.as_ref()), (EventKind::Created, "/watch/child"));
    assert_eq!(event.state, EventState::SyncConnected);
    let event = timeout(PATIENCE, children).await?;
    assert_eq!((event.kind, event.path.as_ref()), (EventKind::ChildrenChanged, "/watch"));
    other.set("/watch", "1", None).await?;
    assert_eq!(timeout(PATIENCE, get).await?.kind, EventKind::DataChanged);
    assert_eq!(timeout(PATIENCE, data).await?.kind, EventKind::DataChanged);
    let (_, _, data) = client.get_watch("/watch/child").await?;
    let (_, _, children) = client.children_watch("/watch/child").await?;
    let (_, _, parent) = client.children_watch("/watch").await?;
    other.delete("/watch/child", None).await?;
    for (watch, kind) in [
        (data, EventKind::Deleted),
        (children, EventKind::Deleted),
        (parent, EventKind::ChildrenChanged),
    ] {
        assert_eq!(timeout(PATIENCE, watch).await?.kind, kind);
    }
    // A multi fires as its operations would.
    let (_, born) = client.exists_watch("/watch/m").await?;
    other
        .multi(&[
            Op::create("/watch/m", "", CreateMode::Persistent),
            Op::set("/watch/m", "1", None),
            Op::delete("/watch/m", None),
        ])
        .await?;
    assert_eq!(timeout(PATIENCE, born).await?.kind, EventKind::Created);
    // Our own changes come to us too.
    let (_, mut own) = client.exists_watch("/watch/own").await?;
    client.create("/watch/own", [], CreateMode::Persistent).await?;
    assert_eq!(futures_now(&mut own).expect("told before the answer").kind, EventKind::Created);
    client.close().await;
    other.close().await;
    Ok(())
}

/// What `watch` holds now, without waiting.
fn futures_now(
    watch: &mut elkfk_coordinator_client::Watch,
) -> Option<elkfk_coordinator_client::WatchedEvent<'static>> {
    use std::future::Future;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::Pin::new(watch).poll(&mut context) {
        std::task::Poll::Ready(event) => Some(event),
        std::task::Poll::Pending => None,
    }
}

async fn acls_are_enforced(addr: &str) -> Result<()> {
    let acl = |perms, scheme: &'static str, id: &'static str| Acl {
        perms,
        scheme: scheme.into(),
        id: id.into(),
    };
    let (owner, other) = (connect(addr).await?, connect(addr).await?);
    owner.add_auth("digest", b"user:pw").await?;
    let create = async |path, acl| {
        owner.create_with(path, None, &[acl], CreateMode::Persistent).await.map(drop)
    };
    create("/acl", Acl::CREATOR).await?;
    // The digest of user:pw, as recorded from ZooKeeper.
    let digest = acl(31, "digest", "user:2Om+GBbT2q/tS6pdvACZbbm7/1A=");
    assert_eq!(owner.get_acl("/acl").await?.0, [digest]);
    let no_auth = |error: Error| assert_eq!(error.code(), Some(ErrorCode::NoAuth));
    no_auth(other.get("/acl").await.unwrap_err());
    no_auth(other.set("/acl", [], None).await.unwrap_err());
    no_auth(other.children("/acl").await.unwrap_err());
    no_auth(other.create("/acl/a", [], CreateMode::Persistent).await.unwrap_err());
    no_auth(other.set_acl("/acl", &[Acl::OPEN], None).await.unwrap_err());
    assert!(other.exists("/acl").await?.is_some());
    create("/acl/read", acl(1, "world", "anyone")).await?;
    assert!(other.get("/acl/read").await.is_ok());
    no_auth(other.set("/acl/read", [], None).await.unwrap_err());
    // Deleting is a right over the parent.
    no_auth(other.delete("/acl/read", None).await.unwrap_err());
    owner.delete("/acl/read", None).await?;
    create("/acl/ip", acl(31, "ip", "127.0.0.0/8")).await?;
    assert!(other.set("/acl/ip", "x", None).await.is_ok());
    create("/acl/far", acl(31, "ip", "10.1.2.3")).await?;
    no_auth(other.get("/acl/far").await.unwrap_err());
    // Authentication holds on the next connection too, and comes before anything else there.
    other.add_auth("digest", b"user:pw").await?;
    assert!(other.get("/acl").await.is_ok());
    owner.close().await;
    other.close().await;

    let stranger = connect(addr).await?;
    assert_eq!(stranger.add_auth("nosuch", b"x").await, Err(Error::AuthFailed));
    let mut state = stranger.state();
    timeout(PATIENCE, state.wait_for(|state| *state == SessionState::AuthFailed)).await??;
    Ok(())
}

async fn a_chroot_is_put_before_and_taken_off(addr: &str) -> Result<()> {
    let outer = connect(addr).await?;
    outer.create_all("/chroot/inner").await?;
    let inner = connect(&format!("{addr}/chroot/inner")).await?;
    let (_, watch) = inner.exists_watch("/a").await?;
    assert_eq!(inner.create("/a", [], CreateMode::Persistent).await?, "/a");
    assert_eq!(timeout(PATIENCE, watch).await?.path, "/a");
    let created = inner.create("/", [], CreateMode::PersistentSequential).await?;
    assert_eq!(created, "/0000000001");
    let mut children = outer.children("/chroot/inner").await?.0;
    children.sort();
    assert_eq!(children, ["0000000001", "a"]);
    assert_eq!(inner.children("/").await?.1.num_children, 2);
    let (_, _, watch) = inner.children_watch("/").await?;
    outer.create("/chroot/inner/b", [], CreateMode::Persistent).await?;
    assert_eq!(timeout(PATIENCE, watch).await?.path, "/");
    inner.close().await;
    outer.close().await;
    Ok(())
}

async fn a_session_resumes_and_its_watches_with_it(addr: &str) -> Result<()> {
    let proxy = Proxy::start(addr).await?;
    let other = connect(addr).await?;
    let client = connect(proxy.addr()).await?;
    let session = client.session_id();
    client.create("/resume", "0", CreateMode::Persistent).await?;
    client.create("/resume/e", [], CreateMode::Ephemeral).await?;
    let (_, _, data) = client.get_watch("/resume").await?;
    let (_, _, unchanged) = client.get_watch("/resume/e").await?;
    let (_, born) = client.exists_watch("/resume/new").await?;
    let (_, _, children) = client.children_watch("/resume").await?;
    other.create("/resume/gone", [], CreateMode::Persistent).await?;
    assert_eq!(timeout(PATIENCE, children).await?.kind, EventKind::ChildrenChanged);
    let (_, _, gone) = client.get_watch("/resume/gone").await?;
    let (_, _, children) = client.children_watch("/resume").await?;

    proxy.cut();
    let mut state = client.state();
    timeout(PATIENCE, state.wait_for(|state| matches!(state, SessionState::Disconnected(_))))
        .await??;
    // What changes now is learnt from setWatches on the next connection.
    other.set("/resume", "1", None).await?;
    other.create("/resume/new", [], CreateMode::Persistent).await?;
    other.delete("/resume/gone", None).await?;
    proxy.mend();
    timeout(PATIENCE, state.wait_for(|state| matches!(state, SessionState::Connected { .. })))
        .await??;
    assert_eq!(client.session_id(), session);
    assert_eq!(timeout(PATIENCE, data).await?.kind, EventKind::DataChanged);
    assert_eq!(timeout(PATIENCE, born).await?.kind, EventKind::Created);
    assert_eq!(timeout(PATIENCE, gone).await?.kind, EventKind::Deleted);
    assert_eq!(timeout(PATIENCE, children).await?.kind, EventKind::ChildrenChanged);
    assert_eq!(&client.get("/resume").await?.0[..], b"1");
    assert!(other.exists("/resume/e").await?.is_some());
    // Set again without having fired, so it fires now.
    other.set("/resume/e", "x", None).await?;
    assert_eq!(timeout(PATIENCE, unchanged).await?.kind, EventKind::DataChanged);
    client.close().await;
    other.close().await;
    Ok(())
}

async fn an_abandoned_session_expires_with_its_ephemerals(addr: &str) -> Result<()> {
    let other = connect(addr).await?;
    other.create("/expiry", [], CreateMode::Persistent).await?;
    let client = connect_for(addr, Duration::from_millis(800)).await?;
    for name in ["a", "b", "c"] {
        client.create(&format!("/expiry/{name}"), [], CreateMode::Ephemeral).await?;
    }
    let credentials = client.credentials();
    client.abandon().await;
    // Resumed in time, it lives on.
    let resumed = {
        let mut config = Config::parse(addr)?.with_session_timeout(Duration::from_millis(800));
        config.resume = Some(credentials.clone());
        Client::connect(config).await?
    };
    assert_eq!(resumed.session_id(), credentials.session);
    tokio::time::sleep(Duration::from_millis(1600)).await;
    assert_eq!(other.children("/expiry").await?.0.len(), 3, "pings keep a session alive");
    let (_, gone) = other.exists_watch("/expiry/a").await?;
    resumed.abandon().await;
    assert_eq!(timeout(PATIENCE, gone).await?.kind, EventKind::Deleted);
    let (children, stat) = other.children("/expiry").await?;
    assert_eq!(children, Vec::<String>::new());
    assert_eq!((stat.cversion, stat.num_children), (6, 0));
    // All of them under one zxid: the parent's pzxid is the last change there was.
    other.sync("/").await?;
    assert_eq!(other.last_zxid(), stat.pzxid);
    let mut config = Config::parse(addr)?.with_session_timeout(Duration::from_millis(800));
    config.resume = Some(credentials);
    config.connect_timeout = PATIENCE;
    assert_eq!(Client::connect(config).await.unwrap_err(), Error::SessionExpired);
    other.close().await;
    Ok(())
}

async fn a_closed_session_takes_its_ephemerals_at_once(addr: &str) -> Result<()> {
    let (client, other) = (connect_for(addr, Duration::from_secs(4)).await?, connect(addr).await?);
    client.create("/closed", [], CreateMode::Ephemeral).await?;
    client.close().await;
    other.sync("/closed").await?;
    assert_eq!(other.exists("/closed").await?, None);
    let dropped = connect(addr).await?;
    dropped.create("/dropped", [], CreateMode::Ephemeral).await?;
    let (_, gone) = other.exists_watch("/dropped").await?;
    drop(dropped);
    assert_eq!(timeout(Duration::from_secs(3), gone).await?.kind, EventKind::Deleted);
    other.close().await;
    Ok(())
}

async fn a_wrong_password_resumes_nothing(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    let mut credentials = client.credentials();
    credentials.password[3] ^= 1;
    let mut config = Config::parse(addr)?.with_session_timeout(Duration::from_secs(4));
    config.resume = Some(credentials);
    assert_eq!(Client::connect(config).await.unwrap_err(), Error::SessionExpired);
    assert!(client.exists("/").await?.is_some(), "the session itself is unharmed");
    client.close().await;
    Ok(())
}

async fn a_large_list_of_children_is_answered_whole(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    client.create("/many", [], CreateMode::Persistent).await?;
    let mut calls = tokio::task::JoinSet::new();
    for i in 0..2000 {
        let client = client.clone();
        calls.spawn(async move {
            client.create(&format!("/many/{i:0100}"), [1; 100], CreateMode::Persistent).await
        });
    }
    while let Some(call) = calls.join_next().await {
        call??;
    }
    assert_eq!(client.children("/many").await?.0.len(), 2000);
    client.close().await;
    Ok(())
}

async fn containers_and_quotas_are_made_and_counted(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    client.create("/kept", "12", CreateMode::Persistent).await?;
    let (path, stat) =
        client.create_with("/kept/c", None, &[Acl::OPEN], CreateMode::Container).await?;
    assert_eq!((path.as_str(), stat.ephemeral_owner.0), ("/kept/c", 0));
    client.create("/kept/c/child", "345", CreateMode::Persistent).await?;
    client.create_all("/zookeeper/quota/kept").await?;
    let quota = |name: &str| format!("/zookeeper/quota/kept/{name}");
    client.create(&quota("zookeeper_limits"), "count=9,bytes=9", CreateMode::Persistent).await?;
    client.create(&quota("zookeeper_stats"), "count=0,bytes=0", CreateMode::Persistent).await?;
    client.create("/kept/e", "6", CreateMode::Ephemeral).await?;
    client.set("/kept/c", "78", None).await?;
    client.delete("/kept/c/child", None).await?;
    let (used, stat) = client.get(&quota("zookeeper_stats")).await?;
    assert_eq!((&used[..], stat.version), (&b"count=3,bytes=5"[..], 0));
    client.close().await;
    let other = connect(addr).await?;
    assert_eq!(&other.get(&quota("zookeeper_stats")).await?.0[..], b"count=2,bytes=4");
    other.close().await;
    Ok(())
}

async fn told(watch: &mut PersistentWatch) -> Result<String> {
    let event = timeout(PATIENCE, watch.next()).await?.expect("the watch stays");
    Ok(format!("{:?} {}", event.kind, event.path))
}

async fn watches_that_stay_are_told_each_time(addr: &str) -> Result<()> {
    let other = connect(addr).await?;
    other.create_all("/stay/root").await?;
    let proxy = Proxy::start(addr).await?;
    let client = connect(&format!("{}/stay", proxy.addr())).await?;
    let mut one = client.add_watch("/root", WatchMode::Persistent).await?;
    let mut all = client.add_watch("/root", WatchMode::Recursive).await?;
    for _ in 0..2 {
        other.create("/stay/root/a", [], CreateMode::Persistent).await?;
        other.set("/stay/root", "1", None).await?;
        other.delete("/stay/root/a", None).await?;
        for expected in ["Created /root/a", "DataChanged /root", "Deleted /root/a"] {
            assert_eq!(told(&mut all).await?, expected);
        }
        for expected in ["ChildrenChanged /root", "DataChanged /root", "ChildrenChanged /root"] {
            assert_eq!(told(&mut one).await?, expected);
        }
    }
    proxy.cut();
    let mut state = client.state();
    timeout(PATIENCE, state.wait_for(|state| matches!(state, SessionState::Disconnected(_))))
        .await??;
    other.set("/stay/root", "missed", None).await?;
    proxy.mend();
    assert_eq!(told(&mut all).await?, "Session ");
    assert_eq!(told(&mut one).await?, "Session ");
    assert_eq!(&client.get("/root").await?.0[..], b"missed");
    other.set("/stay/root", "told", None).await?;
    assert_eq!(told(&mut all).await?, "DataChanged /root");
    assert_eq!(told(&mut one).await?, "DataChanged /root");
    client.forget_watch("/root", WatchMode::Recursive).await?;
    assert!(timeout(PATIENCE, all.next()).await?.is_none());
    let again = client.forget_watch("/root", WatchMode::Recursive).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::NoWatcher));
    other.create("/stay/root/b", [], CreateMode::Persistent).await?;
    assert_eq!(told(&mut one).await?, "ChildrenChanged /root");
    client.close().await;
    assert!(timeout(PATIENCE, one.next()).await?.is_none());
    other.close().await;
    Ok(())
}

async fn reads_come_together_each_by_itself(addr: &str) -> Result<()> {
    let client = connect(addr).await?;
    client.create("/reads", "1", CreateMode::Persistent).await?;
    client.create("/reads/a", [], CreateMode::Persistent).await?;
    let reads = ["/reads", "/nosuch"].map(|path| Read::Get(path.to_owned()));
    let reads = [&reads[..], &[Read::Children("/reads".to_owned())]].concat();
    let results = client.multi_read(&reads).await?;
    assert!(
        matches!(&results[0], Ok(ReadResult::Data(data, stat)) if data == "1" && stat.num_children == 1)
    );
    assert_eq!(results[1], Err(ErrorCode::NoNode));
    assert_eq!(results[2], Ok(ReadResult::Children(vec!["a".to_owned()])));
    assert_eq!(client.multi_read(&[]).await?, []);
    client.close().await;
    Ok(())
}

async fn names_and_counts_are_told(addr: &str) -> Result<()> {
    let outer = connect(addr).await?;
    outer.create("/names", [], CreateMode::Persistent).await?;
    let client = connect(&format!("{addr}/names")).await?;
    for path in ["/a", "/a/b", "/c"] {
        client.create(path, [], CreateMode::Persistent).await?;
    }
    for path in ["/a/e", "/f"] {
        client.create(path, [], CreateMode::Ephemeral).await?;
    }
    assert_eq!(client.all_children_number("/").await?, 5);
    assert_eq!(client.all_children_number("/a").await?, 2);
    assert_eq!(
        client.all_children_number("/none").await.unwrap_err().code(),
        Some(ErrorCode::NoNode)
    );
    let mut all = client.ephemerals("/").await?;
    all.sort();
    assert_eq!(all, ["/a/e", "/f"]);
    assert_eq!(client.ephemerals("/a").await?, ["/a/e"]);
    assert_eq!(outer.ephemerals("/").await?, Vec::<String>::new());
    client.add_auth("digest", b"user:pw").await?;
    let mut users = client.who_am_i().await?;
    users.sort();
    let expected = [("digest", "user"), ("ip", "127.0.0.1")];
    assert_eq!(users, expected.map(|(scheme, user)| (scheme.to_owned(), user.to_owned())));
    let ttl = CreateMode::PersistentSequentialWithTtl { ttl_ms: 60_000 };
    let (path, stat) = client.create_with("/t-", None, &[Acl::OPEN], ttl).await?;
    assert_eq!((path.as_str(), stat.ephemeral_owner.0), ("/t-0000000003", 0));
    let ttl = CreateMode::PersistentWithTtl { ttl_ms: 0 };
    let refused = client.create("/t", [], ttl).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::BadArguments));
    let results = client.multi(&[Op::create("/m", "", CreateMode::Container)]).await?;
    assert_eq!(results, [OpResult::Created { path: "/m".to_owned() }]);
    client.close().await;
    outer.close().await;
    Ok(())
}
