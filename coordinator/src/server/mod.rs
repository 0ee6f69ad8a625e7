//! The shell: opens the data, listens, accepts, stops.

mod complaints;
mod link;
mod node;
mod peer;
mod place;
mod words;
mod writer;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use elkfk_base::Tasks;
use elkfk_base::durable::{DataDirectory, DirectoryError, sync_parent};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{error, info, warn};

use complaints::Complaints;
pub(crate) use link::Shared;
pub use place::PlaceError;
pub(crate) use words::{
    Asked, Leading, Member, Membership, Role, Surroundings, WORDS, directory_bytes, environment,
    measures,
};

use crate::admin::{self, AdminError};
use crate::config::Config;
use crate::consensus::Consensus;
use crate::ensemble;
use crate::machine::Rules;
use crate::recovery::{Recovered, RecoveryError, mark_repairing, recover};
use crate::replica::{Replica, Terms};
use crate::service::{Now, Service, Settings, WATCH_BYTES_MAX};
use crate::snapshots::SnapshotError;
use crate::wal::disk::{Directory, Disk};
use crate::wal::{SEGMENT_BYTES, WalError};

/// Of the files this program writes below the data directory.
const FORMAT_VERSION: u32 = 1;
/// Our folder below dataDir and dataLogDir: their other files are ZooKeeper's.
const FOLDER: &str = "elkfk";
/// Inputs on their way to the node. Their bytes are counted by the budget.
const INPUTS_QUEUED_MAX: usize = 1024;
/// Bytes of requests all clients together may have unanswered.
const BUDGET_BYTES: usize = 64 << 20;
/// Messages of other servers on their way to the node.
const PEER_INPUTS_QUEUED_MAX: usize = 64;
const CONTACT_LIMIT_MIN: Duration = Duration::from_millis(1500);
/// Of zoo.cfg, where it has none.
const SYNC_LIMIT: u32 = 5;
/// What another server's message may be large at least; below it jute.maxbuffer need not be the same
/// everywhere.
const PEER_MESSAGE_BYTES_MIN: usize = 64 << 20;
/// Accepting pauses this long when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the coordinator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "listen on {addr}: address in use; stop the program that holds it or give another with clientPort=…"
    )]
    InUse { addr: SocketAddr },
    #[error("listen on {addr}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error(
        "listen for the other servers on {host}:{port}: the line server.{id} of zoo.cfg gives this server's own host and peer port"
    )]
    ListenForPeers { id: u64, host: String, port: u16, source: io::Error },
    #[error(
        "zoo.cfg lists several servers, and nothing says which of them this is: write its number into dataDir/myid"
    )]
    WhichServer,
    #[error("set damaged files aside in {path}")]
    SetAside { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    #[error(
        "{path} holds the data of a ZooKeeper, which this program does not read; \
         give another dataDir, or move that folder away to start with an empty tree"
    )]
    ZooKeeperData { path: PathBuf },
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("open snapshots in {path}")]
    Snapshots { path: PathBuf, source: SnapshotError },
    #[error("open log in {path}")]
    Log { path: PathBuf, source: WalError },
    #[error("start consensus")]
    Consensus(#[from] raft::Error),
    #[error("coordinator stopped while it started: {0}")]
    Stopped(String),
}

/// A coordinator that serves.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    tasks: Tasks,
    node: Tasks,
    failed: watch::Receiver<Option<String>>,
    is_ensemble: bool,
    _directories: Vec<DataDirectory>,
}

impl Running {
    /// Whether it serves only once a majority of its ensemble has started.
    pub fn waits_for_a_majority(&self) -> bool {
        self.is_ensemble
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Stops in order: no new clients, what is in flight made durable and answered, then the rest.
    /// Sessions go on when it starts again.
    pub async fn stop(self) {
        // The node first: it hands out the last answers, which the connections then send.
        self.node.shutdown().await;
        self.tasks.shutdown().await;
        info!("coordinator stopped");
    }

    /// Resolves when it can no longer serve, with the reason.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        match failed.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // Told to stop it says nothing here, so this is a panic.
            Err(_) => "its task has ended; the log says why".to_owned(),
        }
    }
}

pub(crate) fn data_path(directory: &Path) -> PathBuf {
    directory.join(FOLDER)
}

