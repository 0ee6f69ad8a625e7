//! What a ZooKeeper says to four-letter words, ours or a real one. Pure.

use serde_json::{Map, Value, json};

/// Sessions of one server that are told.
const SESSIONS_MAX: usize = 500;

/// A server as it last answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// Why nothing of it is known.
    pub(crate) why: Option<String>,
    /// `leader`, `follower`, `standalone`, `observer`
    pub(crate) mode: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) zxid: Option<String>,
    /// Milliseconds: least, mean, most.
    pub(crate) latency_ms: [Option<f64>; 3],
    pub(crate) outstanding: Option<i64>,
    pub(crate) connections: Option<i64>,
    pub(crate) znodes: Option<i64>,
    pub(crate) watches: Option<i64>,
    pub(crate) ephemerals: Option<i64>,
    /// Followers and observers that are connected to it, and followers that are in sync; a leader says so.
    pub(crate) learners: Option<i64>,
    pub(crate) synced_followers: Option<i64>,
    /// `mntr` as it is.
    pub(crate) raw: Map<String, Value>,
    /// `None` where `cons` is not answered.
    pub(crate) sessions: Option<Vec<Value>>,
}

impl Server {
    /// Of the answers to `srvr`, `mntr` and `cons`; a word that is not on its white list says so in words.
    pub(crate) fn of(address: &str, srvr: &str, mntr: &str, cons: &str) -> Self {
        let mut server = Self { address: address.to_owned(), ..Self::default() };
        server.read_srvr(srvr);
        server.read_mntr(mntr);
        if server.mode.is_none() {
            let said = srvr.trim();
            let said: String = said.chars().take(200).collect();
            server.why =
                Some(if said.is_empty() { "it answered with nothing".to_owned() } else { said });
        }
        server.sessions = sessions(cons);
        server
    }

    pub(crate) fn away(address: &str, why: String) -> Self {
        Self { address: address.to_owned(), why: Some(why), ..Self::default() }
    }

    /// Lines such as `Latency min/avg/max: 0/0.5/12`.
    fn read_srvr(&mut self, text: &str) {
        for line in text.lines().take(100) {
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match name.trim() {
                "Zookeeper version" => self.version = Some(version(value)),
                "Latency min/avg/max" => {
                    for (place, number) in self.latency_ms.iter_mut().zip(value.split('/')) {
                        *place = number.parse().ok();
                    }
                }
                "Connections" => self.connections = value.parse().ok(),
                "Outstanding" => self.outstanding = value.parse().ok(),
                "Zxid" => self.zxid = Some(value.to_owned()),
                "Mode" => self.mode = Some(value.to_owned()),
                "Node count" => self.znodes = value.parse().ok(),
                _ => {}
            }
        }
    }

    /// Lines of a name, a tab and a value.
    fn read_mntr(&mut self, text: &str) {
        for line in text.lines().take(1_000) {
            let Some((name, value)) = line.split_once('\t') else { continue };
            let (name, value) = (name.trim(), value.trim());
            let number: Option<i64> = value.parse().ok();
            match name {
                "zk_version" => self.version = Some(version(value)),
                "zk_server_state" => self.mode = Some(value.to_owned()),
                "zk_min_latency" => self.latency_ms[0] = value.parse().ok(),
                "zk_avg_latency" => self.latency_ms[1] = value.parse().ok(),
                "zk_max_latency" => self.latency_ms[2] = value.parse().ok(),
                "zk_outstanding_requests" => self.outstanding = number,
                "zk_num_alive_connections" => self.connections = number,
                "zk_znode_count" => self.znodes = number,
                "zk_watch_count" => self.watches = number,
                "zk_ephemerals_count" => self.ephemerals = number,
                // Until 3.5 observers are counted among the followers; 3.6 has another name for both.
                "zk_followers" | "zk_learners" => self.learners = number,
                "zk_synced_followers" => self.synced_followers = number,
                _ => {}
            }
            self.raw.insert(name.to_owned(), number.map_or_else(|| value.into(), Value::from));
        }
    }

    pub(crate) fn json(&self) -> Value {
        let [min, avg, max] = self.latency_ms;
        json!({
            "address": self.address,
            "ok": self.why.is_none(),
            "why": self.why,
            "mode": self.mode,
            "version": self.version,
            "zxid": self.zxid,
            "latency_ms": {"min": min, "avg": avg, "max": max},
            "outstanding": self.outstanding,
            "connections": self.connections,
            "znodes": self.znodes,
            "watches": self.watches,
            "ephemerals": self.ephemerals,
            "learners": self.learners,
            "synced_followers": self.synced_followers,
            "raw": self.raw,
        })
    }
}

