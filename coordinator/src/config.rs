//! `zoo.cfg` → a checked [`Config`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use elkfk_base::mistakes::did_you_mean;
use elkfk_base::{Mistake, Mistakes};
use elkfk_wire::jute::DEFAULT_FRAME_BYTES_MAX;

use crate::admin::AdminConfig;
use crate::ensemble::Server;
use crate::server::WORDS;

/// ZooKeeper's default of `tickTime` where zoo.cfg has none.
const DEFAULT_TICK: Duration = Duration::from_millis(3000);
const DEFAULT_PORT: u16 = 2181;
const DEFAULT_CLIENT_CONNECTIONS_MAX: usize = 60;
const DEFAULT_SNAP_COUNT: u64 = 100_000;
const DEFAULT_SNAPSHOTS_KEPT: usize = 3;
/// A session may be silent for 2 to 20 ticks, where zoo.cfg does not say otherwise.
const TIMEOUT_TICKS: (u32, u32) = (2, 20);

/// What a coordinator is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Snapshots are kept below it, and the log too unless `data_log_dir` is given.
    pub data_dir: PathBuf,
    pub data_log_dir: Option<PathBuf>,
    /// Where clients connect. Port 0 takes a free one.
    pub listen: SocketAddr,
    pub tick_time: Duration,
    /// `None`: 2 ticks.
    pub session_timeout_min: Option<Duration>,
    /// `None`: 20 ticks.
    pub session_timeout_max: Option<Duration>,
    /// Connections one address may have; 0 is without limit.
    pub client_connections_max: usize,
    /// The largest request (`jute.maxbuffer`).
    pub frame_bytes_max: usize,
    /// Whether znodes with a time to live may be made (`extendedTypesEnabled`).
    pub extended_types: bool,
    /// Whether hard limits of quotas refuse (`enforceQuota`).
    pub enforce_quota: bool,
    /// Whether clients may change the ensemble (`reconfigEnabled`).
    pub reconfig: bool,
    /// `super:digest` of whom no ACL stops (`DigestAuthenticationProvider.superDigest`).
    pub super_digest: Option<String>,
    /// Four-letter words that are answered; `*` is all.
    pub words: Vec<String>,
    /// Log entries after which a snapshot is taken.
    pub snap_count: u64,
    /// Snapshots that are kept; the log is kept from the oldest of them on.
    pub snapshots_kept: usize,
    /// The N of `server.N` or `myid`, where there is one of them.
    pub server_id: Option<u64>,
    /// The ensemble, this server among it; empty, or one, where it stands alone.
    pub servers: Vec<Server>,
    /// Reads see everything acknowledged anywhere before them (`linearizableReads`).
    pub has_linearizable_reads: bool,
    /// Ticks; told to who asks, as nothing here waits by it: one that is behind catches up in its own
    /// time.
    pub init_limit: u32,
    /// Ticks without a leader after which all clients are sent away; 0 is the default.
    pub sync_limit: u32,
    /// The peer port is opened on every address, not on that of its server.N alone
    /// (`quorumListenOnAllIPs`).
    pub listens_on_all: bool,
    /// What is told over HTTP.
    pub admin: AdminConfig,
    /// Known keys that are not honoured, to be told when it starts.
    pub warnings: Vec<String>,
}

