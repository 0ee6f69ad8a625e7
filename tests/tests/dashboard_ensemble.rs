//! The ensemble page on a real ZooKeeper 3.5.7 of three voters and an observer: what each server is and says,
//! who leads whom, elections as they come, and the znode tree through the loss of a server.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use elkfk_tests::free_port;
use elkfk_tests::line::{Index, TestDir};
use elkfk_tests::peers::{self, Peer, Server};
use serde_json::Value;

const LONG: Duration = Duration::from_secs(120);

/// Servers 1 to 3 vote, 4 observes; 3 answers to `srvr` only, as a ZooKeeper does that nobody told otherwise.
fn start(dir: &Path) -> Vec<Server> {
    let ports: Vec<_> = (1..=4).map(|_| (free_port(), free_port())).collect();
    let lines: String = (1..)
        .zip(&ports)
        .map(|(n, (peer, election))| {
            let role = if n == 4 { ":observer" } else { "" };
            format!("server.{n}=127.0.0.1:{peer}:{election}{role}\n")
        })
        .collect();
    let server = |n: usize| {
        let dir = dir.join(n.to_string());
        std::fs::create_dir_all(dir.join("data")).unwrap();
        std::fs::write(dir.join("data/myid"), n.to_string()).unwrap();
        let words = if n == 3 { "" } else { "4lw.commands.whitelist=*\n" };
        let role = if n == 4 { "peerType=observer\n" } else { "" };
        let extra = format!("initLimit=20\nsyncLimit=10\n{words}{role}{lines}");
        peers::zookeeper_starting(&dir, free_port(), &extra).unwrap()
    };
    let mut servers: Vec<_> = (1..=4).map(server).collect();
    for server in &mut servers {
        let addr = server.addr;
        server.process.wait_until(LONG, |_| peers::srvr(addr).contains("Mode:")).unwrap();
    }
    servers
}

struct Page {
    running: elkfk_dashboard::Running,
    index: Index,
}

impl Page {
    async fn start(servers: &[Server]) -> Self {
        let addresses: Vec<_> = servers.iter().map(|server| server.addr.to_string()).collect();
        let config = elkfk_dashboard::Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            bootstrap_servers: "127.0.0.1:1".into(),
            elasticsearch: "http://127.0.0.1:1".into(),
            zookeeper: Some(addresses.join(",")),
            ..elkfk_dashboard::Config::default()
        };
        let running = elkfk_dashboard::start(config).await.unwrap();
        let index = Index::new(&format!("http://{}", running.local_addr()));
        Self { running, index }
    }

    fn until(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let answer = self.index.get(path).unwrap_or_default();
            if is_wanted(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < LONG, "{path} after {LONG:?}: {answer}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn znode(&self, path: &str) -> Value {
        // While a session moves to another server a question may go unanswered.
        let path = format!("/api/v1/ensemble/znode?path={path}");
        self.until(&path, |answer| answer["stat"].is_object())
    }
}

fn modes(answer: &Value) -> Vec<&str> {
    let servers = answer["servers"].as_array().map_or(&[][..], Vec::as_slice);
    servers.iter().map(|server| server["mode"].as_str().unwrap_or("away")).collect()
}

/// The same as the servers say it themselves.
fn modes_of(servers: &[Server]) -> Vec<String> {
    let mode = |server: &Server| {
        let said = peers::srvr(server.addr);
        let mode = said.lines().find_map(|line| line.strip_prefix("Mode: "));
        mode.unwrap_or("away").to_owned()
    };
    servers.iter().map(mode).collect()
}

