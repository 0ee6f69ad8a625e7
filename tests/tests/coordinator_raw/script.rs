//! What is asked, in order.

use std::borrow::Cow;

use anyhow::{Context, Result};
use elkfk_wire::jute::{Acl, CreateKind, Request, Zxid, perms};

use super::coordinator_raw::Scene;

/// The digest of `super:secret`.
pub(crate) const SUPER_DIGEST_OPTION: &str =
    "DigestAuthenticationProvider.superDigest=super:lK75jTNcA+U9vtVEw5vB51mj/w4=";

fn acl(perms: i32, scheme: &'static str, id: &'static str) -> Acl<'static> {
    Acl { perms, scheme: scheme.into(), id: id.into() }
}

fn make(kind: CreateKind, path: &str, data: &str, flags: i32, ttl_ms: i64) -> Request<'static> {
    make_with(kind, path, data, flags, ttl_ms, &[Acl::OPEN])
}

fn make_with(
    kind: CreateKind,
    path: &str,
    data: &str,
    flags: i32,
    ttl_ms: i64,
    acl: &[Acl<'static>],
) -> Request<'static> {
    Request::Create {
        kind,
        path: path.to_owned().into(),
        data: Some(data.as_bytes().to_vec().into()),
        acl: Some(acl.to_vec()),
        flags,
        ttl_ms,
    }
}

fn create(path: &str, data: &str) -> Request<'static> {
    make(CreateKind::Create, path, data, 0, 0)
}

fn ephemeral(path: &str) -> Request<'static> {
    make(CreateKind::Create, path, "", 1, 0)
}

fn delete(path: &str) -> Request<'static> {
    Request::Delete { path: path.to_owned().into(), version: -1 }
}

fn set(path: &str, data: &str) -> Request<'static> {
    let (path, data) = (path.to_owned().into(), Some(data.as_bytes().to_vec().into()));
    Request::SetData { path, data, version: -1 }
}

fn get(path: &str) -> Request<'static> {
    Request::GetData { path: path.to_owned().into(), watch: false }
}

fn watch_data(path: &str) -> Request<'static> {
    Request::GetData { path: path.to_owned().into(), watch: true }
}

fn watch_children(path: &str) -> Request<'static> {
    Request::GetChildren { path: path.to_owned().into(), watch: true }
}

fn exists(path: &str) -> Request<'static> {
    Request::Exists { path: path.to_owned().into(), watch: false }
}

fn children(path: &str) -> Request<'static> {
    Request::GetChildren { path: path.to_owned().into(), watch: false }
}

fn check_watches(path: &str, kind: i32) -> Request<'static> {
    Request::CheckWatches { path: path.to_owned().into(), kind }
}

fn remove_watches(path: &str, kind: i32) -> Request<'static> {
    Request::RemoveWatches { path: path.to_owned().into(), kind }
}

fn add_watch(path: &str, mode: i32) -> Request<'static> {
    Request::AddWatch { path: path.to_owned().into(), mode }
}

fn auth(scheme: &'static str, auth: &'static str) -> Request<'static> {
    Request::Auth { scheme: scheme.into(), auth: Some(auth.as_bytes().into()) }
}