/// As Java's `Boolean.parseBoolean`: what is not true is false.
fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// How a key of zoo.cfg is taken.
enum Key {
    Honoured,
    /// Without effect here, and why that does no harm.
    Ignored(&'static str),
    /// To go on without it would break what its user relies on.
    Refused(&'static str),
}

use Key::{Honoured, Ignored, Refused};

const NO_TLS: &str = "TLS is not there yet; leave it out and keep the port on a trusted network";
const FAST_PEERS: &str = "a server that falls silent is noticed within a second, and one that is behind catches up in its own time";
const NO_SASL: &str = "SASL is not there yet; use digest ACLs";
const OWN_LOG: &str = "the log is laid out differently";

const KEYS: &[(&str, Key)] = &[
    ("tickTime", Honoured),
    ("dataDir", Honoured),
    ("dataLogDir", Honoured),
    ("clientPort", Honoured),
    ("clientPortAddress", Honoured),
    ("maxClientCnxns", Honoured),
    ("minSessionTimeout", Honoured),
    ("maxSessionTimeout", Honoured),
    ("autopurge.snapRetainCount", Honoured),
    ("4lw.commands.whitelist", Honoured),
    ("jute.maxbuffer", Honoured),
    ("snapCount", Honoured),
    ("linearizableReads", Honoured),
    ("initLimit", Honoured),
    ("syncLimit", Honoured),
    ("autopurge.purgeInterval", Ignored("old snapshots and logs are always purged")),
    ("electionAlg", Ignored("there is one way to elect")),
    ("leaderServes", Ignored("the leader serves clients too")),
    ("cnxTimeout", Ignored(FAST_PEERS)),
    ("peerType", Honoured),
    ("standaloneEnabled", Ignored("one server.N stands alone, more are an ensemble")),
    ("quorumListenOnAllIPs", Honoured),
    ("syncEnabled", Ignored("an observer keeps what it hears")),
    ("preAllocSize", Ignored(OWN_LOG)),
    ("snapSizeLimitInKb", Ignored(OWN_LOG)),
    ("commitLogCount", Ignored(OWN_LOG)),
    ("fsync.warningthresholdms", Ignored("the metric log_sync_seconds tells it")),
    ("globalOutstandingLimit", Ignored("unanswered requests are limited by their bytes")),
    ("clientPortListenBacklog", Ignored("the system's limit holds")),
    ("admin.enableServer", Honoured),
    ("admin.serverPort", Honoured),
    ("admin.serverAddress", Honoured),
    ("admin.idleTimeout", Honoured),
    ("admin.commandURL", Honoured),
    ("metricsProvider.className", Honoured),
    ("metricsProvider.httpPort", Honoured),
    ("metricsProvider.exportJvmInfo", Ignored("there is no JVM")),
    ("serverCnxnFactory", Ignored("there is one way to serve a connection")),
    ("nio.numSelectorThreads", Ignored("there are no such threads")),
    ("nio.numWorkerThreads", Ignored("there are no such threads")),
    ("snapshot.trust.empty", Ignored("a missing snapshot is told from an empty one")),
    ("forceSync", Refused("nothing is acknowledged before it is durable; remove the line")),
    ("skipACL", Refused("ACLs are always checked; remove the line")),
    ("reconfigEnabled", Honoured),
    ("dynamicConfigFile", Refused("list the servers in zoo.cfg itself")),
    ("extendedTypesEnabled", Honoured),
    ("enforceQuota", Honoured),
    ("DigestAuthenticationProvider.superDigest", Honoured),
    ("zookeeper.DigestAuthenticationProvider.superDigest", Honoured),
    ("localSessionsEnabled", Refused("sessions are always global; remove the line")),
    ("localSessionsUpgradingEnabled", Refused("sessions are always global; remove the line")),
    ("readonlymode.enabled", Refused("there is no read-only mode; remove the line")),
    ("secureClientPort", Refused(NO_TLS)),
    ("secureClientPortAddress", Refused(NO_TLS)),
    ("portUnification", Refused(NO_TLS)),
    ("sslQuorum", Refused(NO_TLS)),
    ("requireClientAuthScheme", Refused(NO_SASL)),
    ("sessionRequireClientSASLAuth", Refused(NO_SASL)),
    ("jaasLoginRenew", Refused(NO_SASL)),
    ("quorum.auth.enableSasl", Refused(NO_SASL)),
];

/// Families of keys, by how they begin.
const PREFIXES: &[(&str, Key)] = &[
    ("ssl.", Refused(NO_TLS)),
    ("authProvider.", Refused(NO_SASL)),
    ("quorum.auth.", Refused(NO_SASL)),
    ("group.", Refused("hierarchical quorums are not there; remove the line")),
    ("weight.", Refused("hierarchical quorums are not there; remove the line")),
];

impl Config {
    /// For a program that has it in its own process: loopback, the default port, no limit of
    /// connections, and all the words that only look.
    pub fn embedded(data_dir: impl Into<PathBuf>) -> Self {
        let words =
            ["ruok", "srvr", "stat", "mntr", "conf", "cons", "isro", "envi", "wchs", "dump"];
        Self {
            data_dir: data_dir.into(),
            tick_time: Duration::from_secs(2),
            client_connections_max: 0,
            words: words.map(str::to_owned).to_vec(),
            admin: AdminConfig::off(),
            ..Self::default()
        }
    }

    pub fn session_timeout_min(&self) -> Duration {
        self.session_timeout_min.unwrap_or(self.tick_time * TIMEOUT_TICKS.0)
    }

    pub fn session_timeout_max(&self) -> Duration {
        self.session_timeout_max.unwrap_or(self.tick_time * TIMEOUT_TICKS.1)
    }

    /// Raft has no server 0.
    pub(crate) fn raft_id(&self) -> u64 {
        self.server_id.unwrap_or(1)
    }

    /// Reads a zoo.cfg, and `myid` from its dataDir.
    pub fn from_file(path: &Path) -> Result<Self, Mistakes> {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Mistakes(vec![Mistake::new(&name, 0, 0, format!("cannot be read: {error}"))])
        })?;
        let (mut config, role) = Self::parse_with_role(&name, &text)?;
        config.read_id(&name)?;
        config.check_role(&name, role)?;
        Ok(config)
    }

