//! Every four-letter word to our coordinator and to a real ZooKeeper 3.5.7 after the same requests,
//! compared to the letter but for what differs between any two servers.

#[path = "coordinator_process/mod.rs"]
mod coordinator_process;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Result;
use coordinator_process::Coordinator;
use elkfk_coordinator_client::{Client, Config, CreateMode};
use elkfk_tests::peers::{self, Peer};

fn say(addr: SocketAddr, word: &[u8]) -> String {
    let mut socket = TcpStream::connect(addr).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.write_all(word).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// What every server has of its own, by what stands before it and what ends it.
const OWN: [(&str, &str); 28] = [
    ("3.5.7-", "\n"),
    ("/127.0.0.1:", "[ \n"),
    ("0x", "\n:, )\t"),
    ("est=", ","),
    ("lresp=", ","),
    ("llat=", ","),
    ("minlat=", ","),
    ("avglat=", ","),
    ("maxlat=", ")"),
    ("expire at ", "\n"),
    // Of steps in time, with those that are over and empty: ZooKeeper removes them when it passes.
    ("Sets (", "/"),
    ("Latency min/avg/max: ", "\n"),
    ("zk_avg_latency\t", "\n"),
    ("zk_max_latency\t", "\n"),
    ("zk_min_latency\t", "\n"),
    ("zk_open_file_descriptor_count\t", "\n"),
    ("zk_max_file_descriptor_count\t", "\n"),
    ("clientPort=", "\n"),
    ("dataDir=", "\n"),
    ("dataLogDir=", "\n"),
    ("dataDirSize=", "\n"),
    ("dataLogSize=", "\n"),
    ("datadir_size: ", "\n"),
    ("logdir_size: ", "\n"),
    ("host.name=", "\n"),
    ("user.dir=", "\n"),
    ("user.home=", "\n"),
    ("user.name=", "\n"),
];

/// The text with a star for each of these, and without the lines about a JVM.
fn comparable(text: &str) -> String {
    let mut text = text
        .split_inclusive('\n')
        .filter(|line| {
            !["java.", "os.memory.", "0 expire at "].iter().any(|jvm| line.starts_with(jvm))
        })
        .collect::<String>();
    for (before, ends) in OWN {
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find(before) {
            let (start, found) = rest.split_at(at + before.len());
            out.push_str(start);
            out.push('*');
            rest = found.find(|c| ends.contains(c)).map_or("", |end| &found[end..]);
        }
        text = out + rest;
    }
    text
}

/// Connections in which a client has a session, a znode of its own and watches.
async fn use_it(addr: SocketAddr) -> Result<(Client, Vec<elkfk_coordinator_client::Watch>)> {
    let config = Config::parse(&addr.to_string())?.with_session_timeout(Duration::from_secs(40));
    let client = Client::connect(config).await?;
    client.create("/a", "data", CreateMode::Persistent).await?;
    client.create("/a/ünï", "e", CreateMode::Ephemeral).await?;
    client.create("/gone", [], CreateMode::Persistent).await?;
    client.delete("/gone", None).await?;
    client.set("/a", "more", None).await?;
    let mut watches = vec![client.exists_watch("/nope").await?.1];
    watches.push(client.get_watch("/a").await?.2);
    watches.push(client.children_watch("/a").await?.2);
    Ok((client, watches))
}

const WORDS: [&str; 17] = [
    "ruok", "conf", "envi", "isro", "gtmk", "cons", "stat", "srvr", "mntr", "dump", "wchs", "wchc",
    "wchp", "dirs", "srst", "crst", "srvr",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn words_are_zookeepers() {
    if peers::have("words_are_zookeepers", &[Peer::ZooKeeper]) {
        compare().await.unwrap();
    }
}

async fn compare() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let extra = "tickTime=2000\nmaxClientCnxns=0\n4lw.commands.whitelist=*";
    let zookeeper = peers::zookeeper(&dir.path().join("theirs"), extra)?;
    let coordinator = Coordinator::start(&dir.path().join("ours"), "tickTime=2000")?;
    let (theirs, ours) = (zookeeper.addr, coordinator.addr);
    let _theirs = use_it(theirs).await?;
    let _ours = use_it(ours).await?;
    // Whoever waited for it to start has asked words.
    for addr in [theirs, ours] {
        say(addr, b"srst");
    }
    let mut differ = Vec::new();
    let both = |word: &[u8]| (comparable(&say(theirs, word)), comparable(&say(ours, word)));
    for word in WORDS {
        let (theirs, ours) = both(word.as_bytes());
        // In a table of hashes they stand in any order.
        let lines = |text: &str| {
            let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
            if ["cons", "stat", "dump", "wchc", "wchp"].contains(&word) {
                lines.sort();
            }
            lines
        };
        if lines(&theirs) != lines(&ours) || theirs.len() != ours.len() {
            differ.push(format!("=== {word}: ZooKeeper says\n{theirs}--- and we\n{ours}"));
        }
    }
    // The one word with an argument, and what it set.
    for mask in [5i64, 306, -1] {
        let word = [b"stmk".as_slice(), &mask.to_be_bytes()].concat();
        let (theirs, ours) = both(&word);
        assert_eq!((ours.as_str(), &theirs), (mask.to_string().as_str(), &ours));
        assert_eq!(say(ours_of(&coordinator), b"gtmk"), mask.to_string());
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
    Ok(())
}

fn ours_of(coordinator: &Coordinator) -> SocketAddr {
    coordinator.addr
}

#[test]
fn words_that_are_not_allowed_are_refused_as_zookeeper_does() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(dir.path(), "4lw.commands.whitelist=ruok, stmk").unwrap();
    assert_eq!(say(coordinator.addr, b"ruok"), "imok");
    let refused = "mntr is not executed because it is not in the whitelist.\n";
    assert_eq!(say(coordinator.addr, b"mntr"), refused);
    assert_eq!(say(coordinator.addr, b"stmk\0\0\0\0\0\0\0\x07"), "7");
}
