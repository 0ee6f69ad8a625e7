//! Where the servers are and how long the session lives without us.

use std::time::Duration;

use elkfk_wire::jute::{InvalidPath, SessionId, check_path};

/// Kafka's default of `zookeeper.session.timeout.ms`.
pub const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(18);

/// The largest reply we take, ZooKeeper's default of `jute.maxbuffer` in its clients.
pub const DEFAULT_REPLY_BYTES_MAX: usize = 4 << 20;

const DEFAULT_PORT: u16 = 2181;

/// What names a session to its servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    pub session: SessionId,
    pub password: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Config {
    /// `host:port` each. Tried in a random order, so that clients spread over an ensemble.
    pub servers: Vec<String>,
    /// Put before every path: `/kafka`, or empty. It must exist, as in ZooKeeper.
    pub chroot: String,
    /// Asked for; the servers may grant less or more.
    pub session_timeout: Duration,
    /// How long [`Client::connect`](crate::Client::connect) waits for the first connection.
    pub connect_timeout: Duration,
    /// Shown to each server: `("digest", "user:password")`.
    pub auth: Vec<(String, Vec<u8>)>,
    pub reply_bytes_max: usize,
    /// A session to go on with instead of a new one.
    pub resume: Option<Credentials>,
}

/// Why a `zookeeper.connect` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectStringError {
    #[error("no server in {0:?}; give host:port,host:port/chroot")]
    NoServer(String),
    #[error("port of {0:?} is not a number from 1 to 65535")]
    Port(String),
    #[error("chroot {path:?}: {source}")]
    Chroot { path: String, source: InvalidPath },
}

impl Config {
    /// Reads Kafka's `zookeeper.connect`: `host:port,host:port/chroot`; a port left out is 2181.
    pub fn parse(connect: &str) -> Result<Self, ConnectStringError> {
        let (list, chroot) = match connect.find('/') {
            Some(slash) => connect.split_at(slash),
            None => (connect, ""),
        };
        let chroot = if chroot == "/" { "" } else { chroot };
        if !chroot.is_empty() {
            check_path(chroot)
                .map_err(|source| ConnectStringError::Chroot { path: chroot.to_owned(), source })?;
        }
        let mut servers = Vec::new();
        for server in list.split(',').map(str::trim).filter(|server| !server.is_empty()) {
            servers.push(with_port(server)?);
        }
        if servers.is_empty() {
            return Err(ConnectStringError::NoServer(connect.to_owned()));
        }
        Ok(Self {
            servers,
            chroot: chroot.to_owned(),
            session_timeout: DEFAULT_SESSION_TIMEOUT,
            connect_timeout: DEFAULT_SESSION_TIMEOUT,
            auth: Vec::new(),
            reply_bytes_max: DEFAULT_REPLY_BYTES_MAX,
            resume: None,
        })
    }

    /// The same with another session timeout, and as long to connect.
    pub fn with_session_timeout(mut self, timeout: Duration) -> Self {
        self.session_timeout = timeout;
        self.connect_timeout = timeout;
        self
    }
}

fn with_port(server: &str) -> Result<String, ConnectStringError> {
    // An IPv6 address stands in brackets, so a colon after them is the port's.
    let after_host = server.rfind(']').map_or(0, |bracket| bracket + 1);
    match server[after_host..].split_once(':') {
        None => Ok(format!("{server}:{DEFAULT_PORT}")),
        Some((_, port)) => match port.parse::<u16>() {
            Ok(port) if port > 0 => Ok(server.to_owned()),
            _ => Err(ConnectStringError::Port(server.to_owned())),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_strings_are_kafkas() {
        let check = |text, servers: &[&str], chroot| {
            let config = Config::parse(text).unwrap();
            assert_eq!(config.servers, servers, "{text}");
            assert_eq!(config.chroot, chroot, "{text}");
        };
        check("localhost:2181", &["localhost:2181"], "");
        check("a:1, b:2 ,c", &["a:1", "b:2", "c:2181"], "");
        check("a:1/kafka/one", &["a:1"], "/kafka/one");
        check("[::1]:2182/", &["[::1]:2182"], "");
        check("[::1]", &["[::1]:2181"], "");
        for text in ["", ",", "/kafka", "a:b", "a:0", "a:1/kafka/"] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }
}
