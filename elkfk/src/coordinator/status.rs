//! `elkfk coordinator status`: what `zkServer.sh status` says, of one server or of several.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::args::Status;
use crate::say::sayln;

const TIMEOUT: Duration = Duration::from_secs(5);
/// An answer to srvr has some 300 bytes.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
const DEFAULT_PORT: u16 = 2181;

/// What one server said.
#[derive(Debug, PartialEq, Eq)]
struct Server {
    mode: String,
    version: String,
    zxid: String,
    connections: String,
    znodes: String,
}

/// Whether every server serves; prints a line for each.
pub(crate) async fn run(args: Status) -> Result<bool> {
    let servers = match &args.config {
        Some(file) => vec![of_file(file)?],
        None => {
            elkfk_coordinator_client::Config::parse(&args.zookeeper)
                .with_context(|| format!("--zookeeper {}", args.zookeeper))?
                .servers
        }
    };
    let mut asked = tokio::task::JoinSet::new();
    for (at, server) in servers.iter().enumerate() {
        let server = server.clone();
        asked.spawn(async move { (at, ask(&server).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    let mut all_serve = true;
    let width = servers.iter().map(String::len).max().unwrap_or(0);
    for (at, answer) in answers {
        let server = &servers[at];
        all_serve &= answer.is_ok();
        if args.json {
            sayln!("{}", as_json(server, &answer));
            continue;
        }
        match (&answer, servers.len()) {
            (Ok(one), 1) => sayln!("Mode: {}", one.mode),
            (Err(error), 1) => {
                sayln!("Error contacting service. It is probably not running.\n{server}: {error:#}")
            }
            (Ok(one), _) => sayln!(
                "{server:<width$}  Mode: {:<10}  Zxid: {}  Connections: {}  Node count: {}",
                one.mode,
                one.zxid,
                one.connections,
                one.znodes
            ),
            (Err(error), _) => sayln!("{server:<width$}  Error: {error:#}"),
        }
    }
    Ok(all_serve)
}

fn as_json(server: &str, answer: &Result<Server>) -> serde_json::Value {
    match answer {
        Ok(one) => json!({
            "server": server, "mode": one.mode, "version": one.version, "zxid": one.zxid,
            "connections": one.connections.parse::<u64>().ok(),
            "znodes": one.znodes.parse::<u64>().ok(),
        }),
        Err(error) => json!({ "server": server, "error": format!("{error:#}") }),
    }
}

async fn ask(server: &str) -> Result<Server> {
    let exchange = async {
        let mut socket = TcpStream::connect(server).await.context("connect")?;
        socket.write_all(b"srvr").await.context("ask")?;
        let mut answer = Vec::new();
        socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.context("read the answer")?;
        Ok::<_, anyhow::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let text = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("no answer within {TIMEOUT:?}"))??;
    read(&text)
}

fn read(text: &str) -> Result<Server> {
    let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let Some(mode) = line("Mode:") else {
        match text.trim() {
            "" => bail!("it closed the connection; a TLS port, or no ZooKeeper?"),
            said if said.contains("not in the whitelist") => {
                bail!("it does not answer srvr; add srvr to its 4lw.commands.whitelist")
            }
            said if said.contains("not currently serving") => {
                bail!(
                    "it runs and does not serve: it knows no leader; is a majority of its ensemble up, and is it still a member?"
                )
            }
            said => bail!("it is no ZooKeeper: {:?}", said.lines().next().unwrap_or_default()),
        }
    };
    let get = |name: &str| line(name).unwrap_or_default().to_owned();
    Ok(Server {
        mode: mode.to_owned(),
        version: get("Zookeeper version:"),
        zxid: get("Zxid:"),
        connections: get("Connections:"),
        znodes: get("Node count:"),
    })
}

/// Where a zoo.cfg has its server listen. Only that is read, so that any ZooKeeper's file will do.
fn of_file(file: &Path) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let value = |key: &str| {
        text.lines().rev().find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
    if let Some(port) = value("clientPort") {
        let host = value("clientPortAddress").filter(|host| host != "0.0.0.0" && host != "::");
        return at(host.as_deref().unwrap_or("127.0.0.1"), &port, file);
    }
    // Or behind the semicolon of its own server.N.
    let id =
        value("dataDir").and_then(|dir| std::fs::read_to_string(Path::new(&dir).join("myid")).ok());
    let own = id.and_then(|id| value(&format!("server.{}", id.trim())));
    match own.as_deref().and_then(|own| own.split_once(';')) {
        Some((_, client)) => match client.rsplit_once(':') {
            Some((host, port)) => at(host, port, file),
            None => at("127.0.0.1", client, file),
        },
        None => Ok(format!("127.0.0.1:{DEFAULT_PORT}")),
    }
}

fn at(host: &str, port: &str, file: &Path) -> Result<String> {
    let port: u16 = port
        .parse()
        .with_context(|| format!("{}: clientPort={port} is no port", file.display()))?;
    let host = if host == "0.0.0.0" { "127.0.0.1" } else { host };
    Ok(if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_that_of_a_zoo_cfg() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("zoo.cfg");
        let check = |text: &str, wanted: &str| {
            std::fs::write(&file, text).unwrap();
            assert_eq!(of_file(&file).unwrap(), wanted, "{text}");
        };
        check("clientPort=2182\n# clientPort=9\nsecureClientPort=1\n", "127.0.0.1:2182");
        check("clientPort = 2182\nclientPortAddress=10.0.0.7\n", "10.0.0.7:2182");
        check("clientPortAddress=0.0.0.0\nclientPort=2182\n", "127.0.0.1:2182");
        check("clientPortAddress=::1\nclientPort=2182\n", "[::1]:2182");
        check("dataDir=/x\n", "127.0.0.1:2181");
        std::fs::write(dir.path().join("myid"), "2\n").unwrap();
        let data = dir.path().display();
        check(
            &format!("dataDir={data}\nserver.1=a:1:2;7\nserver.2=b:1:2:participant;0.0.0.0:2183\n"),
            "127.0.0.1:2183",
        );
        std::fs::write(&file, "clientPort=here\n").unwrap();
        assert!(of_file(&file).is_err());
    }

    #[test]
    fn an_answer_that_is_none_says_why() {
        let check = |text: &str, wanted: &str| {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        check("", "closed the connection");
        check(
            "srvr is not executed because it is not in the whitelist.\n",
            "4lw.commands.whitelist",
        );
        check("This ZooKeeper instance is not currently serving requests\n", "no leader");
        check("HTTP/1.1 400 Bad Request\r\n", "no ZooKeeper");
        let one =
            read("Zookeeper version: 3.5.7-x\nZxid: 0x5\nMode: leader\nNode count: 5\n").unwrap();
        assert_eq!((one.mode.as_str(), one.zxid.as_str()), ("leader", "0x5"));
    }
}