/// Writes with ZooKeeper's own shell, at one server.
fn zkcli(server: &Server, line: &str) {
    let jars = std::env::var_os("ELKFK_PEERS").map_or_else(
        || {
            let home = std::env::var_os("HOME").unwrap_or_default();
            Path::new(&home).join(".cache/elkfk-peers")
        },
        Into::into,
    );
    let output = Command::new("java")
        .args(["-Xmx64m", "-cp", &format!("{}/zookeeper/libs/*", jars.display())])
        .args(["org.apache.zookeeper.ZooKeeperMain", "-server", &server.addr.to_string()])
        .args(line.split(' '))
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_ensemble_is_shown_as_it_is_through_an_election() {
    let test = "a_real_ensemble_is_shown_as_it_is_through_an_election";
    if !peers::have(test, &[Peer::ZooKeeper]) {
        return;
    }
    let dir = TestDir::new();
    let mut servers = start(&dir.path());
    let page = Page::start(&servers).await;
    zkcli(&servers[0], "create /shop {\"open\":true}");

    let all = page.until("/api/v1/ensemble", |answer| {
        modes(answer).len() == 4 && !modes(answer).contains(&"away")
    });
    assert_eq!(modes(&all), modes_of(&servers));
    assert_eq!(modes(&all)[3], "observer");
    let leader = modes(&all).iter().position(|mode| *mode == "leader").unwrap();
    let leads = format!("{} leads 2 followers", servers[leader].addr);
    let text = all["text"].as_str().unwrap();
    assert!(text.starts_with(&leads) && text.ends_with(" and 1 observer."), "{text}");
    for (server, addr) in all["servers"].as_array().unwrap().iter().zip(&servers) {
        assert_eq!(
            (&server["address"], &server["ok"]),
            (&addr.addr.to_string().into(), &true.into())
        );
        assert_eq!(server["version"], "3.5.7");
        assert!(server["zxid"].as_str().is_some_and(|zxid| zxid.starts_with("0x")), "{server}");
        for name in ["min", "avg", "max"] {
            assert!(server["latency_ms"][name].is_number(), "{name} of {server}");
        }
        for name in ["connections", "outstanding", "znodes"] {
            assert!(server[name].is_number(), "{name} of {server}");
        }
        // The third says nothing but `srvr`.
        let says_all = addr.addr != servers[2].addr;
        assert_eq!(server["watches"].is_number(), says_all, "{server}");
        assert_eq!(server["raw"].as_object().unwrap().is_empty(), !says_all, "{server}");
    }
    if leader != 2 {
        let said = &all["servers"][leader];
        assert_eq!(
            (&said["learners"], &said["synced_followers"]),
            (&3.into(), &2.into()),
            "{said}"
        );
        assert!(text.contains("(2 in sync)"), "{text}");
    }

    // The tree, as ZooKeeper's own shell wrote it.
    let shop = page.znode("/shop");
    assert_eq!((&shop["data"]["json"]["open"], &shop["data"]["bytes"]), (&true.into(), &13.into()));
    assert_eq!((&shop["acl"][0]["id"], &shop["stat"]["version"]), (&"anyone".into(), &0.into()));
    let root = page.znode("/");
    let children = root["children"].as_array().unwrap();
    assert!(children.contains(&"shop".into()) && children.contains(&"zookeeper".into()), "{root}");
    // Sessions are told by those that say so: the third does not.
    assert!(all["sessions"].is_array(), "{all}");

    // The leader is lost: the others elect one of theirs, which the page notes, and the tree is still there.
    let lost = servers[leader].addr;
    servers[leader].process.kill();
    let elected = page.until("/api/v1/ensemble", |answer| {
        let leads = modes(answer).iter().position(|mode| *mode == "leader");
        leads.is_some_and(|at| at != leader)
            && modes(answer).iter().filter(|mode| **mode == "away").count() == 1
            && modes(answer)[3] == "observer"
    });
    let new = modes(&elected).iter().position(|mode| *mode == "leader").unwrap();
    let text = elected["text"].as_str().unwrap();
    assert!(text.starts_with(&format!("{} leads 1 follower", servers[new].addr)), "{text}");
    assert!(text.ends_with("and 1 observer, 1 of 4 servers not serving."), "{text}");
    let away = &elected["servers"][leader];
    assert!(away["why"].as_str().is_some_and(|why| why.contains("refused")), "{away}");
    let noted: Vec<_> = elected["elections"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["text"].as_str().unwrap().to_owned())
        .collect();
    let has = |text: String| noted.contains(&text);
    assert!(
        has(format!("{lost} is leader")) && has(format!("{lost} is away, was leader")),
        "{noted:?}"
    );
    let begins = format!("{} is leader, was ", servers[new].addr);
    assert!(noted.iter().any(|text| text.starts_with(&begins)), "{noted:?}");
    zkcli(&servers[new], "set /shop {\"open\":false}");
    let begun = Instant::now();
    while page.znode("/shop")["data"]["json"]["open"] != false {
        assert!(begun.elapsed() < LONG, "{}", page.znode("/shop"));
    }
    // Without a majority nobody leads.
    servers[new].process.kill();
    let none = page.until("/api/v1/ensemble", |answer| {
        !modes(answer).iter().any(|mode| matches!(*mode, "leader" | "follower"))
    });
    let silent = none["servers"].as_array().unwrap().iter().filter(|one| one["ok"] == false);
    assert!(silent.clone().count() >= 3, "{none}");
    assert!(none["text"].as_str().unwrap().starts_with("No "), "{none}");
    page.running.stop().await;
}
