//! The coordinators, ours or a real ZooKeeper: how each server is, and who was elected when.

mod words;
pub(crate) mod znode;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elkfk_coordinator_client::{Client, Config};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::{Shared, hold, now_ms};
use words::Server;

const EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
/// An answer is not read further; ten thousand connections are some 2 MB of `cons`.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
const ELECTIONS_MAX: usize = 200;
/// Servers of a string; more is a mistake.
const SERVERS_MAX: usize = 32;
const SESSIONS_MAX: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Ensemble {
    addresses: Vec<String>,
    /// What is wrong with the string of addresses.
    why: Option<String>,
    known: Mutex<Known>,
    /// Of those who look at the tree; empty before the first.
    session: tokio::sync::Mutex<Option<Client>>,
}

#[derive(Debug, Default)]
struct Known {
    servers: Vec<Server>,
    elections: VecDeque<(i64, String)>,
    /// Address → mode, as far as it was ever told.
    modes: BTreeMap<String, String>,
}

impl Ensemble {
    pub(crate) fn new(connect: Option<&str>) -> Self {
        let parsed = connect.map(Config::parse);
        let (addresses, why) = match parsed {
            None => {
                (Vec::new(), Some("no coordinator or ZooKeeper is given to look at".to_owned()))
            }
            Some(Ok(config)) => (config.servers.into_iter().take(SERVERS_MAX).collect(), None),
            Some(Err(error)) => (Vec::new(), Some(error.to_string())),
        };
        Self { addresses, why, known: Mutex::default(), session: tokio::sync::Mutex::default() }
    }
}

impl Known {
    /// Takes in a look at all servers and notes who has become what.
    fn step(&mut self, now_ms: i64, servers: Vec<Server>) {
        for server in &servers {
            let mode = match (&server.mode, &server.why) {
                (Some(mode), None) => mode.as_str(),
                _ => "away",
            };
            let before = self.modes.insert(server.address.clone(), mode.to_owned());
            let text = match (before.as_deref(), mode) {
                (Some(before), _) if before == mode => continue,
                (Some(before), mode) => format!("{} is {mode}, was {before}", server.address),
                (None, "leader") => format!("{} is leader", server.address),
                (None, _) => continue,
            };
            if self.elections.len() == ELECTIONS_MAX {
                self.elections.pop_front();
            }
            self.elections.push_back((now_ms, text));
        }
        self.servers = servers;
    }
}

pub(crate) fn answer(shared: &Shared) -> Value {
    let known = hold(&shared.ensemble.known);
    let servers: Vec<Value> = known.servers.iter().map(Server::json).collect();
    let elections = known.elections.iter().rev();
    let elections: Vec<Value> =
        elections.map(|(at_ms, text)| json!({"at_ms": at_ms, "text": text})).collect();
    let answered: Vec<&Server> =
        known.servers.iter().filter(|server| server.sessions.is_some()).collect();
    let sessions = answered.iter().flat_map(|server| {
        server.sessions.iter().flatten().map(|session| {
            let mut session = session.clone();
            session["server"] = server.address.as_str().into();
            session
        })
    });
    let sessions: Vec<Value> = sessions.take(SESSIONS_MAX).collect();
    json!({
        "servers": servers,
        "text": (!known.servers.is_empty()).then(|| as_a_whole(&known.servers)),
        "elections": elections,
        "sessions": (!answered.is_empty()).then_some(sessions),
        "why": shared.ensemble.why,
    })
}

/// The servers as one, in a sentence: who leads whom, and what is missing.
fn as_a_whole(servers: &[Server]) -> String {
    let has = |mode: &str| {
        let of_it = |server: &&Server| server.why.is_none() && server.mode.as_deref() == Some(mode);
        servers.iter().filter(of_it).collect::<Vec<_>>()
    };
    let count = |number: usize, one: &str| match number {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    };
    let away = servers.iter().filter(|server| server.why.is_some()).count();
    let rest = match away {
        0 => String::new(),
        away => format!(", {} of {} not serving", away, count(servers.len(), "server")),
    };
    let (followers, observers) = (has("follower").len(), has("observer").len());
    let observers = match observers {
        0 => String::new(),
        observers => format!(" and {}", count(observers, "observer")),
    };
    match has("leader")[..] {
        [leader] => {
            let in_sync = match leader.synced_followers {
                Some(synced) => format!(" ({synced} in sync)"),
                None => String::new(),
            };
            let followers = count(followers, "follower");
            format!("{} leads {followers}{in_sync}{observers}{rest}.", leader.address)
        }
        [] if away == servers.len() => "No server serves.".to_owned(),
        [] if servers.len() == 1 && away == 0 => "One server that stands alone.".to_owned(),
        [] => format!("No leader is known{rest}."),
        // Asked one after the other, around an election; a majority follows one of them only.
        [..] => format!("Several say that they lead{rest}: an election is under way."),
    }
}