    /// Which server this is: `myid` says it, and must say one that is listed.
    fn read_id(&mut self, name: &str) -> Result<(), Mistakes> {
        let myid = self.data_dir.join("myid");
        let file = myid.display().to_string();
        let mistake = |line, text| Err(Mistakes(vec![Mistake::new(&file, line, line, text)]));
        let text = match std::fs::read_to_string(&myid) {
            Ok(text) => text,
            Err(_) if self.servers.len() < 2 => return Ok(()),
            Err(error) => {
                let text = format!(
                    "cannot be read: {error}; {name} lists {} servers, and this file says which of them this is: write its number into it",
                    self.servers.len()
                );
                return mistake(0, text);
            }
        };
        let Ok(id @ 1..=255) = text.trim().parse::<u64>() else {
            return mistake(1, format!("{:?} is not a number from 1 to 255", text.trim()));
        };
        let listed: Vec<_> =
            self.servers.iter().map(|server| format!("server.{}", server.id)).collect();
        if !listed.is_empty() && !self.servers.iter().any(|server| server.id == id) {
            let text = format!(
                "this is server {id}, but {name} lists {}{}; make them the same",
                listed.join(", "),
                if listed.len() == 1 { " alone" } else { "" }
            );
            return mistake(1, text);
        }
        self.server_id = Some(id);
        Ok(())
    }

    fn check_role(&self, name: &str, role: Option<(usize, bool)>) -> Result<(), Mistakes> {
        let Some((line, is_observer)) = role else { return Ok(()) };
        let own = self.servers.iter().find(|server| Some(server.id) == self.server_id);
        match own {
            Some(own) if own.is_observer != is_observer => {
                let (role, listed) = match is_observer {
                    true => (
                        "an observer",
                        "a participant; add :observer to its line, in every server's file",
                    ),
                    false => ("a participant", "an observer; remove one of the two"),
                };
                let text = format!(
                    "peerType has this server as {role}, its line server.{} as {listed}",
                    own.id
                );
                Err(Mistakes(vec![Mistake::new(name, line, 1, text)]))
            }
            _ => Ok(()),
        }
    }

    /// This server's own line, in an ensemble.
    pub(crate) fn own_server(&self) -> Option<&Server> {
        let is_ensemble = self.servers.len() > 1;
        self.servers.iter().find(|server| is_ensemble && Some(server.id) == self.server_id)
    }

    /// Reads the text of a zoo.cfg; `file` names it in mistakes.
    pub fn parse(file: &str, text: &str) -> Result<Self, Mistakes> {
        Self::parse_with_role(file, text).map(|(config, _)| config)
    }

    /// With line and value of `peerType`.
    fn parse_with_role(file: &str, text: &str) -> Result<(Self, Option<(usize, bool)>), Mistakes> {
        let mut reading = Reading {
            file,
            config: Self { data_dir: PathBuf::new(), ..Self::default() },
            mistakes: Mistakes::default(),
            servers: Vec::new(),
            peer_type: None,
            port: None,
            address: None,
        };
        let mut seen = HashMap::new();
        for (number, line) in logical_lines(text) {
            let (key, value) = split_pair(&line);
            if !key.is_empty() {
                if let Some(before) = seen.insert(key.to_owned(), number) {
                    let again = format!(
                        "{file}:{number}: {key} is given again, after line {before}: the last one counts"
                    );
                    reading.config.warnings.push(again);
                }
                reading.pair(number, key, value);
            }
        }
        let role = reading.peer_type;
        reading.finish().map(|config| (config, role))
    }
}