fn paths(paths: &[&'static str]) -> Vec<Cow<'static, str>> {
    paths.iter().map(|path| Cow::Borrowed(*path)).collect()
}

/// Every answer of the server at `addr`, each with what was asked.
pub(crate) fn run(addr: &str, is_new: bool) -> Result<Vec<String>> {
    let mut scene = Scene::start(addr, 3)?;
    let steps = if is_new { of_3_9() } else { of_3_5() };
    let mut told = Vec::new();
    for (number, (at, request)) in steps.iter().enumerate() {
        let context = || format!("step {number}, session {at}: {request:?}");
        let answer = scene.step(*at, request).with_context(context)?;
        told.push(format!("{}: {answer}", context()));
    }
    if is_new {
        return Ok(told);
    }
    // A multi holds neither a multi nor a read; a record may be no record.
    for (op, body) in [
        (14, &[0, 0, 0, 14, 0, 0xff, 0xff, 0xff, 0xff][..]),
        (1, &[0, 0, 0, 9]),
        (4, &[0xff, 0xff, 0xff, 0xff, 0]),
        (5, &[]),
    ] {
        told.push(format!("{op} {body:?}: {}", scene.bytes(0, op, body)?));
    }
    Ok(told)
}

fn of_3_5() -> Vec<(usize, Request<'static>)> {
    use CreateKind::{Container, Create, Create2, Ttl};
    let mut steps = vec![
        // Which operation and which flag make what.
        (0, create("/o", "")),
        (0, make(Create2, "/o/2", "x", 0, 0)),
        (0, make(Create, "/o/as-container", "", 4, 0)),
        (0, exists("/o/as-container")),
        (0, make(Create2, "/o/as-container2", "", 4, 0)),
        (0, make(Container, "/o/c", "x", 4, 0)),
        (0, make(Container, "/o/c-persistent", "", 0, 0)),
        (0, make(Container, "/o/c-sequential", "", 2, 0)),
        (0, make(Container, "/o/c", "", 4, 0)),
        (0, create("/o/c/child", "")),
        (0, make(Create, "/o/flag", "", 7, 0)),
        (0, make(Create, "/o/flag", "", -1, 0)),
        (0, make(Create, "/o/flag", "", 5, 0)),
        (0, make(Create2, "/o/flag", "", 6, 0)),
        (0, make(Ttl, "/o/t", "x", 5, 60_000)),
        (0, exists("/o/t")),
        (0, make(Ttl, "/o/t-", "", 6, (1 << 40) - 1)),
        (0, make(Ttl, "/o/t-", "", 6, 1 << 40)),
        (0, make(Ttl, "/o/t2", "", 5, 0)),
        (0, make(Ttl, "/o/t2", "", 5, -1)),
        (0, make(Ttl, "/o/t2", "", 0, 5)),
        (0, make(Ttl, "/o/t2", "", 1, 5)),
        (0, create("/o/t/child", "")),
        (0, create("/o/e", "")),
        (0, ephemeral("/o/e/e")),
        (0, make(Ttl, "/o/e/e/x", "", 5, 60_000)),
        (0, children("/o")),
        // Every kind of a multi, whole and refused.
        (
            0,
            Request::Multi(vec![
                create("/o/m", ""),
                make(Container, "/o/m/c", "", 4, 0),
                make(Ttl, "/o/m/t", "", 5, 60_000),
                make(Create, "/o/m/s-", "", 3, 0),
                set("/o/m", "12"),
                Request::Check { path: "/o/m".into(), version: 1 },
                delete("/o/m/c"),
            ]),
        ),
        (0, Request::Multi(vec![create("/o/n", ""), delete("/nosuch"), create("/o/n2", "")])),
        (0, Request::Multi(vec![make(Ttl, "/o/n", "", 5, 0), create("/o/n", "")])),
        (0, Request::Multi(vec![Request::Check { path: "/o".into(), version: 9 }])),
        (0, Request::Multi(vec![])),
        (0, Request::Multi(vec![create("/o/bad/", "")])),
    ];
    // Paths that are none, for every operation.
    for path in
        ["", "a", "/o/", "//o", "/o//x", "/o/./x", "/o/../o", "/o\0", "/o\u{1}", "/\u{1f600}"]
    {
        // The empty path is the root to some of a real server's operations.
        if !path.is_empty() {
            steps.push((0, exists(path)));
            steps.push((0, get(path)));
            steps.push((0, children(path)));
            steps.push((0, Request::GetAcl { path: path.into() }));
            steps.push((0, set(path, "")));
            let acl = Some(vec![Acl::OPEN]);
            steps.push((0, Request::SetAcl { path: path.into(), acl, version: -1 }));
        }
        steps.push((0, create(path, "")));
        steps.push((0, delete(path)));
    }
    for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
        steps.push((0, get(path)));
        steps.push((0, Request::GetAcl { path: path.into() }));
        steps.push((0, delete(path)));
        steps.push((0, create(path, "")));
    }
    steps.extend([
        (0, set("/zookeeper/config", "x")),
        // Watches and their removal.
        (0, create("/w", "")),
        (1, watch_data("/w")),
        (1, watch_children("/w")),
        (1, check_watches("/w", 1)),
        (1, check_watches("/w", 2)),
        (1, check_watches("/w", 3)),
        (1, check_watches("/w", 9)),
        (1, check_watches("/nosuch", 3)),
        (1, remove_watches("/w", 1)),
        (1, remove_watches("/w", 1)),
        (0, create("/w/x", "")),
        (0, set("/w", "1")),
        (1, watch_data("/w")),
        (1, watch_children("/w")),
        (1, remove_watches("/w", 3)),
        (1, remove_watches("/w", 3)),
        (1, remove_watches("/w", 0)),
        (1, Request::Exists { path: "/w/none".into(), watch: true }),
        (2, watch_children("/w/x")),
        (2, watch_data("/w/x")),
        (2, watch_children("/w")),
        (0, Request::Multi(vec![create("/w/none", ""), delete("/w/x"), set("/w/none", "2")])),
        (
            1,
            Request::SetWatches {
                relative_zxid: Zxid(1),
                data: paths(&["/w", "/nosuch"]),
                exist: paths(&["/w", "/nosuch"]),
                child: paths(&["/w", "/nosuch"]),
            },
        ),
        (
            1,
            Request::SetWatches {
                relative_zxid: Zxid(i64::MAX),
                data: paths(&["/w"]),
                exist: paths(&["/w/later"]),
                child: paths(&["/w"]),
            },
        ),
        (0, create("/w/later", "")),
        (0, set("/w", "3")),
        // Who may do what.
        (0, auth("digest", "user:pw")),
        (0, make_with(Create, "/p", "mine", 0, 0, &[Acl::CREATOR])),
        (0, Request::GetAcl { path: "/p".into() }),
        (1, get("/p")),
        (1, Request::GetAcl { path: "/p".into() }),
        (1, exists("/p")),
        (
            0,
            make_with(
                Create,
                "/p/r",
                "",
                0,
                0,
                &[acl(perms::READ, "world", "anyone"), Acl::CREATOR],
            ),
        ),
        (1, Request::GetAcl { path: "/p/r".into() }),
        (1, auth("ip", "")),
        (1, Request::SetAcl { path: "/p".into(), acl: Some(vec![Acl::CREATOR]), version: -1 }),
        (1, auth("digest", "super:wrong")),
        (1, get("/p")),
        (1, auth("digest", "super:secret")),
        (1, get("/p")),
        (1, Request::GetAcl { path: "/p".into() }),
        (1, create("/p/by-super", "")),
        (1, Request::SetAcl { path: "/p/r".into(), acl: Some(vec![Acl::CREATOR]), version: 0 }),
        (1, Request::GetAcl { path: "/p/r".into() }),
        (1, set("/zookeeper/config", "by super")),
        (1, delete("/p/r")),
        (0, make_with(Create, "/p/bad", "", 0, 0, &[acl(31, "super", "")])),
        (0, Request::SetAcl { path: "/p".into(), acl: Some(vec![]), version: -1 }),
        (0, Request::SetAcl { path: "/p".into(), acl: Some(vec![Acl::OPEN]), version: 7 }),
        // Quotas, as 3.5 counts them.
        (0, create("/q", "123")),
        (0, create("/q/a", "45")),
        (0, create("/zookeeper/quota/q", "")),
        (0, create("/zookeeper/quota/q/zookeeper_limits", "count=3,bytes=5")),
        (0, create("/zookeeper/quota/q/zookeeper_stats", "count=0,bytes=0")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, create("/q/b", "6")),
        (0, ephemeral("/q/b/e")),
        (0, create("/qq", "outside")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, set("/q/a", "")),
        (0, delete("/q/b/e")),
        (0, Request::Multi(vec![create("/q/m", "1"), set("/q", "1234567")])),
        (0, Request::Multi(vec![delete("/q/m"), delete("/nosuch")])),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, create("/zookeeper/quota/q/a", "")),
        (0, create("/zookeeper/quota/q/a/zookeeper_limits", "count=1,bytes=-1")),
        (0, create("/zookeeper/quota/q/a/zookeeper_stats", "count=0,bytes=0")),
        (0, create("/q/a/deep", "12")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, get("/zookeeper/quota/q/a/zookeeper_stats")),
        (0, delete("/zookeeper/quota/q/zookeeper_limits")),
        (0, create("/q/uncounted", "12")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, Request::Reconfig { joining: None, leaving: None, members: None, config_version: -1 }),
        (0, Request::Sasl { token: Some(b"token"[..].into()) }),
    ]);
    steps
}