/// Starts a coordinator; clients can connect when this returns.
pub async fn start(config: Config) -> Result<Running, StartError> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let started = Instant::now();
    let listener = listen(config.listen).await?;
    if config.servers.len() > 1 && config.own_server().is_none() {
        return Err(StartError::WhichServer);
    }
    let peer_listener = match config.own_server() {
        Some(own) => Some(listen_for_peers(own, config.listens_on_all).await?),
        None => None,
    };
    let admin = admin::bind(&config.admin).await?;
    let config = Arc::new(config);
    let opening = config.clone();
    // Reading the log back takes as long as it takes, and blocks.
    let (directories, recovered) = tokio::task::spawn_blocking(move || open(&opening))
        .await
        .map_err(|error| StartError::Stopped(error.to_string()))??;

    let snapshots = Directory::new(&data_path(&config.data_dir));
    let listeners = (listener, peer_listener);
    let running = serve_recovered(listeners, admin, config, recovered, snapshots, started).await?;
    Ok(Running { _directories: directories, ..running })
}

/// Serves what was read back; that began at `started`.
async fn serve_recovered<D: Disk>(
    (listener, peer_listener): (TcpListener, Option<TcpListener>),
    admin: Vec<admin::Bound>,
    config: Arc<Config>,
    recovered: Recovered<D>,
    snapshots: D,
    started: Instant,
) -> Result<Running, StartError> {
    let local_addr = listener
        .local_addr()
        .map_err(|source| StartError::Listen { addr: config.listen, source })?;
    let millis = |timeout: Duration| i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let settings = Settings {
        server: config.raft_id(),
        session_timeout_ms_min: millis(config.session_timeout_min()),
        session_timeout_ms_max: millis(config.session_timeout_max()),
        frame_bytes_max: config.frame_bytes_max,
        has_linearizable_reads: config.has_linearizable_reads,
        rules: Rules {
            extended_types: config.extended_types,
            enforce_quota: config.enforce_quota,
            reconfig: config.reconfig,
        },
        super_digest: config.super_digest.clone(),
        watch_bytes_max: WATCH_BYTES_MAX,
    };
    let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let now = Now { steady_ms: 1, wall_ms: wall.as_millis() as i64 };
    // With the service, not with this start: to read a long log back takes sessions no time.
    let epoch = Instant::now();
    let tree = &recovered.machine.tree;
    let (znodes, digest) = (tree.len(), format!("{:016x}", tree.digest()));
    let boot = rand::random();
    let mut snapshot = node::SnapshotState::new();
    snapshot.index = recovered.snapshot_index;
    let mut consensus = recovered.consensus;
    if recovered.machine.index() == recovered.snapshot_index && recovered.snapshot_index > 0 {
        let members = consensus.members();
        consensus.offer_snapshot(recovered.snapshot_index, recovered.machine.term(), members);
    }
    let terms = Terms {
        id: config.raft_id(),
        contact_limit_ms: contact_limit(&config).as_millis() as u64,
        secret: rand::random(),
        servers: by_id(&config.servers),
    };
    let service = Service::new(recovered.machine, settings, boot, now);
    let (is_empty, is_joining) = (recovered.has_empty_log, recovered.is_joining);
    let replica = Replica::new(service, consensus, terms, now, is_empty, is_joining);

    let (tasks, node_tasks) = (Tasks::new(), Tasks::new());
    let (inputs, received) = mpsc::channel(INPUTS_QUEUED_MAX);
    let shared = Arc::new(link::Shared {
        inputs,
        budget: Semaphore::new(BUDGET_BYTES.max(config.frame_bytes_max * 4)),
        frame_bytes_max: config.frame_bytes_max,
        words: words::Whitelist::new(&config.words),
        open: AtomicUsize::new(0),
        next: AtomicU64::new(1),
        complaints: Complaints::default(),
        stop: tasks.token(),
    });
    let (log, log_tasks) = std::sync::mpsc::sync_channel(node::LOG_TASKS_MAX);
    let (notifier, notices) = mpsc::channel(16);
    let (failed_sender, failed) = watch::channel(None);
    // Held by the threads alone: when the log's has ended, the node hears of it.
    let weak_notifier = notifier.downgrade();
    let wal = recovered.wal;
    node_tasks.spawn_blocking(move || writer::write_log(wal, snapshots, &log_tasks, &notifier));
    let (peer_sender, peer_inputs) = mpsc::channel(PEER_INPUTS_QUEUED_MAX);
    let peers = peer_listener.map(|listener| {
        // The leader's own jute.maxbuffer, which may be larger, bounds what it sends.
        let bytes_max = config.frame_bytes_max.max(PEER_MESSAGE_BYTES_MIN) + (64 << 10);
        let path = data_path(&config.data_dir);
        let id = config.raft_id();
        let peers = peer::Peers::new(id, boot, bytes_max, path, peer_sender, tasks.clone());
        peers.start(listener, replica.servers());
        peers
    });
    let is_ensemble = peers.is_some();
    let node = node::Node {
        replica,
        peers,
        peer_inputs,
        config: config.clone(),
        shared: shared.clone(),
        port: local_addr.port(),
        tasks: node_tasks.clone(),
        log,
        notices,
        notifier: weak_notifier,
        failed: failed_sender,
        links: HashMap::new(),
        snapshot,
        log_bytes: 0,
        epoch,
    };
    let (ready, is_ready) = oneshot::channel();
    node_tasks.spawn("coordinator", node.run(received, ready, node_tasks.token()));
    if is_ready.await.is_err() {
        let why = failed.borrow().clone().unwrap_or_else(|| "no reason given".to_owned());
        return Err(StartError::Stopped(why));
    }
    for bound in admin {
        tasks.spawn("coordinator admin", admin::serve(bound, shared.clone(), tasks.clone()));
    }
    tasks.spawn("coordinator accept", accept(listener, shared, config, tasks.clone()));
    let after_ms = started.elapsed().as_millis() as u64;
    match is_ensemble {
        true => {
            info!(addr = %local_addr, znodes, digest, after_ms, "coordinator is up, and serves when a majority is");
        }
        false => info!(addr = %local_addr, znodes, digest, after_ms, "coordinator ready"),
    }
    Ok(Running {
        local_addr,
        tasks,
        node: node_tasks,
        failed,
        is_ensemble,
        _directories: Vec::new(),
    })
}