/// `3.5.7-f0fdd52973d3…, built on …` is 3.5.7.
fn version(text: &str) -> String {
    text.split(['-', ',']).next().unwrap_or(text).trim().to_owned()
}

/// Lines such as ` /10.0.0.1:4567[1](queued=0,recved=5,sid=0x100,lop=PING,to=18000,…)`.
fn sessions(text: &str) -> Option<Vec<Value>> {
    let mut sessions = Vec::new();
    let mut is_answered = false;
    for line in text.lines() {
        let Some((client, rest)) = line.trim().split_once('[') else { continue };
        let Some(inside) = rest.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')) else {
            continue;
        };
        is_answered = true;
        let field = |wanted: &str| {
            inside
                .split(',')
                .find_map(|pair| pair.split_once('=').filter(|(name, _)| *name == wanted))
                .map(|(_, value)| value.to_owned())
        };
        // The connection that asks has no session.
        let Some(session) = field("sid") else { continue };
        if sessions.len() == SESSIONS_MAX {
            break;
        }
        sessions.push(json!({
            "client": client.trim_start_matches('/'),
            "session": session,
            "timeout_ms": field("to").and_then(|ms| ms.parse::<i64>().ok()),
            "last_operation": field("lop"),
            "received": field("recved").and_then(|count| count.parse::<i64>().ok()),
            "since_ms": field("est").and_then(|ms| ms.parse::<i64>().ok()),
        }));
    }
    is_answered.then_some(sessions)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRVR: &str = "Zookeeper version: 3.5.7-f0fdd52973d373ffd9c86b81d99842dc2c7f660e, built on 02/10/2020 11:30 GMT\nLatency min/avg/max: 0/1.5/12\nReceived: 10\nSent: 9\nConnections: 2\nOutstanding: 0\nZxid: 0x1f\nMode: follower\nNode count: 42\n";
    const REFUSED: &str = "mntr is not executed because it is not in the whitelist.";

    #[test]
    fn a_real_zookeeper_that_answers_srvr_only_is_enough() {
        let server = Server::of("a:2181", SRVR, REFUSED, "cons is not executed because");
        assert_eq!((server.why.clone(), server.mode.as_deref()), (None, Some("follower")));
        assert_eq!(
            (server.version.as_deref(), server.zxid.as_deref()),
            (Some("3.5.7"), Some("0x1f"))
        );
        assert_eq!(server.latency_ms, [Some(0.0), Some(1.5), Some(12.0)]);
        assert_eq!((server.znodes, server.watches, server.sessions), (Some(42), None, None));
    }

    #[test]
    fn mntr_and_cons_say_more() {
        let mntr = "zk_version\t3.5.7-x, built on 1\nzk_avg_latency\t3\nzk_watch_count\t7\nzk_server_state\tleader\nzk_followers\t3\nzk_synced_followers\t2\nzk_note\t<b>\n";
        let cons = " /10.0.0.1:4567[1](queued=0,recved=5,sent=6,sid=0x100,lop=PING,est=17,to=18000)\n /10.0.0.2:1[0](queued=0,recved=1,sent=0)\n\n";
        let server = Server::of("a:2181", SRVR, mntr, cons);
        assert_eq!((server.mode.as_deref(), server.watches), (Some("leader"), Some(7)));
        assert_eq!((server.learners, server.synced_followers), (Some(3), Some(2)));
        assert_eq!(server.raw["zk_note"], "<b>");
        let sessions = server.sessions.unwrap();
        assert_eq!(sessions.len(), 1);
        assert_eq!(
            (&sessions[0]["client"], &sessions[0]["timeout_ms"]),
            (&"10.0.0.1:4567".into(), &18_000.into())
        );
    }

    #[test]
    fn what_is_no_zookeeper_is_told() {
        let server = Server::of("a:1", "HTTP/1.1 400 Bad Request", "", "");
        assert_eq!(server.why.as_deref(), Some("HTTP/1.1 400 Bad Request"));
        let silent = "This ZooKeeper instance is not currently serving requests\n";
        assert!(Server::of("a:1", silent, "", "").why.unwrap().contains("not currently serving"));
        assert!(Server::of("a:1", "", "", "").why.is_some());
    }
}