impl Default for Config {
    /// A standalone server of ZooKeeper's defaults, on loopback, with its data in `./zookeeper`.
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("zookeeper"),
            data_log_dir: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)),
            tick_time: DEFAULT_TICK,
            session_timeout_min: None,
            session_timeout_max: None,
            client_connections_max: DEFAULT_CLIENT_CONNECTIONS_MAX,
            frame_bytes_max: DEFAULT_FRAME_BYTES_MAX,
            extended_types: false,
            enforce_quota: false,
            reconfig: false,
            super_digest: None,
            words: vec!["srvr".to_owned()],
            snap_count: DEFAULT_SNAP_COUNT,
            snapshots_kept: DEFAULT_SNAPSHOTS_KEPT,
            server_id: None,
            servers: Vec::new(),
            has_linearizable_reads: false,
            init_limit: 0,
            sync_limit: 0,
            listens_on_all: false,
            admin: AdminConfig::default(),
            warnings: Vec::new(),
        }
    }
}

/// Lines with their numbers from 1, as Java's Properties has them: comments out, continuations joined.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if open.is_none() && (line.is_empty() || line.starts_with(['#', '!'])) {
            continue;
        }
        let (number, mut whole) = open.take().unwrap_or((at + 1, String::new()));
        match line.strip_suffix('\\') {
            Some(start) => {
                whole.push_str(start);
                open = Some((number, whole));
            }
            None => {
                whole.push_str(line);
                lines.push((number, whole));
            }
        }
    }
    lines.extend(open);
    lines
}

/// The first of `=`, `:` and blanks ends a key.
fn split_pair(line: &str) -> (&str, &str) {
    let end =
        line.find(|c: char| matches!(c, '=' | ':') || c.is_whitespace()).unwrap_or(line.len());
    let rest = line[end..].trim_start();
    let value = rest.strip_prefix(['=', ':']).unwrap_or(rest);
    (&line[..end], value.trim())
}

struct Reading<'a> {
    file: &'a str,
    config: Config,
    mistakes: Mistakes,
    servers: Vec<(usize, Server)>,
    /// Line and value of peerType.
    peer_type: Option<(usize, bool)>,
    port: Option<u16>,
    address: Option<IpAddr>,
}