pub(crate) async fn run(shared: Arc<Shared>) {
    if shared.ensemble.addresses.is_empty() {
        return shared.tasks.stopping().await;
    }
    loop {
        let servers = tokio::select! {
            () = shared.tasks.stopping() => break,
            servers = look(&shared.ensemble.addresses) => servers,
        };
        hold(&shared.ensemble.known).step(now_ms(), servers);
        tokio::select! {
            () = shared.tasks.stopping() => break,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    let session = shared.ensemble.session.lock().await.take();
    if let Some(session) = session {
        let _ = tokio::time::timeout(TIMEOUT, session.close()).await;
    }
}

/// Asks all servers at once; the answers stand in the order of the addresses.
async fn look(addresses: &[String]) -> Vec<Server> {
    let mut asked = JoinSet::new();
    for (at, address) in addresses.iter().cloned().enumerate() {
        asked.spawn(async move { (at, server(&address).await) });
    }
    let mut servers = Vec::new();
    while let Some(answer) = asked.join_next().await {
        servers.extend(answer);
    }
    servers.sort_by_key(|(at, _)| *at);
    servers.into_iter().map(|(_, server)| server).collect()
}

async fn server(address: &str) -> Server {
    let ask = async |word: &str| match tokio::time::timeout(TIMEOUT, say(address, word)).await {
        Ok(Ok(text)) => Ok(text),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer in {} s", TIMEOUT.as_secs())),
    };
    let srvr = match ask("srvr").await {
        Ok(text) => text,
        Err(why) => return Server::away(address, why),
    };
    let mntr = ask("mntr").await.unwrap_or_default();
    let cons = ask("cons").await.unwrap_or_default();
    Server::of(address, &srvr, &mntr, &cons)
}

async fn say(address: &str, word: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    socket.write_all(word.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_are_noted_as_servers_change() {
        let mut known = Known::default();
        let server = |address: &str, mode: &str| Server {
            address: address.into(),
            mode: (mode != "away").then(|| mode.to_owned()),
            why: (mode == "away").then(|| "refused".to_owned()),
            ..Server::default()
        };
        for (at_ms, a, b) in [
            (1, "leader", "follower"),
            (2, "leader", "follower"),
            (3, "away", "leader"),
            (4, "follower", "leader"),
        ] {
            known.step(at_ms, vec![server("a", a), server("b", b)]);
        }
        let texts: Vec<_> = known.elections.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(
            texts,
            [
                "a is leader",
                "a is away, was leader",
                "b is leader, was follower",
                "a is follower, was away"
            ]
        );
    }

    #[test]
    fn the_whole_is_told_in_a_sentence() {
        let servers = |modes: &[&str]| -> Vec<Server> {
            let server = |(n, mode): (usize, &&str)| Server {
                address: format!("zk-{n}:2181"),
                mode: (*mode != "away").then(|| (*mode).to_owned()),
                why: (*mode == "away").then(|| "refused".to_owned()),
                synced_followers: (*mode == "leader").then_some(2),
                ..Server::default()
            };
            modes.iter().enumerate().map(server).collect()
        };
        for (modes, expected) in [
            (&["follower", "leader", "follower"][..], "zk-1:2181 leads 2 followers (2 in sync)."),
            (
                &["leader", "follower", "away", "observer"],
                "zk-0:2181 leads 1 follower (2 in sync) and 1 observer, 1 of 4 servers not serving.",
            ),
            (&["standalone"], "One server that stands alone."),
            (&["away", "follower"], "No leader is known, 1 of 2 servers not serving."),
            (&["away", "away"], "No server serves."),
            (&["leader", "leader"], "Several say that they lead: an election is under way."),
        ] {
            assert_eq!(as_a_whole(&servers(modes)), expected);
        }
    }

    #[test]
    fn a_string_that_is_none_is_told() {
        assert!(Ensemble::new(Some("host:0")).why.is_some());
        assert!(Ensemble::new(None).why.is_some());
        assert_eq!(Ensemble::new(Some("a:1,b/kafka")).addresses, ["a:1", "b:2181"]);
    }
}