async fn listen(addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::InUse { addr },
        _ => StartError::Listen { addr, source },
    })
}

fn by_id(servers: &[ensemble::Server]) -> Vec<ensemble::Server> {
    let mut servers = servers.to_vec();
    servers.sort_unstable_by_key(|server| server.id);
    servers
}

/// Listens for the other servers where this server's own line says.
async fn listen_for_peers(
    own: &ensemble::Server,
    listens_on_all: bool,
) -> Result<TcpListener, StartError> {
    let host = if listens_on_all { "0.0.0.0" } else { &own.host };
    let port = own.peer_port;
    TcpListener::bind((host, port)).await.map_err(|source| StartError::ListenForPeers {
        id: own.id,
        host: host.to_owned(),
        port,
        source,
    })
}

/// All clients are sent away when contact with the leader was lost for this long, as in ZooKeeper;
/// each by itself before its session could be over for the leader.
fn contact_limit(config: &Config) -> Duration {
    let ticks = if config.sync_limit > 0 { config.sync_limit } else { SYNC_LIMIT };
    (config.tick_time * ticks).max(CONTACT_LIMIT_MIN)
}

/// Claims the directories and reads what is in them.
fn open(config: &Config) -> Result<(Vec<DataDirectory>, Recovered<Directory>), StartError> {
    let log_dir = config.data_log_dir.as_ref().unwrap_or(&config.data_dir);
    let (path, log_path) = (data_path(&config.data_dir), data_path(log_dir));
    for directory in [&config.data_dir, log_dir] {
        let foreign = directory.join("version-2");
        if foreign.exists() && !data_path(directory).exists() {
            return Err(StartError::ZooKeeperData { path: foreign });
        }
    }
    let mut directories = vec![claim(&path)?];
    if log_path != path {
        directories.push(claim(&log_path)?);
    }
    place::check(&path, &log_path)?;
    let members = ensemble::members(&config.servers, config.raft_id());
    let read = || {
        let (disk, log_disk) = (Directory::new(&path), Directory::new(&log_path));
        recover(disk, log_disk, config.raft_id(), &members, SEGMENT_BYTES)
    };
    let recovered = match read() {
        Err(damage) if damage.is_damage() && members.voters.len() > 1 => {
            set_aside(&path, &log_path, &damage)?;
            read()
        }
        recovered => recovered,
    };
    let recovered = recovered.map_err(|error| match error {
        RecoveryError::Snapshots(source) => StartError::Snapshots { path: path.clone(), source },
        RecoveryError::Log(source) => StartError::Log { path: log_path.clone(), source },
        RecoveryError::Mark(source) => StartError::SetAside { path: log_path.clone(), source },
        RecoveryError::Consensus(source) => StartError::Consensus(source),
    })?;
    place::record(&path, &log_path)?;
    Ok((directories, recovered))
}

