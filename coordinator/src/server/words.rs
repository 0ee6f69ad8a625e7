//! The four-letter words.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::SocketAddr;

use crate::config::Config;
use crate::service::Service;

/// Those that are answered; any other four bytes are the length of a frame.
pub(crate) const WORDS: [&str; 17] = [
    "conf", "cons", "crst", "dirs", "dump", "envi", "gtmk", "isro", "mntr", "ruok", "srst", "srvr",
    "stat", "stmk", "wchc", "wchp", "wchs",
];

/// Which words may be asked.
#[derive(Debug, Clone)]
pub(crate) struct Whitelist(BTreeSet<String>);

impl Whitelist {
    pub(crate) fn new(words: &[String]) -> Self {
        Self(words.iter().cloned().collect())
    }

    pub(super) fn allows(&self, word: &str) -> bool {
        self.0.contains("*") || self.0.contains(word)
    }
}

pub(super) fn find(input: &[u8]) -> Option<&'static str> {
    let first = input.get(..4)?;
    WORDS.into_iter().find(|word| word.as_bytes() == first)
}

/// What the node knows beside the service.
pub(super) struct Surroundings<'a> {
    pub(super) config: &'a Config,
    pub(super) port: u16,
    /// Who asks: a connection of its own that has no session.
    pub(super) peer: SocketAddr,
    /// Every socket, the asker's included.
    pub(super) connections: usize,
    pub(super) snapshot_bytes: u64,
    pub(super) log_bytes: u64,
}

/// There is one voter in this version.
const MODE: &str = "standalone";

pub(super) fn answer(word: &str, service: &mut Service, around: &Surroundings<'_>) -> String {
    let version = format!("Zookeeper version: {}\n", crate::service::VERSION);
    let asker = format!(" /{}[0](queued=0,recved=1,sent=0)\n", around.peer);
    match word {
        "ruok" => "imok".to_owned(),
        "isro" => "rw".to_owned(),
        "srvr" => version + &service.srvr(around.connections, MODE),
        "stat" => {
            let clients = service.connection_lines(false);
            format!(
                "{version}Clients:\n{clients}{asker}\n{}",
                service.srvr(around.connections, MODE)
            )
        }
        "cons" => service.connection_lines(true) + &asker + "\n",
        "mntr" => {
            let mut out = service.mntr(around.connections, MODE);
            let _ = writeln!(out, "zk_open_file_descriptor_count\t{}", open_files());
            let _ = writeln!(out, "zk_max_file_descriptor_count\t{}", open_files_max());
            out
        }
        "conf" => conf(around),
        "envi" => envi(),
        "wchs" => service.wchs(),
        "wchc" => service.wchc() + "\n",
        "wchp" => "\n".to_owned(),
        "dump" => service.dump(),
        "dirs" => {
            format!("datadir_size: {}\nlogdir_size: {}\n", around.snapshot_bytes, around.log_bytes)
        }
        "crst" => {
            service.reset_connection_reports();
            "Connection stats reset.\n".to_owned()
        }
        "srst" => {
            service.reset_report();
            "Server stats reset.\n".to_owned()
        }
        // The trace mask, which we have none of: ZooKeeper's default.
        "gtmk" | "stmk" => "306".to_owned(),
        _ => String::new(),
    }
}

fn conf(around: &Surroundings<'_>) -> String {
    let config = around.config;
    format!(
        "clientPort={}\nsecureClientPort=-1\ndataDir={}\ndataDirSize={}\ndataLogDir={}\n\
         dataLogSize={}\ntickTime={}\nmaxClientCnxns={}\nminSessionTimeout={}\n\
         maxSessionTimeout={}\nserverId={}\n",
        around.port,
        config.data_dir.display(),
        around.snapshot_bytes,
        config.data_log_dir.as_ref().unwrap_or(&config.data_dir).display(),
        around.log_bytes,
        config.tick_time.as_millis(),
        config.client_connections_max,
        config.session_timeout_min().as_millis(),
        config.session_timeout_max().as_millis(),
        config.server_id.unwrap_or(0),
    )
}

fn envi() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let directory = std::env::current_dir().unwrap_or_default();
    format!(
        "Environment:\nzookeeper.version={}\nhost.name={}\nos.name={}\nos.arch={}\nuser.dir={}\n",
        crate::service::VERSION,
        host.trim(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        directory.display()
    )
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn open_files_max() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}