fn of_3_9() -> Vec<(usize, Request<'static>)> {
    use CreateKind::{Container, Create, Create2, Ttl};
    let private = [acl(perms::ALL, "digest", "user:2Om+GBbT2q/tS6pdvACZbbm7/1A=")];
    vec![
        // Persistent watches.
        (0, create("/w", "")),
        (1, add_watch("/w", 0)),
        (2, add_watch("/w", 1)),
        (1, add_watch("/w", 7)),
        (0, set("/w", "1")),
        (0, create("/w/a", "")),
        (0, create("/w/a/b", "")),
        (0, set("/w/a/b", "2")),
        (0, delete("/w/a/b")),
        (0, set("/w", "3")),
        (1, check_watches("/w", 4)),
        (1, check_watches("/w", 5)),
        (1, check_watches("/w", 1)),
        (1, check_watches("/w", 2)),
        (1, check_watches("/w", 3)),
        (2, check_watches("/w", 4)),
        (2, check_watches("/w", 5)),
        // A plain watch beside a persistent one is told once, and used up.
        (1, watch_data("/w")),
        (2, watch_data("/w/a")),
        (2, watch_children("/w/a")),
        (0, set("/w", "4")),
        (0, set("/w/a", "5")),
        (1, check_watches("/w", 2)),
        (0, create("/w/a/c", "")),
        (0, Request::Multi(vec![delete("/w/a/c"), delete("/w/a"), create("/w/z", "")])),
        (1, remove_watches("/w", 2)),
        (1, remove_watches("/w", 4)),
        (1, remove_watches("/w", 4)),
        (0, set("/w", "6")),
        (2, remove_watches("/w", 3)),
        (0, set("/w", "7")),
        (1, add_watch("/later", 0)),
        (2, add_watch("/", 1)),
        (0, create("/later", "")),
        (0, create("/later/x", "")),
        (0, delete("/later/x")),
        (0, delete("/later")),
        (2, remove_watches("/", 5)),
        (1, remove_watches("/later", 3)),
        (
            1,
            Request::SetWatches2 {
                relative_zxid: Zxid(1),
                data: paths(&["/w"]),
                exist: paths(&["/nosuch"]),
                child: paths(&[]),
                persistent: paths(&["/w", "/nosuch"]),
                persistent_recursive: paths(&["/w"]),
            },
        ),
        (0, create("/nosuch", "")),
        (0, create("/w/n", "")),
        (1, remove_watches("/w", 3)),
        (1, remove_watches("/nosuch", 3)),
        // Who may not read is told nothing by a persistent watch.
        (2, add_watch("/p", 1)),
        (0, auth("digest", "user:pw")),
        (0, make_with(Create, "/p", "", 0, 0, &private)),
        (0, make_with(Create, "/p/open", "", 0, 0, &[Acl::OPEN])),
        (0, set("/p", "1")),
        (0, set("/p/open", "2")),
        (2, auth("digest", "user:pw")),
        (0, set("/p", "3")),
        (2, remove_watches("/p", 3)),
        // Several reads at once, each by itself.
        (
            1,
            Request::MultiRead(vec![
                get("/w"),
                get("/gone"),
                children("/w"),
                get("/p"),
                watch_data("/w/n"),
                watch_children("/w"),
            ]),
        ),
        (0, set("/w/n", "watched")),
        (0, create("/w/o", "")),
        (1, Request::MultiRead(vec![])),
        (1, Request::MultiRead(vec![get("/bad/"), get("bad")])),
        // Counts and names.
        (0, Request::GetAllChildrenNumber { path: "/w".into() }),
        (0, Request::GetAllChildrenNumber { path: "/".into() }),
        (0, Request::GetAllChildrenNumber { path: "/w/n".into() }),
        (0, Request::GetAllChildrenNumber { path: "/gone".into() }),
        (1, Request::GetAllChildrenNumber { path: "/p".into() }),
        (0, ephemeral("/w/e1")),
        (0, ephemeral("/w/e2")),
        (0, ephemeral("/we")),
        (1, ephemeral("/w/other")),
        (0, Request::GetEphemerals { prefix: "/".into() }),
        (0, Request::GetEphemerals { prefix: "".into() }),
        (0, Request::GetEphemerals { prefix: "/w".into() }),
        (0, Request::GetEphemerals { prefix: "/w/".into() }),
        (0, Request::GetEphemerals { prefix: "/w/e1".into() }),
        (0, Request::GetEphemerals { prefix: "/none".into() }),
        (2, Request::GetEphemerals { prefix: "/".into() }),
        (0, Request::WhoAmI),
        (1, Request::WhoAmI),
        (1, auth("digest", "super:secret")),
        (1, auth("digest", "a:b")),
        (1, Request::WhoAmI),
        (1, get("/p")),
        // create2 and its kin in a multi; times to live.
        (
            0,
            Request::Multi(vec![
                make(Create2, "/m", "", 0, 0),
                make(Create2, "/m/s-", "x", 2, 0),
                make(Container, "/m/c", "", 4, 0),
                make(Ttl, "/m/t", "", 5, 60_000),
                make(Ttl, "/m/t-", "", 6, 60_000),
                create("/m/t/child", ""),
            ]),
        ),
        (0, Request::Multi(vec![make(Create2, "/m", "", 0, 0), create("/m2", "")])),
        (0, make(Create, "/m/flag", "", 5, 0)),
        (0, make(Ttl, "/m/t2", "", 5, 0)),
        (0, make(Ttl, "/m/t2", "", 0, 5)),
        (0, make(Container, "/m/c2", "", 0, 0)),
        (0, make(Create, "/m/c3", "", 4, 0)),
        // Quotas that refuse.
        (0, create("/q", "123")),
        (0, create("/zookeeper/quota/q", "")),
        (
            0,
            create(
                "/zookeeper/quota/q/zookeeper_limits",
                "count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=3",
            ),
        ),
        (0, create("/zookeeper/quota/q/zookeeper_stats", "count=0,bytes=0")),
        (0, create("/q/a", "4567")),
        (0, create("/q/b", "8901")),
        (0, create("/q/b", "890")),
        (0, create("/q/c", "")),
        (0, set("/q/b", "1234")),
        (0, set("/q/b", "12")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, Request::Multi(vec![delete("/q/a"), create("/q/d", "12345678901")])),
        (0, Request::Multi(vec![create("/q/d", "1234567890"), set("/q", "")])),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, delete("/q/a")),
        (0, create("/q/d", "1234")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, set("/zookeeper/quota/q/zookeeper_limits", "count=1,bytes=1")),
        (0, create("/q/soft", "soft limits only warn")),
        (0, get("/zookeeper/quota/q/zookeeper_stats")),
        (0, Request::Reconfig { joining: None, leaving: None, members: None, config_version: -1 }),
        (0, Request::Sasl { token: Some(b"token"[..].into()) }),
    ]
}