/// Moves what cannot be used out of the way. The other servers have it all; this one does not vote
/// until it has it again.
fn set_aside(path: &Path, log_path: &Path, damage: &RecoveryError) -> Result<(), StartError> {
    let aside = (1..).map(|number| path.join(format!("damaged-{number}")));
    let aside = aside.into_iter().find(|aside| !aside.exists()).expect("numbers do not end");
    let failed = |source| StartError::SetAside { path: aside.clone(), source };
    mark_repairing(&mut Directory::new(log_path)).map_err(failed)?;
    std::fs::create_dir(&aside).map_err(failed)?;
    for directory in [path, log_path] {
        for name in Directory::new(directory).list().map_err(failed)? {
            if name.starts_with("log-0") || name.starts_with("snapshot-") {
                std::fs::rename(directory.join(&name), aside.join(&name)).map_err(failed)?;
            }
        }
        let _ = elkfk_base::durable::sync_directory(directory);
    }
    error!(%damage, aside = %aside.display(), "what is on the disk is damaged: it is set aside, and copied anew from the other servers");
    Ok(())
}

pub(crate) fn claim(path: &Path) -> Result<DataDirectory, DirectoryError> {
    let directory = DataDirectory::open(path, FORMAT_VERSION)?;
    // Or a power cut could take the folder away with all that was made durable in it. What is above
    // need not be readable for us; where it is not, it was made before.
    for path in path.ancestors().take(2) {
        let _ = sync_parent(path);
    }
    Ok(directory)
}

/// The next connection, however long it takes; `None` once the tasks are told to stop.
pub(crate) async fn next_connection(
    listener: &TcpListener,
    tasks: &Tasks,
) -> Option<(TcpStream, SocketAddr)> {
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.stopping() => return None,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => return Some(accepted),
            Err(error) => {
                warn!(%error, at = ?listener.local_addr(), "connections cannot be accepted for now");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How many connections each address has.
type PerAddress = Arc<Mutex<HashMap<IpAddr, usize>>>;

async fn accept(
    listener: TcpListener,
    shared: Arc<link::Shared>,
    config: Arc<Config>,
    tasks: Tasks,
) {
    let per_address = PerAddress::default();
    while let Some((stream, peer)) = next_connection(&listener, &tasks).await {
        let Some(counted) = Counted::new(&per_address, peer.ip(), config.client_connections_max)
        else {
            crate::metrics::REFUSED_CONNECTIONS.inc();
            if shared.complaints.may_tell(Instant::now()) {
                warn!(%peer, limit = config.client_connections_max, "too many connections from this address (maxClientCnxns)");
            }
            continue;
        };
        let shared = shared.clone();
        tasks.spawn("coordinator client", serve(shared, stream, peer, counted));
    }
}

async fn serve(shared: Arc<link::Shared>, stream: TcpStream, peer: SocketAddr, counted: Counted) {
    shared.open.fetch_add(1, Ordering::Relaxed);
    link::serve(shared.clone(), stream, peer).await;
    shared.open.fetch_sub(1, Ordering::Relaxed);
    drop(counted);
}

/// One connection of an address, counted while it lives.
struct Counted {
    per_address: PerAddress,
    addr: IpAddr,
}

impl Counted {
    /// `None` where the address has as many as it may; a `limit` of 0 is none.
    fn new(per_address: &PerAddress, addr: IpAddr, limit: usize) -> Option<Self> {
        let mut counts = per_address.lock().expect("no panic while held");
        let count = counts.entry(addr).or_default();
        if limit > 0 && *count >= limit {
            return None;
        }
        *count += 1;
        Some(Self { per_address: per_address.clone(), addr })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.per_address.lock().expect("no panic while held");
        if let Some(count) = counts.get_mut(&self.addr) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.addr);
            }
        }
    }
}

#[cfg(test)]
mod tests;
