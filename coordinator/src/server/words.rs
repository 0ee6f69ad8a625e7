//! The four-letter words, worded as ZooKeeper 3.5.7 words them.
//!
//! Differs: the version; `envi` has no JVM to tell of; `hash` is 3.6's, with a digest of our own.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::admin;
use crate::config::Config;
use crate::service::{ConnectionFigures, Expiries, Service, Sizes, VERSION};

/// Those that are answered; any other four bytes are the length of a frame.
pub(crate) const WORDS: [&str; 18] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "hash", "isro", "mntr", "ruok", "srst",
    "srvr", "stat", "stmk", "wchc", "wchp", "wchs",
];

/// The one word with something behind it: the mask, eight bytes.
pub(super) const SET_TRACE_MASK: &str = "stmk";

/// Which words may be asked.
#[derive(Debug, Clone)]
pub(crate) struct Whitelist(BTreeSet<String>);

impl Whitelist {
    pub(crate) fn new(words: &[String]) -> Self {
        Self(words.iter().cloned().collect())
    }

    pub(super) fn allows(&self, asked: &Asked) -> bool {
        match asked {
            Asked::Word(word) => self.0.contains("*") || self.0.contains(*word),
            Asked::SetTraceMask(_) => self.allows(&Asked::Word(SET_TRACE_MASK)),
            // It came to a port of its own.
            Asked::Command(_) => true,
        }
    }
}

/// What is asked of a server beside ZooKeeper's protocol.
#[derive(Debug, Clone)]
pub(crate) enum Asked {
    Word(&'static str),
    SetTraceMask(i64),
    /// By the AdminServer.
    Command(admin::Command),
}

impl Asked {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Word(word) => word,
            Self::SetTraceMask(_) => SET_TRACE_MASK,
            Self::Command(_) => "command",
        }
    }
}

/// The word that `input` begins with, once it is here with all that belongs to it.
pub(super) fn find(input: &[u8]) -> Option<Asked> {
    let (first, rest) = input.split_first_chunk::<4>()?;
    let word = WORDS.into_iter().find(|word| word.as_bytes() == first)?;
    match word {
        SET_TRACE_MASK => {
            rest.first_chunk().map(|mask| Asked::SetTraceMask(i64::from_be_bytes(*mask)))
        }
        _ => Some(Asked::Word(word)),
    }
}

/// Whether a word has come, and what belongs to it not yet.
pub(super) fn is_partial(input: &[u8]) -> bool {
    input.starts_with(SET_TRACE_MASK.as_bytes()) && input.len() < 12
}

/// What this server is in its ensemble.
#[derive(Debug, Clone, Default)]
pub(crate) enum Role {
    #[default]
    Standalone,
    Leader(Leading),
    Follower,
    Observer,
    /// It knows of no leader, and serves nobody.
    Looking,
}

impl Role {
    /// ZooKeeper's word for it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Standalone => "standalone",
            Self::Leader(_) => "leader",
            Self::Follower => "follower",
            Self::Observer => "observer",
            Self::Looking => "looking",
        }
    }
}

/// What a leader knows of those that follow it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Leading {
    /// Connected, itself not counted; observers are.
    pub(crate) followers: usize,
    /// Of these, voters that have all it has.
    pub(crate) synced_followers: usize,
    /// Syncs that wait for a quorum.
    pub(crate) pending_syncs: usize,
    pub(crate) proposals: Sizes,
}

/// The ensemble, as zoo.cfg has it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Membership {
    pub(crate) init_limit: u32,
    pub(crate) sync_limit: u32,
    pub(crate) election_port: u16,
    pub(crate) quorum_port: u16,
    pub(crate) is_observer: bool,
    /// Of every server, this one included.
    pub(crate) members: Vec<Member>,
    /// The server this one follows, or itself; `None` while it looks for one.
    pub(crate) leader: Option<u64>,
}

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: u64,
    /// `host:port` each.
    pub(crate) quorum: String,
    pub(crate) election_port: u16,
    /// Where its clients connect, if zoo.cfg says so.
    pub(crate) client: Option<String>,
    pub(crate) is_observer: bool,
}

impl Member {
    pub(crate) fn kind(&self) -> &'static str {
        if self.is_observer { "observer" } else { "participant" }
    }
}

/// What the node knows beside the service.
pub(crate) struct Surroundings<'a> {
    pub(crate) config: &'a Config,
    pub(crate) port: u16,
    /// Who asks: a connection of its own that has no session.
    pub(crate) peer: SocketAddr,
    /// Every socket, the asker's included.
    pub(crate) connections: usize,
    pub(crate) role: Role,
    /// `None` for a server alone.
    pub(crate) membership: Option<&'a Membership>,
}