impl Reading<'_> {
    fn mistake(&mut self, line: usize, text: impl Into<String>) {
        self.mistakes.push(Mistake::new(self.file, line, 1, text));
    }

    fn pair(&mut self, line: usize, key: &str, value: &str) {
        if let Some(id) = key.strip_prefix("server.") {
            return self.server(line, key, id, value);
        }
        let known = KEYS
            .iter()
            .find(|(name, _)| *name == key)
            .or_else(|| PREFIXES.iter().find(|(prefix, _)| key.starts_with(prefix)));
        match known {
            Some((_, Honoured)) => self.honour(line, key, value),
            // Turned off is what it is anyway.
            Some((_, Refused(_))) if matches!(value, "false" | "no") => {}
            Some((_, Refused(why))) => self.mistake(line, format!("{key} is refused: {why}")),
            Some((_, Ignored(why))) => {
                let file = self.file;
                self.config.warnings.push(format!("{file}:{line}: {key} is ignored: {why}"));
            }
            None => {
                let hint = did_you_mean(key, KEYS.iter().map(|(name, _)| *name));
                self.mistake(line, format!("unknown key \"{key}\"{hint}"));
            }
        }
    }

    fn server(&mut self, line: usize, key: &str, id: &str, value: &str) {
        match id.parse::<u64>() {
            Ok(id @ 1..=255) => match Server::parse(id, value) {
                Ok(server) => self.servers.push((line, server)),
                Err(why) => self.mistake(line, format!("{key}={value}: {why}")),
            },
            _ => self.mistake(line, format!("{key}: the number after server. is from 1 to 255")),
        }
    }

    fn flag(&mut self, line: usize, key: &str, value: &str) -> bool {
        if !matches!(value, "true" | "false" | "yes" | "no") {
            self.mistake(line, format!("{key}={value}: give true or false"));
        }
        matches!(value, "true" | "yes")
    }

    /// A whole number from `min` on.
    fn number(&mut self, line: usize, key: &str, value: &str, min: i64) -> Option<i64> {
        match value.parse::<i64>() {
            Ok(number) if number >= min && number <= i64::from(i32::MAX) => Some(number),
            _ => {
                self.mistake(line, format!("{key}={value}: give a whole number from {min} on"));
                None
            }
        }
    }

    fn honour(&mut self, line: usize, key: &str, value: &str) {
        let millis = |number: i64| Duration::from_millis(number as u64);
        match key {
            "dataDir" if value.is_empty() => {
                self.mistake(line, "dataDir is empty; give a directory")
            }
            "dataDir" => self.config.data_dir = value.into(),
            "dataLogDir" => self.config.data_log_dir = Some(value.into()),
            "clientPort" => match value.parse() {
                Ok(port) => self.port = Some(port),
                Err(_) => {
                    self.mistake(line, format!("clientPort={value}: give a port from 0 to 65535"));
                }
            },
            "clientPortAddress" => match value {
                "localhost" => self.address = Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
                _ => match value.parse() {
                    Ok(address) => self.address = Some(address),
                    Err(_) => self.mistake(
                        line,
                        format!("clientPortAddress={value}: give an address such as 0.0.0.0"),
                    ),
                },
            },
            "tickTime" => {
                if let Some(number) = self.number(line, key, value, 1) {
                    self.config.tick_time = millis(number);
                }
            }
            // -1 is ZooKeeper's word for the default.
            "minSessionTimeout" | "maxSessionTimeout" => {
                if let Some(number) = self.number(line, key, value, -1) {
                    let timeout = (number > 0).then(|| millis(number));
                    match key {
                        "minSessionTimeout" => self.config.session_timeout_min = timeout,
                        _ => self.config.session_timeout_max = timeout,
                    }
                }
            }
            "maxClientCnxns" => {
                if let Some(number) = self.number(line, key, value, 0) {
                    self.config.client_connections_max = number as usize;
                }
            }
            "jute.maxbuffer" => {
                if let Some(number) = self.number(line, key, value, 1024) {
                    self.config.frame_bytes_max = number as usize;
                }
            }
            "extendedTypesEnabled" => self.config.extended_types = is_true(value),
            "enforceQuota" => self.config.enforce_quota = is_true(value),
            "reconfigEnabled" => self.config.reconfig = is_true(value),
            "DigestAuthenticationProvider.superDigest"
            | "zookeeper.DigestAuthenticationProvider.superDigest" => {
                if !value.starts_with("super:") {
                    let what =
                        format!("{key} must be super:<base64 of the SHA-1 of super:password>");
                    self.mistake(line, what);
                }
                self.config.super_digest = Some(value.to_owned());
            }
            "snapCount" => {
                if let Some(number) = self.number(line, key, value, 2) {
                    self.config.snap_count = number as u64;
                }
            }
            // ZooKeeper keeps three whatever is asked below that.
            "autopurge.snapRetainCount" => {
                if let Some(number) = self.number(line, key, value, 1) {
                    self.config.snapshots_kept = (number as usize).max(DEFAULT_SNAPSHOTS_KEPT);
                }
            }
            "4lw.commands.whitelist" => self.words(line, value),
            "initLimit" | "syncLimit" => {
                if let Some(number) = self.number(line, key, value, 1) {
                    match key {
                        "initLimit" => self.config.init_limit = number as u32,
                        _ => self.config.sync_limit = number as u32,
                    }
                }
            }
            "linearizableReads" => {
                self.config.has_linearizable_reads = self.flag(line, key, value);
            }
            "quorumListenOnAllIPs" => self.config.listens_on_all = self.flag(line, key, value),
            "peerType" => match value {
                "observer" => self.peer_type = Some((line, true)),
                "participant" => self.peer_type = Some((line, false)),
                _ => self.mistake(line, format!("peerType={value}: give participant or observer")),
            },
            key if AdminConfig::KEYS.contains(&key) => {
                if let Err(why) = self.config.admin.set(key, value) {
                    self.mistake(line, why);
                }
            }
            _ => unreachable!("every honoured key stands above"),
        }
    }

    fn ensemble(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        for (at, (line, server)) in servers.iter().enumerate() {
            for (first, other) in &servers[..at] {
                let id = server.id;
                if other.id == id {
                    self.mistake(*line, format!("server.{id} stands in line {first} already; give each server a number of its own"));
                } else if (&other.host, other.peer_port) == (&server.host, server.peer_port) {
                    self.mistake(*line, format!("server.{id} has the address of server.{} in line {first}; give each server ports of its own", other.id));
                }
            }
        }
        if let [(line, server), ..] = &servers[..]
            && servers.iter().all(|(_, server)| server.is_observer)
        {
            let id = server.id;
            self.mistake(*line, format!("server.{id} is an observer, and nobody has a vote; make an odd number of servers participants"));
        }
        if let [(_, server)] = &servers[..] {
            self.config.server_id = Some(server.id);
        }
        self.config.servers = servers.into_iter().map(|(_, server)| server).collect();
    }

    fn words(&mut self, line: usize, value: &str) {
        self.config.words.clear();
        for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            if word != "*" && !WORDS.contains(&word) {
                // ZooKeeper starts with these too, and nobody can ask for them.
                let (file, hint) = (self.file, did_you_mean(word, WORDS));
                let warning = format!("{file}:{line}: unknown four-letter word \"{word}\"{hint}");
                self.config.warnings.push(warning);
                continue;
            }
            self.config.words.push(word.to_owned());
        }
        // As ZooKeeper has it, whose zkServer.sh asks for this one.
        if !self.config.words.iter().any(|word| word == "srvr") {
            self.config.words.push("srvr".to_owned());
        }
    }

    fn finish(mut self) -> Result<Config, Mistakes> {
        if self.config.data_dir.as_os_str().is_empty()
            && !self.mistakes.0.iter().any(|mistake| mistake.text.starts_with("dataDir"))
        {
            self.mistake(0, "dataDir is missing; add dataDir=/var/lib/zookeeper");
        }
        self.ensemble();
        // The protocol has 32 bits for a timeout.
        if self.config.session_timeout_max().as_millis() > i32::MAX as u128 {
            self.mistake(0, format!("tickTime is too long: {} ticks are a session's longest timeout, and that is at most {} ms; give less, or maxSessionTimeout", TIMEOUT_TICKS.1, i32::MAX));
        }
        if self.config.session_timeout_min() > self.config.session_timeout_max() {
            self.mistake(0, "minSessionTimeout exceeds maxSessionTimeout; exchange them");
        }
        let listen = &mut self.config.listen;
        listen.set_port(self.port.unwrap_or(DEFAULT_PORT));
        if let Some(address) = self.address {
            listen.set_ip(address);
        }
        self.config.admin.finish(self.config.listen);
        self.mistakes.or(self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tutorials_file_is_read() {
        let config = Config::parse(
            "zoo.cfg",
            "# The number of milliseconds of each tick\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
             dataDir=/tmp/zookeeper\nclientPort=2182\nmaxClientCnxns=100\n\
             autopurge.snapRetainCount=5\nautopurge.purgeInterval=1\n4lw.commands.whitelist=stat, ruok\n\
             clientPortAddress = 0.0.0.0\nserver.1=localhost:2888:3888\n",
        )
        .unwrap();
        assert_eq!(config.tick_time, Duration::from_secs(2));
        assert_eq!(config.data_dir, Path::new("/tmp/zookeeper"));
        assert_eq!(config.listen.to_string(), "0.0.0.0:2182");
        assert_eq!((config.client_connections_max, config.snapshots_kept), (100, 5));
        assert_eq!(config.words, ["stat", "ruok", "srvr"]);
        assert_eq!(config.server_id, Some(1));
        assert_eq!(config.session_timeout_min(), Duration::from_secs(4));
        assert_eq!(config.session_timeout_max(), Duration::from_secs(40));
        assert_eq!(config.warnings.len(), 1);
        assert!(config.warnings[0].starts_with("zoo.cfg:9: autopurge.purgeInterval is ignored"));
    }

    #[test]
    fn mistakes_come_all_at_once_with_line_and_remedy() {
        let mistakes = Config::parse(
            "zoo.cfg",
            "tickTime=fast\n\ndatadir=/x\nclientPort=99999\nsecureClientPort=2281\nsslQuorum=false\n\
             4lw.commands.whitelist=srvr\nserver.0=a:1:2\nssl.keyStore.location=x\n",
        )
        .unwrap_err();
        let texts: Vec<_> = mistakes.0.iter().map(ToString::to_string).collect();
        let expected = [
            "zoo.cfg:1:1: tickTime=fast: give a whole number from 1 on",
            "zoo.cfg:3:1: unknown key \"datadir\", did you mean \"dataDir\"?",
            "zoo.cfg:4:1: clientPort=99999: give a port from 0 to 65535",
            "zoo.cfg:5:1: secureClientPort is refused: ",
            "zoo.cfg:8:1: server.0: the number after server. is from 1 to 255",
            "zoo.cfg:9:1: ssl.keyStore.location is refused: ",
            "zoo.cfg: dataDir is missing; add dataDir=/var/lib/zookeeper",
        ];
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn an_ensembles_mistakes_are_named_with_their_lines() {
        let text = "dataDir=/x\nserver.1=a:1:2\nserver.2=b:1\nserver.1=c:1:2\nserver.3=a:1:3\npeerType=boss\n";
        let mistakes = Config::parse("zoo.cfg", text).unwrap_err();
        let texts: Vec<_> = mistakes.0.iter().map(ToString::to_string).collect();
        let expected = [
            "zoo.cfg:3:1: server.2=b:1: \"\" is no election port; give host:peerPort:electionPort",
            "zoo.cfg:6:1: peerType=boss: give participant or observer",
            "zoo.cfg:4:1: server.1 stands in line 2 already",
            "zoo.cfg:5:1: server.3 has the address of server.1 in line 2",
        ];
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{text}");
        }
        let text = "dataDir=/x\nserver.1=a:1:2:observer\nserver.2=b:1:2:observer\n";
        let mistakes = Config::parse("zoo.cfg", text).unwrap_err();
        assert!(mistakes.to_string().contains("nobody has a vote"), "{mistakes}");
    }

    #[test]
    fn a_word_that_is_none_is_told_and_left_out() {
        let text = "dataDir=/x\n4lw.commands.whitelist=srvr,sttat, stat\n";
        let config = Config::parse("zoo.cfg", text).unwrap();
        assert_eq!(config.words, ["srvr", "stat"]);
        assert_eq!(
            config.warnings,
            ["zoo.cfg:2: unknown four-letter word \"sttat\", did you mean \"stat\"?"]
        );
    }

    #[test]
    fn a_timeout_the_protocol_cannot_carry_is_refused() {
        let text = "dataDir=/x\ntickTime=200000000\n";
        let mistakes = Config::parse("zoo.cfg", text).unwrap_err();
        assert!(mistakes.to_string().contains("tickTime is too long"), "{mistakes}");
        let text = format!("{text}minSessionTimeout=1000\nmaxSessionTimeout=2000\n");
        Config::parse("zoo.cfg", &text).unwrap();
    }

    #[test]
    fn myid_is_read_and_must_be_the_server_that_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("zoo.cfg");
        let read = |myid: &str, more: &str| {
            std::fs::write(&file, format!("dataDir={}\n{more}", dir.path().display())).unwrap();
            std::fs::write(dir.path().join("myid"), myid).unwrap();
            Config::from_file(&file).map(|config| config.server_id)
        };
        assert_eq!(read("7\n", ""), Ok(Some(7)));
        assert_eq!(read("7\n", "server.7=a:1:2\n"), Ok(Some(7)));
        let mistakes = read("7\n", "server.3=a:1:2\n").unwrap_err();
        assert!(mistakes.to_string().contains("this is server 7"), "{mistakes}");
        let ensemble = "server.1=a:1:2\nserver.2=b:1:2\nserver.3=c:1:2:observer\n";
        assert_eq!(read("2\n", ensemble), Ok(Some(2)));
        let mistakes = read("7\n", ensemble).unwrap_err();
        assert!(mistakes.to_string().contains("lists server.1, server.2, server.3;"), "{mistakes}");
        let mistakes = read("2\n", &format!("{ensemble}peerType=observer\n")).unwrap_err();
        assert!(mistakes.to_string().contains("zoo.cfg:5:1: peerType has"), "{mistakes}");
        std::fs::remove_file(dir.path().join("myid")).unwrap();
        std::fs::write(&file, format!("dataDir={}\n{ensemble}", dir.path().display())).unwrap();
        let mistakes = Config::from_file(&file).unwrap_err();
        assert!(mistakes.to_string().contains("myid: cannot be read"), "{mistakes}");
        for bad in ["", "0", "256", "seven"] {
            let mistakes = read(bad, "").unwrap_err();
            assert!(mistakes.to_string().contains("myid:1:1"), "{mistakes}");
        }
    }

    #[test]
    fn every_honoured_key_is_honoured() {
        for (key, kind) in KEYS {
            if matches!(kind, Honoured) {
                let _ = Config::parse("zoo.cfg", &format!("{key}=1\n"));
            }
        }
    }
}
