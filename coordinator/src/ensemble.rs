//! Who is in the ensemble: the lines `server.N=…` of zoo.cfg.

use std::fmt;

use crate::consensus::Members;

/// One server, as every server's zoo.cfg lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub id: u64,
    pub host: String,
    /// Where the other servers find it.
    pub peer_port: u16,
    /// ZooKeeper's port for elections. Here they go over the peer port too, so nothing listens.
    pub election_port: u16,
    /// Hears everything, has no vote.
    pub is_observer: bool,
    /// Where its clients find it, if the line says so: `host:port` or a port.
    pub client: Option<String>,
}

impl Server {
    /// Reads what follows `server.N=`.
    pub(crate) fn parse(id: u64, text: &str) -> Result<Self, String> {
        let (address, client) = match text.split_once(';') {
            Some((address, client)) => (address, Some(client.trim())),
            None => (text, None),
        };
        let (host, rest) = split_host(address.trim())
            .ok_or("give host:peerPort:electionPort, such as zoo1:2888:3888")?;
        let mut parts = rest.split(':');
        let mut port = |what: &str| {
            let part = parts.next().unwrap_or_default().trim();
            match part.parse::<u16>() {
                Ok(port) if port > 0 => Ok(port),
                _ => Err(format!(
                    "{part:?} is no {what}; give host:peerPort:electionPort, such as zoo1:2888:3888"
                )),
            }
        };
        let (peer_port, election_port) = (port("peer port")?, port("election port")?);
        let is_observer = match parts.next().map(str::trim) {
            None | Some("participant") => false,
            Some("observer") => true,
            Some(role) => return Err(format!("{role:?} is no role; give participant or observer")),
        };
        if let Some(more) = parts.next() {
            return Err(format!("{more:?} follows the role; remove it"));
        }
        if let Some(client) = client {
            let port = client.rsplit(':').next().unwrap_or_default();
            if port.parse::<u16>().is_err() {
                return Err(format!(
                    "{client:?} after the semicolon is no client port; give a port, or host:port"
                ));
            }
        }
        let client = client.map(str::to_owned);
        Ok(Self { id, host: host.to_owned(), peer_port, election_port, is_observer, client })
    }
}

impl fmt::Display for Server {
    /// As `/zookeeper/config` has it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = if self.is_observer { "observer" } else { "participant" };
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        write!(f, "server.{}={host}:{}:{}:{role}", self.id, self.peer_port, self.election_port)?;
        match &self.client {
            Some(client) if client.contains(':') => write!(f, ";{client}"),
            Some(port) => write!(f, ";0.0.0.0:{port}"),
            None => Ok(()),
        }
    }
}

/// Host and what follows its colon; an IPv6 address stands in brackets.
fn split_host(text: &str) -> Option<(&str, &str)> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':')?)
        }
        None => text.split_once(':')?,
    };
    (!host.is_empty()).then_some((host, rest))
}

pub(crate) fn members(servers: &[Server], own: u64) -> Members {
    if servers.len() < 2 {
        return Members { voters: vec![own], learners: Vec::new() };
    }
    let those = |is_observer| {
        let chosen = servers.iter().filter(|server| server.is_observer == is_observer);
        chosen.map(|server| server.id).collect()
    };
    Members { voters: those(false), learners: those(true) }
}

/// `servers`, and those of `known` that are still members: one that is to leave is a member until
/// the agreement has followed, and may even lead until then.
pub(crate) fn within_reach(
    mut servers: Vec<Server>,
    known: &[Server],
    members: &Members,
) -> Vec<Server> {
    for server in known {
        let is_member =
            members.voters.contains(&server.id) || members.learners.contains(&server.id);
        if is_member && servers.iter().all(|other| other.id != server.id) {
            servers.push(server.clone());
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_zoo_cfg_are_read_and_written() {
        for (text, written) in [
            ("zoo1:2888:3888", "zoo1:2888:3888:participant"),
            ("10.0.0.1:2888:3888:observer;2181", "10.0.0.1:2888:3888:observer;0.0.0.0:2181"),
            (
                "[::1]:2888:3888:participant;1.2.3.4:2181",
                "[::1]:2888:3888:participant;1.2.3.4:2181",
            ),
        ] {
            let server = Server::parse(3, text).unwrap();
            assert_eq!(server.to_string(), format!("server.3={written}"));
            let read = Server::parse(3, written).unwrap();
            assert_eq!(read.to_string(), server.to_string());
        }
    }

    #[test]
    fn a_line_that_is_none_says_why() {
        for (text, why) in [
            ("zoo1", "give host:peerPort:electionPort"),
            (":1:2", "give host:peerPort:electionPort"),
            ("zoo1:2888", "is no election port"),
            ("zoo1:x:3888", "\"x\" is no peer port"),
            ("zoo1:0:3888", "\"0\" is no peer port"),
            ("zoo1:1:2:boss", "\"boss\" is no role"),
            ("zoo1:1:2:observer:4", "\"4\" follows the role"),
            ("zoo1:1:2;a", "is no client port"),
        ] {
            let error = Server::parse(1, text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