impl Surroundings<'_> {
    pub(crate) fn data_path(&self) -> PathBuf {
        absolute(&super::data_path(&self.config.data_dir))
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        let directory = self.config.data_log_dir.as_ref().unwrap_or(&self.config.data_dir);
        absolute(&super::data_path(directory))
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into())
}

/// Bytes of all files in one of our directories; there are a few.
pub(crate) fn directory_bytes(path: &Path) -> u64 {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

const NOT_SERVING: &str = "This ZooKeeper instance is not currently serving requests\n";

pub(super) fn answer(asked: &Asked, service: &mut Service, around: &Surroundings<'_>) -> String {
    match asked {
        Asked::Command(command) => admin::answer(command, service, around),
        Asked::SetTraceMask(mask) => {
            service.word_came();
            service.set_trace_mask(*mask);
            service.word_was_answered();
            mask.to_string()
        }
        Asked::Word(word) => {
            service.word_came();
            let text = match (&around.role, *word) {
                (_, "ruok" | "envi" | "gtmk") => tell(word, service, around),
                (Role::Looking, "isro") => "null".to_owned(),
                (Role::Looking, _) => NOT_SERVING.to_owned(),
                _ => tell(word, service, around),
            };
            service.word_was_answered();
            text
        }
    }
}

fn tell(word: &str, service: &mut Service, around: &Surroundings<'_>) -> String {
    let asker = format!(" /{}[0](queued=0,recved=1,sent=0)\n", around.peer);
    match word {
        "ruok" => "imok".to_owned(),
        "isro" => "rw".to_owned(),
        "srvr" => format!("Zookeeper version: {VERSION}\n{}", srvr(service, around)),
        "stat" => {
            let clients: String = service.connection_figures().iter().map(short_line).collect();
            let srvr = srvr(service, around);
            format!("Zookeeper version: {VERSION}\nClients:\n{clients}{asker}\n{srvr}")
        }
        "cons" => {
            let clients: String = service.connection_figures().iter().map(long_line).collect();
            clients + &asker + "\n"
        }
        "mntr" => mntr(service, around),
        "conf" => conf(around),
        "envi" => envi(),
        "wchs" => {
            let by_session = service.watched_by_session();
            let watches: usize = by_session.values().map(Vec::len).sum();
            let (connections, paths) = (by_session.len(), service.watchers_by_path().len());
            format!("{connections} connections watching {paths} paths\nTotal watches:{watches}\n")
        }
        "wchc" => {
            let mut out = String::new();
            for (session, paths) in service.watched_by_session() {
                let _ = writeln!(out, "{session}");
                put_lines(&mut out, &paths);
            }
            out + "\n"
        }
        "wchp" => {
            let mut out = String::new();
            for (path, sessions) in service.watchers_by_path() {
                let _ = writeln!(out, "{path}");
                put_lines(&mut out, &sessions);
            }
            out + "\n"
        }
        "dump" => dump(service, around),
        "dirs" => {
            let (data, log) =
                (directory_bytes(&around.data_path()), directory_bytes(&around.log_path()));
            format!("datadir_size: {data}\nlogdir_size: {log}\n")
        }
        "crst" => {
            service.reset_connection_reports();
            "Connection stats reset.\n".to_owned()
        }
        "srst" => {
            service.reset_report();
            "Server stats reset.\n".to_owned()
        }
        "gtmk" => service.trace_mask().to_string(),
        "hash" => {
            let figures = service.figures();
            format!("{:x}: {}\n", figures.zxid.0, figures.digest)
        }
        _ => String::new(),
    }
}

fn put_lines(out: &mut String, lines: &[impl std::fmt::Display]) {
    for line in lines {
        let _ = writeln!(out, "\t{line}");
    }
}

fn srvr(service: &Service, around: &Surroundings<'_>) -> String {
    let figures = service.figures();
    let latency = figures.latency;
    let mut out = format!(
        "Latency min/avg/max: {}/{}/{}\nReceived: {}\nSent: {}\nConnections: {}\nOutstanding: {}\n\
         Zxid: {}\nMode: {}\nNode count: {}\n",
        latency.min_ms,
        latency.average_ms(),
        latency.max_ms,
        figures.received,
        figures.sent,
        around.connections,
        figures.outstanding,
        figures.zxid,
        around.role.name(),
        figures.znodes,
    );
    if let Role::Leader(Leading { proposals, .. }) = &around.role {
        let Sizes { last, min, max } = proposals;
        let _ = writeln!(out, "Proposal sizes last/min/max: {last}/{min}/{max}");
    }
    out
}

fn mntr(service: &Service, around: &Surroundings<'_>) -> String {
    let mut out = format!("zk_version\t{VERSION}\n");
    for (name, value) in measures(service, around) {
        let _ = match name {
            "server_state" => writeln!(out, "zk_{name}\t{}", around.role.name()),
            _ => writeln!(out, "zk_{name}\t{value}"),
        };
    }
    out
}

/// The numbers of `mntr` under its names, in its order; `server_state` only marks its place.
pub(crate) fn measures(service: &Service, around: &Surroundings<'_>) -> Vec<(&'static str, i64)> {
    let figures = service.figures();
    let mut measures = vec![
        ("avg_latency", figures.latency.average_ms() as i64),
        ("max_latency", figures.latency.max_ms as i64),
        ("min_latency", figures.latency.min_ms as i64),
        ("packets_received", figures.received as i64),
        ("packets_sent", figures.sent as i64),
        ("num_alive_connections", around.connections as i64),
        ("outstanding_requests", figures.outstanding as i64),
        ("server_state", 0),
        ("znode_count", figures.znodes as i64),
        ("watch_count", figures.watches as i64),
        ("ephemerals_count", figures.ephemerals as i64),
        ("approximate_data_size", figures.data_bytes as i64),
        ("open_file_descriptor_count", open_files() as i64),
        ("max_file_descriptor_count", open_files_max() as i64),
    ];
    if let Role::Leader(leading) = &around.role {
        measures.extend([
            ("followers", leading.followers as i64),
            ("synced_followers", leading.synced_followers as i64),
            ("pending_syncs", leading.pending_syncs as i64),
            ("last_proposal_size", leading.proposals.last),
            ("max_proposal_size", leading.proposals.max),
            ("min_proposal_size", leading.proposals.min),
        ]);
    }
    measures
}

fn short_line(client: &ConnectionFigures) -> String {
    let ConnectionFigures { peer, queued, received, sent, .. } = client;
    format!(" /{peer}[1](queued={queued},recved={received},sent={sent})\n")
}

fn long_line(client: &ConnectionFigures) -> String {
    let mut out = short_line(client);
    if client.session.0 == 0 {
        return out;
    }
    out.truncate(out.len() - 2);
    let _ = write!(
        out,
        ",sid={},lop={},est={},to={}",
        client.session, client.last_op, client.since_wall_ms, client.timeout_ms
    );
    if client.last_xid >= 0 {
        let _ = write!(out, ",lcxid=0x{:x}", client.last_xid);
    }
    let _ = writeln!(
        out,
        ",lzxid={},lresp={},llat={},minlat={},avglat={},maxlat={})",
        client.last_zxid,
        client.last_answer_ms,
        client.last_latency_ms,
        client.latency.min_ms,
        client.latency.average_ms(),
        client.latency.max_ms,
    );
    out
}

fn dump(service: &Service, around: &Surroundings<'_>) -> String {
    let mut out = String::from("SessionTracker dump:\n");
    let zone = TimeZone::system();
    if matches!(around.role, Role::Follower | Role::Observer) {
        let sessions: Vec<_> = service.session_timeouts().collect();
        let _ = writeln!(out, "Global Sessions({}):", sessions.len());
        for (session, timeout_ms) in sessions {
            let _ = writeln!(out, "{session}\t{timeout_ms}ms");
        }
    } else {
        let expiries = service.session_expiries(around.config.tick_time.as_millis() as u64);
        out.push_str("Session ");
        put_expiries(&mut out, service, &zone, &expiries, |session| session.to_string());
    }
    out.push_str("ephemeral nodes dump:\n");
    let ephemerals = service.ephemerals();
    let _ = writeln!(out, "Sessions with Ephemerals ({}):", ephemerals.len());
    for (owner, paths) in ephemerals {
        let _ = writeln!(out, "{owner}:");
        put_lines(&mut out, &paths);
    }
    out.push_str("Connections dump:\nConnections ");
    let expiries = service.connection_expiries(around.peer);
    put_expiries(&mut out, service, &zone, &expiries, |(peer, session)| {
        format!("ip: /{peer} sessionId: {session}")
    });
    out
}

fn put_expiries<T>(
    out: &mut String,
    service: &Service,
    zone: &TimeZone,
    expiries: &Expiries<T>,
    name: impl Fn(&T) -> String,
) {
    let count: usize = expiries.values().map(Vec::len).sum();
    let _ = writeln!(out, "Sets ({})/({count}):", expiries.len());
    for (at_ms, those) in expiries {
        let at = java_date(service.wall_ms(*at_ms), zone);
        let _ = writeln!(out, "{} expire at {at}:", those.len());
        put_lines(out, &those.iter().map(&name).collect::<Vec<_>>());
    }
}

/// As Java writes a date.
fn java_date(wall_ms: i64, zone: &TimeZone) -> String {
    let at = Timestamp::from_millisecond(wall_ms).unwrap_or_default().to_zoned(zone.clone());
    at.strftime("%a %b %d %H:%M:%S %Z %Y").to_string()
}

fn conf(around: &Surroundings<'_>) -> String {
    let (config, data, log) = (around.config, around.data_path(), around.log_path());
    let mut out = format!(
        "clientPort={}\nsecureClientPort=-1\ndataDir={}\ndataDirSize={}\ndataLogDir={}\n\
         dataLogSize={}\ntickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\n\
         maxSessionTimeout={}\nserverId={}\n",
        around.port,
        data.display(),
        directory_bytes(&data),
        log.display(),
        directory_bytes(&log),
        config.tick_time.as_millis(),
        config.client_connections_max,
        config.session_timeout_min().as_millis(),
        config.session_timeout_max().as_millis(),
        config.server_id.unwrap_or(0),
    );
    if let Some(membership) = around.membership {
        out.push_str(&membership_text(membership));
    }
    out
}

fn membership_text(membership: &Membership) -> String {
    let mut out = format!(
        "initLimit={}\nsyncLimit={}\nelectionAlg=3\nelectionPort={}\nquorumPort={}\npeerType={}\nmembership: \n",
        membership.init_limit,
        membership.sync_limit,
        membership.election_port,
        membership.quorum_port,
        u8::from(membership.is_observer),
    );
    for member in &membership.members {
        let Member { id, quorum, election_port, client, .. } = member;
        let client = client.as_ref().map(|client| format!(";{client}")).unwrap_or_default();
        let _ = writeln!(out, "server.{id}={quorum}:{election_port}:{}{client}", member.kind());
    }
    // Without a line's end, as ZooKeeper has it.
    out + "version=0"
}

fn envi() -> String {
    let mut out = String::from("Environment:\n");
    for (name, value) in environment() {
        let _ = writeln!(out, "{name}={value}");
    }
    out
}

/// What `envi` tells, in ZooKeeper's order, without the lines about a JVM.
pub(crate) fn environment() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let var = |name: &str| std::env::var(name).unwrap_or_default();
    // Java's names.
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        other => other,
    };
    let os = match std::env::consts::OS {
        "linux" => "Linux",
        other => other,
    };
    let user = match var("USER") {
        user if user.is_empty() && rustix::process::geteuid().is_root() => "root".to_owned(),
        user => user,
    };
    let directory = std::env::current_dir().unwrap_or_default();
    vec![
        ("zookeeper.version", VERSION.to_owned()),
        ("host.name", read("/proc/sys/kernel/hostname")),
        // There is none; scripts look for the lines.
        ("java.version", "none".to_owned()),
        ("java.vendor", "none".to_owned()),
        ("java.home", "none".to_owned()),
        ("os.name", os.to_owned()),
        ("os.arch", arch.to_owned()),
        ("os.version", read("/proc/sys/kernel/osrelease")),
        ("user.name", user),
        ("user.home", var("HOME")),
        ("user.dir", directory.display().to_string()),
    ]
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn open_files_max() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.unwrap_or(u64::MAX).min(i64::MAX as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_found_once_it_is_whole() {
        assert!(matches!(find(b"ruok"), Some(Asked::Word("ruok"))));
        assert!(matches!(find(b"ruok\n"), Some(Asked::Word("ruok"))));
        assert!(find(b"ruo").is_none() && find(b"nope").is_none());
        assert!(find(b"stmk\0\0\0").is_none() && is_partial(b"stmk\0\0\0"));
        let found = find(b"stmk\0\0\0\0\0\0\x01\x32");
        assert!(matches!(found, Some(Asked::SetTraceMask(306))), "{found:?}");
        assert!(!is_partial(b"stmk\0\0\0\0\0\0\x01\x32"));
    }

    /// What a real ZooKeeper 3.5.7 said in an ensemble of three.
    #[test]
    fn the_membership_is_zookeepers() {
        let members = (1..=3).map(|id| Member {
            id,
            quorum: format!("127.0.0.1:{}", 32880 + id),
            election_port: 33880 + id as u16,
            client: None,
            is_observer: false,
        });
        let membership = Membership {
            init_limit: 10,
            sync_limit: 5,
            election_port: 33881,
            quorum_port: 32881,
            members: members.collect(),
            ..Membership::default()
        };
        let expected = "initLimit=10\nsyncLimit=5\nelectionAlg=3\nelectionPort=33881\nquorumPort=32881\n\
                        peerType=0\nmembership: \nserver.1=127.0.0.1:32881:33881:participant\n\
                        server.2=127.0.0.1:32882:33882:participant\n\
                        server.3=127.0.0.1:32883:33883:participant\nversion=0";
        assert_eq!(membership_text(&membership), expected);
    }

    #[test]
    fn a_date_is_javas() {
        let date = java_date(1_795_765_560_000, &TimeZone::UTC);
        assert_eq!(date, "Fri Nov 27 07:46:00 UTC 2026");
    }
}
